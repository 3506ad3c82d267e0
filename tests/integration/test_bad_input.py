"""Bad input at every Kubernetes door: what the API server lets through ends with its condition and reason, and the operator goes on.

What it does not let through is here too, for that is why nothing else is needed there.
"""

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests import pki
from tests.estoperator.builders import armour
from tests.integration.api_client import Object
from tests.integration.apiserver import ApiServer
from tests.integration.doorway import (
    CERT_MANAGER,
    EST_ISSUER,
    POD_CERTIFICATES,
    SIGNING_REQUESTS,
    Doorway,
    b64,
    native_csr,
    outcome,
    rules,
)
from tests.integration.operator_system import System, condition
from tests.integration.test_signing_requests import bind

pytestmark = pytest.mark.timeout(180)

TENANT, OTHER = "bad-input", "bad-input-other"
MEGABYTE = 1_000_000
DURATION_ANNOTATION = "experimental.cert-manager.io/request-duration"
CODE_SIGNING = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING])
CA = x509.BasicConstraints(ca=True, path_length=None)
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def system(cert_manager_crd: None, apiserver: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    started = System(apiserver, tmp_path_factory.mktemp("bad-input"), "est-bad-input-system")
    for namespace in (TENANT, OTHER):
        started.tenant(namespace)
        started.issuer(namespace, rules=rules(namespace))
    started.issuer(TENANT, "brief", rules=rules(TENANT), duration={"default": "30m", "max": "45m"})
    started.shared_operator()
    for namespace, issuer in ((TENANT, "factory"), (TENANT, "brief"), (OTHER, "factory")):
        started.until_reason("estissuers", namespace, issuer, "Checked")
    yield started
    started.stop()


@pytest.fixture(autouse=True)
def goes_on(system: System) -> Iterator[None]:
    """After each test the same operator serves a good request, and has seen no fault of its own."""
    operator = system.shared_operator()
    yield
    EST_ISSUER.ask(system, TENANT, name := f"good-{next(_numbers)}")
    EST_ISSUER.until_issued(system, TENANT, name)
    assert system.shared_operator() is operator
    assert system.metric(operator, 'est_operator_errors_total{reason="Internal",work="request"}') == 0
    assert "internal_error" not in operator.log.read_text()


def refusal(system: System, doorway: Doorway, name: str) -> str:
    """The reason for which a request is not issued. There is no certificate, and where the door has Ready, a failure time."""
    status = doorway.until_ended(system, TENANT, name)["status"]
    assert not {"certificate", "certificateChain"} & set(status)
    if condition(status, "Ready"):
        assert condition(status, "Ready")["reason"] == "Failed"
        assert status["failureTime"]
    return outcome(status)


def own_csr(*extensions: x509.ExtensionType) -> bytes:
    return native_csr(f"web.{TENANT}.svc", owner="bad", extensions=extensions).public_bytes(Encoding.PEM)


def another_signature(*names: str) -> bytes:
    """A CSR, DER, whose signature is one bit beside its own key's."""
    der = native_csr(*names, owner="bad").public_bytes(Encoding.DER)
    return der[:-1] + bytes([der[-1] ^ 1])


def large(octets: int) -> bytes:
    value = b"\x04\x83" + octets.to_bytes(3) + bytes(octets)
    return own_csr(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), value))


def weak() -> bytes:
    key = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505  # meant to be refused
    sans = x509.SubjectAlternativeName(pki.dns(f"web.{TENANT}.svc"))
    made = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).add_extension(sans, critical=True)
    return made.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


