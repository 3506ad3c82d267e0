"""A cursor over DER that has been received: one value after the other, each of the tag that belongs there.

X.690 section 10. For the shapes of CMS and CMC, which nest deeper than is pleasant to count by hand. Lengths and tags are checked where
they are read; whatever is kept unread goes through `Reader.opaque`, which walks it to its last value.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from estcore import der as der_module
from estcore.der import INTEGER, OBJECT_IDENTIFIER, SEQUENCE
from estcore.errors import MalformedBody

OCTET_STRING: Final = 0x04
NULL: Final = 0x05
BOOLEAN: Final = 0x01
ENUMERATED: Final = 0x0A
GENERALIZED_TIME: Final = 0x18
UTC_TIME: Final = 0x17
UTF8_STRING: Final = 0x0C


class Reader:
    """Reads the values within `der[start:end]` in order. `what` names them in errors; every method raises MalformedBody."""

    __slots__ = ("_der", "_end", "_position", "_what")

    def __init__(self, der: bytes, *, what: str, start: int = 0, end: int | None = None) -> None:
        self._der = der
        self._position = start
        self._end = len(der) if end is None else end
        self._what = what

    @property
    def at_end(self) -> bool:
        """Whether nothing is left."""
        return self._position == self._end

    def next_is(self, identifier: int) -> bool:
        """Whether a value with this identifier octet comes next."""
        return self._position < self._end and self._der[self._position] == identifier

    def content(self, identifier: int) -> bytes:
        """The content octets of the next value."""
        start, self._position = der_module.member(self._der, self._position, self._end, identifier, what=self._what)
        return self._der[start : self._position]

    def inside(self, identifier: int, *, what: str | None = None) -> "Reader":
        """A reader of the values within the next one."""
        start, self._position = der_module.member(self._der, self._position, self._end, identifier, what=self._what)
        return Reader(self._der, what=what or self._what, start=start, end=self._position)

    def inside_and_whole(self, identifier: int) -> tuple["Reader", bytes]:
        """As `inside`, and the octets of the value with its header."""
        begin = self._position
        inner = self.inside(identifier)
        return inner, self._der[begin : self._position]

    def whole(self, identifier: int) -> bytes:
        """The next value, header included; what is within it is for somebody else to check."""
        begin = self._position
        _, self._position = der_module.member(self._der, begin, self._end, identifier, what=self._what)
        return self._der[begin : self._position]

    def unread(self) -> bytes:
        """The next value of whatever tag, header included; what is within it is for somebody else to check."""
        begin = self._position
        *_, self._position = der_module.read(self._der, begin, self._end, what=self._what)
        return self._der[begin : self._position]

    def opaque(self) -> bytes:
        """The next value of whatever tag, header included, checked to be DER all through."""
        value = self.unread()
        der_module.check(value, what=self._what, max_octets=len(value))
        return value

    def rest(self) -> bytes:
        """All that is left, unread."""
        begin, self._position = self._position, self._end
        return self._der[begin : self._end]

    def close(self) -> None:
        """Check that nothing is left."""
        if self._position != self._end:
            raise MalformedBody(f"{self._what} holds {self._end - self._position} octets more than it should")

    def each(self, identifier: int, *, at_most: int) -> Iterator[bytes]:
        """Each value that is left, header included; there are at most so many."""
        for _ in range(at_most):
            if self.at_end:
                return
            yield self.whole(identifier)
        if not self.at_end:
            raise MalformedBody(f"{self._what} holds more than {at_most} values")

    def each_inside(self, identifier: int, *, at_most: int, what: str) -> Iterator["Reader"]:
        """As `each`, a reader of the values within each one."""
        for _ in range(at_most):
            if self._position == self._end:
                return
            yield self.inside(identifier, what=what)
        if self._position != self._end:
            raise MalformedBody(f"{self._what} holds more than {at_most} values")

    def oid(self) -> str:
        """The next OBJECT IDENTIFIER, dotted."""
        return der_module.dotted(self.whole(OBJECT_IDENTIFIER), what=self._what)

    def integer(self) -> int:
        """The next INTEGER, of at most 64 octets."""
        return self._number(self.content(INTEGER))

    def enumerated(self) -> int:
        """The next ENUMERATED."""
        return self._number(self.content(ENUMERATED))

    def octets(self) -> bytes:
        """The content of the next OCTET STRING."""
        return self.content(OCTET_STRING)

    def boolean(self) -> bool:
        """The next BOOLEAN."""
        content = self.content(BOOLEAN)
        if content not in (b"\x00", b"\xff"):
            raise MalformedBody(f"{self._what} holds a BOOLEAN that is not DER")
        return content == b"\xff"

    def utf8(self) -> str:
        """The text of the next UTF8String."""
        try:
            return self.content(UTF8_STRING).decode()
        except UnicodeDecodeError as error:
            raise MalformedBody(f"{self._what} holds a UTF8String that is not UTF-8") from error

    def generalized_time(self) -> datetime:
        """The next GeneralizedTime, in whole seconds and UTC (RFC 5280 section 4.1.2.5.2)."""
        return self._moment(self.content(GENERALIZED_TIME), 4)

    def time(self) -> datetime:
        """The next Time: UTCTime through 2049, GeneralizedTime otherwise (RFC 5652 section 11.3)."""
        if self.next_is(UTC_TIME):
            return self._moment(self.content(UTC_TIME), 2)
        return self.generalized_time()

    def _number(self, content: bytes) -> int:
        if not 0 < len(content) <= 64:
            raise MalformedBody(f"{self._what} holds an INTEGER of {len(content)} octets")
        if len(content) > 1 and content[0] in (0x00, 0xFF) and (content[0] ^ content[1]) < 0x80:
            raise MalformedBody(f"{self._what} holds an INTEGER that is not minimal, which DER forbids")
        return int.from_bytes(content, signed=True)

    def _moment(self, content: bytes, year_digits: int) -> datetime:
        """YYYYMMDDhhmmssZ, or the same with a year of two digits: seconds are there, and fractions and offsets are not."""
        text = content[year_digits:-1]
        if len(content) != year_digits + 11 or not content[:-1].isdigit() or content[-1:] != b"Z":
            raise MalformedBody(f"{self._what} holds a time that is not DER")
        year = int(content[:year_digits])
        if year_digits == 2:
            # Two digits below 50 are of this century, others of the last (RFC 5280 section 4.1.2.5.1).
            year += 2000 if year < 50 else 1900
        try:
            return datetime(year, int(text[0:2]), int(text[2:4]), int(text[4:6]), int(text[6:8]), int(text[8:10]), tzinfo=UTC)
        except ValueError as error:
            raise MalformedBody(f"{self._what} holds a time that there is not") from error


def only(der: bytes, identifier: int = SEQUENCE, *, what: str) -> Reader:
    """A reader of the values within the one value that `der` is."""
    size = len(der)
    start, end = der_module.member(der, 0, size, identifier, what=what)
    if end != size:
        raise MalformedBody(f"{what} is followed by {size - end} octets more than it should")
    return Reader(der, what=what, start=start, end=end)
