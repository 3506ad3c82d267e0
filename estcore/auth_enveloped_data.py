"""AuthEnvelopedData: content encrypted and authenticated with AES-GCM for one or more recipients, both ways.

RFC 5083 and RFC 5084. What travels is DER ContentInfo { id-ct-authEnvelopedData, AuthEnvelopedData }. Recipients are those of
EnvelopedData; what is altered is not decrypted. It does not say who made it: a signature within does.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from estcore import cms_attributes, encrypted_content, recipient_info
from estcore.der import CONTEXT_1, CONTEXT_2, SEQUENCE, SET, algorithm_identifier, integer, object_identifier, tlv
from estcore.der_reader import OCTET_STRING, Reader, only
from estcore.encrypted_content import MAX_OCTETS, EncryptedContent, Syntax
from estcore.errors import MalformedBody
from estcore.foreign import foreign
from estcore.recipient_info import DecryptionKey, Recipient, cannot_decrypt
from estcore.signed_data import DATA, content_info, parse_content_info

AUTH_ENVELOPED_DATA: Final = "1.2.840.113549.1.9.16.1.23"
MAX_ATTRIBUTES: Final = 20
NONCE_OCTETS: Final = 12
"""RFC 5084 section 3.2 recommends it, and for any other length GCM hashes the nonce first."""
TAG_OCTETS: Final = 16
"""What is written. Tags of 12 octets and more are read, as RFC 5084 section 3.2 has them."""

AES_GCM_OIDS: Final = {16: "2.16.840.1.101.3.4.1.6", 24: "2.16.840.1.101.3.4.1.26", 32: "2.16.840.1.101.3.4.1.46"}
"""Octets of the content key → dotted OID (RFC 5084 section 3.2)."""
_KEY_OCTETS = {oid: octets for octets, oid in AES_GCM_OIDS.items()}
_SHORTEST_TAG: Final = 12
_SYNTAX = Syntax("AuthEnvelopedData", AUTH_ENVELOPED_DATA, "RFC 5083 section 2")


def encrypt(content: bytes, content_type: str, recipients: Sequence[Recipient], *, content_key: bytes, nonce: bytes) -> bytes:
    """Encrypt `content` for every one of `recipients`; returns DER ContentInfo.

    `content_type` is the dotted OID of what `content` is: its octets go in as they are, and the type is authenticated with them.
    `content_key` is 16, 24 or 32 random octets, `nonce` 12, and neither is ever used again.
    """
    if len(content_key) not in AES_GCM_OIDS or len(nonce) != NONCE_OCTETS:
        raise ValueError(f"AES-GCM takes a content key of 16, 24 or 32 octets and a nonce of {NONCE_OCTETS}")
    recipient_infos = encrypted_content.recipient_infos(encrypted_content.encode_recipients(recipients, content_key))
    # RFC 5083 section 2.1: they are there where the content is not id-data; section 2.2: authenticated with the tag of a SET OF.
    attribute = cms_attributes.attribute(cms_attributes.CONTENT_TYPE, object_identifier(content_type))
    encryptor = Cipher(algorithms.AES(content_key), modes.GCM(nonce)).encryptor()
    encryptor.authenticate_additional_data(tlv(SET, attribute))
    encrypted = encryptor.update(content) + encryptor.finalize()
    parameters = tlv(SEQUENCE, tlv(OCTET_STRING, nonce) + integer(TAG_OCTETS))
    algorithm = algorithm_identifier(AES_GCM_OIDS[len(content_key)], parameters)
    encrypted_content_info = encrypted_content.encode_content(content_type, algorithm, encrypted)
    members = integer(0) + recipient_infos + encrypted_content_info + tlv(CONTEXT_1, attribute) + tlv(OCTET_STRING, encryptor.tag)
    return content_info(AUTH_ENVELOPED_DATA, tlv(SEQUENCE, members))


def is_one(content_info_der: bytes) -> bool:
    """Whether a DER ContentInfo says that it holds AuthEnvelopedData. Raises MalformedBody for what is no ContentInfo."""
    return parse_content_info(content_info_der, max_octets=MAX_OCTETS)[0] == AUTH_ENVELOPED_DATA


def decrypt(content_info_der: bytes, keys: Sequence[DecryptionKey]) -> tuple[str, bytes]:
    """Decrypt a DER ContentInfo with the first of `keys` that it names as a recipient; returns the dotted content type and the content.

    Raises MalformedBody, with the reasons of `recipient_info.decrypt_content_key`; CannotDecrypt for whatever was altered, too.
    """
    message = encrypted_content.open_message(content_info_der, _SYNTAX)
    version = message.integer()
    if version != 0:
        raise MalformedBody(f"{_SYNTAX.what} has version {version}; there is 0 only (RFC 5083 section 2.1)")
    recipient_infos = encrypted_content.read_recipients(message)
    encrypted = encrypted_content.read_content(
        message.inside(SEQUENCE, what="the authEncryptedContentInfo"),
        _SYNTAX,
        cipher="AES-GCM",
        key_octets_by_oid=_KEY_OCTETS,
        read_parameters=_read_parameters,
    )
    attributes_der = tlv(SET, message.content(CONTEXT_1)) if message.next_is(CONTEXT_1) else b""
    tag = message.octets()
    if message.next_is(CONTEXT_2):
        message.opaque()  # unauthAttrs: nobody vouches for them
    message.close()
    if len(tag) != encrypted.parameters.tag_octets:
        raise MalformedBody(f"the mac has {len(tag)} octets where the algorithm says {encrypted.parameters.tag_octets}")
    _check_attributes(attributes_der, encrypted.content_type)
    content_key = recipient_info.decrypt_content_key(recipient_infos, keys, octets=encrypted.key_octets)
    return encrypted.content_type, foreign(lambda: _decipher(encrypted, content_key, attributes_der, tag), cannot_decrypt)


class _Parameters(NamedTuple):
    nonce: bytes
    tag_octets: int


def _read_parameters(algorithm: Reader) -> _Parameters:
    parameters = algorithm.inside(SEQUENCE, what="the GCMParameters")
    algorithm.close()
    nonce = parameters.octets()
    tag_octets = _SHORTEST_TAG if parameters.at_end else parameters.integer()  # a DEFAULT
    parameters.close()
    if len(nonce) != NONCE_OCTETS or not _SHORTEST_TAG <= tag_octets <= TAG_OCTETS:
        raise MalformedBody(
            f"AES-GCM is read with a nonce of {NONCE_OCTETS} octets and a tag of {_SHORTEST_TAG} to {TAG_OCTETS}",
            reason="UnsupportedCms",
        )
    return _Parameters(nonce, tag_octets)


def _check_attributes(attributes_der: bytes, content_type: str) -> None:
    """RFC 5083 section 2.1 and RFC 5652 section 11.1: where the content is not id-data, they are there and name its type."""
    if not attributes_der:
        if content_type != DATA:
            raise MalformedBody(f"{_SYNTAX.what} has no authAttrs, though its content is not id-data (RFC 5083 section 2.1)")
        return
    attributes = only(attributes_der, SET, what="the authAttrs").each(SEQUENCE, at_most=MAX_ATTRIBUTES)
    said = cms_attributes.read(attributes, what="an authenticated attribute").get(cms_attributes.CONTENT_TYPE)
    if said is None or said.rest() != object_identifier(content_type):
        raise MalformedBody("the authenticated attribute contentType is not there, or names another type than the content has")


def _decipher(encrypted: EncryptedContent[_Parameters], content_key: bytes, attributes_der: bytes, tag: bytes) -> bytes:
    cipher = Cipher(algorithms.AES(content_key), modes.GCM(encrypted.parameters.nonce, tag, min_tag_length=_SHORTEST_TAG))
    decryptor = cipher.decryptor()
    decryptor.authenticate_additional_data(attributes_der)
    return decryptor.update(encrypted.octets) + decryptor.finalize()
