"""Events: what is posted, once, and that a certificate never waits for one."""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from estoperator import events
from estoperator.events import LOOK_SECONDS, MAX_WAITING, PATIENCE_SECONDS, Event, Events, Subject, event_body
from estoperator.kubernetes_errors import Gone, KubernetesError, Stale
from estoperator.metrics import Metrics
from tests.estoperator.builders import NOW

WEB = Subject(api_version="cert-manager.io/v1", kind="CertificateRequest", namespace="devices", name="web", uid="uid-web")
ISSUED = Event(subject=WEB, reason="CertificateIssued", note="Certificate fetched from issuer successfully", warning=False, action="Issue")


class Api:
    """The API server: each create first raises the next of `refusals`."""

    def __init__(self, *refusals: Exception) -> None:
        self.refusals = list(refusals)
        self.created: list[tuple[str, Mapping[str, Any]]] = []
        self.slept: list[float] = []

    async def create_event(self, namespace: str, body: Mapping[str, Any]) -> None:
        if self.refusals:
            raise self.refusals.pop(0)
        self.created.append((namespace, body))

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


@asynccontextmanager
async def posting(api: Api) -> AsyncIterator[tuple[Events, Metrics]]:
    metrics = Metrics()
    told = Events(api, instance="operator-0", now=lambda: NOW, metrics=metrics, sleep=api.sleep)
    task = asyncio.create_task(told.run())
    try:
        yield told, metrics
        await told.posted()
    finally:
        task.cancel()


def counted(metrics: Metrics, result: str) -> float:
    return metrics.registry.get_sample_value("est_operator_events_total", {"result": result}) or 0.0


async def test_an_event_names_its_object_what_happened_and_who_says_so() -> None:
    async with posting(api := Api()) as (told, _):
        told.tell(ISSUED)
    ((namespace, body),) = api.created
    assert namespace == body["metadata"]["namespace"] == "devices"
    assert (body["type"], body["reason"], body["note"]) == ("Normal", "CertificateIssued", ISSUED.note)
    assert body["regarding"] == {
        "apiVersion": "cert-manager.io/v1",
        "kind": "CertificateRequest",
        "namespace": "devices",
        "name": "web",
        "uid": "uid-web",
    }
    assert (body["reportingController"], body["reportingInstance"]) == ("est-issuer.io/operator", "operator-0")
    assert body["eventTime"] == NOW.strftime("%Y-%m-%dT%H:%M:%S.000000Z")


def named(event: Event, instance: str = "a") -> str:
    return str(event_body(event, namespace="devices", instance=instance, now=NOW)["metadata"]["name"])


def test_the_same_news_has_the_same_name_whoever_tells_it_and_other_news_another() -> None:
    assert named(ISSUED) == named(ISSUED, instance="b")
    others = [
        replace(ISSUED, reason="PermanentError"),
        replace(ISSUED, note="another"),
        replace(ISSUED, subject=replace(WEB, uid="uid-of-a-later-web")),
    ]
    assert len({named(ISSUED), *map(named, others)}) == 4


def test_a_name_as_long_as_names_get_leaves_room_for_what_is_added() -> None:
    name = named(replace(ISSUED, subject=replace(WEB, name="a" * 235 + "." + "b" * 17)))
    assert len(name) <= 253
    assert ".." not in name


@pytest.mark.parametrize(
    ("name", "stem"),
    [("node-csr-AbC_9x", "node-csr-abc-9x."), ("What? No.", "what-no."), ("-a.-b-.", "a.b."), ("ÜÖ", ""), ("a" * 300, "a" * 236 + ".")],
)
def test_an_object_whose_name_is_no_name_of_an_event_has_its_events_too(name: str, stem: str) -> None:
    """A CertificateSigningRequest may be called anything, and kubelets use capitals and underscores; Events are RFC 1123 subdomains."""
    made = named(replace(ISSUED, subject=replace(WEB, name=name)))
    assert made[:-16] == stem
    assert len(made) <= 253
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", made)


