"""The program `estserver serve`: source, registry, certificate, front and health, put together.

Order of the start: sockets, manifests, health, certificate, registry, ledger, and only then "listening". Order of the end: readiness off,
no new connections, running requests answered, everything else.
"""

import asyncio
import os
import resource
import signal
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import structlog

from estcore.errors import ConfigurationError
from estserver import health, health_server
from estserver.front import Front, InProcess
from estserver.issuers import Issuers
from estserver.limits import Limits
from estserver.listening import BACKLOG, bind, public_url, url
from estserver.metrics import Metrics
from estserver.origin import Origin, install_namespace, open_origin, utc_now
from estserver.registry_keeper import RegistryKeeper
from estserver.serving_certificate import ServingKeys
from estserver.serving_keeper import ServingKeeper
from estserver.settings import Settings
from estserver.snapshot import Snapshot
from estserver.workers import Workers

RELEASED = datetime(2026, 11, 1, tzinfo=UTC)
"""This version was made after that: a clock before it is wrong, and would date certificates wrongly (threats row 30)."""
RETRY_SECONDS = 2.0

T = TypeVar("T")

log = structlog.get_logger("estserver")


class Shutdown:
    """What a signal begins: first readiness goes off, after `delay` seconds no new connection is taken. A second signal skips the wait."""

    def __init__(self, delay: float) -> None:
        self.requested = asyncio.Event()
        self.now = asyncio.Event()
        self._delay = delay

    def install(self) -> None:
        """Listen to SIGTERM and SIGINT."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.request)

    def request(self) -> None:
        """Begin, or go on at once."""
        if self.requested.is_set() or not self._delay:
            self.now.set()
        else:
            asyncio.get_running_loop().call_later(self._delay, self.now.set)
        if not self.requested.is_set():
            log.info("shutting down")
        self.requested.set()


async def run(settings: Settings, limits: Limits, options: Mapping[str, Any]) -> None:
    """Serve until a signal; `options` are those of the command line, from which a worker makes the same settings.

    Raises ConfigurationError for whatever a person must mend before it can start.
    """
    prepare_process()
    check_clock(utc_now())
    shutdown = Shutdown(settings.drain_delay.total_seconds())
    shutdown.install()
    sockets = [bind(address) for address in settings.listen]
    settings = settings.model_copy(update={"public_url": public_url(settings, sockets)})
    if settings.config is not None and not settings.config.is_dir():
        raise ConfigurationError("no such directory", where=f"--config {settings.config}")
    make_private_directory(settings.state_directory)
    async with open_origin(settings) as origin:
        front: Front = Workers(settings, options, sockets) if settings.workers > 1 else InProcess(settings, limits, sockets)
        await _Server(settings, sockets, shutdown, origin, front).run()


class _Server:
    """The parts of one run, and the order in which they start and end."""

    def __init__(self, settings: Settings, sockets: list[socket.socket], shutdown: Shutdown, origin: Origin, front: Front) -> None:
        self._settings = settings
        self._sockets = sockets
        self._shutdown = shutdown
        self._origin = origin
        self._issuers = Issuers()
        self._registry = RegistryKeeper(
            self._issuers,
            settings.registry(install_namespace=install_namespace(settings)),
            clock=utc_now,
            public_url=settings.public_url or "",
        )
        self._metrics = Metrics(ca_expiries=self._registry.ca_expiries, issuer_states=self._registry.states)
        self._front = front

    async def run(self) -> None:
        async with _health(self._settings, self._not_ready, self._metrics.render), asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(self._origin.watch(self._feed, self._metrics)), tasks.create_task(self._registry.run())]
            try:
                certificate = self._origin.certificate
                certificate.keys = await self._or_shutdown(_first_certificate(certificate))
                await self._or_shutdown(self._registry.judged.wait())
                running.append(tasks.create_task(certificate.keep(self._front.use)))
                running.append(tasks.create_task(self._keep_approvals()))
                asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, certificate.nudged.set)
                await self._front.serve(self._issuers, certificate.keys, self._metrics, shutdown=self._shutdown.now, started=self._announce)
            except _ShutdownEarly:
                pass
            finally:
                for task in running:
                    task.cancel()
        log.info("shut down")

    async def _keep_approvals(self) -> None:
        """Where workers serve, this process has no use for a ledger (20 MB) until an issuer wants approval."""
        while self._settings.workers > 1 and not self._registry.any_manual():  # noqa: ASYNC110 - the registry tells nobody
            await asyncio.sleep(RETRY_SECONDS)
        from estserver.approval_keeper import keep

        await keep(self._settings, self._metrics)

    def _feed(self, snapshot: Snapshot) -> None:
        self._front.feed(snapshot)
        self._registry.feed(snapshot)

    def _not_ready(self) -> str:
        if self._shutdown.requested.is_set():
            return "shutting down"
        if not self._registry.judged.is_set():
            return "the issuers were not read yet"
        return self._front.not_ready()

    def _announce(self) -> None:
        for sock in self._sockets:
            sock.listen(BACKLOG)
        log.info(
            "listening",
            addresses=[url(sock) for sock in self._sockets],
            trust_root=self._origin.certificate.published or "given by whoever gave the certificate",
            workers=self._settings.workers,
        )

    async def _or_shutdown(self, awaited: Coroutine[Any, Any, T]) -> T:
        """The result, unless a signal comes first."""
        task, ending = asyncio.ensure_future(awaited), asyncio.ensure_future(self._shutdown.requested.wait())
        try:
            await asyncio.wait((task, ending), return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise _ShutdownEarly
            return task.result()
        finally:
            for one in (task, ending):
                one.cancel()


class _ShutdownEarly(Exception):
    """A signal came before anything was served."""


async def _first_certificate(keeper: ServingKeeper) -> ServingKeys:
    """The certificate to begin with; waits for an API server that is away, and for a given Secret that is not there yet."""
    while True:
        try:
            return await keeper.refresh()
        except ConfigurationError as error:
            if not keeper.waits:
                raise
            log.warning("no server certificate yet", error=str(error))
        except Exception as error:  # noqa: BLE001 - ApiError, whose module a server without cluster never loads
            log.warning("no server certificate yet", error=str(error))
        await asyncio.sleep(RETRY_SECONDS)


@asynccontextmanager
async def _health(settings: Settings, not_ready: Callable[[], str], metrics: Callable[[], tuple[bytes, str]]) -> AsyncIterator[None]:
    if not settings.metrics_listen:
        yield
        return
    sock = bind(settings.metrics_listen, option="--metrics-listen")
    server = await health_server.start(health.build_health(not_ready=not_ready, metrics=metrics), sock)
    try:
        yield
    finally:
        server.close()


def prepare_process() -> None:
    """No core dumps, for keys are in memory (threats row 18); what we write, SQLite's files too, is nobody else's to read."""
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def check_clock(now: datetime) -> None:
    """Raise ConfigurationError for a clock that cannot be right."""
    if now < RELEASED:
        raise ConfigurationError(f"the clock says {now.isoformat()}, which is before this version was made; set the clock")


def make_private_directory(directory: Path) -> None:
    """Make it (0700) where it is absent; raises ConfigurationError where that cannot be, or nothing can be written there."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"cannot be made: {error.strerror}", where=f"--state {directory}") from error
    if not os.access(directory, os.W_OK | os.X_OK):
        raise ConfigurationError("cannot be written", where=f"--state {directory}")
