"""One attribute: a type and its values, as they stand in CsrAttrs and in the templates within.

RFC 2986 section 4.1 and RFC 8951 section 4: SEQUENCE { type OBJECT IDENTIFIER, values SET OF ANY }. Values are octets here: nobody
decodes one before its type is recognised, for unknown types may hold anything.
"""

from dataclasses import dataclass
from typing import Final, Self

from estcore import der
from estcore.der import OBJECT_IDENTIFIER, SEQUENCE, SET
from estcore.errors import MalformedBody

MAX_VALUES: Final = 100
"""Of one attribute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribute:
    """`type` is a dotted OID; `values` are DER values, in the order of the SET, which may be empty."""

    type: str
    values: tuple[bytes, ...] = ()

    @classmethod
    def decode(cls, attribute: bytes) -> Self:
        """Read a DER Attribute, itself already found to be DER all through (`der.check`); raises MalformedBody."""
        members = der.children(attribute, SEQUENCE, what="an attribute")
        if len(members) != 2:
            raise MalformedBody("an attribute has not exactly a type and a set of values (RFC 8951 section 4)")
        values = der.children(members[1], SET, what="an attribute's values")
        if len(values) > MAX_VALUES:
            raise MalformedBody(f"an attribute has more than {MAX_VALUES} values")
        return cls(type=read_object_identifier(members[0], what="an attribute's type"), values=values)

    def encode(self) -> bytes:
        """As DER: the values of a SET OF are sorted (X.690 section 11.6)."""
        values = der.tlv(SET, b"".join(sorted(self.values)))
        return der.tlv(SEQUENCE, der.object_identifier(self.type) + values)


def is_object_identifier(value: bytes) -> bool:
    """Whether a DER value is an OBJECT IDENTIFIER."""
    return value[:1] == bytes((OBJECT_IDENTIFIER,))


def read_object_identifier(value: bytes, *, what: str) -> str:
    """The dotted form of a DER value that must be an OBJECT IDENTIFIER; raises MalformedBody, where `what` names it."""
    if not is_object_identifier(value):
        raise MalformedBody(f"{what} is no OBJECT IDENTIFIER")
    return der.dotted(value, what=what)
