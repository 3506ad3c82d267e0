"""How answers leave: one record, the header names of old clients, whole, and after the client's half is closed."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from OpenSSL import SSL

from estserver.deadline import Phase
from estserver.limits import Limits
from tests.server.transport_fixtures import PATIENCE, Client, Closed, Recorder, Scope, Server, client_context, request, running

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
both_versions = pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION], ids=["TLSv1.2", "TLSv1.3"])


def answering(*messages: dict[str, Any]) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """An application that sends these ASGI messages."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            for message in messages:
                await send(message)

    return app


def start(status: int = 200, *headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(octets: bytes = b"", *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": octets, "more_body": more}


# ---- layout


@both_versions
def test_head_and_body_leave_in_one_record(transport: Server, version: int) -> None:
    """strongSwan reads twice: the head must be in the first 1,024 octets, the rest in the same record."""
    with Client(transport, client_context(version)).handshake() as client:
        before = len(client.records())
        answer = client.get()
        assert len(client.records()) == before + 1
        assert len(answer.head) <= 1024


@both_versions
def test_the_last_answer_is_in_one_record_too_and_close_notify_follows(transport: Server, version: int) -> None:
    with Client(transport, client_context(version)).handshake() as client:
        before = len(client.records())
        client.get(b"/", b"Connection: close")
        assert client.how_it_ends() == "close_notify"
        assert len(client.records()) == before + 2


def test_header_names_have_the_case_that_old_clients_compare() -> None:
    app = answering(
        start(
            401,
            (b"content-type", b"text/plain"),
            (b"www-authenticate", b'Basic realm="factory"'),
            (b"www-authenticate", b"Bearer"),
            (b"retry-after", b"5"),
            (b"etag", b'"1"'),
            (b"x-request-id", b"7"),
        ),
        body(b"who are you\n"),
    )
    with running(app) as server, Client(server).handshake() as client:
        answer = client.get()
    assert [name for name, _ in answer.headers if name != b"Date"] == [
        b"Content-Type",
        b"WWW-Authenticate",
        b"WWW-Authenticate",
        b"Retry-After",
        b"ETag",
        b"X-Request-Id",
        b"Content-Length",
    ]
    assert answer.header(b"WWW-Authenticate") == [b'Basic realm="factory"', b"Bearer"]


def test_an_answer_has_a_date_a_length_and_no_server(transport: Server) -> None:
    """RFC 9110 section 6.6.1. The software and its version are nobody's business."""
    with Client(transport).handshake() as client:
        answer = client.get()
    assert len(answer.header(b"Date")) == 1
    assert answer.header(b"Content-Length") == [b"5"]
    assert answer.header(b"Server") == []
    assert answer.header(b"Transfer-Encoding") == []


@pytest.mark.parametrize("status", [204, 304])
def test_answers_without_a_body_have_no_length(status: int) -> None:
    with running(answering(start(status), body())) as server, Client(server).handshake() as client:
        assert client.get().header(b"Content-Length") == []
        assert client.get().status == status


def test_head_gets_the_headers_alone(transport: Server) -> None:
    with Client(transport).handshake() as client:
        client.send(request(b"HEAD", b"/"))
        answer = client.answer(method=b"HEAD")
        assert answer.header(b"Content-Length") == [b"5"]
        assert client.get().body == b"fine\n"


@both_versions
def test_a_long_answer_arrives_whole(version: int) -> None:
    """More than one TLS record and more than one read of what OpenSSL has written."""
    octets = bytes(range(256)) * 4096
    with running(answering(start(), body(octets))) as server, Client(server, client_context(version)).handshake() as client:
        assert client.get().body == octets
        assert client.get(b"/", b"Connection: close").body == octets
        assert client.how_it_ends() == "close_notify"


def test_an_answer_in_pieces_needs_its_length() -> None:
    pieces = (body(b"a", more=True), body(b"bc", more=True), body(b"d"))
    with running(answering(start(200, (b"content-length", b"4")), *pieces)) as server, Client(server).handshake() as client:
        assert client.get().body == b"abcd"
    with running(answering(start(), *pieces)) as server, Client(server).handshake() as client:
        assert client.get().status == 500


# ---- an application that fails


@pytest.mark.parametrize(
    "app",
    [
        answering(),
        answering(start()),
        answering(body(b"no head")),
        answering(start(), start()),
        answering(start(200, (b"content-length", b"3")), body(b"abcd")),
        answering(start(200, (b"content-length", b"5")), body(b"abcd")),
        answering(start(200, (b"x-a", b"b\r\nset-cookie: c")), body()),
        answering(start(200, (b"x a", b"b")), body()),
        answering(start(200, (b"transfer-encoding", b"chunked")), body()),
    ],
    ids=["nothing", "no body", "no head", "two heads", "too long", "too short", "a header in a header", "no name", "chunked"],
)
def test_an_application_that_breaks_the_protocol_is_a_500_without_internals(app: Any) -> None:
    with running(app) as server, Client(server).handshake() as client:
        answer = client.get()
        assert (answer.status, answer.body) == (500, b"internal error\n")
        assert client.how_it_ends() == "close_notify"


def test_an_exception_is_a_500_without_internals() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            raise RuntimeError("the key is 42")

    with running(app) as server, Client(server).handshake() as client:
        assert client.get().body == b"internal error\n"


# ---- the client's half


class Slow:
    """An application that answers when it is told to."""

    def __init__(self) -> None:
        self.called = threading.Event()
        self.disconnected = threading.Event()
        self._go = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        self._loop = asyncio.get_running_loop()
        await receive()
        self.called.set()
        if scope["path"] == "/waits":
            assert (await receive())["type"] == "http.disconnect"
            self.disconnected.set()
            return
        await self._go.wait()
        await send(start())
        await send(body(b"fine\n"))

    def go(self) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._go.set)


@both_versions
def test_close_notify_lets_a_running_answer_finish(version: int) -> None:
    slow = Slow()
    with running(slow) as server, Client(server, client_context(version)).handshake() as client:
        client.send(request(b"GET", b"/"))
        assert slow.called.wait(PATIENCE)
        client.tls.shutdown()
        client.flush()
        client.socket.shutdown(1)
        slow.go()
        server.traffic.wait_until_closed()
        while octets := client.socket.recv(65536):
            client.received += octets
    # A client's OpenSSL reads nothing after its own close_notify on TLS 1.2; the record itself shows that the answer came.
    assert any(kind == 23 and length > 100 for kind, length in client.records())


def test_the_end_of_the_clients_stream_lets_a_running_answer_finish() -> None:
    slow = Slow()
    with running(slow) as server, Client(server).handshake() as client:
        client.send(request(b"GET", b"/"))
        assert slow.called.wait(PATIENCE)
        client.socket.shutdown(1)
        slow.go()
        assert client.answer().body == b"fine\n"
        assert client.how_it_ends() == "close_notify"


def test_pipelined_requests_are_answered_after_the_end_of_the_clients_stream() -> None:
    slow = Slow()
    with running(slow) as server, Client(server).handshake() as client:
        client.send(request(b"GET", b"/") * 3)
        client.socket.shutdown(1)
        assert slow.called.wait(PATIENCE)
        slow.go()
        assert [client.answer().status for _ in range(3)] == [200] * 3
        assert client.how_it_ends() == "close_notify"


def test_an_application_that_waits_learns_that_its_client_is_gone() -> None:
    slow = Slow()
    with running(slow) as server:
        with Client(server).handshake() as client:
            client.send(request(b"GET", b"/waits"))
            assert slow.called.wait(PATIENCE)
            client.socket.setsockopt(1, 13, b"\x01\x00\x00\x00\x00\x00\x00\x00")  # SO_LINGER 0: closing sends a reset
        assert slow.disconnected.wait(PATIENCE)


# ---- deadlines


@pytest.mark.spec("THREAT-19")
@pytest.mark.parametrize(
    ("octets", "phase"),
    [
        (b"GET / HTT", Phase.HEADER),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ", Phase.HEADER),
        (b"\r\n", Phase.HEADER),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nab", Phase.BODY),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nab", Phase.BODY),
    ],
    ids=["request line", "header", "empty line", "body", "chunk"],
)
def test_a_request_that_does_not_come_is_408_or_nothing(recorder: Recorder, octets: bytes, phase: Phase) -> None:
    with running(recorder, Limits(header_seconds=0.1, body_seconds=0.1)) as server, Client(server).handshake() as client:
        client.send(octets)
        if octets.strip():
            assert client.answer().status == 408
        assert client.how_it_ends() == "close_notify"
        assert server.traffic.timeouts == {phase: 1}


