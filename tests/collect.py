"""Every certificate that a test sees issued goes here; `make lint-certificates` then runs zlint and pkilint over all of them.

Files, not memory: several test processes and tiers add to the same folder.
"""

import hashlib
import os
import sqlite3
from contextlib import closing
from pathlib import Path

COLLECTED = Path(os.environ.get("COLLECTED_CERTIFICATES", Path(__file__).parent.parent / ".cache" / "certificates"))


SHORTEST_CERTIFICATE = 100
"""Octets. The ledger's own tests record shorter stand-ins; no certificate with a key and a signature is so short."""


def collect(certificate_der: bytes, issuer_der: bytes | None = None) -> None:
    """Keep an issued certificate, and its issuer where the test knows it, for the linters."""
    name = hashlib.sha256(certificate_der).hexdigest()[:32]
    _write(COLLECTED / f"{name}.der", certificate_der)
    if issuer_der is not None:
        _write(COLLECTED / f"{name}.issuer.der", issuer_der)


def collect_ledgers(folder: Path) -> None:
    """Keep every certificate of every SQLite ledger below a folder."""
    for file in folder.rglob("ledger.sqlite"):
        try:
            with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as ledger:
                found = ledger.execute("SELECT der FROM certificates WHERE length(der) >= ?", (SHORTEST_CERTIFICATE,)).fetchall()
        except sqlite3.Error:  # tests of ledgers that are none
            continue
        for (certificate_der,) in found:
            collect(certificate_der)


def _write(path: Path, content: bytes) -> None:
    partial = f"{path}.{os.getpid()}.partial"
    try:
        written = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        written = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    os.write(written, content)
    os.close(written)
    os.replace(partial, path)  # noqa: PTH105 - this is done thousands of times, and pathlib takes as long as the disk
