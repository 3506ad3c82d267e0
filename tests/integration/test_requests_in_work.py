"""What happens to a request while it is open or in work, at every door: edited, deleted, made anew, its issuer not ready or gone.

estserver is held where a request must be in work when something happens to it: its process stops, and no connection ends.
"""

import base64
import contextlib
import functools
import itertools
import signal
from collections.abc import Iterator

import pytest
from cryptography import x509

from tests import pki
from tests.integration.apiserver import ApiServer
from tests.integration.doorway import CERT_MANAGER, DOORWAYS, EST_ISSUER, POD_CERTIFICATES, SIGNING_REQUESTS, Doorway, outcome, rules
from tests.integration.operator_system import Process, System, condition, wait_for
from tests.integration.test_cert_manager_contract import authority, secret

pytestmark = pytest.mark.timeout(240)
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def system(cert_manager_crd: None, apiserver: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    started = System(apiserver, tmp_path_factory.mktemp("in-work"), "est-in-work-system")
    started.shared_operator()
    yield started
    started.stop()


@pytest.fixture
def operator(system: System) -> Iterator[Process]:
    """The operator, which every test leaves as it was: the same process, without a fault of its own."""
    running = system.shared_operator()
    yield running
    assert system.shared_operator() is running
    assert "internal_error" not in running.log.read_text()


@pytest.fixture
def tenant(system: System) -> str:
    """A namespace without an issuer. It names the requests, too, for one kind has no namespace."""
    return system.tenant(f"in-work-{next(_numbers)}")


@pytest.fixture
def served(system: System, tenant: str) -> str:
    """A namespace with an issuer that is ready."""
    system.issuer(tenant, rules=rules(tenant))
    system.until_reason("estissuers", tenant, "factory", "Checked")
    return tenant


def enrolling(system: System, operator: Process) -> float:
    return system.metric(operator, "est_operator_enrolments_in_progress")


def enrolments(system: System, operator: Process) -> float:
    return system.metric(operator, "est_operator_enrolment_seconds_count")


def until_all_issued(system: System, tenant: str) -> None:
    for doorway in DOORWAYS:
        doorway.until_issued(system, tenant, tenant)


@contextlib.contextmanager
def all_in_work(system: System, operator: Process, tenant: str) -> Iterator[None]:
    """One request of each door, which estserver does not answer before this ends."""
    before = enrolling(system, operator)
    system.server.process.send_signal(signal.SIGSTOP)
    try:
        for doorway in DOORWAYS:
            doorway.ask(system, tenant, tenant)
        wait_for("all in work", lambda: enrolling(system, operator) >= before + len(DOORWAYS), log=operator.log)
        yield
    finally:
        system.server.process.send_signal(signal.SIGCONT)


@pytest.mark.spec("K8S-CONTRACT-09")
def test_requests_for_an_issuer_that_is_not_ready_say_so_and_go_on_when_it_is(system: System, operator: Process, tenant: str) -> None:
    unready(system, tenant)
    for doorway in DOORWAYS:
        doorway.ask(system, tenant, tenant)
    for doorway in DOORWAYS:
        doorway.until_told(system, tenant, tenant, "IssuerNotReady")
        assert waits(system, doorway, tenant)
    system.issuer(tenant, rules=rules(tenant))
    until_all_issued(system, tenant)


@pytest.mark.spec("K8S-CONTRACT-22")
def test_an_issuer_that_is_deleted_with_requests_open_leaves_them_open_until_there_is_one_of_that_name(
    system: System, operator: Process, tenant: str
) -> None:
    unready(system, tenant)
    for doorway in DOORWAYS:
        doorway.ask(system, tenant, tenant)
        doorway.until_told(system, tenant, tenant, "IssuerNotReady")
    system.api.kubectl("delete", "estissuer", "factory", "-n", tenant)
    for doorway in DOORWAYS:
        if doorway in {EST_ISSUER, CERT_MANAGER}:  # Pending all the time, which is told once; the condition says why
            system.until(doorway.plural, tenant, tenant, lambda status: "not found" in condition(status, "Ready").get("message", ""))
            assert doorway.events(system, tenant, tenant) == ["IssuerNotReady"]
        else:
            doorway.until_told(system, tenant, tenant, "IssuerNotFound")
        assert waits(system, doorway, tenant)
    system.issuer(tenant, rules=rules(tenant))
    until_all_issued(system, tenant)


def test_an_issuer_that_is_deleted_with_requests_in_work_ends_none_without_a_certificate(
    system: System, operator: Process, served: str
) -> None:
    """Which of the two comes first is not ours to say: a request is issued, or waits for an issuer of that name."""
    with all_in_work(system, operator, served):
        system.api.client.delete("estissuers", "factory", served)
    for doorway in DOORWAYS:
        wait_for("an answer", functools.partial(answered, system, doorway, served))
    system.issuer(served, rules=rules(served))
    until_all_issued(system, served)


@pytest.mark.spec("THREAT-31")
def test_a_request_that_is_edited_while_in_work_is_judged_again_and_has_one_certificate(
    system: System, operator: Process, served: str
) -> None:
    asked = enrolments(system, operator)
    with all_in_work(system, operator, served):
        for doorway in DOORWAYS:
            doorway.patch(system, served, served, {"metadata": {"annotations": {"example.com/seen": "yes"}}})
    until_all_issued(system, served)
    assert enrolments(system, operator) - asked >= 2 * len(DOORWAYS), "each was in work when it was edited, and asked for again"
    transactions = system.transactions_named(served)
    assert len(transactions) == len(set(transactions)) == len(DOORWAYS)


def test_a_request_that_is_edited_to_name_another_issuer_while_it_waits_is_for_that_one(
    system: System, operator: Process, served: str
) -> None:
    """Of cert-manager's kind, where its webhook does not run: nothing about the issuer that it named before will ever happen."""
    CERT_MANAGER.ask(system, served, served, issuer="absent")
    CERT_MANAGER.until_told(system, served, served, "IssuerNotFound")
    CERT_MANAGER.patch(system, served, served, {"spec": {"issuerRef": {"name": "factory"}}})
    CERT_MANAGER.until_issued(system, served, served)


@pytest.mark.spec("K8S-CONTRACT-17")
def test_a_ca_below_two_others_gives_every_door_the_chain_without_the_root(system: System, operator: Process, tenant: str) -> None:
    """Contracts 17, 3a point 5 and 3b point 4: leaf first, then each one's issuer, which the API server checks of a pod's."""
    root = authority("Root CA")
    middle = authority("Middle CA", issuer=root)
    issuing = authority("Issuing CA", issuer=middle)
    above = [issuing.certificate, middle.certificate]
    system.api.apply(secret(tenant, "factory-ca", crt=pki.pem(*above), key=issuing.key_pem, ca=root.pem))
    system.issuer(tenant, rules=rules(tenant))
    for doorway in DOORWAYS:
        doorway.ask(system, tenant, tenant)
        status = doorway.until_ended(system, tenant, tenant)["status"]
        pem = status["certificateChain"].encode() if doorway is POD_CERTIFICATES else base64.b64decode(status["certificate"])
        leaf, *chain = x509.load_pem_x509_certificates(pem)
        leaf.verify_directly_issued_by(issuing.certificate)
        assert chain == above


def test_where_a_person_approves_the_approval_that_the_kind_has_is_theirs(system: System, operator: Process, served: str) -> None:
    """Of cert-manager's kind and of native requests Approved is set before anything is decided: nobody is asked a second time."""
    system.api.kubectl("patch", "estissuer", "factory", "-n", served, "--type=merge", "-p", '{"spec": {"est": {"approval": "Manual"}}}')
    system.until_issuer_ready(served, generation=2)
    for doorway in DOORWAYS:
        doorway.ask(system, served, served)
    for doorway in (CERT_MANAGER, SIGNING_REQUESTS):
        doorway.until_issued(system, served, served)
    EST_ISSUER.until_told(system, served, served, "ApprovalPending")
    assert waits(system, EST_ISSUER, served)
    assert outcome((POD_CERTIFICATES.until_ended(system, served, served))["status"]) == "ApprovalIsManual"
    only = system.api.kubectl("get", EST_ISSUER.plural, "-n", served, "-o", "name").split()
    assert only == [f"certificaterequest.est-issuer.io/{served}"], "what waits is the request itself, and estserver shows no other"


@pytest.mark.spec("THREAT-23")
def test_a_csr_that_is_exchanged_while_in_work_gets_no_certificate_of_the_one_before(
    system: System, operator: Process, served: str
) -> None:
    """Of cert-manager's kind, where its webhook does not run; the others' specs are immutable by themselves."""
    with all_in_work(system, operator, served):
        for doorway in DOORWAYS:
            other = {"spec": doorway.manifest(served, served, "factory", "another")["spec"]}
            if doorway is CERT_MANAGER:
                doorway.patch(system, served, served, other)
            elif doorway is EST_ISSUER:
                with pytest.raises(RuntimeError, match="immutable"):
                    doorway.patch(system, served, served, other)
            else:
                kept = (doorway.get(system, served, served) or {})["spec"]
                with contextlib.suppress(RuntimeError):  # a CertificateSigningRequest takes it, and keeps what it had
                    doorway.patch(system, served, served, other)
                assert (doorway.get(system, served, served) or {})["spec"] == kept
    for doorway in DOORWAYS:
        if doorway is not CERT_MANAGER:
            doorway.until_issued(system, served, served)
    status = CERT_MANAGER.until_ended(system, served, served)["status"]
    assert outcome(status) == "Failed"
    assert status["failureTime"]
    assert "certificate" not in status


@pytest.mark.spec("THREAT-31")
def test_a_request_that_is_deleted_while_in_work_is_not_made_again_by_what_is_written(
    system: System, operator: Process, served: str
) -> None:
    asked = enrolments(system, operator)
    with all_in_work(system, operator, served):
        for doorway in DOORWAYS:
            doorway.delete(system, served, served)
    wait_for("estserver to have answered", lambda: enrolments(system, operator) - asked >= len(DOORWAYS))
    later = f"{served}-later"
    for doorway in DOORWAYS:
        doorway.ask(system, served, later)
        doorway.until_issued(system, served, later)
        assert doorway.get(system, served, served) is None


@pytest.mark.spec("THREAT-31")
def test_a_request_that_is_made_anew_while_in_work_gets_a_certificate_for_its_own_key(
    system: System, operator: Process, served: str
) -> None:
    with all_in_work(system, operator, served):
        for doorway in DOORWAYS:
            doorway.delete(system, served, served)
            doorway.ask(system, served, served, owner="another")
    until_all_issued(system, served)
    transactions = system.transactions_named(served)
    assert len(transactions) == len(set(transactions)) == 2 * len(DOORWAYS)


def unready(system: System, namespace: str) -> None:
    """An issuer whose Secret is not there."""
    spec = {"ca": {"secretName": "factory-ca"}, "policy": {"rules": rules(namespace)}}
    metadata = {"name": "factory", "namespace": namespace}
    system.api.apply({"apiVersion": "est-issuer.io/v1alpha1", "kind": "EstIssuer", "metadata": metadata, "spec": spec})
    system.until_reason("estissuers", namespace, "factory", "SecretMissing")


def answered(system: System, doorway: Doorway, tenant: str) -> bool:
    """Issued, or without an issuer: who was told before that they wait is told of that by the condition alone."""
    status = (doorway.get(system, tenant, tenant) or {}).get("status") or {}
    without = "not found" in condition(status, "Ready").get("message", "") or "IssuerNotFound" in doorway.events(system, tenant, tenant)
    return without or outcome(status) != ""


def waits(system: System, doorway: Doorway, tenant: str) -> bool:
    """Whether the request is neither issued nor ended: Pending where the door has that, and nothing but an approval where not."""
    status = (doorway.get(system, tenant, tenant) or {}).get("status") or {}
    if doorway in {EST_ISSUER, CERT_MANAGER}:
        return condition(status, "Ready")["reason"] == "Pending" and "failureTime" not in status
    return {found["type"] for found in status.get("conditions", [])} <= {"Approved"} and outcome(status) == ""
