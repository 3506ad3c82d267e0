"""What the chart's two ServiceAccounts may do, as the API server says and does it: the whole list, and forty calls that it refuses."""

import base64
import json
import ssl
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests import pki
from tests.chart.rendering import NAMESPACE, render
from tests.estoperator.builders import armour
from tests.integration.apiserver import ApiServer
from tests.integration.operator_system import wait_for
from tests.integration.test_pod_certificates import stub

pytestmark = pytest.mark.timeout(180)

GOLDEN = Path(__file__).with_name("golden")
ELSEWHERE = "rights-elsewhere"
"""A namespace that no value of the chart names."""

ACCOUNTS = {"operator": "est-issuer-operator", "server": "est-issuer-server"}
RIGHTS = {"ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"}
APPLY = "application/apply-patch+yaml"

CORE, EST, THEIR = "/api/v1", "/apis/est-issuer.io/v1alpha1", "/apis/cert-manager.io/v1"
CERTIFICATES, RBAC = "/apis/certificates.k8s.io/v1", "/apis/rbac.authorization.k8s.io/v1"
LEASES = "/apis/coordination.k8s.io/v1/namespaces"
EVENTS = "/apis/events.k8s.io/v1"

FORBIDDEN = {
    "operator": [
        ("GET", f"{CORE}/secrets"),
        ("GET", f"{CORE}/secrets?watch=true&timeoutSeconds=1"),
        ("GET", f"{CORE}/namespaces/{NAMESPACE}/secrets"),
        ("GET", f"{CORE}/namespaces/{NAMESPACE}/secrets/factory-ca"),
        ("POST", f"{CORE}/namespaces/{NAMESPACE}/secrets"),
        ("DELETE", f"{CORE}/namespaces/{NAMESPACE}/secrets/factory-ca"),
        ("POST", f"{CORE}/namespaces/{NAMESPACE}/serviceaccounts/est-issuer-server/token"),
        ("POST", f"{CORE}/namespaces/{NAMESPACE}/pods"),
        ("POST", f"{CORE}/namespaces/{NAMESPACE}/pods/est-issuer-server-0/exec?command=id"),
        ("GET", f"{CORE}/nodes"),
        ("PATCH", f"{CORE}/namespaces/{ELSEWHERE}"),
        ("POST", f"{EST}/namespaces/{ELSEWHERE}/certificaterequests"),
        ("PATCH", f"{EST}/namespaces/{ELSEWHERE}/certificaterequests/web"),
        ("POST", f"{EST}/namespaces/{ELSEWHERE}/estissuers"),
        ("PATCH", f"{EST}/namespaces/{ELSEWHERE}/estissuers/factory"),
        ("DELETE", f"{EST}/namespaces/{ELSEWHERE}/estissuers/factory"),
        ("PATCH", f"{EST}/estclusterissuers/factory"),
        ("POST", f"{THEIR}/namespaces/{ELSEWHERE}/certificaterequests"),
        ("PATCH", f"{THEIR}/namespaces/{ELSEWHERE}/certificaterequests/web"),
        ("DELETE", f"{THEIR}/namespaces/{ELSEWHERE}/certificaterequests/web"),
        ("PUT", f"{THEIR}/namespaces/{ELSEWHERE}/certificaterequests/web/status"),
        ("POST", f"{CERTIFICATES}/certificatesigningrequests"),
        ("DELETE", f"{CERTIFICATES}/certificatesigningrequests/web"),
        ("PATCH", f"{CERTIFICATES}/certificatesigningrequests/web/approval"),
        ("GET", f"{LEASES}/{NAMESPACE}/leases/another"),
        ("DELETE", f"{LEASES}/{NAMESPACE}/leases/est-issuer-operator"),
        ("GET", f"{LEASES}/{ELSEWHERE}/leases/est-issuer-operator"),
        ("GET", f"{EVENTS}/events"),
        ("DELETE", f"{EVENTS}/namespaces/{ELSEWHERE}/events/web.0"),
        ("POST", f"{RBAC}/clusterrolebindings"),
        ("PATCH", f"{RBAC}/clusterroles/est-issuer-operator"),
        ("POST", "/apis/authentication.k8s.io/v1/tokenreviews"),
        ("PATCH", "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/est-issuer"),
        (
            "DELETE",
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/things.example.com",
        ),  # of another: 1.37.2 deletes a CRD on a dry run too
    ],
    "server": [
        ("GET", f"{CORE}/secrets"),
        ("GET", f"{CORE}/namespaces/{ELSEWHERE}/secrets/factory-ca"),
        ("PUT", f"{CORE}/namespaces/{NAMESPACE}/secrets/factory-ca"),
        ("DELETE", f"{CORE}/namespaces/{NAMESPACE}/secrets/factory-ca"),
        ("GET", f"{CORE}/namespaces/{NAMESPACE}/configmaps"),
        ("PUT", f"{CORE}/namespaces/{NAMESPACE}/configmaps/another"),
        ("DELETE", f"{CORE}/namespaces/{NAMESPACE}/configmaps/est-issuer-serving-ca"),
        ("POST", f"{CORE}/namespaces/{NAMESPACE}/serviceaccounts/est-issuer-operator/token"),
        ("POST", f"{CORE}/namespaces/{NAMESPACE}/pods"),
        ("PATCH", f"{EST}/namespaces/{ELSEWHERE}/certificaterequests/web"),
        ("PATCH", f"{EST}/namespaces/{ELSEWHERE}/certificaterequests/web/status"),
        ("PATCH", f"{EST}/namespaces/{ELSEWHERE}/estissuers/factory"),
        ("PATCH", f"{EST}/namespaces/{ELSEWHERE}/estissuers/factory/status"),
        ("GET", f"{THEIR}/certificaterequests"),
        ("GET", f"{CERTIFICATES}/certificatesigningrequests"),
        ("POST", f"{CERTIFICATES}/clustertrustbundles"),
        ("GET", f"{LEASES}/{NAMESPACE}/leases/est-issuer-operator"),
        ("POST", f"{EVENTS}/namespaces/{ELSEWHERE}/events"),
        ("POST", f"{RBAC}/namespaces/{NAMESPACE}/rolebindings"),
        ("PATCH", f"{RBAC}/namespaces/{NAMESPACE}/roles/est-issuer-server"),
    ],
}
CALLS = [(account, *call) for account, calls in FORBIDDEN.items() for call in calls]


