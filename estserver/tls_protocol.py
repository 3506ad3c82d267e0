"""One TLS connection: a protocol to the event loop below, a transport to the HTTP protocol above.

Moves octets through a pyOpenSSL connection on memory BIOs. After every step whatever OpenSSL wants to send is drained, errors included,
so a failed handshake ends with its alert. The HTTP protocol exists from the end of the handshake on.

A connection ends in one of three ways: `close` (close_notify, FIN), `close_discarding` (the same, but input is thrown away for a
while, so that no TCP reset overtakes an answer that came early) and `abort`.
"""

import asyncio
import contextlib
from typing import cast

from OpenSSL import SSL

from estserver.deadline import Deadline, Phase
from estserver.listener import HttpLayer, Listener
from estserver.tls import UnacceptableClientChain, failure_reason, read_connection
from estserver.traffic import peer_address, source_of

RECORD_OCTETS = 16 * 1024
"""The most plaintext that one TLS record holds (RFC 8446 section 5.1)."""
FLUSH_OCTETS = 32 * 1024

NO_RECORD = bytes(5 + RECORD_OCTETS + 256)
"""No TLS record, and long enough to end one that was half read. OpenSSL has no call for an alert of our own: reading this makes it send
one, encrypted where the connection is."""

PLAIN_HTTP_ANSWER = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 37\r\nConnection: close\r\n\r\n"
    b"this port speaks HTTPS: use https://\n"
)


