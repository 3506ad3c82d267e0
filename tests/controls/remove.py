"""Remove each control in turn, and show that a test fails: a control that no test misses is a wish.

controls.toml names the controls: a piece of one file that stands there exactly once, what is written in its stead so that the control is
gone, and the tests that must fail then. Each is applied to a copy of the tree, and pytest runs in that copy, in a child of this program,
which has loaded the libraries once for all. `make controls` runs all; words on the command line choose those whose row or name has one.
"""

import gc
import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import traceback
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from time import monotonic, time

import pytest

ROOT = Path(__file__).parents[2]
CONTROLS = Path(__file__).with_name("controls.toml")
ROWS = frozenset(f"THREAT-{number:02d}" for number in (*range(1, 18), *range(20, 26)))
"""The rows of threats that must each have a control here."""
PARALLEL = 2
TEST_SECONDS = 60
BROKEN = 70
OUTPUT = "pytest-output.txt"
LIBRARIES = (
    "aiohttp",
    "asn1crypto.cms",
    "cryptography.x509",
    "fastapi",
    "hypothesis",
    "httpx",
    "kopf",
    "OpenSSL.SSL",
    "pydantic",
    "pytest_asyncio",
    "sqlalchemy",
    "structlog",
    "uvicorn",
    "yaml",
)
"""What takes long to load and is the same in every copy."""
TESTS_FAILED = 1
"""pytest's exit status where tests ran and failed; anything else is a test that did not run or did not fail."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """What is there, what it is without it, and who notices."""

    row: str
    control: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


class Unfit(Exception):
    """The table and the tree do not fit each other."""


def read(text: str) -> list[Control]:
    """The table. Raises Unfit where a row has no control or a control removes nothing."""
    controls = [Control(**{**each, "tests": tuple(each["tests"])}) for each in tomllib.loads(text)["control"]]
    missing = ROWS - {control.row for control in controls}
    if missing:
        raise Unfit(f"no control for {', '.join(sorted(missing))}")
    for control in controls:
        if control.old == control.new or not control.tests:
            raise Unfit(f"{control.row} {control.control}: it changes nothing, or nobody notices")
    return controls


def removed(control: Control, source: str) -> str:
    """The file without the control. Raises Unfit where the piece is not there exactly once."""
    if source.count(control.old) != 1:
        raise Unfit(f"{control.row} {control.control}: {control.file} has {control.old!r} {source.count(control.old)} times, not once")
    return source.replace(control.old, control.new)


def copy_tree(to: Path) -> None:
    """What git has of the working tree, changed files as they are."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True
    )
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)


def start_tests(tree: Path, tests: Iterable[str], output: Path) -> int:
    """Run pytest in a copy of the tree, in a child that has every library loaded already and nothing of the project; its id."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    status = BROKEN
    try:
        with output.open("wb") as written:
            for stream in (1, 2):
                os.dup2(written.fileno(), stream)
        os.chdir(tree)
        os.environ["PYTHONPATH"] = f"{tree}:{tree / 'operator'}"  # for the programs that tests start
        # Each pytest clears old folders away, and fails where another one beside it does the same.
        temporary = tree.with_name(f"{tree.name}-files")
        temporary.mkdir(exist_ok=True)
        os.environ["PYTEST_DEBUG_TEMPROOT"] = str(temporary)
        sys.path[:0] = [str(tree), str(tree / "operator")]
        loaded = "ignore::pytest.PytestAssertRewriteWarning"  # plugins that are loaded already
        options = ["-x", "-q", "--no-header", "-p", "no:cacheprovider", "-p", "no:xdist", "-W", loaded, "-o", f"timeout={TEST_SECONDS}"]
        status = pytest.main([*options, *tests])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)  # nothing of the parent's is the child's to clean up


_moments = itertools.count(int(time()))


def _write(file: Path, source: str) -> None:
    """With a time of its own: Python takes compiled code for that of a source of the same second and length."""
    file.write_text(source)
    moment = next(_moments)
    os.utime(file, (moment, moment))


def judge(status: int, output: str) -> tuple[bool, str]:
    """Whether a test missed the control; with the test that did, or what happened instead."""
    failed = re.search(r"^(FAILED|ERROR) (\S+?::\w+)", output, re.MULTILINE)
    if status == TESTS_FAILED and failed and failed[1] == "FAILED":
        return True, failed[2].removeprefix("tests/")
    return False, "\n".join(["no test noticed" if status == 0 else f"pytest ended with {status}", *output.splitlines()[-25:]])


def try_all(controls: Sequence[Control], trees: Sequence[Path]) -> Iterator[tuple[Control, bool, str]]:
    """Each control with its judgement, as they end; as many at once as there are trees."""
    waiting, free, running = list(reversed(controls)), list(trees), dict[int, tuple[Control, Path]]()
    while waiting or running:
        while waiting and free:
            control, tree = waiting.pop(), free.pop()
            _write(tree / control.file, removed(control, (ROOT / control.file).read_text()))
            running[start_tests(tree, control.tests, tree / OUTPUT)] = control, tree
        child, status = os.wait()
        control, tree = running.pop(child)
        _write(tree / control.file, (ROOT / control.file).read_text())
        free.append(tree)
        yield control, *judge(os.waitstatus_to_exitcode(status), (tree / OUTPUT).read_text(errors="replace"))


def _unfit(control: Control) -> str:
    try:
        removed(control, (ROOT / control.file).read_text())
    except (Unfit, OSError) as fault:
        return str(fault)
    return ""


def main(words: list[str]) -> int:
    """Try all, print a table. Exit status 1 where a control was not missed."""
    controls = [
        control for control in read(CONTROLS.read_text()) if not words or any(word in f"{control.row} {control.control}" for word in words)
    ]
    unfit = [fault for control in controls if (fault := _unfit(control))]
    if unfit:
        raise Unfit("\n".join(unfit))
    for library in LIBRARIES:
        import_module(library)
    gc.freeze()
    began = monotonic()
    unnoticed = []
    with tempfile.TemporaryDirectory() as folder:
        trees = [Path(folder) / f"tree-{number}" for number in range(PARALLEL)]
        for tree in trees:
            copy_tree(tree)
        for control, noticed, by in try_all(controls, trees):
            sys.stdout.write(f"{control.row}  {'removed: ' + control.control:<75} {by if noticed else 'NOT NOTICED'}\n")
            sys.stdout.flush()
            if not noticed:
                unnoticed.append(f"{control.row} {control.control}: {by}")
    sys.stdout.write(f"{len(controls)} controls, {len(unnoticed)} that no test missed, {monotonic() - began:.0f} s\n")
    sys.stderr.writelines(f"\n{each}\n" for each in unnoticed)
    return 1 if unnoticed else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Unfit as fault:
        sys.exit(str(fault))
