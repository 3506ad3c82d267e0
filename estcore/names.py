"""Names: distinguished names and general names, what they may hold, and when two are the same.

RFC 5280 sections 4.1.2.4, 4.2.1.6, 7 and Appendix A. A name that could be read in two ways (by us and by who verifies the certificate) is
refused here. Who may have a name is registration's question, not this module's.
"""

import ipaddress
import re
import unicodedata
from collections.abc import Iterable, Sequence
from stringprep import in_table_b1, map_table_b2
from typing import Final

from cryptography import x509
from cryptography.x509.oid import NameOID, ObjectIdentifier

from estcore.der import IA5_STRING, OBJECT_IDENTIFIER, PRINTABLE_STRING, SEQUENCE, SET, UTF8_STRING, member, object_identifier, read
from estcore.dns_names import dns_labels
from estcore.errors import BadCsr
from estcore.other_names import check_other_name, describe_other_name
from estcore.visible_text import check_text, shown

MAX_RDNS: Final = 20
MAX_URI_CHARACTERS: Final = 2048
MAX_EMAIL_LOCAL_CHARACTERS: Final = 64

_DIRECTORY_STRING = frozenset({PRINTABLE_STRING, UTF8_STRING})
_PRINTABLE_ONLY = frozenset({PRINTABLE_STRING})
_IA5_ONLY = frozenset({IA5_STRING})
_TYPE_NAMES = {PRINTABLE_STRING: "PrintableString", UTF8_STRING: "UTF8String", IA5_STRING: "IA5String"}

_ATTRIBUTES: dict[ObjectIdentifier, tuple[str, frozenset[int], int, int]] = {
    NameOID.COMMON_NAME: ("commonName", _DIRECTORY_STRING, 1, 64),
    NameOID.COUNTRY_NAME: ("countryName", _PRINTABLE_ONLY, 2, 2),
    NameOID.STATE_OR_PROVINCE_NAME: ("stateOrProvinceName", _DIRECTORY_STRING, 1, 128),
    NameOID.LOCALITY_NAME: ("localityName", _DIRECTORY_STRING, 1, 128),
    NameOID.STREET_ADDRESS: ("streetAddress", _DIRECTORY_STRING, 1, 128),
    NameOID.POSTAL_CODE: ("postalCode", _DIRECTORY_STRING, 1, 16),
    NameOID.ORGANIZATION_NAME: ("organizationName", _DIRECTORY_STRING, 1, 64),
    NameOID.ORGANIZATIONAL_UNIT_NAME: ("organizationalUnitName", _DIRECTORY_STRING, 1, 64),
    NameOID.ORGANIZATION_IDENTIFIER: ("organizationIdentifier", _DIRECTORY_STRING, 1, 256),
    NameOID.SERIAL_NUMBER: ("serialNumber", _PRINTABLE_ONLY, 1, 64),
    NameOID.DN_QUALIFIER: ("dnQualifier", _PRINTABLE_ONLY, 1, 64),
    NameOID.TITLE: ("title", _DIRECTORY_STRING, 1, 64),
    NameOID.GIVEN_NAME: ("givenName", _DIRECTORY_STRING, 1, 64),
    NameOID.SURNAME: ("surname", _DIRECTORY_STRING, 1, 64),
    NameOID.PSEUDONYM: ("pseudonym", _DIRECTORY_STRING, 1, 128),
    NameOID.USER_ID: ("userId", _DIRECTORY_STRING, 1, 256),
    NameOID.DOMAIN_COMPONENT: ("domainComponent", _IA5_ONLY, 1, 63),
    NameOID.EMAIL_ADDRESS: ("emailAddress", _IA5_ONLY, 1, 255),
}
"""Subject attributes: name, string types, least and most characters (RFC 5280 Appendix A.1; X.520 Annex C for what it lacks)."""

SUBJECT_ATTRIBUTE_NAMES: Final = {oid: name for oid, (name, *_) in _ATTRIBUTES.items()}
STRING_TYPES: Final = {oid: UTF8_STRING if UTF8_STRING in types else min(types) for oid, (_, types, *_) in _ATTRIBUTES.items()}
"""Our string type of each: UTF8String where it may be one, else the only one that it may be."""

