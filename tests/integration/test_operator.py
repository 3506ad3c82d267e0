"""The operator on a real API server with a real estserver: what only the two together show."""

import base64
import functools
import itertools
import json
from collections.abc import Iterator
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from estoperator.relist import GRACE_SECONDS
from tests import pki
from tests.collect import collect
from tests.integration.api_client import Object
from tests.integration.apiserver import ApiServer
from tests.integration.doorway import DOORWAYS, POD_CERTIFICATES, SIGNING_REQUESTS, outcome, rules
from tests.integration.operator_system import (
    OURS,
    SOON_SECONDS,
    THEIRS,
    Process,
    System,
    condition,
    install_cert_manager_crd,
    operator_kubeconfig,
    request_manifest,
    wait_for,
)

pytestmark = pytest.mark.timeout(180)
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def system(apiserver: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    started = System(apiserver, tmp_path_factory.mktemp("operator"), "est-operator-system")
    yield started
    started.stop()


@pytest.fixture
def operator(system: System) -> Process:
    return system.shared_operator()


@pytest.fixture
def alone(system: System) -> None:
    """No operator runs but those that the test starts."""
    system.end_shared_operator()


@pytest.fixture
def tenant(system: System) -> str:
    """A namespace of the test's own with a ready issuer."""
    namespace = system.tenant(f"tenant-{next(_numbers)}")
    system.issuer(namespace)
    return namespace


@pytest.fixture
def cert_manager(system: System) -> None:
    install_cert_manager_crd(system.api)


def certificate_of(request: Object) -> x509.Certificate:
    """The leaf in a request's status, collected for the linters; it is under `ca`."""
    chain = x509.load_pem_x509_certificates(base64.b64decode(request["status"]["certificate"]))
    root = x509.load_pem_x509_certificate(base64.b64decode(request["status"]["ca"]))
    (leaf,) = chain  # the CA is self-signed, so nothing stands between
    leaf.verify_directly_issued_by(root)
    collect(leaf.public_bytes(Encoding.DER), root.public_bytes(Encoding.DER))
    return leaf


def create_many(system: System, plural: str, namespace: str, count: int) -> list[str]:
    names = [f"n{number:03}" for number in range(count)]
    system.api.apply(*(request_manifest(plural, namespace, name) for name in names))
    return names


@pytest.mark.spec("K8S-CONTRACT-08", "K8S-CONTRACT-16")
def test_the_door_of_cert_manager_opens_when_its_crd_appears_without_a_restart(system: System, operator: Process, tenant: str) -> None:
    system.request(OURS, tenant, "before")
    system.until_reason(OURS, tenant, "before", "Issued")
    assert "certificaterequests.cert-manager.io" not in system.api.kubectl("get", "crd", "-o", "name")
    install_cert_manager_crd(system.api)
    system.request(THEIRS, tenant, "after")
    system.decide(tenant, "after", "Approved")
    certificate_of(system.until_reason(THEIRS, tenant, "after", "Issued"))
    assert operator.alive()


@pytest.mark.parametrize("plural", [OURS, THEIRS])
@pytest.mark.spec("K8S-CONTRACT-16", "K8S-CONTRACT-22", "K8S-CONTRACT-23")
def test_a_request_of_either_group_gets_its_certificate(
    system: System, operator: Process, cert_manager: None, tenant: str, plural: str
) -> None:
    system.request(plural, tenant, "web")
    if plural == THEIRS:
        system.decide(tenant, "web", "Approved")
    issued = system.until_reason(plural, tenant, "web", "Issued")
    leaf = certificate_of(issued)
    assert leaf.public_key() == pki.key(owner="web").public_key()
    assert leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName) == [
        f"web.{tenant}.svc"
    ]
    assert "failureTime" not in issued["status"]
    assert not {"annotations", "finalizers", "ownerReferences"} & set(issued["metadata"])


