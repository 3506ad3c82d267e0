"""The attributes beside a content that a signature, a MAC or a tag covers: each type is there once.

RFC 5652 sections 5.3, 9.2 and 11; RFC 5083 section 2.1.
"""

from collections.abc import Iterable
from typing import Final

from estcore.der import SEQUENCE, SET, object_identifier, tlv
from estcore.der_reader import Reader, only
from estcore.errors import MalformedBody

CONTENT_TYPE: Final = "1.2.840.113549.1.9.3"
MESSAGE_DIGEST: Final = "1.2.840.113549.1.9.4"
SIGNING_TIME: Final = "1.2.840.113549.1.9.5"


def attribute(attribute_type: str, value_der: bytes) -> bytes:
    """DER Attribute of a dotted type, with one value."""
    return tlv(SEQUENCE, object_identifier(attribute_type) + tlv(SET, value_der))


def read(attributes_der: Iterable[bytes], *, what: str) -> dict[str, Reader]:
    """The dotted type of each DER Attribute → a reader of its values. Raises MalformedBody, also for a type that is there twice."""
    values: dict[str, Reader] = {}
    for attribute_der in attributes_der:
        reader = only(attribute_der, what=what)
        attribute_type = reader.oid()
        if attribute_type in values:
            raise MalformedBody(f"{what} is there twice")
        values[attribute_type] = reader.inside(SET)
        reader.close()
    return values
