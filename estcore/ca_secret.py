"""The entries of a CA's Secret, read and checked: nothing comes out that could sign wrongly.

A half-written Secret, another certificate's key, a chain with a hole, a certificate that cannot be read: each is refused by the name of
its Secret and entry. Source: threats row 27; cert-manager's layout and checks (contracts 29 and 27).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from estcore import roll_over
from estcore.errors import BadCsr, ConfigurationError
from estcore.foreign import foreign
from estcore.keys import PrivateKey, key_algorithm, signature_hash, spki_der
from estcore.names import describe_name

MAX_CHAIN: Final = 8
MAX_PEM_OCTETS: Final = 256 * 1024
"""Each entry of a CA Secret; Kubernetes takes 1 MiB for the whole."""
MAX_CA_OCTETS: Final = 64 * 1024
"""All certificates of a CA, DER: twelve of RSA 16384, thirty of RSA 4096. They go out whole, in /cacerts and the issuer's status."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CaSecret:
    """What a CA's Secret holds."""

    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    """The certificates above it, each issued by the next."""
    rollover: tuple[x509.Certificate, ...]
    private_key: PrivateKey | None = field(repr=False)
    """None where it is elsewhere."""


def read(
    *,
    certificate_chain_pem: bytes,
    private_key_pem: bytes | None,
    root_pem: bytes | None,
    rollover_pem: bytes | None,
    now: datetime,
    where: str,
) -> CaSecret:
    """Read and check the entries, as `authority.load` says. The key signs once. Raises ConfigurationError with a reason."""
    certificates = _certificates(certificate_chain_pem, where=where, entry="tls.crt")
    roots = _certificates(root_pem, where=where, entry="ca.crt") if root_pem else []
    certificate = certificates[0]
    private_key = _private_key(private_key_pem, where=where) if private_key_pem is not None else None
    if private_key is not None and spki_der(private_key.public_key()) != spki_of(certificate):
        raise _wrong("tls.key is not the key of the first certificate of tls.crt", where=where, reason="KeyMismatch")
    for ca in (*certificates, *roots):
        _check_ca(ca, now=now, where=where)
    chain = _chain(certificates, roots, where=where)
    rollover = _rollover(rollover_pem, (certificate, *chain), now=now, where=where) if rollover_pem else ()
    _check_size((certificate, *chain, *rollover), where=where)
    if private_key is not None:
        _test_key(private_key, where=where)
    return CaSecret(certificate=certificate, chain=chain, rollover=rollover, private_key=private_key)


def _rollover(pem: bytes, path: Sequence[x509.Certificate], *, now: datetime, where: str) -> tuple[x509.Certificate, ...]:
    certificates = [
        certificate for certificate in _certificates(pem, where=where, entry="rollover.crt") if now <= certificate.not_valid_after_utc
    ]
    for certificate in certificates:
        _check_ca(certificate, now=now, where=where)
    roll_over.check(certificates, path=path, where=where)
    return tuple(dict.fromkeys(certificates))


def _check_size(certificates: Sequence[x509.Certificate], *, where: str) -> None:
    octets = {certificate: len(certificate.public_bytes(serialization.Encoding.DER)) for certificate in certificates}
    together = sum(octets.values())
    if together > MAX_CA_OCTETS:
        largest = max(octets, key=octets.__getitem__)
        raise _wrong(
            f"the CA certificates of tls.crt, ca.crt and rollover.crt have {together} octets together, as DER, and a CA may have "
            f"{MAX_CA_OCTETS}; the largest is {describe_name(largest.subject)} with {octets[largest]}",
            where=where,
            reason="SecretInvalidData",
        )


def _wrong(message: str, *, where: str, reason: str) -> ConfigurationError:
    return ConfigurationError(message, where=where, reason=reason)


def _certificates(pem: bytes, *, where: str, entry: str) -> list[x509.Certificate]:
    blocks = pem.count(b"-----BEGIN CERTIFICATE-----")
    if not 0 < blocks <= MAX_CHAIN or len(pem) > MAX_PEM_OCTETS:
        raise _wrong(f"{entry} holds {blocks or 'no'} PEM certificates; it takes 1 to {MAX_CHAIN}", where=where, reason="SecretInvalidData")
    certificates = foreign(
        lambda: [_decoded(certificate) for certificate in x509.load_pem_x509_certificates(pem)],
        lambda: _wrong(f"{entry} holds a certificate that cannot be read", where=where, reason="SecretInvalidData"),
    )
    if len(certificates) != blocks:
        raise _wrong(f"{entry} holds a certificate that is cut off", where=where, reason="SecretInvalidData")
    return certificates


