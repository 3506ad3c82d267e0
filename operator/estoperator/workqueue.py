"""A queue of keys: deduplicated, fair between their owners, with backoff. One event loop; the clock is injected.

Like client-go's workqueue, a key is in work at most once: added meanwhile it is taken again afterwards. Owners, such as namespaces, are
served in turn, and one may hold at most a share of the workers, so that 5,000 requests of one do not keep another's waiting.
"""

import asyncio
import contextlib
import heapq
import random
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, Protocol, TypeVar

FIRST_BACKOFF_SECONDS = 0.5
MAX_BACKOFF_SECONDS = 60.0
MIN_COMPACTED = 1000
"""Delays that no longer count, beyond which they are cleared out."""


class Key(Hashable, Protocol):
    """What the queue holds: names something in a namespace."""

    @property
    def namespace(self) -> str:
        """Whose turn it takes, where the queue is not told another owner."""
        ...


K = TypeVar("K", bound=Key)


class WorkQueue(Generic[K]):
    """Keys that wait for work. Starts paused: `get` hands out nothing until `resume`.

    `clock` gives seconds that only go forward; `jitter` a number in [0, 1). `owner_of` says whose turn a key takes, the namespace's that
    it names without it, and `per_namespace` how many keys of one owner may be in work at once. An owner is asked for when a key becomes
    ready, and stays until the key is done or forgotten, whatever is said of it meanwhile.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        per_namespace: int,
        jitter: Callable[[], float] = random.random,
        owner_of: Callable[[K], str] = lambda key: key.namespace,
    ) -> None:
        self._clock = clock
        self._jitter = jitter
        self._per_namespace = per_namespace
        self._owner_of = owner_of
        self._owners: dict[K, str] = {}  # of what is ready or in work
        self._ready: OrderedDict[str, OrderedDict[K, float]] = OrderedDict()  # owner → key → since; both first in, first out
        self._delayed: list[tuple[float, int, K]] = []
        self._due: dict[K, float] = {}  # of the delayed ones, the entry that counts
        self._in_work: dict[K, bool] = {}  # key → added again meanwhile
        self._busy: dict[str, int] = {}
        self._attempts: dict[K, int] = {}
        self._sequence = 0
        self._running = False
        self._changed = asyncio.Event()
        self._turn = asyncio.Lock()

    def __len__(self) -> int:
        """Keys that wait, the delayed ones included."""
        return sum(len(keys) for keys in self._ready.values()) + len(self._due)

    def waiting(self) -> Iterator[tuple[K, float]]:
        """Every key that waits, with the seconds since it was ready for work; 0 for a delayed one."""
        now = self._clock()
        for keys in self._ready.values():
            yield from ((key, now - since) for key, since in keys.items())
        yield from ((key, 0.0) for key in self._due)

    def pressed(self) -> bool:
        """Whether it hands out keys and more are ready than workers have taken."""
        return self._running and bool(self._ready)

    def pause(self) -> None:
        """Hand out nothing; what is in work goes on."""
        self._running = False

    def resume(self) -> None:
        """Hand out keys."""
        self._running = True
        self._changed.set()

    def add(self, key: K) -> None:
        """Have the key worked on as soon as its turn comes; a delay that it was in ends."""
        self._due.pop(key, None)
        if key in self._in_work:
            self._in_work[key] = True
            return
        owner = self._owners.setdefault(key, self._owner_of(key))
        self._ready.setdefault(owner, OrderedDict()).setdefault(key, self._clock())
        self._changed.set()

    def add_after(self, key: K, seconds: float) -> None:
        """Have the key worked on after a delay, unless it is ready already."""
        if seconds <= 0:
            return self.add(key)
        due = self._clock() + seconds
        if self._is_ready(key) or self._due.get(key, float("inf")) <= due:
            return None
        self._due[key] = due
        self._sequence += 1
        heapq.heappush(self._delayed, (due, self._sequence, key))
        self._changed.set()
        return None

    def retry(self, key: K, *, at_least: float = 0.0) -> None:
        """Have the key worked on after its backoff: doubling from half a second to a minute, with a jitter of a half."""
        attempt = self._attempts.get(key, 0)
        self._attempts[key] = attempt + 1
        backoff = min(FIRST_BACKOFF_SECONDS * 2.0 ** min(attempt, 16), MAX_BACKOFF_SECONDS)
        self.add_after(key, max(backoff * (0.5 + self._jitter() / 2), at_least))

    def forget(self, key: K) -> None:
        """Drop the key wherever it waits, with its count of attempts: it is finished or gone."""
        self.succeeded(key)
        self._due.pop(key, None)
        if len(self._delayed) > 2 * len(self._due) + MIN_COMPACTED:  # a long delay would hold what was forgotten
            self._delayed = [entry for entry in self._delayed if self._due.get(entry[2]) == entry[0]]
            heapq.heapify(self._delayed)
        if key in self._in_work:
            self._in_work[key] = False
        elif self._is_ready(key):
            owner = self._owners.pop(key)
            del self._ready[owner][key]
            if not self._ready[owner]:
                del self._ready[owner]

    def succeeded(self, key: K) -> None:
        """The next retry begins with the shortest backoff again."""
        self._attempts.pop(key, None)

    async def get(self) -> K:
        """The next key; it is in work until `done`."""
        async with self._turn:  # one idle worker waits for a change, the others for their turn: a key wakes one of them, not all
            while (key := self._take()) is None:
                self._changed.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._until_due()):
                        await self._changed.wait()
            return key

    def done(self, key: K) -> None:
        """The key is no longer in work; it is taken again if it was added meanwhile."""
        again, owner = self._in_work.pop(key), self._owners.pop(key)
        self._busy[owner] -= 1
        if not self._busy[owner]:
            del self._busy[owner]
        if again:
            self.add(key)
        self._changed.set()

    async def idle(self) -> None:
        """Return once nothing is in work."""
        while self._in_work:
            self._changed.clear()
            await self._changed.wait()

    def _take(self) -> K | None:
        if not self._running:
            return None
        self._ripen()
        for owner, keys in self._ready.items():
            if self._busy.get(owner, 0) >= self._per_namespace:
                continue
            key, _ = keys.popitem(last=False)
            if keys:
                self._ready.move_to_end(owner)  # its next key comes after every other owner's
            else:
                del self._ready[owner]
            self._in_work[key] = False
            self._busy[owner] = self._busy.get(owner, 0) + 1
            return key
        return None

    def _is_ready(self, key: K) -> bool:
        return key in self._owners and key not in self._in_work

    def _ripen(self) -> None:
        now = self._clock()
        while self._delayed and self._delayed[0][0] <= now:
            due, _, key = heapq.heappop(self._delayed)
            if self._due.get(key) == due:
                self.add(key)

    def _until_due(self) -> float | None:
        if not self._running or not self._delayed:
            return None
        return max(0.0, self._delayed[0][0] - self._clock())
