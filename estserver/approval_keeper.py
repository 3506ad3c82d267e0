"""Watches over the requests that wait: expires them, tells the audit log and the metrics, and in a cluster shows them to people.

It deletes those that ended long ago, too. One task of the process that watches, whatever serves. What it does with a row is decided by
the row, so replicas may all do it.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Final, Protocol

import structlog

from estcore.errors import ConfigurationError, EstError
from estserver.approval import Approvals
from estserver.audit import AuditLog
from estserver.background import beside, until
from estserver.front import log_format
from estserver.held_requests import HeldRequest, HeldRequests, State
from estserver.ledger import Ledger
from estserver.logs import renderer, write_to_stdout
from estserver.metrics import Metrics
from estserver.origin import cluster, install_namespace, utc_now
from estserver.settings import Settings

LOOK_SECONDS: Final = 2.0
"""How soon a request that came is seen by people, and a decision of the command by the audit log."""
FORGET_EVERY: Final = timedelta(minutes=10)
LEDGER_SECONDS: Final = 15.0
"""How long to wait for a ledger that cannot be opened, before the next try."""

log = structlog.get_logger("estserver")


class Board(Protocol):
    """Where people see what waits, and decide."""

    async def show(self, waiting: Sequence[HeldRequest], *, now: datetime) -> None:
        """Show these and no others, and take note of what people decided."""


class ApprovalKeeper:
    """`run` looks every LOOK_SECONDS, and at once when `nudged` is set. `retention` of requests after they ended; zero is for ever."""

    def __init__(
        self,
        approvals: Approvals,
        metrics: Metrics,
        *,
        clock: Callable[[], datetime],
        retention: timedelta,
        board: Board | None = None,
    ) -> None:
        self.nudged = asyncio.Event()
        self._approvals = approvals
        self._metrics = metrics
        self._clock = clock
        self._retention = retention
        self._forgot_at: datetime | None = None
        self.board = board
        self._trouble = ""

    async def run(self) -> None:
        """Until cancelled. A ledger that does not answer is tried again."""
        while True:
            self.nudged.clear()
            try:
                await self.look()
                self._trouble = ""
            except EstError as error:
                if error.reason != self._trouble:
                    self._trouble = error.reason
                    log.warning("requests that wait cannot be looked at", reason=error.reason, cause=str(error.__cause__))
            except Exception:  # a fault of ours here must not end a server that enrols
                log.exception("requests that wait cannot be looked at")
            await until(self.nudged, seconds=LOOK_SECONDS)

    async def look(self) -> None:
        """Once. Raises LedgerUnavailable."""
        held, now = self._approvals.held, self._clock()
        waiting = await held.listed(State.WAITING)
        if self.board is not None:
            await self.board.show([request for request in waiting if now < request.expires_at], now=now)
        for request in await held.news(now=now):
            self._approvals.tell(request, now=now)
        self._count(waiting, now)
        if self._retention and (self._forgot_at is None or now - self._forgot_at >= FORGET_EVERY):
            await self._forget(now)
            self._forgot_at = now

    async def _forget(self, now: datetime) -> None:
        forgotten = 0
        while some := await self._approvals.held.forget(ended_before=now - self._retention):
            forgotten += some
        if forgotten:
            log.info("requests that ended long ago were deleted", count=forgotten)

    def _count(self, waiting: Sequence[HeldRequest], now: datetime) -> None:
        counts: dict[str, tuple[int, float]] = {}
        for request in waiting:
            count, oldest = counts.get(request.issuer, (0, 0.0))
            counts[request.issuer] = (count + 1, max(oldest, (now - request.created_at).total_seconds()))
        self._metrics.waiting(counts)


async def keep(settings: Settings, metrics: Metrics) -> None:
    """Keep the requests of the ledger that `settings` name, until cancelled."""
    ledger = await _ledger(settings)
    try:
        audit = AuditLog(write_to_stdout, renderer(log_format(settings)), chain=secrets.token_hex(8))
        approvals = Approvals(held=HeldRequests(ledger), audit=audit, metrics=metrics, retry_window=settings.retry_window)
        keeper = ApprovalKeeper(approvals, metrics, clock=utc_now, retention=settings.approval_retention)
        async with _board(settings, keeper, approvals.held) as board:
            keeper.board = board
            await keeper.run()
    finally:
        await ledger.aclose()


async def _ledger(settings: Settings) -> Ledger:
    """Those who serve say loudly that they cannot open it; here it is only waited for."""
    while True:
        try:
            return await Ledger.open(settings.ledger_url)
        except ConfigurationError as error:
            log.warning("requests that wait cannot be looked at", reason=error.reason, cause=error.message)
            await asyncio.sleep(LEDGER_SECONDS)


@asynccontextmanager
async def _board(settings: Settings, keeper: ApprovalKeeper, held: HeldRequests) -> AsyncIterator[Board | None]:
    if not (settings.kubernetes and settings.approval_objects):
        yield None
        return
    from estserver.approval_objects import ApprovalObjects
    from estserver.kubernetes_api import KubernetesApi

    async with KubernetesApi(cluster(settings)) as api:
        objects = ApprovalObjects(api, held, namespace=install_namespace(settings), changed=keeper.nudged.set)
        async with beside(objects.watch()):
            yield objects
