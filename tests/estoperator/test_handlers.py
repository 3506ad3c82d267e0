"""What a watch event does; that kopf calls it is shown on a real API server."""

from typing import Any

import kopf
import pytest

from estoperator import handlers
from estoperator.doors import CERT_MANAGER
from estoperator.open_requests import OpenRequests
from estoperator.resources import RequestKey
from estoperator.workqueue import WorkQueue
from tests.estoperator.builders import APPROVED, READY_ISSUED, body
from tests.estoperator.test_workqueue import Clock


class World:
    def __init__(self) -> None:
        self.seen = OpenRequests()
        self.queue: WorkQueue[RequestKey] = WorkQueue(clock=Clock(), per_namespace=9)

    def event(self, kind: Any, **fields: Any) -> None:
        event: kopf.RawEvent = {"type": kind, "object": body(CERT_MANAGER, **fields)}  # type: ignore[typeddict-item]  # JSON
        handlers.on_request(CERT_MANAGER, event, self.seen, self.queue)


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize("kind", [None, "ADDED", "MODIFIED"])
def test_an_open_request_is_put_into_the_queue_however_it_came(world: World, kind: str | None) -> None:
    world.event(kind)
    assert (len(world.seen), len(world.queue)) == (1, 1)


def test_a_change_that_is_no_news_is_not_worked_on(world: World) -> None:
    world.event("ADDED", version=1)
    world.queue.forget(RequestKey(CERT_MANAGER.door, "devices", "web"))
    world.event("MODIFIED", version=2)
    assert len(world.queue) == 0
    world.event("MODIFIED", version=3, conditions=[APPROVED])
    assert len(world.queue) == 1


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("DELETED", {}),
        ("MODIFIED", {"conditions": [APPROVED, READY_ISSUED]}),
        ("MODIFIED", {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
    ],
)
def test_a_request_that_is_gone_or_finished_leaves_nothing_behind(world: World, kind: str, fields: dict[str, Any]) -> None:
    world.event("ADDED", version=1)
    world.event(kind, version=2, **fields)
    assert (len(world.seen), len(world.queue)) == (0, 0)


@pytest.mark.spec("K8S-CONTRACT-01")
def test_a_request_for_another_issuer_is_not_even_remembered(world: World) -> None:
    world.event("ADDED", issuer={"name": "x", "kind": "Issuer", "group": "cert-manager.io"})
    assert (len(world.seen), len(world.queue)) == (0, 0)


def test_the_end_of_an_object_says_nothing_of_another_of_the_same_name(world: World) -> None:
    world.event("ADDED", version=9, metadata={"uid": "new"})
    world.event("DELETED", version=8, metadata={"uid": "old"})
    assert (len(world.seen), len(world.queue)) == (1, 1)