@pytest.fixture(scope="module")
def api(cert_manager_crd: None, apiserver: ApiServer) -> Iterator[ApiServer]:
    """The API server with the rights of a release of default values, and cert-manager's CRD."""
    for namespace in (NAMESPACE, ELSEWHERE):
        apiserver.ensure_namespace(namespace)
    rights = [{**manifest} for manifest in render() if manifest["kind"] in RIGHTS]
    for manifest in rights:
        if manifest["kind"] in {"ServiceAccount", "Role", "RoleBinding"}:
            manifest["metadata"].setdefault("namespace", NAMESPACE)
    apiserver.apply(*rights)
    yield apiserver
    apiserver.kubectl("delete", "-f", "-", stdin="\n---\n".join(map(json.dumps, rights)))


@pytest.fixture(scope="module")
def tokens(api: ApiServer) -> Mapping[str, str]:
    return {account: api.token_for(NAMESPACE, name) for account, name in ACCOUNTS.items()} | {"admin": api.admin_token}


def call(
    api: ApiServer, token: str, method: str, path: str, *, body: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
) -> tuple[int, dict[str, Any]]:
    """One request that changes nothing, whoever may make it; the status and the answer, which is a metav1.Status where it is refused."""
    if method != "GET":
        path += ("&" if "?" in path else "?") + "dryRun=All" + ("&fieldManager=rights&force=true" if method == "PATCH" else "")
    sent = None if method == "GET" else json.dumps(body or {}).encode()
    content = {"Content-Type": APPLY if method == "PATCH" else "application/json"}
    request = urllib.request.Request(  # noqa: S310 - our own https address
        api.url + path, data=sent, method=method, headers={"Authorization": f"Bearer {token}", **content, **(headers or {})}
    )
    try:
        with urllib.request.urlopen(request, context=ssl.create_default_context(cadata=api.ca_pem.decode()), timeout=20) as answer:  # noqa: S310
            return answer.status, {}
    except urllib.error.HTTPError as error:
        said = error.read()
        try:
            return error.code, json.loads(said)
        except ValueError:
            return error.code, {"message": said.decode(errors="replace")}