@pytest.mark.spec("THREAT-19")
@pytest.mark.parametrize("phase", [Phase.HEADER, Phase.BODY])
def test_dripping_octets_do_not_move_a_deadline(recorder: Recorder, phase: Phase) -> None:
    begin = b"GET / HTTP/1.1\r\nX: " if phase is Phase.HEADER else b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n"
    with running(recorder, Limits(header_seconds=0.15, body_seconds=0.15)) as server, Client(server).handshake() as client:
        client.send(begin)
        ended = threading.Event()

        def drip() -> None:
            while not ended.wait(0.02):
                client.send(b"a")

        dripping = threading.Thread(target=drip)
        server.traffic.wait_until(lambda: server.traffic.opened == 1)
        dripping.start()
        server.traffic.wait_until(lambda: server.traffic.timeouts[phase] == 1)
        ended.set()
        dripping.join()
        assert client.answer().status == 408


def test_a_new_connection_must_send_its_first_request_soon_and_an_idle_one_may_rest(recorder: Recorder) -> None:
    with running(recorder, Limits(header_seconds=0.1, idle_seconds=0.3)) as server:
        with Client(server).handshake() as client:
            assert client.how_it_ends() == "close_notify"
        assert server.traffic.timeouts == {Phase.HEADER: 1}
        with Client(server).handshake() as client:
            client.get()
            assert client.how_it_ends() == "close_notify"
        assert server.traffic.timeouts == {Phase.HEADER: 1, Phase.IDLE: 1}


