"""DER, where the libraries beneath do not look: a strict walk of one value, and a reader of single headers.

X.690 sections 8, 10 and 11. `cryptography` reads the shapes it knows strictly; asn1crypto accepts BER and trailing bytes, and both pass
over an ANY without a look. So whatever is handed to asn1crypto, or passed over, goes through `check` first.
No ASN.1 type is decoded here.
"""

import re
from functools import lru_cache
from typing import Final

from estcore.errors import MalformedBody

MAX_CSR_OCTETS: Final = 32 * 1024
"""A CSR with an RSA-4096 key and 100 names of 63 characters is under 8 KiB."""
MAX_DEPTH: Final = 32
"""Constructed values within each other, the outermost counted; a Full PKI Request with certificates inside has about 15."""

MAX_OID_OCTETS: Final = 64
"""Content of an OBJECT IDENTIFIER that is turned into text; those of attributes and algorithms have about 10."""

BOOLEAN: Final = 0x01
INTEGER: Final = 0x02
BIT_STRING: Final = 0x03
OBJECT_IDENTIFIER: Final = 0x06
UTF8_STRING: Final = 0x0C
PRINTABLE_STRING: Final = 0x13
T61_STRING: Final = 0x14
IA5_STRING: Final = 0x16
UNIVERSAL_STRING: Final = 0x1C
BMP_STRING: Final = 0x1E
OCTET_STRING: Final = 0x04
SEQUENCE: Final = 0x30
SET: Final = 0x31
CONTEXT_0: Final = 0xA0
CONTEXT_1: Final = 0xA1
CONTEXT_2: Final = 0xA2

_CONSTRUCTED = 0x20
_ARC_WITH_LEADING_ZERO = re.compile(rb"(?:^|[\x00-\x7f])\x80", re.DOTALL)
_HIGH_TAG_NUMBER = 0x1F


def read(der: bytes, position: int, limit: int, *, what: str) -> tuple[int, int, int]:
    """Read the header at `position` of a value that must end at `limit` or before: identifier octet, start of content, end.

    Definite minimal lengths only (X.690 section 10.1), one identifier octet. Raises MalformedBody, where `what` names the value.
    """
    content = position + 2
    if content > limit:
        raise MalformedBody(f"{what} is cut off")
    identifier = der[position]
    length = der[position + 1]
    if identifier & _HIGH_TAG_NUMBER == _HIGH_TAG_NUMBER:
        raise MalformedBody(f"{what} has a tag number above 30, which no format here uses")
    if length > 0x7F:
        count = length & 0x7F
        if count == 0:
            raise MalformedBody(f"{what} has an indefinite length, which DER forbids")
        octets = der[content : content + count]
        length = int.from_bytes(octets)
        if count > 4 or length < 0x80 or octets[0] == 0:
            raise MalformedBody(f"{what} has a length that is cut off, too large or not minimal")
        content += count
    end = content + length
    if end > limit:
        raise MalformedBody(f"{what} is cut off")
    return identifier, content, end


def member(der: bytes, position: int, limit: int, identifier: int, *, what: str) -> tuple[int, int]:
    """As `read`, for a value that must have this identifier octet: start of content, end."""
    # Most values are short: this says in one line what `read` says in ten, for the path of every enrolment.
    content = position + 2
    if content <= limit and der[position] == identifier and (length := der[position + 1]) < 0x80 and (end := content + length) <= limit:
        return content, end
    found, content, end = read(der, position, limit, what=what)
    if found != identifier:
        raise MalformedBody(f"{what} has the tag {found:#04x} where {identifier:#04x} belongs")
    return content, end


def check(der: bytes, *, what: str, max_octets: int = MAX_CSR_OCTETS, max_depth: int = MAX_DEPTH) -> None:
    """Check that `der` is one DER value and nothing after it, down to its last primitive value.

    Looks at lengths, nesting, and the content of BOOLEAN, INTEGER, ENUMERATED, NULL, BIT STRING and OBJECT IDENTIFIER.
    Not checked: the order of a SET OF (widely got wrong, and harmless), and character strings.
    Raises MalformedBody, where `what` names the value.
    """
    if not der:
        raise MalformedBody(f"{what} is empty")
    if len(der) > max_octets:
        raise MalformedBody(f"{what} has {len(der)} octets, more than {max_octets}")
    position, limit = 0, len(der)
    ends: list[int] = []
    while True:
        identifier, content, end = read(der, position, limit, what=what)
        if not ends and end != limit:
            raise MalformedBody(f"{what} is followed by {limit - end} octets that do not belong to it")
        position = end
        if identifier & _CONSTRUCTED:
            if identifier < 0x40 and identifier not in (SEQUENCE, SET):
                raise MalformedBody(f"{what} holds a string in parts, which DER forbids")
            if len(ends) == max_depth:
                raise MalformedBody(f"{what} is nested deeper than {max_depth}")
            ends.append(end)
            position = content
        elif identifier < 0x40:
            _check_primitive(identifier, der[content:end], what)
        while ends and position == ends[-1]:
            ends.pop()
        if not ends:
            return
        limit = ends[-1]


