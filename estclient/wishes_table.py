"""A server's CSR attributes as a table for people."""

from collections.abc import Iterator
from typing import Final

from cryptography import x509
from rich.table import Table
from rich.text import Text

from estcore import der
from estcore.csr_template import ANY_DIRECTORY_NAME, ANY_IP_ADDRESS, ExtensionTemplate, NameComponent, general_names
from estcore.csr_vocabulary import (
    CHALLENGE_PASSWORD,
    EST_IDENTITY_LINKING,
    EXTENDED_KEY_USAGE,
    KEY_USAGE,
    OTP_CHALLENGE,
    REVOCATION_CHALLENGE,
    SUBJECT_ALT_NAME,
    describe,
)
from estcore.csr_wishes import Wishes
from estcore.der import BIT_STRING, SEQUENCE, SET
from estcore.errors import BadCsr, MalformedBody
from estcore.foreign import foreign
from estcore.general_names import parse_general_names
from estcore.names import describe_general_name, describe_name
from estcore.usages import EXTENDED_KEY_USAGES
from estcore.visible_text import escaped

YOURS: Final = "yours to fill in"

_PROOFS: Final = {
    CHALLENGE_PASSWORD: "the channel binding",
    EST_IDENTITY_LINKING: "the channel binding",
    OTP_CHALLENGE: "your one-time password, if you have one",
    REVOCATION_CHALLENGE: "a secret of yours, if you want to revoke with it",
}

_KEY_USAGE_BITS: Final = (
    "digital signature",
    "content commitment",
    "key encipherment",
    "data encipherment",
    "key agreement",
    "cert sign",
    "crl sign",
    "encipher only",
    "decipher only",
)
"""RFC 5280 section 4.2.1.3, by bit."""


def table(wishes: Wishes) -> Table:
    """One wish a row: what the server wants, and its value or who fills it in."""
    shown = Table(title="CSR attributes", title_justify="left", show_lines=True)
    shown.add_column("wanted")
    shown.add_column("value", overflow="fold")
    for wanted, value in rows(wishes):
        shown.add_row(Text(escaped(wanted)), Text("\n".join(map(escaped, value.splitlines()))))
    return shown


def rows(wishes: Wishes) -> Iterator[tuple[str, str]]:
    """The rows of the table; none where there are no wishes."""
    if wishes.key is not None:
        yield "key", str(wishes.key)
    if wishes.signature is not None:
        yield "signature", describe(wishes.signature)
    for rdn in wishes.subject or ():
        for component in rdn:
            yield f"subject: {describe(component.type)}", YOURS if component.value is None else _text(component)
    for extension in wishes.extensions:
        critical = " (critical)" if extension.critical else ""
        yield f"extension: {describe(extension.oid)}{critical}", YOURS if extension.value is None else _value(extension, extension.value)
    for oid in wishes.supplied:
        yield f"attribute: {describe(oid)}", _PROOFS.get(oid, YOURS)
    for attribute in wishes.attributes:
        yield f"attribute: {describe(attribute.type)}", "\n".join(value.hex() for value in attribute.values)
    for fault in wishes.ignored:
        yield "passed over", fault


def _text(component: NameComponent) -> str:
    pair = der.tlv(SEQUENCE, der.object_identifier(component.type) + (component.value or b""))
    try:
        name = foreign(lambda: x509.Name.from_bytes(der.tlv(SEQUENCE, der.tlv(SET, pair))), lambda: MalformedBody("it is no name"))
    except MalformedBody:
        return (component.value or b"").hex()
    return describe_name(name).partition("=")[2]


def _value(extension: ExtensionTemplate, value: bytes) -> str:
    names = None
    if extension.oid == SUBJECT_ALT_NAME:
        names = [_general_name(name) for name in general_names(value)]
    elif extension.oid == KEY_USAGE:
        names = _key_usage(value)
    elif extension.oid == EXTENDED_KEY_USAGE:
        names = _purposes(value)
    return "\n".join(names) if names else value.hex()


def _general_name(name: bytes) -> str:
    if name == ANY_IP_ADDRESS:
        return f"IP: {YOURS}"
    if name == ANY_DIRECTORY_NAME:
        return f"DirName: {YOURS}"
    try:
        (parsed,) = parse_general_names(der.tlv(SEQUENCE, name))
    except (BadCsr, MalformedBody):
        return name.hex()
    return describe_general_name(parsed)


def _key_usage(value: bytes) -> list[str]:
    try:
        der.check(value, what="the keyUsage")
        content, end = der.member(value, 0, len(value), BIT_STRING, what="the keyUsage")
    except MalformedBody:
        return []
    bits = "".join(f"{octet:08b}" for octet in value[content + 1 : end])
    return [name for name, bit in zip(_KEY_USAGE_BITS, bits, strict=False) if bit == "1"]


def _purposes(value: bytes) -> list[str]:
    known = {oid.dotted_string: str(usage) for oid, usage in EXTENDED_KEY_USAGES.items()}
    try:
        der.check(value, what="the extendedKeyUsage")
        oids = [der.dotted(oid, what="the extendedKeyUsage") for oid in der.children(value, SEQUENCE, what="the extendedKeyUsage")]
    except MalformedBody:
        return []
    return [known.get(oid, oid) for oid in oids]
