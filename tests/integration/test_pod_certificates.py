"""PodCertificateRequests of certificates.k8s.io on a real API server, which holds every write against its rules: contract 3b.

There is no kubelet: the administrator makes what one would make.
"""

import base64
import itertools
import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from tests import pki
from tests.collect import collect
from tests.integration.api_client import Object
from tests.integration.apiserver import ApiServer
from tests.integration.operator_system import System, condition, wait_for
from tests.integration.test_cert_manager_contract import authority, now, secret

pytestmark = pytest.mark.timeout(240)
PCR = "podcertificaterequests.certificates.k8s.io"
RULE = {
    "uris": ["spiffe://cluster.example/ns/{namespace}/sa/{serviceAccount}"],
    "dnsNames": ["{serviceAccount}.{namespace}.svc", "{pod}.{namespace}.pod.cluster.local"],
}
_numbers = itertools.count(1)
Key = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey


@pytest.fixture(scope="module")
def system(apiserver: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    started = System(apiserver, tmp_path_factory.mktemp("pod-certificates"), "est-pod-certificates")
    started.shared_operator()
    yield started
    started.stop()


@pytest.fixture
def tenant(system: System) -> str:
    namespace = system.tenant(f"pod-tenant-{next(_numbers)}")
    rule = {"from": {"namespaces": [namespace], "serviceAccounts": ["web"]}, **RULE}
    names_open = {"from": {"namespaces": [namespace], "serviceAccounts": ["open"]}, "dnsNames": ["*.{namespace}.svc"]}
    system.issuer(
        namespace, rules=[rule, names_open], duration={"default": "12h", "max": "24h"}, keys=["RSA-3072", "ECDSA-P256", "ECDSA-P384"]
    )
    system.until_reason("estissuers", namespace, "factory", "Checked")
    return namespace


def stub(key: Key) -> str:
    """What a kubelet writes: an empty PKCS#10 request, DER."""
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA512() if key_size(key) == 521 else hashes.SHA256()
    made = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, digest)
    return base64.b64encode(made.public_bytes(Encoding.DER)).decode()


def key_size(key: Key) -> int:
    return 0 if isinstance(key, ed25519.Ed25519PrivateKey) else key.key_size


def ask(
    system: System, namespace: str, name: str, *, key: Key | None = None, signer: str = "", account: str = "web", **fields: Any
) -> None:
    made = ec.generate_private_key(ec.SECP256R1()) if key is None else key
    spec = {
        "signerName": signer or f"estissuers.est-issuer.io/{namespace}.factory",
        "podName": name,
        "podUID": str(uuid.uuid4()),
        "serviceAccountName": account,
        "serviceAccountUID": str(uuid.uuid4()),
        "nodeName": "node",
        "nodeUID": str(uuid.uuid4()),
        "stubPKCS10Request": stub(made),
        **fields,
    }
    manifest = {"apiVersion": "certificates.k8s.io/v1", "kind": "PodCertificateRequest", "metadata": {"name": name, "namespace": namespace}}
    system.api.client.create({**manifest, "spec": spec})


def until_ended(system: System, namespace: str, name: str) -> Object:
    status: Object = system.until(PCR, namespace, name, lambda status: bool(status.get("conditions")))["status"]
    assert len(status["conditions"]) == 1
    return status


def denied(system: System, namespace: str, name: str) -> str:
    status = until_ended(system, namespace, name)
    assert status.keys() == {"conditions"}
    return str(condition(status, "Denied")["reason"])


def leaf_of(status: Object) -> x509.Certificate:
    assert condition(status, "Issued")["status"] == "True"
    chain = x509.load_pem_x509_certificates(status["certificateChain"].encode())
    collect(*(certificate.public_bytes(Encoding.DER) for certificate in chain))
    return chain[0]


def test_a_pod_gets_the_names_that_the_policy_writes_out(system: System, tenant: str) -> None:
    """Contract 3b, points 1, 2 and 4: the times in the status are the certificate's own."""
    key = ec.generate_private_key(ec.SECP256R1())
    ask(system, tenant, "web-0", key=key)
    status = until_ended(system, tenant, "web-0")
    leaf = leaf_of(status)
    assert leaf.public_key() == key.public_key()
    assert not leaf.subject.rdns
    sans = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert sans.critical
    assert sans.value.get_values_for_type(x509.UniformResourceIdentifier) == [f"spiffe://cluster.example/ns/{tenant}/sa/web"]
    assert sans.value.get_values_for_type(x509.DNSName) == [f"web.{tenant}.svc", f"web-0.{tenant}.pod.cluster.local"]
    begin, refresh, end = (datetime.fromisoformat(status[name]) for name in ("notBefore", "beginRefreshAt", "notAfter"))
    assert (begin, end) == (leaf.not_valid_before_utc, leaf.not_valid_after_utc)
    assert end - begin == timedelta(hours=12)
    assert refresh - begin == timedelta(hours=8)
    assert abs(datetime.now(UTC) - begin) < timedelta(minutes=5)


