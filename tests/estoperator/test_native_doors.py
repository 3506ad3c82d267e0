"""Requests of certificates.k8s.io, from object to step: contracts 3a and 3b."""

import base64
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from estcore import crmf
from estcore.certification_request import RequestForm
from estcore.errors import Refused, ServerUnavailable
from estcore.full_request import REQUEST
from estcore.other_names import other_name
from estcore.spec_part import KeyAlgorithm
from estcore.usages import Usage
from estoperator import decide, object_reader
from estoperator.decide import Enroll, Ignore, Refuse, Retry, Wait
from estoperator.doors import POD_CERTIFICATES, SIGNING_REQUESTS
from estoperator.requesters import requester_of
from estoperator.resources import MAX_REQUEST_CHARACTERS, CertRequest, IssuerRef
from tests import pki
from tests.estoperator.builders import FACTORY, NOW, WEB, authority, pod_body, pod_request, ready_issuer, signing_body, signing_request

NOWHERE = "estissuers.est-issuer.io/factory"
POD_RULE = {"from": {"namespaces": ["devices"]}, "uris": ["spiffe://td.example/ns/{namespace}/sa/{serviceAccount}/{pod}"]}


@pytest.mark.parametrize(
    ("signer_name", "issuer"),
    [
        ("estissuers.est-issuer.io/devices.factory", FACTORY),
        ("estissuers.est-issuer.io/devices.factory.v2", IssuerRef("EstIssuer", "devices", "factory.v2")),
        ("estclusterissuers.est-issuer.io/factory.v2", IssuerRef("EstClusterIssuer", "", "factory.v2")),
        ("estissuers.est-issuer.io/factory", IssuerRef("EstIssuer", "", "factory")),
        ("estissuers.est-issuer.io/.factory", IssuerRef("EstIssuer", "", ".factory")),
        ("estissuers.est-issuer.io/factory.", IssuerRef("EstIssuer", "", "factory.")),
        ("estissuers.est-issuer.io/", None),
        ("estclusterissuers.est-issuer.io/", None),
        ("estissuers.example.com/devices.factory", None),
        ("kubernetes.io/kubelet-serving", None),
    ],
)
def test_a_signer_name_is_ours_by_its_domain_and_splits_at_the_first_dot(signer_name: str, issuer: IssuerRef | None) -> None:
    assert object_reader.read_signer_name(signer_name) == issuer
    read = object_reader.read_request(SIGNING_REQUESTS, signing_body("Approved", signerName=signer_name))
    assert (read.issuer if read else None) == issuer


@pytest.mark.parametrize("request_", [signing_request(signerName=NOWHERE), pod_request(signerName=NOWHERE)])
def test_a_signer_name_that_can_name_no_issuer_is_refused_and_says_how_one_is_named(request_: CertRequest) -> None:
    assert not decide.must_be_reviewed(request_)
    step = decide.next_step(request_, None)
    assert isinstance(step, Refuse)
    assert step.reason == "InvalidSignerName"
    assert "estissuers.est-issuer.io/<namespace>.factory" in step.message


@pytest.mark.parametrize("ended", ["Failed", "Denied"])
def test_a_signing_request_that_ended_is_ignored_even_where_it_is_approved(ended: str) -> None:
    request = signing_request("Approved", ended)
    assert request.finished
    assert decide.next_step(request, ready_issuer()) == Ignore()


def test_a_signing_request_waits_for_approval_in_silence() -> None:
    request = object_reader.read_request(SIGNING_REQUESTS, signing_body())
    assert request is not None
    assert decide.next_step(request, ready_issuer()) == Ignore()
    assert not decide.must_be_reviewed(request)


@pytest.mark.parametrize(
    ("username", "signer_name", "namespace", "service_account"),
    [
        ("jane", "estissuers.est-issuer.io/devices.factory", "devices", None),
        ("system:serviceaccount:devices:web", "estissuers.est-issuer.io/devices.factory", "devices", "web"),
        ("system:serviceaccount:other:web", "estissuers.est-issuer.io/devices.factory", "devices", None),
        ("system:serviceaccount:other:web", "estclusterissuers.est-issuer.io/factory", "other", "web"),
        ("x:system:serviceaccount:other:web", "estclusterissuers.est-issuer.io/factory", None, None),
        ("jane", "estclusterissuers.est-issuer.io/factory", None, None),
    ],
)
def test_the_policy_sees_the_namespace_that_the_user_may_speak_for(
    username: str, signer_name: str, namespace: str | None, service_account: str | None
) -> None:
    request = signing_request(username=username, signerName=signer_name)
    requester = requester_of(request)
    assert (requester.namespace, requester.service_account) == (namespace, service_account)
    assert decide.must_be_reviewed(request) == signer_name.startswith("estissuers")


