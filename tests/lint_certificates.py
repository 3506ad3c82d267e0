"""Runs zlint and pkilint over every certificate that the tests collected (tests/collect.py); any error or warning fails.

Usage: lint_certificates.py [--at-least N]
"""

import argparse
import json
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from collect import COLLECTED
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

ROOT = Path(__file__).parent.parent
SOURCES = "RFC5280,RFC5480,RFC5891,RFC8813,RFC3279,Community"
"""RFC6960 (lints of OCSP responders' certificates) is missing: zlint 3.7.3 lists it and refuses it here as unknown."""
PKILINT = ROOT / ".venv-pkilint" / "bin"


def zlint(program: Path, certificate: Path) -> list[str]:
    """What zlint holds against a certificate in DER."""
    run = subprocess.run([program, "-format", "der", "-includeSources", SOURCES, certificate], capture_output=True, text=True, check=True)
    return [
        f"zlint {lint}: {finding['result']}"
        for lint, finding in json.loads(run.stdout).items()
        if finding["result"] in {"error", "warn", "fatal"}
    ]


def pkilint(certificate: Path) -> list[str]:
    """What pkilint holds against a certificate, and against it together with its issuer where that is known."""
    commands = [[PKILINT / "lint_pkix_cert", "lint", "-s", "WARNING", certificate]]
    issuer = certificate.with_suffix(".issuer.der")
    if issuer.exists():
        commands.append([PKILINT / "lint_pkix_signer_signee_cert_chain", "lint", "-s", "WARNING", issuer, certificate])
    findings = []
    for command in commands:
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode != 0:
            findings.append(f"pkilint: {' '.join((run.stdout + run.stderr).split())}")
    return findings


def main() -> int:
    """Lint what was collected; 0 when there is no finding."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--at-least", type=int, default=1, help="fail where fewer certificates were collected")
    at_least: int = arguments.parse_args().at_least
    tools = subprocess.run([ROOT / "tests" / "tools" / "build"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    certificates = sorted(file for file in COLLECTED.glob("*.der") if not file.name.endswith(".issuer.der"))
    console = Console(stderr=True)
    findings: Counter[str] = Counter()
    example: dict[str, Path] = {}
    with ThreadPoolExecutor() as pool, Progress(console=console) as progress:
        task = progress.add_task("linting certificates", total=len(certificates))
        for certificate, found in zip(
            certificates, pool.map(lambda file: zlint(Path(tools) / "zlint", file) + pkilint(file), certificates), strict=True
        ):
            progress.advance(task)
            for finding in found:
                findings[finding] += 1
                example.setdefault(finding, certificate)
    if findings:
        table = Table("finding", "certificates", "one of them")
        for finding, count in findings.most_common():
            table.add_row(finding, str(count), str(example[finding]))
        console.print(table)
    console.print(f"{len(certificates)} certificates linted by zlint and pkilint, {sum(findings.values())} findings")
    if len(certificates) < at_least:
        console.print(f"at least {at_least} were expected in {COLLECTED}: run the tests first")
        return 1
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
