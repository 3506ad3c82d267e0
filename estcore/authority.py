"""The CA: its certificate, chain and key, and the one function that signs with it.

A CA comes from `load`, which takes nothing that could sign wrongly (threats row 27: a half-written Secret, another certificate's key),
or is made by `generate_ca`. `issue` takes an `Authorized` and nothing else. No IO, no clock, no randomness but the library's own.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509.oid import NameOID

from estcore import ca_secret, cms_signature, tbs_certificate
from estcore.cms_signature import MessageSigner
from estcore.errors import BadCsr, SignerError
from estcore.issuer_spec import Generate, Policy
from estcore.keys import PrivateKey, generate_private_key, signature_hash
from estcore.names import describe_general_name, describe_name
from estcore.profile import BACKDATE, plan
from estcore.registration import Authorized
from estcore.signed_data import IssuerAndSerialNumber, SignerIdentifier
from estcore.tbs_certificate import IssuerPieces
from estcore.usages import Usage
from estcore.value import value

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
    held = ca_secret.read(
        certificate_chain_pem=certificate_chain_pem,
        private_key_pem=private_key_pem,
        root_pem=root_pem,
        rollover_pem=rollover_pem,
        now=now,
        where=where,
    )
    certificate, private_key = held.certificate, held.private_key
    signature_algorithm, sign = _signer(private_key) if private_key is not None else (b"", _elsewhere)
    return Authority(
        certificate=certificate,
        certificate_sha256=certificate.fingerprint(hashes.SHA256()).hex(),
        chain=held.chain,
        rollover=held.rollover,
        holds_key=private_key is not None,
        _sign=sign,
        _pieces=tbs_certificate.issuer_pieces(certificate, signature_algorithm),
        _own_spkis=frozenset(ca_secret.spki_of(ca) for ca in (certificate, *held.chain, *held.rollover)),
    )


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
