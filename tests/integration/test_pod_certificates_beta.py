"""PodCertificateRequests and ClusterTrustBundles where nodes are older than Kubernetes 1.37: contract 3b, "Skew".

An API server that emulates 1.35 and one that emulates 1.36 serve v1beta1 alone; one of 1.37 that still has old nodes serves v1 and v1beta1.
"""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from estoperator.relist import GRACE_SECONDS
from tests import pki
from tests.collect import collect
from tests.integration.apiserver import ApiServer
from tests.integration.doorway import POD_CERTIFICATES, b64, outcome, rules
from tests.integration.operator_system import SOON_SECONDS, System, condition, wait_for
from tests.integration.test_pod_certificates import Key, stub

pytestmark = pytest.mark.timeout(180)

TENANT = "beta"
BETA = "certificates.k8s.io/v1beta1"
BUNDLE = f"estissuers.est-issuer.io:{TENANT}.factory:live"
TURNED_ON = f"--runtime-config={BETA}/podcertificaterequests=true,{BETA}/clustertrustbundles=true"
GATES = "--feature-gates=kube:PodCertificateRequest=true,kube:ClusterTrustBundle=true"
SERVERS = {
    "1.35": ["--emulated-version=kube=1.35", GATES, TURNED_ON],
    "1.36": ["--emulated-version=kube=1.36", GATES, TURNED_ON],
    "1.37": [TURNED_ON],
}


@pytest.fixture(scope="module", params=SERVERS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def beta(version: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    server = ApiServer(tmp_path_factory.mktemp("beta-apiserver"), options=SERVERS[version])
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def system(beta: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    directory: Path = tmp_path_factory.mktemp("beta")
    started = System(beta, directory, "est-beta-system")
    started.tenant(TENANT)
    started.issuer(
        TENANT, rules=rules(TENANT), duration={"default": "12h", "max": "24h"}, keys=["ECDSA-P256", "ECDSA-P384", "RSA-3072", "Ed25519"]
    )
    started.shared_operator()
    started.until_reason("estissuers", TENANT, "factory", "Checked")
    yield started
    started.stop()


def test_this_api_server_has_the_kind_in_the_versions_that_this_is_about(system: System, version: str) -> None:
    """Or the other tests here would show nothing."""
    served: dict[str, set[str]] = {}
    for name in ("v1", "v1beta1"):
        for resource in json.loads(system.api.kubectl("get", "--raw", f"/apis/certificates.k8s.io/{name}"))["resources"]:
            served.setdefault(resource["name"], set()).add(name)
    versions = {"v1", "v1beta1"} if version == "1.37" else {"v1beta1"}
    assert served["podcertificaterequests"] == served["clustertrustbundles"] == versions
    log = (system.directory / "shared.log").read_text()
    assert any("door_on" in line and "podcertificaterequests" in line and "v1beta1" in line for line in log.splitlines())


def ask(system: System, name: str, **spec: object) -> None:
    made = POD_CERTIFICATES.manifest(TENANT, name, "factory", name) | {"apiVersion": BETA}
    made["spec"] |= spec
    system.api.apply(made)


def test_a_pod_gets_its_certificate_in_v1beta1(system: System) -> None:
    """Contract 3b, points 2 and 4, as the API server checks them in that version too."""
    ask(system, "web-0")
    leaf = POD_CERTIFICATES.until_issued(system, TENANT, "web-0")
    status = POD_CERTIFICATES.until_ended(system, TENANT, "web-0")["status"]
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)
    assert names == [f"web.{TENANT}.svc"]
    begin, refresh, end = (datetime.fromisoformat(status[name]) for name in ("notBefore", "beginRefreshAt", "notAfter"))
    assert (begin, end) == (leaf.not_valid_before_utc, leaf.not_valid_after_utc)
    assert (refresh - begin, end - begin) == (timedelta(hours=8), timedelta(hours=12))
    assert abs(datetime.now(UTC) - begin) < timedelta(minutes=5)


KEYS: dict[str, Callable[[], Key]] = {
    "RSA3072": lambda: pki.rsa_key(3072),
    "ECDSAP256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ECDSAP384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "ED25519": ed25519.Ed25519PrivateKey.generate,
}


def proof(key: Key, pod_uid: str) -> bytes:
    """A kubelet's signature over the pod's UID, as the API server verifies it: SHA-256 whatever the key, RSASSA-PSS, salt of any length."""
    octets = pod_uid.encode()
    match key:
        case rsa.RSAPrivateKey():
            return key.sign(octets, padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.MAX_LENGTH), hashes.SHA256())
        case ec.EllipticCurvePrivateKey():
            return key.sign(octets, ec.ECDSA(hashes.SHA256()))
        case ed25519.Ed25519PrivateKey():
            return key.sign(octets)


def ask_with_bare_key(system: System, name: str, key: Key, **spec: object) -> None:
    """As a kubelet of 1.35 does."""
    made = POD_CERTIFICATES.manifest(TENANT, name, "factory", name) | {"apiVersion": BETA}
    del made["spec"]["stubPKCS10Request"]
    made["spec"] |= {
        "pkixPublicKey": b64(pki.spki_der(key.public_key())),
        "proofOfPossession": b64(proof(key, made["spec"]["podUID"])),
        **spec,
    }
    system.api.apply(made)


@pytest.mark.parametrize("kind", KEYS)
def test_a_pod_on_a_node_before_1_36_gets_the_same_certificate_for_its_bare_key(system: System, kind: str) -> None:
    """Contract 3b, points 2 to 4: possession was proven to the API server, which holds the certificate against pkixPublicKey too."""
    key = KEYS[kind]()
    ask_with_bare_key(system, f"bare-{kind.lower()}", key)
    status = POD_CERTIFICATES.until_ended(system, TENANT, f"bare-{kind.lower()}")["status"]
    assert outcome(status) == "Issued", status
    leaf = x509.load_pem_x509_certificates(status["certificateChain"].encode())[0]
    collect(leaf.public_bytes(Encoding.DER))
    assert leaf.public_key() == key.public_key()
    assert not leaf.subject.rdns
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)
    assert names == [f"web.{TENANT}.svc"]
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc == timedelta(hours=12)
    assert len(system.transactions_named(f"bare-{kind.lower()}")) == 1