def test_the_life_is_within_max_expiration_seconds_and_an_hour_at_least(system: System, tenant: str) -> None:
    """Contract 3b, point 4: backdating counts."""
    ask(system, tenant, "hour", maxExpirationSeconds=3600)
    leaf = leaf_of(until_ended(system, tenant, "hour"))
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc == timedelta(hours=1)


@pytest.mark.parametrize("kind", ["RSA3072", "ECDSAP256", "ECDSAP384"])
def test_a_key_type_that_the_issuer_permits_is_served(system: System, tenant: str, kind: str) -> None:
    """Contract 3b, point 3."""
    keys: dict[str, Key] = {
        "RSA3072": pki.rsa_key(3072),
        "ECDSAP256": ec.generate_private_key(ec.SECP256R1()),
        "ECDSAP384": ec.generate_private_key(ec.SECP384R1()),
    }
    ask(system, tenant, kind.lower(), key=keys[kind])
    assert leaf_of(until_ended(system, tenant, kind.lower())).public_key() == keys[kind].public_key()


@pytest.mark.parametrize("kind", ["ECDSAP521", "ED25519", "RSA4096"])
def test_a_key_type_that_is_no_default_is_served_where_the_issuer_lists_it(system: System, tenant: str, kind: str) -> None:
    """Contract 3b, point 3: under a CA on P-521, for the API server to read."""
    keys: dict[str, Key] = {
        "ECDSAP521": ec.generate_private_key(ec.SECP521R1()),
        "ED25519": ed25519.Ed25519PrivateKey.generate(),
        "RSA4096": pki.rsa_key(4096),
    }
    spec = {
        "ca": {"secretName": "strong-ca", "generate": {"commonName": "Strong CA", "keyAlgorithm": "ECDSA-P521"}},
        "policy": {"rules": [{"from": {"namespaces": [tenant]}, **RULE}], "keys": ["ECDSA-P521", "Ed25519", "RSA-4096"]},
    }
    metadata = {"name": "strong", "namespace": tenant}
    system.api.apply({"apiVersion": "est-issuer.io/v1alpha1", "kind": "EstIssuer", "metadata": metadata, "spec": spec})
    system.until_reason("estissuers", tenant, "strong", "Checked")
    ask(system, tenant, kind.lower(), key=keys[kind], signer=f"estissuers.est-issuer.io/{tenant}.strong")
    leaf = leaf_of(until_ended(system, tenant, kind.lower()))
    assert leaf.public_key() == keys[kind].public_key()
    assert isinstance(leaf.signature_hash_algorithm, hashes.SHA512)


def test_what_policy_or_this_signer_never_permits_is_denied_and_says_why(system: System, tenant: str) -> None:
    """Contract 3b, points 3 and 5: Denied alone, with nothing beside it."""
    other = system.tenant(f"{tenant}-other")
    ask(system, tenant, "key", key=ed25519.Ed25519PrivateKey.generate())
    ask(system, tenant, "curve", key=ec.generate_private_key(ec.SECP521R1()))
    ask(system, tenant, "annotated", unverifiedUserAnnotations={"example.com/names": "admin"})
    ask(system, tenant, "no-rule", account="batch")
    ask(system, tenant, "names-open", account="open")
    ask(system, tenant, "with.dot")
    ask(system, other, "stranger", signer=f"estissuers.est-issuer.io/{tenant}.factory")
    assert denied(system, tenant, "key") == "UnsupportedKeyType"
    assert denied(system, tenant, "curve") == "UnsupportedKeyType"
    assert denied(system, tenant, "annotated") == "InvalidUnverifiedUserAnnotations"
    assert denied(system, tenant, "no-rule") == "NoRule"
    assert denied(system, tenant, "names-open") == "NoNames"
    assert denied(system, tenant, "with.dot") == "NoNames"
    assert denied(system, other, "stranger") == "IssuerOfAnotherNamespace"


