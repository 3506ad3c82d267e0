"""CertificateSigningRequests of certificates.k8s.io on a real API server: contract 3a, point by point."""

import base64
import itertools
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from estcore.csr_builder import build
from tests import pki
from tests.collect import collect
from tests.estoperator.builders import armour
from tests.integration.api_client import Object
from tests.integration.apiserver import ApiServer
from tests.integration.operator_system import System, condition, wait_for
from tests.integration.rights import RBAC

pytestmark = pytest.mark.timeout(240)
CSR = "certificatesigningrequests.certificates.k8s.io"
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def system(apiserver: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    started = System(apiserver, tmp_path_factory.mktemp("signing-requests"), "est-signing-requests")
    started.shared_operator()
    yield started
    started.stop()


@pytest.fixture
def tenant(system: System) -> str:
    namespace = system.tenant(f"csr-tenant-{next(_numbers)}")
    system.issuer(namespace, duration={"default": "2h", "max": "24h"})
    system.until_reason("estissuers", namespace, "factory", "Checked")
    return namespace


def manifest(name: str, signer: str, dns_name: str, **fields: Any) -> Object:
    key = pki.key(owner=name)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    csr = build(key, subject=x509.Name([]), sans=pki.dns(dns_name), usages=())
    spec = {
        "request": base64.b64encode(armour(csr)).decode(),
        "signerName": signer,
        "usages": ["digital signature", "server auth"],
        **fields,
    }
    return {"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": name}, "spec": spec}


def ask(system: System, name: str, tenant: str, *, annotations: dict[str, str] | None = None, approve: bool = True, **fields: Any) -> None:
    """Make a request for the tenant's issuer, as the administrator, and approve it."""
    made = manifest(name, f"estissuers.est-issuer.io/{tenant}.factory", fields.pop("dns_name", f"web.{tenant}.svc"), **fields)
    made["metadata"]["annotations"] = annotations or {}
    system.api.apply(made)
    if approve:
        system.api.kubectl("certificate", "approve", name)


def get(system: System, name: str) -> Object:
    return system.get(CSR, "", name)


def until_ended(system: System, name: str) -> Object:
    """The status once it holds a certificate or Failed."""
    seen: list[Object] = []

    def ended() -> bool:
        seen.append(get(system, name).get("status") or {})
        return "certificate" in seen[-1] or bool(condition(seen[-1], "Failed"))

    wait_for(name, ended, what=lambda: (seen[-1:], system.events("default", name)))
    return seen[-1]


def leaf_of(status: Object) -> x509.Certificate:
    chain = x509.load_pem_x509_certificates(base64.b64decode(status["certificate"]))
    collect(*(certificate.public_bytes(Encoding.DER) for certificate in chain))
    return chain[0]


def test_an_approved_request_gets_its_chain_and_keeps_its_approval(system: System, tenant: str) -> None:
    """Contract 3a, points 1, 4 and 5."""
    ask(system, "a-web", tenant, expirationSeconds=3600)
    status = until_ended(system, "a-web")
    leaf = leaf_of(status)
    text = base64.b64decode(status["certificate"]).decode()
    assert text.startswith("-----BEGIN CERTIFICATE-----\n")
    assert text.count("-----BEGIN") == 1  # the CA is a root, and no root is in a chain
    assert leaf.public_key() == pki.key(owner="a-web").public_key()
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc == timedelta(hours=1)
    assert list(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert not leaf.extensions.get_extension_for_class(x509.KeyUsage).value.key_encipherment
    assert condition(status, "Approved")["status"] == "True"
    assert [found["type"] for found in status["conditions"]] == ["Approved"]


def test_the_life_is_the_issuers_default_where_none_is_asked_for(system: System, tenant: str) -> None:
    """Contract 3a, point 4."""
    ask(system, "b-default", tenant)
    leaf = leaf_of(until_ended(system, "b-default"))
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc == timedelta(hours=2)


def test_cert_managers_annotation_wins_and_below_600_s_it_fails(system: System, tenant: str) -> None:
    """Contract 3a, point 4."""
    annotation = "experimental.cert-manager.io/request-duration"
    ask(system, "c-long", tenant, expirationSeconds=3600, annotations={annotation: "3h"})
    leaf = leaf_of(until_ended(system, "c-long"))
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc == timedelta(hours=3)
    ask(system, "c-short", tenant, annotations={annotation: "599s"})
    failed = condition(until_ended(system, "c-short"), "Failed")
    assert (failed["status"], failed["reason"]) == ("True", "InvalidDuration")


def test_a_refusal_is_failed_with_its_reason_beside_the_approval(system: System, tenant: str) -> None:
    """Contract 3a, point 5: a name, a usage and a life that the policy does not permit."""
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("d-name", {"dns_name": "web.elsewhere.svc"}, "NameNotPermitted"),
        ("d-usage", {"usages": ["digital signature", "code signing"]}, "UsageNotPermitted"),
        ("d-life", {"expirationSeconds": 48 * 3600}, "DurationNotPermitted"),
    ]
    for name, fields, _ in cases:
        ask(system, name, tenant, **fields)
    for name, _, reason in cases:
        status = until_ended(system, name)
        assert condition(status, "Failed")["reason"] == reason
        assert condition(status, "Approved")["status"] == "True"
        assert "certificate" not in status