_ATTRIBUTES_BY_DER = {object_identifier(oid.dotted_string): (oid, *rules) for oid, rules in _ATTRIBUTES.items()}
_ONCE = frozenset({NameOID.COMMON_NAME, NameOID.COUNTRY_NAME, NameOID.SERIAL_NUMBER, NameOID.EMAIL_ADDRESS})
"""Readers take the first, or the last, of two."""

_PRINTABLE_STRING = re.compile(r"[A-Za-z0-9 '()+,./:=?-]*")
_EMAIL_LOCAL = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_URI = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):"
    r"(//(?P<authority>[A-Za-z0-9._~!$&'()*+,;=:@\[\]%-]*))?"
    r"(?P<path>([A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*)"
    r"(?P<rest>(\?([A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*)?(#([A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*)?)"
)
"""RFC 3986 section 3 and Appendix A; the authority is looked at further."""
_SPIFFE_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}")
_SPIFFE_PATH = re.compile(r"(/[A-Za-z0-9._-]+)*")


def parse_name(name_der: bytes) -> x509.Name:
    """Check the DER of a distinguished name and parse it; an empty one is fine.

    Single-valued RDNs of the attributes in the table above, within its bounds, as PrintableString or UTF8String, NFC, without control and
    bidi characters; one CN. The name that is returned encodes in our string types, whatever those of `name_der` are: PrintableString for
    country and serialNumber, UTF8String for text (RFC 5280 section 4.1.2.4). Raises BadCsr, or MalformedBody where it is not DER.
    """
    end = len(name_der)
    position, name_end = member(name_der, 0, end, SEQUENCE, what="the subject")
    if name_end != end:
        raise BadCsr("the subject is followed by something else")
    attributes: list[x509.NameAttribute[str]] = []
    while position < end:
        pair, rdn_end = member(name_der, position, end, SET, what="the subject")
        oid, pair_end = member(name_der, pair, rdn_end, SEQUENCE, what="the subject")
        if pair_end != rdn_end:
            raise BadCsr("the subject has an RDN of several attributes; give each its own")
        if len(attributes) == MAX_RDNS:
            raise BadCsr(f"the subject has more than {MAX_RDNS} attributes")
        _, value = member(name_der, oid, pair_end, OBJECT_IDENTIFIER, what="the subject")
        string_type, text, text_end = read(name_der, value, pair_end, what="the subject")
        if text_end != pair_end:
            raise BadCsr("the subject has an attribute of more than a type and a value")
        attributes.append(_attribute(name_der[oid:value], string_type, name_der[text:text_end], attributes))
        position = rdn_end
    return x509.Name(attributes)


def check_name(name: x509.Name) -> None:
    """Check a name as `parse_name` does."""
    parse_name(name.public_bytes())


def _attribute(oid_der: bytes, string_type: int, octets: bytes, before: Sequence[x509.NameAttribute[str]]) -> x509.NameAttribute[str]:
    known = _ATTRIBUTES_BY_DER.get(oid_der)
    if known is None:
        raise BadCsr(f"the subject has an attribute of a type that is not issued (DER {oid_der.hex()[:64]})")
    oid, name, string_types, least, most = known
    if before and oid in _ONCE and any(attribute.oid == oid for attribute in before):
        raise BadCsr(f"the subject has more than one {name}")
    if string_type not in string_types:
        raise BadCsr(f"the subject's {name} is not a {' or '.join(sorted(_TYPE_NAMES[each] for each in string_types))}")
    try:
        text = octets.decode("utf-8" if string_type == UTF8_STRING else "ascii")
    except UnicodeDecodeError as error:
        raise BadCsr(f"the subject's {name} is not a valid {_TYPE_NAMES[string_type]}") from error
    # RFC 5280 counts characters; `cryptography` counts the octets of a CN and warns of every certificate with more than 64.
    length = len(octets) if oid == NameOID.COMMON_NAME else len(text)
    if not least <= length <= most:
        raise BadCsr(f"the subject's {name} has {length} characters; {least} to {most} are allowed (RFC 5280 Appendix A)")
    if string_type == PRINTABLE_STRING and not _PRINTABLE_STRING.fullmatch(text):
        raise BadCsr(f"the subject's {name} is a PrintableString with a character outside its alphabet; use UTF8String")
    check_text(text, f"the subject's {name}")
    return x509.NameAttribute(oid, text)


