"""The chart's admission policy on a real API server: what a tenant with every right on the kind still cannot say."""

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.admission import OPERATOR, SERVER, Admission, request
from tests.integration.apiserver import ApiServer
from tests.integration.claim import Claim
from tests.integration.rights import RBAC

pytestmark = pytest.mark.timeout(180)
HERE = "est-policy"
ALL = "est-policy-all-rights"
_numbers = itertools.count(1)

APPROVED: dict[str, Any] = {
    "type": "Approved",
    "status": "True",
    "reason": "Checked",
    "message": "by a person",
    "lastTransitionTime": "2026-11-25T12:00:00Z",
}
DENIED = APPROVED | {"type": "Denied"}
READY = APPROVED | {"type": "Ready", "reason": "Issued"}
WHO = f"{HERE}/{OPERATOR}"


@pytest.fixture(scope="module")
def policy(apiserver: ApiServer) -> Iterator[Admission]:
    admission = Admission(apiserver, HERE)
    every = ["get", "list", "watch", "create", "update", "patch", "delete"]
    rules = [{"apiGroups": ["est-issuer.io"], "resources": ["certificaterequests", "certificaterequests/status"], "verbs": every}]
    apiserver.apply({"apiVersion": f"{RBAC}/v1", "kind": "ClusterRole", "metadata": {"name": ALL}, "rules": rules})
    for account in (SERVER, OPERATOR):  # more than the chart gives them: what is refused here is refused by the policy
        admission.bind(ALL, f"{HERE}/{account}", namespace=None)
    for namespace in ("tenant-a", "tenant-b"):
        admission.guard(namespace)
        admission.bind(ALL, "tenant-a/tenant", namespace=namespace)
        admission.bind(ALL, "tenant-a/approver", namespace=namespace)
    admission.bind(f"{HERE}-approver", "tenant-a/approver", namespace="tenant-a")
    admission.bind(f"{HERE}-approver", "boss", namespace=None)
    yield admission
    for namespace in ("tenant-a", "tenant-b"):  # or other modules' operators would try to issue them
        apiserver.kubectl("delete", "certificaterequests.est-issuer.io", "--all", "-n", namespace, "--wait=false")


def create(policy: Admission, user: str, *, namespace: str = "tenant-a", kind: str = "EstIssuer", **spec: object) -> tuple[str, str]:
    """Create a request as a user: its name, and what was said against it."""
    name = f"r{next(_numbers)}"
    done = policy.kubectl("create", "-f", "-", user=user, stdin=json.dumps(request(namespace, name, kind=kind, **spec)))
    return name, done.stderr if done.returncode else ""


def made(policy: Admission, *, namespace: str = "tenant-a", kind: str = "EstIssuer") -> str:
    name, refusal = create(policy, "tenant-a/tenant", namespace=namespace, kind=kind)
    assert refusal == ""
    return name


def patch_status(policy: Admission, user: str, name: str, status: dict[str, Any], *, namespace: str = "tenant-a") -> str:
    """Patch /status as a user; what was said against it."""
    body = json.dumps({"status": status})
    arguments = ("patch", "estcr", name, "-n", namespace, "--subresource=status", "--type=merge", "-p", body)
    done = policy.kubectl(*arguments, user=user)
    return done.stderr if done.returncode else ""


def status_of(policy: Admission, name: str, *, namespace: str = "tenant-a") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(policy.kubectl("get", "estcr", name, "-n", namespace, "-o", "json").stdout)
    return found.get("status") or {}


@pytest.mark.spec("THREAT-23")
@pytest.mark.parametrize(
    "spec",
    [
        {"username": "system:serviceaccount:tenant-b:tenant"},
        {"username": ""},
        {"uid": "1f0c9a52-5f5a-4c39-9b8e-0d6f4f1f9a01"},
        {"groups": ["system:masters"]},
        {"groups": ["system:authenticated", "system:masters"]},
        {"groups": []},
        {"extra": {"example.com/clearance": ["top"]}},
    ],
)
def test_a_tenant_cannot_say_that_somebody_else_asks(policy: Admission, spec: Claim) -> None:
    _, refusal = create(policy, "tenant-a/tenant", **spec)
    assert "must be those of the user who creates" in refusal