def object_identifier(dotted: str) -> bytes:
    """Encode an OBJECT IDENTIFIER, header included; for table keys that are compared with octets read."""
    first, second, *rest = (int(arc) for arc in dotted.split("."))
    return tlv(OBJECT_IDENTIFIER, b"".join(_base_128(arc) for arc in (first * 40 + second, *rest)))


def algorithm_identifier(oid: str, parameters: bytes = b"") -> bytes:
    """The DER AlgorithmIdentifier of a dotted OID (RFC 5280 section 4.1.1.2); `parameters` is DER, empty where they are absent."""
    return tlv(SEQUENCE, object_identifier(oid) + parameters)


def children(value: bytes, identifier: int, *, what: str) -> tuple[bytes, ...]:
    """The values, headers included, that make up one constructed value with this identifier octet; raises MalformedBody."""
    position, end = member(value, 0, len(value), identifier, what=what)
    if end != len(value):
        raise MalformedBody(f"{what} is followed by {len(value) - end} octets that do not belong to it")
    found = []
    while position < end:
        *_, next_position = read(value, position, end, what=what)
        found.append(value[position:next_position])
        position = next_position
    return tuple(found)


def dotted(oid_der: bytes, *, what: str) -> str:
    """Decode an OBJECT IDENTIFIER, header included. Raises MalformedBody, where `what` names what it stands in."""
    text = _dotted(oid_der)
    if text is None:
        raise MalformedBody(f"{what} holds an OBJECT IDENTIFIER that is not DER")
    return text


@lru_cache(maxsize=256)
def _dotted(oid_der: bytes) -> str | None:
    """Cached: a message names a dozen algorithms and types, and they are the same in the next one."""
    content = oid_der[2:]
    if not content or len(content) > MAX_OID_OCTETS or content[-1] >= 0x80 or _ARC_WITH_LEADING_ZERO.search(content):
        return None
    arcs: list[int] = []
    arc = 0
    for octet in content:
        arc = arc << 7 | octet & 0x7F
        if octet < 0x80:
            arcs.append(arc)
            arc = 0
    first = min(arcs[0] // 40, 2)
    return ".".join(map(str, (first, arcs[0] - 40 * first, *arcs[1:])))


def integer(value: int) -> bytes:
    """Encode an INTEGER, header included."""
    return tlv(INTEGER, value.to_bytes((value if value >= 0 else ~value).bit_length() // 8 + 1, signed=True))


def _base_128(arc: int) -> bytes:
    octets = bytearray((arc & 0x7F,))
    while arc := arc >> 7:
        octets.insert(0, 0x80 | arc & 0x7F)
    return bytes(octets)


def _check_primitive(identifier: int, content: bytes, what: str) -> None:
    match identifier:
        case 0x01:  # BOOLEAN
            right = content in (b"\x00", b"\xff")
        case 0x02 | 0x0A:  # INTEGER, ENUMERATED: the first nine bits are not all alike
            right = len(content) == 1 or (len(content) > 1 and not (content[0] in (0x00, 0xFF) and (content[0] ^ content[1]) < 0x80))
        case 0x03:  # BIT STRING: unused bits are counted and zero
            unused = content[0] if content else 8
            right = unused == 0 or (unused < 8 and len(content) > 1 and content[-1] & ((1 << unused) - 1) == 0)
        case 0x05:  # NULL
            right = not content
        case 0x06:  # OBJECT IDENTIFIER: each arc starts with no zero digit and ends
            right = bool(content) and content[-1] < 0x80 and not _ARC_WITH_LEADING_ZERO.search(content)
        case 0x00 | 0x10 | 0x11:  # end-of-contents; SEQUENCE and SET are constructed
            right = False
        case _:
            right = True
    if not right:
        raise MalformedBody(f"{what} holds a value of tag {identifier:#04x} that is not DER")


def tlv(identifier: int, content: bytes) -> bytes:
    """One DER value with its header (X.690 section 10.1: the shortest length)."""
    length = len(content)
    if length < 0x80:
        return bytes((identifier, length)) + content
    if length < 0x100:
        return bytes((identifier, 0x81, length)) + content
    octets = length.to_bytes((length.bit_length() + 7) // 8)
    return bytes((identifier, 0x80 | len(octets))) + octets + content
