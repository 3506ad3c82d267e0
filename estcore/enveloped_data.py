"""EnvelopedData: content encrypted with AES-CBC for one or more recipients, both ways.

RFC 5652 section 6, RFC 3565. What travels is DER ContentInfo { id-envelopedData, EnvelopedData }. There is no integrity in this format:
whoever reads one checks a signature on what was inside, and says the same of every failure.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from estcore import der as der_module
from estcore import recipient_info
from estcore.der import CONTEXT_0, CONTEXT_1, SEQUENCE, SET, integer, object_identifier, tlv
from estcore.der_reader import OCTET_STRING, Reader, only
from estcore.errors import MalformedBody
from estcore.foreign import foreign
from estcore.key_encryption import algorithm_identifier
from estcore.recipient_info import DecryptionKey, Recipient, cannot_decrypt
from estcore.signed_data import ENVELOPED_DATA, content_info, parse_content_info

MAX_OCTETS: Final = 256 * 1024
IV_OCTETS: Final = 16

AES_CBC_OIDS: Final = {16: "2.16.840.1.101.3.4.1.2", 24: "2.16.840.1.101.3.4.1.22", 32: "2.16.840.1.101.3.4.1.42"}
"""Octets of the content key → dotted OID (RFC 3565 section 4.1)."""
_KEY_OCTETS = {oid: octets for octets, oid in AES_CBC_OIDS.items()}
_BLOCK_BITS = 128
_IMPLICIT_0 = 0x80
_WHAT = "the EnvelopedData"


def encrypt(content: bytes, content_type: str, recipients: Sequence[Recipient], *, content_key: bytes, iv: bytes) -> bytes:
    """Encrypt `content` for every one of `recipients`; returns DER ContentInfo.

    `content_type` is the dotted OID of what `content` is: its octets go in as they are. `content_key` is 16, 24 or 32 random octets,
    `iv` 16, and neither is ever used again. The version is 0 where every recipient is a ktri by issuer and serial, else 2.
    """
    if len(content_key) not in AES_CBC_OIDS or len(iv) != IV_OCTETS:
        raise ValueError("AES-CBC takes a content key of 16, 24 or 32 octets and an IV of 16")
    if not 0 < len(recipients) <= recipient_info.MAX_RECIPIENTS:
        raise ValueError(f"a message has 1 to {recipient_info.MAX_RECIPIENTS} recipients")
    encoded = [recipient_info.encode(recipient, content_key) for recipient in recipients]
    version = 0 if all(each.version == 0 for each in encoded) else 2
    padder = padding.PKCS7(_BLOCK_BITS).padder()
    encryptor = Cipher(algorithms.AES(content_key), modes.CBC(iv)).encryptor()
    encrypted = encryptor.update(padder.update(content) + padder.finalize()) + encryptor.finalize()
    algorithm = algorithm_identifier(AES_CBC_OIDS[len(content_key)], tlv(OCTET_STRING, iv))
    encrypted_content_info = tlv(SEQUENCE, object_identifier(content_type) + algorithm + tlv(_IMPLICIT_0, encrypted))
    recipient_infos = tlv(SET, b"".join(sorted(each.der for each in encoded)))
    return content_info(ENVELOPED_DATA, tlv(SEQUENCE, integer(version) + recipient_infos + encrypted_content_info))


def decrypt(content_info_der: bytes, keys: Sequence[DecryptionKey]) -> tuple[str, bytes]:
    """Decrypt a DER ContentInfo with the first of `keys` that it names as a recipient; returns the dotted content type and the content.

    The content may have been altered on the way without anybody noticing here. Raises MalformedBody, with the reasons of
    `recipient_info.decrypt_content_key`.
    """
    der_module.check(content_info_der, what=_WHAT, max_octets=MAX_OCTETS)
    content_type, enveloped_der = parse_content_info(content_info_der, max_octets=MAX_OCTETS)
    if content_type != ENVELOPED_DATA:
        raise MalformedBody("the message is not EnvelopedData (RFC 5652 section 6.1)")
    enveloped = only(enveloped_der, what=_WHAT)
    version = enveloped.integer()
    if version not in (0, 2, 3, 4):
        raise MalformedBody(f"{_WHAT} has version {version}; there are 0, 2, 3 and 4 (RFC 5652 section 6.1)")
    if enveloped.next_is(CONTEXT_0):
        enveloped.opaque()  # originatorInfo: certificates and CRLs, for static key agreement
    recipient_infos = enveloped.inside(SET, what="the recipientInfos")
    encrypted = _read_encrypted_content(enveloped.inside(SEQUENCE, what="the encryptedContentInfo"))
    if enveloped.next_is(CONTEXT_1):
        enveloped.opaque()  # unprotectedAttrs: nobody vouches for them
    enveloped.close()
    content_key = recipient_info.decrypt_content_key(recipient_infos, keys)
    if len(content_key) != encrypted.key_octets:
        raise cannot_decrypt()
    return encrypted.content_type, foreign(lambda: _decipher(encrypted, content_key), cannot_decrypt)


class _EncryptedContent(NamedTuple):
    content_type: str
    key_octets: int
    iv: bytes
    octets: bytes


def _read_encrypted_content(info: Reader) -> _EncryptedContent:
    content_type = info.oid()
    algorithm = info.inside(SEQUENCE, what="the contentEncryptionAlgorithm")
    key_octets = _KEY_OCTETS.get(algorithm.oid())
    if key_octets is None:
        raise MalformedBody("the message cannot be read: its content is not encrypted with AES-CBC", reason="UnsupportedCms")
    iv = algorithm.octets()
    algorithm.close()
    if len(iv) != IV_OCTETS:
        raise MalformedBody(f"the IV has {len(iv)} octets where AES-CBC takes {IV_OCTETS}")
    if info.at_end:
        raise MalformedBody(f"{_WHAT} holds no encrypted content")
    octets = info.content(_IMPLICIT_0)
    info.close()
    return _EncryptedContent(content_type, key_octets, iv, octets)


def _decipher(encrypted: _EncryptedContent, content_key: bytes) -> bytes:
    decryptor = Cipher(algorithms.AES(content_key), modes.CBC(encrypted.iv)).decryptor()
    unpadder = padding.PKCS7(_BLOCK_BITS).unpadder()
    return unpadder.update(decryptor.update(encrypted.octets) + decryptor.finalize()) + unpadder.finalize()
