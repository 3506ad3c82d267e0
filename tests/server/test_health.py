"""The health port: three pages, and nothing of EST."""

from typing import Any

import pytest

from estserver.health import build_health


async def get(path: str, *, method: str = "GET", not_ready: str = "") -> tuple[int, dict[bytes, bytes], bytes]:
    app = build_health(not_ready=lambda: not_ready, metrics=lambda: (b"metrics\n", "text/plain; version=0.0.4"))
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    await app({"type": "http", "path": path, "method": method}, receive, send)
    return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"]


async def test_a_process_that_turns_is_healthy_and_says_why_it_is_not_ready() -> None:
    assert (await get("/healthz", not_ready="starting"))[0] == 200
    assert (await get("/readyz"))[0] == 200
    status, _, body = await get("/readyz", not_ready="shutting down")
    assert (status, body) == (503, b"shutting down\n")
    status, headers, body = await get("/metrics")
    assert (status, headers[b"content-type"], body) == (200, b"text/plain; version=0.0.4", b"metrics\n")


@pytest.mark.spec("THREAT-37")
async def test_there_is_nothing_else() -> None:
    for path in ("/", "/docs", "/.well-known/est/cacerts", "/metrics/", "/debug"):
        assert (await get(path))[0] == 404
    status, headers, _ = await get("/metrics", method="POST")
    assert (status, headers[b"allow"]) == (405, b"GET, HEAD")
    assert (await get("/healthz", method="HEAD"))[2] == b""
