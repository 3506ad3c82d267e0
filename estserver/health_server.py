"""Serves the health application: plain HTTP/1.1, one request a connection, a few hundred octets, a deadline.

Probes and Prometheus need no more, and the process that only watches over workers need not load an HTTP server for it.
"""

import asyncio
import socket
from collections.abc import MutableMapping
from typing import Any, NoReturn

from estserver.health import Asgi

DEADLINE_SECONDS = 5.0
HEAD_OCTETS = 8192
MAX_CONNECTIONS = 64
REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}


async def start(app: Asgi, sock: socket.socket) -> asyncio.Server:
    """Begin to serve `app` on a bound socket; close what is returned to end it."""
    places = asyncio.Semaphore(MAX_CONNECTIONS)

    async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if not places.locked():
                async with places, asyncio.timeout(DEADLINE_SECONDS):
                    writer.write(await _answer(app, await reader.readuntil(b"\r\n\r\n")))
                    await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # too slow, too long or gone: a probe comes again
        finally:
            writer.close()

    return await asyncio.start_server(_serve, sock=sock, limit=HEAD_OCTETS)


async def _answer(app: Asgi, head: bytes) -> bytes:
    words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        return b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    parts: list[bytes] = []

    async def _send(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            parts.append(f"HTTP/1.1 {message['status']} {REASONS.get(message['status'], '')}\r\nConnection: close\r\n".encode())
            parts.extend(name + b": " + value + b"\r\n" for name, value in message["headers"])
            parts.append(b"\r\n")
        else:
            parts.append(message["body"])

    async def _receive() -> NoReturn:
        raise AssertionError("the health application reads no body")

    await app({"type": "http", "method": words[0], "path": words[1].partition("?")[0]}, _receive, _send)
    return b"".join(parts)
