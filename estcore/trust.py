"""Whether a certificate is to be believed: the one place where paths, times and purposes are checked.

TLS proves that the peer has the key of its leaf and nothing more. RFC 5280 section 6 for third parties, by `cryptography`'s verifier; for
our own certificates one signature by one of our own CA certificates. Time is an argument. Certificates are compared whole, never by name
or serial alone. Revocation is the ledger's.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Final, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, ObjectIdentifier

from estcore.errors import BadCsr, ConfigurationError, Unauthenticated
from estcore.extension_request import CMC_RA
from estcore.foreign import foreign
from estcore.keys import check_public_key
from estcore.names import describe_name

MAX_CHAIN_CERTIFICATES: Final = 8
MAX_CHAIN_OCTETS: Final = 32 * 1024
MAX_ANCHORS: Final = 100
MIN_ANCHOR_RSA_BITS: Final = 2048
"""What cryptography's verifier accepts; said at load, not found out at the first client."""

_MALFORMED = "MalformedCertificate"
_UNREADABLE = "a certificate has a name, a key or extensions that cannot be read"
_ANCHOR_CURVES = frozenset({"secp256r1", "secp384r1", "secp521r1"})
_UNDERSTOOD = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    }
)
"""Extensions of our own leaves that are looked at here; another critical one means that somebody else made the certificate."""

_ExtensionT = TypeVar("_ExtensionT", bound=x509.ExtensionType)


class Untrusted(Unauthenticated):
    """A client certificate is not to be believed; `reason` says which check failed. The peer needs another certificate."""

    reason = "UntrustedCertificate"


def check_time(certificate: x509.Certificate, *, now: datetime) -> None:
    """Check that `now` (aware, UTC) is within the certificate's validity, both ends included (RFC 5280 section 4.1.2.5)."""
    if now < certificate.not_valid_before_utc:
        raise Untrusted(f"the certificate is not valid before {certificate.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}", reason="NotYetValid")
    # notAfter is a whole second, and belongs to the validity.
    if now.replace(microsecond=0) > certificate.not_valid_after_utc:
        raise Untrusted(f"the certificate expired at {certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}", reason="Expired")


def verify_issued_by(
    leaf: x509.Certificate,
    ca_certificates: Sequence[x509.Certificate],
    *,
    now: datetime,
    purpose: ObjectIdentifier = ExtendedKeyUsageOID.CLIENT_AUTH,
    expired_for: timedelta = timedelta(0),
) -> None:
    """Check that one of our own CA certificates, present or former, issued this end-entity certificate, and that it is for `purpose`.

    The leaf may have expired as long ago as `expired_for`: it is then judged at its last moment.

    The purpose must be named: a certificate of ours without extendedKeyUsage was granted no purpose, so it authenticates nobody, though
    RFC 5280 would let it. Raises Untrusted.
    """
    issuer = next((ca for ca in ca_certificates if issued(leaf, ca)), None)
    if issuer is None:
        raise Untrusted("the certificate was not issued by this issuer", reason="UnknownIssuer")
    check_time(issuer, now=now)
    last_moment = leaf.not_valid_after_utc
    check_time(leaf, now=last_moment if last_moment < now <= last_moment + expired_for else now)
    extensions = _extensions(leaf)
    foreign = [extension.oid.dotted_string for extension in extensions if extension.critical and extension.oid not in _UNDERSTOOD]
    if foreign:
        raise Untrusted(f"the certificate has a critical extension that is not understood: {foreign[0]}", reason="UnknownExtension")
    _check_end_entity(extensions)
    usage = _find(extensions, x509.ExtendedKeyUsage)
    if usage is None or purpose not in usage:
        raise Untrusted(f"the certificate is not for the purpose {_PURPOSES.get(purpose, purpose.dotted_string)}", reason="WrongPurpose")


def is_registration_authority(leaf: x509.Certificate) -> bool:
    """Whether a certificate, verified to be one of our own, names id-kp-cmcRA (RFC 7030 section 3.7, RFC 6402 section 2.10)."""
    usage = _find(_extensions(leaf), x509.ExtendedKeyUsage)
    return usage is not None and CMC_RA in usage