@pytest.mark.parametrize("plural", [OURS, THEIRS])
@pytest.mark.spec("K8S-CONTRACT-20", "K8S-CONTRACT-21")
def test_duration_and_usages_are_those_of_the_object_to_the_second(
    system: System, operator: Process, cert_manager: None, tenant: str, plural: str
) -> None:
    system.request(plural, tenant, "web", duration="25h30m0s", usages=["digital signature", "server auth"])
    if plural == THEIRS:
        system.decide(tenant, "web", "Approved")
    leaf = certificate_of(system.until_reason(plural, tenant, "web", "Issued"))
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc == timedelta(hours=25, minutes=30)
    purposes = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(purposes) == [x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]


def leads(system: System, operator: Process) -> bool:
    return system.metric(operator, "est_operator_leader") == 1


def may_hold_leases(system: System, *names: str) -> None:
    """The chart lets the operator have its own Lease only."""
    metadata = {"name": "other-leases", "namespace": system.namespace}
    rule = {
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "resourceNames": list(names),
        "verbs": ["get", "update", "watch", "list"],
    }
    create = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]}
    system.api.apply(
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata, "rules": [rule, create]},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "other-leases"},
            "subjects": [{"kind": "ServiceAccount", "name": "operator", "namespace": system.namespace}],
        },
    )


@pytest.mark.spec("THREAT-31")
def test_two_operators_that_both_lead_have_one_certificate_for_a_request(system: System, alone: None, tenant: str) -> None:
    """Leases apart, each believes to be the only one: what keeps them from issuing twice is the transaction, the object's UID."""
    may_hold_leases(system, "left", "right")
    both = [system.start_operator(name, lease_name=name) for name in ("left", "right")]
    try:
        for operator in both:
            wait_for("both to lead", functools.partial(leads, system, operator), log=operator.log)
        names = create_many(system, OURS, tenant, 20)
        for name in names:
            system.until_reason(OURS, tenant, name, "Issued")
        transactions = system.transactions(tenant)
        assert len(transactions) == len(set(transactions)) == 20
    finally:
        for operator in both:
            operator.kill()


@pytest.mark.spec("K8S-CONTRACT-06", "K8S-CONTRACT-25")
def test_approved_is_still_there_after_our_writes(system: System, operator: Process, cert_manager: None, tenant: str) -> None:
    system.request(THEIRS, tenant, "web", issuer="later")
    system.decide(tenant, "web", "Approved")
    system.until_reason(THEIRS, tenant, "web", "Pending")
    system.issuer(tenant, "later")
    status = system.until_reason(THEIRS, tenant, "web", "Issued")["status"]
    assert condition(status, "Approved")["message"] == "by a test"
    assert [found["type"] for found in status["conditions"]].count("Ready") == 1


@pytest.mark.spec("K8S-CONTRACT-05", "THREAT-23")
def test_a_denied_request_is_denied_with_a_failure_time_even_where_it_is_approved_too(
    system: System, operator: Process, cert_manager: None, tenant: str
) -> None:
    system.request(THEIRS, tenant, "web")
    system.decide(tenant, "web", "Denied", "Approved")
    status = system.until_reason(THEIRS, tenant, "web", "Denied")["status"]
    assert status["failureTime"]
    assert "certificate" not in status


@pytest.mark.spec("K8S-CONTRACT-04", "THREAT-23")
def test_a_request_that_nobody_approved_is_not_touched(system: System, operator: Process, cert_manager: None, tenant: str) -> None:
    system.request(THEIRS, tenant, "silent")
    system.request(THEIRS, tenant, "later")
    system.decide(tenant, "later", "Approved")
    system.until_reason(THEIRS, tenant, "later", "Issued")
    assert "status" not in system.get(THEIRS, tenant, "silent")


