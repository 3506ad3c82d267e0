"""What the head of a request must be like before anything above sees it.

Strict where RFC 9112 lets a server choose, because a lenient server behind an ingress is how requests are smuggled: one reading of every
message or none. llhttp has refused malformed lines, bare LF, folded and doubled length headers before; here is what is left to judge.
Pure: bytes in, facts or a Refusal out.
"""

import re
from dataclasses import dataclass

from estserver.limits import Limits

HOST = re.compile(rb"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
"""RFC 9110 section 7.2 without percent-encoding and userinfo, which no host of ours has."""
TARGET = re.compile(rb"/[!-\"$-~]*")
"""Origin-form (RFC 9112 section 3.2.1): visible ASCII from a slash on, no fragment."""

_JUDGED = frozenset({b"host", b"content-length", b"transfer-encoding", b"content-encoding", b"expect", b"upgrade"})

Headers = list[tuple[bytes, bytes]]
"""Names in lower case, values as sent, in the order sent."""


class Refusal(Exception):
    """The transport answers this request itself, with one line of text, and closes: the client's fault."""

    def __init__(self, http_status: int, text: str) -> None:
        super().__init__(text)
        self.http_status = http_status
        self.text = text


@dataclass(frozen=True, slots=True, kw_only=True)
class Framing:
    """How the body comes. `content_length` is None for a chunked body, 0 where there is none."""

    content_length: int | None
    expects_continue: bool


def check_target(target: bytes) -> tuple[bytes, bytes]:
    """Split a request target into raw path and query, both as sent.

    Raises Refusal 400 for any other form than a path: an absolute one would name a second host beside Host (RFC 9112 section 3.2.2).
    """
    if not TARGET.fullmatch(target):
        raise Refusal(400, "the request target must be a path that begins with a slash")
    path, _, query = target.partition(b"?")
    return path, query


def check_headers(headers: Headers, http_version: str, limits: Limits) -> Framing:
    """Judge the headers of one request.

    Raises Refusal: 400 for a Host or a length that can be read in two ways, 413, 415, 417, 431 or 505.
    """
    if http_version not in ("1.1", "1.0"):
        raise Refusal(505, "HTTP/1.1, please")
    if len(headers) > limits.header_count:
        raise Refusal(431, f"more than {limits.header_count} header lines")
    octets = 0
    judged: dict[bytes, bytes] = {}
    for name, value in headers:
        octets += len(name) + len(value) + 4
        if name in _JUDGED:
            if name in judged:
                raise Refusal(400, f"more than one {name.decode().title()} header")
            judged[name] = value.strip(b" \t")
    if octets > limits.header_octets:
        raise Refusal(431, f"more than {limits.header_octets} octets of headers")
    if not HOST.fullmatch(judged.get(b"host", b"")):
        raise Refusal(400, "exactly one valid Host header is needed")
    if len(judged) == 1:
        return _NO_BODY
    return _framing(judged, http_version, limits)


_NO_BODY = Framing(content_length=0, expects_continue=False)


def _framing(judged: dict[bytes, bytes], http_version: str, limits: Limits) -> Framing:
    if b"upgrade" in judged:
        raise Refusal(400, "no protocol but HTTP/1.1 is spoken here: send no Upgrade header")
    if judged.get(b"content-encoding", b"identity").lower() != b"identity":
        raise Refusal(415, "send the body without a Content-Encoding")
    length = _content_length(judged, http_version)
    if length is not None and length > limits.body_octets:
        raise Refusal(413, f"the body may have {limits.body_octets} octets")
    expectation = judged.get(b"expect")
    if expectation is not None and expectation.lower() != b"100-continue":
        raise Refusal(417, "the only expectation that can be met is 100-continue")
    return Framing(content_length=length, expects_continue=expectation is not None and http_version == "1.1")


def _content_length(judged: dict[bytes, bytes], http_version: str) -> int | None:
    length = judged.get(b"content-length")
    coding = judged.get(b"transfer-encoding")
    if coding is None:
        if length is None:
            return 0
        if not length.isdigit() or len(length) > 10:
            raise Refusal(400, "Content-Length must be a decimal number")
        return int(length)
    if length is not None:
        raise Refusal(400, "either Content-Length or Transfer-Encoding, not both")
    if coding.lower() != b"chunked" or http_version != "1.1":
        raise Refusal(400, "the only Transfer-Encoding is chunked, in HTTP/1.1")
    return None
