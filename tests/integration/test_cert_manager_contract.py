"""cert-manager's contract of an external issuer on a real API server: the points that other files here do not show."""

import base64
import functools
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from tests import pki
from tests.chart.rendering import of_kind, render
from tests.estoperator.builders import armour
from tests.integration.api_client import Object
from tests.integration.apiserver import ApiServer
from tests.integration.claim import Claim
from tests.integration.operator_system import OURS, THEIRS, System, condition, request_manifest

pytestmark = pytest.mark.timeout(180)

TENANT, OTHER = "contract", "contract-other"
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def system(cert_manager_crd: None, apiserver: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    started = System(apiserver, tmp_path_factory.mktemp("contract"), "est-contract-system")
    for namespace in (TENANT, OTHER):
        started.tenant(namespace)
    started.issuer(TENANT)
    started.shared_operator()
    started.until_reason("estissuers", TENANT, "factory", "Checked")
    yield started
    started.stop()


def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def authority(name: str, *, issuer: pki.Ca | None = None, not_after: datetime | None = None, is_ca: bool = True) -> pki.Ca:
    """A CA of today: the operator's clock is the real one here."""
    return pki.ca(name, issuer=issuer, not_before=now() - 2 * DAY, not_after=not_after or now() + 400 * DAY, is_ca=is_ca)


def secret(namespace: str, name: str, *, crt: bytes, key: bytes, ca: bytes | None = None, kind: str = "kubernetes.io/tls") -> Object:
    members = {"tls.crt": crt, "tls.key": key, **({"ca.crt": ca} if ca is not None else {})}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": kind,
        "metadata": {"name": name, "namespace": namespace},
        "data": {member: base64.b64encode(octets).decode() for member, octets in members.items()},
    }


