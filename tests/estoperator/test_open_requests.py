from typing import Any

import pytest

from estoperator.doors import CERT_MANAGER
from estoperator.open_requests import OpenRequests, is_older
from estoperator.resources import CertRequest
from tests.estoperator.builders import APPROVED, FACTORY, READY_ISSUED, approved, csr_pem, pod_request, request_of, signing_request


def test_news_is_what_a_decision_hangs_on_and_nothing_else() -> None:
    seen = OpenRequests()
    assert seen.observe(request_of(CERT_MANAGER, version=1))
    assert not seen.observe(request_of(CERT_MANAGER, version=2, metadata={"labels": {"a": "b"}}))
    assert seen.observe(request_of(CERT_MANAGER, version=3, conditions=[APPROVED]))
    assert not seen.observe(approved(version=4))


@pytest.mark.parametrize(
    "edited",
    [
        {"issuer": {"group": "est-issuer.io", "kind": "EstIssuer", "name": "another"}},
        {"request": csr_pem("another.devices.svc")},
        {"duration": "2h"},
        {"usages": ["server auth"]},
        {"isCA": True},
    ],
)
def test_another_spec_is_news(edited: dict[str, Any]) -> None:
    """Without cert-manager's webhook the spec of its kind can be edited; a request that waits must not wait for what it no longer asks."""
    seen = OpenRequests()
    seen.observe(approved(version=1))
    assert seen.observe(approved(version=2, **edited))
    moved = "issuer" in edited
    assert [key.name for key in seen.of_issuer(FACTORY)] == ([] if moved else ["web"])
    assert [key.name for key in seen.of_issuer(FACTORY._replace(name="another"))] == (["web"] if moved else [])
    seen.forget(approved().key)
    assert len(seen) == 0


def test_our_own_pending_is_no_news() -> None:
    seen = OpenRequests()
    seen.observe(approved(version=1))
    pending = {"type": "Ready", "status": "False", "reason": "Pending"}
    assert not seen.observe(request_of(CERT_MANAGER, version=2, conditions=[APPROVED, pending]))
    kept = seen.get(approved().key)
    assert kept is not None
    assert kept.ready is not None


def test_an_older_version_never_replaces_a_newer() -> None:
    seen = OpenRequests()
    seen.observe(approved(version=10))
    assert not seen.observe(request_of(CERT_MANAGER, version=9))
    kept = seen.get(approved().key)
    assert kept is not None
    assert kept.approved


def test_another_object_of_the_same_name_is_news_whatever_its_version() -> None:
    seen = OpenRequests()
    seen.observe(approved(version=10))
    assert seen.observe(approved(version=9, metadata={"uid": "another"}))


def test_a_finished_request_leaves_nothing_behind() -> None:
    seen = OpenRequests()
    seen.observe(approved(version=1))
    assert not seen.observe(request_of(CERT_MANAGER, version=2, conditions=[APPROVED, READY_ISSUED]))
    assert len(seen) == 0
    assert list(seen.of_issuer(FACTORY)) == []


def test_the_requests_of_an_issuer_are_found() -> None:
    seen = OpenRequests()
    for name in ("a", "b"):
        seen.observe(request_of(name=name))
    seen.observe(request_of(name="c", issuer={"group": "est-issuer.io", "kind": "EstIssuer", "name": "another"}))
    assert sorted(key.name for key in seen.of_issuer(FACTORY)) == ["a", "b"]


def test_a_namespace_whose_labels_change_has_every_request_on_its_behalf_decided_again() -> None:
    """A CertificateSigningRequest has no namespace: it is its user's, or that of the issuer which it names."""
    seen = OpenRequests()
    fleet = "estclusterissuers.est-issuer.io/fleet"
    for request in (
        request_of(name="ours"),
        pod_request(),
        signing_request(signerName=fleet, username="system:serviceaccount:devices:web"),
    ):
        seen.observe(request)
    assert len(list(seen.of_namespace("devices"))) == len(seen) == 3
    assert list(seen.of_namespace("shop")) == list(seen.of_namespace("")) == []
    seen.forget(signing_request().key)
    seen.observe(signing_request(username="jane"))
    assert len(list(seen.of_namespace("devices"))) == 3, "of an EstIssuer of that namespace"


@pytest.mark.spec("THREAT-34")
@pytest.mark.parametrize(
    ("request_", "owner"),
    [
        pytest.param(request_of(namespace="shop"), "shop", id="CertificateRequest"),
        pytest.param(pod_request(namespace="shop"), "shop", id="pod"),
        pytest.param(signing_request(username="system:serviceaccount:shop:web"), "shop", id="ServiceAccount"),
        pytest.param(signing_request(username="shop"), "user:shop", id="person-called-like-a-namespace"),
        pytest.param(signing_request(username="system:serviceaccount:"), "user:system:serviceaccount:", id="no-account"),
    ],
)
def test_the_work_on_a_request_is_its_makers_whatever_issuer_it_names(request_: CertRequest, owner: str) -> None:
    """A signer's name costs nothing: by it whoever floods would take others' turns, or a new one for each request."""
    seen = OpenRequests()
    seen.observe(request_)
    assert seen.owner_of(request_.key) == owner
    seen.forget(request_.key)
    assert seen.owner_of(request_.key) == request_.key.namespace


def test_versions_are_compared_as_numbers() -> None:
    assert is_older("9", "10")
    assert not is_older("10", "9")
    assert not is_older("10", "10")
    assert not is_older("abc", "10")
