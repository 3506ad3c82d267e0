"""Whether the username in a request of cert-manager's is believed: only where its webhook, whole, has checked it (contract 24)."""

import asyncio
import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
import structlog

from estcore.label_selector import LabelSelector
from estoperator.kubernetes_errors import Gone, KubernetesError
from estoperator.metrics import Metrics
from estoperator.webhook_guard import CONFIGURATIONS, WebhookGuard, covered_namespaces
from tests import pki
from tests.estoperator.builders import approved, request_of

NAME = "cert-manager-webhook"
SECOND = timedelta(seconds=1)
OFF = "cert-manager.io/disable-validation"
SHIPPED: dict[str, Any] = {
    "metadata": {"name": NAME, "creationTimestamp": "2026-01-01T00:00:00Z"},
    "webhooks": [
        {
            "name": "webhook.cert-manager.io",
            "namespaceSelector": {"matchExpressions": [{"key": OFF, "operator": "NotIn", "values": ["true"]}]},
            "objectSelector": {},
            "rules": [
                {
                    "apiGroups": ["cert-manager.io", "acme.cert-manager.io"],
                    "apiVersions": ["v1"],
                    "operations": ["CREATE", "UPDATE"],
                    "resources": ["*/*"],
                    "scope": "*",
                }
            ],
            "failurePolicy": "Fail",
            "matchPolicy": "Equivalent",
            "sideEffects": "None",
        }
    ],
}
"""As cert-manager's chart ships it (templates/webhook-validating-webhook.yaml), with the API server's defaults."""


@dataclass
class Api:
    answer: dict[str, Any] | KubernetesError = field(default_factory=lambda: copy.deepcopy(SHIPPED))
    crd: bool = True
    holds: asyncio.Event | None = None
    """Where there is one, an answer waits for it."""

    async def serves(self, group: str, version: str, plural: str) -> bool:
        if self.holds is not None:
            await self.holds.wait()
        assert (group, version, plural) == ("cert-manager.io", "v1", "certificaterequests")
        return self.crd

    async def call(
        self, method: str, path: str, *, query: list[tuple[str, str]] | None = None, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        assert (method, path) == ("GET", f"{CONFIGURATIONS}/{NAME}")
        if isinstance(self.answer, KubernetesError):
            raise self.answer
        return self.answer


@dataclass
class World:
    api: Api = field(default_factory=Api)
    labels: dict[str, Mapping[str, str]] = field(default_factory=lambda: {"devices": {}})
    metrics: Metrics = field(default_factory=Metrics)

    def __post_init__(self) -> None:
        self.guard = WebhookGuard(self.api, name=NAME, metrics=self.metrics, labels_of=self.labels.get, now=lambda: pki.EPOCH)

    def believes(self, *, seconds: int = 60, namespace: str = "devices") -> bool:
        return self.guard.believes(approved(created=pki.EPOCH + seconds * SECOND, namespace=namespace))


@pytest.fixture
def world() -> World:
    return World()


def warnings(logs: list[Any]) -> list[str]:
    return [entry["reason"] for entry in logs if entry["log_level"] == "warning"]


async def test_what_cert_manager_ships_is_believed_of_requests_made_since(world: World) -> None:
    assert not world.believes()
    await world.guard.check()
    assert world.believes()
    assert not world.believes(seconds=0)
    assert not world.guard.believes(request_of(created=pki.EPOCH + 60 * SECOND)), "our own kind has the other guard"
    assert b"est_operator_cert_manager_webhook 1.0" in world.metrics.render()


async def test_what_was_seen_last_holds_while_it_is_looked_at_again(world: World) -> None:
    """A request that is decided meanwhile is recorded with its requester as any other."""
    await world.guard.check()
    world.api.holds = asyncio.Event()
    world.api.crd = False
    looking = asyncio.create_task(world.guard.check())
    await asyncio.sleep(0)  # it is asking now
    assert world.believes()
    world.api.holds.set()
    await looking
    assert not world.believes()


@pytest.mark.spec("K8S-CONTRACT-24", "THREAT-23")
@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("failurePolicy",), "Ignore"),
        (("objectSelector",), {"matchLabels": {"a": "b"}}),
        (("matchConditions",), [{"name": "x", "expression": "false"}]),
        (("namespaceSelector",), {"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1"]}]}),
        (("rules", 0, "operations"), ["UPDATE"]),
        (("rules", 0, "apiGroups"), ["acme.cert-manager.io"]),
        (("rules", 0, "apiVersions"), ["v2"]),
        (("rules", 0, "resources"), ["certificates"]),
        (("rules", 0, "scope"), "Cluster"),
        (("rules",), []),
    ],
)
def test_a_webhook_that_lets_a_request_pass_covers_none(path: tuple[str | int, ...], value: Any) -> None:
    configuration = copy.deepcopy(SHIPPED)
    target: Any = configuration["webhooks"][0]
    for step in path[:-1]:
        target = target[step]
    target[path[-1]] = value
    assert covered_namespaces(configuration) is None
    whole = covered_namespaces({**configuration, "webhooks": [*configuration["webhooks"], *copy.deepcopy(SHIPPED["webhooks"])]})
    assert whole is not None, "another of its webhooks may"
    assert whole != LabelSelector()


