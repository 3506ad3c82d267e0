"""Runs zlint and pkilint over every certificate that the tests collected (tests/collect.py); any error or warning fails.

Usage: python -m tests.lint_certificates [--at-least N]
"""

import argparse
import json
import re
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from tests.collect import COLLECTED

ROOT = Path(__file__).parent.parent
SOURCES = "RFC5280,RFC5480,RFC5891,RFC8813,RFC3279,Community"
"""RFC6960 is missing: its one lint is of OCSP responses, and zlint 3.7.3 refuses the name in this option."""

FALSE_FINDINGS = {
    # RFC 5280 section 4.2.1.6 asks for an absolute URI by RFC 3986; pkilint asks a library that knows the schemes of web pages only.
    re.compile(r'pkix\.invalid_uri_syntax .*: Invalid URI syntax: "(spiffe://|urn:).*"'),
    # RFC 1034 section 3.5 knows names of one label; estserver's own certificate has this one in directory mode.
    re.compile(r'pkix\.invalid_domain_name_syntax .*: Invalid domain name syntax: "localhost"'),
    # RFC 9525 section 6.3 has the wildcard as the whole left-most label; RFC 5280 section 4.2.1.6 leaves it to others.
    re.compile(r'pkix\.invalid_domain_name_syntax .*: Invalid domain name syntax: "\*\.[^"*]*"'),
    # RFC 5321 section 4.1.2 (which RFC 5280 section 4.2.1.6 refers to) has domains of one label; pkilint asks for a dot.
    re.compile(r'pkix\.invalid_email_address_syntax .*: Invalid e-mail address syntax: "[^"@]+@[a-z0-9-]+"'),
}
"""What is no fault of a certificate, with the clause that says so."""

AS_CERT_MANAGER_ASKS = {
    # RFC 5280 section 4.1.2.6 gives every CA a subject; cert-manager's conformance row asks for one that has a DNS name only.
    ("e_ca_subject_field_empty", b"ca.conformance.example.com"),
    # Section 4.2.1.12 has no dataEncipherment beside serverAuth; a row asks for both.
    ("e_key_usage_and_extended_key_usage_inconsistent", b"usages.conformance.example.com"),
}
"""What is issued as it is asked for, by the lint and the DNS name in the certificate (tests/integration/cert_manager_cases.py)."""


def zlint(program: Path, certificate: Path) -> list[str]:
    """What zlint holds against a certificate in DER."""
    run = subprocess.run([program, "-format", "der", "-includeSources", SOURCES, certificate], capture_output=True, text=True, check=True)
    results = json.loads(run.stdout)
    bad = {lint: finding["result"] for lint, finding in results.items() if finding["result"] in {"error", "warn", "fatal"}}
    der = certificate.read_bytes()
    asked = {lint for lint, name in AS_CERT_MANAGER_ASKS if name in der}
    return [f"zlint {lint}: {result}" for lint, result in bad.items() if lint not in asked]


def pkilint(certificates: list[Path]) -> list[list[str]]:
    """What pkilint holds against each certificate, and against it together with its issuer where that is known."""
    command = [ROOT / ".venv-pkilint" / "bin" / "python", ROOT / "tests" / "tools" / "pkilint_many.py"]
    run = subprocess.run(command, input="\n".join(map(str, certificates)), stdout=subprocess.PIPE, text=True, check=True)
    found = [json.loads(line) for line in run.stdout.splitlines()]
    return [[f"pkilint {text}" for text in texts if not any(false.match(text) for false in FALSE_FINDINGS)] for texts in found]


def show(findings: Counter[str], example: dict[str, Path], console: Console) -> None:
    """One row a kind of finding, the most frequent first."""
    table = Table("finding", "certificates", "one of them")
    for finding, count in findings.most_common():
        table.add_row(finding, str(count), example[finding].name)
    console.print(table)


def main() -> int:
    """Lint what was collected; 0 when there is no finding."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--at-least", type=int, default=1, help="fail where fewer certificates were collected")
    at_least: int = arguments.parse_args().at_least
    tools = Path(subprocess.run([ROOT / "tests" / "tools" / "build"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip())
    certificates = sorted(file for file in COLLECTED.glob("*.der") if not file.name.endswith(".issuer.der"))
    console = Console(stderr=True)
    findings: Counter[str] = Counter()
    example: dict[str, Path] = {}
    with ThreadPoolExecutor() as pool, Progress(console=console) as progress:
        by_pkilint = pool.submit(pkilint, certificates)
        task = progress.add_task("zlint", total=len(certificates))
        by_zlint = []
        for found in pool.map(lambda file: zlint(tools / "zlint", file), certificates):
            progress.advance(task)
            by_zlint.append(found)
    for certificate, one, other in zip(certificates, by_zlint, by_pkilint.result(), strict=True):
        for finding in one + other:
            findings[finding] += 1
            example.setdefault(finding, certificate)
    if findings:
        show(findings, example, console)
    console.print(f"{len(certificates)} certificates linted by zlint and pkilint, {sum(findings.values())} findings")
    if len(certificates) < at_least:
        console.print(f"at least {at_least} were expected in {COLLECTED}: run the tests first")
        return 1
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
