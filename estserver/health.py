"""Liveness, readiness and metrics: plain HTTP on a port of its own, never on the EST port (design: decision 13).

A bare ASGI application of three paths; it tells nothing but what they are for.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Asgi = Callable[
    [Scope, Callable[[], Awaitable[MutableMapping[str, Any]]], Callable[[MutableMapping[str, Any]], Awaitable[None]]], Awaitable[None]
]

_TEXT = "text/plain; charset=utf-8"


def build_health(*, not_ready: Callable[[], str], metrics: Callable[[], tuple[bytes, str]]) -> Asgi:
    """`not_ready` says in one sentence why this process should get no traffic, or is empty; `metrics` gives a body and its media type."""

    def _healthz() -> tuple[int, bytes, str]:
        return 200, b"ok\n", _TEXT

    def _readyz() -> tuple[int, bytes, str]:
        reason = not_ready()
        return (503, f"{reason}\n".encode(), _TEXT) if reason else (200, b"ok\n", _TEXT)

    def _metrics() -> tuple[int, bytes, str]:
        body, media_type = metrics()
        return 200, body, media_type

    pages = {"/healthz": _healthz, "/readyz": _readyz, "/metrics": _metrics}

    async def _app(
        scope: Scope, receive: Callable[[], Awaitable[Any]], send: Callable[[MutableMapping[str, Any]], Awaitable[None]]
    ) -> None:
        del receive
        if scope["type"] != "http":
            return
        page = pages.get(scope["path"])
        headers: list[tuple[bytes, bytes]] = []
        if page is None:
            status, body, media_type = 404, b"not found\n", _TEXT
        elif scope["method"] not in ("GET", "HEAD"):
            status, body, media_type = 405, b"use GET\n", _TEXT
            headers.append((b"allow", b"GET, HEAD"))
        else:
            status, body, media_type = page()
        headers += [(b"content-type", media_type.encode()), (b"content-length", str(len(body)).encode()), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    return _app
