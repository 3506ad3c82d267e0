"""Requests of est-issuer.io that are finished go when their time is over, by the operator, on a real API server."""

import itertools
from collections.abc import Iterator

import pytest

from tests.integration.apiserver import ApiServer
from tests.integration.operator_system import OURS, THEIRS, System, condition, wait_for

pytestmark = pytest.mark.timeout(180)
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def system(cert_manager_crd: None, apiserver: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    started = System(apiserver, tmp_path_factory.mktemp("retention"), "retention-system")
    yield started
    started.stop()


@pytest.fixture
def tenant(system: System) -> str:
    system.shared_operator()
    namespace = system.tenant(f"retained-{next(_numbers)}")
    system.issuer(namespace)
    return namespace


def names(system: System, plural: str, namespace: str) -> set[str]:
    return {item["metadata"]["name"] for item in system.api.client.list(plural, namespace)}


def test_what_is_issued_or_refused_goes_after_its_time_and_nothing_else_does(system: System, tenant: str) -> None:
    system.request(THEIRS, tenant, "theirs")
    system.decide(tenant, "theirs", "Approved")
    system.until_reason(THEIRS, tenant, "theirs", "Issued")
    system.request(OURS, tenant, "kept")
    system.until_reason(OURS, tenant, "kept", "Issued")
    system.request(OURS, tenant, "open", issuer="absent", ttlSecondsAfterFinished=0)
    system.until_reason(OURS, tenant, "open", "Pending")
    system.request(OURS, tenant, "issued", ttlSecondsAfterFinished=1)
    system.request(OURS, tenant, "refused", dns_name="www.example.com", ttlSecondsAfterFinished=0)
    wait_for("the finished ones to go", lambda: names(system, OURS, tenant) == {"kept", "open"}, what=lambda: names(system, OURS, tenant))
    assert names(system, THEIRS, tenant) == {"theirs"}


def test_what_was_due_while_no_operator_ran_goes_when_one_starts(system: System, tenant: str) -> None:
    system.request(OURS, tenant, "brief", ttlSecondsAfterFinished=15)
    status = system.until_reason(OURS, tenant, "brief", "Issued")["status"]
    assert condition(status, "Ready")["status"] == "True"
    system.end_shared_operator()
    assert names(system, OURS, tenant) == {"brief"}
    system.shared_operator()
    wait_for("the request to go", lambda: names(system, OURS, tenant) == set())
