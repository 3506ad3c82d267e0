"""Backoff after wrong passwords, tokens and shared secrets: per user and per source, asked before any slow hash is computed.

After `free` failures in a row each further one shuts the door for twice as long as the one before, up to `longest`. What is
refused while the door is shut does not count again, so a person who waits as told always gets an answer. The table is bounded:
the entry that was touched longest ago makes room.
"""

import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final

from estcore.errors import Busy, CmcFailed, Unauthenticated

USER_FREE_FAILURES: Final = 10
USER_LONGEST_PAUSE: Final = timedelta(seconds=2)
"""Short, for whoever knows the name of a fleet's common user, or one device with an old password, keeps the others out for as long.
Many sources together guess at half a password a second; what one source may guess is bounded below."""
USER_LONGEST_PAUSE_ALONE: Final = timedelta(seconds=30)
"""Where sources cannot be told apart, so nothing else bounds one of them."""
SOURCE_FREE_FAILURES: Final = 20
SOURCE_LONGEST_PAUSE: Final = timedelta(minutes=1)

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


class Guesses:
    """The throttles of one process: by user of an issuer, and by source where the peer's address is the client's own."""

    def __init__(self, *, clock: Callable[[], datetime], throttle_sources: bool) -> None:
        longest = USER_LONGEST_PAUSE if throttle_sources else USER_LONGEST_PAUSE_ALONE
        self._clock = clock
        self._users = Throttle(free=USER_FREE_FAILURES, longest=longest)
        self._sources = Throttle(free=SOURCE_FREE_FAILURES, longest=SOURCE_LONGEST_PAUSE) if throttle_sources else None

    def of_user(self, user_key: str, source: str | None) -> "Guess":
        """Around the check of a user's password or secret: Unauthenticated and CmcFailed from within count, their absence forgives.

        `source` is None where somebody who is trusted passes guesses of others on. Entering raises Busy.
        """
        if source is None:
            return Guess(self._clock, self._users, user_key, None, "")
        return Guess(self._clock, self._users, user_key, self._sources, _source_key(source))

    def of_source(self, source: str) -> "Guess":
        """Around the check of credentials that name no user: Unauthenticated from within counts. Entering raises Busy."""
        return Guess(self._clock, None, "", self._sources, _source_key(source))


class Guess:
    """One check of credentials, as a context: a class, for a generator as context costs more than the check of a known password."""

    __slots__ = ("_clock", "_source_key", "_sources", "_user_key", "_users")

    def __init__(
        self, clock: Callable[[], datetime], users: Throttle | None, user_key: str, sources: Throttle | None, source_key: str
    ) -> None:
        self._clock = clock
        self._users, self._user_key = users, user_key
        self._sources, self._source_key = sources, source_key

    def __enter__(self) -> None:
        now = self._clock()
        if self._users is not None:
            self._users.check(self._user_key, now=now)
        if self._sources is not None:
            self._sources.check(self._source_key, now=now)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._right()
        elif issubclass(kind, Unauthenticated | CmcFailed):
            self._wrong()

    def _right(self) -> None:
        if self._users is None:
            return  # who names no user takes nothing back: what else came from there is not known to be his
        self._users.succeeded(self._user_key)
        if self._sources is not None:
            self._sources.forgive(self._source_key)

    def _wrong(self) -> None:
        now = self._clock()
        if self._users is not None:
            self._users.failed(self._user_key, now=now)
        if self._sources is not None:
            self._sources.failed(self._source_key, now=now)


@lru_cache(maxsize=1024)
def _source_key(address: str) -> str:
    """Who counts as one source: an IPv4 address, or the /64 that one site has of IPv6."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    return address if parsed.version == 4 else str(int(parsed) >> 64)
