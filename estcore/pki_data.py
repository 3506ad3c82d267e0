"""PKIData, the body of a Full PKI Request: what was sent, in its parts, each with its octets kept.

RFC 5272 sections 3.2.1 and 3.2.2, syntax of RFC 6402 Appendix A.1. Proofs are computed over octets as they were sent, so `reqSequence` and
each TaggedRequest are kept and never encoded again. Nothing here knows what a control means (that is `estcore.cmc_controls`) or what a
certification request asks for.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from estcore.der import CONTEXT_0, CONTEXT_1, SEQUENCE, SET, integer, object_identifier, tlv
from estcore.der_reader import Reader, only
from estcore.errors import CmcFailed, CmcFailInfo, MalformedBody

ID_CCT_PKI_DATA: Final = "1.3.6.1.5.5.7.12.2"
MAX_BODY_PART_ID: Final = 0xFFFFFFFF
"""RFC 5272 section 3.2.2; 0 stands for the whole message and is nobody's own."""
MAX_CONTROLS: Final = 64
MAX_REQUESTS: Final = 16
MAX_CONTENTS: Final = 16
"""Members of cmsSequence, and of otherMsgSequence: a batch of an RA."""
MAX_CONTROL_VALUES: Final = 8

_CONTEXT_2: Final = 0xA2
_EMPTY: Final = tlv(SEQUENCE, b"")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaggedAttribute:
    """One control as it was sent: its number, its type as a dotted OID, the DER of each of its values."""

    body_part_id: int
    attr_type: str
    values_der: tuple[bytes, ...] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pkcs10Request:
    """A `tcr`: a PKCS#10 CSR. `tagged_der` is the whole TaggedRequest as it was sent."""

    body_part_id: int
    tagged_der: bytes = field(repr=False)
    csr_der: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class CrmfRequest:
    """A `crm`: a CertReqMsg of RFC 4211, whose certReqId is its number. `cert_req_msg_der` has the tag of a SEQUENCE again."""

    body_part_id: int
    tagged_der: bytes = field(repr=False)
    cert_req_msg_der: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherRequest:
    """An `orm`: a request of a form that no RFC defines."""

    body_part_id: int
    tagged_der: bytes = field(repr=False)
    request_type: str


TaggedRequest = Pkcs10Request | CrmfRequest | OtherRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class TaggedContentInfo:
    """A member of cmsSequence: a DER ContentInfo, not looked into."""

    body_part_id: int
    content_info_der: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherMessage:
    """A member of otherMsgSequence."""

    body_part_id: int
    message_type: str
    value_der: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class PkiData:
    """A PKIData. `req_sequence_der` is its reqSequence with tag and length, as sent: what identity proofs are over."""

    controls: tuple[TaggedAttribute, ...]
    requests: tuple[TaggedRequest, ...]
    contents: tuple[TaggedContentInfo, ...]
    others: tuple[OtherMessage, ...]
    req_sequence_der: bytes = field(repr=False)


def parse(der: bytes) -> PkiData:
    """Parse a DER PKIData.

    Raises MalformedBody where it is none; CmcFailed (badRequest) for a body part number that is out of range, 0 or there twice.
    """
    what = "the PKIData"
    reader = only(der, what=what)
    controls = parse_controls(reader)
    request_reader, req_sequence_der = reader.inside_and_whole(SEQUENCE)
    requests = tuple(_requests(request_reader))
    contents = parse_contents(reader)
    others = parse_others(reader)
    reader.close()
    check_numbers((*controls, *requests, *contents, *others))
    return PkiData(controls=controls, requests=requests, contents=contents, others=others, req_sequence_der=req_sequence_der)


def encode(
    *,
    controls: Sequence[TaggedAttribute] = (),
    requests_der: Sequence[bytes] = (),
    contents: Sequence[TaggedContentInfo] = (),
) -> bytes:
    """Encode a DER PKIData; `requests_der` are whole TaggedRequests, as `tagged_pkcs10` and `tagged_crmf` make them or as they came."""
    return tlv(SEQUENCE, encode_controls(controls) + req_sequence(requests_der) + encode_contents(contents) + _EMPTY)


def req_sequence(requests_der: Sequence[bytes]) -> bytes:
    """The DER reqSequence of these TaggedRequests: what an identity proof is computed over."""
    return tlv(SEQUENCE, b"".join(requests_der))


def tagged_pkcs10(body_part_id: int, csr_der: bytes) -> bytes:
    """A DER TaggedRequest for a PKCS#10 CSR."""
    return tlv(CONTEXT_0, integer(body_part_id) + csr_der)


def tagged_crmf(cert_req_msg_der: bytes) -> bytes:
    """A DER TaggedRequest for a CertReqMsg; its number is the certReqId within."""
    return bytes((CONTEXT_1,)) + cert_req_msg_der[1:]