def test_at_an_issuer_where_a_person_approves_a_pod_is_denied_for_nobody_can(system: System, tenant: str) -> None:
    """Contract 3b, points 1 and 5: the kind has no approval, and an issuer that wants one must not issue without."""
    for approval, name, reason in (("Manual", "manual", "ApprovalIsManual"), ("Automatic", "automatic", "")):
        patch = json.dumps({"spec": {"est": {"approval": approval}}})
        system.api.kubectl("patch", "estissuer", "factory", "-n", tenant, "--type=merge", "-p", patch)
        generation = system.get("estissuers", tenant, "factory")["metadata"]["generation"]
        system.until_issuer_ready(tenant, generation=generation)
        ask(system, tenant, name)
        if reason:
            assert denied(system, tenant, name) == reason
            assert "nobody can approve" in condition(until_ended(system, tenant, name), "Denied")["message"]
        else:
            leaf_of(until_ended(system, tenant, name))
    assert denied(system, tenant, "manual") == "ApprovalIsManual", "what was denied stays so"
    assert [told for told in system.events(tenant, "manual") if told != "PermanentError"] == []


def test_another_signers_request_and_a_finished_one_are_left_alone(system: System, tenant: str) -> None:
    """Contract 3b, point 1."""
    ask(system, tenant, "foreign", signer="example.com/pods")
    ask(system, tenant, "first")
    until_ended(system, tenant, "first")
    assert not system.get(PCR, tenant, "foreign").get("status")


def test_a_passing_fault_writes_nothing_and_the_certificate_comes_when_it_is_over(system: System, tenant: str) -> None:
    """Contract 3b, point 5: an issuer that is not there yet, and an estserver that is away."""
    signer = f"estissuers.est-issuer.io/{tenant}.later"
    ask(system, tenant, "early", signer=signer)
    wait_for("the event", lambda: "IssuerNotFound" in system.events(tenant, "early"))
    assert not system.get(PCR, tenant, "early").get("status")
    system.issuer(tenant, "later", rules=[{"from": {"namespaces": [tenant]}, **RULE}])
    leaf_of(until_ended(system, tenant, "early"))
    system.server.kill()
    ask(system, tenant, "away")
    wait_for("the event", lambda: "RetryableError" in system.events(tenant, "away"))
    assert not system.get(PCR, tenant, "away").get("status")
    system.start_server()
    leaf_of(until_ended(system, tenant, "away"))


def test_a_ca_that_ends_within_the_hour_that_a_pods_certificate_lives_is_told_and_nothing_written(system: System, tenant: str) -> None:
    """Contract 3b, points 4 and 5: kube-apiserver would refuse the certificate, and a CA may be replaced: so the request is not denied."""
    ending = authority("Ending CA", not_after=now() + timedelta(minutes=59))
    spec = {"ca": {"secretName": "ending-ca"}, "policy": {"rules": [{"from": {"namespaces": [tenant]}, **RULE}]}}
    metadata = {"name": "ending", "namespace": tenant}
    made = {"apiVersion": "est-issuer.io/v1alpha1", "kind": "EstIssuer", "metadata": metadata, "spec": spec}
    system.api.apply(secret(tenant, "ending-ca", crt=ending.pem, key=ending.key_pem), made)
    system.until_reason("estissuers", tenant, "ending", "Checked")
    ask(system, tenant, "too-short", signer=f"estissuers.est-issuer.io/{tenant}.ending")
    wait_for("the event", lambda: "CertificateTooShort" in system.events(tenant, "too-short"))
    assert not system.get(PCR, tenant, "too-short").get("status")


def test_a_pod_of_any_namespace_may_name_a_cluster_issuer(system: System) -> None:
    """Contract 3b, point 1: the other signer name."""
    name = f"pods-{next(_numbers)}"
    namespace = system.tenant(f"{name}-team")
    system.tenant(system.namespace)
    spec = {"ca": {"secretName": name, "generate": {"commonName": "Cluster CA"}}, "policy": {"rules": [RULE]}, "allowedNamespaces": {}}
    system.api.apply({"apiVersion": "est-issuer.io/v1alpha1", "kind": "EstClusterIssuer", "metadata": {"name": name}, "spec": spec})
    ask(system, namespace, "web-0", signer=f"estclusterissuers.est-issuer.io/{name}")
    leaf_of(until_ended(system, namespace, "web-0"))
