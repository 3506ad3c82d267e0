"""CMCStatusInfoV2 and its forerunner: what became of the parts of a request.

RFC 5272 sections 6.1.1 to 6.1.4. What is written is always the V2 form with failInfo or pendInfo; extendedFailInfo is never written, for
its tag differs between the two modules of RFC 6402 (it is read in both forms, and its presence is all that is kept).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum
from typing import Final

from estcore.der import CONTEXT_1, INTEGER, OBJECT_IDENTIFIER, SEQUENCE, UTF8_STRING, integer, tlv
from estcore.der_reader import GENERALIZED_TIME, OCTET_STRING, Reader
from estcore.errors import (
    BadCsr,
    BindingMismatch,
    CmcFailed,
    CmcFailInfo,
    EstError,
    MalformedBody,
    RequestError,
    Unauthenticated,
    Unavailable,
)

BodyPartPath = tuple[int, ...]
"""A bodyPartID for each layer, from the outermost message inwards; (0,) is the whole message."""

WHOLE_MESSAGE: Final[BodyPartPath] = (0,)
MAX_REFERENCES: Final = 64
MAX_PATH: Final = 8
MAX_STATUS_CHARACTERS: Final = 512


class CmcStatus(IntEnum):
    """CMCStatus (RFC 5272 section 6.1.3)."""

    SUCCESS = 0
    FAILED = 2
    PENDING = 3
    NO_SUPPORT = 4
    CONFIRM_REQUIRED = 5
    POP_REQUIRED = 6
    PARTIAL = 7


class CmcNotSupported(CmcFailed):
    """A part of the request asks for what this server does not do: answered by the status noSupport (RFC 5272 section 6.1.3)."""

    reason = "NotSupported"

    def __init__(self, message: str, *, body_parts: Sequence[BodyPartPath] = ()) -> None:
        super().__init__(message, fail_info=CmcFailInfo.BAD_REQUEST, body_parts=body_parts)

    def about(self, *body_parts: BodyPartPath) -> "CmcNotSupported":
        """As `CmcFailed.about`."""
        return CmcNotSupported(self.message, body_parts=self.body_parts or body_parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class PendInfo:
    """What to poll with, and when (aware, UTC, whole seconds)."""

    token: bytes = field(repr=False)
    time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusInfo:
    """What became of some body parts. `fail_info` goes with failed only, `pend_info` with pending and partial only.

    `fail_info` is a plain number where a peer sent one that no RFC lists. `extended` says that a peer sent extendedFailInfo.
    """

    status: CmcStatus
    body_parts: tuple[BodyPartPath, ...]
    text: str | None = None
    fail_info: CmcFailInfo | int | None = None
    pend_info: PendInfo | None = None
    extended: bool = False

    @classmethod
    def failed(cls, failure: CmcFailed) -> "StatusInfo":
        """What a failure says of its body parts, or of the whole message where it names none."""
        unsupported = isinstance(failure, CmcNotSupported)
        return cls(
            status=CmcStatus.NO_SUPPORT if unsupported else CmcStatus.FAILED,
            body_parts=failure.body_parts or (WHOLE_MESSAGE,),
            text=failure.message[:MAX_STATUS_CHARACTERS],
            fail_info=None if unsupported else failure.fail_info,
        )


def failure_of(error: EstError) -> CmcFailed:
    """The failure that an error of any kind is to a CMC client (RFC 5272 section 6.1.4); a CmcFailed is itself."""
    if isinstance(error, CmcFailed):
        return error
    by_reason = _BY_REASON.get(error.reason)
    if isinstance(error, BadCsr) and error.reason == "BadSignature":  # of the request, whose signature is its proof-of-possession
        by_reason = CmcFailInfo.POP_FAILED
    fail_info = by_reason if by_reason is not None else next((info for kind, info in _BY_KIND if isinstance(error, kind)), None)
    if fail_info is None:
        fail_info = CmcFailInfo.INTERNAL_CA_ERROR
    failed = CmcFailed(error.message, fail_info=fail_info, reason=error.reason)
    failed.http_status = error.http_status
    return failed


_BY_KIND: Final[Sequence[tuple[type[EstError], CmcFailInfo]]] = (
    (Unavailable, CmcFailInfo.TRY_LATER),
    (BindingMismatch, CmcFailInfo.POP_FAILED),  # RFC 7030 section 3.5
    (Unauthenticated, CmcFailInfo.BAD_IDENTITY),
    (RequestError, CmcFailInfo.BAD_REQUEST),
)
_BY_REASON: Final = {
    "UnsupportedExtension": CmcFailInfo.UNSUPPORTED_EXT,
    "UnsupportedUsage": CmcFailInfo.UNSUPPORTED_EXT,
    "CaRequested": CmcFailInfo.UNSUPPORTED_EXT,
    "SignatureAlgorithm": CmcFailInfo.BAD_ALG,
    "DigestAlgorithm": CmcFailInfo.BAD_ALG,
    "KeyNotAllowed": CmcFailInfo.BAD_ALG,
    "KeyNotPermitted": CmcFailInfo.BAD_ALG,
    "KeyReused": CmcFailInfo.NO_KEY_REUSE,
    "NotProven": CmcFailInfo.POP_REQUIRED,
    "DoorWithoutToken": CmcFailInfo.BAD_IDENTITY,
    "SignerError": CmcFailInfo.INTERNAL_CA_ERROR,
}
"""Where the reason says more than the kind."""


def read_v2(reader: Reader) -> StatusInfo:
    """Read the members of a CMCStatusInfoV2. Raises MalformedBody."""
    status = _status(reader)
    references = reader.inside(SEQUENCE)
    body_parts = tuple(read_references(references))
    return _rest(reader, status, body_parts)


def read_v1(reader: Reader) -> StatusInfo:
    """Read the members of a CMCStatusInfo (RFC 5272 section 6.1.1), which old peers send. Raises MalformedBody."""
    status = _status(reader)
    body_parts = tuple((number,) for number in read_numbers(reader.inside(SEQUENCE)))
    return _rest(reader, status, body_parts)


def write_v2(info: StatusInfo) -> bytes:
    """A DER CMCStatusInfoV2. Raises ValueError for other information that does not go with the status (RFC 5272 section 6.1.1)."""
    if info.fail_info is not None and info.status is not CmcStatus.FAILED:
        raise ValueError("failInfo goes with the status failed only")
    if info.pend_info is not None and info.status not in (CmcStatus.PENDING, CmcStatus.PARTIAL):
        raise ValueError("pendInfo goes with the statuses pending and partial only")
    if not info.body_parts:
        raise ValueError("a status is about one body part at least")
    members = [integer(info.status), tlv(SEQUENCE, b"".join(map(write_reference, info.body_parts)))]
    if info.text:
        members.append(tlv(UTF8_STRING, info.text.encode()))
    if info.fail_info is not None:
        members.append(integer(info.fail_info))
    elif info.pend_info is not None:
        moment = info.pend_info.time.astimezone(UTC).strftime("%Y%m%d%H%M%SZ").encode()
        members.append(tlv(SEQUENCE, tlv(OCTET_STRING, info.pend_info.token) + tlv(GENERALIZED_TIME, moment)))
    return tlv(SEQUENCE, b"".join(members))


def read_references(reader: Reader) -> list[BodyPartPath]:
    """Read each BodyPartReference that is left: a number, or a path. Raises MalformedBody, also where there is none."""
    references: list[BodyPartPath] = []
    while not reader.at_end:
        references.append(tuple(read_numbers(reader.inside(SEQUENCE))) if reader.next_is(SEQUENCE) else (read_number(reader),))
        if len(references) > MAX_REFERENCES or not 0 < len(references[-1]) <= MAX_PATH:
            raise MalformedBody("a list of body parts is too long, or a path in it is empty or too long")
    if not references:
        raise MalformedBody("a list of body parts is empty")
    return references


def read_numbers(reader: Reader) -> list[int]:
    """Read each bodyPartID that is left. Raises MalformedBody."""
    numbers: list[int] = []
    while not reader.at_end:
        if len(numbers) == MAX_REFERENCES:
            raise MalformedBody(f"a list of body parts has more than {MAX_REFERENCES} members")
        numbers.append(read_number(reader))
    return numbers


def write_numbers(numbers: Sequence[int]) -> bytes:
    """A DER SEQUENCE OF BodyPartID."""
    return tlv(SEQUENCE, b"".join(map(integer, numbers)))


def write_reference(path: BodyPartPath) -> bytes:
    """A DER BodyPartReference: a plain number where the path has one member."""
    return integer(path[0]) if len(path) == 1 else write_numbers(path)


def read_number(reader: Reader) -> int:
    """A BodyPartID. Raises MalformedBody."""
    number = reader.integer()
    if not 0 <= number <= 0xFFFFFFFF:
        raise MalformedBody(f"there is no body part {number}; numbers have 32 bits")
    return number


def _status(reader: Reader) -> CmcStatus:
    number = reader.integer()
    try:
        return CmcStatus(number)
    except ValueError as error:
        raise MalformedBody(f"there is no CMCStatus {number}") from error


def _rest(reader: Reader, status: CmcStatus, body_parts: tuple[BodyPartPath, ...]) -> StatusInfo:
    text = reader.utf8() if reader.next_is(UTF8_STRING) else None
    fail_info: CmcFailInfo | int | None = None
    pend_info: PendInfo | None = None
    extended = False
    if reader.next_is(INTEGER):
        number = reader.integer()
        fail_info = CmcFailInfo(number) if number in CmcFailInfo.__members__.values() else number
    elif reader.next_is(SEQUENCE):
        # PendInfo, or extendedFailInfo without its tag: told apart by the first member.
        inner = reader.inside(SEQUENCE)
        if inner.next_is(OBJECT_IDENTIFIER):
            inner.oid()
            inner.opaque()
            extended = True
        else:
            pend_info = PendInfo(token=inner.octets(), time=inner.generalized_time())
        inner.close()
    elif reader.next_is(CONTEXT_1):
        reader.opaque()
        extended = True
    reader.close()
    return StatusInfo(status=status, body_parts=body_parts, text=text, fail_info=fail_info, pend_info=pend_info, extended=extended)
