"""The server's side of TLS: the context, and what is read of a connection when its handshake is done.

asyncio's own TLS has no tls-exporter (RFC 9266), sends no alert when a handshake fails and takes a verified chain or none; so this is
pyOpenSSL, with the OpenSSL that `cryptography` brings. TLS 1.2 and 1.3, ECDHE and AEAD only (RFC 9325 section 4.2).

* A client certificate is asked for and never demanded (RFC 7030 section 3.3.2). The context holds no anchors and names no CA: offered
  anchors would tell tenants' names to everybody. OpenSSL checks the signature of CertificateVerify; its verdict on the chain is
  neither awaited nor used.
* No resumption: OP_NO_TICKET and SESS_CACHE_OFF together (either alone still resumes), and no renegotiation. So the peer's Finished is
  tls-unique (RFC 5929 section 3.1), and no connection inherits another's client certificate.
  OP_NO_TICKET set in the context leaves TLS 1.3 with two useless tickets for sessions that are in no cache (seen on the wire,
  OpenSSL 4.0), and a write to the socket for them. OpenSSL sends none where the option appears while it reads the ClientHello (its
  `final_server_name`, called for every ClientHello, with a server name or without), so that is where it is set.
"""

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from OpenSSL import SSL

from estcore.errors import ConfigurationError
from estserver.connection import TlsConnection
from estserver.limits import Limits

TLS12_CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20"
TLS13_SUITES = b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
"""The one that everybody has first (RFC 8446 section 9.1): a handshake that hashes with SHA-384 costs more and protects no better here."""
ALPN_PROTOCOL = b"http/1.1"
EXPORTER_LABEL = b"EXPORTER-Channel-Binding"
"""RFC 9266 section 2; the context is of zero length, not absent."""
EXPORTER_OCTETS = 32

_OP_PRIORITIZE_CHACHA = 1 << 21
"""OpenSSL's SSL_OP_PRIORITIZE_CHACHA, which pyOpenSSL does not name."""
_OPTIONS = SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION | SSL.OP_CIPHER_SERVER_PREFERENCE | _OP_PRIORITIZE_CHACHA
"""The suite is the server's choice, AES first; but ChaCha20 for a client that puts it first, which is one without AES in its hardware."""
_UNTRUSTED_DEPTH = 0
"""How far OpenSSL follows a client's chain. Its verdict is not used, so it need not check signatures of a hostile chain."""


class UnacceptableClientChain(Exception):
    """The client sent certificates that are too many, too long or undecodable: its fault; the connection ends with an alert."""


class ServerTls:
    """The server's own certificate and the context made of it.

    A context is frozen by its first connection, so a new certificate means a new context for connections to come; those that
    are open go on with theirs.
    """

    def __init__(self, certificate_chain_pem: bytes, private_key_pem: bytes) -> None:
        self._certificate, self._context = _make_context(certificate_chain_pem, private_key_pem)

    @property
    def certificate(self) -> x509.Certificate:
        """The certificate that new connections get."""
        return self._certificate

    def replace(self, certificate_chain_pem: bytes, private_key_pem: bytes) -> None:
        """Use another certificate for connections to come.

        `certificate_chain_pem` holds the server's certificate first, then the CA certificates above it.
        Raises ConfigurationError, and keeps the former one, where certificate and key are not a pair.
        """
        self._certificate, self._context = _make_context(certificate_chain_pem, private_key_pem)

    def accept(self) -> SSL.Connection:
        """A new connection over memory BIOs, in the server's role."""
        connection = SSL.Connection(self._context, None)
        connection.set_accept_state()
        return connection