def test_what_no_pod_may_have_is_denied_with_a_bare_key_too(system: System) -> None:
    """Contract 3b, points 3 and 5."""
    ask_with_bare_key(system, "bare-curve", ec.generate_private_key(ec.SECP521R1()))
    ask_with_bare_key(system, "bare-size", pki.rsa_key(4096))
    ask_with_bare_key(system, "bare-annotated", KEYS["ECDSAP256"](), unverifiedUserAnnotations={"example.com/names": "admin"})
    reasons = {"bare-curve": "UnsupportedKeyType", "bare-size": "UnsupportedKeyType", "bare-annotated": "InvalidUnverifiedUserAnnotations"}
    for name, reason in reasons.items():
        status = POD_CERTIFICATES.until_ended(system, TENANT, name)["status"]
        assert status.keys() == {"conditions"}
        assert condition(status, "Denied")["reason"] == reason


def test_the_api_server_takes_no_bare_key_without_a_proof_by_that_key(system: System) -> None:
    """What the operator relies on when it vouches for the possession (threats row 7)."""
    key = KEYS["ECDSAP256"]()
    for wrong in (b64(proof(key, "another pod")), b64(proof(KEYS["ECDSAP256"](), "")), ""):
        with pytest.raises(RuntimeError, match=r"proof-of-possession|must be set"):
            ask_with_bare_key(system, "unproven", key, proofOfPossession=wrong)
    assert POD_CERTIFICATES.get(system, TENANT, "unproven") is None


