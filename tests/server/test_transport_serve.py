"""The life of a server: it starts with its application, counts, and drains."""

import asyncio
import contextlib
import gc
import socket
import threading
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from estserver.deadline import Deadline
from estserver.http_exchange import Exchange
from estserver.http_head import Refusal, check_headers, check_target
from estserver.http_protocol import HttpProtocol
from estserver.limits import Limits
from estserver.tls_protocol import TlsProtocol
from estserver.traffic import Unobserved, peer_address, source_of
from tests.server.transport_fixtures import PATIENCE, Client, Closed, Recorder, Scope, Server, request, running

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


class Held:
    """An application whose answers wait for `go`, and whose lifespan is seen."""

    def __init__(self) -> None:
        self.called = threading.Semaphore(0)
        self.lifespan: list[str] = []
        self._go = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        self._loop = asyncio.get_running_loop()
        self.called.release()
        if scope["path"] != "/now":
            await self._go.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["state"]["greeting"] if "state" in scope else b""})

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            kind = (await receive())["type"]
            self.lifespan.append(kind)
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return

    def go(self) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._go.set)


class Greeting(Held):
    """Held, with something in its lifespan's state."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            scope["state"]["greeting"] = b"hello\n"
        await super().__call__(scope, receive, send)


DRAIN = timedelta(seconds=PATIENCE)


def wait_until_nothing_listens(server: Server) -> None:
    with contextlib.suppress(ConnectionError):
        while True:
            socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE).close()


@pytest.mark.spec("THREAT-32")
def test_a_drain_finishes_what_runs_closes_what_rests_and_takes_nothing_new() -> None:
    app = Greeting()
    with running(app, drain=DRAIN) as server, Client(server).handshake() as busy, Client(server).handshake() as resting:
        resting.get(b"/now")
        busy.send(request(b"GET", b"/"))
        assert app.called.acquire(timeout=PATIENCE)
        assert app.called.acquire(timeout=PATIENCE)
        server.shut_down()
        assert resting.how_it_ends() == "close_notify"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE)
        app.go()
        answer = busy.answer()
        assert (answer.status, answer.body) == (200, b"hello\n")
        assert answer.header(b"Connection") == [b"close"]
        assert busy.how_it_ends() == "close_notify"
        server.join()
    assert app.lifespan == ["lifespan.startup", "lifespan.shutdown"]


@pytest.mark.spec("THREAT-32")
def test_a_request_that_has_begun_before_the_drain_is_answered() -> None:
    app = Greeting()
    with running(app, drain=DRAIN) as server, Client(server).handshake() as begun, Client(server).handshake() as resting:
        begun.get(b"/now")
        resting.get(b"/now")
        octets = request(b"POST", b"/now", body=b"MIIB")
        begun.send(octets[:-2])
        begun_sent = Client(server).handshake()  # served after the octets above, for the loop takes turns
        begun_sent.get(b"/now")
        begun_sent.socket.close()
        server.shut_down()
        assert resting.how_it_ends() == "close_notify"
        begun.send(octets[-2:])
        assert begun.answer().header(b"Connection") == [b"close"]
        server.join()


def test_pipelined_requests_are_answered_in_a_drain_the_last_with_close() -> None:
    app = Greeting()
    with running(app, drain=DRAIN) as server, Client(server).handshake() as client:
        client.send(request(b"GET", b"/") * 2)
        assert app.called.acquire(timeout=PATIENCE)
        server.shut_down()
        wait_until_nothing_listens(server)
        app.go()
        assert [client.answer().header(b"Connection"), client.answer().header(b"Connection")] == [[], [b"close"]]
        server.join()


def test_a_connection_that_has_not_begun_gets_a_moment_in_a_drain(recorder: Recorder) -> None:
    with (
        running(recorder, Limits(linger_seconds=0.1), drain=DRAIN) as server,
        Client(server) as no_handshake,
        Client(server).handshake() as no_request,
    ):
        server.traffic.wait_until(lambda: server.traffic.opened == 2)
        server.shut_down()
        assert no_request.how_it_ends() == "close_notify"
        with pytest.raises(Closed):
            no_handshake.handshake()
        server.join()


@pytest.mark.spec("THREAT-32")
def test_a_handshake_that_ends_in_a_drain_is_served_once() -> None:
    app = Greeting()
    with running(app, drain=DRAIN) as server, Client(server) as client:
        server.traffic.wait_until(lambda: server.traffic.opened == 1)
        server.shut_down()
        wait_until_nothing_listens(server)
        client.handshake()
        assert client.get(b"/now").header(b"Connection") == [b"close"]
        assert client.how_it_ends() == "close_notify"
        server.join()


@pytest.mark.spec("THREAT-32")
def test_what_does_not_end_in_time_is_cut_off() -> None:
    app = Greeting()
    with running(app, drain=timedelta(seconds=0.1)) as server, Client(server).handshake() as client:
        client.send(request(b"GET", b"/"))
        assert app.called.acquire(timeout=PATIENCE)
        server.shut_down()
        server.join()
    assert app.lifespan == ["lifespan.startup", "lifespan.shutdown"]


def test_an_application_that_does_not_start_is_an_error() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no ledger"})

    server = Server(app, Limits(), DRAIN)
    with pytest.raises(RuntimeError, match="did not start"):
        server.join()


def test_the_transport_counts_what_happens_below_the_application(recorder: Recorder) -> None:
    with running(recorder) as server:
        with Client(server).handshake() as client:
            client.get()
        with Client(server).handshake() as client:
            client.send(b"nonsense\r\n\r\n")
            client.answer()
        server.traffic.wait_until_closed()
        assert (server.traffic.opened, server.traffic.closed) == (2, 2)
        assert server.traffic.answers == {501: 1}


def test_a_connection_that_is_gone_leaves_no_cycle_behind(recorder: Recorder) -> None:
    """OpenSSL's memory goes with the last reference, not when the garbage collector comes by."""

    def ours() -> list[object]:
        return [each for each in gc.get_objects() if isinstance(each, TlsProtocol | HttpProtocol | Exchange | Deadline)]

    with running(recorder) as server:
        gc.collect()
        before = ours()  # pytest keeps log records, and those keep tracebacks of other tests
        gc.disable()
        try:
            for path, *headers in ((b"/",), (b"/", b"Connection: close"), (b"/%s" % (b"a" * 3000),)):
                with Client(server).handshake() as client:
                    client.get(path, *headers)
            with Client(server) as client:
                client.socket.sendall(b"no TLS\r\n\r\n")
                client.socket.recv(100)
            server.traffic.wait_until(lambda: server.traffic.closed == 4)
            recorder.requests.clear()
            server.shut_down()
            server.join()
            assert [type(left) for left in ours() if not any(left is each for each in before)] == []
        finally:
            gc.enable()


