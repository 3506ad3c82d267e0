"""A queue of keys: deduplicated, fair between namespaces, with backoff. One event loop; the clock is injected.

Like client-go's workqueue, a key is in work at most once: added meanwhile it is taken again afterwards. Namespaces are served
in turn, and one may hold at most a share of the workers, so that 5,000 requests in one do not keep another's waiting.
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
        """Whose turn it takes."""
        ...


K = TypeVar("K", bound=Key)


class WorkQueue(Generic[K]):
    """Keys that wait for work. Starts paused: `get` hands out nothing until `resume`.

    `clock` gives seconds that only go forward; `jitter` a number in [0, 1). `per_namespace` is how many keys of one namespace may be
    in work at once.
    """

    def __init__(self, *, clock: Callable[[], float], per_namespace: int, jitter: Callable[[], float] = random.random) -> None:
        self._clock = clock
        self._jitter = jitter
        self._per_namespace = per_namespace
        self._ready: OrderedDict[str, OrderedDict[K, float]] = OrderedDict()  # namespace → key → since; both first in, first out
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
        self._ready.setdefault(key.namespace, OrderedDict()).setdefault(key, self._clock())
        self._changed.set()

    def add_after(self, key: K, seconds: float) -> None:
        """Have the key worked on after a delay, unless it is ready already."""
        if seconds <= 0:
            return self.add(key)
        due = self._clock() + seconds
        if key in self._ready.get(key.namespace, ()) or self._due.get(key, float("inf")) <= due:
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
        keys = self._ready.get(key.namespace)
        if keys is not None and keys.pop(key, None) is not None and not keys:
            del self._ready[key.namespace]

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
        again = self._in_work.pop(key)
        self._busy[key.namespace] -= 1
        if not self._busy[key.namespace]:
            del self._busy[key.namespace]
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
        for namespace, keys in self._ready.items():
            if self._busy.get(namespace, 0) >= self._per_namespace:
                continue
            key, _ = keys.popitem(last=False)
            if keys:
                self._ready.move_to_end(namespace)  # its next key comes after every other namespace's
            else:
                del self._ready[namespace]
            self._in_work[key] = False
            self._busy[namespace] = self._busy.get(namespace, 0) + 1
            return key
        return None

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