@pytest.mark.spec("K8S-CONTRACT-09", "K8S-CONTRACT-22")
def test_a_request_waits_for_a_missing_issuer_and_for_one_that_is_deleted(system: System, operator: Process, tenant: str) -> None:
    system.request(OURS, tenant, "early", issuer="later")
    pending = system.until_reason(OURS, tenant, "early", "Pending")["status"]
    assert condition(pending, "Ready")["message"] == f"EstIssuer {tenant}/later not found"
    assert "failureTime" not in pending
    system.issuer(tenant, "later")
    system.until_reason(OURS, tenant, "early", "Issued")
    system.api.kubectl("delete", "estissuer", "later", "-n", tenant)
    wait_for("the deletion", lambda: system.api.client.get("estissuers", "later", tenant) is None)
    system.request(OURS, tenant, "late", issuer="later")
    system.until_reason(OURS, tenant, "late", "Pending")


@pytest.mark.spec("K8S-CONTRACT-13", "THREAT-22")
def test_a_name_outside_the_policy_is_refused_by_name(system: System, operator: Process, tenant: str) -> None:
    system.request(OURS, tenant, "web", dns_name="kubernetes.default.svc")
    status = system.until_reason(OURS, tenant, "web", "Failed")["status"]
    assert "kubernetes.default.svc" in condition(status, "Ready")["message"]
    assert status["failureTime"]


@pytest.mark.spec("K8S-CONTRACT-02", "THREAT-21")
def test_a_namespaced_issuer_does_not_serve_another_namespace(system: System, operator: Process, tenant: str) -> None:
    other = system.tenant(f"{tenant}-other")
    system.request(OURS, other, "web", dns_name=f"web.{tenant}.svc")
    status = system.until_reason(OURS, other, "web", "Pending")["status"]
    assert condition(status, "Ready")["message"] == f"EstIssuer {other}/factory not found"


@pytest.mark.spec("THREAT-22")
def test_an_est_cluster_issuer_serves_a_namespace_from_when_its_labels_say_so(system: System, operator: Process, tenant: str) -> None:
    system.tenant(system.namespace)
    spec = {
        "ca": {"secretName": "fleet-ca", "generate": {"commonName": "Fleet CA"}},
        "policy": {"rules": [{"from": {"namespaceSelector": {"matchLabels": {"tier": "edge"}}}, "dnsNames": ["*.{namespace}.svc"]}]},
        "allowedNamespaces": {"matchLabels": {"team": "a"}},
    }
    system.api.apply({"apiVersion": "est-issuer.io/v1alpha1", "kind": "EstClusterIssuer", "metadata": {"name": "fleet"}, "spec": spec})
    manifest = request_manifest(OURS, tenant, "web", issuer="fleet")
    manifest["spec"]["issuerRef"]["kind"] = "EstClusterIssuer"
    system.api.apply(manifest)
    waiting = system.until(OURS, tenant, "web", lambda status: "allowedNamespaces" in condition(status, "Ready").get("message", ""))
    assert condition(waiting["status"], "Ready")["reason"] == "Pending"
    system.api.kubectl("label", "namespace", tenant, "team=a", "tier=edge")
    system.until_reason(OURS, tenant, "web", "Issued")


@pytest.mark.spec("K8S-CONTRACT-26")
def test_an_issuer_shows_what_a_person_wants_to_know(system: System, operator: Process, tenant: str) -> None:
    issuer = system.until_reason("estissuers", tenant, "factory", "Checked")
    status, generation = issuer["status"], issuer["metadata"]["generation"]
    assert condition(status, "Ready")["observedGeneration"] == generation
    assert x509.load_pem_x509_certificate(status["ca"]["bundle"].encode()).subject.rfc4514_string() == status["ca"]["subject"]
    header, row = (line.split() for line in system.api.kubectl("get", "estissuers", "-n", tenant).splitlines())
    assert header == ["NAME", "READY", "CA", "EXPIRY", "LABEL", "AGE"]
    assert row[:4] == ["factory", "True", status["ca"]["notAfter"], f"{tenant}.factory"]
    assert "CN=factory CA" in system.api.kubectl("get", "estissuers", "-n", tenant, "-o", "wide")