def issuer(namespace: str, name: str, *, kind: str = "EstIssuer") -> Object:
    """An issuer whose CA is given, in Secret `<name>-ca`."""
    metadata = {"name": name, **({"namespace": namespace} if kind == "EstIssuer" else {})}
    policy = {"rules": [{"from": {"namespaces": [namespace]}, "dnsNames": ["*.{namespace}.svc"]}]}
    spec = {"ca": {"secretName": f"{name}-ca"}, "policy": policy}
    return {"apiVersion": "est-issuer.io/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}


def approved(system: System, name: str, *, issuer_name: str = "factory") -> None:
    system.request(THEIRS, TENANT, name, issuer=issuer_name)
    system.decide(TENANT, name, "Approved")


def message_of(request: Object) -> str:
    return str(condition(request["status"], "Ready")["message"])


def publishes(status: Object, *, pem: bytes) -> bool:
    return bool(status.get("ca", {}).get("bundle", "").strip() == pem.decode().strip())


@pytest.mark.spec("K8S-CONTRACT-01")
def test_requests_for_other_issuers_are_left_alone(system: System) -> None:
    """Contract 1: another group, none, another kind, none; ours that comes later shows that they were passed by."""
    foreign = [
        {"group": "cert-manager.io", "kind": "Issuer", "name": "factory"},
        {"kind": "EstIssuer", "name": "factory"},
        {"group": "est-issuer.io", "kind": "Issuer", "name": "factory"},
        {"group": "est-issuer.io", "name": "factory"},
    ]
    for number, ref in enumerate(foreign):
        manifest = request_manifest(THEIRS, TENANT, f"foreign-{number}")
        manifest["spec"]["issuerRef"] = ref
        system.api.apply(manifest)
        system.decide(TENANT, f"foreign-{number}", "Approved")
    approved(system, "after-them")
    system.until_reason(THEIRS, TENANT, "after-them", "Issued")
    for number in range(len(foreign)):
        status = system.get(THEIRS, TENANT, f"foreign-{number}")["status"]
        assert [found["type"] for found in status["conditions"]] == ["Approved"]
        assert system.events(TENANT, f"foreign-{number}") == []


@pytest.mark.parametrize(
    "status",
    [
        {"conditions": [{"type": "Ready", "status": "False", "reason": "Failed", "message": "by another"}]},
        {"conditions": [{"type": "InvalidRequest", "status": "True", "reason": "Odd", "message": "by another"}]},
        {"conditions": [{"type": "Ready", "status": "False", "reason": "Denied", "message": "by an approver"}]},
        {"conditions": [{"type": "Ready", "status": "True", "reason": "Issued", "message": "by yet another"}]},
        {"certificate": "QQ=="},
    ],
)
@pytest.mark.spec("K8S-CONTRACT-03")
def test_a_finished_request_is_not_touched(system: System, status: Object) -> None:
    """Contract 3: whoever finished it, and though it is approved afterwards."""
    name = f"finished-{'-'.join(status)}-{len(json.dumps(status))}"
    system.request(THEIRS, TENANT, name)
    system.api.kubectl("patch", THEIRS, name, "-n", TENANT, "--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))
    system.decide(TENANT, name, "Approved")
    before = system.get(THEIRS, TENANT, name)
    approved(system, f"after-{name}")
    system.until_reason(THEIRS, TENANT, f"after-{name}", "Issued")
    assert system.get(THEIRS, TENANT, name) == before


@pytest.mark.spec("K8S-CONTRACT-07")
def test_the_charts_role_lets_cert_managers_approver_approve_for_both_kinds_of_issuer_and_no_other(system: System) -> None:
    """Contract 7, as cert-manager asks it: a review of `approve` on signers for `<plural>.<group>/*`; its ServiceAccount is a value."""
    account = {"certManager": {"serviceAccount": {"name": "approver", "namespace": "contract-cert-manager"}}}
    roles = [*of_kind(render(account), "ClusterRole").values(), *of_kind(render(account), "ClusterRoleBinding").values()]
    ours = [role for role in roles if role["metadata"]["name"] == "est-issuer-cert-manager-approver"]
    assert len(ours) == 2
    system.api.apply(*ours)

    def may(signer: str, account: str) -> bool:
        attributes = {"group": "cert-manager.io", "resource": "signers", "verb": "approve", "name": signer}
        user = f"system:serviceaccount:contract-cert-manager:{account}"
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": user, "resourceAttributes": attributes},
        }
        return bool(json.loads(system.api.kubectl("create", "-o", "json", "-f", "-", stdin=json.dumps(review)))["status"]["allowed"])

    try:
        assert may("estissuers.est-issuer.io/*", "approver")
        assert may("estclusterissuers.est-issuer.io/*", "approver")
        assert not may("issuers.cert-manager.io/*", "approver")
        assert not may("estissuers.est-issuer.io/*", "somebody")
    finally:
        for manifest in ours:
            system.api.kubectl("delete", manifest["kind"], manifest["metadata"]["name"])


@pytest.mark.spec("K8S-CONTRACT-11", "K8S-CONTRACT-27")
def test_a_missing_or_unusable_ca_secret_leaves_requests_pending_and_they_go_on_when_it_is_mended(system: System) -> None:
    """Contracts 11 and 27: every fault of the Secret has its reason on the issuer, and no failure time on the request."""
    good = authority("Mended CA")
    leaf = pki.leaf(good, not_before=now() - DAY, not_after=now() + DAY)
    system.api.apply(issuer(TENANT, "mended"))
    system.until_reason("estissuers", TENANT, "mended", "SecretMissing")
    approved(system, "patient", issuer_name="mended")
    pending = system.until_reason(THEIRS, TENANT, "patient", "Pending")
    assert "failureTime" not in pending["status"]
    faults = {
        "no certificate": (b"none", good.key_pem),
        "not of a CA": (pki.pem(leaf), pki.key_pem(pki.key())),
        "another key": (good.pem, pki.key_pem(pki.key(owner="stranger"))),
    }
    said = {message_of(system.get("estissuers", TENANT, "mended"))}
    for crt, key in faults.values():
        system.api.apply(secret(TENANT, "mended-ca", crt=crt, key=key))
        broken = system.until("estissuers", TENANT, "mended", lambda status: condition(status, "Ready").get("message") not in said)
        assert condition(broken["status"], "Ready")["status"] == "False"
        said.add(message_of(broken))
    assert len(said) == 1 + len(faults)
    system.api.apply(secret(TENANT, "mended-ca", crt=good.pem, key=good.key_pem))
    system.until_reason(THEIRS, TENANT, "patient", "Issued")


@pytest.mark.spec("K8S-CONTRACT-15", "K8S-CONTRACT-27")
def test_an_expired_ca_is_shown_on_the_issuer_and_its_requests_wait(system: System) -> None:
    """Contract 15: a fault of the issuer never fails a request."""
    old = authority("Old CA", not_after=now() - DAY)
    system.api.apply(secret(TENANT, "old-ca", crt=old.pem, key=old.key_pem), issuer(TENANT, "old"))
    assert "expired" in message_of(system.until_reason("estissuers", TENANT, "old", "CAExpired"))
    approved(system, "waits", issuer_name="old")
    status = system.until_reason(THEIRS, TENANT, "waits", "Pending")["status"]
    assert "expired" in condition(status, "Ready")["message"]
    assert "failureTime" not in status


@pytest.mark.spec("K8S-CONTRACT-15", "K8S-CONTRACT-27")
def test_a_ca_that_expires_while_it_is_served_takes_its_issuer_out_and_no_request_fails(system: System) -> None:
    """Contracts 15 and 27: the validity is looked at again without a change of the Secret."""
    brief = authority("Brief CA", not_after=now() + timedelta(seconds=30))
    system.api.apply(secret(TENANT, "brief-ca", crt=brief.pem, key=brief.key_pem), issuer(TENANT, "brief"))
    system.until_reason("estissuers", TENANT, "brief", "Checked")
    approved(system, "in-time", issuer_name="brief")
    system.until_reason(THEIRS, TENANT, "in-time", "Issued")
    system.until_reason("estissuers", TENANT, "brief", "CAExpired")
    approved(system, "too-late", issuer_name="brief")
    status = system.until_reason(THEIRS, TENANT, "too-late", "Pending")["status"]
    assert "expired" in condition(status, "Ready")["message"]
    assert "failureTime" not in status
    following = authority("Brief CA")
    system.api.apply(secret(TENANT, "brief-ca", crt=following.pem, key=following.key_pem))
    system.until_reason(THEIRS, TENANT, "too-late", "Issued")


@pytest.mark.spec("K8S-CONTRACT-27")
def test_a_ca_that_is_replaced_in_its_secret_signs_the_next_request(system: System) -> None:
    """Contract 27: also within the minutes in which estserver takes the operator's own enrolment for a retry."""
    for number, key in enumerate(("one", "two")):
        found = pki.ca("Swapped CA", private_key=pki.key(owner=key), not_before=now() - DAY, not_after=now() + 400 * DAY)
        system.api.apply(secret(TENANT, "swapped-ca", crt=found.pem, key=found.key_pem), issuer(TENANT, "swapped"))
        system.until("estissuers", TENANT, "swapped", functools.partial(publishes, pem=found.pem))
        approved(system, f"swapped-{number}", issuer_name="swapped")
        status = system.until_reason(THEIRS, TENANT, f"swapped-{number}", "Issued")["status"]
        x509.load_pem_x509_certificates(base64.b64decode(status["certificate"]))[0].verify_directly_issued_by(found.certificate)


@pytest.mark.spec("K8S-CONTRACT-14")
def test_a_csr_that_is_none_is_invalid_and_failed_in_one_write(system: System) -> None:
    """Contracts 13 and 14."""
    manifest = request_manifest(THEIRS, TENANT, "no-csr")
    manifest["spec"]["request"] = base64.b64encode(
        b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"
    ).decode()
    system.api.apply(manifest)
    system.decide(TENANT, "no-csr", "Approved")
    status = system.until(THEIRS, TENANT, "no-csr", lambda found: bool(condition(found, "InvalidRequest")))["status"]
    assert condition(status, "InvalidRequest")["status"] == "True"
    assert condition(status, "Ready")["reason"] == "Failed"
    assert status["failureTime"]


@pytest.mark.spec("K8S-CONTRACT-17", "K8S-CONTRACT-18", "K8S-CONTRACT-29")
def test_a_ca_below_two_others_gives_the_chain_without_the_root_and_the_root_apart(system: System) -> None:
    """Contracts 17, 18 and 29: the Secret is laid out as cert-manager lays it out."""
    root = authority("Root CA")
    middle = authority("Middle CA", issuer=root)
    issuing = authority("Issuing CA", issuer=middle)
    chain = pki.pem(issuing.certificate, middle.certificate)
    system.api.apply(secret(TENANT, "deep-ca", crt=chain, key=issuing.key_pem, ca=root.pem), issuer(TENANT, "deep"))
    approved(system, "below", issuer_name="deep")
    status = system.until_reason(THEIRS, TENANT, "below", "Issued")["status"]
    leaf, *above = x509.load_pem_x509_certificates(base64.b64decode(status["certificate"]))
    leaf.verify_directly_issued_by(issuing.certificate)
    assert above == [issuing.certificate, middle.certificate]
    assert x509.load_pem_x509_certificates(base64.b64decode(status["ca"])) == [root.certificate]


@pytest.mark.spec("K8S-CONTRACT-20")
def test_a_life_that_the_ca_does_not_have_any_more_ends_with_it_and_says_so(system: System) -> None:
    """Contract 20: what is not to the second is not in silence."""
    ending = authority("Ending CA", not_after=now() + timedelta(hours=30))
    system.api.apply(secret(TENANT, "ending-ca", crt=ending.pem, key=ending.key_pem), issuer(TENANT, "ending"))
    for name, duration in (("whole", "20h"), ("cut", "100h")):
        system.request(THEIRS, TENANT, name, issuer="ending", duration=duration)
        system.decide(TENANT, name, "Approved")
    whole = system.until_reason(THEIRS, TENANT, "whole", "Issued")
    assert "sooner" not in message_of(whole)
    cut = system.until_reason(THEIRS, TENANT, "cut", "Issued")
    leaf = x509.load_pem_x509_certificates(base64.b64decode(cut["status"]["certificate"]))[0]
    assert leaf.not_valid_after_utc == ending.certificate.not_valid_after_utc
    assert f"ends on {leaf.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}, sooner than asked for" in message_of(cut)


@pytest.mark.spec("K8S-CONTRACT-21")
def test_a_request_that_names_no_usages_gets_those_of_cert_managers_api_and_not_all_of_the_policy(system: System) -> None:
    """Contract 21: digital signature and key encipherment, where neither the spec nor the CSR names any."""
    manifest = request_manifest(THEIRS, TENANT, "bare")
    manifest["spec"]["request"] = base64.b64encode(
        armour(pki.csr(pki.key(), subject=pki.name(None), sans=pki.dns(f"bare.{TENANT}.svc")))
    ).decode()
    system.api.apply(manifest)
    system.decide(TENANT, "bare", "Approved")
    issued = system.until_reason(THEIRS, TENANT, "bare", "Issued")
    extensions = x509.load_pem_x509_certificates(base64.b64decode(issued["status"]["certificate"]))[0].extensions
    bits = extensions.get_extension_for_class(x509.KeyUsage).value
    assert bits.digital_signature
    assert not bits.key_encipherment  # the key is an EC key
    assert not [extension for extension in extensions if isinstance(extension.value, x509.ExtendedKeyUsage)]
    assert "key encipherment left out" in message_of(issued)


@pytest.mark.spec("K8S-CONTRACT-19")
def test_what_comes_is_for_the_csrs_key_and_valid_now(system: System) -> None:
    """Contract 19: what cert-manager will check."""
    approved(system, "checked")
    status = system.until_reason(THEIRS, TENANT, "checked", "Issued")["status"]
    leaf = x509.load_pem_x509_certificates(base64.b64decode(status["certificate"]))[0]
    csr = x509.load_pem_x509_csr(base64.b64decode(system.get(THEIRS, TENANT, "checked")["spec"]["request"]))
    assert leaf.public_key() == csr.public_key()
    assert leaf.not_valid_before_utc <= now() < leaf.not_valid_after_utc


@pytest.mark.spec("K8S-CONTRACT-24")
def test_without_cert_managers_webhook_a_forged_username_gives_no_other_names(system: System) -> None:
    """Contract 24: the namespace alone counts."""
    forged: Claim = {"username": f"system:serviceaccount:{OTHER}:web", "groups": ["system:masters"], "uid": "forged"}
    system.request(THEIRS, TENANT, "forged", dns_name=f"web.{OTHER}.svc", **forged)
    system.decide(TENANT, "forged", "Approved")
    assert f"web.{OTHER}.svc" in message_of(system.until_reason(THEIRS, TENANT, "forged", "Failed"))
    system.request(THEIRS, TENANT, "own", **forged)
    system.decide(TENANT, "own", "Approved")
    system.until_reason(THEIRS, TENANT, "own", "Issued")


@pytest.mark.spec("K8S-CONTRACT-28")
def test_an_issuer_finds_its_secret_in_its_own_namespace_and_a_cluster_issuer_in_that_of_the_installation(system: System) -> None:
    """Contract 28."""
    found = authority("Placed CA")
    system.api.apply(secret(TENANT, "placed-ca", crt=found.pem, key=found.key_pem))
    system.api.apply(issuer(OTHER, "placed"), issuer(TENANT, "placed"), issuer(TENANT, "placed", kind="EstClusterIssuer"))
    try:
        system.until_reason("estissuers", TENANT, "placed", "Checked")
        system.until_reason("estissuers", OTHER, "placed", "SecretMissing")
        system.until_reason("estclusterissuers", TENANT, "placed", "SecretMissing")
        system.api.apply(secret(system.namespace, "placed-ca", crt=found.pem, key=found.key_pem))
        system.until_reason("estclusterissuers", TENANT, "placed", "Checked")
        system.until_reason("estissuers", OTHER, "placed", "SecretMissing")
    finally:
        system.api.kubectl("delete", "estclusterissuer", "placed")


@pytest.mark.spec("K8S-CONTRACT-30")
def test_our_requests_have_a_short_name_of_their_own_beside_cert_managers(system: System) -> None:
    """Contract 30."""
    system.request(OURS, TENANT, "ours-alone")
    system.request(THEIRS, TENANT, "theirs-alone")
    assert "ours-alone" in (listed := system.api.kubectl("get", "estcr", "-n", TENANT, "-o", "name"))
    assert "theirs-alone" not in listed
    assert "ours-alone" not in system.api.kubectl("get", "cr", "-n", TENANT, "-o", "name")
