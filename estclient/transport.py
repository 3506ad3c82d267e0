"""TLS towards an EST server: the one module of the client that knows OpenSSL.

pyOpenSSL on memory BIOs over asyncio's streams, because Python's ssl has no `tls-exporter` (RFC 9266), which channel binding
needs on TLS 1.3. The server's chain is verified by OpenSSL under the explicit trust anchors and nothing else (RFC 7030 section
3.3.1), its identity by service-identity (RFC 7030 section 3.6.1), both inside the handshake: when one fails the handshake ends
with an alert, before our certificate, a password or a CSR has left.
"""

import asyncio
import ipaddress
from collections.abc import Iterable
from contextlib import suppress

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL, crypto
from service_identity import CertificateError, VerificationError
from service_identity.cryptography import verify_certificate_hostname, verify_certificate_ip_address

from estclient.credentials import ClientCertificate
from estcore.errors import ConfigurationError, ServerUnavailable, UntrustedServer
from estcore.extension_request import CMC_RA

TLS12_CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20"
"""Forward secrecy and AEAD (RFC 9325 section 4.2); TLS 1.3 has its own list, which is OpenSSL's default."""

READ_OCTETS = 64 * 1024
MAX_CHAIN_DEPTH = 8

# X509_V_ERR_* of OpenSSL's x509_vfy.h, the ones that people meet; others show as their number.
_VERIFY_ERRORS = {
    2: "its issuer is not known",
    7: "a signature in its chain is wrong",
    9: "it is not valid yet",
    10: "it has expired",
    18: "it is self-signed and not a trust anchor",
    19: "its root is not among the trust anchors",
    20: "its issuer is not among the trust anchors",
    21: "its issuer is not among the trust anchors",
    22: "its chain is too long",
    24: "a certificate in its chain is no CA",
    26: "its purpose is not a TLS server",
    47: "a name lies outside a CA's name constraints",
    79: "a certificate in its chain is no CA",
}


class ConnectionCut(ServerUnavailable):
    """The connection ended without close_notify, or while something was still due. The network or the server cut it."""


class TlsContext:
    """What every connection to one server shares: its host name, the trust anchors and our certificate.

    A Context of OpenSSL is frozen by its first connection, so other anchors or another certificate mean another TlsContext.
    Raises ConfigurationError where the anchors or the client certificate cannot be used.
    """

    def __init__(self, *, host: str, anchors: Iterable[x509.Certificate], certificate: ClientCertificate | None) -> None:
        self.host = host
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.set_cipher_list(TLS12_CIPHERS)
        context.set_alpn_protos([b"http/1.1"])
        # No resumption: on TLS 1.2 it would need extended master secret for channel binding (RFC 7627 section 5.4), which
        # pyOpenSSL cannot show; no renegotiation: it would change tls-unique (RFC 5929 section 3.1).
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION)
        store = context.get_cert_store()
        if store is None:
            raise ConfigurationError("OpenSSL gave no certificate store")
        for anchor in anchors:
            store.add_cert(crypto.X509.from_cryptography(anchor))
        # An anchor is trusted because it was configured, self-signed or not.
        store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
        context.set_verify_depth(MAX_CHAIN_DEPTH)
        context.set_verify(SSL.VERIFY_PEER, self._verify)
        if certificate is not None:
            _use(context, certificate)
        self._context = context

    def connection(self) -> SSL.Connection:
        """A client connection on memory BIOs, its handshake not begun."""
        connection = SSL.Connection(self._context, None)
        if not _is_ip(self.host):
            connection.set_tlsext_host_name(self.host.encode("ascii"))
        connection.set_connect_state()
        return connection

    def _verify(self, _connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, ok: int) -> bool:
        # OpenSSL calls this for each certificate, the leaf last. It may only ever add a refusal: what OpenSSL refuses stays refused.
        # What is raised here ends the handshake with an alert and comes out of do_handshake.
        if not ok:
            why = _VERIFY_ERRORS.get(error, f"OpenSSL's verify error {error}")
            which = "certificate" if depth == 0 else f"chain (certificate {depth} above its own)"
            raise UntrustedServer(f"the {which} of {self.host} is not trusted: {why}")
        if depth == 0:
            check_identity(certificate.to_cryptography(), self.host)
        return True


def check_identity(certificate: x509.Certificate, host: str) -> None:
    """Refuse a verified server certificate that neither names `host` nor marks a registration authority.

    DNS names label by label, a wildcard as the whole left-most label, an IP literal against iPAddress only, never the common name
    (RFC 6125 section 6.4). id-kp-cmcRA stands in for the name (RFC 7030 section 3.6.1), because our anchors are explicit ones; neither
    anyExtendedKeyUsage nor id-kp-cmcCA does.
    Raises UntrustedServer.
    """
    with suppress(x509.ExtensionNotFound):
        if CMC_RA in certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value:
            return
    try:
        if _is_ip(host):
            verify_certificate_ip_address(certificate, host)
        else:
            verify_certificate_hostname(certificate, host)
    except (VerificationError, CertificateError, ValueError) as error:
        raise UntrustedServer(f"the server's certificate does not name {host}") from error