@pytest.mark.parametrize(
    ("from_", "signed"),
    [({"users": ["jane"]}, True), ({"groups": ["pki-*"]}, True), ({"users": ["joe"]}, False), ({"namespaces": ["*"]}, False)],
)
def test_a_person_who_asks_a_cluster_issuer_is_found_by_rules_on_users_and_groups(from_: dict[str, Any], signed: bool) -> None:
    request = signing_request(username="jane", groups=["pki-team"], signerName="estclusterissuers.est-issuer.io/factory")
    issuer = replace(ready_issuer(rules=[{"from": from_, "dnsNames": [WEB]}]), ref=request.issuer)
    assert isinstance(decide.next_step(request, issuer), Enroll if signed else Refuse)


def test_life_and_usages_of_a_signing_request_are_its_specs() -> None:
    step = decide.next_step(signing_request(expirationSeconds=600), ready_issuer())
    assert isinstance(step, Enroll)
    assert step.wishes.duration == timedelta(seconds=600)
    assert step.wishes.usages == frozenset({Usage.DIGITAL_SIGNATURE, Usage.SERVER_AUTH})


def test_names_of_a_pod_are_what_its_rule_writes_out() -> None:
    step = decide.next_step(pod_request(), ready_issuer(rules=[POD_RULE]))
    assert isinstance(step, Enroll)
    assert step.wishes.sans == (x509.UniformResourceIdentifier("spiffe://td.example/ns/devices/sa/web/web-0"),)
    assert step.wishes.subject == x509.Name([])
    assert step.csr.sans == step.wishes.sans


def test_an_other_name_that_is_written_out_is_a_pods_too_and_an_open_one_is_refused() -> None:
    principal = {"oid": "1.3.6.1.4.1.311.20.2.3", "utf8Value": "{serviceAccount}.{namespace}@ad.example"}
    step = decide.next_step(pod_request(), ready_issuer(rules=[POD_RULE | {"otherNames": [principal]}]))
    assert isinstance(step, Enroll)
    assert step.wishes.sans[1:] == (other_name(principal["oid"], "web.devices@ad.example"),)
    step = decide.next_step(pod_request(), ready_issuer(rules=[POD_RULE | {"otherNames": [principal | {"utf8Value": "*@ad.example"}]}]))
    assert isinstance(step, Refuse)
    assert step.reason == "NoNames"


@pytest.mark.parametrize(
    ("policy", "asked", "life"),
    [
        ({}, 86400, timedelta(hours=24)),
        ({"duration": {"default": "2h", "max": "4h"}}, 86400, timedelta(hours=2)),
        ({"duration": {"default": "30m", "max": "4h"}}, 86400, timedelta(hours=1)),
        ({}, 3600, timedelta(hours=1)),
    ],
)
def test_a_pods_certificate_lives_an_hour_at_least_and_no_longer_than_asked(policy: dict[str, Any], asked: int, life: timedelta) -> None:
    step = decide.next_step(pod_request(maxExpirationSeconds=asked), ready_issuer(rules=[POD_RULE], **policy))
    assert isinstance(step, Enroll)
    assert step.wishes.duration == life


@pytest.mark.parametrize(
    ("fields", "policy", "reason"),
    [
        ({"namespace": "other"}, {}, "IssuerOfAnotherNamespace"),
        ({"unverifiedUserAnnotations": {"example.com/a": "b"}}, {}, "InvalidUnverifiedUserAnnotations"),
        ({}, {"keys": ["RSA-3072"]}, "UnsupportedKeyType"),
        ({}, {"duration": {"default": "30m", "max": "45m"}}, "Duration"),
        ({}, {"rules": []}, "NoRule"),
        ({}, {"rules": [{"dnsNames": ["*.{namespace}.svc"]}]}, "NoNames"),
        ({"podName": "web.0"}, {"rules": [{"dnsNames": ["{pod}.{namespace}.pod"]}]}, "NoNames"),
    ],
)
def test_what_no_pod_may_have_is_refused_by_name(fields: dict[str, Any], policy: dict[str, Any], reason: str) -> None:
    step = decide.next_step(pod_request(**fields), ready_issuer(**{"rules": [POD_RULE], **policy}))
    assert isinstance(step, Refuse)
    assert step.reason == reason