def test_metrics_may_be_left_out() -> None:
    unobserved = Unobserved()
    unobserved.connection_opened()
    unobserved.connection_closed()


@pytest.mark.parametrize(
    ("peername", "client", "source"),
    [
        (("192.0.2.1", 5), ("192.0.2.1", 5), "192.0.2.1"),
        (("::ffff:192.0.2.1", 5, 0, 0), ("192.0.2.1", 5), "192.0.2.1"),
        (("2001:db8:0:1::2", 5, 0, 0), ("2001:db8:0:1::2", 5), bytes.fromhex("20010db800000001")),
        (("fe80::1%eth0", 5, 0, 2), ("fe80::1%eth0", 5), bytes.fromhex("fe80000000000000")),
        (None, ("", 0), ""),
    ],
)
def test_a_source_is_an_ipv4_address_or_an_ipv6_site(peername: object, client: tuple[str, int], source: str | bytes) -> None:
    assert peer_address(peername) == client
    assert source_of(client[0]) == source


def test_heads_are_judged_without_a_connection() -> None:
    """The pure half, at the edges that llhttp never lets through."""
    host = (b"host", b"localhost")
    with pytest.raises(Refusal, match="not both"):
        check_headers([host, (b"content-length", b"4"), (b"transfer-encoding", b"chunked")], "1.1", Limits())
    with pytest.raises(Refusal, match="more than one Content-Length"):
        check_headers([host, (b"content-length", b"4"), (b"content-length", b"4")], "1.1", Limits())
    with pytest.raises(Refusal, match="decimal"):
        check_headers([host, (b"content-length", b"0x4")], "1.1", Limits())
    with pytest.raises(Refusal, match="decimal"):
        check_headers([host, (b"content-length", "٤".encode())], "1.1", Limits())
    assert check_headers([host, (b"content-length", b"4 ")], "1.1", Limits()).content_length == 4
    assert check_headers([host, (b"transfer-encoding", b"chunked")], "1.1", Limits()).content_length is None
    assert check_target(b"/a?b?c") == (b"/a", b"b?c")
