"""Whether the username in a request is believed: only where the chart's policy, whole, has checked it."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest

from estoperator.admission_guard import AdmissionGuard, holds
from estoperator.kubernetes_errors import Gone, KubernetesError
from estoperator.metrics import Metrics
from tests import pki
from tests.chart.rendering import of_kind, render
from tests.estoperator.builders import approved, request_of

NAME = "est-issuer-certificaterequests"
POLICY = f"/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/{NAME}"
BINDING = f"/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings/{NAME}"
SECOND = timedelta(seconds=1)


def installed(kind: str, at: datetime = pki.EPOCH) -> dict[str, Any]:
    """What the chart makes of it, for CertificateRequests."""
    found = copy.deepcopy(of_kind(render(), kind)[NAME])
    found["metadata"]["creationTimestamp"] = at.strftime("%Y-%m-%dT%H:%M:%SZ")
    return dict(found)


def policy() -> dict[str, Any]:
    return installed("ValidatingAdmissionPolicy")


def binding() -> dict[str, Any]:
    return installed("ValidatingAdmissionPolicyBinding", pki.EPOCH + SECOND)


@dataclass
class Api:
    answers: dict[str, dict[str, Any] | KubernetesError] = field(default_factory=lambda: {POLICY: policy(), BINDING: binding()})

    async def call(
        self, method: str, path: str, *, query: list[tuple[str, str]] | None = None, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        assert method == "GET"
        answer = self.answers[path]
        if isinstance(answer, KubernetesError):
            raise answer
        return answer


def test_what_the_chart_ships_holds() -> None:
    assert holds(policy(), binding())


def change(where: str, *path: str | int, to: Any) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    def changed(policy: dict[str, Any], binding: dict[str, Any]) -> None:
        target: Any = policy if where == "policy" else binding
        for step in path[:-1]:
            target = target.setdefault(step, {}) if isinstance(step, str) else target[step]
        target[path[-1]] = to

    return changed


@pytest.mark.spec("THREAT-23")
@pytest.mark.parametrize(
    "weaken",
    [
        pytest.param(change("policy", "spec", "failurePolicy", to="Ignore"), id="open-on-failure"),
        pytest.param(change("policy", "spec", "validations", to=[{"expression": "true"}]), id="another-rule"),
        pytest.param(change("policy", "spec", "matchConditions", to=[{"name": "x", "expression": "false"}]), id="under-a-condition"),
        pytest.param(change("policy", "spec", "matchConstraints", "resourceRules", 0, "operations", to=["UPDATE"]), id="not-on-create"),
        pytest.param(
            change("policy", "spec", "matchConstraints", "namespaceSelector", to={"matchLabels": {"a": "b"}}), id="some-namespaces"
        ),
        pytest.param(change("policy", "spec", "matchConstraints", "excludeResourceRules", to=[{}]), id="exceptions"),
        pytest.param(change("binding", "spec", "validationActions", to=["Audit"]), id="only-audited"),
        pytest.param(change("binding", "spec", "policyName", to="another"), id="bound-to-another"),
        pytest.param(
            change("binding", "spec", "matchResources", to={"namespaceSelector": {"matchLabels": {"a": "b"}}}),
            id="bound-in-some-namespaces",
        ),
        pytest.param(change("binding", "spec", "paramRef", to={"name": "x"}), id="bound-by-parameters"),
    ],
)
def test_a_policy_that_lets_something_through_does_not_hold(weaken: Callable[[dict[str, Any], dict[str, Any]], None]) -> None:
    one, other = policy(), binding()
    weaken(one, other)
    assert not holds(one, other)


def test_selectors_that_select_everything_as_the_api_server_writes_them_narrow_nothing() -> None:
    one, other = policy(), binding()
    one["spec"]["matchConstraints"] |= {"namespaceSelector": {}, "objectSelector": {}, "matchPolicy": "Equivalent"}
    other["spec"]["matchResources"] = {"namespaceSelector": {}, "objectSelector": {}, "matchPolicy": "Equivalent"}
    assert holds(one, other)


@pytest.mark.spec("THREAT-23")
async def test_a_request_is_believed_that_was_made_after_the_policy_and_no_other() -> None:
    guard = AdmissionGuard(Api(), name=NAME, metrics=Metrics(), now=lambda: pki.EPOCH)
    assert not guard.believes(request_of(created=pki.EPOCH + 2 * SECOND))
    await guard.check()
    assert guard.believes(request_of(created=pki.EPOCH + 2 * SECOND))
    assert not guard.believes(request_of(created=pki.EPOCH + SECOND))
    assert not guard.believes(approved(created=pki.EPOCH + 2 * SECOND))


@pytest.mark.parametrize(
    "error", [Gone("not found", http_status=404), KubernetesError("forbidden", http_status=403), KubernetesError("away")]
)
@pytest.mark.parametrize("path", [POLICY, BINDING])
async def test_where_it_cannot_be_seen_that_the_policy_holds_nobody_is_believed(path: str, error: KubernetesError) -> None:
    api, metrics = Api(), Metrics()
    guard = AdmissionGuard(api, name=NAME, metrics=metrics, now=lambda: pki.EPOCH)
    await guard.check()
    assert metrics.registry.get_sample_value("est_operator_admission_policy") == 1
    api.answers[path] = error
    await guard.check()
    assert not guard.believes(request_of(created=pki.EPOCH + 2 * SECOND))
    assert metrics.registry.get_sample_value("est_operator_admission_policy") == 0


async def test_an_installation_without_the_policy_asks_nothing_and_believes_nobody() -> None:
    guard = AdmissionGuard(Api({}), name="", metrics=Metrics(), now=lambda: pki.EPOCH)
    await guard.check()
    assert not guard.believes(request_of(created=pki.EPOCH + 2 * SECOND))


@pytest.mark.spec("THREAT-23")
@pytest.mark.parametrize("seen", [True, False], ids=["by this operator", "before it started"])
async def test_a_username_that_was_forged_while_the_policy_was_only_audited_is_never_believed(*, seen: bool) -> None:
    api, hour = Api(), timedelta(hours=1)
    clock = [pki.EPOCH + hour]
    guard = AdmissionGuard(api, name=NAME, metrics=Metrics(), now=lambda: clock[0])
    audited = binding()
    audited["metadata"]["generation"] = 1
    if seen:
        api.answers[BINDING] = audited
        await guard.check()
    forged = request_of(username="system:serviceaccount:payments:web", created=pki.EPOCH + hour)
    restored = copy.deepcopy(audited)
    audited["spec"]["validationActions"] = ["Audit"]
    audited["metadata"]["generation"] = 2
    if seen:
        await guard.check()
    clock[0] = pki.EPOCH + 2 * hour
    restored["metadata"] |= {
        "generation": 3,
        "managedFields": [] if seen else [{"manager": "kubectl-edit", "time": "2026-01-01T02:00:00Z"}],
    }
    api.answers[BINDING] = restored
    await guard.check()
    assert not guard.believes(forged)
    assert guard.believes(request_of(username="jane", created=pki.EPOCH + 3 * hour))