WITH_HEADERS = own_csr().replace(b"REQUEST-----\n", b"REQUEST-----\nProc-Type: 4,ENCRYPTED\n\n", 1)
CSRS = {
    "two-of-them": (own_csr() + own_csr(), "MalformedBody"),
    "pem-headers": (WITH_HEADERS, "MalformedBody"),
    "weak-key": (weak(), "KeyNotAllowed"),
    "unknown-extension": (own_csr(x509.OCSPNoCheck()), "UnsupportedExtension"),
    "other-usages": (own_csr(CODE_SIGNING), "UsagesContradict"),
    "another-ca-bit": (own_csr(CA), "IsCAContradicts"),
    "a-megabyte": (large(MEGABYTE * 3 // 4), "MalformedBody"),
}
NOT_CSRS = {
    "text": (b"none", "MalformedBody"),
    "no-der": (armour(b"\x00\x00\x00"), "MalformedBody"),
    "another-signature": (armour(another_signature(f"web.{TENANT}.svc")), "BadSignature"),
}
"""What the API server holds CertificateSigningRequests against, and CertificateRequests not."""


@pytest.mark.parametrize("case", CSRS)
def test_a_csr_that_a_signing_request_may_hold_and_nobody_certifies_is_failed_and_says_why(system: System, case: str) -> None:
    csr, reason = CSRS[case]
    SIGNING_REQUESTS.ask(system, TENANT, f"csr-{case}", request=b64(csr))
    assert refusal(system, SIGNING_REQUESTS, f"csr-{case}") == reason
    approved = condition(SIGNING_REQUESTS.until_ended(system, TENANT, f"csr-{case}")["status"], "Approved")
    assert approved["status"] == "True"


@pytest.mark.parametrize("case", [*CSRS, *NOT_CSRS])
def test_what_is_no_acceptable_csr_is_invalid_and_failed_at_cert_managers_door(system: System, case: str) -> None:
    """Contracts 13 and 14."""
    csr, reason = {**CSRS, **NOT_CSRS}[case]
    CERT_MANAGER.ask(system, TENANT, f"csr-{case}", request=b64(csr), usages=["digital signature", "server auth"])
    assert refusal(system, CERT_MANAGER, f"csr-{case}") == reason


def test_our_own_kind_takes_no_megabyte_and_says_of_smaller_ones_what_is_wrong(system: System) -> None:
    with pytest.raises(RuntimeError, match="Too long"):
        EST_ISSUER.ask(system, TENANT, "large", request=b64(large(MEGABYTE * 3 // 4)))
    cases = {name: case for name, case in {**CSRS, **NOT_CSRS}.items() if name != "a-megabyte"}
    for name, (csr, _) in cases.items():
        EST_ISSUER.ask(system, TENANT, f"csr-{name}", request=b64(csr), usages=["digital signature", "server auth"])
    for name, (_, reason) in cases.items():
        assert refusal(system, EST_ISSUER, f"csr-{name}") == reason


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"request": b64(b"none")}, "PEM block type must be CERTIFICATE REQUEST"),
        ({"request": b64(armour(b"\x00\x00\x00"))}, "structure error"),
        ({"request": b64(armour(another_signature()))}, "ECDSA verification failure"),
        ({"expirationSeconds": 599}, "may not specify a duration less than 600 seconds"),
        ({"usages": []}, "spec.usages: Required value"),
        ({"usages": ["flying"]}, "supported values"),
        ({"signerName": "estissuers.est-issuer.io/a/b"}, "must be a fully qualified domain and path"),
    ],
)
def test_the_api_server_refuses_these_signing_requests_by_itself(system: System, spec: Object, said: str) -> None:
    with pytest.raises(RuntimeError, match=said):
        SIGNING_REQUESTS.ask(system, TENANT, "never", **spec)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"stubPKCS10Request": b64(b"none")}, "must be a valid PKCS#10 CSR"),
        ({"stubPKCS10Request": b64(another_signature())}, "invalid signature"),
        ({"stubPKCS10Request": ""}, "exactly one of"),
        ({"stubPKCS10Request": b64(bytes(MEGABYTE))}, "may not be more than 10240 bytes"),
        ({"unverifiedUserAnnotations": {"example.com/a": "x" * MEGABYTE}}, "may not be more than 262144 bytes"),
        ({"maxExpirationSeconds": 3599}, r"must be in the range \[3600"),
    ],
)
def test_the_api_server_refuses_these_pods_requests_by_itself(system: System, spec: Object, said: str) -> None:
    with pytest.raises(RuntimeError, match=said):
        POD_CERTIFICATES.ask(system, TENANT, "never", **spec)