def verify_under_anchors(
    leaf: x509.Certificate, intermediates: Sequence[x509.Certificate], anchors: Sequence[x509.Certificate], *, now: datetime
) -> None:
    """Check the path from a third party's end-entity certificate to one of the anchors, for client authentication (RFC 5280 section 6).

    `intermediates` are in any order and may hold more than is needed, the anchor too; with the leaf at most 8 certificates and 32 KiB. The
    leaf needs no subjectAltName (device identity certificates have none); one without extendedKeyUsage may authenticate. Its key passes
    the checks of estcore.keys. Raises Untrusted.
    """
    chain = (leaf, *intermediates)
    check_chain_size(chain)
    # The verifier takes an anchor for a path to itself, without asking whether it is a CA's.
    if not anchors or leaf in anchors:
        raise Untrusted("the certificate was not issued under a configured trust anchor", reason="UnknownIssuer")
    check_time(leaf, now=now)
    _check_end_entity(_extensions(leaf))
    # Whoever is believed is named in the ledger, so the names must be readable.
    foreign(lambda: (leaf.subject, leaf.issuer), lambda: Untrusted("the certificate has a name that cannot be read", reason=_MALFORMED))
    public_key = foreign(leaf.public_key, lambda: Untrusted("the certificate has a key that cannot be read", reason=_MALFORMED))
    try:
        check_public_key(public_key)
    except BadCsr as error:
        raise Untrusted(f"the certificate's key is not accepted: {error}", reason=error.reason) from error
    verifier = (
        verification.PolicyBuilder()
        .store(verification.Store(list(anchors)))
        .time(now)
        .max_chain_depth(MAX_CHAIN_CERTIFICATES)
        .extension_policies(ca_policy=_CA_POLICY, ee_policy=_END_ENTITY_POLICY)
        .build_client_verifier()
    )
    try:
        verifier.verify(leaf, list(intermediates))
    except Exception as error:  # as in estcore.foreign, but what it says is worth telling
        raise Untrusted(f"the certificate has no path to a configured trust anchor: {_why(error)}", reason="NoPath") from error


def check_chain_size(chain: Sequence[x509.Certificate]) -> None:
    """Check the bounds of a chain that a peer sent, before anything is done with it; raises Untrusted."""
    if len(chain) > MAX_CHAIN_CERTIFICATES:
        raise Untrusted(f"the client sent {len(chain)} certificates; at most {MAX_CHAIN_CERTIFICATES} are looked at", reason="ChainTooLong")
    octets = sum(len(certificate.public_bytes(serialization.Encoding.DER)) for certificate in chain)
    if octets > MAX_CHAIN_OCTETS:
        raise Untrusted(f"the client sent {octets} octets of certificates; at most {MAX_CHAIN_OCTETS} are looked at", reason="ChainTooLong")


def load_anchors(pem: bytes, *, where: str) -> tuple[x509.Certificate, ...]:
    """Load trust anchors for client certificates from PEM; order does not matter, repeats are dropped.

    Each must be a CA certificate (CA:TRUE, and keyCertSign where it has a keyUsage): an end-entity certificate as anchor would let whoever
    has its key act as a CA (CVE-2024-2048, CVE-2025-6037). Ed25519 is refused, for the verifier does not know it. Expiry is not looked
    at here. Raises ConfigurationError that begins with `where`.
    """
    if b"PRIVATE KEY" in pem:
        raise ConfigurationError("holds a private key; trust anchors are certificates only", where=where)
    certificates = foreign(
        lambda: x509.load_pem_x509_certificates(pem), lambda: ConfigurationError("is not PEM of one certificate or more", where=where)
    )
    anchors = tuple(dict.fromkeys(certificates))
    if len(anchors) > MAX_ANCHORS:
        raise ConfigurationError(f"holds {len(anchors)} certificates; at most {MAX_ANCHORS} are accepted", where=where)
    for anchor in anchors:
        fault = foreign(partial(_anchor_fault, anchor), lambda: ConfigurationError(_UNREADABLE, where=where))
        if fault:
            raise ConfigurationError(f"the certificate {_subject(anchor)!r} cannot be a trust anchor: {fault}", where=where)
    return anchors


def chain_from(ca: x509.Certificate, pool: Sequence[x509.Certificate]) -> tuple[x509.Certificate, ...]:
    """Order the certificates above a CA certificate: `ca` first, a self-signed root last.

    `pool` holds candidates in any order, and may hold others. Each link is a signature that verifies. Raises ConfigurationError where
    the pool lacks a link or has two for the same place.
    """
    chain = [ca]
    while not issued(chain[-1], chain[-1]):
        below = chain[-1]
        above = [candidate for candidate in dict.fromkeys(pool) if candidate not in chain and issued(below, candidate)]
        if not above:
            raise ConfigurationError(f"the chain lacks the CA certificate that issued {_subject(below)!r}")
        if len(above) > 1:
            raise ConfigurationError(f"the chain holds {len(above)} certificates that issued {_subject(below)!r}; leave one")
        if len(chain) == MAX_CHAIN_CERTIFICATES:
            raise ConfigurationError(f"the chain is longer than {MAX_CHAIN_CERTIFICATES} certificates")
        chain.append(above[0])
    return tuple(chain)


def _subject(certificate: x509.Certificate) -> str:
    return foreign(lambda: describe_name(certificate.subject), lambda: ConfigurationError(_UNREADABLE))


