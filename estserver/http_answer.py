"""The head of an answer as it leaves: header names in the case that old clients compare byte by byte.

Starlette and httptools write names in lower case, and libest then finds no Content-Length, no Content-Type and no challenge.
Pure: an ASGI start message in, octets out.
"""

import re
from functools import lru_cache
from http import HTTPStatus

_VALUE_FORBIDDEN = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_EXACT = {b"www-authenticate": b"WWW-Authenticate", b"etag": b"ETag"}

BODILESS = frozenset({204, 304})
"""Statuses whose answers have no body (RFC 9110 sections 15.3.5 and 15.4.5)."""


@lru_cache(maxsize=600)
def status_line(http_status: int) -> bytes:
    """HTTP/1.1 always: libest reads nothing else."""
    try:
        phrase = HTTPStatus(http_status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {http_status} {phrase}\r\n".encode()


@lru_cache(maxsize=256)
def wire_name(name: bytes) -> bytes:
    """`content-type` → `Content-Type: `. Raises ValueError for what is no field name (RFC 9110 section 5.1)."""
    if not _NAME.fullmatch(name):
        raise ValueError("an answer has an invalid header name")
    lower = name.lower()
    return _EXACT.get(lower, lower.title()) + b": "


@lru_cache(maxsize=256)
def compose_head(http_status: int, headers: tuple[tuple[bytes, bytes], ...]) -> bytes:
    """Status line, header lines and the empty line after them. Cached: most answers differ in their body alone.

    Raises ValueError for a header that would break out of its line.
    """
    parts = [status_line(http_status)]
    for name, value in headers:
        if _VALUE_FORBIDDEN.search(value):
            raise ValueError(f"the value of an answer's {name.decode(errors='replace')} header holds a control character")
        parts += (wire_name(name), value, b"\r\n")
    parts.append(b"\r\n")
    return b"".join(parts)


def text_headers(body: bytes) -> list[tuple[bytes, bytes]]:
    """The headers of an answer that the transport gives itself: one line of text, after which the connection closes."""
    return [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
    ]
