"""multipart/mixed: the answer of /serverkeygen, written and read.

RFC 7030 section 4.4.2, RFC 2046 section 5.1.1, RFC 8951 section 3 (each part is base64 whatever Content-Transfer-Encoding says). The reader
takes what the RFCs permit and servers send: preamble and epilogue, a quoted boundary, LF for CRLF; and bounds all of it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from estcore import transfer
from estcore.errors import MalformedBody

MAX_OCTETS: Final = 256 * 1024
MAX_PARTS: Final = 8
MAX_PART_HEADERS: Final = 16
MAX_HEADER_OCTETS: Final = 1024

MEDIA_MULTIPART: Final = "multipart/mixed"
BOUNDARY: Final = "est-server-generated-key--part"
"""No base64 text holds a hyphen, so a line that begins with two can only be a boundary: it need not be random."""

_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,\-./:=? ]{0,69}[0-9A-Za-z'()+_,\-./:=?]")
_PARAMETER = re.compile(r'\s*;\s*([!#$%&\'*+.^_`|~0-9A-Za-z-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))\s*')
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t -~]*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part: its Content-Type as written, and the octets that its base64 stands for, which may be a private key."""

    content_type: str
    der: bytes = field(repr=False)


def encode(parts: Sequence[Part]) -> tuple[str, bytes]:
    """The Content-Type and the body of an answer with these parts in this order.

    Lines end in CRLF. Content-Transfer-Encoding has no meaning any more (RFC 8951 section 3), and libest passes over a part without it.
    """
    body = bytearray()
    for part in parts:
        body += f"--{BOUNDARY}\r\nContent-Type: {part.content_type}\r\nContent-Transfer-Encoding: base64\r\n\r\n".encode("ascii")
        body += transfer.encode_body(part.der, wrap=True).replace(b"\n", b"\r\n")
    body += f"--{BOUNDARY}--\r\n".encode("ascii")
    return f"{MEDIA_MULTIPART}; boundary={BOUNDARY}", bytes(body)


def decode(content_type: str, body: bytes) -> tuple[Part, ...]:
    """The parts of a body, whose boundary is in its Content-Type; raises MalformedBody."""
    if len(body) > MAX_OCTETS:
        raise MalformedBody(f"the multipart has {len(body)} octets, more than {MAX_OCTETS}")
    return tuple(_part(lines) for lines in _split(body, _boundary(content_type)))


def _boundary(content_type: str) -> bytes:
    kind, parameters = parse_content_type(content_type)
    if kind != MEDIA_MULTIPART:
        raise MalformedBody(f"the body is not {MEDIA_MULTIPART}")
    boundary = parameters.get("boundary")
    if boundary is None or not _BOUNDARY.fullmatch(boundary):
        raise MalformedBody(f"the {MEDIA_MULTIPART} has no boundary of 1 to 70 characters (RFC 2046 section 5.1.1)")
    return boundary.encode("ascii")


def parse_content_type(value: str) -> tuple[str, dict[str, str]]:
    """A Content-Type as (type/subtype in lower case, parameters by lower-case name); raises MalformedBody for what is none.

    White space may stand around `;` and `=` (RFC 7030 Appendix A.4 has it so), and a value may be quoted.
    """
    kind, semicolon, rest = value.partition(";")
    text = semicolon + rest
    parameters: dict[str, str] = {}
    position = 0
    while position < len(text):
        found = _PARAMETER.match(text, position)
        if found is None:
            if text[position:].strip() == ";":  # an empty parameter at the end: widely sent, and says nothing
                break
            raise MalformedBody("a Content-Type has parameters that cannot be read")
        name = found[1].lower()
        if name in parameters:
            raise MalformedBody(f"a Content-Type has the parameter {name} twice")
        parameters[name] = re.sub(r"\\(.)", r"\1", found[2]) if found[3] is None else found[3]
        position = found.end()
    return kind.strip().lower(), parameters


def _split(body: bytes, boundary: bytes) -> list[list[bytes]]:
    """The lines of each part, without their ends; preamble and epilogue are dropped."""
    delimiter, close = b"--" + boundary, b"--" + boundary + b"--"
    parts: list[list[bytes]] = []
    for line in body.split(b"\n"):
        text = line.removesuffix(b"\r")
        unpadded = text.rstrip(b" \t")
        if unpadded == close and parts:
            return parts
        if unpadded == delimiter:
            if len(parts) == MAX_PARTS:
                raise MalformedBody(f"the multipart has more than {MAX_PARTS} parts")
            parts.append([])
        elif parts:
            parts[-1].append(text)
    raise MalformedBody("the multipart does not end in its boundary: it is cut off")


def _part(lines: Sequence[bytes]) -> Part:
    if b"" not in lines:
        raise MalformedBody("a part of the multipart has no empty line after its headers")
    blank = lines.index(b"")
    headers = _headers(lines[:blank])
    if "content-type" not in headers:
        raise MalformedBody("a part of the multipart has no Content-Type")
    return Part(content_type=headers["content-type"], der=transfer.decode_body(b"\n".join(lines[blank + 1 :])))


def _headers(lines: Sequence[bytes]) -> dict[str, str]:
    """By lower-case name; a line that begins with white space goes on with the one before it (RFC 5322 section 2.2.3)."""
    if len(lines) > MAX_PART_HEADERS or any(len(line) > MAX_HEADER_OCTETS for line in lines):
        raise MalformedBody("a part of the multipart has too many headers, or one that is too long")
    unfolded: list[str] = []
    for line in lines:
        text = line.decode("latin-1")
        if text[0] in " \t" and unfolded:
            unfolded[-1] += " " + text.strip()
        else:
            unfolded.append(text)
    headers: dict[str, str] = {}
    for text in unfolded:
        found = _HEADER.fullmatch(text)
        if found is None or found[1].lower() in headers:
            raise MalformedBody("a part of the multipart has a header that cannot be read, or one twice")
        headers[found[1].lower()] = found[2].strip()
    return headers
