"""A few keep-alive connections to one server.

The last one used is taken first, so under light load the others age and go. A connection that waited longer than a server
would let it is not tried; one that the server closed in between is seen by its EOF, and where even that comes too late the
request fails as stale and the client opens another (see EstClient).
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from estclient.connection import HttpConnection

MAX_CONNECTIONS = 8
"""At the same time to one server; more callers wait. Each costs both sides some 50 KiB of TLS state."""

MAX_IDLE_SECONDS = 45.0
"""Below the 60 s after which servers, ours among them, close an idle connection."""


class Pool:
    """Hands out connections, each to one caller at a time. Belongs to one event loop."""

    def __init__(self, connect: Callable[[], Awaitable[HttpConnection]], *, max_connections: int = MAX_CONNECTIONS) -> None:
        self._connect = connect
        self._free = asyncio.Semaphore(max_connections)
        self._idle: list[tuple[float, HttpConnection]] = []
        self._generation = 0

    @asynccontextmanager
    async def connection(self, *, fresh: bool = False) -> AsyncIterator[HttpConnection]:
        """A connection for one request, kept for the next caller when it is still reusable; `fresh` opens a new one."""
        async with self._free:
            generation = self._generation
            connection = (None if fresh else self._take()) or await self._connect()
            keep = False
            try:
                yield connection
                keep = connection.reusable and generation == self._generation
            finally:
                if keep:
                    self._idle.append((asyncio.get_running_loop().time(), connection))
                else:
                    connection.close()

    def clear(self) -> None:
        """Close what is idle; what is in use closes when its request ends. For new anchors or credentials, and at the end."""
        self._generation += 1
        while self._idle:
            self._idle.pop()[1].close()

    def _take(self) -> HttpConnection | None:
        oldest = asyncio.get_running_loop().time() - MAX_IDLE_SECONDS
        while self._idle:
            since, connection = self._idle.pop()
            if since >= oldest and connection.reusable:
                return connection
            connection.close()
        return None
