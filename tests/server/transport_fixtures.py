"""A server that runs in a thread as it does in production (uvloop, real sockets), and a client that shows every octet and record.

Tests speak through `Client`: a plain socket and an OpenSSL connection on memory BIOs, so that they choose how octets are cut, see each
TLS record, and meet each alert. Nothing here sleeps: every wait is for octets, a close or an event.
"""

import asyncio
import contextlib
import socket
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import ip_address
from typing import Any, Self

import uvloop
from cryptography import x509
from OpenSSL import SSL

from estcore.issuer_spec import KeyAlgorithm
from estserver.deadline import Phase
from estserver.limits import Limits
from estserver.serve import serve
from estserver.tls import ServerTls
from tests import pki

PATIENCE = 10.0
"""Seconds after which a wait has failed; nothing waits that long when all is well."""

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]

ROOT = pki.ca("Transport test root")
SERVER_KEY = pki.key(owner="server")


def server_certificate(common_name: str = "localhost") -> x509.Certificate:
    return pki.leaf(
        ROOT,
        subject=pki.name(common_name),
        sans=(*pki.dns("localhost"), x509.IPAddress(ip_address("127.0.0.1"))),
        public_key=SERVER_KEY.public_key(),
        ekus=(pki.SERVER_AUTH,),
        not_after=pki.EPOCH + 8 * pki.YEAR,  # curl has a clock
    )


@dataclass
class Traffic:
    """A TrafficObserver that remembers."""

    opened: int = 0
    closed: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    timeouts: Counter[Phase] = field(default_factory=Counter)
    answers: Counter[int] = field(default_factory=Counter)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def _note(self) -> None:
        with self.changed:
            self.changed.notify_all()

    def connection_opened(self) -> None:
        self.opened += 1
        self._note()

    def connection_closed(self) -> None:
        self.closed += 1
        self._note()

    def connection_refused(self, reason: str) -> None:
        self.refused[reason] += 1
        self._note()

    def handshake_failed(self, reason: str) -> None:
        self.failures[reason] += 1
        self._note()

    def timed_out(self, phase: Phase) -> None:
        self.timeouts[phase] += 1
        self._note()

    def request_refused(self, http_status: int) -> None:
        self.answers[http_status] += 1
        self._note()

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Until the condition on these counters holds."""
        with self.changed:
            assert self.changed.wait_for(condition, PATIENCE), self

    def wait_until_closed(self) -> None:
        self.wait_until(lambda: self.opened == self.closed)


@dataclass
class Request:
    """What reached the application."""

    scope: Scope
    body: bytes

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.scope["headers"])


class Server:
    """`serve` in a thread of its own."""

    def __init__(self, app: App, limits: Limits, drain: timedelta) -> None:
        self.traffic = Traffic()
        self.tls = ServerTls(pki.pem(server_certificate()), pki.key_pem(SERVER_KEY))
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port: int = self._socket.getsockname()[1]
        self._ready = threading.Event()
        self._app, self._limits, self._drain = app, limits, drain
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(PATIENCE)

    def _run(self) -> None:
        try:
            uvloop.run(self._serve())
        except BaseException as failure:
            self.failure = failure
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._shutdown = asyncio.Event()
        self.faults: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda loop, context: self.faults.append(context))
        self.loop.call_soon(self._ready.set)
        await serve(
            self._app,
            sockets=[self._socket],
            tls=self.tls,
            limits=self._limits,
            shutdown=self._shutdown,
            drain=self._drain,
            observer=self.traffic,
        )

    def shut_down(self) -> None:
        """Begin to drain, where it runs."""
        if self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # it has just ended
                self.loop.call_soon_threadsafe(self._shutdown.set)

    def join(self) -> None:
        """Until the server has ended."""
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        if self.failure is not None:
            raise self.failure


@contextlib.contextmanager
def running(app: App, limits: Limits | None = None, drain: timedelta = timedelta(seconds=0)) -> Iterator[Server]:
    """A server; at the end no connection may be left and nothing may have failed unseen."""
    server = Server(app, limits or Limits(), drain)
    try:
        yield server
    finally:
        server.shut_down()
        server.join()
    assert server.faults == []
    assert server.traffic.opened == server.traffic.closed


@dataclass
class Recorder:
    """An application that keeps the requests and answers with `answer`; `/…` paths choose nothing."""

    status: int = 200
    headers: list[tuple[bytes, bytes]] = field(default_factory=lambda: [(b"content-type", b"text/plain")])
    body: bytes = b"fine\n"
    requests: list[Request] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
        if scope["type"] != "http":
            return
        message = await receive()
        self.requests.append(Request(scope, message["body"]))
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        await send({"type": "http.response.body", "body": self.body})


@dataclass
class Answer:
    status: int
    head: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes

    def header(self, name: bytes) -> list[bytes]:
        """All values of a header whose name is written exactly so."""
        return [value for key, value in self.headers if key == name]


class Closed(Exception):
    """The server ended the connection: "close_notify", "eof", "reset", or the text of its alert."""

    def __init__(self, how: str) -> None:
        super().__init__(how)
        self.how = how


def client_context(version: int = SSL.TLS1_3_VERSION, *, chain: tuple[x509.Certificate, ...] = (), key: object = None) -> SSL.Context:
    """`chain` is sent as it is; its first certificate must hold the public key of `key`."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(version)
    context.set_max_proto_version(version)
    if chain:
        context.use_certificate(chain[0])
        for certificate in chain[1:]:
            context.add_extra_chain_cert(certificate)
        context.use_privatekey(key or pki.key())  # type: ignore[arg-type]  # any private key
    return context


