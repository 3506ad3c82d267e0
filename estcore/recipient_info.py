"""RecipientInfo: for whom a content key is enciphered, and how it is got back.

RFC 5652 section 6.2: ktri (key transport, RSA), kari (key agreement, ECDH) and kekri (a key both sides know before). AuthenticatedData
has the same (RFC 5652 section 9.1), its content key being the MAC key. pwri and ori are passed over as somebody else's.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, assert_never

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from estcore.der import BIT_STRING, CONTEXT_0, CONTEXT_1, CONTEXT_2, SEQUENCE, algorithm_identifier, integer, tlv
from estcore.der_reader import OCTET_STRING, Reader, only
from estcore.errors import EstError, MalformedBody
from estcore.foreign import foreign
from estcore.key_encryption import (
    KEY_AGREEMENTS,
    KEY_TRANSPORTS,
    KEY_WRAPS,
    KeyAgreement,
    KeyTransport,
    KeyWrap,
    uncompressed_point,
)
from estcore.signed_data import IssuerAndSerialNumber, SubjectKeyIdentifier

MAX_RECIPIENTS: Final = 16
"""RecipientInfos in one message, and recipients in one kari."""

_KARI, _KEKRI = CONTEXT_1, CONTEXT_2
_IMPLICIT_0 = 0x80
_ID_EC_PUBLIC_KEY = "1.2.840.10045.2.1"


RecipientIdentifier = IssuerAndSerialNumber | SubjectKeyIdentifier


def identifiers_of(certificate: x509.Certificate) -> tuple[RecipientIdentifier, ...]:
    """How a sender may name the key of a certificate: by its subjectKeyIdentifier, first where it has one, or by issuer and serial."""
    by_issuer = IssuerAndSerialNumber(certificate.issuer.public_bytes(), certificate.serial_number)
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except x509.ExtensionNotFound:
        return (by_issuer,)
    return SubjectKeyIdentifier(extension.value.digest), by_issuer


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyTransportRecipient:
    """ktri: the content key encrypted with an RSA key."""

    public_key: rsa.RSAPublicKey
    identifier: RecipientIdentifier
    algorithm: KeyTransport = KeyTransport.OAEP_SHA256


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyAgreementRecipient:
    """kari: the content key wrapped with a key agreed on between an EC key and an ephemeral one, which the library makes."""

    public_key: ec.EllipticCurvePublicKey
    identifier: RecipientIdentifier
    algorithm: KeyAgreement = KeyAgreement.STD_DH_SHA256
    wrap: KeyWrap = KeyWrap.AES_128


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyEncryptionKey:
    """kekri: a key of 16, 24 or 32 octets that both sides have, and the octets that both call it by. Enciphers and deciphers."""

    key: bytes = field(repr=False)
    key_identifier: bytes


Recipient = KeyTransportRecipient | KeyAgreementRecipient | KeyEncryptionKey


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipientKey:
    """A private key that messages may be for, and the names that senders may have for it; of all else nothing is tried."""

    private_key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey = field(repr=False)
    identifiers: tuple[RecipientIdentifier, ...]


DecryptionKey = RecipientKey | KeyEncryptionKey


class Encoded(NamedTuple):
    """A RecipientInfo and its version."""

    version: int
    der: bytes


def cannot_decrypt() -> MalformedBody:
    """The one fault of all that goes wrong with a right-shaped message and its key: what is told apart here helps to guess at keys."""
    return MalformedBody("the message cannot be decrypted: it is for another key, or it was altered", reason="CannotDecrypt")


def encode(recipient: Recipient, content_key: bytes) -> Encoded:
    """Encipher a content key for one recipient (RFC 5652 sections 6.2.1, 6.2.2, 6.2.3)."""
    match recipient:
        case KeyTransportRecipient():
            version = 0 if isinstance(recipient.identifier, IssuerAndSerialNumber) else 2
            encrypted_key = recipient.algorithm.encrypt(content_key, recipient.public_key)
            rid = _encode_identifier(recipient.identifier)
            members = integer(version) + rid + recipient.algorithm.identifier_der + tlv(OCTET_STRING, encrypted_key)
            return Encoded(version, tlv(SEQUENCE, members))
        case KeyAgreementRecipient():
            return _encode_agreement(recipient, content_key)
        case KeyEncryptionKey():
            wrap = KeyWrap(len(recipient.key))
            encrypted_key = wrap.wrap(content_key, key_encryption_key=recipient.key)
            kekid = tlv(SEQUENCE, tlv(OCTET_STRING, recipient.key_identifier))
            return Encoded(4, tlv(_KEKRI, integer(4) + kekid + wrap.identifier_der + tlv(OCTET_STRING, encrypted_key)))
        case _:
            assert_never(recipient)


def _encode_agreement(recipient: KeyAgreementRecipient, content_key: bytes) -> Encoded:
    ephemeral = ec.generate_private_key(recipient.public_key.curve)
    wrap = recipient.wrap
    key = recipient.algorithm.agree(ephemeral, recipient.public_key, wrap=wrap, wrap_identifier_der=wrap.identifier_der)
    # RFC 5753 section 3.1.1: originatorKey, whose algorithm may leave the parameters out, for the curve is the recipient's.
    point = tlv(BIT_STRING, b"\x00" + uncompressed_point(ephemeral.public_key()))
    originator = tlv(CONTEXT_0, tlv(CONTEXT_1, algorithm_identifier(_ID_EC_PUBLIC_KEY) + point))
    rid = recipient.identifier
    rid_der = tlv(CONTEXT_0, tlv(OCTET_STRING, rid.octets)) if isinstance(rid, SubjectKeyIdentifier) else _encode_identifier(rid)
    encrypted_key = tlv(OCTET_STRING, wrap.wrap(content_key, key_encryption_key=key))
    encrypted_keys = tlv(SEQUENCE, tlv(SEQUENCE, rid_der + encrypted_key))
    return Encoded(3, tlv(_KARI, integer(3) + originator + recipient.algorithm.identifier_der(wrap) + encrypted_keys))


def _encode_identifier(identifier: RecipientIdentifier) -> bytes:
    if isinstance(identifier, SubjectKeyIdentifier):
        return tlv(_IMPLICIT_0, identifier.octets)
    return tlv(SEQUENCE, identifier.issuer_der + integer(identifier.serial_number))


def decrypt_content_key(recipient_infos: Reader, keys: Sequence[DecryptionKey], *, octets: int) -> bytes:
    """The content key out of the first RecipientInfo that is for one of `keys`; `recipient_infos` reads the members of the SET.

    Raises MalformedBody: for a shape that is not RFC 5652's, with reason NotARecipient where none of the keys is named, UnsupportedCms
    where one is by an algorithm that is not in `key_encryption`, and CannotDecrypt, also for a key that has not so many `octets`.
    """
    count = 0
    content_key: bytes | None = None
    while not recipient_infos.at_end:
        count += 1
        if count > MAX_RECIPIENTS:
            raise MalformedBody(f"the message has more than {MAX_RECIPIENTS} recipients")
        found = _read(recipient_infos, keys if content_key is None else ())
        content_key = found if content_key is None else content_key
    if content_key is None:
        raise MalformedBody("the message is not for any of the keys that are here", reason="NotARecipient")
    if len(content_key) != octets:
        raise cannot_decrypt()
    return content_key


def _read(recipient_infos: Reader, keys: Sequence[DecryptionKey]) -> bytes | None:
    if recipient_infos.next_is(SEQUENCE):
        return _read_transport(recipient_infos.inside(SEQUENCE, what="a KeyTransRecipientInfo"), keys)
    if recipient_infos.next_is(_KARI):
        return _read_agreement(recipient_infos.inside(_KARI, what="a KeyAgreeRecipientInfo"), keys)
    if recipient_infos.next_is(_KEKRI):
        return _read_wrapped(recipient_infos.inside(_KEKRI, what="a KEKRecipientInfo"), keys)
    recipient_infos.opaque()
    return None


def _read_transport(members: Reader, keys: Sequence[DecryptionKey]) -> bytes | None:
    version = members.integer()
    identifier = _read_identifier(members)
    if version != (0 if isinstance(identifier, IssuerAndSerialNumber) else 2):
        raise MalformedBody(f"a KeyTransRecipientInfo has version {version}, which does not fit its rid (RFC 5652 section 6.2.1)")
    algorithm_der = members.whole(SEQUENCE)
    encrypted_key = members.octets()
    members.close()
    private_key = _private_key(keys, identifier)
    if private_key is None:
        return None
    algorithm = KEY_TRANSPORTS.get(algorithm_der)
    if algorithm is None:
        raise _unsupported("key transport is read as RSAES-OAEP with SHA-256, SHA-384 or SHA-512 or as rsaEncryption")
    if not isinstance(private_key, rsa.RSAPrivateKey):
        raise cannot_decrypt()
    return foreign(lambda: algorithm.decrypt(encrypted_key, private_key), cannot_decrypt)


def _read_agreement(members: Reader, keys: Sequence[DecryptionKey]) -> bytes | None:
    if members.integer() != 3:
        raise MalformedBody("a KeyAgreeRecipientInfo is not of version 3 (RFC 5652 section 6.2.2)")
    originator = members.inside(CONTEXT_0, what="an originator")
    point = _read_originator(originator)
    originator.close()
    ukm: bytes | None = None
    if members.next_is(CONTEXT_1):
        wrapper = members.inside(CONTEXT_1, what="a ukm")
        ukm = wrapper.octets()
        wrapper.close()
    algorithm_der = members.whole(SEQUENCE)
    encrypted_keys = members.inside(SEQUENCE, what="the RecipientEncryptedKeys")
    members.close()
    for each in encrypted_keys.each(SEQUENCE, at_most=MAX_RECIPIENTS):
        identifier, encrypted_key = _read_encrypted_key(only(each, what="a RecipientEncryptedKey"))
        private_key = _private_key(keys, identifier)
        if private_key is not None:
            return _agreed(private_key, point, algorithm_der, ukm, encrypted_key)
    return None


def _agreed(
    private_key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey,
    point: bytes | None,
    algorithm_der: bytes,
    ukm: bytes | None,
    encrypted_key: bytes,
) -> bytes:
    if algorithm_der not in KEY_AGREEMENTS:
        raise _unsupported("key agreement is read as dhSinglePass-stdDH with SHA-256 or SHA-384 and AES key wrap")
    if point is None:
        raise _unsupported("key agreement is read with an EC key as originatorKey")
    if not isinstance(private_key, ec.EllipticCurvePrivateKey):
        raise cannot_decrypt()
    scheme, wrap, wrap_identifier_der = KEY_AGREEMENTS[algorithm_der]

    def decipher() -> bytes:
        public_key = ec.EllipticCurvePublicKey.from_encoded_point(private_key.curve, point)
        key = scheme.agree(private_key, public_key, wrap=wrap, wrap_identifier_der=wrap_identifier_der, user_keying_material=ukm)
        return wrap.unwrap(encrypted_key, key_encryption_key=key)

    return foreign(decipher, cannot_decrypt)


def _read_originator(originator: Reader) -> bytes | None:
    """The point of an originatorKey; None for an originator that is named in another way (a static key), or has another kind of key."""
    if not originator.next_is(CONTEXT_1):
        originator.opaque()
        return None
    key = originator.inside(CONTEXT_1, what="an originatorKey")
    # The parameters may be absent, NULL or the curve (RFC 5753 section 3.1.1): the curve is that of the recipient's key whatever they say.
    algorithm = key.inside(SEQUENCE, what="the algorithm of an originatorKey").oid()
    bits = key.content(BIT_STRING)
    key.close()
    if bits[:1] != b"\x00":
        raise MalformedBody("an originatorKey is not of whole octets")
    return bits[1:] if algorithm == _ID_EC_PUBLIC_KEY else None


def _read_encrypted_key(each: Reader) -> tuple[RecipientIdentifier, bytes]:
    identifier: RecipientIdentifier
    if each.next_is(CONTEXT_0):  # date and other may follow: they say nothing about which key it is
        identifier = SubjectKeyIdentifier(each.inside(CONTEXT_0, what="an rKeyId").octets())
    else:
        identifier = _read_issuer_and_serial(each)
    encrypted_key = each.octets()
    each.close()
    return identifier, encrypted_key


def _read_wrapped(members: Reader, keys: Sequence[DecryptionKey]) -> bytes | None:
    if members.integer() != 4:
        raise MalformedBody("a KEKRecipientInfo is not of version 4 (RFC 5652 section 6.2.3)")
    key_identifier = members.inside(SEQUENCE, what="a kekid").octets()
    algorithm_der = members.whole(SEQUENCE)
    encrypted_key = members.octets()
    members.close()
    key = next((key.key for key in keys if isinstance(key, KeyEncryptionKey) and key.key_identifier == key_identifier), None)
    if key is None:
        return None
    wrap = KEY_WRAPS.get(algorithm_der)
    if wrap is None:
        raise _unsupported("a key-encryption key is used by AES key wrap")
    return foreign(lambda: wrap.unwrap(encrypted_key, key_encryption_key=key), cannot_decrypt)


def _read_identifier(members: Reader) -> RecipientIdentifier:
    if members.next_is(_IMPLICIT_0):
        return SubjectKeyIdentifier(members.content(_IMPLICIT_0))
    return _read_issuer_and_serial(members)


def _read_issuer_and_serial(members: Reader) -> IssuerAndSerialNumber:
    named = members.inside(SEQUENCE, what="an issuerAndSerialNumber")
    identifier = IssuerAndSerialNumber(named.whole(SEQUENCE), named.integer())
    named.close()
    return identifier


def _private_key(keys: Sequence[DecryptionKey], identifier: RecipientIdentifier) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | None:
    for key in keys:
        if isinstance(key, RecipientKey) and identifier in key.identifiers:
            return key.private_key
    return None


def _unsupported(sentence: str) -> EstError:
    return MalformedBody(f"the message cannot be read: {sentence}", reason="UnsupportedCms")


def key_identifier(public_key: object) -> bytes:
    """What a key without a certificate is called: SHA-1 of its bits (RFC 5280 section 4.2.1.2 method 1), 20 octets."""
    if not isinstance(public_key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
        raise TypeError(f"nothing is encrypted with a key of the kind {type(public_key).__name__}")
    return x509.SubjectKeyIdentifier.from_public_key(public_key).digest
