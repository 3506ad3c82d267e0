"""CsrAttrs: what a server wants to see in a CSR, as octets.

RFC 8951 section 4 (the grammar that replaces RFC 7030 section 4.5.2) and RFC 9908 section 3.2:

    CsrAttrs  ::= SEQUENCE SIZE (0..MAX) OF AttrOrOID
    AttrOrOID ::= CHOICE { oid OBJECT IDENTIFIER, attribute Attribute }

The reader takes whatever has this shape, for a client ignores what it does not know, whatever its values (RFC 8951 section 4): an empty
SET, several values of several types, and the example of RFC 7030 whose extensionRequest holds no Extensions. The writer is strict:
it refuses the forms that RFC 9908 section 3 calls wrong. What the items mean is `estcore.csr_wishes`' matter.
"""

import re
from collections import Counter
from collections.abc import Iterable
from typing import Final

from estcore import der, transfer
from estcore.attribute import Attribute, is_object_identifier, read_object_identifier
from estcore.csr_template import Template, decode_extensions, encode_extensions, integer
from estcore.csr_vocabulary import (
    CERTIFICATION_REQUEST_INFO_TEMPLATE,
    EC_PUBLIC_KEY,
    EXTENSION_REQ_TEMPLATE,
    EXTENSION_REQUEST,
    KEY_TYPES,
    RSA_ENCRYPTION,
    describe,
)
from estcore.der import INTEGER, OBJECT_IDENTIFIER, SEQUENCE
from estcore.errors import MalformedBody

MAX_OCTETS: Final = 32 * 1024
"""Of a whole CsrAttrs; the published ones have under 200."""
MAX_ITEMS: Final = 100

NO_WISHES: Final = b"\x30\x00"
"""An empty CsrAttrs: as good as 204 and 404 (RFC 8951 section 4)."""

AttrOrOid = str | Attribute
CsrAttrs = tuple[AttrOrOid, ...]
"""A bare OID is its dotted form."""


def decode(csrattrs_der: bytes) -> CsrAttrs:
    """Read DER; raises MalformedBody where it is not DER of a CsrAttrs, or over the bounds above."""
    der.check(csrattrs_der, what="the CsrAttrs", max_octets=MAX_OCTETS)
    items = der.children(csrattrs_der, SEQUENCE, what="the CsrAttrs")
    if len(items) > MAX_ITEMS:
        raise MalformedBody(f"the CsrAttrs has more than {MAX_ITEMS} items")
    return tuple(read_object_identifier(item, what="an OID") if is_object_identifier(item) else Attribute.decode(item) for item in items)


def parse_base64(text: str) -> CsrAttrs:
    """Read a CsrAttrs that somebody wrote down as base64 of DER; raises ValueError that says what to write."""
    try:
        return decode(transfer.decode_body(text.encode()))
    except MalformedBody as error:
        raise ValueError(f"write the base64 of one DER CsrAttrs (RFC 8951 section 4): {error.message}") from error


def parse_oids(oids: Iterable[str]) -> CsrAttrs:
    """Read OIDs that somebody wrote down; raises ValueError that says what to write."""
    for oid in oids:
        if not _DOTTED.fullmatch(oid) or len(der.object_identifier(oid)) > der.MAX_OID_OCTETS:
            raise ValueError(f"{oid!r} is no object identifier; write one like 1.2.840.113549.1.9.7")
    return tuple(oids)


_DOTTED = re.compile(r"([01]\.[1-3]?[0-9]|2\.(0|[1-9][0-9]{0,8}))(\.(0|[1-9][0-9]{0,38}))*")
"""X.660: the first arc is 0, 1 or 2, and under 0 and 1 the second is at most 39; an arc from a UUID has 39 digits."""


def encode(csrattrs: CsrAttrs) -> bytes:
    """Write DER; raises ValueError, which says what to write instead, for forms that RFC 9908 section 3 does not have."""
    check_well_formed(csrattrs)
    encoded = der.tlv(SEQUENCE, b"".join(der.object_identifier(item) if isinstance(item, str) else item.encode() for item in csrattrs))
    if len(encoded) > MAX_OCTETS:
        raise ValueError(f"the CsrAttrs has {len(encoded)} octets, more than {MAX_OCTETS}")
    return encoded


