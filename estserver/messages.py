"""What routes hands to an operation, and what it gets back: HTTP's facts without HTTP's framing.

Media types and header values: RFC 7030 section 3.2 and RFC 8951 section 3.
"""

from collections.abc import Awaitable, Callable
from dataclasses import field
from enum import StrEnum

from estcore.value import value
from estserver.connection import TlsConnection

MEDIA_PKCS10 = "application/pkcs10"
MEDIA_PEM = "application/x-pem-file"
"""What old Cisco IOS calls its bodies; taken only where an issuer accepts PEM."""
MEDIA_CERTS_ONLY = b"application/pkcs7-mime; smime-type=certs-only"
"""To the byte: libest compares 45 characters, the single space included."""
MEDIA_CSRATTRS = b"application/csrattrs"
MEDIA_TEXT = b"text/plain; charset=utf-8"

Header = tuple[bytes, bytes]
"""Name in lower case (the transport sets the case that old clients need), value."""

BASE64_MEDIA = (b"application/pkcs7-mime", b"application/csrattrs")
"""How the media types begin whose bodies are base64 as a whole (RFC 8951 section 3)."""
BASE64: Header = (b"content-transfer-encoding", b"base64")
"""For clients older than RFC 8951, which allows it: Bouncy Castle decodes no body without it (seen: 1.84)."""


class Operation(StrEnum):
    """The last segment of the path (RFC 7030 section 3.2.2)."""

    CACERTS = "cacerts"
    SIMPLE_ENROLL = "simpleenroll"
    SIMPLE_REENROLL = "simplereenroll"
    FULL_CMC = "fullcmc"
    SERVER_KEYGEN = "serverkeygen"
    CSRATTRS = "csrattrs"


@value(frozen=True, slots=True, kw_only=True)
class EstRequest:
    """One request for an operation, its path already resolved and its body read whole.

    `authorization` and the body are secrets of the sender: `repr` is switched off so that no log line can hold them.
    `target` is the request target as it was sent; `label` the one in it, None where the path has none. `source` is the peer's address
    as text, empty where the transport does not know it.
    """

    operation: Operation
    method: str
    target: str
    label: str | None
    content_type: str | None
    content_encoding: str | None
    authorization: str | None
    wants_wrapped: bool
    body: bytes
    tls: TlsConnection
    source: str
    names_no_agent: bool = False
    """No User-Agent: Bouncy Castle, which needs challenges of its own, and strongSwan, which sees none."""

    def __repr__(self) -> str:
        return f"EstRequest({self.operation})"


@value(frozen=True, slots=True, kw_only=True)
class EstResponse:
    """One answer; Content-Length is the route's to add."""

    status: int
    body: bytes = field(repr=False)
    """May hold a private key, so it is in no repr."""
    headers: tuple[Header, ...]


Receive = Callable[[], Awaitable[dict[str, object]]]
