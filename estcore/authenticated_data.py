"""AuthenticatedData: a message under a secret that both sides have, both ways.

RFC 5652 section 9 with PasswordRecipientInfo (section 6.2.4), as RFC 5272 section 3.2 and RFC 5274 section 4.1 narrow it: one recipient,
PBKDF2, AES key wrap (PWRI-KEK is read too), HMAC. The content is in clear, and so is the identification in it that tells whose secret
is to be tried; nothing in it counts before `verify`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from estcore import cms_attributes, pwri_kek
from estcore import der as der_module
from estcore.cms_attributes import CONTENT_TYPE, MESSAGE_DIGEST
from estcore.der import CONTEXT_0, CONTEXT_1, SEQUENCE, SET, integer, object_identifier, tlv
from estcore.der_reader import OCTET_STRING, Reader, only
from estcore.errors import CmcFailed, CmcFailInfo, MalformedBody
from estcore.foreign import foreign
from estcore.key_encryption import KEY_WRAPS, KeyWrap
from estcore.proof_algorithms import HMAC_SHA256_DER, SHA256_DER, Pbkdf2, digest, mac, read_pbkdf2, same

MAX_OCTETS: Final = 256 * 1024
MAX_ATTRIBUTES: Final = 20
MAC_KEY_OCTETS: Final = 32
MIN_MAC_KEY_OCTETS: Final = 16
SALT_OCTETS: Final = 16

_CONTEXT_2 = 0xA2
_CONTEXT_3 = 0xA3
_PWRI = 0xA3
ID_CT_AUTH_DATA: Final = "1.2.840.113549.1.9.16.1.2"
_WHAT = "the AuthenticatedData"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthenticatedData:
    """A message whose MAC nobody has checked yet; `verify` does, and returns the content."""

    content_type: str
    """Dotted."""
    unverified_content: bytes
    unauthenticated_attributes_der: bytes
    """The content of the [3] field as it came, empty where there is none; no MAC covers it."""
    _password_recipient: bytes = field(repr=False)
    _mac_algorithm: bytes = field(repr=False)
    _digest_algorithm: bytes = field(repr=False)
    _authenticated_attributes: bytes = field(repr=False)
    """With the tag of a SET OF, as the MAC covers it (RFC 5652 section 9.2)."""
    _mac: bytes = field(repr=False)


def key_derivation_input(identifier: str, secret: str) -> bytes:
    """What PBKDF2 takes as the password: the identifier, then the secret (RFC 5272 section 3.2).

    The other way round than the identity proof (`estcore.identity_proof`): T-26 of the catalogue, and a message made so does not verify.
    """
    return identifier.encode() + secret.encode()


def parse(content_info_der: bytes) -> AuthenticatedData:
    """Parse DER ContentInfo { id-ct-authData }. Raises MalformedBody, or CmcFailed (badRequest) for a form that is not accepted."""
    der_module.check(content_info_der, what=_WHAT, max_octets=MAX_OCTETS)
    content_info = only(content_info_der, what="the ContentInfo")
    if content_info.oid() != ID_CT_AUTH_DATA:
        raise MalformedBody("the message is not an AuthenticatedData (RFC 5652 section 9)")
    explicit = content_info.inside(CONTEXT_0)
    content_info.close()
    message = explicit.inside(SEQUENCE, what=_WHAT)
    explicit.close()
    if message.integer() != 0 or message.next_is(CONTEXT_0):
        raise MalformedBody("the AuthenticatedData is not of version 0 without originatorInfo, the only form that a password has")
    recipient = _one_password_recipient(message.inside(SET, what="the recipientInfos"))
    mac_algorithm = message.whole(SEQUENCE)
    # digestAlgorithm [1] IMPLICIT; both it and authAttrs are there for every content type but id-data (RFC 5652 section 9.1).
    digest_algorithm = tlv(SEQUENCE, message.content(CONTEXT_1)) if message.next_is(CONTEXT_1) else b""
    content_type, content = _encapsulated(message.inside(SEQUENCE, what="the encapContentInfo"))
    attributes = tlv(SET, message.content(_CONTEXT_2)) if message.next_is(_CONTEXT_2) else b""
    octets = message.octets()
    unauthenticated = message.content(_CONTEXT_3) if message.next_is(_CONTEXT_3) else b""
    message.close()
    if not digest_algorithm or not attributes:
        raise MalformedBody("the AuthenticatedData has no digestAlgorithm and authAttrs, which RFC 5652 section 9.1 asks for here")
    return AuthenticatedData(
        content_type=content_type,
        unverified_content=content,
        unauthenticated_attributes_der=unauthenticated,
        _password_recipient=recipient,
        _mac_algorithm=mac_algorithm,
        _digest_algorithm=digest_algorithm,
        _authenticated_attributes=attributes,
        _mac=octets,
    )


def _one_password_recipient(recipients: Reader) -> bytes:
    if not recipients.next_is(_PWRI):
        raise CmcFailed(
            "the AuthenticatedData has another recipient than a password (RFC 5272 section 3.2 has pwri only)",
            fail_info=CmcFailInfo.BAD_REQUEST,
        )
    recipient = recipients.whole(_PWRI)
    if not recipients.at_end:
        raise CmcFailed("the AuthenticatedData has more than one recipient", fail_info=CmcFailInfo.BAD_REQUEST)
    return recipient


def _encapsulated(info: Reader) -> tuple[str, bytes]:
    content_type = info.oid()
    if info.at_end:
        raise MalformedBody("the AuthenticatedData holds no content")
    explicit = info.inside(CONTEXT_0)
    info.close()
    content = explicit.octets()
    explicit.close()
    return content_type, content


def verify(message: AuthenticatedData, password: bytes, *, accept_sha1: bool = False) -> bytes:
    """Check the MAC under a password, which is `key_derivation_input(…)`, and return the content.

    The work is bounded: one PBKDF2 of at most MAX_PBKDF2_ITERATIONS. Raises CmcFailed: badMessageCheck for whatever does not fit the
    password, the same whether it, the wrapped key, the attributes or the MAC is wrong; badAlg for an algorithm that is not accepted.
    """
    recipient = _read_password_recipient(message._password_recipient, accept_sha1=accept_sha1)
    key_encryption_key = recipient.pbkdf2.derive(password, key_octets=recipient.key_octets)
    mac_key = foreign(lambda: recipient.unwrap(key_encryption_key), _does_not_verify)
    what = "the AuthenticatedData"
    expected = mac(
        message._mac_algorithm, message._authenticated_attributes, key=mac_key, accept_sha1=accept_sha1, what=f"the macAlgorithm of {what}"
    )
    content_digest = digest(
        message._digest_algorithm, message.unverified_content, accept_sha1=accept_sha1, what=f"the digestAlgorithm of {what}"
    )
    if len(mac_key) < MIN_MAC_KEY_OCTETS or not same(message._mac, expected):
        raise _does_not_verify()
    attributes = only(message._authenticated_attributes, SET, what="the authAttrs").each(SEQUENCE, at_most=MAX_ATTRIBUTES)
    said = {oid: values.rest() for oid, values in cms_attributes.read(attributes, what="an authenticated attribute").items()}
    right_type = said.get(CONTENT_TYPE) == object_identifier(message.content_type)
    if not right_type or not same(said.get(MESSAGE_DIGEST, b""), tlv(OCTET_STRING, content_digest)):
        raise _does_not_verify()
    return message.unverified_content


def _does_not_verify() -> CmcFailed:
    return CmcFailed(
        "the AuthenticatedData does not verify: another secret or identifier, or the message was altered",
        fail_info=CmcFailInfo.BAD_MESSAGE_CHECK,
    )


class _PasswordRecipient(NamedTuple):
    """How the MAC key is got: by a key of `key_octets` that PBKDF2 derives, with which `unwrap` is called."""

    pbkdf2: Pbkdf2
    key_octets: int
    unwrap: Callable[[bytes], bytes]


def _read_password_recipient(recipient: bytes, *, accept_sha1: bool) -> _PasswordRecipient:
    fields = only(recipient, _PWRI, what="the PasswordRecipientInfo")
    if fields.integer() != 0:
        raise MalformedBody("the PasswordRecipientInfo is not of version 0 (RFC 5652 section 6.2.4)")
    if not fields.next_is(CONTEXT_0):
        raise CmcFailed("the PasswordRecipientInfo does not say how the key is derived; use PBKDF2", fail_info=CmcFailInfo.BAD_ALG)
    pbkdf2 = read_pbkdf2(fields.inside(CONTEXT_0), accept_sha1=accept_sha1, what="the PasswordRecipientInfo")
    algorithm = fields.whole(SEQUENCE)
    encrypted_key = fields.octets()
    fields.close()
    if (wrap := KEY_WRAPS.get(algorithm)) is not None:
        return _PasswordRecipient(pbkdf2, wrap.value, lambda key: wrap.unwrap(encrypted_key, key_encryption_key=key))
    identifier = only(algorithm, what="the keyEncryptionAlgorithm")
    parameters = pwri_kek.read_parameters(identifier) if identifier.oid() == pwri_kek.PWRI_KEK_OID else None
    if parameters is None:
        raise CmcFailed(
            "the MAC key is wrapped neither by AES key wrap (RFC 5274 section 4.1) nor by PWRI-KEK with AES", fail_info=CmcFailInfo.BAD_ALG
        )
    key_octets, iv = parameters
    return _PasswordRecipient(pbkdf2, key_octets, lambda key: pwri_kek.unwrap(encrypted_key, key_encryption_key=key, iv=iv))


def build(content: bytes, content_type: str, password: bytes, *, salt: bytes, mac_key: bytes, iterations: int) -> bytes:
    """Authenticate `content`, whose dotted type is `content_type`, under a password; returns DER ContentInfo.

    `salt` and `mac_key` (16 or more octets, a multiple of 8) are random and never used again. PBKDF2 with HMAC-SHA256, AES-256 key wrap,
    HMAC-SHA256.
    """
    if len(mac_key) < MIN_MAC_KEY_OCTETS or not salt:
        raise ValueError(f"a MAC key has {MIN_MAC_KEY_OCTETS} octets or more, and a salt is not empty")
    pbkdf2 = Pbkdf2(salt=salt, iterations=iterations, digest="sha256")
    wrap = KeyWrap.AES_256
    wrapped = wrap.wrap(mac_key, key_encryption_key=pbkdf2.derive(password, key_octets=wrap.value))
    recipient = tlv(
        _PWRI,
        integer(0) + tlv(CONTEXT_0, pbkdf2.oid_and_parameters_der) + wrap.identifier_der + tlv(OCTET_STRING, wrapped),
    )
    content_digest = digest(SHA256_DER, content, accept_sha1=False, what="")
    attributes = b"".join(
        sorted(
            (
                cms_attributes.attribute(CONTENT_TYPE, object_identifier(content_type)),
                cms_attributes.attribute(MESSAGE_DIGEST, tlv(OCTET_STRING, content_digest)),
            )
        )
    )
    octets = mac(HMAC_SHA256_DER, tlv(SET, attributes), key=mac_key, accept_sha1=False, what="")
    message = tlv(
        SEQUENCE,
        integer(0)
        + tlv(SET, recipient)
        + HMAC_SHA256_DER
        + tlv(CONTEXT_1, SHA256_DER[2:])
        + tlv(SEQUENCE, object_identifier(content_type) + tlv(CONTEXT_0, tlv(OCTET_STRING, content)))
        + tlv(_CONTEXT_2, attributes)
        + tlv(OCTET_STRING, octets),
    )
    return tlv(SEQUENCE, object_identifier(ID_CT_AUTH_DATA) + tlv(CONTEXT_0, message))