def bare_key(public_key: object, **fields: Any) -> CertRequest:
    """The request of a node before 1.36."""
    spki_b64 = base64.b64encode(pki.spki_der(public_key)).decode()
    return pod_request(**{"stubPKCS10Request": "", "pkixPublicKey": spki_b64, "proofOfPossession": "c2lnbmVk", **fields})


@pytest.mark.parametrize("algorithm", pki.ALL_ALGORITHMS)
def test_a_node_before_1_36_gets_what_another_gets_for_its_key(algorithm: KeyAlgorithm) -> None:
    """Contract 3b, points 2 and 3 and "Skew": the body that goes to estserver is a CRMF request for that key and for nothing else."""
    key = pki.key(algorithm, "pod")
    issuer = ready_issuer(rules=[POD_RULE], keys=[algorithm])
    stub = base64.b64encode(pki.csr(key, subject=x509.Name([]))).decode()
    steps = [decide.next_step(request, issuer) for request in (bare_key(key.public_key()), pod_request(stubPKCS10Request=stub))]
    bare, usual = steps
    assert isinstance(bare, Enroll)
    assert isinstance(usual, Enroll)
    assert bare.wishes == usual.wishes
    for field in ("public_key", "spki_der", "key_algorithm", "subject", "sans", "usages", "duration", "ca"):
        assert getattr(bare.csr, field) == getattr(usual.csr, field), field
    assert bare.csr.form is RequestForm.CRMF
    sent = crmf.parse(bare.csr.csr_der, now=NOW)
    assert (sent.cert_req_id, sent.request.spki_der) == (REQUEST, pki.spki_der(key.public_key()))
    assert (sent.request.subject.rdns, sent.request.sans, sent.request.usages, sent.request.proven) == ([], (), None, False)


def test_where_both_are_there_the_stub_counts() -> None:
    """Contract 3b, point 2."""
    request = bare_key(pki.key(owner="other").public_key(), stubPKCS10Request=pod_body()["spec"]["stubPKCS10Request"])
    step = decide.next_step(request, ready_issuer(rules=[POD_RULE]))
    assert isinstance(step, Enroll)
    assert step.csr.form is RequestForm.PKCS10
    assert step.csr.public_key == pki.key(owner="pod").public_key()


def test_a_request_whose_key_is_not_shown_in_the_version_that_is_watched_waits_and_is_not_denied() -> None:
    """Contract 3b, point 5 and "Skew": Denied would be for ever, and the operator may yet be told to read v1beta1."""
    step = decide.next_step(pod_request(stubPKCS10Request=""), ready_issuer(rules=[POD_RULE]))
    assert isinstance(step, Wait)
    assert (step.reason, step.until) == ("KeyNotShown", None)
    assert "v1beta1" in step.message


def spki(*changes: tuple[bytes, bytes]) -> bytes:
    octets = pki.spki_der(pki.key(owner="pod").public_key())
    for old, new in changes:
        assert octets.count(old) == 1
        octets = octets.replace(old, new)
    return octets


_POINT = spki()[27:]


@pytest.mark.spec("THREAT-06", "THREAT-34")
@pytest.mark.parametrize(
    ("public_key", "reason"),
    [
        pytest.param("not base64!", "MalformedBody", id="not base64"),
        pytest.param(b"", "", id="empty"),
        pytest.param(b"\x30\x80" + spki()[2:] + b"\0\0", "MalformedBody", id="BER"),
        pytest.param(spki() + b"\0", "MalformedBody", id="octets behind"),
        pytest.param(spki()[:-1], "MalformedBody", id="cut off"),
        pytest.param(b"\x04\x82\x20\x00" + bytes(8192), "MalformedBody", id="more octets than any key"),
        pytest.param("QUFB" * 250_000, "MalformedBody", id="a megabyte"),
        pytest.param(b"\x30\x03\x02\x01\x00", "UnsupportedKeyType", id="no key"),
        pytest.param(spki((_POINT, bytes(64))), "UnsupportedKeyType", id="a point off the curve"),
        pytest.param(pki.spki_der(pki.curve_key(ec.SECP256K1).public_key()), "UnsupportedKeyType", id="another curve"),
        pytest.param(bytes.fromhex("302a300506032b6570032100") + b"\1" + bytes(31), "WeakKey", id="an Ed25519 point of small order"),
    ],
)
def test_a_bare_key_is_hostile_input_too(public_key: str | bytes, reason: str) -> None:
    """Contract 3b, point 3. The API server is not the only one who must not be wrong about it."""
    text = public_key if isinstance(public_key, str) else base64.b64encode(public_key).decode()
    request = pod_request(stubPKCS10Request="", pkixPublicKey=text)
    step = decide.next_step(request, ready_issuer(rules=[POD_RULE]))
    if not reason:
        assert isinstance(step, Wait)
        return
    assert isinstance(step, Refuse)
    assert step.reason == reason