def _decoded(certificate: x509.Certificate) -> x509.Certificate:
    """The certificate, after all that is used of it was read once: the library decodes most of it only then."""
    _ = certificate.version, certificate.serial_number, certificate.extensions, certificate.signature_algorithm_oid
    _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    for name in (certificate.subject, certificate.issuer):
        name.rfc4514_string()
        name.public_bytes()
    spki_of(certificate)
    return certificate


def _private_key(pem: bytes, *, where: str) -> PrivateKey:
    if len(pem) > MAX_PEM_OCTETS:
        raise _wrong("tls.key is too large", where=where, reason="SecretInvalidData")
    try:
        private_key = serialization.load_pem_private_key(pem, password=None)
    except TypeError as error:
        raise _wrong("tls.key is encrypted; store it without a password", where=where, reason="SecretInvalidData") from error
    except Exception as error:  # as in estcore.foreign
        raise _wrong("tls.key holds no PEM private key that can be read", where=where, reason="SecretInvalidData") from error
    try:
        key_algorithm(private_key.public_key())
    except BadCsr as error:
        raise _wrong(f"tls.key: {error}", where=where, reason="SecretInvalidData") from error
    assert isinstance(private_key, PrivateKey)  # noqa: S101 - key_algorithm knows no other
    return private_key


def spki_of(certificate: x509.Certificate) -> bytes:
    """As estcore.keys.spki_der, but of any kind of key: a root may have one that none of our certificates could (Ed448, DSA)."""
    return certificate.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _check_ca(certificate: x509.Certificate, *, now: datetime, where: str) -> None:
    """RFC 5280 section 6.1.4 (k), (n) and 4.1.2.5: a CA, that may sign certificates, now."""
    name = describe_name(certificate.subject)
    try:
        is_ca = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        is_ca = False
    if not is_ca:
        raise _wrong(f"{name} is not a CA certificate (basicConstraints CA:TRUE)", where=where, reason="NotACA")
    try:
        may_sign = certificate.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except x509.ExtensionNotFound:
        may_sign = True
    if not may_sign:
        raise _wrong(f"{name} may not sign certificates (keyUsage without keyCertSign)", where=where, reason="NotACA")
    if not certificate.subject.rdns:
        raise _wrong("a CA certificate has an empty subject (RFC 5280 section 4.1.2.6)", where=where, reason="NotACA")
    if now > certificate.not_valid_after_utc:
        raise _wrong(f"{name} expired on {certificate.not_valid_after_utc:%Y-%m-%d}", where=where, reason="CAExpired")
    if now < certificate.not_valid_before_utc:
        raise _wrong(f"{name} is not valid before {certificate.not_valid_before_utc:%Y-%m-%d}", where=where, reason="CANotYetValid")


def _chain(certificates: Sequence[x509.Certificate], roots: Sequence[x509.Certificate], *, where: str) -> tuple[x509.Certificate, ...]:
    """Those above the first one. The chain may end below a root that is not known; nothing may be missing in its middle."""
    if len(roots) > 1:
        raise _wrong("ca.crt holds more than one certificate; it takes the root only", where=where, reason="SecretInvalidData")
    path = list(certificates)
    if roots and roots[0] != path[-1]:
        path += roots
    for below, above in pairwise(path):
        if not _is_issued_by(below, above):
            raise _wrong(
                f"{describe_name(below.subject)} is not issued by {describe_name(above.subject)}, which follows it: tls.crt is the issuing "
                "CA and then each one's issuer, ca.crt the root",
                where=where,
                reason="ChainIncomplete",
            )
    if roots and not _is_issued_by(path[-1], path[-1]):
        raise _wrong("ca.crt is not self-signed: it takes the root", where=where, reason="ChainIncomplete")
    return tuple(path[1:])


def _is_issued_by(below: x509.Certificate, above: x509.Certificate) -> bool:
    try:
        foreign(lambda: below.verify_directly_issued_by(above), lambda: ConfigurationError("it was issued by another CA"))
    except ConfigurationError:
        return False
    return True


def _test_key(private_key: PrivateKey, *, where: str) -> None:
    """Sign once and verify: a key may be well-formed and wrong (a public point that is not its own, an HSM without a session)."""
    probe = foreign(
        lambda: x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(private_key, signature_hash(private_key)),
        lambda: _wrong("tls.key cannot sign", where=where, reason="SecretInvalidData"),
    )
    if not probe.is_signature_valid:
        raise _wrong("tls.key makes signatures that do not verify", where=where, reason="KeyMismatch")
