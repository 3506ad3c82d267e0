"""What EnvelopedData and AuthEnvelopedData share: the recipients, and content that is encrypted for them.

RFC 5652 section 6.1, RFC 5083 section 2.1. How the content is encrypted is theirs.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Generic, NamedTuple, TypeVar

from estcore import der as der_module
from estcore import recipient_info
from estcore.der import CONTEXT_0, SEQUENCE, SET, object_identifier, tlv
from estcore.der_reader import Reader, only
from estcore.errors import MalformedBody
from estcore.recipient_info import Encoded, Recipient
from estcore.signed_data import parse_content_info

MAX_OCTETS: Final = 256 * 1024
_IMPLICIT_0 = 0x80

P = TypeVar("P")


class Syntax(NamedTuple):
    """What a message is called, its dotted OID, and where it is defined."""

    name: str
    oid: str
    source: str

    @property
    def what(self) -> str:
        """The message, in a sentence."""
        return f"the {self.name}"


class EncryptedContent(NamedTuple, Generic[P]):
    """EncryptedContentInfo as read; `key_octets` is how long its key must be, `parameters` are the cipher's."""

    content_type: str
    key_octets: int
    parameters: P
    octets: bytes


def encode_recipients(recipients: Sequence[Recipient], content_key: bytes) -> list[Encoded]:
    """The RecipientInfos of all of them in DER order, for `recipient_infos`. Raises ValueError for none, or more than are read."""
    if not 0 < len(recipients) <= recipient_info.MAX_RECIPIENTS:
        raise ValueError(f"a message has 1 to {recipient_info.MAX_RECIPIENTS} recipients")
    return sorted((recipient_info.encode(recipient, content_key) for recipient in recipients), key=lambda encoded: encoded.der)


def recipient_infos(encoded: Sequence[Encoded]) -> bytes:
    """DER SET OF RecipientInfo."""
    return tlv(SET, b"".join(each.der for each in encoded))


def encode_content(content_type: str, algorithm_der: bytes, encrypted: bytes) -> bytes:
    """DER EncryptedContentInfo."""
    return tlv(SEQUENCE, object_identifier(content_type) + algorithm_der + tlv(_IMPLICIT_0, encrypted))


def open_message(content_info_der: bytes, syntax: Syntax) -> Reader:
    """Reads the members of a message from its version on. Raises MalformedBody where the DER ContentInfo is something else."""
    der_module.check(content_info_der, what=syntax.what, max_octets=MAX_OCTETS)
    message_type, message_der = parse_content_info(content_info_der, max_octets=MAX_OCTETS)
    if message_type != syntax.oid:
        raise MalformedBody(f"the message is not {syntax.name} ({syntax.source})")
    return only(message_der, what=syntax.what)


def read_recipients(message: Reader) -> Reader:
    """Reads the RecipientInfos, which follow the version of a message."""
    if message.next_is(CONTEXT_0):
        message.opaque()  # originatorInfo: certificates and CRLs, for static key agreement
    return message.inside(SET, what="the recipientInfos")


def read_content(
    info: Reader, syntax: Syntax, *, cipher: str, key_octets_by_oid: Mapping[str, int], read_parameters: Callable[[Reader], P]
) -> EncryptedContent[P]:
    """Read the members of an EncryptedContentInfo; `read_parameters` reads what follows the OID of the algorithm, to its end.

    Raises MalformedBody, with reason UnsupportedCms where the algorithm is not one of `key_octets_by_oid`.
    """
    content_type = info.oid()
    algorithm = info.inside(SEQUENCE, what="the contentEncryptionAlgorithm")
    key_octets = key_octets_by_oid.get(algorithm.oid())
    if key_octets is None:
        raise MalformedBody(f"the message cannot be read: its content is not encrypted with {cipher}", reason="UnsupportedCms")
    parameters = read_parameters(algorithm)
    if info.at_end:
        raise MalformedBody(f"{syntax.what} holds no encrypted content")
    octets = info.content(_IMPLICIT_0)
    info.close()
    return EncryptedContent(content_type, key_octets, parameters, octets)