def check_well_formed(csrattrs: CsrAttrs) -> None:
    """Check what a server may send (RFC 9908 sections 3.2 and 3.4); raises ValueError."""
    if len(csrattrs) > MAX_ITEMS:
        raise ValueError(f"more than {MAX_ITEMS} items")
    attributes = [item for item in csrattrs if isinstance(item, Attribute)]
    bare = [item for item in csrattrs if isinstance(item, str)]
    _check_once(bare, "the OID")
    _check_once((attribute.type for attribute in attributes), "an attribute of type")
    for oid in _NEVER_BARE & set(bare):
        raise ValueError(f"{describe(oid)} is an attribute with one value, never a bare OID (RFC 9908 section 3)")
    if len([attribute for attribute in attributes if attribute.type in KEY_TYPES]) > 1:
        raise ValueError("more than one kind of key is asked for: exactly one attribute may (RFC 9908 section 3.2)")
    for attribute in attributes:
        try:
            _check_attribute(attribute)
        except MalformedBody as error:
            raise ValueError(error.message) from error


_NEVER_BARE = frozenset({EXTENSION_REQUEST, EXTENSION_REQ_TEMPLATE, CERTIFICATION_REQUEST_INFO_TEMPLATE})


def _check_once(oids: Iterable[str], what: str) -> None:
    for oid, count in Counter(oids).items():
        if count > 1:
            raise ValueError(f"{what} {describe(oid)} is there {count} times; once is enough (RFC 9908 section 3.2)")


def _check_attribute(attribute: Attribute) -> None:
    match attribute.type:
        case _ if attribute.type == EXTENSION_REQUEST:
            if encode_extensions(decode_extensions(attribute)) != attribute:
                raise ValueError(
                    "the extensionRequest is not one SEQUENCE of complete extensions without critical FALSE (RFC 9908 section 3.2)"
                )
        case _ if attribute.type == EXTENSION_REQ_TEMPLATE:
            raise ValueError("an extensionReqTemplate stands within a certificationRequestInfoTemplate only (RFC 9908 section 3.4)")
        case _ if attribute.type == CERTIFICATION_REQUEST_INFO_TEMPLATE:
            if len(attribute.values) != 1:
                raise ValueError("the certificationRequestInfoTemplate has not exactly one value (RFC 9908 section 3.4)")
            _check_template(Template.decode(attribute.values[0]), attribute.values[0])
        case _ if attribute.type in KEY_TYPES:
            _check_key_type(attribute)


def _check_template(template: Template, as_sent: bytes) -> None:
    _check_once((attribute.type for attribute in template.attributes), "in the template, an attribute of type")
    if template.encode() != as_sent:
        raise ValueError(
            "the template is not as RFC 9908 section 3.4 writes it: extensionRequest where all values are complete, else"
            " extensionReqTemplate with one SEQUENCE of extensions; sorted SETs; no critical FALSE"
        )
    if template.key is not None and template.key.public_key is not None and template.key.algorithm != RSA_ENCRYPTION:
        raise ValueError(
            "the template has a placeholder key that is not RSA; only the length of an RSA key needs one (RFC 9908 section 3.4)"
        )


def _check_key_type(attribute: Attribute) -> None:
    if not attribute.values:
        return
    value = attribute.values[0]
    if len(attribute.values) == 1:
        if attribute.type == EC_PUBLIC_KEY and value[0] == OBJECT_IDENTIFIER:
            return
        if attribute.type == RSA_ENCRYPTION and value[0] == INTEGER and integer(value) > 0:
            return
    raise ValueError(
        f"the attribute {KEY_TYPES[attribute.type]} holds something else than nothing, one curve (EC) or one length in bits (RSA)"
        " (RFC 9908 section 3.2)"
    )