class Client:
    """One connection. `step` cuts everything that it sends into pieces of so many octets."""

    def __init__(self, server: Server, context: SSL.Context | None = None, *, step: int | None = None, receive_buffer: int = 0) -> None:
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(("127.0.0.1", server.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.tls = SSL.Connection(context or client_context(), None)
        self.tls.set_connect_state()
        self.step = step
        self.received = b""
        self._pending = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    # --- octets

    def flush(self) -> None:
        with contextlib.suppress(SSL.WantReadError):
            while True:
                octets = self.tls.bio_read(65536)
                for start in range(0, len(octets), self.step or len(octets)):
                    self.socket.sendall(octets[start : start + (self.step or len(octets))])

    def _pull(self) -> None:
        try:
            octets = self.socket.recv(65536)
        except ConnectionResetError as error:
            raise Closed("reset") from error
        if not octets:
            raise Closed("eof")
        self.received += octets
        self.tls.bio_write(octets)

    def records(self) -> list[tuple[int, int]]:
        """Content type and length of every TLS record received so far."""
        found, rest = [], self.received
        while len(rest) >= 5:
            length = int.from_bytes(rest[3:5])
            found.append((rest[0], length))
            rest = rest[5 + length :]
        assert rest == b""
        return found

    # --- TLS

    def handshake(self) -> Self:
        while True:
            try:
                self.tls.do_handshake()
            except SSL.WantReadError:
                self.flush()
                self._pull()
            except SSL.Error as error:
                self.flush()
                raise Closed(_alert(error)) from error
            else:
                self.flush()
                return self

    def send(self, plaintext: bytes) -> None:
        while plaintext:
            plaintext = plaintext[self.tls.send(plaintext) :]
        self.flush()

    def read(self) -> bytes:
        """Some plaintext; raises Closed."""
        while True:
            try:
                return self.tls.recv(65536)
            except SSL.WantReadError:
                self.flush()
                self._pull()
            except SSL.ZeroReturnError as error:
                raise Closed("close_notify") from error
            except SSL.Error as error:
                raise Closed(_alert(error)) from error

    def binding(self) -> bytes:
        """The client's side of the channel binding."""
        if self.tls.get_protocol_version_name() == "TLSv1.3":
            return self.tls.export_keying_material(b"EXPORTER-Channel-Binding", 32, b"")
        return self.tls.get_finished() or b""

    # --- HTTP

    def get(self, path: bytes = b"/", *headers: bytes) -> Answer:
        self.send(request(b"GET", path, *headers))
        return self.answer()

    def answer(self, *, method: bytes = b"GET") -> Answer:
        """One answer, by its Content-Length."""
        head = self._until(b"\r\n\r\n")
        lines = head[:-4].split(b"\r\n")
        headers = [(name, value.strip()) for name, _, value in (line.partition(b":") for line in lines[1:])]
        answer = Answer(int(lines[0].split()[1]), head, headers, b"")
        length = 0 if method == b"HEAD" or answer.status < 200 or answer.status in (204, 304) else int(answer.header(b"Content-Length")[0])
        while len(self._pending) < length:
            self._pending += self.read()
        answer.body, self._pending = self._pending[:length], self._pending[length:]
        return answer

    def _until(self, end: bytes) -> bytes:
        while end not in self._pending:
            self._pending += self.read()
        head, _, self._pending = self._pending.partition(end)
        return head + end

    def how_it_ends(self) -> str:
        """Until the server closes; nothing more may come before that."""
        assert self._pending == b""
        try:
            more = self.read()
        except Closed as closed:
            return closed.how
        raise AssertionError(f"the server sent more: {more!r}")


def _alert(error: SSL.Error) -> str:
    return str(error.args[0][-1][-1]) if error.args and error.args[0] else type(error).__name__


def request(method: bytes, path: bytes, *headers: bytes, body: bytes | None = None) -> bytes:
    """A well-formed request; with a body it has its Content-Length."""
    lines = [method + b" " + path + b" HTTP/1.1", b"Host: localhost", *headers]
    if body is not None:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + (body or b"")


def client_chain(length: int = 1, *, algorithm: KeyAlgorithm = KeyAlgorithm.ECDSA_P256) -> tuple[x509.Certificate, ...]:
    """A device's certificate and the CAs above it, root last."""
    authority = pki.ca("Device root", algorithm=algorithm)
    chain = [authority.certificate]
    for number in range(length - 2):
        authority = pki.ca(f"Device CA {number}", issuer=authority, algorithm=algorithm)
        chain.insert(0, authority.certificate)
    leaf = pki.leaf(authority)
    return (leaf, *chain)[:length]