def test_what_is_denied_or_not_approved_or_another_signers_is_left_alone(system: System, tenant: str) -> None:
    """Contract 3a, points 1, 2 and 6."""
    ask(system, "e-silent", tenant, approve=False)
    ask(system, "e-denied", tenant, approve=False)
    system.api.kubectl("certificate", "deny", "e-denied")
    system.api.apply(manifest("e-foreign", "example.com/factory", f"web.{tenant}.svc"))
    system.api.kubectl("certificate", "approve", "e-foreign")
    ask(system, "e-last", tenant)
    until_ended(system, "e-last")
    assert not get(system, "e-silent").get("status")
    assert [found["type"] for found in get(system, "e-denied")["status"]["conditions"]] == ["Denied"]
    assert [found["type"] for found in get(system, "e-foreign")["status"]["conditions"]] == ["Approved"]


@pytest.mark.parametrize("name", ["node-csr-AbC_9x", "what?", "No#1 \U0001f600", "a\tb", "l" * 1100])
def test_a_request_may_be_called_anything(system: System, tenant: str, name: str) -> None:
    """Contract 3a, points 2 and 5: kube-apiserver takes every name without a slash or a percent sign; an Event tells of it too."""
    system.api.apply(manifest(name, f"estissuers.est-issuer.io/{tenant}.later", f"web.{tenant}.svc"))
    system.api.kubectl("certificate", "approve", name)
    wait_for("the event", lambda: "IssuerNotFound" in system.events("default", name))
    system.issuer(tenant, "later")
    leaf_of(until_ended(system, name))


def test_while_the_issuer_is_absent_an_event_says_so_and_then_it_goes_on(system: System, tenant: str) -> None:
    """Contract 3a, point 2: there is no Pending."""
    made = manifest("f-early", f"estissuers.est-issuer.io/{tenant}.later.on", f"web.{tenant}.svc")
    system.api.apply(made)
    system.api.kubectl("certificate", "approve", "f-early")
    wait_for("the event", lambda: "IssuerNotFound" in system.events("default", "f-early"))
    assert [found["type"] for found in get(system, "f-early")["status"]["conditions"]] == ["Approved"]
    system.issuer(tenant, "later.on")  # the name splits at the first dot
    leaf_of(until_ended(system, "f-early"))


@pytest.mark.parametrize("named", ["factory", "*"])
def test_a_namespaced_issuer_is_for_who_may_reference_it(system: System, tenant: str, named: str) -> None:
    """Contract 3a, point 3: a ServiceAccount of another namespace, before and after it was let: by the issuer's name, or by `*`."""
    stranger = system.api.kubeconfig_for(f"{tenant}-stranger", "builder")
    subject = {"kind": "ServiceAccount", "name": "builder", "namespace": f"{tenant}-stranger"}
    role = f"makes-csrs-{tenant}"
    bind(system, role, [{"apiGroups": ["certificates.k8s.io"], "resources": ["certificatesigningrequests"], "verbs": ["create"]}], subject)

    def ask_as_stranger(name: str) -> None:
        made = manifest(name, f"estissuers.est-issuer.io/{tenant}.factory", f"web.{tenant}.svc")
        system.api.kubectl(f"--kubeconfig={stranger}", "create", "-f", "-", stdin=json.dumps(made))
        system.api.kubectl("certificate", "approve", name)

    before, after = f"{tenant}-before", f"{tenant}-after"
    ask_as_stranger(before)
    assert condition(until_ended(system, before), "Failed")["reason"] == "DeniedReference"
    rules = [{"apiGroups": ["est-issuer.io"], "resources": ["signers"], "verbs": ["reference"], "resourceNames": [named]}]
    bind(system, "may-reference", rules, subject, namespace=tenant)
    ask_as_stranger(after)
    leaf_of(until_ended(system, after))


def test_a_cluster_issuer_takes_a_service_accounts_own_namespace_for_the_policy(system: System) -> None:
    """Contract 3a, point 1: the other signer name; no reference is asked for."""
    ca = f"csr-cluster-{next(_numbers)}"
    namespace = f"{ca}-team"
    rules = [{"from": {"namespaces": [namespace], "serviceAccounts": ["builder"]}, "dnsNames": ["{serviceAccount}.{namespace}.svc"]}]
    spec = {"ca": {"secretName": ca, "generate": {"commonName": "Cluster CA"}}, "policy": {"rules": rules}, "allowedNamespaces": {}}
    system.tenant(system.namespace)
    system.api.apply({"apiVersion": "est-issuer.io/v1alpha1", "kind": "EstClusterIssuer", "metadata": {"name": ca}, "spec": spec})
    stranger = system.api.kubeconfig_for(namespace, "builder")
    subject = {"kind": "ServiceAccount", "name": "builder", "namespace": namespace}
    bind(system, ca, [{"apiGroups": ["certificates.k8s.io"], "resources": ["certificatesigningrequests"], "verbs": ["create"]}], subject)
    for name, dns_name in (("h-own", f"builder.{namespace}.svc"), ("h-other", "builder.other.svc")):
        made = manifest(name, f"estclusterissuers.est-issuer.io/{ca}", dns_name)
        system.api.kubectl(f"--kubeconfig={stranger}", "create", "-f", "-", stdin=json.dumps(made))
        system.api.kubectl("certificate", "approve", name)
    leaf = leaf_of(until_ended(system, "h-own"))
    assert leaf.not_valid_before_utc <= datetime.now(UTC)
    assert condition(until_ended(system, "h-other"), "Failed")["reason"] == "NameNotPermitted"


def bind(system: System, name: str, rules: list[Object], subject: Object, *, namespace: str = "") -> None:
    kind = "Role" if namespace else "ClusterRole"
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    role_ref = {"apiGroup": RBAC, "kind": kind, "name": name}
    system.api.apply(
        {"apiVersion": f"{RBAC}/v1", "kind": kind, "metadata": metadata, "rules": rules},
        {"apiVersion": f"{RBAC}/v1", "kind": f"{kind}Binding", "metadata": metadata, "roleRef": role_ref, "subjects": [subject]},
    )
