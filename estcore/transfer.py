"""The transfer encoding of every EST body: base64 of DER.

RFC 8951 section 3 (which replaces RFC 7030's use of Content-Transfer-Encoding): RFC 4648 section 4, white space anywhere, whatever
a Content-Transfer-Encoding header says. PEM armour and raw DER are refused by name, for they are what people send by mistake.
"""

import binascii
import re
from typing import Final

from estcore.errors import MalformedBody

LINE_COLUMNS: Final = 64
"""Line length for libest, whose decoder fails on unwrapped text and on lines over 1,024 characters (RFC 8951 section 3.1)."""

_WHITE_SPACE = b" \t\r\n"
_PEM = re.compile(
    rb"-----BEGIN (?P<begin>[A-Z0-9 ]{1,64})-----[ \t]*\r?\n(?P<text>[A-Za-z0-9+/=\s]*?)-----END (?P<end>[A-Z0-9 ]{1,64})-----"
)
_OCTETS_PER_LINE = LINE_COLUMNS // 4 * 3


def decode_body(body: bytes) -> bytes:
    """Decode the base64 text of a body to the octets it stands for: DER, not yet looked at.

    CR, LF, space and tab are skipped wherever they are (RFC 8951 section 3.1). Anything else outside the standard alphabet, missing or
    surplus padding, and pad bits that are not zero raise MalformedBody.
    """
    text = body.translate(None, _WHITE_SPACE)
    if not text:
        raise MalformedBody("the body is empty; send the base64 of DER")
    try:
        der = binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error as error:
        raise MalformedBody(_why_not(text)) from error
    # RFC 4648 section 3.5: one text for one value, so that nothing hides in the pad bits.
    if binascii.b2a_base64(der, newline=False) != text:
        raise MalformedBody("the body is not base64: the bits before the padding are not zero")
    return der


def decode_pem_body(body: bytes) -> bytes:
    """Decode a body that may be PEM, as some clients send it: one armoured block, whatever its label; else as `decode_body`.

    For issuers that say so: PEM is no format of EST (RFC 8951 section 3). Raises MalformedBody.
    """
    if not body.lstrip(_WHITE_SPACE).startswith(b"-----BEGIN"):
        return decode_body(body)
    armoured = _PEM.fullmatch(body.strip(_WHITE_SPACE))
    if armoured is None or armoured["begin"] != armoured["end"]:
        raise MalformedBody("the body is not one PEM block of base64 between its BEGIN and END lines (RFC 7468)")
    return decode_body(armoured["text"])


def encode_body(der: bytes, *, wrap: bool = False) -> bytes:
    """Encode DER as base64: one line and LF, or with `wrap` lines of 64 columns, each ended by LF."""
    if not wrap:
        return binascii.b2a_base64(der)
    return b"".join(binascii.b2a_base64(der[start : start + _OCTETS_PER_LINE]) for start in range(0, len(der), _OCTETS_PER_LINE))


def encode_pem(label: str, der: bytes) -> bytes:
    """Armour DER under a label, such as CERTIFICATE REQUEST (RFC 7468): for programs and people, for PEM is no format of EST."""
    return b"".join((f"-----BEGIN {label}-----\n".encode(), encode_body(der, wrap=True), f"-----END {label}-----\n".encode()))


def _why_not(text: bytes) -> str:
    if text.startswith(b"-----BEGIN"):
        return "the body is PEM; send the base64 of DER without the BEGIN and END lines (RFC 8951 section 3)"
    if text[0] == 0x30 and not text.isascii():
        return "the body is binary DER; send its base64 (RFC 8951 section 3)"
    if b"-" in text or b"_" in text:
        return "the body is not base64 of the standard alphabet (RFC 4648 section 4): it holds - or _"
    return "the body is not base64 (RFC 4648 section 4)"
