"""Every target under atheris for FUZZ_SECONDS (600), as many at once as there are processors; `make fuzz`.

Words on the command line choose targets. New inputs go to .cache/fuzz/TARGET; with --keep those that reach code that the committed corpus
does not reach are added to tests/fuzz/corpus/TARGET, smallest first. Exit status 1 where a target raised something: the input is in
.cache/fuzz/TARGET-crash-… .
"""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.fuzz.targets import TARGETS  # noqa: E402 - the root is where `tests` is

CORPUS = Path(__file__).with_name("corpus")
FOUND = ROOT / ".cache" / "fuzz"
SECONDS = int(os.environ.get("FUZZ_SECONDS", "600"))
MOST_OCTETS = 4096
MOST_KEPT = 80
"""Files a target, so that the corpus stays small."""
LIMITS = ("-rss_limit_mb=1024", "-timeout=60", f"-max_len={MOST_OCTETS}")


def fuzz(target: str) -> tuple[str, bool, str]:
    """Whether it ran to its end without a fault, with its last line."""
    found = FOUND / target
    found.mkdir(parents=True, exist_ok=True)
    committed = CORPUS / target
    options = [f"-max_total_time={SECONDS}", f"-artifact_prefix={found}-crash-", "-print_final_stats=1", *LIMITS]
    ended = _run(target, str(found), str(committed), *options)
    lines = ended.stderr.splitlines()
    statistics = [line.removeprefix("stat::").strip() for line in lines if line.startswith(("stat::number_of_executed", "stat::peak_rss"))]
    faults = [line for line in lines if "Uncaught Python exception" in line or "ERROR:" in line]
    shown = lines[-40:] if ended.returncode else statistics
    return target, ended.returncode == 0 and not faults, "; ".join(statistics) if not ended.returncode else "\n".join(shown)


def keep(target: str) -> int:
    """Add to the committed corpus what reaches more code than it does; how many."""
    merged = FOUND / f"{target}-merged"
    shutil.rmtree(merged, ignore_errors=True)
    merged.mkdir()
    for file in (CORPUS / target).iterdir():
        shutil.copy2(file, merged)
    _run(target, "-merge=1", *LIMITS, str(merged), str(FOUND / target))
    before = {file.name for file in (CORPUS / target).iterdir()}
    new = sorted((file for file in merged.iterdir() if file.name not in before), key=lambda file: file.stat().st_size)
    for file in new[: max(0, MOST_KEPT - len(before))]:
        shutil.copy2(file, CORPUS / target / file.name)
    return len(new)


def _run(target: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(Path(__file__).with_name("run.py")), target, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace", check=False)


def main(words: list[str]) -> int:
    """Run all, print a line each."""
    targets = [target for target in TARGETS if target in words] or list(TARGETS)
    began = monotonic()
    failed = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for target, fine, text in pool.map(fuzz, targets):
            failed += not fine
            sys.stdout.write(f"{target}: {'no fault' if fine else 'FAULT'}; {text}\n")
            sys.stdout.flush()
        if "--keep" in words:
            for target, count in zip(targets, pool.map(keep, targets), strict=True):
                sys.stdout.write(f"{target}: {count} new inputs reach more code\n")
    sys.stdout.write(f"{len(targets)} targets, {failed} with faults, {monotonic() - began:.0f} s\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
