"""The CA: its certificate, chain and key, and the one function that signs with it.

A CA comes from `load`, which takes nothing that could sign wrongly (threats row 27: a half-written Secret, another certificate's key),
or is made by `generate_ca`. `issue` takes an `Authorized` and nothing else. No IO, no clock, no randomness but the library's own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from itertools import pairwise
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509.oid import NameOID

from estcore import cms_signature, roll_over, tbs_certificate
from estcore.cms_signature import MessageSigner
from estcore.errors import BadCsr, ConfigurationError, SignerError
from estcore.foreign import foreign
from estcore.issuer_spec import Generate, Policy
from estcore.keys import PrivateKey, generate_private_key, key_algorithm, signature_hash, spki_der
from estcore.names import describe_general_name, describe_name
from estcore.profile import BACKDATE, plan
from estcore.registration import Authorized
from estcore.signed_data import IssuerAndSerialNumber, SignerIdentifier
from estcore.tbs_certificate import IssuerPieces
from estcore.usages import Usage
from estcore.value import value

MAX_CHAIN: Final = 8
MAX_PEM_OCTETS: Final = 256 * 1024
"""Each entry of a CA Secret; Kubernetes takes 1 MiB for the whole."""
MAX_CA_OCTETS: Final = 64 * 1024
"""All certificates of a CA, DER: twelve of RSA 16384, thirty of RSA 4096. They go out whole, in /cacerts and the issuer's status."""

