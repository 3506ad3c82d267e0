"""Who watches over waiting requests: what has ended is told once, people see what waits, and the metrics say how much and how old."""

import asyncio
import base64
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from estserver import approval_objects, held_requests
from estserver.approval import Approvals
from estserver.approval_keeper import ApprovalKeeper
from estserver.approval_objects import ApprovalObjects
from estserver.audit import AuditLog
from estserver.background import beside
from estserver.held_requests import HeldRequest, HeldRequests, State
from estserver.kubernetes_api import ApiError, KubernetesApi, Listed, Object
from estserver.ledger import Ledger
from estserver.ledger_schema import requests
from estserver.logs import renderer
from estserver.metrics import Metrics
from tests.server.app_fixtures import NOW, Clock, make_csr
from tests.server.test_requests_command import REQUEST

WAITING = replace(
    REQUEST,
    requested_by=json.dumps({"groups": ["devices"]}),
    csr_der=make_csr("device-1", "a.devices.example"),
    created_at=NOW,
    expires_at=NOW + timedelta(days=7),
)
FACTORY, FLEET = "EstIssuer/devices/factory", "EstClusterIssuer/fleet"


class Watch:
    """A keeper, and what comes of it."""

    def __init__(self, ledger: Ledger) -> None:
        self.clock, self.metrics, self.lines = Clock(), Metrics(), list[bytes]()
        self.held = HeldRequests(ledger)
        self.shown: list[list[str]] = []
        audit = AuditLog(self.lines.append, renderer("json"), chain="c0ffee")
        self.ledger = ledger
        self.approvals = Approvals(held=self.held, audit=audit, metrics=self.metrics, retry_window=timedelta(minutes=10))
        self.keeper = ApprovalKeeper(self.approvals, self.metrics, clock=self.clock, retention=timedelta(days=90), board=self)

    async def show(self, waiting: Sequence[HeldRequest], *, now: datetime) -> None:
        """The board: what would be shown to people."""
        assert now == self.clock.now
        self.shown.append([request.id for request in waiting])

    async def hold(self, **more: Any) -> HeldRequest:
        return await self.held.hold(replace(WAITING, **more), now=self.clock.now)

    @property
    def told(self) -> list[tuple[str, str]]:
        return [(event["audit"], event["request"]) for event in map(json.loads, self.lines)]

    def metric(self, sample: str) -> float | None:
        for line in self.metrics.render()[0].decode().splitlines():
            if line.startswith(f"{sample} "):
                return float(line.rpartition(" ")[2])
        return None


