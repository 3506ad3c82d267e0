"""A machine outside the cluster: curl and openssl against the NodePort, nothing of ours."""

import base64
import subprocess
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import pkcs7

from tests.e2e.cluster import run

LABEL = "factory"
USER = "device-7"
PASSWORD = "replace-this-example-password"  # of examples/issuer


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What curl got: the final HTTP status and the body's text."""

    status: int
    body: str

    @property
    def certificates(self) -> list[x509.Certificate]:
        """Of a certs-only answer (RFC 8951: base64 without headers)."""
        assert self.status == 200, self
        return pkcs7.load_der_pkcs7_certificates(base64.b64decode(self.body))


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """Keys, CSRs and certificates are files of `directory`; `root` is the root of estserver's own certificate."""

    directory: Path
    root: Path
    port: int

    def key_and_csr(self, name: str, *, subject: str, san: str = "") -> Path:
        """Make NAME.key and NAME.csr, the base64 of the CSR's DER; the path of the latter."""
        extension = ["-addext", f"subjectAltName={san}"] if san else []
        der = self.directory / f"{name}.der"
        run(
            *("openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", subject),
            *("-keyout", str(self.directory / f"{name}.key"), "-outform", "DER", "-out", str(der)),
            *extension,
        )
        csr = self.directory / f"{name}.csr"
        csr.write_bytes(base64.b64encode(der.read_bytes()))
        return csr

    def post(self, operation: str, csr: Path, *options: str, seconds: float = 30) -> Answer:
        """POST a CSR; `options` are curl's: credentials, retries."""
        return self._curl(
            operation, *("--header", "Content-Type: application/pkcs10", "--data-binary", f"@{csr}"), *options, seconds=seconds
        )

    def with_password(self, password: str = PASSWORD) -> tuple[str, ...]:
        return ("--user", f"{USER}:{password}")

    def with_certificate(self, name: str) -> tuple[str, ...]:
        return ("--cert", str(self.directory / f"{name}.pem"), "--key", str(self.directory / f"{name}.key"))

    def ca_certificates(self) -> list[x509.Certificate]:
        return self._curl("cacerts", seconds=30).certificates

    def _curl(self, operation: str, *options: str, seconds: float) -> Answer:
        url = f"https://127.0.0.1:{self.port}/.well-known/est/{LABEL}/{operation}"
        done = subprocess.run(
            ["curl", "--silent", "--show-error", "--cacert", str(self.root), "--write-out", "\n%{http_code}", *options, url],
            capture_output=True,
            text=True,
            timeout=seconds,
        )
        assert done.returncode in {0, 22}, done.stderr
        body, _, status = done.stdout.rpartition("\n")
        return Answer(status=int(status), body=body)