def test_a_tenant_may_say_who_it_is(policy: Admission) -> None:
    own: Claim = {"username": "system:serviceaccount:tenant-a:tenant", "groups": ["system:authenticated"]}
    by_name: Claim = {"username": own["username"]}
    for spec in (own, by_name, Claim()):
        assert create(policy, "tenant-a/tenant", **spec)[1] == ""


def test_the_operator_may_ask_on_behalf_of_others(policy: Admission) -> None:
    assert create(policy, WHO, username="alice", groups=["devs"], uid="7", extra={"example.com/a": ["b"]})[1] == ""


@pytest.mark.spec("THREAT-23")
def test_only_estserver_shows_requests_that_came_by_est_and_it_makes_and_deletes_no_others(policy: Admission) -> None:
    for user in ("tenant-a/tenant", WHO, ""):
        assert "spec.origin: EST is for" in create(policy, user, origin="EST")[1]
    name, refusal = create(policy, f"{HERE}/{SERVER}", origin="EST", username="basic:device-1")
    assert refusal == ""
    assert "spec.origin: EST is for" in create(policy, f"{HERE}/{SERVER}")[1]
    others = policy.kubectl("delete", "estcr", made(policy), "-n", "tenant-a", user=f"{HERE}/{SERVER}")
    assert "deletes only the CertificateRequests that it made" in others.stderr
    assert policy.kubectl("delete", "estcr", name, "-n", "tenant-a", user=f"{HERE}/{SERVER}").returncode == 0


@pytest.mark.spec("THREAT-23", "THREAT-24")
@pytest.mark.parametrize(
    "status",
    [
        {"conditions": [APPROVED]},
        {"conditions": [DENIED]},
        {"conditions": [READY]},
        {"conditions": [APPROVED, READY]},
        {"conditions": [APPROVED | {"type": "InvalidRequest"}]},
        {"certificate": "LS0t"},
        {"ca": "LS0t"},
        {"failureTime": "2026-11-25T12:00:00Z"},
    ],
)
@pytest.mark.parametrize("user", ["tenant-a/tenant", f"{HERE}/{SERVER}"])
def test_whoever_may_write_a_status_can_forge_nothing_in_it(policy: Admission, status: dict[str, Any], user: str) -> None:
    name = made(policy)
    refusal = patch_status(policy, user, name, status)
    assert "has the verb approve" in refusal or "only est-issuer's operator writes" in refusal
    assert status_of(policy, name) == {}


def test_a_status_at_creation_is_nothing(policy: Admission) -> None:
    forged = request("tenant-a", "forged") | {"status": {"conditions": [APPROVED], "certificate": "LS0t"}}
    assert policy.kubectl("create", "-f", "-", user="tenant-a/tenant", stdin=json.dumps(forged)).returncode == 0
    assert status_of(policy, "forged") == {}


@pytest.mark.spec("THREAT-23")
def test_the_spec_of_an_approved_request_stays(policy: Admission) -> None:
    name = made(policy)
    assert patch_status(policy, "tenant-a/approver", name, {"conditions": [APPROVED]}) == ""
    for user in ("tenant-a/tenant", WHO, ""):
        patch = json.dumps({"spec": {"request": "T3RoZXI="}})
        done = policy.kubectl("patch", "estcr", name, "-n", "tenant-a", "--type=merge", "-p", patch, user=user)
        assert "spec is immutable" in done.stderr


