"""Every certificate that a test sees issued goes here; `make lint-certificates` then runs zlint and pkilint over all of them.

Files, not memory: several test processes and tiers add to the same folder.
"""

import hashlib
import os
from pathlib import Path

COLLECTED = Path(os.environ.get("COLLECTED_CERTIFICATES", Path(__file__).parent.parent / ".cache" / "certificates"))


def collect(certificate_der: bytes, issuer_der: bytes | None = None) -> None:
    """Keep an issued certificate, and its issuer where the test knows it, for the linters."""
    COLLECTED.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(certificate_der).hexdigest()[:32]
    _write(COLLECTED / f"{name}.der", certificate_der)
    if issuer_der is not None:
        _write(COLLECTED / f"{name}.issuer.der", issuer_der)


def _write(path: Path, content: bytes) -> None:
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial.write_bytes(content)
    partial.replace(path)
