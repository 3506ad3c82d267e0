"""What an issuer's status says, as a table over its object, estserver's word and estserver's silence."""

from typing import Any

import pytest

from estcore.errors import MalformedResponse
from estoperator import issuer_state, object_reader
from estoperator.issuer_state import Facts, Untold
from estoperator.resources import Issuer, IssuerRef
from tests.estoperator.builders import FACTORY, NOW, authority

CA = {"subject": "CN=Factory CA", "notAfter": "2036-01-01T00:00:00Z", "sha256": "ab" * 32}


def issuer(*, generation: int = 2, uid: str = "u1", spec: dict[str, Any] | None = None, status: dict[str, Any] | None = None) -> Issuer:
    metadata = {"name": "factory", "namespace": "devices", "uid": uid, "generation": generation, "resourceVersion": "5"}
    body = {"metadata": metadata, "spec": spec or {"ca": {"secretName": "factory-ca"}}, **({"status": status} if status else {})}
    return object_reader.read_issuer("EstIssuer", body)


def entry(**fields: Any) -> dict[str, Any]:
    return {
        "kind": "EstIssuer",
        "namespace": "devices",
        "name": "factory",
        "uid": "u1",
        "generation": 2,
        "state": "Ready",
        "reason": "Checked",
        "message": "",
        "label": "devices.factory",
        "caBundle": authority().pem.decode(),
        "ca": CA,
        **fields,
    }


def facts(**fields: Any) -> Facts:
    return issuer_state.read_facts(entry(**fields))


def ready_of(status: dict[str, Any] | None) -> tuple[str, str, str, int]:
    assert status is not None
    (condition,) = status["conditions"]
    return condition["status"], condition["reason"], condition["message"], condition["observedGeneration"]


NOT_READ = "estserver has not read generation 2 of this issuer yet"


@pytest.mark.parametrize(
    ("known", "untold", "expected"),
    [
        pytest.param(facts(), None, ("True", "Checked", "Succeeded checking the issuer", 2), id="ready"),
        pytest.param(
            facts(state="NotReady", reason="SecretMissing", message="no Secret"),
            None,
            ("False", "SecretMissing", "no Secret", 2),
            id="not-ready-with-estservers-reason",
        ),
        pytest.param(
            facts(state="Ready", caBundle="", reason="Checked", message="x"),
            None,
            ("False", "Checked", "x", 2),
            id="never-ready-without-a-ca",
        ),
        pytest.param(facts(generation=1), None, ("False", "Pending", NOT_READ, 2), id="another-generation"),
        pytest.param(facts(uid="u0"), None, ("False", "Pending", NOT_READ, 2), id="another-uid"),
        pytest.param(None, None, ("False", "Pending", NOT_READ, 2), id="not-listed"),
        pytest.param(
            facts(),
            issuer_state.unavailable("gone"),
            ("Unknown", "EstServerUnavailable", "estserver does not answer: gone", 2),
            id="estserver-away",
        ),
    ],
)
@pytest.mark.spec("K8S-CONTRACT-26")
def test_the_ready_condition(known: Facts | None, untold: Untold | None, expected: tuple[str, str, str, int]) -> None:
    status = issuer_state.status(issuer(), known, untold=untold, settled=True, now=NOW)
    assert ready_of(status) == expected
    assert issuer_state.state(issuer(), known, untold=untold, ready_since=NOW).ready == (expected[0] == "True")


def test_a_spec_that_does_not_parse_is_not_ready_whatever_estserver_says() -> None:
    broken = issuer(spec={"ca": {"secretName": "A/B"}})
    status = issuer_state.status(broken, facts(), untold=None, settled=True, now=NOW)
    assert ready_of(status)[:2] == ("False", "InvalidSpec")


def test_estserver_has_some_seconds_to_read_a_change_before_anything_is_written() -> None:
    assert issuer_state.status(issuer(), facts(generation=1), untold=None, settled=False, now=NOW) is None


def test_the_status_publishes_the_bundle_and_where_est_is() -> None:
    status = issuer_state.status(issuer(), facts(url="https://est.example/x"), untold=None, settled=True, now=NOW)
    assert status is not None
    assert status["ca"] == {**CA, "phase": "Active", "bundle": authority().pem.decode()}
    assert status["est"] == {"url": "https://est.example/x", "label": "devices.factory"}


def test_nothing_is_written_when_it_is_there_already() -> None:
    first = issuer_state.status(issuer(), facts(), untold=None, settled=True, now=NOW)
    assert issuer_state.status(issuer(status=first), facts(), untold=None, settled=True, now=NOW) is None


def test_what_was_published_stays_while_estserver_is_away() -> None:
    first = issuer_state.status(issuer(), facts(), untold=None, settled=True, now=NOW)
    away = issuer_state.status(issuer(status=first), None, untold=issuer_state.unavailable("gone"), settled=True, now=NOW)
    assert first is not None
    assert away is not None
    assert (away["ca"], away["est"]) == (first["ca"], first["est"])


@pytest.mark.spec("THREAT-24")
def test_a_forged_status_does_not_make_an_issuer_ready() -> None:
    forged = {"conditions": [{"type": "Ready", "status": "True", "reason": "Checked", "observedGeneration": 2}]}
    assert not issuer_state.state(issuer(status=forged), None, untold=None, ready_since=None).ready


@pytest.mark.parametrize(
    "broken", [None, [], {}, entry(uid=1) | {"ca": 3}, {"kind": "EstIssuer"}, entry(caBundle="no PEM"), entry(caBundle="é")]
)
def test_a_list_that_is_none_is_a_malformed_response(broken: object) -> None:
    with pytest.raises(MalformedResponse):
        issuer_state.read_facts(broken)


def test_a_cluster_issuer_has_no_namespace() -> None:
    assert facts(kind="EstClusterIssuer", namespace="", name="fleet").ref == IssuerRef("EstClusterIssuer", "", "fleet")
    assert facts().ref == FACTORY