def test_the_application_may_take_its_time() -> None:
    """Deadlines are for the client; while the application works none runs: one of another connection shows that time went by."""
    slow = Slow()
    limits = Limits(header_seconds=0.05, body_seconds=0.05, idle_seconds=0.05)
    with running(slow, limits) as server, Client(server).handshake() as client:
        client.send(request(b"GET", b"/"))
        assert slow.called.wait(PATIENCE)
        for _ in range(2):
            with Client(server).handshake() as other:
                assert other.how_it_ends() == "close_notify"
        slow.go()
        assert client.answer().status == 200


@pytest.mark.spec("THREAT-19")
@pytest.mark.parametrize("last", [False, True], ids=["kept", "last"])
def test_a_client_that_does_not_read_its_answer_is_closed(last: bool) -> None:
    app = answering(start(), body(bytes(12_000_000)))
    headers = (b"Connection: close",) if last else ()
    with (
        running(app, Limits(write_seconds=0.2)) as server,
        Client(server, receive_buffer=4096).handshake() as client,
    ):
        client.send(request(b"GET", b"/", *headers))
        server.traffic.wait_until(lambda: server.traffic.timeouts[Phase.WRITE] == 1)
        server.traffic.wait_until_closed()


@pytest.mark.spec("THREAT-19")
def test_nothing_more_is_read_of_a_client_that_does_not_read() -> None:
    """Else a client could make answers pile up in memory by pipelining."""
    calls = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            calls.append(1)
            await send(start())
            await send(body(bytes(1_000_000)))

    with (
        running(app, Limits(write_seconds=0.3)) as server,
        Client(server, receive_buffer=4096).handshake() as client,
    ):
        client.socket.settimeout(0.2)
        requests = request(b"GET", b"/", b"X: " + b"a" * 12_000) * 1000
        with pytest.raises((TimeoutError, ConnectionError)):
            client.send(requests)
        server.traffic.wait_until_closed()
    assert len(calls) < 30


def test_a_client_that_reads_slowly_gets_it_all() -> None:
    octets = bytes(3_000_000)
    with (
        running(answering(start(), body(octets))) as server,
        Client(server, receive_buffer=4096).handshake() as client,
    ):
        assert client.get().body == octets
        assert client.get(b"/", b"Connection: close").body == octets


def test_a_client_that_keeps_sending_after_an_early_answer_is_cut_off(recorder: Recorder) -> None:
    with running(recorder, Limits(linger_seconds=0.2)) as server, Client(server).handshake() as client:
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n")
        assert client.answer().status == 413
        with pytest.raises(Closed, match="close_notify"):
            client.read()
        assert client.socket.recv(1) == b"", "half-closed at once"
        server.traffic.wait_until_closed()
