"""What ends in a gap of a watch: kopf, run as the operator runs it, lists anew and tells of no end."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import kopf
import pytest

from estoperator import handlers, relist
from estoperator.__main__ import indexed_kinds
from estoperator.cluster import Cluster
from estoperator.doors import EST_ISSUER
from estoperator.issuers import Issuers
from estoperator.metrics import Metrics
from estoperator.namespaces import Namespaces
from estoperator.open_requests import OpenRequests
from estoperator.registrations import Registrations
from estoperator.relist import WatchMissed
from estoperator.resources import IssuerRef, RequestKey
from estoperator.retention import Retention
from estoperator.watching import watch
from estoperator.workqueue import WorkQueue
from tests.estoperator.builders import FACTORY, POLICY, body
from tests.estoperator.test_issuer_state import entry
from tests.estoperator.test_issuers import Api, Registrar, Source
from tests.estoperator.test_issuing import Told
from tests.estoperator.watched_server import ISSUERS, NAMESPACES, REQUESTS, WatchedServer

OLD = IssuerRef("EstIssuer", "devices", "old")


def issuer(name: str, uid: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "devices", "uid": uid, "generation": 1, "resourceVersion": "9"}
    spec = {"ca": {"secretName": "factory-ca"}, "policy": POLICY}
    return {"apiVersion": "est-issuer.io/v1alpha1", "kind": "EstIssuer", "metadata": metadata, "spec": spec}


def namespace(uid: str, labels: dict[str, str]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "uid": uid, "resourceVersion": "9", "labels": labels}}


@dataclass
class World:
    server: WatchedServer
    cluster: Cluster
    issuers: Issuers
    source: Source
    namespaces: Namespaces
    seen: OpenRequests

    async def after_a_gap(self, objects: dict[str, list[dict[str, Any]]]) -> None:
        self.server.gap(objects)
        await until(lambda: {ISSUERS, NAMESPACES, REQUESTS} <= self.server.watched)

    async def re_list(self) -> None:
        """One turn without waiting; raises what ends the process."""
        turns = iter(range(1))

        async def sleep(seconds: float) -> None:
            if seconds != relist.GRACE_SECONDS and next(turns, None) is None:
                raise asyncio.CancelledError

        kinds = indexed_kinds(self.issuers, self.namespaces)
        with pytest.raises(asyncio.CancelledError):
            await relist.watch_for_misses(self.cluster, self.seen, [EST_ISSUER], indexed=kinds, metrics=Metrics(), sleep=sleep, interval=1)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.01)


@pytest.fixture
def kubeconfig(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    path = tmp_path / "kubeconfig"
    monkeypatch.setenv("KUBECONFIG", str(path))
    return path


@asynccontextmanager
async def watching(kubeconfig: Path) -> AsyncIterator[World]:
    """No fixture, for kopf ends what began after it, such as the task that ends fixtures."""
    server = WatchedServer()
    runner = await server.start(kubeconfig)
    cluster = await Cluster.connect(max_connections=2, kubeconfig=kubeconfig)
    seen, source, namespaces = OpenRequests(), Source(), Namespaces()
    requests: WorkQueue[RequestKey] = WorkQueue(clock=time.monotonic, per_namespace=9)
    removals: WorkQueue[RequestKey] = WorkQueue(clock=time.monotonic, per_namespace=1)
    issuer_queue: WorkQueue[IssuerRef] = WorkQueue(clock=time.monotonic, per_namespace=9)
    issuers = Issuers(
        api=Api(),
        source=source,
        registrations=Registrations(Registrar(), clock=time.monotonic),
        open_requests=seen,
        requests=requests,
        queue=issuer_queue,
        metrics=Metrics(),
        events=Told(),
        unavailable_after=30,
        clock=time.monotonic,
        now=now,
    )
    registry = kopf.OperatorRegistry()
    retention = Retention(api=cluster, queue=removals, metrics=Metrics(), now=now)
    handlers.register(registry, [EST_ISSUER], issuers=issuers, open_requests=seen, queue=requests, retention=retention)
    handlers.register_namespaces(registry, namespaces, open_requests=seen, queue=requests)
    server.objects[ISSUERS] = [issuer("factory", "u1"), issuer("old", "u9")]
    server.objects[NAMESPACES] = [namespace("n1", {"tier": "edge"})]
    server.objects[REQUESTS] = [body(name="stale"), body(name="kept")]
    stop = asyncio.Event()
    task = asyncio.create_task(watch(registry, identity="test", ready=asyncio.Event(), stop=stop))
    await until(lambda: {ISSUERS, NAMESPACES, REQUESTS} <= server.watched and len(seen) == 2)
    try:
        yield World(server, cluster, issuers, source, namespaces, seen)
    finally:
        stop.set()
        server.end()
        await cluster.close()
        await runner.cleanup()
        await task


def now() -> datetime:
    return datetime.now(UTC)


@pytest.mark.spec("THREAT-33")
async def test_after_a_gap_an_issuer_or_namespace_that_was_made_anew_counts_and_not_the_one_before(kubeconfig: Path) -> None:
    async with watching(kubeconfig) as world:
        assert world.namespaces.known_labels("shop") == {"tier": "edge"}
        await world.after_a_gap({ISSUERS: [issuer("factory", "u2"), issuer("old", "u9")], NAMESPACES: [namespace("n2", {})]})
        await until(lambda: world.issuers.has_uid("u2") and "n2" in world.namespaces.uids())
        assert world.namespaces.known_labels("shop") == {}
        world.source.answer = [entry(uid="u2", generation=1, name="factory")]
        await world.issuers.poll()
        state = world.issuers.state(FACTORY)
        assert state is not None
        assert state.ready, state.message


@pytest.mark.spec("THREAT-33")
@pytest.mark.parametrize(
    ("gone", "left"),
    [(ISSUERS, [issuer("factory", "u1")]), (NAMESPACES, []), (NAMESPACES, [namespace("n2", {})])],
    ids=["an issuer", "a namespace", "a namespace that was made anew"],
)
async def test_an_issuer_or_namespace_that_ended_in_a_gap_is_found_by_the_re_list_which_restarts(
    kubeconfig: Path, gone: str, left: list[dict[str, Any]]
) -> None:
    async with watching(kubeconfig) as world:
        await world.re_list()
        await world.after_a_gap({gone: left})
        with pytest.raises(WatchMissed, match="missed the end of 1 objects"):
            await world.re_list()


@pytest.mark.spec("THREAT-33")
async def test_a_request_that_ended_in_a_gap_is_forgotten_by_the_re_list_and_the_others_stay(kubeconfig: Path) -> None:
    async with watching(kubeconfig) as world:
        await world.after_a_gap({REQUESTS: [body(name="kept")]})
        await world.re_list()
        assert [key.name for key in world.seen] == ["kept"]