def issued(certificate: x509.Certificate, ca: x509.Certificate) -> bool:
    """Whether `ca` is a CA certificate whose name, key identifier and signature all say that it issued `certificate`."""
    try:
        constraints = _find(_extensions(ca), x509.BasicConstraints)
        authority = _find(_extensions(certificate), x509.AuthorityKeyIdentifier)
        subject = _find(_extensions(ca), x509.SubjectKeyIdentifier)
        if constraints is None or not constraints.ca:
            return False
        if authority and subject and authority.key_identifier is not None and authority.key_identifier != subject.digest:
            return False
        foreign(lambda: certificate.verify_directly_issued_by(ca), lambda: Untrusted("not issued by this CA"))
    except Untrusted:
        return False
    return True


def _extensions(certificate: x509.Certificate) -> x509.Extensions:
    return foreign(
        lambda: certificate.extensions,
        lambda: Untrusted("the certificate has extensions that cannot be read", reason=_MALFORMED),
    )


def _find(extensions: x509.Extensions, kind: type[_ExtensionT]) -> _ExtensionT | None:
    return next((extension.value for extension in extensions if isinstance(extension.value, kind)), None)


def _check_end_entity(extensions: x509.Extensions) -> None:
    constraints = _find(extensions, x509.BasicConstraints)
    if constraints is not None and constraints.ca:
        raise Untrusted("the certificate is a CA's, which authenticates nobody", reason="IsCa")
    usage = _find(extensions, x509.KeyUsage)
    # RFC 5246 section 7.4.6 and RFC 8446 section 4.4.2.2: a client's key signs the handshake.
    if usage is not None and not usage.digital_signature:
        raise Untrusted("the certificate's key is not for signatures (keyUsage without digitalSignature)", reason="WrongPurpose")


def _anchor_fault(anchor: x509.Certificate) -> str | None:
    """Why this certificate cannot be a trust anchor, or None."""
    extensions = anchor.extensions
    constraints = _find(extensions, x509.BasicConstraints)
    usage = _find(extensions, x509.KeyUsage)
    public_key = anchor.public_key()
    if constraints is None or not constraints.ca:
        return "it is not a CA certificate (basicConstraints CA:TRUE is missing); name the CA that issued it"
    if usage is not None and not usage.key_cert_sign:
        return "its keyUsage lacks keyCertSign"
    match public_key:
        case rsa.RSAPublicKey() if public_key.key_size >= MIN_ANCHOR_RSA_BITS:
            return None
        case ec.EllipticCurvePublicKey() if public_key.curve.name in _ANCHOR_CURVES:
            return None
        case ed25519.Ed25519PublicKey():
            return "its key is Ed25519, which path validation for third parties does not know; use an RSA or ECDSA anchor"
        case _:
            return f"its key is not RSA with {MIN_ANCHOR_RSA_BITS} bits or more, nor ECDSA on P-256, P-384 or P-521"


def _require_cert_sign(_policy: verification.Policy, _certificate: x509.Certificate, usage: x509.KeyUsage | None) -> None:
    if usage is not None and not usage.key_cert_sign:
        raise ValueError("a CA of the path may not sign certificates")


def _require_client_ca(_policy: verification.Policy, _certificate: x509.Certificate, usage: x509.ExtendedKeyUsage | None) -> None:
    """A CA that is restricted to other purposes vouches for no client, as all TLS libraries have it."""
    if usage is not None and ExtendedKeyUsageOID.CLIENT_AUTH not in usage and ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE not in usage:
        raise ValueError("a CA of the path is not for client authentication")


_CA_POLICY = (
    verification.ExtensionPolicy.permit_all()
    .require_present(x509.BasicConstraints, verification.Criticality.AGNOSTIC, None)
    .may_be_present(x509.KeyUsage, verification.Criticality.AGNOSTIC, _require_cert_sign)
    .may_be_present(x509.ExtendedKeyUsage, verification.Criticality.AGNOSTIC, _require_client_ca)
)
"""The library's default asks of a CA what browsers do; manufacturers' roots are older. Where there are basicConstraints it asks for CA:TRUE
and the path length itself; `permit_all` alone takes a certificate without them for a CA's."""
_END_ENTITY_POLICY = verification.ExtensionPolicy.webpki_defaults_ee().may_be_present(
    x509.SubjectAlternativeName, verification.Criticality.AGNOSTIC, None
)
"""The default (no CA, clientAuth where an extendedKeyUsage is there) without its demand for a subjectAltName."""
_PURPOSES = {ExtendedKeyUsageOID.CLIENT_AUTH: "client authentication", ExtendedKeyUsageOID.SERVER_AUTH: "server authentication"}


def _why(error: Exception) -> str:
    """What the verifier says, without its internals and without the names in the peer's certificates."""
    text = str(error).partition(" (encountered processing")[0]
    for noise in _NOISE:
        text = text.replace(noise, "")
    return text[:200] if text.isprintable() else "it cannot be read"


_NOISE = ("validation failed: ", "candidates exhausted: ", "fatal error: ", "Python extension validator failed: ValueError: ")