def _make_context(certificate_chain_pem: bytes, private_key_pem: bytes) -> tuple[x509.Certificate, SSL.Context]:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(_OPTIONS)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.set_cipher_list(TLS12_CIPHERS)
    context.set_tls13_ciphersuites(TLS13_SUITES)
    context.set_tlsext_servername_callback(_send_no_tickets)
    context.set_verify(SSL.VERIFY_PEER, _let_pass)
    context.set_verify_depth(_UNTRUSTED_DEPTH)
    context.set_alpn_select_callback(_choose_protocol)
    try:
        leaf, *above = x509.load_pem_x509_certificates(certificate_chain_pem)
        context.use_certificate(leaf)
        for certificate in above:
            context.add_extra_chain_cert(certificate)
        context.use_privatekey(load_pem_private_key(private_key_pem, password=None))  # type: ignore[arg-type]  # OpenSSL refuses other keys
        context.check_privatekey()
    except (ValueError, TypeError, SSL.Error) as error:
        raise ConfigurationError(
            "the server's certificate and private key are not a PEM pair that TLS can use: ECDSA P-256 or RSA of 2048 bits always is",
            reason="InvalidServerCertificate",
        ) from error
    return leaf, context


def _send_no_tickets(connection: SSL.Connection) -> None:
    connection.set_options(SSL.OP_NO_TICKET)


def _let_pass(connection: SSL.Connection, certificate: object, error: int, depth: int, ok: int) -> bool:  # noqa: ARG001
    return True


def _choose_protocol(connection: SSL.Connection, offered: list[bytes]) -> bytes | SSL._NoOverlappingProtocols:  # noqa: ARG001
    return ALPN_PROTOCOL if ALPN_PROTOCOL in offered else SSL.NO_OVERLAPPING_PROTOCOLS


def read_connection(connection: SSL.Connection, limits: Limits, *, handshake_octets: int) -> TlsConnection:
    """Read what the application may know of a connection whose handshake is done.

    `handshake_octets` is what the client sent until then, or more: its certificates are within.
    Raises UnacceptableClientChain.
    """
    version = connection.get_protocol_version_name()
    if version == "TLSv1.3":
        binding = connection.export_keying_material(EXPORTER_LABEL, EXPORTER_OCTETS, b"")
    else:
        # No resumption: the first Finished of the handshake is always the client's (RFC 5929 section 3.1).
        binding = connection.get_peer_finished() or b""
    chain = _client_chain(connection, limits)
    if handshake_octets > limits.client_chain_octets and _octets(chain) > limits.client_chain_octets:
        raise UnacceptableClientChain(f"a client may send {limits.client_chain_octets} octets of certificates")
    return TlsConnection(version=version, channel_binding=binding, unverified_client_chain=chain)


def _client_chain(connection: SSL.Connection, limits: Limits) -> tuple[x509.Certificate, ...]:
    above = connection.get_peer_cert_chain() or []  # a server's copy is without the leaf
    if len(above) >= limits.client_chain_certificates:
        raise UnacceptableClientChain(f"a client may send {limits.client_chain_certificates} certificates")
    try:
        leaf = connection.get_peer_certificate(as_cryptography=True)
        if leaf is None:
            return ()
        return (leaf, *(certificate.to_cryptography() for certificate in above))
    except (ValueError, x509.InvalidVersion) as error:  # OpenSSL reads more than `cryptography` does
        raise UnacceptableClientChain("a client's certificate cannot be decoded") from error


def _octets(chain: tuple[x509.Certificate, ...]) -> int:
    return sum(len(certificate.public_bytes(Encoding.DER)) for certificate in chain)


_FAILURES = {
    "http request": "plain_http",
    "unsupported protocol": "unsupported_version",
    "version too low": "unsupported_version",
    "wrong version number": "not_tls",
    "bad record type": "not_tls",
    "no shared cipher": "no_shared_cipher",
    "no suitable key share": "no_shared_group",
    "no suitable groups": "no_shared_group",
    "no suitable signature algorithm": "no_shared_signature_algorithm",
    "no shared signature algorithms": "no_shared_signature_algorithm",
    "bad signature": "bad_certificate_verify",
    "wrong signature type": "bad_certificate_verify",
    "excessive message size": "message_too_long",
}


def failure_reason(error: SSL.Error) -> str:
    """Why a handshake failed, out of a small fixed set: the label of a metric.

    "client_alert" means that the client gave up, most often because it does not trust the server's certificate.
    """
    entries = error.args[0] if error.args and isinstance(error.args[0], list) else []
    for *_, reason in entries:
        if reason in _FAILURES:
            return _FAILURES[reason]
        if "alert" in reason:
            return "client_alert"
    return "protocol_error"
