"""The chart's admission policy of CertificateSigningRequests on a real API server: what an approver saw is what is issued."""

import functools
import itertools
import json
import ssl
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest

from tests.chart.rendering import render
from tests.integration.api_client import Object
from tests.integration.apiserver import ApiServer
from tests.integration.operator_system import System, wait_for
from tests.integration.rights import RBAC
from tests.integration.test_signing_requests import leaf_of, manifest, until_ended

pytestmark = pytest.mark.timeout(240)

RELEASE = "est-annotations"
DURATION, IS_CA = "experimental.cert-manager.io/request-duration", "experimental.cert-manager.io/request-is-ca"
OURS = ("estissuers.est-issuer.io/devices.factory", "estclusterissuers.est-issuer.io/fleet")
FOREIGN = "kubernetes.io/kube-apiserver-client"
PATH = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
WAYS = ("", "/approval", "/status")
TENANT = "annotations-tenant"
"""Holds every right there is on the kind, its subresources and our signers."""

CHANGES: dict[str, dict[str, str]] = {
    "added": {DURATION: "3h", IS_CA: "true"},
    "added without a value": {DURATION: "3h", IS_CA: ""},
    "changed": {DURATION: "9000h"},
    "changed to nothing": {DURATION: ""},
    "removed": {},
    "exchanged": {IS_CA: "true"},
}
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def api(apiserver: ApiServer) -> Iterator[ApiServer]:
    """The API server while the policy holds: of a release's objects the policy and its binding, as they are."""
    manifests = [one for one in render({"fullnameOverride": RELEASE}) if one["metadata"]["name"] == f"{RELEASE}-signingrequests"]
    assert [one["kind"] for one in manifests] == ["ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"]
    group = "certificates.k8s.io"
    rules: list[dict[str, Any]] = [
        {"apiGroups": [group], "resources": [f"certificatesigningrequests{way}" for way in WAYS], "verbs": ["*"]},
        {"apiGroups": [group], "resources": ["signers"], "verbs": ["approve", "sign"]},
    ]
    subjects = [{"apiGroup": RBAC, "kind": "User", "name": TENANT}]
    role_ref = {"apiGroup": RBAC, "kind": "ClusterRole", "name": RELEASE}
    apiserver.apply(
        *manifests,
        {"apiVersion": f"{RBAC}/v1", "kind": "ClusterRole", "metadata": {"name": RELEASE}, "rules": rules},
        {
            "apiVersion": f"{RBAC}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": RELEASE},
            "roleRef": role_ref,
            "subjects": subjects,
        },
    )
    asked = manifest("rights", OURS[0], "web.devices.svc", usages=["digital signature", "client auth"])
    wait_for("the tenant's rights", lambda: said(call(apiserver, "POST", "?dryRun=All", asked, user=TENANT)) == "")
    probe = made(apiserver, OURS[0])
    wait_for("the policy", lambda: put(apiserver, probe, CHANGES["added"], dry_run=True) != "")
    yield apiserver
    _client(apiserver).close()
    apiserver.kubectl("delete", "validatingadmissionpolicy,validatingadmissionpolicybinding", f"{RELEASE}-signingrequests")


def call(
    api: ApiServer, method: str, path: str, body: Object | None = None, *, user: str = "", content_type: str = "json"
) -> httpx.Response:
    """One call as a user, or as the administrator: kubectl would take most of the time of these tests to start."""
    headers = {"Authorization": f"Bearer {api.admin_token}", "Content-Type": f"application/{content_type}"}
    if user:
        headers["Impersonate-User"] = user
    return _client(api).request(method, f"{PATH}{path}", headers=headers, content=None if body is None else json.dumps(body))


@functools.cache
def _client(api: ApiServer) -> httpx.Client:
    return httpx.Client(base_url=api.url, verify=ssl.create_default_context(cadata=api.ca_pem.decode()), timeout=30)


def said(answer: httpx.Response) -> str:
    """What was said against a call; empty where it was done."""
    message: str = "" if answer.is_success else answer.json()["message"]
    return message


def made(api: ApiServer, signer: str, annotations: dict[str, str] | None = None) -> str:
    """A new request for a signer, made by the tenant."""
    name = f"annotated-{next(_numbers)}"
    request = manifest(name, signer, "web.devices.svc", usages=["digital signature", "client auth"])
    if annotations is not None:
        request["metadata"]["annotations"] = annotations
    assert said(call(api, "POST", "", request, user=TENANT)) == ""
    return name


def read(api: ApiServer, name: str) -> Object:
    found: Object = call(api, "GET", f"/{name}").json()
    return found


def put(
    api: ApiServer, name: str, annotations: dict[str, str], *, way: str = "", user: str = "", dry_run: bool = False, **labels: str
) -> str:
    """Write the request back, whole but for annotations and labels, to itself or a subresource; what was said against it."""
    body = read(api, name)
    body["metadata"] |= {"annotations": annotations, "labels": labels}
    return said(call(api, "PUT", f"/{name}{way}{'?dryRun=All' if dry_run else ''}", body, user=user))