def test_a_changed_policy_holds_for_the_next_request(system: System, operator: Process, tenant: str) -> None:
    system.until_reason("estissuers", tenant, "factory", "Checked")
    system.issuer(tenant, rules=[{"from": {"namespaces": [tenant]}, "dnsNames": ["*.example.com"]}])
    generation = system.get("estissuers", tenant, "factory")["metadata"]["generation"]
    assert generation == 2
    system.until_issuer_ready(tenant, generation=2)
    system.request(OURS, tenant, "web", dns_name="www.example.com")
    system.until_reason(OURS, tenant, "web", "Issued")


@pytest.mark.spec("K8S-CONTRACT-12", "THREAT-32")
def test_estserver_away_leaves_requests_pending_until_it_is_back(system: System, operator: Process, tenant: str) -> None:
    system.until_reason("estissuers", tenant, "factory", "Checked")
    system.server.kill()
    system.request(OURS, tenant, "web")
    status = system.until_reason(OURS, tenant, "web", "Pending")["status"]
    assert "will retry" in condition(status, "Ready")["message"]
    system.start_server()
    system.until_reason(OURS, tenant, "web", "Issued")


@pytest.mark.spec("K8S-CONTRACT-15")
def test_an_estserver_that_knows_another_operator_leaves_requests_pending_and_its_issuers_say_what_to_set(
    system: System, operator: Process, tenant: str
) -> None:
    system.until_reason("estissuers", tenant, "factory", "Checked")
    system.server.terminate()
    system.start_server(registration_authority=f"{system.namespace}/another")
    refused = system.until_reason("estissuers", tenant, "factory", "RegistrationAuthorityRefused")["status"]
    assert condition(refused, "Ready")["status"] == "False"
    assert "ra_service_accounts" in condition(refused, "Ready")["message"]
    system.request(OURS, tenant, "web")
    status = system.until_reason(OURS, tenant, "web", "Pending")["status"]
    assert "ra_service_accounts" in condition(status, "Ready")["message"]
    assert "failureTime" not in status
    system.server.terminate()
    system.start_server()
    system.until_reason(OURS, tenant, "web", "Issued")


@pytest.mark.spec("K8S-CONTRACT-12", "K8S-CONTRACT-13")
def test_a_fault_that_does_not_pass_ends_requests_after_the_limit_and_a_pods_never(
    system: System, alone: None, cert_manager: None, tenant: str
) -> None:
    """Contracts 12 and 3b, point 5: a failure time that stays, and one Event of the retries, however many."""
    system.issuer(tenant, rules=rules(tenant))
    operator = system.start_operator("impatient", max_retry_duration="5s", server_unavailable_after="1h")
    names = {doorway: f"{tenant}-{number}" for number, doorway in enumerate(DOORWAYS)}
    try:
        system.request(OURS, tenant, "first")
        system.until_reason(OURS, tenant, "first", "Issued")
        system.server.kill()
        for doorway, name in names.items():
            doorway.ask(system, tenant, name)
        ended = {doorway: doorway.until_ended(system, tenant, names[doorway]) for doorway in DOORWAYS if doorway is not POD_CERTIFICATES}
        for doorway, found in ended.items():
            assert outcome(found["status"]) not in {"", "Issued"}
            assert ("failureTime" in found["status"]) == (doorway is not SIGNING_REQUESTS)
            doorway.until_told(system, tenant, names[doorway], "PermanentError")
        retries = 'est_operator_retries_total{door="podcertificaterequests",reason="ServerUnavailable"}'
        wait_for("a fifth attempt", lambda: system.metric(operator, retries) >= 5, what=lambda: system.http(operator, "metrics")[1])
        for doorway, name in names.items():
            assert doorway.events(system, tenant, name).count("RetryableError") == 1
            assert doorway.get(system, tenant, name) == ended.get(doorway, doorway.get(system, tenant, name)), "the end stays as it is"
        assert not system.get(POD_CERTIFICATES.plural, tenant, names[POD_CERTIFICATES]).get("status")
    finally:
        system.start_server()
    POD_CERTIFICATES.until_issued(system, tenant, names[POD_CERTIFICATES])
    assert operator.terminate() == 0


