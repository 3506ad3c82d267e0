import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from estoperator import relist
from estoperator.doors import CERT_MANAGER, EST_ISSUER, POD_CERTIFICATES, KubernetesDoor
from estoperator.kubernetes_errors import Gone, KubernetesError
from estoperator.metrics import Metrics
from estoperator.open_requests import OpenRequests
from estoperator.relist import GRACE_SECONDS, Indexed, RightGone, VersionChanged, WatchMissed
from estoperator.resources import CertRequest, RequestKey
from tests.estoperator.builders import request_of


@dataclass
class Api:
    """A list, and what each object is when it is read again."""

    listed: list[CertRequest] = field(default_factory=list)
    error: Exception | None = None
    now: Mapping[RequestKey, CertRequest | None] = field(default_factory=dict)
    versions: tuple[str, ...] = ()
    answers: list[KubernetesError | None] = field(default_factory=list)
    """Of the next lists, before `error`."""
    permits: bool | KubernetesError = True
    reviewed: list[tuple[str, str, str]] = field(default_factory=list)
    collections: list[set[str] | KubernetesError] = field(default_factory=list)
    """The uids that each list of a collection shows, one after the other."""
    paths: list[str] = field(default_factory=list)
    """Of these lists."""

    async def call(
        self, method: str, path: str, *, query: list[tuple[str, str]] | None = None, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        self.paths.append(path)
        found = self.collections.pop(0)
        if isinstance(found, KubernetesError):
            raise found
        return {"items": [{"metadata": {"uid": uid}} for uid in sorted(found)], "metadata": {}}

    async def may(self, verb: str, group: str, resource: str, *, subresource: str = "", name: str = "") -> bool:
        self.reviewed.append((verb, group, resource))
        if isinstance(self.permits, KubernetesError):
            raise self.permits
        return self.permits

    async def serves(self, group: str, version: str, plural: str) -> bool:
        return version in self.versions

    async def requests(self, door: KubernetesDoor) -> AsyncIterator[CertRequest]:
        error = self.answers.pop(0) if self.answers else self.error
        if error is not None:
            raise error
        for request in self.listed:
            yield request

    async def read_request(self, key: RequestKey) -> CertRequest | None:
        if key not in self.now:
            raise Gone("not found")
        return self.now[key]


async def no_sleep(seconds: float) -> None:
    await asyncio.sleep(0)


async def count(api: Api, seen: OpenRequests) -> int:
    return await relist.count_missed(api, seen, EST_ISSUER, sleep=no_sleep)


async def test_what_the_watch_brought_is_not_missed() -> None:
    seen = OpenRequests()
    seen.observe(request_of(version=7))
    assert await count(Api([request_of(version=7)]), seen) == 0


async def test_what_the_watch_brings_within_the_grace_is_not_missed() -> None:
    seen = OpenRequests()

    async def late(seconds: float) -> None:
        seen.observe(request_of(version=8))

    request = request_of(version=7)
    assert await relist.count_missed(Api([request], now={request.key: request}), seen, EST_ISSUER, sleep=late) == 0


async def test_an_open_request_that_the_watch_never_brought_is_missed() -> None:
    request = request_of()
    assert await count(Api([request], now={request.key: request}), OpenRequests()) == 1


async def test_a_newer_version_that_the_watch_never_brought_is_missed() -> None:
    seen = OpenRequests()
    seen.observe(request_of(version=7))
    newer = request_of(version=8)
    assert await count(Api([newer], now={newer.key: newer}), seen) == 1


async def test_what_is_finished_or_gone_meanwhile_is_not_missed() -> None:
    finished, gone = request_of(name="finished"), request_of(name="gone")
    now = {finished.key: request_of(name="finished", status={"certificate": "LS0t"})}
    assert await count(Api([finished, gone, request_of(name="done", status={"certificate": "LS0t"})], now=now), OpenRequests()) == 0


@pytest.mark.parametrize(
    "now",
    [
        pytest.param({}, id="it is gone"),
        pytest.param({request_of().key: request_of(version=8, status={"certificate": "LS0t"})}, id="it is finished"),
        pytest.param({request_of().key: request_of(version=8, metadata={"uid": "another"})}, id="another has its name"),
        pytest.param({request_of().key: None}, id="it is somebody else's"),
    ],
)
async def test_an_open_request_of_whose_end_the_watch_tells_nothing_is_forgotten(now: Mapping[RequestKey, CertRequest | None]) -> None:
    """After a gap kopf lists anew, and says nothing of what is not in that list."""
    seen = OpenRequests()
    seen.observe(request_of())
    assert await count(Api([], now=now), seen) == 0
    assert len(seen) == 0


async def test_an_open_request_that_is_finished_in_the_list_and_not_in_the_watch_is_forgotten() -> None:
    seen, finished = OpenRequests(), request_of(version=8, status={"certificate": "LS0t"})
    seen.observe(request_of(version=7))
    assert await count(Api([finished], now={finished.key: finished}), seen) == 0
    assert len(seen) == 0


async def test_an_open_request_that_a_list_does_not_show_and_that_is_there_is_kept() -> None:
    seen, request = OpenRequests(), request_of()
    seen.observe(request)
    assert await count(Api([], now={request.key: request}), seen) == 0
    assert seen.get(request.key) == request


async def test_of_a_request_that_was_deleted_and_made_anew_within_the_grace_the_new_one_is_kept() -> None:
    seen, newer = OpenRequests(), request_of(version=9, metadata={"uid": "newer"})
    seen.observe(request_of(version=7))

    async def late(seconds: float) -> None:
        seen.observe(newer)

    assert await relist.count_missed(Api([], now={newer.key: newer}), seen, EST_ISSUER, sleep=late) == 0
    assert seen.get(newer.key) == newer


async def test_the_list_of_one_door_says_nothing_of_the_requests_of_another() -> None:
    seen = OpenRequests()
    seen.observe(request_of(CERT_MANAGER))
    assert await count(Api([]), seen) == 0
    assert len(seen) == 1


async def re_list_once(api: Api, *known: set[str], metrics: Metrics | None = None) -> None:
    """One turn over an index that holds these uids, one after the other each time it is asked; raises what ends the process."""
    answers, turns = iter(known), iter(range(1))

    async def sleep(seconds: float) -> None:
        if seconds != GRACE_SECONDS and next(turns, None) is None:
            raise asyncio.CancelledError

    index = Indexed(plural="estissuers.est-issuer.io", path="/issuers", known=lambda: frozenset(next(answers)))
    seen = OpenRequests()
    with contextlib.suppress(asyncio.CancelledError):
        await relist.watch_for_misses(api, seen, [], indexed=[index], metrics=metrics or Metrics(), sleep=sleep, interval=1)


@pytest.mark.spec("THREAT-33")
async def test_the_end_of_an_issuer_or_namespace_that_the_watch_did_not_bring_is_counted_and_ends_the_process() -> None:
    api, metrics = Api(collections=[{"u2"}, {"u2"}]), Metrics()
    with pytest.raises(WatchMissed, match=r"estissuers\.est-issuer\.io missed the end of 1 objects; restarting"):
        await re_list_once(api, {"u1", "u2"}, {"u1", "u2"}, metrics=metrics)
    assert api.paths == ["/issuers", "/issuers"]
    assert b"est_operator_missed_events_total 1.0" in metrics.render()


@pytest.mark.parametrize(
    ("known", "listed"),
    [
        pytest.param([{"u1"}], [{"u1"}], id="all is there"),
        pytest.param([{"u1"}], [{"u1", "u2"}], id="one was made while the list was read"),
        pytest.param([{"u1", "u2"}, {"u1"}], [{"u1"}, {"u1"}], id="the watch told of the end meanwhile"),
        pytest.param([{"u1", "u2"}, {"u1", "u2"}], [{"u1"}, {"u1", "u2"}], id="the first list was not the last word"),
        pytest.param([{"u1"}], [KubernetesError("away")], id="the list cannot be had"),
        pytest.param([{"u1"}], [Gone("no CRD", http_status=404)], id="the kind is not there"),
        pytest.param([{"u1"}], [KubernetesError("no", http_status=403)], id="the list is forbidden"),
        pytest.param([{"u1"}, {"u1"}], [set(), KubernetesError("away")], id="the second list cannot be had"),
        pytest.param([set()], [], id="nothing is watched, and nothing listed"),
    ],
)
async def test_nothing_but_a_missed_end_ends_the_process(known: list[set[str]], listed: list[set[str] | KubernetesError]) -> None:
    api = Api(collections=list(listed))
    await re_list_once(api, *known)
    assert api.collections == []


async def test_a_miss_is_counted_and_ends_the_process() -> None:
    request, metrics = request_of(), Metrics()
    api = Api([request], now={request.key: request})
    with pytest.raises(WatchMissed, match="missed 1"):
        await relist.watch_for_misses(api, OpenRequests(), [EST_ISSUER], metrics=metrics, sleep=no_sleep, interval=1)
    assert b"est_operator_missed_events_total 1.0" in metrics.render()


FAULT = TypeError("what no schema lets pass, or an answer of what stands in for the API server")


@pytest.mark.parametrize("error", [Gone("no CRD", http_status=404), KubernetesError("away"), FAULT])
async def test_a_list_that_fails_is_tried_at_the_next_turn(error: Exception) -> None:
    turns = 0

    async def sleep(seconds: float) -> None:
        nonlocal turns
        turns += 1
        if turns == 3:
            raise asyncio.CancelledError

    metrics = Metrics()
    with pytest.raises(asyncio.CancelledError):
        await relist.watch_for_misses(Api([], error), OpenRequests(), [EST_ISSUER], metrics=metrics, sleep=sleep, interval=1)
    assert b'watch_checked_timestamp_seconds{door="est-issuer.io"} ' in metrics.render()


@pytest.mark.parametrize(
    ("error", "moves"), [(None, True), (Gone("no CRD", http_status=404), True), (KubernetesError("away"), False), (FAULT, False)]
)
async def test_only_a_list_that_could_be_held_against_the_watch_counts_as_a_check(error: Exception | None, *, moves: bool) -> None:
    metrics, seen = Metrics(), []

    async def sleep(seconds: float) -> None:
        seen.append(metrics.registry.get_sample_value("est_operator_watch_checked_timestamp_seconds", {"door": "est-issuer.io"}))
        metrics.watch_checked.labels("est-issuer.io").set(1)
        if len(seen) == 3:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await relist.watch_for_misses(Api([], error), OpenRequests(), [EST_ISSUER], metrics=metrics, sleep=sleep, interval=1)
    assert (seen[2] != 1) is moves


async def turns_without_end(api: Api, door: KubernetesDoor, metrics: Metrics) -> None:
    """Three turns, after which it would have gone on."""
    turns = iter(range(3))

    async def sleep(seconds: float) -> None:
        if next(turns, None) is None:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await relist.watch_for_misses(api, OpenRequests(), [door], metrics=metrics, sleep=sleep, interval=1)


@pytest.mark.parametrize(
    ("watched", "served", "now"),
    [("v1", ("v1", "v1beta1"), "v1beta1"), ("v1beta1", ("v1",), "v1")],
    ids=["v1beta1 was turned on for old nodes", "the API server was upgraded"],
)
async def test_where_another_version_is_to_be_watched_the_process_ends_to_be_started_anew(
    watched: str, served: tuple[str, ...], now: str
) -> None:
    """Contract 3b, "Skew"."""
    door = replace(POD_CERTIFICATES, version=watched)
    api = Api(error=Gone("not in this version", http_status=404) if watched not in served else None, versions=served)
    with pytest.raises(VersionChanged, match=f"to be watched in {now} now, and was in {watched}"):
        await relist.watch_for_misses(api, OpenRequests(), [door], metrics=Metrics(), sleep=no_sleep, interval=1)


@pytest.mark.parametrize(("watched", "served"), [("v1", ("v1",)), ("v1beta1", ("v1beta1", "v1")), ("v1beta1", ("v1beta1",))])
async def test_while_the_version_is_the_one_to_be_watched_the_process_goes_on(watched: str, served: tuple[str, ...]) -> None:
    await turns_without_end(Api(versions=served), replace(POD_CERTIFICATES, version=watched), Metrics())


async def test_a_kind_that_is_served_no_more_in_any_version_is_absent_and_ends_nothing() -> None:
    metrics = Metrics()
    await turns_without_end(Api(error=Gone("no such kind", http_status=404)), POD_CERTIFICATES, metrics)
    assert metrics.registry.get_sample_value("est_operator_door_off", {"door": POD_CERTIFICATES.door, "why": "Absent"}) == 1


FORBIDDEN, AWAY = KubernetesError("no", http_status=403), KubernetesError("away", http_status=503)


async def test_a_right_to_list_that_is_gone_ends_the_process_with_a_sentence_that_names_it() -> None:
    slept = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    api = Api(error=FORBIDDEN, permits=False)
    with pytest.raises(RightGone, match=r"ServiceAccount may not list certificaterequests\.est-issuer\.io any more; restarting"):
        await relist.watch_for_misses(api, OpenRequests(), [EST_ISSUER], metrics=Metrics(), sleep=sleep, interval=300)
    assert slept == [300, GRACE_SECONDS]
    assert api.reviewed == [("list", "est-issuer.io", "certificaterequests")]


@pytest.mark.parametrize(
    ("answers", "permits", "asked"),
    [
        pytest.param([FORBIDDEN, None], False, 0, id="the second list is permitted"),
        pytest.param([FORBIDDEN, AWAY], False, 0, id="the second list fails otherwise"),
        pytest.param([AWAY], False, 0, id="another error than 403"),
        pytest.param([FORBIDDEN, FORBIDDEN], True, 1, id="the review says that it is permitted"),
        pytest.param([FORBIDDEN, FORBIDDEN], AWAY, 1, id="the review cannot be had"),
    ],
)
async def test_a_403_that_may_pass_ends_nothing(answers: list[KubernetesError | None], permits: bool | KubernetesError, asked: int) -> None:
    api = Api(answers=answers, permits=permits)
    await turns_without_end(api, EST_ISSUER, Metrics())
    assert len(api.reviewed) == asked
