"""What the connections of a server share, and what they need of the protocol above them."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from estserver.connection import TlsConnection
from estserver.deadline import Phase
from estserver.limits import Limits
from estserver.tls import ServerTls
from estserver.traffic import Gate, TrafficObserver

if TYPE_CHECKING:
    from estserver.tls_protocol import TlsProtocol


class HttpLayer(Protocol):
    """The protocol above TLS; one object for each connection."""

    def data_received(self, data: bytes) -> None:
        """Plaintext of the client."""

    def peer_finished(self) -> None:
        """The client will send nothing more; it may still read."""

    def drain(self) -> None:
        """Finish what runs, then close."""

    def timed_out(self, phase: Phase) -> None:
        """What was awaited did not come."""

    def pause_writing(self) -> None:
        """The client does not read."""

    def resume_writing(self) -> None:
        """The client reads again."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """What all connections of a server share. `server` is the address and port that it listens on."""

    loop: asyncio.AbstractEventLoop
    server: tuple[str, int]
    tls: ServerTls
    limits: Limits
    gate: Gate
    observer: TrafficObserver
    http: Callable[["TlsProtocol", TlsConnection], HttpLayer]
