"""What the application above may know of the TLS connection that a request came on.

The transport puts one `TlsConnection` into `scope["extensions"]["tls"]` of every request of that connection.
"""

from dataclasses import dataclass, field

from cryptography import x509


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsConnection:
    """Facts of one TLS connection, read once when its handshake is done.

    `version` is "TLSv1.2" or "TLSv1.3".
    `channel_binding` is tls-unique (RFC 5929 section 3, 12 octets) on TLS 1.2 and tls-exporter (RFC 9266, 32 octets) on TLS 1.3: raw
    octets, before base64.
    `unverified_client_chain` is what the client sent: leaf first, at most 8 certificates, empty where it sent none. TLS proved that
    the client holds the leaf's private key and nothing more: path, time, purpose and issuer are for `estcore.trust`.
    `verdicts` is filled by authentication, per key of an issuer: who the chain's owner is there, or why it is nobody. It lives as
    long as the connection; time and revocation are checked at each request all the same.
    """

    version: str
    channel_binding: bytes
    unverified_client_chain: tuple[x509.Certificate, ...]
    verdicts: dict[str, object] = field(default_factory=dict)