async def test_a_namespace_that_is_left_out_or_whose_labels_are_not_known_is_not_believed(world: World) -> None:
    world.labels["off"] = {OFF: "true"}
    await world.guard.check()
    assert world.believes()
    assert not world.believes(namespace="off")
    assert not world.believes(namespace="unknown")
    assert isinstance(world.api.answer, dict)
    world.api.answer["webhooks"][0]["namespaceSelector"] = {}
    await world.guard.check()
    assert world.believes(namespace="unknown"), "it leaves none out"


@pytest.mark.spec("K8S-CONTRACT-24")
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Gone("not found", http_status=404), "there is no ValidatingWebhookConfiguration"),
        (KubernetesError("forbidden", http_status=403), "may not read it"),
        ({**SHIPPED, "webhooks": []}, "is not asked about every CertificateRequest"),
    ],
    ids=["absent", "forbidden", "broken"],
)
async def test_it_is_warned_once_and_once_again_when_it_was_there_meanwhile(world: World, answer: Any, said: str) -> None:
    world.api.answer = answer
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            await world.guard.check()
        (only,) = warnings(logs)
        assert said in only
        assert "stands for its namespace alone" in only
        assert not world.believes()
        world.api.answer = copy.deepcopy(SHIPPED)
        await world.guard.check()
        assert world.believes()
        world.api.answer = answer
        await world.guard.check()
        assert len(warnings(logs)) == 2
    assert b"est_operator_cert_manager_webhook 0.0" in world.metrics.render()


async def test_without_cert_manager_nothing_is_said(world: World) -> None:
    world.api.crd, world.api.answer = False, Gone("not found", http_status=404)
    with structlog.testing.capture_logs() as logs:
        await world.guard.check()
        assert warnings(logs) == []
        world.api.crd = True
        await world.guard.check()
        assert len(warnings(logs)) == 1


async def test_an_api_server_that_is_away_leaves_no_belief_behind_and_is_no_reason_to_warn(world: World) -> None:
    await world.guard.check()
    shipped, world.api.answer = world.api.answer, KubernetesError("away", http_status=503)
    with structlog.testing.capture_logs() as logs:
        await world.guard.check()
        assert not world.believes()
        world.api.answer = shipped
        await world.guard.check()
        assert world.believes()
        assert logs == [] or {entry["log_level"] for entry in logs} == {"debug"}


@pytest.mark.spec("K8S-CONTRACT-24", "THREAT-23")
async def test_a_webhook_that_was_off_for_a_while_is_believed_of_nothing_that_was_made_before_its_return(world: World) -> None:
    shipped = copy.deepcopy(SHIPPED)
    shipped["metadata"]["generation"] = 2
    world.api.answer = shipped
    await world.guard.check()
    assert world.believes()
    returned = copy.deepcopy(shipped)
    returned["metadata"] |= {"generation": 4, "managedFields": [{"manager": "kubectl-edit", "time": "2026-01-01T01:00:00Z"}]}
    world.api.answer = returned  # off and on again between two looks
    await world.guard.check()
    assert not world.believes()
    assert world.believes(seconds=3601)


async def test_namespaces_that_are_covered_only_now_were_not_before(world: World) -> None:
    world.api.answer = copy.deepcopy(SHIPPED)
    world.api.answer["metadata"]["generation"] = 2
    await world.guard.check()
    wider = copy.deepcopy(world.api.answer)
    wider["webhooks"][0]["namespaceSelector"] = {}
    wider["metadata"] |= {"generation": 3, "managedFields": [{"manager": "kubectl-edit", "time": "2026-01-01T01:00:00Z"}]}
    world.api.answer = wider
    await world.guard.check()
    assert not world.believes()
    assert world.believes(seconds=3601)