# ---- what PKIData and PKIResponse have in common


def parse_controls(reader: Reader) -> tuple[TaggedAttribute, ...]:
    """Read a controlSequence."""
    return tuple(_control(each) for each in reader.inside(SEQUENCE).each_inside(SEQUENCE, at_most=MAX_CONTROLS, what="a control"))


def parse_contents(reader: Reader) -> tuple[TaggedContentInfo, ...]:
    """Read a cmsSequence."""
    contents = []
    for member in reader.inside(SEQUENCE).each_inside(SEQUENCE, at_most=MAX_CONTENTS, what="a member of cmsSequence"):
        contents.append(TaggedContentInfo(body_part_id=_number(member), content_info_der=member.whole(SEQUENCE)))
        member.close()
    return tuple(contents)


def parse_others(reader: Reader) -> tuple[OtherMessage, ...]:
    """Read an otherMsgSequence."""
    others = []
    for member in reader.inside(SEQUENCE).each_inside(SEQUENCE, at_most=MAX_CONTENTS, what="a member of otherMsgSequence"):
        others.append(OtherMessage(body_part_id=_number(member), message_type=member.oid(), value_der=member.opaque()))
        member.close()
    return tuple(others)


def check_numbers(parts: Iterable[TaggedAttribute | TaggedRequest | TaggedContentInfo | OtherMessage]) -> None:
    """Check that no two body parts have the same number (RFC 5272 section 3.2.2). Raises CmcFailed."""
    seen: set[int] = set()
    for part in parts:
        if part.body_part_id in seen:
            raise _bad_number(f"the number {part.body_part_id} is that of two body parts (RFC 5272 section 3.2.2)", part.body_part_id)
        seen.add(part.body_part_id)


def encode_controls(controls: Iterable[TaggedAttribute]) -> bytes:
    """A DER controlSequence."""
    return tlv(
        SEQUENCE,
        b"".join(
            tlv(
                SEQUENCE,
                integer(control.body_part_id) + object_identifier(control.attr_type) + tlv(SET, b"".join(sorted(control.values_der))),
            )
            for control in controls
        ),
    )


def encode_contents(contents: Iterable[TaggedContentInfo]) -> bytes:
    """A DER cmsSequence."""
    return tlv(SEQUENCE, b"".join(tlv(SEQUENCE, integer(each.body_part_id) + each.content_info_der) for each in contents))


def _control(reader: Reader) -> TaggedAttribute:
    body_part_id = _number(reader)
    attr_type = reader.oid()
    values = reader.inside(SET)
    reader.close()
    values_der: list[bytes] = []
    while not values.at_end:
        if len(values_der) == MAX_CONTROL_VALUES:
            raise MalformedBody(f"a control has more than {MAX_CONTROL_VALUES} values")
        values_der.append(values.unread())  # its type says who reads it, and one that is unknown refuses the whole
    return TaggedAttribute(body_part_id=body_part_id, attr_type=attr_type, values_der=tuple(values_der))


def _requests(reader: Reader) -> Iterator[TaggedRequest]:
    number = 0
    while not reader.at_end:
        number += 1
        if number > MAX_REQUESTS:
            raise MalformedBody(f"the PKIData holds more than {MAX_REQUESTS} certification requests")
        if reader.next_is(CONTEXT_0):
            inner, tagged_der = reader.inside_and_whole(CONTEXT_0)
            body_part_id = _number(inner)
            yield Pkcs10Request(body_part_id=body_part_id, tagged_der=tagged_der, csr_der=inner.whole(SEQUENCE))
            inner.close()
        elif reader.next_is(CONTEXT_1):
            inner, tagged_der = reader.inside_and_whole(CONTEXT_1)
            yield CrmfRequest(
                body_part_id=_number(inner.inside(SEQUENCE, what="the CertRequest")),
                tagged_der=tagged_der,
                cert_req_msg_der=bytes((SEQUENCE,)) + tagged_der[1:],
            )
        else:
            inner, tagged_der = reader.inside_and_whole(_CONTEXT_2)
            body_part_id = _number(inner)
            yield OtherRequest(body_part_id=body_part_id, tagged_der=tagged_der, request_type=inner.oid())
            inner.opaque()
            inner.close()


def _number(reader: Reader) -> int:
    """A bodyPartID that a body part may have."""
    number = reader.integer()
    if not 0 < number <= MAX_BODY_PART_ID:
        raise _bad_number(f"a body part has the number {number}; 1 to {MAX_BODY_PART_ID} are there (RFC 5272 section 3.2.2)", number)
    return number


def _bad_number(message: str, number: int) -> CmcFailed:
    named = number if 0 <= number <= MAX_BODY_PART_ID else 0
    return CmcFailed(message, fail_info=CmcFailInfo.BAD_REQUEST, body_parts=((named,),), reason="BadBodyPart")
