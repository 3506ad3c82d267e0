"""Backoff after wrong passwords: per user and per source, asked before any slow hash is computed.

After `free` failures in a row each further one shuts the door for twice as long as the one before, up to `longest`. What is
refused while the door is shut does not count again, so a person who waits as told always gets an answer. The table is bounded:
the entry that was touched longest ago makes room.
"""

from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta

from estcore.errors import Busy

FIRST_PAUSE = timedelta(seconds=1)
FORGET_AFTER = timedelta(minutes=15)
MAX_ENTRIES = 16_384


@dataclass(slots=True)
class _Failures:
    count: int
    last: datetime
    shut_until: datetime


class Throttle:
    """Counts failures by key; the caller says what a key is."""

    def __init__(self, *, free: int, longest: timedelta, max_entries: int = MAX_ENTRIES) -> None:
        self._free = free
        self._longest = longest
        self._max_entries = max_entries
        self._failures: OrderedDict[str, _Failures] = OrderedDict()

    def check(self, key: str, *, now: datetime) -> None:
        """Raises Busy with the time to wait while the door is shut for `key`."""
        seen = self._failures.get(key)
        if seen is not None and now < seen.shut_until:
            raise Busy("too many failed attempts; wait and try again", retry_after=seen.shut_until - now)

    def failed(self, key: str, *, now: datetime) -> None:
        """Count a failure."""
        seen = self._failures.get(key)
        count = seen.count + 1 if seen is not None and now - seen.last < FORGET_AFTER else 1
        self._failures[key] = _Failures(count, now, now + self._pause(count))
        self._failures.move_to_end(key)
        if len(self._failures) > self._max_entries:
            self._failures.popitem(last=False)

    def succeeded(self, key: str) -> None:
        """Forget the failures of `key`."""
        self._failures.pop(key, None)

    def forgive(self, key: str) -> None:
        """Take one failure back: of a source where some know their passwords and one does not."""
        seen = self._failures.get(key)
        if seen is not None:
            seen.count -= 1
            if seen.count <= 0:
                del self._failures[key]

    def _pause(self, failures: int) -> timedelta:
        if failures < self._free:
            return timedelta(0)
        doublings = min(failures - self._free, 30)
        return min(FIRST_PAUSE * (1 << doublings), self._longest)