@pytest.mark.parametrize("plural", [OURS, THEIRS])
@pytest.mark.spec("THREAT-31")
def test_an_operator_killed_in_the_middle_of_fifty_requests_loses_and_doubles_nothing(
    system: System, alone: None, cert_manager: None, tenant: str, plural: str
) -> None:
    operator = system.start_operator("victim")
    system.until_reason("estissuers", tenant, "factory", "Checked")
    names = create_many(system, plural, tenant, 50)
    if plural == THEIRS:
        for name in names:
            system.decide(tenant, name, "Approved")

    def listed() -> list[Object]:
        return system.api.client.list(plural, tenant)

    def ready() -> int:
        return sum(condition(item.get("status") or {}, "Ready").get("reason") == "Issued" for item in listed())

    wait_for("some of the fifty", lambda: ready() > 0)
    operator.kill()
    successor = system.start_operator("successor")
    wait_for("all fifty", lambda: ready() == 50, what=ready, log=successor.log)
    assert successor.terminate() == 0
    assert len({certificate_of(item).serial_number for item in listed()}) == 50
    transactions = system.transactions(tenant)
    assert len(transactions) == len(set(transactions)) == 50


@pytest.mark.spec("THREAT-31")
def test_a_second_replica_takes_over_from_one_that_was_killed_and_at_once_from_one_that_ended(
    system: System, alone: None, tenant: str
) -> None:
    first, second = system.start_operator("first"), None
    try:
        wait_for("the first to lead", lambda: system.metric(first, "est_operator_leader") == 1, log=first.log)
        second = system.start_operator("second")
        system.request(OURS, tenant, "one")
        system.until_reason(OURS, tenant, "one", "Issued")
        assert system.metric(second, "est_operator_leader") == 0
        first.kill()
        system.request(OURS, tenant, "two")
        system.until_reason(OURS, tenant, "two", "Issued")
        assert system.metric(second, "est_operator_leader") == 1
        assert second.terminate() == 0
        lease = system.get("leases", system.namespace, "est-issuer-operator")
        assert lease["spec"].get("holderIdentity", "") == ""
    finally:
        for process in (first, second):
            if process is not None:
                process.kill()


@pytest.mark.spec("THREAT-33")
def test_an_api_server_that_is_away_for_a_while_loses_nothing_and_restarts_nobody(system: System, operator: Process, tenant: str) -> None:
    system.until_reason("estissuers", tenant, "factory", "Checked")
    system.api.stop_apiserver()
    assert operator.alive()
    system.api.start_apiserver()
    system.request(OURS, tenant, "after")
    system.until_reason(OURS, tenant, "after", "Issued")
    assert operator.alive()
    assert system.http(operator, "healthz") == (200, "ok\n")


def test_a_door_that_rbac_refuses_is_off_and_the_others_work(system: System, alone: None, tenant: str) -> None:
    kubeconfig = operator_kubeconfig(system.api, system.namespace, doors=("est-issuer.io",))
    operator = system.start_operator("one-door", kubeconfig=kubeconfig)
    try:
        system.request(OURS, tenant, "web")
        system.until_reason(OURS, tenant, "web", "Issued")
        assert system.metric(operator, 'est_operator_door_off{door="cert-manager.io",why="Forbidden"}') == 1
        assert "door_off" in operator.log.read_text()
    finally:
        operator.terminate()
        operator_kubeconfig(system.api, system.namespace)