def test_a_pods_stub_that_asks_for_names_usages_or_a_ca_is_denied(system: System) -> None:
    """Contract 3b, point 2: the kubelet chooses the key and nothing else."""
    stubs = {
        "stub-names": native_csr(f"admin.{TENANT}.svc", owner="bad"),
        "stub-usages": native_csr(owner="bad", extensions=(CODE_SIGNING,)),
        "stub-ca": native_csr(owner="bad", extensions=(CA,)),
    }
    for name, stub in stubs.items():
        POD_CERTIFICATES.ask(system, TENANT, name, stubPKCS10Request=b64(stub.public_bytes(Encoding.DER)))
    for name in stubs:
        assert refusal(system, POD_CERTIFICATES, name) == "StubNotEmpty"


def test_a_life_below_the_least_is_refused_at_every_door(system: System) -> None:
    """Where the API server does not: an hour, ten minutes by cert-manager's annotation, and an issuer that may not give a pod an hour."""
    for doorway in (EST_ISSUER, CERT_MANAGER):
        doorway.ask(system, TENANT, "short", duration="59m")
    made = SIGNING_REQUESTS.manifest(TENANT, "short", "factory", "bad")
    made["metadata"]["annotations"] = {DURATION_ANNOTATION: "599s"}
    system.api.client.create(made)
    SIGNING_REQUESTS.approve(system, TENANT, "short")
    POD_CERTIFICATES.ask(system, TENANT, "short", issuer="brief")
    assert refusal(system, SIGNING_REQUESTS, "short") == "InvalidDuration"
    assert refusal(system, POD_CERTIFICATES, "short") == "Duration"
    for doorway in (EST_ISSUER, CERT_MANAGER):
        assert refusal(system, doorway, "short") == "Failed"
        assert "59m is shorter than 1:00:00" in condition(doorway.until_ended(system, TENANT, "short")["status"], "Ready")["message"]


def test_a_signer_name_that_can_name_no_issuer_is_refused_and_one_that_does_not_yet_is_told(system: System) -> None:
    for doorway, reason in ((SIGNING_REQUESTS, "Failed"), (POD_CERTIFICATES, "Denied")):
        doorway.ask(system, TENANT, "nowhere", signerName="estissuers.est-issuer.io/factory")
        found = condition(doorway.until_ended(system, TENANT, "nowhere")["status"], reason)
        assert found["reason"] == "InvalidSignerName"
        assert "estissuers.est-issuer.io/<namespace>.factory" in found["message"]
    for doorway in (EST_ISSUER, CERT_MANAGER, SIGNING_REQUESTS, POD_CERTIFICATES):
        doorway.ask(system, TENANT, "absent", issuer="absent")
        doorway.until_told(system, TENANT, "absent", "IssuerNotFound")
        assert outcome((doorway.get(system, TENANT, "absent") or {}).get("status") or {}) == ""


def test_an_issuer_of_another_namespace_is_not_reached_by_any_door(system: System) -> None:
    """Contracts 2, 3a point 3 and 3b: where a name can say so it is refused, and else it names one of the own namespace."""
    stranger = system.api.kubeconfig_for(OTHER, "builder")
    subject = {"kind": "ServiceAccount", "name": "builder", "namespace": OTHER}
    bind(system, "bad-input-makes-csrs", [rule("certificatesigningrequests", "create")], subject)
    made = SIGNING_REQUESTS.manifest(TENANT, "stranger", "factory", "bad")
    system.api.kubectl(f"--kubeconfig={stranger}", "create", "-f", "-", stdin=json.dumps(made))
    SIGNING_REQUESTS.approve(system, TENANT, "stranger")
    POD_CERTIFICATES.ask(system, OTHER, "stranger", signerName=f"estissuers.est-issuer.io/{TENANT}.factory")
    assert refusal(system, SIGNING_REQUESTS, "stranger") == "DeniedReference"
    status = POD_CERTIFICATES.until_ended(system, OTHER, "stranger")["status"]
    assert condition(status, "Denied")["reason"] == "IssuerOfAnotherNamespace"
    for doorway in (EST_ISSUER, CERT_MANAGER):
        doorway.ask(system, OTHER, "stranger", issuer="brief")  # there is one of that name in the other namespace only
        doorway.until_told(system, OTHER, "stranger", "IssuerNotFound")