@pytest.fixture
async def watch(tmp_path: Path) -> AsyncIterator[Watch]:
    ledger = await Ledger.open(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    yield Watch(ledger)
    await ledger.aclose()


async def test_a_decision_of_whomever_is_in_the_audit_log_once(watch: Watch) -> None:
    await watch.hold()
    await watch.hold(id="00000000000000a2", slot="other")
    await watch.held.decide(WAITING.id, State.APPROVED, by="alice", reason="on the list", now=NOW)
    await watch.held.decide("00000000000000a2", State.DENIED, by="bob", reason="stolen", now=NOW)
    for _ in range(3):
        await watch.keeper.look()
    assert watch.told == [("approved", WAITING.id), ("denied", "00000000000000a2")]
    assert [json.loads(line)["by"] for line in watch.lines] == ["alice", "bob"]
    assert watch.metric(f'est_request_decisions_total{{decision="denied",issuer="{FACTORY}"}}') == 1


async def test_what_nobody_decides_expires_without_a_client_that_asks(watch: Watch) -> None:
    await watch.hold()
    watch.clock.advance(days=7, seconds=-1)
    await watch.keeper.look()
    assert watch.told == []
    watch.clock.advance(seconds=1)
    await watch.keeper.look()
    await watch.keeper.look()
    assert watch.told == [("expired", WAITING.id)]
    found = await watch.held.find(WAITING.id)
    assert found is not None
    assert found.state is State.EXPIRED
    assert watch.shown == [[WAITING.id], [], []]


# what ended long ago

RETENTION = timedelta(days=90)
LONG = NOW + timedelta(days=400)


async def one_in_each_state(watch: Watch) -> None:
    """The issued one ends with the retry window, the denied and the expired one after a week; the other two stand for more than a year."""
    for state, expires_at in (("denied", None), ("issued", None), ("expired", None), ("approved", LONG), ("waiting", LONG)):
        await watch.hold(id=state, slot=state, expires_at=expires_at or WAITING.expires_at)
    for request_id, decision in (("denied", State.DENIED), ("issued", State.APPROVED), ("approved", State.APPROVED)):
        decided = await watch.held.decide(request_id, decision, by="bob", reason="", now=NOW)
        if request_id == "issued":
            await watch.held.issued(decided, 1, now=NOW, retry_window=timedelta(minutes=10))


async def left(watch: Watch) -> set[str]:
    await watch.keeper.look()
    return {request.id for request in await watch.held.listed()}


async def test_what_ended_stays_for_its_time_and_what_stands_stays(watch: Watch) -> None:
    await one_in_each_state(watch)
    watch.clock.now = NOW + RETENTION + timedelta(minutes=10)
    assert await left(watch) == {"issued", "denied", "expired", "approved", "waiting"}
    watch.clock.advance(minutes=10)
    assert await left(watch) == {"denied", "expired", "approved", "waiting"}
    watch.clock.now = NOW + RETENTION + timedelta(days=7)
    assert await left(watch) == {"denied", "expired", "approved", "waiting"}
    watch.clock.advance(minutes=10)
    assert await left(watch) == {"approved", "waiting"}


async def test_a_decision_that_nobody_was_told_of_is_in_the_audit_log_before_it_is_forgotten(watch: Watch) -> None:
    await watch.hold()
    await watch.held.decide(WAITING.id, State.DENIED, by="bob", reason="stolen", now=NOW)
    watch.clock.advance(days=200)
    assert await watch.held.forget(ended_before=watch.clock.now) == 0
    assert await left(watch) == set()
    assert watch.told == [("denied", WAITING.id)]


async def test_a_retention_of_zero_keeps_them_for_ever(watch: Watch) -> None:
    watch.keeper = ApprovalKeeper(watch.approvals, watch.metrics, clock=watch.clock, retention=timedelta(0), board=watch)
    await watch.hold()
    watch.clock.advance(days=10_000)
    assert await left(watch) == {WAITING.id}


async def test_thousands_are_forgotten_at_once(watch: Watch) -> None:
    rows = [
        held_requests._to_row(replace(WAITING, id=f"{number}", slot=None, state=State.EXPIRED, announced=True)) for number in range(1_100)
    ]
    await watch.ledger.transact(lambda connection: connection.execute(requests.insert(), rows))
    watch.clock.advance(days=98)
    assert await left(watch) == set()


async def test_the_metrics_say_how_many_wait_and_how_long_the_oldest_has(watch: Watch) -> None:
    await watch.hold()
    watch.clock.advance(minutes=5)
    for number, issuer in enumerate([FACTORY, FLEET]):
        await watch.hold(id=f"b{number}", slot=f"b{number}", issuer=issuer, created_at=watch.clock.now)
    watch.clock.advance(minutes=1)
    await watch.keeper.look()
    assert watch.metric(f'est_requests_waiting{{issuer="{FACTORY}"}}') == 2
    assert watch.metric(f'est_requests_oldest_waiting_seconds{{issuer="{FACTORY}"}}') == 360
    assert watch.metric(f'est_requests_waiting{{issuer="{FLEET}"}}') == 1
    await watch.held.decide("b1", State.DENIED, by="bob", reason="", now=watch.clock.now)
    await watch.keeper.look()
    assert watch.metric(f'est_requests_waiting{{issuer="{FLEET}"}}') == 0
    assert watch.metric(f'est_requests_oldest_waiting_seconds{{issuer="{FLEET}"}}') == 0


async def test_a_fault_in_showing_them_ends_neither_the_watch_nor_the_server(watch: Watch) -> None:
    """What ends this task would end the process that enrols."""
    seen = asyncio.Event()

    class Faulty:
        calls = 0

        async def show(self, waiting: Sequence[HeldRequest], *, now: datetime) -> None:
            self.calls += 1
            if self.calls == 1:
                watch.keeper.nudged.set()
                raise KeyError("metadata")
            seen.set()

    watch.keeper.board = Faulty()
    running = asyncio.create_task(watch.keeper.run())
    async with asyncio.timeout(20):
        await seen.wait()
    assert not running.done()
    running.cancel()


class Cluster:
    """An API server whose namespaces may be in trouble: namespace → the status that it answers to a write, 0 for no answer in time."""

    def __init__(self, **trouble: int) -> None:
        self.trouble = trouble
        self.objects: dict[str, Any] = {}
        self.asked: list[str] = []

    def _write(self, path: str) -> None:
        namespace = path.split("/")[5]
        self.asked.append(namespace)
        if namespace in self.trouble:
            raise ApiError(f"{path}: failed calling webhook", status=self.trouble[namespace])

    async def list(self, path: str, *, field_selector: str = "") -> Listed:
        assert (path, field_selector) == ("/apis/est-issuer.io/v1alpha1/certificaterequests", "spec.origin=EST")
        return Listed(tuple(self.objects.values()), "1")

    async def watch(self, path: str, resource_version: str, *, field_selector: str = "") -> AsyncGenerator[tuple[str, Object], None]:
        await asyncio.Event().wait()
        yield "", {}

    async def create(self, path: str, body: Object) -> Object:
        self._write(path)
        self.objects[body["metadata"]["name"]] = {**body, "metadata": {**body["metadata"], "uid": body["metadata"]["name"]}}
        return body

    async def delete(self, path: str, *, uid: str) -> None:
        self._write(path)
        del self.objects[uid]

    @asynccontextmanager
    async def board(self, held: HeldRequests) -> AsyncIterator[ApprovalObjects]:
        """The objects of an estserver that has listed what is there now."""
        listed = asyncio.Event()
        board = ApprovalObjects(cast("KubernetesApi", self), held, namespace="pki", changed=listed.set)
        async with beside(board.watch()):
            await asyncio.wait_for(listed.wait(), 5)
            yield board


def waiting_in(namespace: str, *ids: str) -> list[HeldRequest]:
    return [replace(WAITING, id=id_, issuer=f"EstIssuer/{namespace}/factory") for id_ in ids]


async def test_a_namespace_whose_webhook_is_down_hides_no_other_ones_requests(watch: Watch) -> None:
    cluster = Cluster(bad=500)
    waiting = [*waiting_in("bad", "b1", "b2"), *waiting_in("devices", "d1", "d2"), *waiting_in("shop", "s1")]
    async with cluster.board(watch.held) as board:
        await board.show(waiting, now=NOW)
        assert cluster.objects.keys() == {"est-d1", "est-d2", "est-s1"}
        await board.show(waiting[:2], now=NOW)
        assert cluster.asked.count("bad") == 1, "it is left alone for a while"


async def test_a_namespace_that_lets_us_wait_in_vain_comes_after_the_others_next_time(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = Cluster(bad=0)
    waiting = [*waiting_in("bad", "b1", "b2"), *waiting_in("devices", "d1", "d2"), *waiting_in("shop", "s1")]
    async with cluster.board(watch.held) as board:
        await board.show(waiting, now=NOW)
        await board.show(waiting, now=NOW)
        assert cluster.asked == ["bad"], "no answer may mean that the whole API is away: nothing is asked for a while"
    monkeypatch.setattr(approval_objects, "PAUSE_SECONDS", 0.0)
    async with cluster.board(watch.held) as board:
        await board.show(waiting, now=NOW)
        await board.show(waiting, now=NOW)
        assert cluster.objects.keys() == {"est-d1", "est-d2", "est-s1"}


async def test_an_object_that_cannot_be_deleted_keeps_no_other_one(watch: Watch) -> None:
    cluster = Cluster()
    over = [
        await watch.hold(id=name, slot=name, issuer=f"EstIssuer/{namespace}/factory")
        for name, namespace in (("b1", "bad"), ("d1", "devices"))
    ]
    async with cluster.board(watch.held) as board:
        await board.show(over, now=NOW)
    assert cluster.objects.keys() == {"est-b1", "est-d1"}
    cluster.trouble["bad"] = 500
    async with cluster.board(watch.held) as board:
        await board.show([], now=NOW + timedelta(days=8))
    assert cluster.objects.keys() == {"est-b1"}


def test_every_replica_makes_the_same_object_beside_the_issuer() -> None:
    made = approval_objects.manifest(WAITING, "pki")
    assert approval_objects.manifest(replace(WAITING, announced=False), "pki") == made
    assert (made["metadata"]["namespace"], made["metadata"]["name"]) == ("devices", f"est-{WAITING.id}")
    assert made["spec"]["issuerRef"] == {"group": "est-issuer.io", "kind": "EstIssuer", "name": "factory"}
    fleet = approval_objects.manifest(replace(WAITING, issuer=FLEET), "pki")
    assert fleet["metadata"]["namespace"] == "pki"
    assert fleet["spec"]["issuerRef"] == {"group": "est-issuer.io", "kind": "EstClusterIssuer", "name": "fleet"}


def test_an_object_says_who_asks_for_what_and_holds_the_csr() -> None:
    spec = approval_objects.manifest(WAITING, "pki")["spec"]
    assert spec["origin"] == "EST"
    assert (spec["username"], spec["groups"]) == ("basic:device-1", ["devices"])
    assert spec["extra"]["est-issuer.io/names"] == ["CN=device-1", "DNS:a.devices.example", "DNS:b.devices.example"]
    assert spec["extra"]["est-issuer.io/source"] == ["192.0.2.7"]
    csr = x509.load_pem_x509_csr(base64.b64decode(spec["request"]))
    assert csr.public_bytes(Encoding.DER) == WAITING.csr_der


def test_what_is_longer_than_the_schema_takes_is_cut_and_says_so() -> None:
    sans = tuple(f"DNS:n{number}.devices.example" for number in range(99))
    names = approval_objects.manifest(replace(WAITING, sans=sans), "pki")["spec"]["extra"]["est-issuer.io/names"]
    assert len(names) == 64
    assert names[-1] == "and 37 more"
    assert len(approval_objects.manifest(replace(WAITING, requester="basic:" + "x" * 2000), "pki")["spec"]["username"]) == 1024


def test_an_object_without_usages_or_groups_has_no_such_members() -> None:
    spec = approval_objects.manifest(replace(WAITING, usages=(), requested_by='{"groups": []}'), "pki")["spec"]
    assert not {"usages", "groups"} & spec.keys()
