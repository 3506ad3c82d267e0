"""What answers EST clients: this very process, or workers that it watches over (workers.py)."""

import asyncio
import gc
import secrets
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol

from estserver.issuers import Issuers
from estserver.limits import Limits
from estserver.logs import LogFormat, renderer, write_to_stdout
from estserver.metrics import Metrics
from estserver.origin import cluster, utc_now
from estserver.serving_certificate import ServingKeys
from estserver.settings import Settings
from estserver.snapshot import Snapshot
from estserver.tls import ServerTls
from estserver.tokens import TokenReviewer


class Front(Protocol):
    """Serves, and is told what changes."""

    def feed(self, snapshot: Snapshot) -> None:
        """What the source sees now."""

    def use(self, keys: ServingKeys) -> None:
        """The server certificate of connections to come."""

    def not_ready(self) -> str:
        """Why there should be no traffic, in one sentence; empty where there may be."""

    async def serve(
        self, issuers: Issuers, keys: ServingKeys, metrics: Metrics, *, shutdown: asyncio.Event, started: Callable[[], None]
    ) -> None:
        """Until `shutdown` and the drain that follows; `started` is called once, when clients may come."""


class InProcess:
    """One process does it all."""

    def __init__(self, settings: Settings, limits: Limits, sockets: list[socket.socket]) -> None:
        self._settings = settings
        self._limits = limits
        self._sockets = sockets
        self._tls: ServerTls | None = None
        self._serving = False

    def feed(self, snapshot: Snapshot) -> None:
        """Nothing: the registry of this process is the one that answers."""

    def use(self, keys: ServingKeys) -> None:
        """Replace the certificate; open connections keep theirs."""
        if self._tls is not None:
            self._tls.replace(keys.chain_pem, keys.key_pem)

    def not_ready(self) -> str:
        """Empty while serving."""
        return "" if self._serving else "not listening yet"

    async def serve(
        self, issuers: Issuers, keys: ServingKeys, metrics: Metrics, *, shutdown: asyncio.Event, started: Callable[[], None]
    ) -> None:
        """As Front.serve."""
        self._tls = ServerTls(keys.chain_pem, keys.key_pem)

        def _started() -> None:
            self._serving = True
            started()

        await serve_est(self._settings, self._limits, self._sockets, issuers, self._tls, metrics, shutdown=shutdown, started=_started)


async def serve_est(
    settings: Settings,
    limits: Limits,
    sockets: list[socket.socket],
    issuers: Issuers,
    tls: ServerTls,
    metrics: Metrics,
    *,
    shutdown: asyncio.Event,
    started: Callable[[], None],
) -> None:
    """The EST application over TLS on `sockets`, with a ledger and an audit chain of this process.

    Raises ConfigurationError where the ledger cannot be opened.
    """
    from estserver.app import build_app
    from estserver.audit import AuditLog
    from estserver.ledger import Ledger
    from estserver.serve import serve

    ledger = await Ledger.open(settings.ledger_url)
    try:
        async with _token_reviewer(settings) as tokens:
            app = build_app(
                issuers=issuers,
                ledger=ledger,
                tokens=tokens,
                settings=settings,
                clock=utc_now,
                metrics=metrics,
                audit=AuditLog(write_to_stdout, renderer(log_format(settings)), chain=secrets.token_hex(8)),
            )
            gc.collect()
            gc.freeze()  # modules and issuers stay: the collector need not walk them again and again between requests
            started()
            await serve(app, sockets=sockets, tls=tls, limits=limits, shutdown=shutdown, drain=settings.drain, observer=metrics)
    finally:
        await ledger.aclose()


@asynccontextmanager
async def _token_reviewer(settings: Settings) -> AsyncIterator[TokenReviewer | None]:
    if not settings.kubernetes:
        yield None
        return
    from estserver.kubernetes_api import KubernetesApi
    from estserver.token_review import KubernetesTokenReviewer

    async with KubernetesApi(cluster(settings)) as api:
        yield KubernetesTokenReviewer(api)


def log_format(settings: Settings) -> LogFormat:
    """What was asked for; else key=value where a person looks on, JSON where a collector does."""
    return settings.log_format or ("keyvalue" if sys.stdout.isatty() else "json")
