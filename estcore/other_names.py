"""otherNames of a subjectAltName whose value is one UTF8String: user principal names, XMPP addresses, mailboxes of RFC 9598, and alike.

RFC 5280 section 4.2.1.6: AnotherName ::= SEQUENCE { type-id OBJECT IDENTIFIER, value [0] EXPLICIT ANY DEFINED BY type-id }, with an
IMPLICIT tag. Values of every other type (Kerberos names, hardware module names, DNS SRV names) are refused by name: a rule's pattern is
text. These names are logins elsewhere, so a value has one spelling only, and at most one `@`, whichever reader splits it.
"""

import re
import unicodedata
from typing import Final

from cryptography import x509
from cryptography.x509.oid import ObjectIdentifier

from estcore.der import CONTEXT_0, OBJECT_IDENTIFIER, UTF8_STRING, dotted, member, object_identifier, tlv
from estcore.dns_names import dns_labels
from estcore.errors import BadCsr, MalformedBody
from estcore.visible_text import check_text, shown

USER_PRINCIPAL_NAME: Final = "1.3.6.1.4.1.311.20.2.3"
SMTP_UTF8_MAILBOX: Final = "1.3.6.1.5.5.7.8.9"
"""id-on-SmtpUTF8Mailbox (RFC 9598 section 3)."""
MAX_OTHER_NAME_CHARACTERS: Final = 253
"""As many as a pattern may have, and few enough that no description of a name is ever shortened: two names never look alike."""
MAX_TYPE_OCTETS: Final = 63
"""Content of an OBJECT IDENTIFIER that `cryptography` reads and writes."""
MAX_MAILBOX_LOCAL_OCTETS: Final = 64
"""RFC 5321 section 4.5.3.1.1."""

_SEPARATORS = re.compile(r'[ ,;"\\]')
"""A list of names as text has commas or spaces between them, and OpenSSL's form of this one a semicolon; quoting is by the other two."""
_MAILBOX_LOCAL = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\U0010ffff-]+(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\U0010ffff-]+)*")
"""Dot-string of RFC 5321 section 4.1.2 with the characters of RFC 6531 section 3.3; quoted strings are not issued."""


def other_name(oid: str, text: str) -> x509.OtherName:
    """The otherName of this dotted type whose value is this text as a UTF8String; unchecked."""
    return x509.OtherName(ObjectIdentifier(oid), tlv(UTF8_STRING, text.encode()))


def parse_other_name(content: bytes) -> x509.OtherName:
    """Read the content of an otherName's DER, tag and length left off; unchecked beyond its shape. Raises MalformedBody."""
    _, oid_end = member(content, 0, len(content), OBJECT_IDENTIFIER, what="an otherName's type")
    value, end = member(content, oid_end, len(content), CONTEXT_0, what="an otherName's value")
    if end != len(content):
        raise MalformedBody("an otherName holds more than a type and a value (RFC 5280 section 4.2.1.6)")
    oid = dotted(content[:oid_end], what="an otherName's type")
    try:
        return x509.OtherName(ObjectIdentifier(oid), content[value:end])
    except ValueError as error:
        raise MalformedBody("an otherName has a type that is no object identifier") from error


def check_other_name(name: x509.OtherName) -> str:
    """Check an otherName, and return the text of its value.

    The value is exactly one UTF8String of 1 to 253 visible characters in Unicode normalization form KC, so C too, without space, comma,
    semicolon, quotation mark and backslash, and with one `@` at most, inside; a user principal name has one. A SmtpUTF8Mailbox has a
    local part that is not ASCII and a domain of lower-case A-labels and LDH labels (RFC 9598 section 3). Raises BadCsr (BadName).
    """
    oid = name.type_id.dotted_string
    text = _utf8_string(oid, name.value)
    fault = _fault(text) or _fault_of_type(oid, text)
    if fault:
        raise BadCsr(f"the {describe_other_name(name)} {fault}", reason="BadName")
    return text


def describe_other_name(name: x509.OtherName) -> str:
    """As OpenSSL's x509v3_config has it: `otherName:1.3.6.1.4.1.311.20.2.3;UTF8:a@example.org`; without a value that is no text."""
    oid = name.type_id.dotted_string
    try:
        return f"otherName:{oid};UTF8:{shown(_utf8_string(oid, name.value))}"
    except BadCsr:
        return f"otherName:{oid}"


def check_type(oid: str) -> None:
    """Check the dotted OID of a type, in its one spelling. Raises ValueError that says what to write."""
    try:
        encoded = object_identifier(ObjectIdentifier(oid).dotted_string)
    except ValueError as error:
        raise ValueError(f"{shown(oid)!r} is no object identifier such as {USER_PRINCIPAL_NAME}") from error
    if len(encoded) - 2 > MAX_TYPE_OCTETS or dotted(encoded, what="the type") != oid:
        raise ValueError(f"{shown(oid)!r} is no object identifier such as {USER_PRINCIPAL_NAME}: write it without leading zeros")


def _utf8_string(oid: str, value: bytes) -> str:
    try:
        start, end = member(value, 0, len(value), UTF8_STRING, what="the value")
        if end != len(value):
            raise BadCsr(f"the value of the otherName of type {oid} is followed by octets that do not belong to it", reason="BadName")
        return value[start:end].decode()
    except UnicodeDecodeError as error:
        raise BadCsr(f"the value of the otherName of type {oid} is not valid UTF-8", reason="BadName") from error
    except MalformedBody as error:
        raise BadCsr(
            f"the subjectAltName holds an otherName of type {oid} whose value is no UTF8String, the only kind that is issued",
            reason="BadName",
        ) from error


def _fault(text: str) -> str | None:
    if not 0 < len(text) <= MAX_OTHER_NAME_CHARACTERS:
        return f"has {len(text)} characters; 1 to {MAX_OTHER_NAME_CHARACTERS} are allowed"
    try:
        check_text(text, "it")
    except BadCsr as error:
        return error.message.removeprefix("it ")
    if not unicodedata.is_normalized("NFKC", text):
        return "holds a compatibility character (it is not in Unicode normalization form KC)"
    if _SEPARATORS.search(text):
        return 'holds one of space , ; " \\, which no such name needs'
    if text.count("@") > 1 or text[0] == "@" or text[-1] == "@":
        return "has an @ too many, or nothing on one side of it"
    return None


def _fault_of_type(oid: str, text: str) -> str | None:
    if oid == USER_PRINCIPAL_NAME and "@" not in text:
        return "is no user principal name, which is written user@domain"
    if oid != SMTP_UTF8_MAILBOX:
        return None
    local, _, domain = text.rpartition("@")
    if not _MAILBOX_LOCAL.fullmatch(local) or len(local.encode()) > MAX_MAILBOX_LOCAL_OCTETS:
        return "is not local-part@domain (RFC 9598 section 3)"
    if local.isascii():
        return "is a mailbox in ASCII, which is an rfc822Name and never a SmtpUTF8Mailbox (RFC 9598 section 3)"
    try:
        labels = dns_labels(domain)
    except BadCsr as error:
        return f"has no domain: {error.message}"
    return None if labels[0] != "*" and ".".join(labels) == domain else "has a domain that is not of lower-case labels (RFC 9598 section 3)"
