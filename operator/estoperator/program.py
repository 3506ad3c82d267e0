"""The operator's own tasks beside kopf: the queues' workers, the poll of the issuers, leadership and the re-list."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import structlog

from estoperator.events import Events
from estoperator.issuers import Issuers
from estoperator.issuing import Issuing
from estoperator.kubernetes_errors import KubernetesError
from estoperator.leadership import Leadership
from estoperator.metrics import Metrics
from estoperator.namespaces import Namespaces
from estoperator.open_requests import OpenRequests
from estoperator.resources import IssuerRef, RequestKey
from estoperator.retention import Retention
from estoperator.workqueue import Key, WorkQueue

log = structlog.get_logger(__name__)

ISSUER_WORKERS = 2
REMOVAL_WORKERS = 2
DRAIN_SECONDS = 5.0
"""How long work in hand may take to end at shutdown; what is cut is done again by the next leader."""

K = TypeVar("K", bound=Key)


def request_queue(open_requests: OpenRequests, *, workers: int, clock: Callable[[], float]) -> WorkQueue[RequestKey]:
    """The queue of the requests: one tenant may not hold every worker, or a slow one would keep all others waiting."""
    return WorkQueue(clock=clock, per_namespace=max(1, workers * 3 // 4), owner_of=open_requests.owner_of)


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What runs while the process does. Only the workers and the poll wait for leadership; indices are warm everywhere."""

    issuing: Issuing
    issuers: Issuers
    namespaces: Namespaces
    requests: WorkQueue[RequestKey]
    issuer_queue: WorkQueue[IssuerRef]
    leadership: Leadership
    retention: Retention
    metrics: Metrics
    events: Events
    workers: int
    poll_interval: float

    async def run(self) -> None:
        """Until cancelled; then what is in hand may end."""
        workers = [
            *(asyncio.create_task(self._work(self.requests, self.issuing.work, "request")) for _ in range(self.workers)),
            *(asyncio.create_task(self._work(self.issuer_queue, self.issuers.work, "issuer")) for _ in range(ISSUER_WORKERS)),
            *(asyncio.create_task(self._work(self.retention.queue, self.retention.work, "removal")) for _ in range(REMOVAL_WORKERS)),
        ]
        posting = asyncio.create_task(self.events.run())
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.leadership.run())
                group.create_task(self._lead())
        finally:
            self._pause()
            await self._drain()
            for task in (*workers, posting):
                task.cancel()
            await asyncio.gather(*workers, posting, return_exceptions=True)
            await self.leadership.release()

    async def _lead(self) -> None:
        """While leading: keep the issuers fresh, and hand out work once they are known."""
        while True:
            await self.leadership.leading.wait()
            self.metrics.leader.set(1)
            self.issuers.start_over()
            while self.leadership.leading.is_set():
                await self._poll()
                if self.issuers.known and self.leadership.leading.is_set():
                    self.requests.resume()
                    self.issuer_queue.resume()
                    self.retention.queue.resume()
                await self._until_lost(self.poll_interval)
            self._pause()
            self.metrics.leader.set(0)

    async def _poll(self) -> None:
        """Ask estserver, but only while this replica leads: one that hangs must not keep the queues of a former leader open."""
        polling, lost = asyncio.create_task(self.issuers.poll()), asyncio.create_task(self.leadership.lost.wait())
        try:
            await asyncio.wait([polling, lost], return_when=asyncio.FIRST_COMPLETED)
            if polling.done():
                polling.result()  # a fault of ours ends the process, as it would without the task
        finally:
            polling.cancel()
            lost.cancel()
            await asyncio.gather(polling, lost, return_exceptions=True)

    def _pause(self) -> None:
        self.requests.pause()
        self.issuer_queue.pause()
        self.retention.queue.pause()

    async def _until_lost(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self.leadership.lost.wait()
        except TimeoutError:
            return

    async def _drain(self) -> None:
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                await self.requests.idle()
                await self.issuer_queue.idle()
                await self.retention.queue.idle()
                await self.events.posted()
        except TimeoutError:
            log.warning("drain_cut")

    async def _work(self, queue: WorkQueue[K], work: Callable[[K], Awaitable[None]], kind: str) -> None:
        """Take keys and work on them, for ever: no object, however odd, may end a worker."""
        while True:
            key = await queue.get()
            try:
                await work(key)
            except KubernetesError as error:
                self.metrics.errors.labels(kind, error.reason).inc()
                log.warning("kubernetes_error", work=kind, key=str(key), error=error.message, http_status=error.http_status)
                queue.retry(key)
            except Exception:
                self.metrics.errors.labels(kind, "Internal").inc()
                log.exception("internal_error", work=kind, key=str(key))
                queue.retry(key)
            finally:
                queue.done(key)
