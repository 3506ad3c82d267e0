"""The health port on real sockets: three paths, one request a connection, and no patience with the slow and the long."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from estserver import health_server
from estserver.health import build_health
from estserver.listening import bind


@pytest.fixture
async def port() -> AsyncIterator[int]:
    app = build_health(not_ready=lambda: "not yet", metrics=lambda: (b"est_x 1\n", "text/plain; version=0.0.4"))
    sock = bind("127.0.0.1:0")
    server = await health_server.start(app, sock)
    yield sock.getsockname()[1]
    server.close()


async def ask(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return answer


@pytest.mark.parametrize(
    ("request_line", "status", "body"),
    [
        (b"GET /healthz HTTP/1.1", b"200 OK", b"ok\n"),
        (b"GET /readyz?verbose HTTP/1.0", b"503 Service Unavailable", b"not yet\n"),
        (b"GET /metrics HTTP/1.1", b"200 OK", b"est_x 1\n"),
        (b"HEAD /healthz HTTP/1.1", b"200 OK", b""),
        (b"POST /healthz HTTP/1.1", b"405 Method Not Allowed", b"use GET\n"),
        (b"GET / HTTP/1.1", b"404 Not Found", b"not found\n"),
        (b"GET /docs HTTP/1.1", b"404 Not Found", b"not found\n"),
        (b"GET /openapi.json HTTP/1.1", b"404 Not Found", b"not found\n"),
        (b"GET /.well-known/est/cacerts HTTP/1.1", b"404 Not Found", b"not found\n"),
        (b"nonsense", b"400 Bad Request", b""),
        (b"\x16\x03\x01", b"400 Bad Request", b""),
    ],
)
@pytest.mark.spec("THREAT-37")
async def test_it_answers_its_three_paths_and_closes(port: int, request_line: bytes, status: bytes, body: bytes) -> None:
    head, _, received = (await ask(port, request_line + b"\r\nHost: x\r\n\r\n")).partition(b"\r\n\r\n")
    assert head.split(b"\r\n")[0] == b"HTTP/1.1 " + status
    assert received == body


async def test_a_slow_client_is_let_go(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_server, "DEADLINE_SECONDS", 0.1)
    assert await ask(port, b"GET /healthz HTTP/1.1\r\n") == b""


async def test_a_head_over_the_limit_is_dropped(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 100_000)
    with suppress(ConnectionError):
        assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()
    assert b"200 OK" in await ask(port, b"GET /healthz HTTP/1.1\r\n\r\n")