def same_name(a: x509.Name, b: x509.Name) -> bool:
    """Whether two names are the same by RFC 5280 section 7.1: RDN by RDN, in order, values compared whatever their string type.

    Case is folded, the text normalized (NFKC) and runs of spaces count as one (RFC 4518 section 2, without its prohibitions).
    """
    return _comparable_name(a) == _comparable_name(b)


def same_general_names(a: Iterable[x509.GeneralName], b: Iterable[x509.GeneralName]) -> bool:
    """Whether two lists of names hold the same ones: as sets, each kind by its rule of RFC 5280 section 7."""
    return {_comparable_general_name(name) for name in a} == {_comparable_general_name(name) for name in b}


def names_beyond(names: Iterable[x509.GeneralName], others: Iterable[x509.GeneralName]) -> tuple[x509.GeneralName, ...]:
    """Those of `names` that are not among `others`, compared as `same_general_names` does."""
    known = {_comparable_general_name(name) for name in others}
    return tuple(name for name in names if _comparable_general_name(name) not in known)


def _comparable_name(name: x509.Name) -> tuple[frozenset[tuple[str, str | bytes]], ...]:
    return tuple(frozenset((attribute.oid.dotted_string, _prepared(attribute.value)) for attribute in rdn) for rdn in name.rdns)


def _prepared(value: str | bytes) -> str | bytes:
    if isinstance(value, bytes):
        return value
    if value.isascii():
        return " ".join(value.lower().split())
    mapped = "".join(map_table_b2(character) for character in value if not in_table_b1(character))
    return " ".join(unicodedata.normalize("NFKC", mapped).split())


def _comparable_general_name(name: x509.GeneralName) -> tuple[str, object]:
    match name:
        case x509.DNSName():
            return "DNS", name.value.lower()
        case x509.RFC822Name():
            local, at, domain = name.value.rpartition("@")
            return "email", local + at + domain.lower()
        case x509.UniformResourceIdentifier():
            scheme, colon, rest = name.value.partition(":")
            slashes, authority, path = ("//", *_split_authority(rest[2:])) if rest.startswith("//") else ("", "", rest)
            return "URI", scheme.lower() + colon + slashes + authority.lower() + path
        case x509.DirectoryName():
            return "DirName", _comparable_name(name.value)
        case _:
            return type(name).__name__, name


def _split_authority(text: str) -> tuple[str, str]:
    end = next((index for index, character in enumerate(text) if character in "/?#"), len(text))
    return text[:end], text[end:]


def check_general_name(name: x509.GeneralName) -> None:
    """Check a requested subjectAltName: dNSName, URI, IP address, rfc822Name or an otherName that is text, each in its one form.

    Raises BadCsr with the name; for any other kind of name too.
    """
    match name:
        case x509.DNSName():
            dns_labels(name.value)
        case x509.UniformResourceIdentifier():
            _check_uri(name.value)
        case x509.IPAddress():
            _check_ip_address(name.value)
        case x509.RFC822Name():
            _check_email(name.value)
        case x509.OtherName():
            check_other_name(name)
        case _:
            kind = _KINDS.get(type(name), "a name of another kind")
            raise BadCsr(f"the subjectAltName holds {kind}; only {ISSUED_KINDS} are issued", reason="BadName")


ISSUED_KINDS: Final = "dNSName, URI, iPAddress, rfc822Name and an otherName of a UTF8String"
_KINDS: dict[type, str] = {x509.DirectoryName: "a directoryName", x509.RegisteredID: "a registeredID"}