def listed(api: ApiServer, account: str, namespace: str) -> list[str]:
    """The rows of `kubectl auth can-i --list`, spaces made one; the API server merges verbs in no order, so they are sorted."""
    rows = []
    for row in api.kubectl("auth", "can-i", "--list", f"--as=system:serviceaccount:{NAMESPACE}:{account}", "-n", namespace).splitlines():
        rest, _, verbs = row.rpartition("[")
        rows.append(" ".join(f"{rest}[{' '.join(sorted(verbs.removesuffix(']').split()))}]".split()) if rest else " ".join(row.split()))
    return rows


def rights_of(api: ApiServer, account: str) -> str:
    """What the account may do in the release's namespace and elsewhere, without the rows that every ServiceAccount has."""
    lists = []
    for namespace in (NAMESPACE, ELSEWHERE):
        header, *rows = listed(api, ACCOUNTS[account], namespace)
        own = sorted(set(rows) - set(listed(api, "nobody", namespace)))
        lists.append("\n".join([f"# {ACCOUNTS[account]} in namespace {namespace}", header, *own]))
    return "\n\n".join(lists) + "\n"


@pytest.mark.parametrize("account", ACCOUNTS)
@pytest.mark.spec("THREAT-26")
def test_the_api_server_lists_these_rights_and_no_more(api: ApiServer, account: str, tmp_path: Path) -> None:
    golden = GOLDEN / f"rights-{account}.txt"
    with suppress(AssertionError):  # said better below
        wait_for("the rights", lambda: rights_of(api, account) == golden.read_text(), seconds=10)
    found = rights_of(api, account)
    (tmp_path / account).write_text(found)
    assert found == golden.read_text(), f"rights changed; if that is meant: cp {tmp_path / account} {golden.relative_to(Path.cwd())}"


def test_there_are_forty_calls_at_least() -> None:
    assert len(set(CALLS)) == len(CALLS) >= 40


@pytest.mark.parametrize(("account", "method", "path"), CALLS)
@pytest.mark.spec("THREAT-26")
def test_a_call_beyond_the_rights_is_forbidden(api: ApiServer, tokens: Mapping[str, str], account: str, method: str, path: str) -> None:
    status, said = call(api, tokens[account], method, path)
    assert (status, said["reason"]) == (403, "Forbidden")
    assert f'"system:serviceaccount:{NAMESPACE}:{ACCOUNTS[account]}" cannot' in said["message"]
    # No call is refused because there is no such thing: the administrator's reaches it.
    status, said = call(api, tokens["admin"], method, path)
    assert status != 403
    assert "could not find the requested resource" not in said.get("message", "")
    assert "page not found" not in said.get("message", "")


@pytest.mark.parametrize("account", ACCOUNTS)
@pytest.mark.parametrize("header", [{"Impersonate-User": "admin"}, {"Impersonate-User": "nobody", "Impersonate-Group": "system:masters"}])
@pytest.mark.spec("THREAT-26")
def test_nobody_else_can_be_impersonated(api: ApiServer, tokens: Mapping[str, str], account: str, header: dict[str, str]) -> None:
    status, said = call(api, tokens[account], "GET", f"{CORE}/namespaces", headers=header)
    assert status == 403
    assert "cannot impersonate" in said["message"]


