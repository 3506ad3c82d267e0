from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from estoperator import go_duration, object_reader
from estoperator.doors import CERT_MANAGER, EST_ISSUER, KubernetesDoor
from estoperator.resources import IssuerRef
from tests import pki
from tests.estoperator import builders
from tests.estoperator.builders import APPROVED, DENIED, READY_ISSUED, body

CERT_MANAGER_CRD = yaml.safe_load((Path(__file__).parents[1] / "vectors" / "cert-manager.io_certificaterequests.yaml").read_text())


@pytest.mark.parametrize(
    ("issuer", "why"),
    [
        ({"group": "cert-manager.io", "kind": "Issuer", "name": "x"}, "another group"),
        ({"name": "factory"}, "an empty group is cert-manager.io's own"),
        ({"group": "", "kind": "EstIssuer", "name": "factory"}, "an empty group is cert-manager.io's own"),
        ({"group": "est-issuer.io", "name": "factory"}, "an empty kind is cert-manager's Issuer"),
        ({"group": "est-issuer.io", "kind": "Issuer", "name": "factory"}, "a kind that is not ours"),
    ],
)
@pytest.mark.spec("K8S-CONTRACT-01")
def test_a_request_for_somebody_elses_issuer_is_not_ours(issuer: dict[str, str], why: str) -> None:
    assert object_reader.read_request(CERT_MANAGER, body(CERT_MANAGER, issuer=issuer)) is None, why


@pytest.mark.spec("K8S-CONTRACT-01")
def test_a_request_without_spec_is_not_ours() -> None:
    """The schema of cert-manager's CRD lets it pass."""
    schema = CERT_MANAGER_CRD["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    assert "spec" not in schema.get("required", ())
    without = {name: value for name, value in body(CERT_MANAGER).items() if name != "spec"}
    assert object_reader.read_request(CERT_MANAGER, without) is None


@pytest.mark.spec("K8S-CONTRACT-02", "THREAT-21")
def test_a_namespaced_issuer_is_the_one_of_the_requests_own_namespace_and_a_cluster_issuer_has_none() -> None:
    cluster = {"group": "est-issuer.io", "kind": "EstClusterIssuer", "name": "fleet", "namespace": "other"}
    assert builders.request_of(namespace="lab").issuer == IssuerRef("EstIssuer", "lab", "factory")
    assert builders.request_of(issuer=cluster).issuer == IssuerRef("EstClusterIssuer", "", "fleet")


@pytest.mark.parametrize(
    ("status", "conditions"),
    [
        ({}, [READY_ISSUED]),
        ({}, [{"type": "Ready", "status": "False", "reason": "Failed"}]),
        ({}, [{"type": "Ready", "status": "False", "reason": "Denied"}]),
        ({}, [{"type": "InvalidRequest", "status": "True", "reason": "BadCsr"}]),
        ({"certificate": "LS0t"}, []),
    ],
)
@pytest.mark.spec("K8S-CONTRACT-03")
def test_a_request_is_finished_once_for_all(status: dict[str, str], conditions: list[dict[str, str]]) -> None:
    assert builders.request_of(CERT_MANAGER, status=status, conditions=[APPROVED, *conditions]).finished


@pytest.mark.spec("K8S-CONTRACT-03")
def test_a_request_that_is_being_deleted_is_nothing_to_us() -> None:
    assert object_reader.read_request(EST_ISSUER, body(metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"})) is None


@pytest.mark.spec("THREAT-23")
@pytest.mark.parametrize("conditions", [[], [APPROVED], [DENIED]])
def test_a_request_that_came_by_est_is_estservers_and_never_enrolled(conditions: list[dict[str, str]]) -> None:
    opened = replace(EST_ISSUER)  # the operator watches a copy, in the version that is served
    for door in (EST_ISSUER, opened):
        waiting = body(EST_ISSUER, conditions=conditions)
        assert object_reader.read_request(door, waiting) is not None
        waiting["spec"]["origin"] = "EST"
        assert object_reader.read_request(door, waiting) is None


@pytest.mark.parametrize(
    ("door", "conditions", "approved", "denied"),
    [
        (CERT_MANAGER, [], False, False),
        (CERT_MANAGER, [APPROVED], True, False),
        (CERT_MANAGER, [APPROVED | {"status": "False"}], False, False),
        (CERT_MANAGER, [APPROVED, DENIED], True, True),
        (EST_ISSUER, [], True, False),
        (EST_ISSUER, [DENIED], True, True),
    ],
)
@pytest.mark.spec("K8S-CONTRACT-06")
def test_approval_is_read_from_conditions_that_are_true(
    door: KubernetesDoor, conditions: list[dict[str, str]], approved: bool, denied: bool
) -> None:
    request = builders.request_of(door, conditions=conditions)
    assert (request.approved, request.denied) == (approved, denied)


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("2160h0m0s", timedelta(hours=2160)),
        ("2160h", timedelta(hours=2160)),
        ("1.5h", timedelta(minutes=90)),
        ("1h30m", timedelta(minutes=90)),
        ("1500ms", timedelta(seconds=1.5)),
        ("-1h", -timedelta(hours=1)),
        ("3us", timedelta(microseconds=3)),
    ],
)
def test_a_go_duration_is_read_as_go_reads_it(text: str, duration: timedelta) -> None:
    assert go_duration.parse_go_duration(text) == duration


@pytest.mark.parametrize("text", ["", "1", "h", "1d", "1h ", "\uff19h", "1e3h", "9" * 40 + "h", "1h" * 40, "2700000h"])
def test_what_is_no_go_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration|years"):
        go_duration.parse_go_duration(text)


def test_an_issuer_whose_spec_does_not_parse_says_which_field() -> None:
    metadata = {"name": "factory", "namespace": "devices", "uid": "u", "generation": 1, "resourceVersion": "3"}
    issuer = object_reader.read_issuer("EstIssuer", {"metadata": metadata, "spec": {"ca": {"secretName": "A/B"}}})
    assert issuer.spec is None
    assert issuer.problem.startswith("spec.ca.secretName")


def test_a_view_keeps_no_more_than_what_a_decision_needs() -> None:
    request = builders.request_of(username="somebody", extra={"scopes": ["a"] * 50}, groups=["g"] * 100)
    assert not hasattr(request, "__dict__")
    assert request.created == pki.EPOCH
