"""Runs kopf, and sees its end: kopf itself may not."""

import asyncio
from itertools import repeat
from typing import Any

import kopf
import structlog

from estoperator.relist import MustRestart

log = structlog.get_logger(__name__)

ERROR_BACKOFFS = (1, 1, 2, 3, *repeat(5, 180))
"""kopf's, in seconds: it ends over an error in place of the API server (a load balancer's 503) that lasts longer than these, and over a
right that is gone, where the re-list has not ended the process before. A quarter of an hour, for a process that ends sooner again and again
is kept waiting by the kubelet."""

WATCH_SECONDS = 600
WORKER_IDLE_SECONDS = 1.0
"""How long kopf keeps a task for an object that had an event; 5 s is its default, and a task for each of thousands."""

REQUEST_SECONDS = 30
END_SECONDS = 10.0
"""How long kopf may take to end."""


class WatchFailed(MustRestart):
    """A part of kopf ended with an error that it does not live with."""


async def watch(registry: kopf.OperatorRegistry, *, identity: str, ready: asyncio.Event, stop: asyncio.Event) -> None:
    """Run kopf until `stop` is set; `ready` is set once it watches. Raises WatchFailed.

    Where one part has ended kopf cancels the others and waits for them, without end for one that waits for credentials, which nobody
    fetches then (seen after a kind was served in the watched version no more). It is given END_SECONDS.
    """
    kopf.on.login(registry=registry)(_login)
    others = asyncio.all_tasks()
    parts = await kopf.spawn_tasks(
        registry=registry,
        settings=_settings(),
        # Its own guess asks for the user's name, which a numeric user of a container does not have.
        identity=identity,  # type: ignore[arg-type]  # a NewType of str that kopf does not export
        clusterwide=True,
        standalone=True,
        ready_flag=ready,
        stop_flag=stop,
    )
    running = asyncio.create_task(kopf.run_tasks(parts, ignored=others))
    try:
        await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait([running], timeout=END_SECONDS)
    finally:
        running.cancel()
    if not running.done():
        log.warning("kopf_hangs", seconds=END_SECONDS)
    for part in parts:
        if part.done() and not part.cancelled() and (error := part.exception()) is not None:
            raise WatchFailed(f"kopf failed, and all watches with it: {error}; restarting") from error


def _settings() -> kopf.OperatorSettings:
    configured = kopf.OperatorSettings()
    configured.networking.error_backoffs = ERROR_BACKOFFS
    configured.networking.request_timeout = REQUEST_SECONDS
    configured.watching.server_timeout = WATCH_SECONDS
    configured.queueing.idle_timeout = WORKER_IDLE_SECONDS
    configured.posting.enabled = False
    configured.persistence.diffbase_storage = _NoDiffs()
    return configured


class _NoDiffs(kopf.DiffBaseStorage):
    """kopf works out at each event what changed since its last handling. Our handlers ask for no difference and keep none."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, **_: Any) -> kopf.BodyEssence | None:
        return None

    def store(self, **_: Any) -> None:
        raise NotImplementedError("nothing may be written on an object")


def _login(**kwargs: Any) -> kopf.ConnectionInfo | None:
    """By the pod's ServiceAccount, else by KUBECONFIG; kopf's default would load the whole synchronous client."""
    return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)
