"""One collection of the Kubernetes API, kept in memory: list, watch, and begin anew for as long as it takes."""

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Protocol

import structlog

from estserver.kubernetes_api import ApiError, Listed, Object

FIRST_BACKOFF_SECONDS = 0.5
LONGEST_BACKOFF_SECONDS = 10.0  # an API server that was away is heard within 30 s, a read and a few requests included
FORBIDDEN_BACKOFF_SECONDS = 5.0
SHORT_WATCH_SECONDS = 1.0  # a watch that ends sooner than this counts as a failure, or a broken proxy would make us spin

_RANDOM = random.SystemRandom()

log = structlog.get_logger(__name__)


class Lister(Protocol):
    """What a reflector needs of KubernetesApi; a test gives it scripted answers."""

    async def list(self, path: str, *, field_selector: str = "") -> Listed:
        """As KubernetesApi.list."""

    def watch(self, path: str, resource_version: str, *, field_selector: str = "") -> AsyncGenerator[tuple[str, Object], None]:
        """As KubernetesApi.watch."""


class Reflector:
    """Keeps `objects` (by namespace and name) equal to a collection of the API.

    `changed` is called after each change, also after the first list and when `problem` changes; `problem` is the error of the last
    attempt while the collection cannot be read, None while it can. Where it was read before, the first 403 is none yet: an API server
    that is starting forbids what it will permit. `keep` is what is kept of an object.
    """

    def __init__(
        self,
        api: Lister,
        path: str,
        *,
        field_selector: str = "",
        changed: Callable[[], None],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = _RANDOM.random,
        keep: Callable[[Object], Object] = lambda item: item,
    ) -> None:
        self.objects: dict[tuple[str, str], Object] = {}
        self.problem: ApiError | None = None
        self.synced = False
        self.heard_at: float | None = None  # loop time of the API's last word, bookmarks included
        self._api = api
        self._path = path
        self._field_selector = field_selector
        self._changed = changed
        self._sleep = sleep
        self._jitter = jitter
        self._keep = keep
        self._backoff = FIRST_BACKOFF_SECONDS
        self._refused = False

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                listed = await self._api.list(self._path, field_selector=self._field_selector)
                self._replace(listed)
                await self._follow(listed.resource_version)
            except ApiError as error:
                await self._failed(error)
            except (LookupError, TypeError, AttributeError) as error:
                await self._failed(ApiError(f"{self._path}: not an object of the Kubernetes API ({error!r})"))

    async def _follow(self, resource_version: str) -> None:
        """Watch from `resource_version`, again and again, until an ApiError says that the list must be read anew."""
        loop = asyncio.get_running_loop()
        while True:
            begun = loop.time()
            events = self._api.watch(self._path, resource_version, field_selector=self._field_selector)
            try:
                async for kind, item in events:
                    resource_version = item["metadata"]["resourceVersion"]
                    self.heard_at = loop.time()
                    self._backoff = FIRST_BACKOFF_SECONDS
                    self._apply(kind, item)
            finally:
                await events.aclose()
            self.heard_at = loop.time()
            if loop.time() - begun < SHORT_WATCH_SECONDS:
                await self._pause(self._next_backoff())

    def _replace(self, listed: Listed) -> None:
        self.heard_at = asyncio.get_running_loop().time()
        objects = {_key(item): self._keep(item) for item in listed.items}
        news = objects != self.objects or not self.synced or self.problem is not None
        self.objects, self.problem, self.synced = objects, None, True
        self._refused = False
        if news:
            self._changed()

    def _apply(self, kind: str, item: Object) -> None:
        if kind in {"ADDED", "MODIFIED"}:
            self.objects[_key(item)] = self._keep(item)
        elif kind == "DELETED":
            self.objects.pop(_key(item), None)
        else:  # BOOKMARK: only the resource version is new
            return
        self._changed()

    async def _failed(self, error: ApiError) -> None:
        if error.gone:  # etcd was compacted past our version: nothing is wrong, the list is read anew
            await self._pause(self._next_backoff())
            return
        refused, self._refused = self._refused, error.forbidden
        if self.problem is None or self.problem.status != error.status:
            log.warning("cannot watch", path=self._path, selector=self._field_selector, error=str(error))
            if refused or not error.forbidden or not self.synced:
                self.problem = error
                self._changed()
        seconds = FORBIDDEN_BACKOFF_SECONDS if error.forbidden or error.not_found else self._next_backoff()
        await self._pause(max(seconds, error.retry_after_seconds))

    def _next_backoff(self) -> float:
        seconds, self._backoff = self._backoff, min(2 * self._backoff, LONGEST_BACKOFF_SECONDS)
        return seconds

    async def _pause(self, seconds: float) -> None:
        """Half to all of `seconds`, so that the replicas do not come back in one wave."""
        await self._sleep(seconds * (0.5 + self._jitter() / 2))


def _key(item: Object) -> tuple[str, str]:
    metadata = item["metadata"]
    return metadata.get("namespace", ""), metadata["name"]
