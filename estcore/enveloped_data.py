"""EnvelopedData: content encrypted with AES-CBC for one or more recipients, both ways.

RFC 5652 section 6, RFC 3565. What travels is DER ContentInfo { id-envelopedData, EnvelopedData }. There is no integrity in this format:
whoever reads one checks a signature on what was inside, and says the same of every failure.
"""

from collections.abc import Sequence
from typing import Final

from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from estcore import encrypted_content, recipient_info
from estcore.der import CONTEXT_1, SEQUENCE, algorithm_identifier, integer, tlv
from estcore.der_reader import OCTET_STRING, Reader
from estcore.encrypted_content import EncryptedContent, Syntax
from estcore.errors import MalformedBody
from estcore.foreign import foreign
from estcore.recipient_info import DecryptionKey, Recipient, cannot_decrypt
from estcore.signed_data import ENVELOPED_DATA, content_info

IV_OCTETS: Final = 16

AES_CBC_OIDS: Final = {16: "2.16.840.1.101.3.4.1.2", 24: "2.16.840.1.101.3.4.1.22", 32: "2.16.840.1.101.3.4.1.42"}
"""Octets of the content key → dotted OID (RFC 3565 section 4.1)."""
_KEY_OCTETS = {oid: octets for octets, oid in AES_CBC_OIDS.items()}
_BLOCK_BITS = 128
_SYNTAX = Syntax("EnvelopedData", ENVELOPED_DATA, "RFC 5652 section 6.1")


def encrypt(content: bytes, content_type: str, recipients: Sequence[Recipient], *, content_key: bytes, iv: bytes) -> bytes:
    """Encrypt `content` for every one of `recipients`; returns DER ContentInfo.

    `content_type` is the dotted OID of what `content` is: its octets go in as they are. `content_key` is 16, 24 or 32 random octets,
    `iv` 16, and neither is ever used again. The version is 0 where every recipient is a ktri by issuer and serial, else 2.
    """
    if len(content_key) not in AES_CBC_OIDS or len(iv) != IV_OCTETS:
        raise ValueError("AES-CBC takes a content key of 16, 24 or 32 octets and an IV of 16")
    encoded = encrypted_content.encode_recipients(recipients, content_key)
    version = 0 if all(each.version == 0 for each in encoded) else 2
    padder = padding.PKCS7(_BLOCK_BITS).padder()
    encryptor = Cipher(algorithms.AES(content_key), modes.CBC(iv)).encryptor()
    encrypted = encryptor.update(padder.update(content) + padder.finalize()) + encryptor.finalize()
    algorithm = algorithm_identifier(AES_CBC_OIDS[len(content_key)], tlv(OCTET_STRING, iv))
    members = integer(version) + encrypted_content.recipient_infos(encoded)
    return content_info(ENVELOPED_DATA, tlv(SEQUENCE, members + encrypted_content.encode_content(content_type, algorithm, encrypted)))


def decrypt(content_info_der: bytes, keys: Sequence[DecryptionKey]) -> tuple[str, bytes]:
    """Decrypt a DER ContentInfo with the first of `keys` that it names as a recipient; returns the dotted content type and the content.

    The content may have been altered on the way without anybody noticing here. Raises MalformedBody, with the reasons of
    `recipient_info.decrypt_content_key`.
    """
    enveloped = encrypted_content.open_message(content_info_der, _SYNTAX)
    version = enveloped.integer()
    if version not in (0, 2, 3, 4):
        raise MalformedBody(f"{_SYNTAX.what} has version {version}; there are 0, 2, 3 and 4 (RFC 5652 section 6.1)")
    recipient_infos = encrypted_content.read_recipients(enveloped)
    encrypted = encrypted_content.read_content(
        enveloped.inside(SEQUENCE, what="the encryptedContentInfo"),
        _SYNTAX,
        cipher="AES-CBC",
        key_octets_by_oid=_KEY_OCTETS,
        read_parameters=_read_iv,
    )
    if enveloped.next_is(CONTEXT_1):
        enveloped.opaque()  # unprotectedAttrs: nobody vouches for them
    enveloped.close()
    content_key = recipient_info.decrypt_content_key(recipient_infos, keys, octets=encrypted.key_octets)
    return encrypted.content_type, foreign(lambda: _decipher(encrypted, content_key), cannot_decrypt)


def _read_iv(algorithm: Reader) -> bytes:
    iv = algorithm.octets()
    algorithm.close()
    if len(iv) != IV_OCTETS:
        raise MalformedBody(f"the IV has {len(iv)} octets where AES-CBC takes {IV_OCTETS}")
    return iv


def _decipher(encrypted: EncryptedContent[bytes], content_key: bytes) -> bytes:
    decryptor = Cipher(algorithms.AES(content_key), modes.CBC(encrypted.parameters)).decryptor()
    unpadder = padding.PKCS7(_BLOCK_BITS).unpadder()
    return unpadder.update(decryptor.update(encrypted.octets) + decryptor.finalize()) + unpadder.finalize()
