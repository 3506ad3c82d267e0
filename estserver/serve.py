"""Listens, and stops listening: the transport as one call.

uvicorn gives the HTTP protocol, its configuration and the lifespan of the application; accepting, TLS, deadlines and draining are ours.
"""

import asyncio
import contextlib
import logging
import resource
import socket
import time
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from email.utils import formatdate
from functools import partial
from typing import Any

from uvicorn.config import Config
from uvicorn.server import ServerState

from estserver.connection import TlsConnection
from estserver.http_protocol import HttpProtocol
from estserver.limits import Limits
from estserver.listener import Listener
from estserver.tls import ServerTls
from estserver.tls_protocol import TlsProtocol
from estserver.traffic import Gate, TrafficObserver, Unobserved

BACKLOG = 1024
"""Connections that the kernel holds until the loop accepts them; the kernel cuts it to net.core.somaxconn."""
SPARE_FILES = 256
"""File descriptors beside those of connections: ledger, watches, logs."""
DRAIN = timedelta(seconds=30)

ASGIApp = Any
"""An ASGI 3 application: `async def app(scope, receive, send)`."""

logger = logging.getLogger("estserver")


async def serve(
    app: ASGIApp,
    *,
    sockets: Sequence[socket.socket],
    tls: ServerTls,
    shutdown: asyncio.Event,
    limits: Limits | None = None,
    drain: timedelta = DRAIN,
    observer: TrafficObserver | None = None,
) -> None:
    """Serve `app` over TLS on `sockets` until `shutdown` is set; then finish what runs, for `drain` at most.

    `sockets` are bound; they are closed before the answers that still run are awaited, so that others take over at once. Connections that
    wait for a request are closed, running requests are answered with `Connection: close`, and what is left after `drain` is cut off.
    Raises RuntimeError when the application's lifespan does not start.
    """
    limits = limits or Limits()
    observer = observer or Unobserved()
    loop = asyncio.get_running_loop()
    _make_room_for(limits)
    config = Config(app, interface="asgi3", loop="none", ws="none", log_config=None, access_log=False, proxy_headers=False)
    config.load()
    state = ServerState()
    gate = Gate(limits, observer)

    async with _lifespan(config) as app_state:

        def speak_http(transport: TlsProtocol, connection: TlsConnection) -> HttpProtocol:
            return HttpProtocol(config, state, app_state, loop=loop, transport=transport, tls=connection, limits=limits, observer=observer)

        servers = []
        clock = loop.create_task(_tell_the_time(state))
        for sock in sockets:
            listener = Listener(
                loop=loop, server=sock.getsockname()[:2], tls=tls, limits=limits, gate=gate, observer=observer, http=speak_http
            )
            servers.append(await loop.create_server(partial(TlsProtocol, listener), sock=sock, backlog=BACKLOG))
        await shutdown.wait()
        for server in servers:
            server.close()
        await _drain(gate, state, drain)
        clock.cancel()


async def _drain(gate: Gate, state: ServerState, drain: timedelta) -> None:
    gate.drain()
    try:
        async with asyncio.timeout(drain.total_seconds()):
            await gate.empty.wait()
            await asyncio.gather(*state.tasks, return_exceptions=True)
    except TimeoutError:
        logger.warning("drain: %d connections and %d requests cut off", len(gate.connections), len(state.tasks))
        for task in list(state.tasks):
            task.cancel()
        for connection in list(gate.connections):
            connection.abort()
        await asyncio.gather(*state.tasks, return_exceptions=True)


async def _tell_the_time(state: ServerState) -> None:
    """Keep the Date header (RFC 9110 section 6.6.1): formatting it for each answer would cost more than the rest of the head."""
    while True:
        state.default_headers = [(b"date", formatdate(time.time(), usegmt=True).encode())]
        await asyncio.sleep(1)


@contextlib.asynccontextmanager
async def _lifespan(config: Config) -> AsyncIterator[dict[str, Any]]:
    lifespan = config.lifespan_class(config)
    await lifespan.startup()
    if lifespan.should_exit:
        raise RuntimeError("the application did not start")
    try:
        yield lifespan.state
    finally:
        await lifespan.shutdown()


def _make_room_for(limits: Limits) -> None:
    """Raise the soft limit of open files, as far as the hard one allows: beyond it accept fails and the loop spins."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limits.connections + SPARE_FILES
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
