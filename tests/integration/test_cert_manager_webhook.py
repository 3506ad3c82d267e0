"""Contract 24 on a real API server: who made a request of cert-manager's is believed while its webhook checks that, and warned of else."""

import functools
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Unpack

import pytest

from estoperator.uninterrupted import last_change
from tests.integration.apiserver import ApiServer
from tests.integration.claim import Claim
from tests.integration.doorway import CERT_MANAGER, rules
from tests.integration.identity_webhook import NAME, IdentityWebhook
from tests.integration.operator_system import THEIRS, Process, System, condition, wait_for

pytestmark = pytest.mark.timeout(180)

TENANT, OFF = "webhook", "webhook-off"
ADMIN: Claim = {"username": "admin", "groups": ["system:masters", "system:authenticated"]}
"""Who makes the requests of these tests."""

METRIC = "est_operator_cert_manager_webhook"


@pytest.fixture(scope="module")
def system(cert_manager_crd: None, apiserver: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    started = System(apiserver, tmp_path_factory.mktemp("webhook"), "est-webhook-system")
    for namespace in (TENANT, OFF):
        started.tenant(namespace)
        started.issuer(namespace, rules=rules(namespace))
    apiserver.kubectl("label", "namespace", OFF, "cert-manager.io/disable-validation=true")
    yield started
    started.stop()


def warned(operator: Process) -> int:
    """How often the operator has warned that nobody checks requesters."""
    return sum(
        "cert_manager_webhook" in line and "stands for its namespace alone" in line for line in operator.log.read_text().splitlines()
    )


def recorded(system: System, namespace: str, name: str, **who: Unpack[Claim]) -> str | None:
    """Who the ledger says asked for a request's certificate, with which the request was made."""
    CERT_MANAGER.ask(system, namespace, name, **who)
    CERT_MANAGER.until_issued(system, namespace, name)
    (told,) = system.told_of(namespace, name)
    requester = told.get("requester")
    return None if requester is None else str(requester)


@pytest.mark.spec("K8S-CONTRACT-24", "THREAT-23")
def test_a_requester_is_recorded_while_the_webhook_holds_and_its_absence_is_warned_of_once(system: System) -> None:
    operator = system.start_operator("webhook")
    try:
        wait_for("the warning", lambda: warned(operator) == 1, log=operator.log)
        forged: Claim = {"username": "system:serviceaccount:kube-system:root", "groups": ["system:masters"]}
        assert [recorded(system, TENANT, f"forged-{number}", **forged) for number in range(3)] == [None] * 3
        assert system.metric(operator, METRIC) == 0
        with IdentityWebhook(system.api):
            since = time.monotonic()
            wait_for("the webhook to be seen", lambda: system.metric(operator, METRIC) == 1, log=operator.log)
            wait_for("the webhook to be asked", functools.partial(refused, system, forged))
            wait_for("the second in which it began", lambda: time.monotonic() - since > 1)
            assert recorded(system, TENANT, "own", **ADMIN) == "admin"
            assert recorded(system, OFF, "forged", **forged) is None, "a namespace that is left out"
            assert warned(operator) == 1
        wait_for("its end to be seen", lambda: system.metric(operator, METRIC) == 0, log=operator.log)
        assert recorded(system, TENANT, "after", **ADMIN) is None
        assert warned(operator) == 2
        dns = f"web.{OFF}.svc"
        made = CERT_MANAGER.manifest(OFF, "elsewhere", "factory", "elsewhere")["spec"]["request"]
        CERT_MANAGER.ask(system, TENANT, "elsewhere", request=made, username=f"system:serviceaccount:{OFF}:web")
        status = CERT_MANAGER.until_ended(system, TENANT, "elsewhere")["status"]
        assert dns in condition(status, "Ready")["message"], "the policy knows the namespace alone"
    finally:
        operator.terminate()


def refused(system: System, forged: Claim) -> bool:
    made = CERT_MANAGER.manifest(TENANT, "probe", "factory", "probe")
    made["spec"] |= forged
    try:
        system.api.apply(made)
    except RuntimeError as error:
        return "must be the user's own" in str(error)
    system.api.kubectl("delete", THEIRS, "probe", "-n", TENANT)
    return False


def metadata_of(api: ApiServer, kind: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(api.kubectl("get", kind, name, "-o", "json", "--show-managed-fields"))["metadata"]
    return found


def is_over(second: datetime) -> bool:
    return datetime.now(UTC).replace(microsecond=0) > second


@pytest.fixture
def counted(apiserver: ApiServer) -> Iterator[str]:
    """The name of a policy and its binding, which check nothing."""
    name, kind = "counted", "ValidatingAdmissionPolicy"
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}
    policy = {"matchConstraints": {"resourceRules": [rule]}, "validations": [{"expression": "true"}]}
    binding = {"policyName": name, "validationActions": ["Audit"]}
    for made, spec in ((kind, policy), (f"{kind}Binding", binding)):
        apiserver.apply({"apiVersion": "admissionregistration.k8s.io/v1", "kind": made, "metadata": {"name": name}, "spec": spec})
    with IdentityWebhook(apiserver):
        yield name
    apiserver.kubectl("delete", "validatingadmissionpolicybinding,validatingadmissionpolicy", name)


@pytest.mark.spec("THREAT-23")
@pytest.mark.parametrize(
    ("kind", "path", "values"),
    [
        ("validatingwebhookconfiguration", "/webhooks/0/failurePolicy", ("Ignore", "Fail")),
        ("validatingadmissionpolicy", "/spec/failurePolicy", ("Ignore", "Fail")),
        ("validatingadmissionpolicybinding", "/spec/validationActions", (["Warn"], ["Audit"])),
    ],
)
def test_the_api_server_counts_each_change_of_what_checks_requesters_and_says_when_it_was(
    apiserver: ApiServer, counted: str, kind: str, path: str, values: tuple[object, object]
) -> None:
    """The belief in a requester after an interruption rests on this (`estoperator.uninterrupted`)."""
    name = NAME if kind == "validatingwebhookconfiguration" else counted
    created = last_change(metadata_of(apiserver, kind, name))
    apiserver.kubectl("annotate", kind, name, "a=b")
    assert metadata_of(apiserver, kind, name)["generation"] == 1, "an annotation is nothing of the spec"
    wait_for("another second", functools.partial(is_over, created))
    for value in values:
        change = [{"op": "replace", "path": path, "value": value}]
        apiserver.kubectl("patch", kind, name, "--type=json", "-p", json.dumps(change))
    changed = metadata_of(apiserver, kind, name)
    assert changed["generation"] == 3
    assert last_change(changed) > created
