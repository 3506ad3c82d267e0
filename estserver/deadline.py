"""The one timer of a connection."""

import asyncio
from collections.abc import Callable
from enum import StrEnum


class Phase(StrEnum):
    """What a connection is waited for; the label of the metric when it does not come in time."""

    HANDSHAKE = "handshake"
    HEADER = "header"
    BODY = "body"
    IDLE = "idle"
    WRITE = "write"
    LINGER = "linger"


class Deadline:
    """Calls back once, with the phase, when what is awaited did not come in time.

    A connection waits for one thing at a time, and most things come at once. So the loop's timer is left alone when a later deadline
    replaces an earlier one, and set again only when it fires too early: a request on a connection that is kept costs no timer.
    """

    __slots__ = ("_due", "_expired", "_loop", "_phase", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, expired: Callable[[Phase], None]) -> None:
        self._loop = loop
        self._expired: Callable[[Phase], None] | None = expired
        self._phase: Phase | None = None
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def within(self, seconds: float, phase: Phase) -> None:
        """Await `phase` for `seconds` from now, and nothing else any more."""
        self._phase = phase
        self._due = self._loop.time() + seconds
        if self._timer is None or self._timer.when() > self._due:
            self._set_timer(seconds)

    def off(self) -> None:
        """Await nothing."""
        self._phase = None

    def end(self) -> None:
        """Never call back again; lets the connection go."""
        self._phase = None
        self._expired = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, self._fired)

    def _fired(self) -> None:
        self._timer = None
        if self._phase is None or self._expired is None:
            return
        left = self._due - self._loop.time()
        if left > 0:
            self._set_timer(left)
            return
        phase, self._phase = self._phase, None
        self._expired(phase)
