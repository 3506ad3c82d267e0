"""PKIResponse, the body of a Full PKI Response: built by the server, read by the client.

RFC 5272 sections 4.2 and 6.1, RFC 7030 section 4.3.2. A response is SignedData over PKIResponse; certificates stand in the bag of the
SignedData next to it, in no order, none of them trusted for being there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from estcore import cmc_control_codec, pki_data, signed_data
from estcore.cmc_controls import Control, DataReturn, RecipientNonce, SenderNonce, Status, TransactionId
from estcore.cmc_status import StatusInfo
from estcore.cms_signature import MessageSigner
from estcore.der import SEQUENCE, tlv
from estcore.der_reader import only
from estcore.errors import MalformedBody
from estcore.pki_data import OtherMessage, TaggedContentInfo
from estcore.signed_data import SignedData, SignerIdentifier

ID_CCT_PKI_RESPONSE: Final = "1.3.6.1.5.5.7.12.3"
MAX_CERTIFICATES: Final = 64
"""As many as /cacerts may give out, and one for each request of a message."""
_EMPTY: Final = tlv(SEQUENCE, b"")


@dataclass(frozen=True, slots=True, kw_only=True)
class PkiResponse:
    """A PKIResponse: its controls with their numbers, and the messages that they may refer to."""

    controls: tuple[tuple[int, Control], ...]
    contents: tuple[TaggedContentInfo, ...] = ()
    others: tuple[OtherMessage, ...] = ()

    @property
    def statuses(self) -> tuple[StatusInfo, ...]:
        """What is said of the parts of the request; several may be about the same part, and success is often left unsaid."""
        return tuple(value.info for _, value in self.controls if isinstance(value, Status))


def parse(der: bytes) -> PkiResponse:
    """Parse a DER PKIResponse. Raises MalformedBody, or CmcFailed for a control whose value cannot be read."""
    reader = only(der, what="the PKIResponse")
    tagged = pki_data.parse_controls(reader)
    contents = pki_data.parse_contents(reader)
    others = pki_data.parse_others(reader)
    reader.close()
    pki_data.check_numbers((*tagged, *contents, *others))
    return PkiResponse(
        controls=tuple((control.body_part_id, cmc_control_codec.read(control)) for control in tagged), contents=contents, others=others
    )


def parse_message(content_info_der: bytes, *, max_octets: int = signed_data.MAX_OCTETS) -> tuple[SignedData, PkiResponse]:
    """Parse a DER ContentInfo of SignedData over a PKIResponse. Nothing is verified. Raises as `signed_data.parse` and `parse`."""
    message = signed_data.parse(content_info_der, max_octets=max_octets, max_certificates=MAX_CERTIFICATES)
    if message.content_type != ID_CCT_PKI_RESPONSE or message.content is None:
        raise MalformedBody("the message is no Full PKI Response (RFC 5272 section 4.2)")
    return message, parse(message.content)


def encode(values: Sequence[Control], contents: Sequence[TaggedContentInfo] = ()) -> bytes:
    """Encode a DER PKIResponse with these controls, numbered from 1 on; the numbers of `contents` must lie above."""
    tagged = [cmc_control_codec.write(number, value) for number, value in enumerate(values, start=1)]
    pki_data.check_numbers((*tagged, *contents))
    return tlv(SEQUENCE, pki_data.encode_controls(tagged) + pki_data.encode_contents(contents) + _EMPTY)


def build(
    response_der: bytes,
    signers: Sequence[tuple[SignerIdentifier, MessageSigner]],
    *,
    certificates_der: Sequence[bytes] = (),
    signing_time: datetime | None = None,
) -> bytes:
    """Build the DER ContentInfo of a Full PKI Response around a DER PKIResponse."""
    return signed_data.build(ID_CCT_PKI_RESPONSE, response_der, signers, certificates_der=certificates_der, signing_time=signing_time)


def echoes(request: Sequence[Control], *, sender_nonce: bytes) -> list[Control]:
    """What a response repeats of the request: transactionId, its senderNonce as recipientNonce beside a new one, dataReturn.

    RFC 5272 sections 6.4 and 6.6. `sender_nonce` is ours, fresh; it is sent only where the request had one.
    """
    repeated: list[Control] = []
    for value in request:
        match value:
            case TransactionId() | DataReturn():
                repeated.append(value)
            case SenderNonce():
                repeated += (RecipientNonce(value.octets), SenderNonce(sender_nonce))
            case _:
                pass
    return repeated