def approve(api: ApiServer, name: str) -> str:
    """What `kubectl certificate approve` does, as the tenant; what was said against it."""
    body = read(api, name)
    condition = {"type": "Approved", "status": "True", "reason": "Seen", "message": "with its annotations"}
    body["status"] = {"conditions": [condition]}
    return said(call(api, "PUT", f"/{name}/approval", body, user=TENANT))


@pytest.mark.spec("THREAT-01", "THREAT-23", "K8S-CONTRACT-21")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("approved", [False, True], ids=["before the approval", "after it"])
@pytest.mark.parametrize("signer", OURS)
def test_an_annotation_that_is_honoured_is_neither_added_nor_changed_nor_removed(
    api: ApiServer, signer: str, approved: bool, way: str
) -> None:
    name = made(api, signer, {DURATION: "3h"})
    if approved:
        assert approve(api, name) == ""
    for change, annotations in CHANGES.items():
        for user in (TENANT, ""):
            refusal = put(api, name, annotations, way=way, user=user)
            assert "is as the request was created with it; create another" in refusal, change
            assert all(key in refusal for key in {DURATION, IS_CA} if annotations.get(key) != {DURATION: "3h"}.get(key)), change
    assert read(api, name)["metadata"]["annotations"] == {DURATION: "3h"}


@pytest.mark.spec("THREAT-01")
def test_a_request_without_annotations_gets_none_that_is_honoured(api: ApiServer) -> None:
    name = made(api, OURS[0])
    for way in WAYS:
        assert IS_CA in put(api, name, {IS_CA: "true"}, way=way, user=TENANT)
        patch = {"metadata": {"annotations": {IS_CA: "true"}}}
        assert IS_CA in said(call(api, "PATCH", f"/{name}{way}", patch, user=TENANT, content_type="merge-patch+json"))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("annotations", [{}, {DURATION: "3h", IS_CA: "true"}], ids=["none that is honoured", "both"])
def test_other_annotations_and_labels_come_and_go(api: ApiServer, annotations: dict[str, str], way: str) -> None:
    name = made(api, OURS[0], annotations or None)
    for others in ({"example.com/ticket": "1"}, {"example.com/ticket": "2", "experimental.cert-manager.io/other": "x"}, {}):
        assert put(api, name, annotations | others, way=way, user=TENANT, team="a") == ""
        assert read(api, name)["metadata"].get("annotations", {}) == annotations | others
        assert put(api, name, annotations | others, way=way, user=TENANT) == ""
    assert "labels" not in read(api, name)["metadata"]


def test_what_names_another_signer_is_left_alone(api: ApiServer) -> None:
    for signer in (FOREIGN, "estissuers.est-issuer.io.example.com/devices.factory"):
        name = made(api, signer, {DURATION: "3h"})
        for way in WAYS:
            for change in CHANGES.values():
                assert put(api, name, change, way=way, user=TENANT) == ""
                assert read(api, name)["metadata"].get("annotations", {}) == change


@pytest.mark.spec("K8S-CONTRACT-21")
def test_approval_and_the_operators_status_pass_and_the_life_is_the_one_that_the_approver_saw(
    api: ApiServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    system = System(api, tmp_path_factory.mktemp("annotations"), RELEASE)
    try:
        system.shared_operator()
        namespace = system.tenant(f"{RELEASE}-tenant")
        rules = [{"from": {"namespaces": [namespace]}, "dnsNames": ["web.devices.svc"]}]
        system.issuer(namespace, rules=rules, duration={"default": "2h", "max": "24h"})
        system.until_reason("estissuers", namespace, "factory", "Checked")
        reference = {"apiGroups": ["est-issuer.io"], "resources": ["signers"], "verbs": ["reference"], "resourceNames": ["factory"]}
        metadata = {"name": "reference", "namespace": namespace}
        role_ref = {"apiGroup": RBAC, "kind": "Role", "name": "reference"}
        api.apply(
            {"apiVersion": f"{RBAC}/v1", "kind": "Role", "metadata": metadata, "rules": [reference]},
            {
                "apiVersion": f"{RBAC}/v1",
                "kind": "RoleBinding",
                "metadata": metadata,
                "roleRef": role_ref,
                "subjects": [{"apiGroup": RBAC, "kind": "User", "name": TENANT}],
            },
        )
        name = made(api, f"estissuers.est-issuer.io/{namespace}.factory", {DURATION: "3h"})
        assert put(api, name, {DURATION: "20h"}, user=TENANT) != ""
        assert approve(api, name) == ""
        leaf = leaf_of(until_ended(system, name))
        assert leaf.not_valid_after_utc - leaf.not_valid_before_utc == timedelta(hours=3)
        assert put(api, name, {DURATION: "20h"}, user=TENANT) != ""
    finally:
        system.stop()
