"""What the transport counts, and which connections it lets in."""

import asyncio
import socket
from collections import Counter
from typing import Protocol

from estserver.deadline import Phase
from estserver.limits import Limits


class TrafficObserver(Protocol):
    """Counts what happens below the application; metrics implement it. Every label is out of a small fixed set."""

    def connection_opened(self) -> None:
        """A connection was let in."""

    def connection_closed(self) -> None:
        """A connection that was let in is gone."""

    def connection_refused(self, reason: str) -> None:
        """A connection was dropped at once: "connections" or "connections_per_source"."""

    def handshake_failed(self, reason: str) -> None:
        """A handshake failed; see `tls.failure_reason` for the reasons."""

    def timed_out(self, phase: Phase) -> None:
        """What was awaited did not come in time."""

    def request_refused(self, http_status: int) -> None:
        """The transport answered a request itself."""


class Unobserved:
    """Counts nothing: for programs without metrics."""

    def connection_opened(self) -> None:
        """Nothing."""

    def connection_closed(self) -> None:
        """Nothing."""

    def connection_refused(self, reason: str) -> None:
        """Nothing."""

    def handshake_failed(self, reason: str) -> None:
        """Nothing."""

    def timed_out(self, phase: Phase) -> None:
        """Nothing."""

    def request_refused(self, http_status: int) -> None:
        """Nothing."""


class Drainable(Protocol):
    """A connection, as far as the gate knows it."""

    def drain(self) -> None:
        """Finish what runs, then close."""

    def abort(self) -> None:
        """Close at once."""


class Gate:
    """Caps the connections of a server, in all and by source, and knows when the last is gone."""

    def __init__(self, limits: Limits, observer: TrafficObserver) -> None:
        self._limits = limits
        self._observer = observer
        self._sources: Counter[str | bytes] = Counter()
        self.connections: set[Drainable] = set()
        self.draining = False
        self.empty = asyncio.Event()
        self.empty.set()

    def enter(self, connection: Drainable, source: str | bytes) -> bool:
        """Whether there is room; if so the connection counts until it leaves."""
        if len(self.connections) >= self._limits.connections:
            self._observer.connection_refused("connections")
            return False
        if self._sources[source] >= self._limits.connections_per_source:
            self._observer.connection_refused("connections_per_source")
            return False
        self._sources[source] += 1
        self.connections.add(connection)
        self.empty.clear()
        self._observer.connection_opened()
        return True

    def drain(self) -> None:
        """Have every connection finish what runs, those that are still on their way in too."""
        self.draining = True
        for connection in list(self.connections):
            connection.drain()

    def leave(self, connection: Drainable, source: str | bytes) -> None:
        """The connection is gone."""
        self.connections.discard(connection)
        self._sources[source] -= 1
        if self._sources[source] <= 0:
            del self._sources[source]
        if not self.connections:
            self.empty.set()
        self._observer.connection_closed()


def peer_address(peername: object) -> tuple[str, int]:
    """The client's address and port as ASGI has them; IPv4 in an IPv6 socket reads as IPv4 (RFC 4291 section 2.5.5.2)."""
    if isinstance(peername, tuple) and len(peername) >= 2:
        return str(peername[0]).removeprefix("::ffff:"), int(peername[1])
    return "", 0


def source_of(address: str) -> str | bytes:
    """Who counts as one source: an IPv4 address, or the /64 of an IPv6 address, which is what one site is given."""
    if ":" not in address:
        return address
    return socket.inet_pton(socket.AF_INET6, address.partition("%")[0])[:8]