class TlsProtocol(asyncio.Transport, asyncio.Protocol):
    """One connection, from its acceptance to its end."""

    __slots__ = (
        "_closing",
        "_deadline",
        "_handshake_octets",
        "_http",
        "_in_read",
        "_listener",
        "_peer_done",
        "_raw",
        "_reading",
        "_source",
        "_tls",
        "_write_paused",
        "client",
    )

    _raw: asyncio.Transport
    _tls: SSL.Connection
    _deadline: Deadline
    client: tuple[str, int]

    def __init__(self, listener: Listener) -> None:
        super().__init__()
        self._listener = listener
        self._http: HttpLayer | None = None
        self._source: str | bytes | None = None
        self._handshake_octets = 0
        self._closing = self._in_read = self._peer_done = self._write_paused = False
        self._reading = True

    # --- a protocol to the event loop --------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let the connection in, or drop it."""
        self._raw = cast("asyncio.Transport", transport)  # uvloop's is one by its methods only
        self.client = peer_address(transport.get_extra_info("peername"))
        source = source_of(self.client[0])
        if not self._listener.gate.enter(self, source):
            self.abort()
            return
        self._source = source
        self._tls = self._listener.tls.accept()
        self._raw.set_write_buffer_limits(high=self._listener.limits.write_buffer_octets)
        self._deadline = Deadline(self._listener.loop, self._timed_out)
        self._deadline.within(self._listener.limits.handshake_seconds, Phase.HANDSHAKE)

    def data_received(self, data: bytes) -> None:
        """Ciphertext of the client."""
        if self._closing:
            return
        self._tls.bio_write(data)
        if self._http is not None or self._handshake(len(data)):
            self._read()

    def eof_received(self) -> bool:
        """FIN of the client. What runs is still answered, so the other half stays open."""
        if self._closing:
            return False
        self._peer_done = True
        if self._http is None:
            self._listener.observer.handshake_failed("eof")
            return False
        self._read()
        return True

    def pause_writing(self) -> None:
        """The client does not read: then read nothing more of it, and not for long."""
        if self._closing:
            return
        self._write_paused = True
        self._raw.pause_reading()
        self._deadline.within(self._listener.limits.write_seconds, Phase.WRITE)
        if self._http is not None:
            self._http.pause_writing()

    def resume_writing(self) -> None:
        """The client reads again."""
        if self._closing or not self._write_paused:
            return
        self._write_paused = False
        self._deadline.off()
        if self._reading:
            self._raw.resume_reading()
        if self._http is not None:
            self._http.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let everything go; the HTTP protocol may outlive it while its application runs."""
        self._closing = True
        if self._source is None:
            return
        self._deadline.end()
        self._listener.gate.leave(self, self._source)
        http, self._http = self._http, None
        if http is not None:
            http.connection_lost(exc)
        del self._tls

    # --- TLS ---------------------------------------------------------------------------------------------------------------

    def _handshake(self, octets: int) -> bool:
        self._handshake_octets += octets
        try:
            self._tls.do_handshake()
        except SSL.WantReadError:
            self._flush()
            if self._handshake_octets > self._listener.limits.handshake_octets:
                self._refuse("handshake_too_long")
            return False
        except SSL.Error as error:
            reason = failure_reason(error)
            self._listener.observer.handshake_failed(reason)
            self._flush()
            if reason == "plain_http":
                self._raw.write(PLAIN_HTTP_ANSWER)
            self._half_close()
            return False
        self._flush()
        try:
            connection = read_connection(self._tls, self._listener.limits, handshake_octets=self._handshake_octets)
        except UnacceptableClientChain:
            self._refuse("unacceptable_client_chain")
            return False
        self._http = self._listener.http(self, connection)
        if self._listener.gate.draining:
            self._http.drain()
        return True

    def _refuse(self, reason: str) -> None:
        self._listener.observer.handshake_failed(reason)
        try:
            self._tls.bio_write(NO_RECORD)
            while True:
                self._tls.recv(RECORD_OCTETS)
        except SSL.Error:
            self._flush()
            self._half_close()

    def _read(self) -> None:
        if self._in_read:
            return  # the HTTP protocol resumed reading while it was fed: the loop below goes on
        self._in_read = True
        try:
            while self._reading and self._http is not None and not self._closing:
                self._http.data_received(self._tls.recv(RECORD_OCTETS))
        except SSL.WantReadError:
            pass
        except SSL.ZeroReturnError:
            self._peer_done = True
        except SSL.Error:
            self._flush()
            self._half_close()
        finally:
            self._in_read = False
        if not self._closing:
            self._flush()
            if self._peer_done and self._reading and self._http is not None:
                self._http.peer_finished()

    def _encrypt(self, data: bytes | bytearray | memoryview) -> bool:
        try:
            sent = self._tls.send(data)
            if sent < len(data):  # OpenSSL returns after each record
                rest = memoryview(data)
                while rest := rest[sent:]:
                    sent = self._tls.send(rest)
        except SSL.Error:
            self.abort()
            return False
        return True

    def _flush(self) -> None:
        try:
            while True:
                ciphertext = self._tls.bio_read(FLUSH_OCTETS)
                self._raw.write(ciphertext)
                if len(ciphertext) < FLUSH_OCTETS:
                    return  # a memory BIO gives all it has
        except SSL.WantReadError:
            return

    # --- a transport to the HTTP protocol ----------------------------------------------------------------------------------

    @property
    def server(self) -> tuple[str, int]:
        """The address and port that the server listens on."""
        return self._listener.server

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send: one record for up to 16 KiB."""
        if not self._closing and self._encrypt(data):
            self._flush()

    def write_last(self, data: bytes) -> None:
        """`write` and `close` in one: the answer and close_notify leave together, for a write to a socket costs 0.05 ms."""
        if not self._closing and self._encrypt(data):
            self.close()

    def is_closing(self) -> bool:
        """Nothing will be read or sent any more."""
        return self._closing

    def pause_reading(self) -> None:
        """Leave the client's octets where they are."""
        self._reading = False
        if not self._closing:
            self._raw.pause_reading()

    def resume_reading(self) -> None:
        """Go on, with what waits first."""
        self._reading = True
        if self._closing:
            return
        if not self._write_paused:
            self._raw.resume_reading()
        self._read()

    def expect(self, phase: Phase, seconds: float) -> None:
        """Await the client's next step."""
        if not self._closing and not self._write_paused:
            self._deadline.within(seconds, phase)

    def expect_nothing(self) -> None:
        """It is the application's turn."""
        if not self._closing and not self._write_paused:
            self._deadline.off()

    def close(self) -> None:
        """Send what is written, close_notify, FIN."""
        if self._closing:
            return
        self._say_goodbye()
        self._closing = True
        self._deadline.within(self._listener.limits.write_seconds, Phase.WRITE)  # the loop waits until the client has read it all
        self._raw.close()

    def close_discarding(self) -> None:
        """Close for a client that is still sending."""
        if not self._closing:
            self._say_goodbye()
            self._half_close()

    def abort(self) -> None:
        """Close now, whatever is unsent."""
        self._closing = True
        self._raw.abort()

    def drain(self) -> None:
        """Finish what runs, then close. A connection that has yet to begin gets a moment."""
        if self._closing:
            return
        if self._http is None:
            self._deadline.within(self._listener.limits.linger_seconds, Phase.HANDSHAKE)
        else:
            self._http.drain()

    def _say_goodbye(self) -> None:
        with contextlib.suppress(SSL.Error):  # it failed before; its alert is enough
            self._tls.shutdown()
        self._flush()

    def _half_close(self) -> None:
        self._closing = True
        self._deadline.within(self._listener.limits.linger_seconds, Phase.LINGER)
        if self._peer_done:
            self._raw.close()
            return
        self._raw.resume_reading()
        self._raw.write_eof()

    def _timed_out(self, phase: Phase) -> None:
        if phase is not Phase.LINGER:
            self._listener.observer.timed_out(phase)
        if self._http is None or self._closing or phase is Phase.WRITE:
            self.abort()
        else:
            self._http.timed_out(phase)