def test_of_a_key_that_policy_does_not_permit_the_denial_names_those_that_it_does() -> None:
    """Contract 3b, point 3."""
    step = decide.next_step(bare_key(pki.key(KeyAlgorithm.ED25519, "pod").public_key()), ready_issuer(rules=[POD_RULE], keys=["RSA-3072"]))
    assert isinstance(step, Refuse)
    assert step.reason == "UnsupportedKeyType"
    assert "RSA-3072" in step.message


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"sans": pki.dns("admin.devices.svc")}, "StubNotEmpty"),
        ({"subject": pki.name("web-0")}, "StubNotEmpty"),
        ({"extensions": [x509.ExtendedKeyUsage([pki.CLIENT_AUTH])]}, "StubNotEmpty"),
        ({"extensions": [x509.BasicConstraints(ca=True, path_length=None)]}, "StubNotEmpty"),
        ({"extensions": [x509.OCSPNoCheck()]}, "UnsupportedExtension"),
    ],
    ids=["names", "subject", "usages", "ca", "unknown"],
)
def test_a_pods_stub_that_asks_for_more_than_its_key_is_refused(fields: dict[str, Any], reason: str) -> None:
    """Contract 3b, point 2: a kubelet's is empty, so this is not one's, and nothing of it is dropped in silence."""
    made = pki.csr(pki.key(owner="pod"), **{"subject": x509.Name([]), **fields})
    step = decide.next_step(pod_request(stubPKCS10Request=base64.b64encode(made).decode()), ready_issuer(rules=[POD_RULE]))
    assert isinstance(step, Refuse)
    assert step.reason == reason


@pytest.mark.spec("THREAT-34")
def test_a_request_of_a_megabyte_is_not_held_and_refused_for_its_length() -> None:
    request = signing_request(request="QUFB" * 250_000)
    assert request.csr_b64 is None
    step = decide.next_step(request, ready_issuer())
    assert isinstance(step, Refuse)
    assert f"more than {MAX_REQUEST_CHARACTERS} characters" in step.message


@pytest.mark.parametrize("ended", ["Issued", "Denied", "Failed"])
def test_a_pods_request_that_ended_is_ignored(ended: str) -> None:
    read = object_reader.read_request(POD_CERTIFICATES, pod_body(status={"conditions": [{"type": ended, "status": "True"}]}))
    assert read is not None
    assert read.finished


def test_a_fault_that_passes_never_ends_a_pods_request() -> None:
    error, late = ServerUnavailable("away"), NOW + timedelta(days=1)
    step = decide.after_error(error, pod_request(), ready_issuer(), since=pki.EPOCH, now=late, max_retry=timedelta(minutes=10))
    assert isinstance(step, Retry)
    ended = decide.after_error(error, signing_request(), ready_issuer(), since=pki.EPOCH, now=late, max_retry=timedelta(minutes=10))
    assert isinstance(ended, Refuse)


def test_a_pods_request_that_had_other_names_by_an_earlier_policy_is_waited_out_and_not_denied() -> None:
    """Contract 3b, point 5: its pod would never start, and the kubelet makes a new request."""
    error = Refused("this transaction was used before", http_status=409)
    step = decide.after_error(error, pod_request(), ready_issuer(), since=pki.EPOCH, now=NOW, max_retry=timedelta(minutes=10))
    assert isinstance(step, Wait)
    assert step.reason == "PolicyChanged"
    ended = decide.after_error(error, signing_request(), ready_issuer(), since=pki.EPOCH, now=NOW, max_retry=timedelta(minutes=10))
    assert isinstance(ended, Refuse)


@pytest.mark.parametrize(
    ("minutes_old", "minutes", "reason"), [(1, 60, None), (3, 60, None), (5, 60, "CertificateTooOld"), (1, 59, "CertificateTooShort")]
)
def test_a_certificate_that_the_api_server_would_refuse_is_not_written(minutes_old: int, minutes: int, reason: str | None) -> None:
    begin = NOW - timedelta(minutes=minutes_old)
    certificate = pki.leaf(authority(), sans=pki.dns("a.example"), not_before=begin, not_after=begin + timedelta(minutes=minutes))
    step = decide.undeliverable(pod_request(), certificate, now=NOW)
    assert (step.reason if isinstance(step, Wait) else None) == reason
    assert decide.undeliverable(signing_request(), certificate, now=NOW) is None
