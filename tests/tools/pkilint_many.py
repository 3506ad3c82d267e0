"""Runs pkilint over many certificates in one process: paths on standard input, one JSON list of findings per line on standard output.

For the interpreter of .venv-pkilint. Beside `X.der` may stand `X.issuer.der`; the pair is then linted as issuer and subject too.
pkilint's own commands take a file each, and starting them costs ten times what linting does.
"""

import contextlib
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

from pkilint.bin import lint_pkix_cert, lint_pkix_signer_signee_cert_chain


def findings(lint: Callable[[list[str]], int], *files: Path) -> list[str]:
    """The lines of a report: a finding is `validator @ path: code (SEVERITY): text`, over two lines."""
    report = io.StringIO()
    with contextlib.redirect_stdout(report), contextlib.redirect_stderr(report):
        failed = lint(["lint", "-s", "WARNING", "-f", "JSON", *map(str, files)])
    if not failed:
        return []
    try:
        results = json.loads(report.getvalue())["results"]
    except ValueError:
        return [report.getvalue().strip()]
    return [
        f"{finding['code']} ({finding['severity']}): {finding.get('message', '')}"
        for result in results
        for finding in result["finding_descriptions"]
    ]


for line in sys.stdin:
    certificate = Path(line.strip())
    issuer = certificate.with_suffix(".issuer.der")
    found = findings(lint_pkix_cert.main, certificate)
    if issuer.exists():
        found += findings(lint_pkix_signer_signee_cert_chain.main, issuer, certificate)
    print(json.dumps(found), flush=True)  # noqa: T201 - its output
