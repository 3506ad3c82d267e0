"""The test PKI: keys, CAs, leaves and CSRs of every kind, deliberately malformed ones included.

Times are relative to EPOCH, never the clock. Keys are made once per process and told apart by owner: `key(KeyAlgorithm.RSA_2048, "x")`.
Those of RSA are those of rsa-keys.pem (for tests alone) as long as they last, for a new one takes up to seconds.
The certificates made here are somebody else's; only what the product itself issues is collected for the linters.
"""

import functools
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, padding, rsa
from cryptography.x509.oid import AttributeOID, ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from estcore.issuer_spec import KeyAlgorithm

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
YEAR = timedelta(days=365)

SigningKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey | dsa.DSAPrivateKey
CLIENT_AUTH = ExtendedKeyUsageOID.CLIENT_AUTH
SERVER_AUTH = ExtendedKeyUsageOID.SERVER_AUTH
ALL_ALGORITHMS = tuple(KeyAlgorithm)
ONE_OF_EACH_KIND = (
    KeyAlgorithm.ECDSA_P256,
    KeyAlgorithm.ECDSA_P384,
    KeyAlgorithm.ECDSA_P521,
    KeyAlgorithm.RSA_2048,
    KeyAlgorithm.ED25519,
)
RSA_KEYS = Path(__file__).with_name("rsa-keys.pem")


# ---- keys


@functools.cache
def key(
    algorithm: KeyAlgorithm = KeyAlgorithm.ECDSA_P256, owner: str = "device"
) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey:
    """The key of this owner: the same at every call within a process."""
    match algorithm:
        case KeyAlgorithm.ECDSA_P256:
            return ec.generate_private_key(ec.SECP256R1())
        case KeyAlgorithm.ECDSA_P384:
            return ec.generate_private_key(ec.SECP384R1())
        case KeyAlgorithm.ECDSA_P521:
            return ec.generate_private_key(ec.SECP521R1())
        case KeyAlgorithm.ED25519:
            return ed25519.Ed25519PrivateKey.generate()
        case _:
            bits = int(algorithm.removeprefix("RSA-"))
            return _unused_rsa_key(bits, 65537)


def _unused_rsa_key(bits: int, exponent: int) -> rsa.RSAPrivateKey:
    unused = _unused_rsa_keys()[bits, exponent]
    return unused.pop() if unused else rsa.generate_private_key(exponent, bits)


@functools.cache
def _unused_rsa_keys() -> defaultdict[tuple[int, int], list[rsa.RSAPrivateKey]]:
    """By size and exponent: each goes to one owner."""
    keys = defaultdict(list)
    for pem in re.findall(rb"-----BEGIN.+?-----END.+?-----", RSA_KEYS.read_bytes(), re.DOTALL):
        loaded = serialization.load_pem_private_key(pem, None, unsafe_skip_rsa_key_validation=True)
        assert isinstance(loaded, rsa.RSAPrivateKey)
        keys[loaded.key_size, loaded.public_key().public_numbers().e].append(loaded)
    return keys


@functools.cache
def curve_key(curve: type[ec.EllipticCurve]) -> ec.EllipticCurvePrivateKey:
    """A key on a curve that the product may not accept."""
    return ec.generate_private_key(curve())


@functools.cache
def rsa_key(bits: int, exponent: int = 65537) -> rsa.RSAPrivateKey:
    """An RSA key of a size or exponent that the product may not accept."""
    return _unused_rsa_key(bits, exponent)


def rsa_from_primes(p: int, q: int, exponent: int = 65537) -> rsa.RSAPrivateKey:
    """The RSA key of two given primes, however unwise."""
    private = pow(exponent, -1, (p - 1) * (q - 1))
    numbers = rsa.RSAPrivateNumbers(
        p=p,
        q=q,
        d=private,
        dmp1=private % (p - 1),
        dmq1=private % (q - 1),
        iqmp=pow(q, -1, p),
        public_numbers=rsa.RSAPublicNumbers(exponent, p * q),
    )
    return numbers.private_key(unsafe_skip_rsa_key_validation=True)


def spki_der(public_key: object) -> bytes:
    return public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined, no-any-return]  # any key of the library


def key_pem(private_key: SigningKey) -> bytes:
    """PKCS#8 in PEM, as kubernetes.io/tls Secrets and TLS stacks take it."""
    return private_key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def hash_for(private_key: SigningKey) -> hashes.SHA256 | hashes.SHA384 | hashes.SHA512 | None:
    if isinstance(private_key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey):
        return None
    curve = private_key.curve.name if isinstance(private_key, ec.EllipticCurvePrivateKey) else ""
    by_curve: dict[str, hashes.SHA384 | hashes.SHA512] = {"secp384r1": hashes.SHA384(), "secp521r1": hashes.SHA512()}
    return by_curve.get(curve, hashes.SHA256())


