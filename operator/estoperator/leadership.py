"""One leader among the replicas, by a coordination.k8s.io Lease of our own making.

As in client-go, nobody compares clocks of two machines: another's Lease has run out once it has not changed for its duration by
our own monotonic clock. A leader that cannot renew in time stops handing out work before another may begin. Safety does not hang on
it: two leaders at once would still get one certificate per request (see issuing).

The Lease is the heartbeat too: it is written or read over one connection and watched over another, and a watch that no longer
brings what was written is silent.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

import structlog

from estoperator.kubernetes_errors import Gone, KubernetesError, Stale
from estoperator.open_requests import is_older

log = structlog.get_logger(__name__)

LEASE_SECONDS = 10.0
RENEW_DEADLINE_SECONDS = 6.0
RETRY_SECONDS = 2.0
WATCH_SECONDS = 300


class LeaseApi(Protocol):
    """What this module needs of Kubernetes; raises kubernetes_errors."""

    async def call(
        self, method: str, path: str, *, query: list[tuple[str, str]] | None = None, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """One JSON request."""
        ...

    def watch(self, path: str, *, field_selector: str, resource_version: str, seconds: int) -> AsyncGenerator[dict[str, Any], None]:
        """Watch events of one collection."""
        ...


class Heartbeat:
    """Whether the watch still brings what is written: changes of the Lease, known by writing or reading it, against watch events."""

    def __init__(self) -> None:
        self._watched_version = "0"
        self._unseen_since: float | None = None

    def known(self, version: str, clock: float) -> None:
        """The Lease has this version."""
        if self._unseen_since is None and is_older(self._watched_version, version):
            self._unseen_since = clock

    def watched(self, version: str) -> None:
        """The watch brought this version."""
        self._watched_version, self._unseen_since = version, None

    def unknown(self) -> None:
        """The API server does not answer: then a watch that brings nothing is no fault of ours, and a restart would not help."""
        self._unseen_since = None

    def silent_seconds(self, clock: float) -> float:
        """For how long the watch has not brought a change that is there."""
        return 0.0 if self._unseen_since is None else clock - self._unseen_since


class Leadership:
    """Takes part in the election. `leading` is set while this replica leads.

    `clock` gives monotonic seconds, `now` the time that is written for people to read.
    """

    def __init__(
        self, api: LeaseApi, *, namespace: str, name: str, identity: str, clock: Callable[[], float], now: Callable[[], datetime]
    ) -> None:
        self._api = api
        self._collection = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._namespace, self._name, self._identity = namespace, name, identity
        self._clock, self._now = clock, now
        self._lease: dict[str, Any] | None = None
        self._seen_at = clock()
        self._renewed_at = clock()
        self.heartbeat = Heartbeat()
        self.leading = asyncio.Event()
        self.lost = asyncio.Event()
        self.lost.set()

    async def run(self) -> None:
        """Acquire, renew and watch until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_for_ever())
            while True:
                await self.round()
                await asyncio.sleep(self.seconds_to_next_round())

    async def round(self) -> None:
        """One attempt to acquire or renew, bounded by the deadline; afterwards `leading` is true to the facts."""
        left = RENEW_DEADLINE_SECONDS - (self._clock() - self._renewed_at) if self.leading.is_set() else RENEW_DEADLINE_SECONDS
        try:
            async with asyncio.timeout(max(left, 0.0)):
                await self._acquire_or_renew()
        except TimeoutError:
            log.warning("lease_timeout", lease=self._name)
            self.heartbeat.unknown()
        except KubernetesError as error:
            log.warning("lease_error", lease=self._name, error=error.message)
            self.heartbeat.unknown()
        if self.leading.is_set() and self._clock() - self._renewed_at >= RENEW_DEADLINE_SECONDS:
            self._lose("not renewed in time")

    def seconds_to_next_round(self) -> float:
        """RETRY_SECONDS, or less where another's Lease runs out sooner: who waits begins then, not at its next look."""
        left = self._seconds_left()
        return left if not self.leading.is_set() and 0.0 < left < RETRY_SECONDS else RETRY_SECONDS

    async def release(self) -> None:
        """Let another begin at once. Errors are logged: the Lease then runs out by itself."""
        if not self.leading.is_set():
            return
        log.info("releasing", identity=self._identity)
        self._end()
        with contextlib.suppress(KubernetesError, TimeoutError):
            async with asyncio.timeout(RETRY_SECONDS):
                try:
                    await self._give_up()
                except Stale:  # a renewal that our end cut off may have been stored all the same
                    await self._look()
                    if self._is_ours():
                        await self._give_up()

    async def _give_up(self) -> None:
        await self._replace(self._spec(holder="", seconds=1))

    async def _acquire_or_renew(self) -> None:
        began = self._clock()  # others count from the write at the earliest, so we count from before it
        if not (self.leading.is_set() and self._lease is not None):
            await self._look()
        if self._lease is None:
            body = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": self._name, "namespace": self._namespace},
                "spec": self._spec(holder=self._identity),
            }
            self._take(await self._api.call("POST", self._collection, body=body))
            return self._lead(began)
        if not self._is_ours() and self._seconds_left() > 0:
            return None
        try:
            await self._replace(self._spec(holder=self._identity))
        except (Stale, Gone):  # somebody else was quicker, or deleted it: look before the next step
            await self._look()
            if not self._is_ours():
                self._lose("another replica took the lease")
            return None
        return self._lead(began)

    async def _look(self) -> None:
        try:
            self._take(await self._api.call("GET", f"{self._collection}/{self._name}"))
        except Gone:
            self._lease = None

    async def _replace(self, spec: Mapping[str, Any]) -> None:
        if self._lease is None:
            return
        body = {**self._lease, "spec": spec}
        self._take(await self._api.call("PUT", f"{self._collection}/{self._name}", body=body))

    def _take(self, lease: dict[str, Any]) -> None:
        """Remember a Lease as written or read, and when it was seen to change."""
        if self._lease is None or lease["metadata"]["resourceVersion"] != self._lease["metadata"]["resourceVersion"]:
            self._seen_at = self._clock()
            self.heartbeat.known(lease["metadata"]["resourceVersion"], self._seen_at)
        self._lease = lease

    def _spec(self, *, holder: str, seconds: int = int(LEASE_SECONDS)) -> dict[str, Any]:
        old = (self._lease or {}).get("spec") or {}
        now = self._now().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        changed = old.get("holderIdentity") != holder
        return {
            "holderIdentity": holder,
            "leaseDurationSeconds": seconds,
            "acquireTime": now if changed or not old.get("acquireTime") else old["acquireTime"],
            "renewTime": now,
            "leaseTransitions": int(old.get("leaseTransitions") or 0) + (1 if changed and holder else 0),
        }

    def _is_ours(self) -> bool:
        return self._lease is not None and (self._lease.get("spec") or {}).get("holderIdentity") == self._identity

    def _seconds_left(self) -> float:
        """For how long the Lease holds yet; 0 where nobody has it."""
        spec = (self._lease or {}).get("spec") or {}
        if not spec.get("holderIdentity"):
            return 0.0
        return float(spec.get("leaseDurationSeconds") or LEASE_SECONDS) - (self._clock() - self._seen_at)

    def _lead(self, renewed_at: float) -> None:
        self._renewed_at = renewed_at
        if not self.leading.is_set():
            log.info("leading", identity=self._identity)
            self.lost.clear()
            self.leading.set()

    def _lose(self, why: str) -> None:
        if self.leading.is_set():
            log.warning("no_longer_leading", identity=self._identity, why=why)
            self._end()

    def _end(self) -> None:
        self.leading.clear()
        self.lost.set()

    async def _watch_for_ever(self) -> None:
        version = "0"
        selector = f"metadata.name={self._name}"
        while True:
            events = self._api.watch(self._collection, field_selector=selector, resource_version=version, seconds=WATCH_SECONDS)
            try:
                async with contextlib.aclosing(events):
                    async for event in events:
                        if event["type"] == "ERROR":  # 410: too old a version to go on from
                            version = "0"
                            break
                        version = event["object"]["metadata"]["resourceVersion"]
                        self.heartbeat.watched(version)
            except KubernetesError as error:
                log.warning("lease_watch", error=error.message)
                version = "0"
            await asyncio.sleep(RETRY_SECONDS)
