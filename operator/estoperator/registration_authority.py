"""The operator as registration authority: of each issuer a certificate that lets it sign Full PKI Requests, its key in memory alone.

Each certificate has a key of its own. For a key that it knows estserver takes a simpleenroll for a retry, for ten minutes, and gives the
certificate of before, which is worth nothing where the CA was replaced meanwhile. It gives the certificate (clientAuth and id-kp-cmcRA, RFC
6402 section 2.10) to whoever has the ServiceAccount token that the chart names, and takes the signature only together with that token.
The certificate of one issuer is worth nothing at another.
"""

from collections.abc import Awaitable, Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from estcore import full_request
from estcore.cms_signature import MessageSigner, signer_of
from estcore.errors import ServerUnavailable
from estcore.extension_request import CMC_RA
from estcore.full_exchange import FullRequest
from estcore.full_request import Vouched

COMMON_NAME = "est-issuer operator"

Enrol = Callable[[str | None, bytes], Awaitable[x509.Certificate]]
"""Label and CSR (DER) → certificate, by the ServiceAccount token. Raises errors of the ClientError branch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A certificate and who signs with its key.

    `ca_sha256` names the CA certificate that the issuer had then; `renew_at` is half of its life.
    """

    certificate: x509.Certificate = field(repr=False)
    signer: MessageSigner = field(repr=False)
    ca_sha256: str | None
    renew_at: datetime


class RegistrationAuthority:
    """Belongs to one event loop. `now` is the clock: aware, UTC."""

    def __init__(self, enrol: Enrol, *, now: Callable[[], datetime]) -> None:
        self._enrol, self._now = enrol, now
        self._credentials: dict[str | None, Credential] = {}

    def is_fresh(self, label: str | None, ca_sha256: str | None) -> bool:
        """Whether the certificate of the issuer at `label` is there, of its present CA and in the first half of its life."""
        credential = self._of(label, ca_sha256)
        return credential is not None and self._now() < credential.renew_at

    def is_usable(self, label: str | None, ca_sha256: str | None) -> bool:
        """Whether what is there is valid still."""
        credential = self._of(label, ca_sha256)
        return credential is not None and self._now() < credential.certificate.not_valid_after_utc

    async def register(self, label: str | None, ca_sha256: str | None) -> None:
        """Get a certificate of the issuer. Raises errors of the ClientError branch."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = await self._enrol(label, _csr(key))
        begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        self._credentials[label] = Credential(
            certificate=certificate, signer=signer_of(key), ca_sha256=ca_sha256, renew_at=begin + (end - begin) / 2
        )

    def forget(self, label: str | None) -> None:
        """The issuer does not know the certificate any more."""
        self._credentials.pop(label, None)

    def keep(self, labels: AbstractSet[str | None]) -> None:
        """Forget the certificates of all other labels: their issuers are gone."""
        for label in self._credentials.keys() - labels:
            del self._credentials[label]

    def sign(self, label: str | None, vouched: Vouched) -> FullRequest:
        """The Full PKI Request for the issuer at `label`. Raises ServerUnavailable where we are no registration authority there yet."""
        credential = self._credentials.get(label)
        if credential is None:
            raise ServerUnavailable("the operator has no registration authority certificate of this issuer yet")
        content_info_der = full_request.sign_by_certificate(full_request.vouched_body(vouched), credential.certificate, credential.signer)
        return FullRequest(content_info_der=content_info_der, transaction_id=vouched.transaction_id)

    def _of(self, label: str | None, ca_sha256: str | None) -> Credential | None:
        credential = self._credentials.get(label)
        return credential if credential is not None and credential.ca_sha256 == ca_sha256 else None


def _csr(key: ec.EllipticCurvePrivateKey) -> bytes:
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, COMMON_NAME)]))
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, CMC_RA]), critical=False)
        .sign(key, hashes.SHA256())
        .public_bytes(Encoding.DER)
    )