def test_what_no_pod_may_have_is_denied_in_v1beta1(system: System) -> None:
    """Contract 3b, points 3 and 5."""
    ask(system, "key", stubPKCS10Request=stub(pki.rsa_key(4096)))
    ask(system, "annotated", unverifiedUserAnnotations={"example.com/names": "admin"})
    for name, reason in (("key", "UnsupportedKeyType"), ("annotated", "InvalidUnverifiedUserAnnotations")):
        status = POD_CERTIFICATES.until_ended(system, TENANT, name)["status"]
        assert status.keys() == {"conditions"}
        assert condition(status, "Denied")["reason"] == reason


def test_a_passing_fault_writes_nothing_in_v1beta1_either(system: System) -> None:
    """Contract 3b, point 5."""
    ask(system, "early", signerName=f"estissuers.est-issuer.io/{TENANT}.later")
    POD_CERTIFICATES.until_told(system, TENANT, "early", "IssuerNotFound")
    assert not (POD_CERTIFICATES.get(system, TENANT, "early") or {}).get("status")
    system.issuer(TENANT, "later", rules=rules(TENANT))
    POD_CERTIFICATES.until_issued(system, TENANT, "early")


def test_the_issuers_trust_is_published_in_v1beta1(system: System) -> None:
    """Contract 3c."""
    wait_for("the bundle", lambda: system.api.client.get("clustertrustbundles.v1beta1.certificates.k8s.io", BUNDLE) is not None)


def test_once_v1beta1_is_served_no_more_the_operator_ends_and_the_next_one_watches_v1(system: System, beta: ApiServer) -> None:
    """An upgrade of the control plane, after which no node is older than 1.37. kopf fails over its watch, long before the re-list."""
    watching = system.shared_operator()
    beta.stop_apiserver()
    beta.options = ()  # what emulates no version is of 1.37
    beta.start_apiserver()
    wait_for("the operator to end", lambda: not watching.alive(), log=watching.log)
    assert watching.process.returncode == 1
    system.shared_operator()
    made = POD_CERTIFICATES.manifest(TENANT, "upgraded", "factory", "upgraded")
    system.api.apply(made)
    POD_CERTIFICATES.until_issued(system, TENANT, "upgraded")


def test_once_v1beta1_is_turned_on_for_old_nodes_they_are_served_from_the_next_re_list_on(system: System, beta: ApiServer) -> None:
    """Until then such a request waits: what is Denied stays so, and its pod never starts. After the test before this one.

    Of two operators the one that re-lists often ends as soon as it finds the version, maybe before it saw the request; the other tells.
    """
    telling, relisting = system.shared_operator(), system.start_operator("re-listing", relist_interval="3s")
    # kopf lists when it starts, and ends where the API server does so in the middle of its answer.
    checked = 'est_operator_watch_checked_timestamp_seconds{door="podcertificaterequests"}'
    started = system.metric(relisting, checked)
    wait_for("its first re-list", lambda: system.metric(relisting, checked) > started, log=relisting.log)
    beta.stop_apiserver()
    beta.options = (TURNED_ON,)
    beta.start_apiserver()
    key = KEYS["ECDSAP256"]()
    ask_with_bare_key(system, "downgraded", key)
    POD_CERTIFICATES.until_told(system, TENANT, "downgraded", "KeyNotShown")
    assert not (POD_CERTIFICATES.get(system, TENANT, "downgraded") or {}).get("status")
    # The API server forbids what it permits while it starts; a re-list that meets this looks again after the grace.
    wait_for("the operator to end", lambda: not relisting.alive(), log=relisting.log, seconds=GRACE_SECONDS + SOON_SECONDS)
    assert "is to be watched in v1beta1 now, and was in v1; restarting" in relisting.log.read_text()
    assert telling.alive()
    system.end_shared_operator()
    system.shared_operator()
    status = POD_CERTIFICATES.until_ended(system, TENANT, "downgraded")["status"]
    assert x509.load_pem_x509_certificates(status["certificateChain"].encode())[0].public_key() == key.public_key()