# ---- names


def name(common_name: str | None = "device-1", **attributes: str) -> x509.Name:
    """A distinguished name: `name("a", organization_name="O")`; None leaves the CN out."""
    given = {"common_name": common_name} if common_name is not None else {}
    return x509.Name([x509.NameAttribute(getattr(NameOID, oid.upper()), value) for oid, value in (given | attributes).items()])


def dns(*names: str) -> tuple[x509.GeneralName, ...]:
    return tuple(x509.DNSName(each) for each in names)


# ---- certificates


@dataclass(frozen=True, slots=True, kw_only=True)
class Ca:
    """A CA of the test PKI: its certificate and key."""

    certificate: x509.Certificate
    key: SigningKey

    @property
    def der(self) -> bytes:
        return der(self.certificate)

    @property
    def pem(self) -> bytes:
        return pem(self.certificate)

    @property
    def key_pem(self) -> bytes:
        return key_pem(self.key)


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in certificates)


def key_usage(*bits: str) -> x509.KeyUsage:
    """`key_usage("digital_signature", "key_cert_sign")`."""
    every = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    assert set(bits) <= set(every)
    return x509.KeyUsage(**{bit: bit in bits for bit in every})


def ca(
    common_name: str = "Test Root CA",
    *,
    issuer: Ca | None = None,
    private_key: SigningKey | None = None,
    algorithm: KeyAlgorithm = KeyAlgorithm.ECDSA_P256,
    not_before: datetime = EPOCH - YEAR,
    not_after: datetime = EPOCH + 9 * YEAR,
    path_length: int | None = None,
    is_ca: bool = True,
    usage: x509.KeyUsage | None = None,
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
    without: Iterable[type[x509.ExtensionType]] = (),
) -> Ca:
    """A CA: self-signed, or under `issuer`. The key is the one of `common_name` unless given; `without` leaves usual extensions out."""
    private_key = private_key or key(algorithm, common_name)
    usual = [
        (x509.BasicConstraints(ca=is_ca, path_length=path_length if is_ca else None), True),
        (usage or key_usage("key_cert_sign", "crl_sign", "digital_signature"), True),
    ]
    certificate = _certificate(
        name(common_name), private_key.public_key(), issuer, private_key, not_before, not_after, (*usual, *extensions), frozenset(without)
    )
    return Ca(certificate=certificate, key=private_key)


def leaf(
    issuer: Ca,
    *,
    subject: x509.Name | None = None,
    sans: Sequence[x509.GeneralName] = (),
    public_key: object = None,
    ekus: Sequence[ObjectIdentifier] = (CLIENT_AUTH,),
    usage: x509.KeyUsage | None = None,
    not_before: datetime = EPOCH - DAY,
    not_after: datetime = EPOCH + 90 * DAY,
    is_ca: bool = False,
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
    without: Iterable[type[x509.ExtensionType]] = (),
    signed_by: SigningKey | None = None,
) -> x509.Certificate:
    """An end-entity certificate. `signed_by` forges it: the issuer's name, another key. Empty `ekus` and `sans` leave the extension out."""
    usual: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=is_ca, path_length=None), True),
        (usage or key_usage("digital_signature"), True),
    ]
    if ekus:
        usual.append((x509.ExtendedKeyUsage(list(ekus)), False))
    if sans:
        usual.append((x509.SubjectAlternativeName(list(sans)), False))
    forger = Ca(certificate=issuer.certificate, key=signed_by or issuer.key)
    return _certificate(
        name() if subject is None else subject,
        key().public_key() if public_key is None else public_key,
        forger,
        forger.key,
        not_before,
        not_after,
        (*usual, *extensions),
        frozenset(without),
    )


def _certificate(
    subject: x509.Name,
    public_key: object,
    issuer: Ca | None,
    signing_key: SigningKey,
    not_before: datetime,
    not_after: datetime,
    extensions: Sequence[tuple[x509.ExtensionType, bool]],
    without: frozenset[type[x509.ExtensionType]],
) -> x509.Certificate:
    signing_key = issuer.key if issuer else signing_key
    issuer_key = issuer.certificate.public_key() if issuer else public_key
    identifiers: list[tuple[x509.ExtensionType, bool]] = [
        (x509.SubjectKeyIdentifier.from_public_key(public_key), False),  # type: ignore[arg-type]  # any key of the library
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), False),  # type: ignore[arg-type]  # any key of the library
    ]
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(public_key)  # type: ignore[arg-type]  # any key of the library
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
    )
    for extension, critical in (*identifiers, *extensions):
        if type(extension) not in without:
            builder = builder.add_extension(extension, critical=critical)
    return builder.sign(signing_key, hash_for(signing_key))


