"""The self-check before a certificate is written, and the order of what is written with it. Pure.

Contracts 16 to 19: `certificate` is the leaf and each issuer above it up to the highest that is not self-signed; `ca` is the
self-signed root, else the top of what is known. cert-manager refuses a leaf with another key or one that has expired, so we do first.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from estcore.errors import ConfigurationError, MalformedResponse


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """One CA certificate of an issuer's bundle, and what is written beside a leaf that it signed. PEM."""

    authority: x509.Certificate
    intermediates_pem: bytes = field(repr=False)
    ca_pem: bytes = field(repr=False)


def chains(bundle_pem: bytes) -> tuple[Chain, ...]:
    """A chain for each certificate of a CA bundle, in the bundle's order; raises ConfigurationError where it holds none."""
    try:
        certificates = x509.load_pem_x509_certificates(bundle_pem)
    except ValueError as error:
        raise ConfigurationError("the CA bundle does not hold certificates as PEM") from error
    return tuple(_chain(certificate, certificates) for certificate in certificates)


def deliver(certificate: x509.Certificate, *, spki_der: bytes, known: Sequence[Chain], now: datetime) -> tuple[bytes, bytes]:
    """The `certificate` and `ca` to write, PEM, after the self-check.

    `spki_der` is the SubjectPublicKeyInfo of the CSR. Raises MalformedResponse where the leaf has another key, is not valid now,
    or was signed by none of the CA certificates that we know.
    """
    if certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) != spki_der:
        raise MalformedResponse("the certificate that came back is for another key than the CSR's")
    if certificate.not_valid_after_utc <= now:
        raise MalformedResponse("the certificate that came back has expired")
    for chain in known:
        if _signed_by(certificate, chain.authority):
            return certificate.public_bytes(Encoding.PEM) + chain.intermediates_pem, chain.ca_pem
    raise MalformedResponse("the certificate that came back was signed by none of the issuer's CA certificates known so far")


def _chain(authority: x509.Certificate, pool: Sequence[x509.Certificate]) -> Chain:
    path = [authority]
    while not _signed_by(path[-1], path[-1]):
        above = next((candidate for candidate in pool if candidate not in path and _signed_by(path[-1], candidate)), None)
        if above is None:
            break
        path.append(above)
    top = path[-1]
    below_root = path[:-1] if _signed_by(top, top) else path
    return Chain(
        authority=authority,
        intermediates_pem=b"".join(certificate.public_bytes(Encoding.PEM) for certificate in below_root),
        ca_pem=top.public_bytes(Encoding.PEM),
    )


def _signed_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    if certificate.issuer != authority.subject:
        return False
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