def test_a_note_too_long_for_an_event_is_cut_with_a_sign() -> None:
    note = event_body(replace(ISSUED, note="ü" * 900), namespace="devices", instance="a", now=NOW)["note"]
    assert len(note.encode()) <= 1024
    assert note.endswith("…")


def test_an_object_without_a_namespace_has_its_events_in_default() -> None:
    issuer = replace(WEB, api_version="est-issuer.io/v1alpha1", kind="EstClusterIssuer", namespace="")
    body = event_body(replace(ISSUED, subject=issuer, warning=True), namespace="default", instance="a", now=NOW)
    assert "namespace" not in body["regarding"]
    assert body["type"] == "Warning"


async def test_an_event_that_is_there_already_is_not_posted_again() -> None:
    async with posting(api := Api(Stale("already exists", http_status=409))) as (told, metrics):
        told.tell(ISSUED)
    assert api.created == []
    assert counted(metrics, "known") == 1


async def test_an_api_server_that_is_away_gets_the_event_when_it_is_back() -> None:
    away = [KubernetesError("no connection"), KubernetesError("busy", http_status=429), KubernetesError("broken", http_status=503)]
    async with posting(api := Api(*away)) as (told, metrics):
        told.tell(ISSUED)
    assert len(api.created) == 1
    assert api.slept == [events.RETRY_SECONDS] * 3
    assert counted(metrics, "posted") == 1


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (KubernetesError("invalid", http_status=422), "refused"),
        (Gone("no namespace", http_status=404), "gone"),
        (ValueError(), "refused"),
    ],
)
async def test_an_event_that_cannot_be_posted_is_counted_and_the_next_one_goes_on(error: Exception, result: str) -> None:
    async with posting(api := Api(error)) as (told, metrics):
        told.tell(ISSUED)
        told.tell(replace(ISSUED, note="the next"))
    assert [body["note"] for _, body in api.created] == ["the next"]
    assert counted(metrics, result) == 1


async def test_an_event_that_is_forbidden_is_posted_once_more_after_the_others_and_then_no_more() -> None:
    """An API server that is starting forbids what it will permit; a namespace that is going forbids it for good."""
    forbidden = KubernetesError("forbidden", http_status=403)
    async with posting(api := Api(forbidden)) as (told, metrics):
        told.tell(ISSUED)
        told.tell(replace(ISSUED, note="the next"))
    assert [body["note"] for _, body in api.created] == ["the next", ISSUED.note]
    assert api.slept == [events.RETRY_SECONDS]
    async with posting(api := Api(forbidden, forbidden)) as (told, metrics):
        told.tell(ISSUED)
    assert api.created == []
    assert counted(metrics, "refused") == 1


async def test_what_is_told_beyond_the_bound_is_dropped_and_counted_and_nobody_waits() -> None:
    metrics = Metrics()
    told = Events(api := Api(), instance="a", now=lambda: NOW, metrics=metrics)
    for number in range(MAX_WAITING + 3):
        told.tell(replace(ISSUED, note=str(number)))
    assert counted(metrics, "dropped") == 3
    task = asyncio.create_task(told.run())
    await told.posted()
    task.cancel()
    assert [body["note"] for _, body in api.created] == [str(number) for number in range(MAX_WAITING)]


@pytest.mark.parametrize(("through_after", "looks"), [(5, 5), (10_000, int(PATIENCE_SECONDS / LOOK_SECONDS))])
async def test_an_event_lets_waiting_requests_go_first_but_not_for_ever(through_after: int, looks: int) -> None:
    api = Api()
    told = Events(
        api,
        instance="a",
        now=lambda: NOW + timedelta(seconds=sum(api.slept)),
        metrics=Metrics(),
        pressed=lambda: len(api.slept) < through_after,
        sleep=api.sleep,
    )
    told.tell(ISSUED)
    task = asyncio.create_task(told.run())
    await told.posted()
    task.cancel()
    assert len(api.created) == 1
    assert len(api.slept) == pytest.approx(looks, abs=1)
    assert api.created[0][1]["eventTime"] == NOW.strftime("%Y-%m-%dT%H:%M:%S.000000Z"), "when it happened, not when it was posted"