# ---- CSRs


def csr(
    private_key: SigningKey | None = None,
    *,
    subject: x509.Name | None = None,
    sans: Sequence[x509.GeneralName] = (),
    ekus: Sequence[ObjectIdentifier] = (),
    usage: x509.KeyUsage | None = None,
    challenge_password: str | None = None,
    extensions: Sequence[x509.ExtensionType] = (),
    signature_hash: hashes.HashAlgorithm | None = None,
    rsa_padding: padding.PSS | padding.PKCS1v15 | None = None,
) -> bytes:
    """A well-formed CSR in DER; what it asks for may be anything that the library can write."""
    private_key = private_key or key()
    builder = x509.CertificateSigningRequestBuilder().subject_name(name() if subject is None else subject)
    wanted: list[x509.ExtensionType] = []
    if sans:
        wanted.append(x509.SubjectAlternativeName(list(sans)))
    if usage:
        wanted.append(usage)
    if ekus:
        wanted.append(x509.ExtendedKeyUsage(list(ekus)))
    for extension in (*wanted, *extensions):
        builder = builder.add_extension(extension, critical=False)
    if challenge_password is not None:
        builder = builder.add_attribute(AttributeOID.CHALLENGE_PASSWORD, challenge_password.encode())
    request = builder.sign(private_key, signature_hash or hash_for(private_key), rsa_padding=rsa_padding)  # type: ignore[arg-type]  # as above
    return request.public_bytes(serialization.Encoding.DER)


# ---- DER by hand, for what no library writes


def tlv(identifier: int, *contents: bytes) -> bytes:
    """One DER value: identifier octet, minimal definite length, content."""
    content = b"".join(contents)
    if len(content) < 0x80:
        return bytes((identifier, len(content))) + content
    length = len(content).to_bytes((len(content).bit_length() + 7) // 8)
    return bytes((identifier, 0x80 | len(length))) + length + content


def sequence(*contents: bytes) -> bytes:
    return tlv(0x30, *contents)


def set_of(*contents: bytes) -> bytes:
    return tlv(0x31, *contents)


def oid(dotted: str) -> bytes:
    first, second, *rest = map(int, dotted.split("."))
    content = bytearray()
    for arc in (first * 40 + second, *rest):
        digits = [arc & 0x7F]
        while arc := arc >> 7:
            digits.append(0x80 | arc & 0x7F)
        content += bytes(reversed(digits))
    return tlv(0x06, bytes(content))


EXTENSION_REQUEST = "1.2.840.113549.1.9.14"
CHALLENGE_PASSWORD = "1.2.840.113549.1.9.7"
ECDSA_WITH_SHA256 = sequence(oid("1.2.840.10045.4.3.2"))


def attribute(dotted: str, *values: bytes) -> bytes:
    """An Attribute of a CSR; any number of values, in DER's order."""
    return sequence(oid(dotted), set_of(*sorted(values)))


def extension(dotted: str, value_der: bytes, *, critical: bool = False) -> bytes:
    return sequence(oid(dotted), tlv(0x01, b"\xff") if critical else b"", tlv(0x04, value_der))


def extension_request(*extensions_der: bytes) -> bytes:
    return attribute(EXTENSION_REQUEST, sequence(*extensions_der))


def rdn(dotted: str, text: bytes, string_type: int = 0x0C) -> bytes:
    """An RDN with one attribute, its string as given."""
    return set_of(sequence(oid(dotted), tlv(string_type, text)))


def raw_csr(
    *attributes_der: bytes,
    private_key: SigningKey | None = None,
    subject_der: bytes | None = None,
    spki: bytes | None = None,
    version: bytes = b"\x02\x01\x00",
    attributes_field: bytes | None = None,
    algorithm: bytes = ECDSA_WITH_SHA256,
    signature: bytes | None = None,
    ordered: bool = True,
) -> bytes:
    """A CSR of given parts, signed over whatever they are: P-256 with SHA-256 unless a signature is given.

    `attributes_field` replaces the whole [0] field; b"" leaves it out.
    """
    private_key = private_key or key()
    attributes = sorted(attributes_der) if ordered else attributes_der
    info = sequence(
        version,
        name().public_bytes() if subject_der is None else subject_der,
        spki_der(private_key.public_key()) if spki is None else spki,
        tlv(0xA0, *attributes) if attributes_field is None else attributes_field,
    )
    if signature is None:
        assert isinstance(private_key, ec.EllipticCurvePrivateKey)
        signature = private_key.sign(info, ec.ECDSA(hashes.SHA256()))
    return sequence(info, algorithm, tlv(0x03, b"\x00", signature))