class TlsStream:
    """One TLS connection to a verified server. Not for concurrent use: one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, tls: SSL.Connection) -> None:
        self._reader = reader
        self._writer = writer
        self._tls = tls

    @classmethod
    async def connect(cls, context: TlsContext, *, port: int) -> "TlsStream":
        """Connect and shake hands; the caller sets the deadline.

        Raises ServerUnavailable where nobody answers, UntrustedServer where the wrong one does.
        """
        try:
            reader, writer = await asyncio.open_connection(context.host, port, limit=READ_OCTETS)
        except OSError as error:
            raise ServerUnavailable(f"no connection to {context.host} port {port}: {error.strerror or error}") from error
        stream = cls(reader, writer, context.connection())
        try:
            await stream._handshake(context.host)
        except BaseException:
            stream.close()
            raise
        return stream

    @property
    def channel_binding(self) -> bytes:
        """The bytes that link a CSR to this connection: tls-exporter on TLS 1.3 (RFC 9266), tls-unique on 1.2 (RFC 5929).

        tls-unique is the client's Finished because sessions are never resumed. On TLS 1.3 it is not defined, though OpenSSL
        would still give bytes; under 1.2 the exporter is not used, as RFC 7030 section 3.5 names tls-unique.
        """
        if self._tls.get_protocol_version() == SSL.TLS1_3_VERSION:
            return self._tls.export_keying_material(b"EXPORTER-Channel-Binding", 32, b"")
        return self._tls.get_finished() or b""

    @property
    def at_eof(self) -> bool:
        """True once the server has closed, or sent something that nobody asked for: not usable for another request."""
        return self._reader.at_eof() or self._writer.is_closing()

    async def write(self, data: bytes) -> None:
        """Send all of `data`. Raises ConnectionCut."""
        try:
            for start in range(0, len(data), READ_OCTETS):
                self._tls.sendall(data[start : start + READ_OCTETS])
        except SSL.Error as error:
            raise _ended(error) from error
        await self._flush()

    async def read(self) -> bytes:
        """The next bytes; b"" after the server's close_notify, and only then. Raises ConnectionCut."""
        while True:
            try:
                return self._tls.recv(READ_OCTETS)
            except SSL.WantReadError:
                await self._flush()
                await self._fill()
            except SSL.ZeroReturnError:
                return b""
            except SSL.Error as error:
                raise _ended(error) from error

    def close(self) -> None:
        """Say close_notify and close, without waiting for the server to do the same."""
        with suppress(SSL.Error):
            self._tls.shutdown()
            self._writer.write(self._tls.bio_read(READ_OCTETS))
        self._writer.close()

    async def _handshake(self, host: str) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except SSL.WantReadError:
                await self._flush()
                await self._fill()
            except SSL.Error as error:
                await self._flush()  # the alert that says why
                raise ServerUnavailable(f"no TLS connection with {host}: {_alert(error)}") from error
            except UntrustedServer:
                await self._flush()
                raise
            else:
                break
        if self._tls.get_peer_certificate() is None:  # cannot be: a server without certificate never passes VERIFY_PEER
            raise UntrustedServer(f"{host} showed no certificate")
        await self._flush()

    async def _fill(self) -> None:
        try:
            data = await self._reader.read(READ_OCTETS)
        except OSError as error:
            raise ConnectionCut(f"the connection was cut: {error.strerror or error}") from error
        if not data:
            raise ConnectionCut("the server cut the connection")
        self._tls.bio_write(data)

    async def _flush(self) -> None:
        try:
            while True:
                self._writer.write(self._tls.bio_read(READ_OCTETS))
        except SSL.WantReadError:
            pass
        try:
            await self._writer.drain()
        except OSError as error:
            raise ConnectionCut(f"the connection was cut: {error.strerror or error}") from error


def _use(context: SSL.Context, certificate: ClientCertificate) -> None:
    try:
        leaf, *intermediates = x509.load_pem_x509_certificates(certificate.chain_pem)
        key = load_pem_private_key(certificate.key_pem, password=None)
        context.use_certificate(leaf)
        for intermediate in intermediates:
            context.add_extra_chain_cert(intermediate)
        context.use_privatekey(key)  # type: ignore[arg-type]  # an unusable type of key is its TypeError below
        context.check_privatekey()
    except (ValueError, TypeError, SSL.Error) as error:
        raise ConfigurationError(
            "the client certificate and its key cannot be read, or do not belong together", field="certificate"
        ) from error


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _ended(error: SSL.Error) -> ConnectionCut:
    return ConnectionCut(f"the server ended the TLS connection: {_alert(error)}")


def _alert(error: SSL.Error) -> str:
    """OpenSSL's words for the first fault in its queue, such as `tlsv13 alert certificate required`."""
    queue = error.args[0] if error.args else ()
    return str(queue[0][-1]) if isinstance(queue, list) and queue else "protocol error"
