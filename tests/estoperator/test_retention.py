"""When a finished request is removed, and that nothing else is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from estoperator.doors import EST_ISSUER
from estoperator.kubernetes_errors import Gone, KubernetesError, Stale
from estoperator.metrics import Metrics
from estoperator.resources import RequestKey
from estoperator.retention import Retention, due_at
from estoperator.workqueue import WorkQueue
from tests.estoperator.builders import NOW, READY_ISSUED, body
from tests.estoperator.test_workqueue import Clock

KEY = RequestKey(EST_ISSUER.door, "devices", "web")
PATH = "/apis/est-issuer.io/v1alpha1/namespaces/devices/certificaterequests/web"
DAY = timedelta(days=1)


def stamped(at: Any) -> str:
    return str(at.strftime("%Y-%m-%dT%H:%M:%SZ"))


def issued(at: Any = NOW, **fields: Any) -> dict[str, Any]:
    return body(conditions=[{**READY_ISSUED, "lastTransitionTime": stamped(at)}], **fields)


def failed(reason: str = "Failed", at: Any = NOW, **fields: Any) -> dict[str, Any]:
    ready = {**READY_ISSUED, "status": "False", "reason": reason, "lastTransitionTime": stamped(at)}
    return body(conditions=[ready], status={"failureTime": stamped(at)}, **fields)


@pytest.mark.parametrize("finished", [issued, failed, lambda **fields: failed("Denied", **fields)], ids=["issued", "failed", "denied"])
def test_a_finished_request_stays_a_day_or_as_long_as_it_says(finished: Any) -> None:
    assert due_at(finished()) == NOW + DAY
    assert due_at(finished(ttlSecondsAfterFinished=60)) == NOW + timedelta(minutes=1)
    assert due_at(finished(ttlSecondsAfterFinished=0)) == NOW


@pytest.mark.parametrize(
    "time",
    [
        pytest.param("2026-01-01T23:59:60Z", id="a leap second"),
        pytest.param("0000-01-01T00:00:00Z", id="the year 0"),
        pytest.param("9999-12-31T23:59:59Z", id="the end of all times"),
        pytest.param("0001-01-01T00:00:00+14:00", id="before all times"),
    ],
)
def test_a_request_that_somebody_says_was_finished_at_no_time_is_removed_by_when_it_was_made(time: str) -> None:
    """The schema of the CRD lets each of these pass."""
    ready = {**READY_ISSUED, "lastTransitionTime": time}
    assert due_at(body(conditions=[ready], created=NOW)) == NOW + DAY
    assert due_at(body(conditions=[ready], status={"failureTime": time}, created=NOW)) == NOW + DAY


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(body(), id="nothing-said-yet"),
        pytest.param(body(conditions=[{**READY_ISSUED, "status": "False", "reason": "Pending"}]), id="pending"),
        pytest.param(issued(origin="EST"), id="came-by-est"),
        pytest.param(issued(metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"}), id="goes-already"),
    ],
)
def test_a_request_that_is_not_finished_or_not_ours_is_never_due(request_: dict[str, Any]) -> None:
    assert due_at({**request_, "spec": {**request_["spec"], "ttlSecondsAfterFinished": 0}}) is None


@dataclass
class Api:
    there: dict[str, Any] | None
    error: KubernetesError | None = None
    deleted: list[Mapping[str, Any]] = field(default_factory=list)

    async def call(
        self, method: str, path: str, *, query: list[tuple[str, str]] | None = None, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        assert path == PATH
        if self.there is None:
            raise Gone("not found", http_status=404)
        if method == "GET":
            return self.there
        assert method == "DELETE"
        if self.error is not None:
            raise self.error
        assert body is not None
        self.deleted.append(body)
        return self.there


def retention(api: Api, now: Any = NOW) -> Retention:
    queue: WorkQueue[RequestKey] = WorkQueue(clock=Clock(), per_namespace=9)
    return Retention(api=api, queue=queue, metrics=Metrics(), now=lambda: now)


async def test_what_is_due_is_deleted_as_the_version_that_was_read() -> None:
    api = Api(issued(version=7))
    await retention(api, now=NOW + DAY).work(KEY)
    assert [options["preconditions"] for options in api.deleted] == [{"uid": "uid-web", "resourceVersion": "7"}]


@pytest.mark.parametrize("there", [None, body(), issued(at=NOW + timedelta(seconds=1)), issued(origin="EST")])
async def test_what_is_gone_open_not_due_yet_or_estservers_is_not_deleted(there: dict[str, Any] | None) -> None:
    api = Api(there)
    await retention(api, now=NOW + DAY).work(KEY)
    assert api.deleted == []


async def test_another_object_of_the_name_waits_for_its_own_time() -> None:
    kept = retention(Api(issued(at=NOW + DAY)), now=NOW + DAY)
    kept.queue.add(KEY)
    await kept.work(KEY)
    assert len(kept.queue) == 1


async def test_one_that_changes_meanwhile_is_looked_at_again() -> None:
    kept = retention(Api(issued(), error=Stale("changed", http_status=409)), now=NOW + DAY)
    await kept.work(KEY)
    assert len(kept.queue) == 1


def test_the_watch_tells_what_there_will_be_to_remove_and_what_not() -> None:
    kept = retention(Api(None))
    kept.observe(body(), deleted=False)
    assert len(kept.queue) == 0
    kept.observe(issued(), deleted=False)
    assert len(kept.queue) == 1
    kept.observe(issued(), deleted=True)
    assert len(kept.queue) == 0