def _check_uri(uri: str) -> None:
    parts = _URI.fullmatch(uri)
    fault = None
    if parts is None or len(uri) > MAX_URI_CHARACTERS or not (parts["authority"] or parts["path"]):
        fault = "is not an absolute URI (RFC 3986)"
    elif any(segment in (".", "..") for segment in parts["path"].split("/")):
        fault = "has a dot segment"
    elif parts["scheme"].lower() == "spiffe":
        fault = _spiffe_fault(uri)
    elif parts["authority"] is not None:
        fault = _authority_fault(parts["authority"])
    if fault:
        raise BadCsr(f"the URI {shown(uri)} {fault}", reason="BadName")


def _spiffe_fault(uri: str) -> str | None:
    """SPIFFE-ID section 2: lower-case scheme and trust domain, no user, port, query or fragment, no empty segment; 2,048 octets."""
    trust_domain, path = _split_authority(uri.removeprefix("spiffe://"))
    if not uri.startswith("spiffe://") or not _SPIFFE_TRUST_DOMAIN.fullmatch(trust_domain) or not _SPIFFE_PATH.fullmatch(path):
        return "is not a SPIFFE ID (https://spiffe.io, SPIFFE-ID section 2)"
    return None


def _authority_fault(authority: str) -> str | None:
    if "@" in authority:
        return "holds a user name"
    if "%" in authority:
        return "has a % in its host: a zone identifier or an escape"
    host, colon, port = authority.rpartition(":") if not authority.endswith("]") else (authority, "", "")
    if not colon:
        host = authority
    elif not port.isdigit() or int(port) > 65535:
        return "has a port that is no number"
    try:
        if host.startswith("["):
            ipaddress.IPv6Address(host[1:-1] if host.endswith("]") else "")
        elif not host.replace(".", "").isdigit():
            dns_labels(host)
            return "has a wildcard host" if host.startswith("*") else None
        else:
            ipaddress.IPv4Address(host)
    except (ValueError, BadCsr):
        return "has a host that is neither a DNS name nor an IP address"
    return None


def _check_ip_address(address: object) -> None:
    fault = None
    if not isinstance(address, ipaddress.IPv4Address | ipaddress.IPv6Address):
        fault = "is a range"
    elif address.is_unspecified or address.is_multicast or address == ipaddress.IPv4Address("255.255.255.255"):
        fault = "is no address of a host"
    elif isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        fault = "is an IPv4 address in IPv6 form; ask for the IPv4 address"
    if fault:
        raise BadCsr(f"the IP address {address} {fault}", reason="BadName")


def _check_email(address: str) -> None:
    local, _, domain = address.rpartition("@")
    if len(local) > MAX_EMAIL_LOCAL_CHARACTERS or not _EMAIL_LOCAL.fullmatch(local):
        raise BadCsr(f"the rfc822Name {shown(address)} is not local-part@domain (RFC 5280 section 4.2.1.6)", reason="BadName")
    if dns_labels(domain)[0] == "*":
        raise BadCsr(f"the rfc822Name {shown(address)} has a wildcard domain", reason="BadName")


def describe_name(name: x509.Name) -> str:
    """A name for people and logs: RFC 4514, what cannot be seen escaped, at most 256 characters."""
    return shown(name.rfc4514_string())


def describe_general_name(name: x509.GeneralName) -> str:
    """A name for people and logs: `DNS:a.example`, `URI:…`, `IP:…`, `email:…`, `otherName:1.2.3;UTF8:…`.

    What cannot be seen is escaped, and a value has at most 256 characters.
    """
    match name:
        case x509.DNSName():
            return f"DNS:{shown(name.value)}"
        case x509.UniformResourceIdentifier():
            return f"URI:{shown(name.value)}"
        case x509.IPAddress():
            return f"IP:{name.value}"
        case x509.RFC822Name():
            return f"email:{shown(name.value)}"
        case x509.DirectoryName():
            return f"DirName:{describe_name(name.value)}"
        case x509.OtherName():
            return describe_other_name(name)
        case _:
            return f"{type(name).__name__}:{shown(str(name.value))}"
