"""Every bound of the transport, by name and unit.

uvicorn has no deadlines and no limits of its own: without these a half-sent header holds a connection for ever and a 200 MB body
is read whole. The defaults are far above what an EST client needs and far below what hurts.
"""

from dataclasses import dataclass, fields

KIB = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Deadlines in seconds, sizes in octets, caps in pieces. All are positive.

    Raises ValueError for a value that is not.
    """

    handshake_seconds: float = 10.0
    """From the TCP connection to the client's Finished."""
    header_seconds: float = 10.0
    """From the handshake's end, or the first octet of a later request, to the end of its head."""
    body_seconds: float = 30.0
    """From the end of a request's head to the end of its body."""
    idle_seconds: float = 60.0
    """From the end of an answer to the first octet of the next request on the same connection."""
    write_seconds: float = 30.0
    """How long a client may leave a full write buffer, or the rest of a last answer, unread."""
    linger_seconds: float = 2.0
    """How long input is discarded after an answer that came before the request was read: closing at once would send a TCP reset that
    overtakes the answer (RFC 9112 section 9.6)."""

    handshake_octets: int = 48 * KIB
    """All that a client sends before its Finished: its certificates, and 16 KiB for the rest."""
    client_chain_octets: int = 32 * KIB
    """The certificates of a client, DER, together."""
    client_chain_certificates: int = 8

    request_line_octets: int = 2 * KIB
    """The request target. EST's longest path is an operation and a label."""
    header_octets: int = 16 * KIB
    """All header lines of a request, and its trailers. The precedent: nginx 4 of 8 KiB, Node 16 KiB."""
    header_count: int = 100
    body_octets: int = 64 * KIB
    """A decoded body. An RSA 4096 CSR is 2 KiB in base64."""
    chunked_octets: int = 512 * KIB
    """A chunked body on the wire, sizes and extensions included: eight octets for each of its own, so that one-octet chunks pass."""

    write_buffer_octets: int = 64 * KIB
    """Ciphertext that waits for a client to read; above it the connection's input is not read either."""
    connections: int = 4096
    connections_per_source: int = 2048
    """From one IPv4 address or IPv6 /64. Half of all: behind a NAT, or a Service that hides addresses, many devices are one source."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) <= 0:
                raise ValueError(f"limit {field.name} must be positive")