@pytest.mark.parametrize("signer", ["kubernetes.io/kube-apiserver-client", "example.com/another", "estissuers.example.com/pki.factory"])
@pytest.mark.spec("THREAT-26")
def test_trust_anchors_are_attested_for_our_own_signers_only(api: ApiServer, tokens: Mapping[str, str], signer: str) -> None:
    manifest = {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "ClusterTrustBundle",
        "metadata": {"name": signer.replace("/", ":") + ":live"},
        "spec": {"signerName": signer, "trustBundle": api.ca_pem.decode()},
    }
    status, said = call(api, tokens["operator"], "POST", f"{CERTIFICATES}/clustertrustbundles", body=manifest)
    assert (status, said["reason"]) == (403, "Forbidden")
    assert "attest" in said["message"]


FOREIGN = "example.com/another"


def applied(kind: str, name: str, status: Mapping[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "certificates.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "status": status}


@pytest.mark.spec("THREAT-26")
def test_a_signing_request_of_another_signer_cannot_be_ended(api: ApiServer, tokens: Mapping[str, str]) -> None:
    """Contract 3a, point 7: /status of every CertificateSigningRequest may be patched, and still each write needs `sign` on its signer."""
    csr = {"request": base64.b64encode(armour(pki.csr(pki.key(), subject=pki.name()))).decode(), "usages": ["client auth"]}
    name = "rights-foreign"
    metadata = {"name": name}
    spec = {**csr, "signerName": FOREIGN}
    api.apply({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": metadata, "spec": spec})
    api.kubectl("certificate", "approve", name)
    now = "2026-01-01T00:00:00Z"
    failed = {
        "type": "Failed",
        "status": "True",
        "reason": "Test",
        "message": "by a test",
        "lastUpdateTime": now,
        "lastTransitionTime": now,
    }
    try:
        for status in ({"conditions": [failed]}, {"certificate": base64.b64encode(api.ca_pem).decode()}):
            body = applied("CertificateSigningRequest", name, status)
            code, said = call(api, tokens["operator"], "PATCH", f"{CERTIFICATES}/certificatesigningrequests/{name}/status", body=body)
            assert (code, said["reason"]) == (403, "Forbidden")
            assert "sign" in said["message"]
    finally:
        api.kubectl("delete", "certificatesigningrequest", name)


@pytest.mark.spec("THREAT-26")
def test_a_pod_certificate_request_of_another_signer_cannot_be_ended(api: ApiServer, tokens: Mapping[str, str]) -> None:
    """Contract 3b, point 7: here the API server says 422, Forbidden on spec.signerName."""
    name = "rights-foreign"
    spec = {
        "signerName": FOREIGN,
        "podName": name,
        "serviceAccountName": "web",
        "nodeName": "node",
        **{field: str(uuid.uuid4()) for field in ("podUID", "serviceAccountUID", "nodeUID")},
        "stubPKCS10Request": stub(ec.generate_private_key(ec.SECP256R1())),
    }
    manifest = {"apiVersion": "certificates.k8s.io/v1", "kind": "PodCertificateRequest", "metadata": {"name": name, "namespace": ELSEWHERE}}
    api.kubectl("create", "-f", "-", stdin=json.dumps({**manifest, "spec": spec}))
    denied = {"type": "Denied", "status": "True", "reason": "Test", "message": "by a test", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    path = f"{CERTIFICATES}/namespaces/{ELSEWHERE}/podcertificaterequests/{name}/status"
    try:
        code, said = call(api, tokens["operator"], "PATCH", path, body=applied("PodCertificateRequest", name, {"conditions": [denied]}))
        assert (code, said["reason"]) == (422, "Invalid")
        assert [(cause["field"], cause["reason"]) for cause in said["details"]["causes"]] == [("spec.signerName", "FieldValueForbidden")]
    finally:
        api.kubectl("delete", "podcertificaterequest", name, "-n", ELSEWHERE)