_SIGNATURE_ALGORITHMS: Final = {
    "sha256-ecdsa": bytes.fromhex("300a06082a8648ce3d040302"),  # RFC 5758 section 3.2: no parameters
    "sha384-ecdsa": bytes.fromhex("300a06082a8648ce3d040303"),
    "sha512-ecdsa": bytes.fromhex("300a06082a8648ce3d040304"),
    "sha256-rsa": bytes.fromhex("300d06092a864886f70d01010b0500"),  # RFC 4055 section 5: NULL
    "ed25519": bytes.fromhex("300506032b6570"),  # RFC 8410 section 3: no parameters
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Authority:
    """A CA that can sign."""

    certificate: x509.Certificate
    certificate_sha256: str
    """Hex."""
    chain: tuple[x509.Certificate, ...]
    """The certificates above it, each issued by the next, the root last if it is known; empty for a root."""
    rollover: tuple[x509.Certificate, ...] = ()
    """Other certificates of this CA's name from a key roll-over: the old root, and links between old and new (RFC 7030 section 4.1.3)."""
    holds_key: bool = True
    """False where a program of the issuer's signs (external_signature)."""
    _sign: Callable[[bytes], bytes] = field(repr=False)
    _pieces: IssuerPieces = field(repr=False)
    _own_spkis: frozenset[bytes] = field(repr=False)

    @property
    def certificates(self) -> tuple[x509.Certificate, ...]:
        """All that /cacerts gives out: the CA first, its chain, then the roll-over set."""
        return (self.certificate, *self.chain, *self.rollover)

    @property
    def first_to_end(self) -> x509.Certificate:
        """Of the CA's certificate and those above it the one that ends first; then no path leads to the CA any more.

        RFC 5280 section 6.1.3 (a) (2) for those below the root. Of the root it asks nothing, but clients look at its dates too, and
        `load` takes none that has ended.
        """
        return min((self.certificate, *self.chain), key=lambda ca: ca.not_valid_after_utc)

    @property
    def present_and_former(self) -> tuple[x509.Certificate, ...]:
        """The CA certificates whose keys signed what may still be in use, the present one first, then by their end."""
        return (self.certificate, *sorted(self.rollover, key=lambda ca: ca.not_valid_after_utc, reverse=True))


@value(frozen=True, slots=True, kw_only=True)
class Issued:
    """A signed certificate, and what the ledger and the audit log say of it."""

    certificate_der: bytes
    serial: int
    subject: str
    """RFC 4514."""
    sans: tuple[str, ...]
    """Such as `DNS:a.example`."""
    spki_sha256: str
    """Hex."""
    not_before: datetime
    not_after: datetime
    left_out: frozenset[Usage]
    """Usages that were asked for and not granted, because the key cannot do them (RFC 8813, RFC 8410)."""


def issue(authority: Authority, authorized: Authorized, policy: Policy, *, now: datetime, serial: int) -> Issued:
    """Sign the certificate that registration allowed, within the profile.

    `policy` is the one that `authorized` was judged by; `serial` comes from `serial_number`. Redeems `authorized`, also when it fails.
    Raises Forbidden and BadCsr for what the profile does not allow, IssuerNotReady when the CA is not valid now, SignerError when we
    are at fault.
    """
    authorized.redeem()
    if authorized.policy is not policy and authorized.policy != policy:
        raise SignerError("the request was authorized by another issuer's policy")
    if not 1 << 63 <= serial < 1 << 159:
        raise SignerError("a serial number has 64 to 159 bits")  # RFC 5280 section 4.1.2.2: positive, at most 20 octets
    check_key(authority, authorized)
    spki = authorized.csr.spki_der
    planned = plan(authorized, policy, now=now, ca_certificate=authority.certificate)
    tbs_der = tbs_certificate.encode(planned, authority._pieces, serial)
    certificate_der = tbs_certificate.sealed(tbs_der, authority._pieces, authority._sign(tbs_der))
    return Issued(
        certificate_der=certificate_der,
        serial=serial,
        subject=describe_name(planned.subject),
        sans=tuple(map(describe_general_name, planned.sans)),
        spki_sha256=sha256(spki).hexdigest(),
        not_before=planned.not_before,
        not_after=planned.not_after,
        left_out=planned.left_out,
    )


def check_key(authority: Authority, authorized: Authorized) -> None:
    """Check that the key to be certified is none of the CA's own. Raises BadCsr."""
    if authorized.csr.spki_der in authority._own_spkis:
        raise BadCsr("this key is the CA's own; make a new key", reason="KeyRefused")


def message_signer(authority: Authority) -> tuple[SignerIdentifier, MessageSigner] | None:
    """The CA as the signer of a CMS message, such as a Full PKI Response; None where its key is elsewhere.

    What is signed begins with the tag of a SET OF (RFC 5652 section 5.4), so it can never be taken for the SEQUENCE that a certificate is.
    """
    algorithm = authority._pieces.signature_algorithm
    if not algorithm:
        return None
    identifier = IssuerAndSerialNumber(authority.certificate.issuer.public_bytes(), authority.certificate.serial_number)
    return identifier, cms_signature.message_signer(algorithm, authority._sign)


def serial_number(random_128_bits: bytes) -> int:
    """A serial of 17 octets, 0x01 and then 16 random ones: always positive, always as long, at most 20 (RFC 5280 section 4.1.2.2)."""
    if len(random_128_bits) != 16:
        raise ValueError("a serial number is made of 16 random octets")
    return int.from_bytes(b"\x01" + random_128_bits)


def load(
    *,
    certificate_chain_pem: bytes,
    private_key_pem: bytes | None,
    root_pem: bytes | None,
    rollover_pem: bytes | None = None,
    now: datetime,
    where: str,
) -> Authority:
    """Load a CA from the entries of a kubernetes.io/tls Secret.

    `certificate_chain_pem` (tls.crt): the issuing CA first, then each one's issuer; `root_pem` (ca.crt): the root, or None or empty
    where it is not known or already last in the chain; `where` names the Secret. The key signs once, to see that it does; None is for a
    CA whose key is elsewhere. `rollover_pem` (rollover.crt): what is left of a key roll-over, or None; what has expired is left out.
    Raises ConfigurationError with a reason: SecretInvalidData, KeyMismatch, NotACA, CAExpired, CANotYetValid, ChainIncomplete.
    Source: cert-manager's layout (contract 29) and checks (contract 27).
    """
    certificates = _certificates(certificate_chain_pem, where=where, entry="tls.crt")
    roots = _certificates(root_pem, where=where, entry="ca.crt") if root_pem else []
    certificate = certificates[0]
    private_key = _private_key(private_key_pem, where=where) if private_key_pem is not None else None
    if private_key is not None and spki_der(private_key.public_key()) != _spki_of(certificate):
        raise _wrong("tls.key is not the key of the first certificate of tls.crt", where=where, reason="KeyMismatch")
    for ca in (*certificates, *roots):
        _check_ca(ca, now=now, where=where)
    chain = _chain(certificates, roots, where=where)
    rollover = _rollover(rollover_pem, (certificate, *chain), now=now, where=where) if rollover_pem else ()
    _check_size((certificate, *chain, *rollover), where=where)
    if private_key is not None:
        _test_key(private_key, where=where)
    signature_algorithm, sign = _signer(private_key) if private_key is not None else (b"", _elsewhere)
    return Authority(
        certificate=certificate,
        certificate_sha256=certificate.fingerprint(hashes.SHA256()).hex(),
        chain=chain,
        rollover=rollover,
        holds_key=private_key is not None,
        _sign=sign,
        _pieces=tbs_certificate.issuer_pieces(certificate, signature_algorithm),
        _own_spkis=frozenset(_spki_of(ca) for ca in (certificate, *chain, *rollover)),
    )


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
    _spki_of(certificate)
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


def _spki_of(certificate: x509.Certificate) -> bytes:
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


def _elsewhere(_tbs_der: bytes) -> bytes:
    raise SignerError("the key of this CA is elsewhere: it signs nothing but certificates, by the issuer's signer")


def _signer(private_key: PrivateKey) -> tuple[bytes, Callable[[bytes], bytes]]:
    """The DER AlgorithmIdentifier, and the function that signs."""
    match private_key:
        case ec.EllipticCurvePrivateKey():
            digest = signature_hash(private_key) or hashes.SHA256()
            ecdsa = ec.ECDSA(digest)
            return _SIGNATURE_ALGORITHMS[f"{digest.name}-ecdsa"], lambda tbs_der: private_key.sign(tbs_der, ecdsa)
        case rsa.RSAPrivateKey():
            pkcs1, digest = padding.PKCS1v15(), hashes.SHA256()
            return _SIGNATURE_ALGORITHMS["sha256-rsa"], lambda tbs_der: private_key.sign(tbs_der, pkcs1, digest)
        case ed25519.Ed25519PrivateKey():
            return _SIGNATURE_ALGORITHMS["ed25519"], private_key.sign


def generate_ca(spec: Generate, *, now: datetime, serial: int) -> tuple[bytes, bytes]:
    """Make a self-signed root and its key: (PKCS#8 PEM without password, certificate PEM), as a Secret's tls.key and tls.crt.

    It issues end entities only: pathLenConstraint 0. No AKI, which a root may leave out (RFC 5280 section 4.2.1.1). It signs CMS messages
    too, Full PKI Responses and key packages, so its keyUsage has digitalSignature (section 4.2.1.3).
    """
    private_key = generate_private_key(spec.key_algorithm)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, spec.common_name)])
    not_before = now.astimezone(UTC).replace(microsecond=0) - BACKDATE
    key_usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private_key.public_key())
        .serial_number(serial)
        .not_valid_before(not_before)
        .not_valid_after(not_before + spec.duration)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(private_key.public_key()), critical=False)
        .sign(private_key, signature_hash(private_key))
    )
    key_pem = private_key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return key_pem, certificate.public_bytes(serialization.Encoding.PEM)