@pytest.mark.spec("THREAT-24")
def test_a_tenant_with_every_right_on_the_native_kinds_but_no_verb_on_signers_forges_nothing(system: System) -> None:
    """Neither the approval, nor a certificate, nor an end: the API server refuses, and drops what is there at creation."""
    subject = {"kind": "ServiceAccount", "name": "tenant", "namespace": TENANT}
    kinds = [f"{kind}{part}" for kind in ("certificatesigningrequests", "podcertificaterequests") for part in ("", "/status", "/approval")]
    bind(system, "bad-input-every-right", [rule(kind, "*") for kind in kinds], subject)
    reference = {"apiGroups": ["est-issuer.io"], "resources": ["signers"], "verbs": ["reference"], "resourceNames": ["factory"]}
    bind(system, "bad-input-reference", [reference], subject, namespace=TENANT)
    chain = str(system.get("estissuers", OTHER, "factory")["status"]["ca"]["bundle"]).encode()
    forged: dict[Doorway, list[tuple[str, Object]]] = {
        SIGNING_REQUESTS: [
            ("approval", {"conditions": [said("Approved")]}),
            ("status", {"conditions": [said("Failed")]}),
            ("status", {"certificate": b64(chain)}),
        ],
        POD_CERTIFICATES: [("status", {"conditions": [said("Denied")]}), ("status", issued_by_hand(chain))],
    }
    for doorway, statuses in forged.items():
        made = doorway.manifest(TENANT, "forged", "factory", "forged") | {"status": statuses[-1][1]}
        if doorway is POD_CERTIFICATES:  # while nobody serves it, or it would be over
            made["spec"]["signerName"] = f"estissuers.est-issuer.io/{TENANT}.forged"
        as_tenant(system, "create", "-f", "-", stdin=json.dumps(made))
        for part, status in statuses:
            patch = ["patch", doorway.plural, "forged", *doorway.scope(TENANT), f"--subresource={part}", "--type=merge"]
            with pytest.raises(RuntimeError, match=r"[Ff]orbidden|user not permitted|is invalid"):
                as_tenant(system, *patch, "-p", json.dumps({"status": status}))
        assert not (doorway.get(system, TENANT, "forged") or {}).get("status")
    SIGNING_REQUESTS.approve(system, TENANT, "forged")
    SIGNING_REQUESTS.until_issued(system, TENANT, "forged")
    system.issuer(TENANT, "forged", rules=rules(TENANT))
    POD_CERTIFICATES.until_issued(system, TENANT, "forged")


def as_tenant(system: System, *arguments: str, stdin: str | None = None) -> str:
    user = [f"--as=system:serviceaccount:{TENANT}:tenant", "--as-group=system:authenticated"]
    return system.api.kubectl(*user, *arguments, stdin=stdin)


def said(type_: str) -> Object:
    now = "2026-01-01T00:00:00Z"
    return {"type": type_, "status": "True", "reason": "forged", "message": "by a tenant", "lastTransitionTime": now}


def issued_by_hand(chain: bytes) -> Object:
    times = {"notBefore": "2026-01-01T00:00:00Z", "beginRefreshAt": "2026-01-01T12:00:00Z", "notAfter": "2026-01-02T00:00:00Z"}
    return {"conditions": [said("Issued")], "certificateChain": chain.decode(), **times}


def rule(resource: str, *verbs: str) -> dict[str, Any]:
    return {"apiGroups": ["certificates.k8s.io"], "resources": [resource], "verbs": list(verbs)}