@pytest.mark.timeout(300)
def test_a_right_that_is_taken_away_ends_the_operator_with_a_sentence_and_started_anew_it_serves_the_other_door(
    system: System, alone: None, cert_manager: None, tenant: str
) -> None:
    operator = system.start_operator("deprived", relist_interval="2s")
    try:
        system.request(THEIRS, tenant, "before")
        system.decide(tenant, "before", "Approved")
        system.until_reason(THEIRS, tenant, "before", "Issued")
        operator_kubeconfig(system.api, system.namespace, doors=("est-issuer.io",))
        assert operator.process.wait(timeout=2 * GRACE_SECONDS + SOON_SECONDS) == 1  # one before "before" came, one before the end
        last = operator.log.read_text().splitlines()[-1]
        assert "the operator's ServiceAccount may not list certificaterequests.cert-manager.io any more" in last
        operator = system.start_operator("deprived", relist_interval="2s")
        assert system.metric(operator, 'est_operator_door_off{door="cert-manager.io",why="Forbidden"}') == 1
        system.request(OURS, tenant, "after")
        system.until_reason(OURS, tenant, "after", "Issued")
        assert operator.alive()
    finally:
        operator.kill()
        operator_kubeconfig(system.api, system.namespace)


def test_everything_can_be_deleted_while_no_operator_runs(system: System, alone: None, tenant: str) -> None:
    operator = system.start_operator("gone")
    system.request(OURS, tenant, "web")
    system.until_reason(OURS, tenant, "web", "Issued")
    operator.terminate()
    system.api.kubectl("delete", OURS, "web", "-n", tenant, "--timeout=10s")
    system.api.kubectl("delete", "estissuer", "factory", "-n", tenant, "--timeout=10s")


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        ({"est": {"label": "cacerts"}}, "the name of an EST operation"),
        ({"est": {"authentication": [{"certificate": {}}]}}, "set exactly one of issuedBy and caSecretName"),
        ({"est": {"authentication": [{}]}}, "set exactly one of certificate, basic, digest, oneTimePassword"),
        ({"policy": {"duration": {"default": "9000h"}}}, "default is longer than max"),
        ({"policy": {"duration": {"max": "0h"}}}, "a duration is more than nothing"),
        ({"ca": {"secretName": "other/secret"}}, "spec.ca.secretName"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused_with_a_sentence(
    system: System, tenant: str, patch: dict[str, object], message: str
) -> None:
    with pytest.raises(RuntimeError, match=message):
        system.api.kubectl("patch", "estissuer", "factory", "-n", tenant, "--type=merge", "-p", json.dumps({"spec": patch}))


@pytest.mark.spec("THREAT-23")
def test_the_spec_of_a_request_cannot_change(system: System, tenant: str) -> None:
    system.request(OURS, tenant, "web")
    with pytest.raises(RuntimeError, match="spec is immutable"):
        system.request(OURS, tenant, "web", dns_name="another.svc")


@pytest.mark.spec("K8S-CONTRACT-09", "K8S-CONTRACT-16")
def test_what_changed_about_a_request_is_told_by_events_once_each(
    system: System, operator: Process, cert_manager: None, tenant: str
) -> None:
    system.until_reason("estissuers", tenant, "factory", "Checked")
    system.request(THEIRS, tenant, "web", issuer="later")
    system.decide(tenant, "web", "Approved")
    system.until_reason(THEIRS, tenant, "web", "Pending")
    system.issuer(tenant, "later")
    uid = system.until_reason(THEIRS, tenant, "web", "Issued")["metadata"]["uid"]
    system.request(OURS, tenant, "refused", dns_name="kubernetes.default.svc")
    system.until_reason(OURS, tenant, "refused", "Failed")

    def told(name: str) -> list[tuple[str, str]]:
        selector = f"regarding.kind=CertificateRequest,regarding.name={name}"
        found = system.api.client.list("events.events.k8s.io", tenant, field_selector=selector)
        assert all(item["regarding"]["uid"] == uid for item in found if name == "web")
        return sorted((item["type"], item["reason"]) for item in found)

    wait_for("the Events", lambda: len(told("web")) == 2 and len(told("refused")) == 1, what=lambda: (told("web"), told("refused")))
    assert told("web") == [("Normal", "CertificateIssued"), ("Normal", "IssuerNotFound")]
    assert told("refused") == [("Warning", "PermanentError")]
    assert "PermanentError" in system.api.kubectl("events", "-n", tenant, f"--for={OURS}/refused")
    assert system.metric(operator, 'est_operator_events_total{result="refused"}') == 0
