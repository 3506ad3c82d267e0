"""AsymmetricKeyPackage: a private key on its way to whom it was made for, signed by whoever made it.

RFC 5958 sections 2 to 4, RFC 7030 section 4.4.2: within EnvelopedData comes a SignedData over an AsymmetricKeyPackage. Keys are written as
version 1, for neither OpenSSL nor `cryptography` reads version 2, which has the public key beside the private one; both are read.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_der_private_key
from cryptography.x509.oid import ObjectIdentifier

from estcore import der as der_module
from estcore import signed_data, trust
from estcore.cms_signature import BadSignature, MessageSigner
from estcore.der import BIT_STRING, CONTEXT_0, SEQUENCE, integer, tlv
from estcore.der_reader import OCTET_STRING, only
from estcore.errors import MalformedBody
from estcore.foreign import foreign
from estcore.keys import PrivateKey, spki_der
from estcore.recipient_info import identifiers_of
from estcore.signed_data import DATA, SIGNED_DATA, Signer

KEY_PACKAGE: Final = "2.16.840.1.101.2.1.2.78.5"
"""id-ct-KP-aKeyPackage (RFC 5958 section 3)."""
MAX_OCTETS: Final = 64 * 1024
MAX_KEYS: Final = 8

_KEY_GENERATION = ObjectIdentifier("1.3.6.1.5.5.7.3.32")
"""id-kp-cmKGA (RFC 9480 section 2.2): may make keys for others."""
_PUBLIC_KEY = 0x81
_WHAT = "the AsymmetricKeyPackage"


def private_key_info(private_key: PrivateKey) -> bytes:
    """DER PrivateKeyInfo, which is OneAsymmetricKey of version 1 (RFC 5958 section 2)."""
    return private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def encode(private_keys: Sequence[PrivateKey]) -> bytes:
    """DER AsymmetricKeyPackage of one key or more."""
    if not private_keys:
        raise ValueError("an AsymmetricKeyPackage holds at least one key")
    return tlv(SEQUENCE, b"".join(map(private_key_info, private_keys)))


def decode(package_der: bytes) -> tuple[PrivateKey, ...]:
    """The keys of a DER AsymmetricKeyPackage; raises MalformedBody."""
    der_module.check(package_der, what=_WHAT, max_octets=MAX_OCTETS)
    keys = tuple(load_private_key(key_der) for key_der in only(package_der, what=_WHAT).each(SEQUENCE, at_most=MAX_KEYS))
    if not keys:
        raise MalformedBody(f"{_WHAT} holds no key")
    return keys


def load_private_key(key_der: bytes) -> PrivateKey:
    """Load a DER OneAsymmetricKey of version 1 or 2, not encrypted, that has a kind of key certificates are issued for.

    Attributes are passed over; a public key beside the private one must be its own. Raises MalformedBody, which shows nothing of the key.
    """
    what = "the private key"
    der_module.check(key_der, what=what, max_octets=MAX_OCTETS)
    reader = only(key_der, what=what)
    version = reader.integer()
    algorithm = reader.whole(SEQUENCE)
    octets = reader.content(OCTET_STRING)
    if reader.next_is(CONTEXT_0):
        reader.opaque()
    public_bits = reader.content(_PUBLIC_KEY) if reader.next_is(_PUBLIC_KEY) else None
    reader.close()
    if version not in (0, 1) or (version == 1) != (public_bits is not None):
        raise MalformedBody("the private key has a version that does not fit what it holds (RFC 5958 section 2)")
    first_version = tlv(SEQUENCE, integer(0) + algorithm + tlv(OCTET_STRING, octets))
    key = foreign(
        lambda: load_der_private_key(first_version, password=None),
        lambda: MalformedBody("the private key cannot be read: a kind that is not known, or parts that do not fit together"),
    )
    if not isinstance(key, PrivateKey):
        raise MalformedBody("the private key is not RSA, EC or Ed25519")
    if public_bits is not None and not spki_der(key.public_key()).endswith(tlv(BIT_STRING, public_bits)):
        raise MalformedBody("the public key beside the private one is another key's")
    return key


def sign(
    private_keys: Sequence[PrivateKey], *, certificate: x509.Certificate, signer: MessageSigner, signing_time: datetime | None = None
) -> bytes:
    """A bare DER SignedData over the package of these keys, by whoever made them: version 3, the signer's certificate inside."""
    return signed_data.build_bare(
        KEY_PACKAGE,
        encode(private_keys),
        [(identifiers_of(certificate)[0], signer)],
        certificates_der=[certificate.public_bytes(Encoding.DER)],
        signing_time=signing_time,
    )


def open_signed(content_type: str, content: bytes, *, ca_certificates: Sequence[x509.Certificate], now: datetime) -> tuple[PrivateKey, ...]:
    """The keys of a signed package, as it came out of EnvelopedData; `content_type` is the dotted type that stood there.

    The SignedData is bare where the type is id-signedData, as RFC 5652 section 6.1 has it; a ContentInfo around it is accepted, for some
    write it, and id-data as type then. It must be signed by one of `ca_certificates`, which are trusted, or by a certificate of theirs
    for making keys (id-kp-cmKGA). Raises MalformedBody and BadSignature.
    """
    if content_type not in (SIGNED_DATA, DATA):
        raise MalformedBody("what was decrypted is not SignedData (RFC 7030 section 4.4.2)")
    der_module.check(content, what="the SignedData", max_octets=MAX_OCTETS)
    bare = only(content, what="the SignedData").next_is(der_module.INTEGER)
    message = (signed_data.parse_bare if bare else signed_data.parse)(content, max_octets=MAX_OCTETS)
    if message.content_type != KEY_PACKAGE or message.content is None:
        raise MalformedBody("what was signed is not an AsymmetricKeyPackage (RFC 5958 section 3)")
    if not message.signers:
        raise BadSignature("nobody signed the private key")
    candidates = (*ca_certificates, *map(_certificate, message.certificates_der))
    for signer in message.signers:
        _verify(signer, candidates, ca_certificates, now=now)
    return decode(message.content)


def _verify(signer: Signer, candidates: Sequence[x509.Certificate], ca_certificates: Sequence[x509.Certificate], *, now: datetime) -> None:
    certificate = next((each for each in candidates if signer.identifier in foreign(lambda: identifiers_of(each), _unreadable)), None)  # noqa: B023 - called at once
    if certificate is None:
        raise BadSignature("the certificate of who signed the private key is not there")
    if certificate not in ca_certificates:
        try:
            trust.verify_issued_by(certificate, ca_certificates, now=now, purpose=_KEY_GENERATION)
        except trust.Untrusted as error:
            raise BadSignature(f"who signed the private key is not trusted to: {error.message}") from error
    public_key = foreign(certificate.public_key, _unreadable)
    signed_data.verify(signer, public_key)  # type: ignore[arg-type]  # any other kind of key is refused there


def _certificate(certificate_der: bytes) -> x509.Certificate:
    return foreign(lambda: x509.load_der_x509_certificate(certificate_der), _unreadable)


def _unreadable() -> MalformedBody:
    return MalformedBody("a certificate beside the private key cannot be read")