@pytest.mark.parametrize("decision", [APPROVED, DENIED], ids=["approve", "deny"])
def test_an_approver_decides_once_and_writes_nothing_else(policy: Admission, decision: dict[str, Any]) -> None:
    name = made(policy)
    for more in ({"certificate": "LS0t"}, {"conditions": [decision, READY]}, {"conditions": [APPROVED, DENIED]}):
        assert patch_status(policy, "tenant-a/approver", name, {"conditions": [decision], **more}) != ""
    assert "status is" in patch_status(policy, "tenant-a/approver", name, {"conditions": [decision | {"status": "False"}]})
    assert patch_status(policy, "tenant-a/approver", name, {"conditions": [decision]}) == ""
    assert status_of(policy, name) == {"conditions": [decision]}


@pytest.mark.spec("THREAT-23")
@pytest.mark.parametrize("user", ["tenant-a/tenant", "tenant-a/approver", WHO, "boss", ""])
@pytest.mark.parametrize("decision", [APPROVED, DENIED], ids=["approved", "denied"])
def test_nobody_turns_removes_or_rewords_a_decision(policy: Admission, decision: dict[str, Any], user: str) -> None:
    name = made(policy)
    assert patch_status(policy, "tenant-a/approver", name, {"conditions": [decision]}) == ""
    other = DENIED if decision is APPROVED else APPROVED
    reworded = decision | {"message": "because"}
    for conditions in ([], [other], [decision, other], [decision | {"status": "False"}], [reworded]):
        assert patch_status(policy, user, name, {"conditions": conditions}) != "", conditions
    assert status_of(policy, name) == {"conditions": [decision]}


def test_the_operator_writes_the_rest_and_keeps_the_decision_that_it_cannot_make(policy: Admission) -> None:
    name = made(policy)
    assert "has the verb approve" in patch_status(policy, WHO, name, {"conditions": [APPROVED]})
    assert patch_status(policy, "tenant-a/approver", name, {"conditions": [APPROVED]}) == ""
    issued = {"conditions": [APPROVED, READY], "certificate": "LS0t", "ca": "LS0t"}
    assert patch_status(policy, WHO, name, issued) == ""
    assert status_of(policy, name) == issued


def test_a_role_in_one_namespace_is_for_the_issuers_of_that_namespace(policy: Admission) -> None:
    there, fleet = made(policy, namespace="tenant-b"), made(policy, kind="EstClusterIssuer")
    assert "name estissuers.est-issuer.io/tenant-b.factory" in patch_status(
        policy, "tenant-a/approver", there, {"conditions": [APPROVED]}, namespace="tenant-b"
    )
    assert "name estclusterissuers.est-issuer.io/factory" in patch_status(policy, "tenant-a/approver", fleet, {"conditions": [APPROVED]})
    assert patch_status(policy, "boss", there, {"conditions": [APPROVED]}, namespace="tenant-b") == ""
    assert patch_status(policy, "boss", fleet, {"conditions": [APPROVED]}) == ""


def test_the_verb_on_one_issuer_is_for_that_issuer(policy: Admission, apiserver: ApiServer) -> None:
    rules = [
        {"apiGroups": ["est-issuer.io"], "resources": ["certificaterequests/status"], "verbs": ["get", "patch"]},
        {
            "apiGroups": ["est-issuer.io"],
            "resources": ["signers"],
            "verbs": ["approve"],
            "resourceNames": ["estissuers.est-issuer.io/tenant-a.other"],
        },
    ]
    apiserver.apply({"apiVersion": f"{RBAC}/v1", "kind": "ClusterRole", "metadata": {"name": "est-policy-one"}, "rules": rules})
    policy.bind("est-policy-one", "one-of-them", namespace=None)
    name = made(policy)
    assert "has the verb approve" in patch_status(policy, "one-of-them", name, {"conditions": [APPROVED]})
    rules[1]["resourceNames"] = ["estissuers.est-issuer.io/tenant-a.factory"]
    apiserver.apply({"apiVersion": f"{RBAC}/v1", "kind": "ClusterRole", "metadata": {"name": "est-policy-one"}, "rules": rules})
    assert patch_status(policy, "one-of-them", name, {"conditions": [APPROVED]}) == ""
