"""`approval: Manual` for CertificateRequests of est-issuer.io, under the chart's policy, by the documented command."""

import itertools
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.admission import OPERATOR, Admission
from tests.integration.apiserver import ApiServer
from tests.integration.operator_system import OURS, System, condition, request_manifest, wait_for
from tests.integration.rights import RBAC

pytestmark = pytest.mark.timeout(180)
DOCS = Path(__file__).parents[2] / "docs" / "kubernetes.md"
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def system(apiserver: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    started = System(apiserver, tmp_path_factory.mktemp("approving"), "approving-system")
    yield started
    started.stop()


@pytest.fixture(scope="module")
def admission(system: System) -> Admission:
    made = Admission(system.api, system.namespace)
    assert OPERATOR == "operator"  # the name under which System runs it
    return made


@pytest.fixture
def tenant(system: System, admission: Admission) -> str:
    system.shared_operator()
    namespace = f"approving-{next(_numbers)}"
    system.tenant(namespace)
    admission.guard(namespace)
    return namespace


def manual_issuer(system: System, namespace: str, **est: str) -> None:
    system.issuer(namespace)
    patch = json.dumps({"spec": {"est": {"approval": "Manual", **est}}})
    system.api.kubectl("patch", "estissuer", "factory", "-n", namespace, "--type=merge", "-p", patch)
    system.until_issuer_ready(namespace, generation=2)


def documented(verb: str, name: str, namespace: str) -> list[str]:
    """The command of docs/kubernetes.md that sets Approved or Denied, for a request of the test's."""
    (found,) = re.findall(r"^(kubectl patch estcr web .*?\}\}\]')$", DOCS.read_text(), re.MULTILINE | re.DOTALL)
    command = found.replace("estcr web -n devices", f"estcr {name} -n {namespace}").replace('"Approved"', f'"{verb}"')
    return [
        "bash",
        "-c",
        command.replace("kubectl", '"$KUBECTL" --kubeconfig="$KUBECONFIG" --as="$WHO" --as-group=system:authenticated', 1),
    ]


def decide(system: System, verb: str, name: str, namespace: str, who: str) -> subprocess.CompletedProcess[str]:
    kubectl = {"KUBECTL": str(system.api.kubectl_path), "KUBECONFIG": str(system.api.kubeconfig), "HOME": str(system.directory)}
    environment = {**kubectl, "WHO": who, "PATH": "/usr/bin:/bin"}
    return subprocess.run(documented(verb, name, namespace), env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.spec("THREAT-23")
def test_a_request_waits_until_an_approver_says_yes_or_no_and_nobody_else_may(system: System, admission: Admission, tenant: str) -> None:
    manual_issuer(system, tenant)
    admission.bind(f"{admission.namespace}-approver", "alice", namespace=tenant)
    rules = [
        {"apiGroups": ["est-issuer.io"], "resources": ["certificaterequests", "certificaterequests/status"], "verbs": ["get", "patch"]}
    ]
    writer = {"apiVersion": f"{RBAC}/v1", "kind": "ClusterRole", "metadata": {"name": f"{tenant}-writer"}, "rules": rules}
    system.api.apply(writer)
    admission.bind(f"{tenant}-writer", "mallory", namespace=tenant)
    for name in ("yes", "no"):
        system.request(OURS, tenant, name)
        pending = system.until_reason(OURS, tenant, name, "Pending")["status"]
        assert "Waiting for approval" in condition(pending, "Ready")["message"]
    refused = decide(system, "Approved", "yes", tenant, "mallory")
    assert refused.returncode != 0
    assert "verb approve on signers" in refused.stderr

    for name, verb, reason in (("yes", "Approved", "Issued"), ("no", "Denied", "Denied")):
        done = decide(system, verb, name, tenant, "alice")
        assert done.returncode == 0, done.stderr
        status = system.until_reason(OURS, tenant, name, reason)["status"]
        assert ("certificate" in status) == (verb == "Approved")
        assert condition(status, verb)["status"] == "True"


def test_who_waits_for_longer_than_the_issuer_says_has_failed_and_then_goes(system: System, tenant: str) -> None:
    manual_issuer(system, tenant, approvalWithin="3s")
    system.request(OURS, tenant, "late")
    status = system.until_reason(OURS, tenant, "late", "Failed")["status"]
    assert "longer than it may: Waiting for approval" in condition(status, "Ready")["message"]
    assert status["failureTime"]


@pytest.mark.spec("THREAT-34")
def test_of_101_requests_of_one_requester_100_wait_and_one_is_refused(system: System, tenant: str) -> None:
    manual_issuer(system, tenant)
    manifests = [request_manifest(OURS, tenant, f"n{number:03}", dns_name=f"web.{tenant}.svc") for number in range(101)]
    system.api.apply(*manifests)

    def reasons() -> list[str]:
        items = system.api.client.list(OURS, tenant)
        return sorted(str(condition(item.get("status") or {}, "Ready").get("reason")) for item in items)

    wait_for("all to be told", lambda: "None" not in reasons(), what=reasons)
    assert reasons() == ["Failed", *["Pending"] * 100]


@pytest.mark.spec("THREAT-23")
def test_usernames_are_believed_while_policy_and_binding_hold_in_every_namespace(system: System, admission: Admission) -> None:
    system.end_shared_operator()
    name = f"{system.namespace}-certificaterequests"
    operator = system.start_operator("believing", admission_policy=name)

    def believed(value: int) -> None:
        wait_for(f"belief {value}", lambda: system.metric(operator, "est_operator_admission_policy") == value, log=operator.log)

    try:
        believed(0)  # the binding of these tests is for some namespaces
        binding = json.loads(system.api.kubectl("get", "validatingadmissionpolicybinding", name, "-o", "json"))
        whole = {**binding, "metadata": {"name": name, "labels": binding["metadata"]["labels"]}}
        system.api.kubectl("delete", "validatingadmissionpolicybinding", name)
        system.api.apply({**whole, "spec": {key: value for key, value in binding["spec"].items() if key != "matchResources"}})
        believed(1)
        system.api.kubectl("delete", "validatingadmissionpolicybinding", name)
        believed(0)
        system.api.apply(whole)
    finally:
        assert operator.terminate() == 0
