"""cert-manager's conformance suite, restated: each row of tests/integration/cert_manager_cases.py on a real API server."""

import base64
import ipaddress
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from estcore.issuer_spec import KeyAlgorithm
from estcore.usages import Usage, extended_key_usage, key_usage, parse_usage_names
from estoperator.go_duration import parse_go_duration
from tests import pki
from tests.collect import collect
from tests.estoperator.builders import armour
from tests.integration.api_client import Object
from tests.integration.apiserver import ApiServer
from tests.integration.cert_manager_cases import (
    ADDRESS,
    CERTIFICATES,
    DOMAIN,
    FEATURES,
    FURTHER,
    SIGNING_REQUESTS,
    SPIFFE,
    UPN,
    Case,
    host,
)
from tests.integration.operator_system import THEIRS, System, condition
from tests.integration.test_cert_manager_contract import authority, now, secret
from tests.integration.test_signing_requests import until_ended

pytestmark = pytest.mark.timeout(180)

TENANT = "conformance"
EXPERIMENTAL = "experimental.cert-manager.io"
DEFAULT_DURATION = timedelta(days=90)
DEFAULT_USAGES = frozenset({Usage.DIGITAL_SIGNATURE, Usage.KEY_ENCIPHERMENT})
"""What cert-manager puts into the CSR of a Certificate without usages."""

PERMITTED: dict[str, Any] = {
    "from": {"namespaces": [TENANT]},
    "dnsNames": [f"*.{DOMAIN}", f"wild.{DOMAIN}", f"*.wild.{DOMAIN}", f"*.apex.{DOMAIN}", f"*.literal.{DOMAIN}"],
    "ipAddresses": [f"{ADDRESS}/32"],
    "uris": [SPIFFE],
    "otherNames": [{"oid": UPN, "utf8Value": "*@domain.test"}, {"oid": UPN, "utf8Value": "*@domain2.test"}],
    "emailAddresses": ["*@example.com", "*@domain.test", "*@cert-manager.io"],
    "wildcards": True,
}
SUBJECTS = {
    "words": {"commonName": "*"},
    "authority": {"commonName": "*"},
    "hosts": {"commonName": f"*.{DOMAIN}"},
    "literal": {
        "commonName": f"*.literal.{DOMAIN}",
        "organization": "Corp.",
        "organizationalUnits": ["Dept.", "Baz", "Bar", "FooLong"],
    },
}
"""An issuer for each form of common name, and one for CAs."""


@pytest.fixture(scope="module")
def system(cert_manager_crd: None, apiserver: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    started = System(apiserver, tmp_path_factory.mktemp("conformance"), "est-conformance-system")
    started.tenant(TENANT)
    usages = sorted({*Usage} - {Usage.CONTENT_COMMITMENT, Usage.TIMESTAMPING})
    above = authority("Conformance Root CA", not_after=now() + timedelta(days=1000))  # a CA that is made on demand issues end entities only
    apiserver.apply(secret(TENANT, "authority-ca", crt=above.pem, key=above.key_pem))
    for issuer, subject in SUBJECTS.items():
        started.issuer(TENANT, issuer, rules=[PERMITTED | {"subject": subject}], usages=usages, isCA=True, duration={"max": "10000h"})
    plain = {field: names for field, names in PERMITTED.items() if field != "otherNames"}
    started.issuer(TENANT, "plain", rules=[plain | {"subject": SUBJECTS["words"]}])
    started.issuer(TENANT, "one-unit", rules=[PERMITTED | {"subject": {"organization": "Corp.", "organizationalUnit": "*"}}])
    started.shared_operator()
    yield started
    started.stop()


def issuer_of(case: Case) -> str:
    if case.is_ca:
        return "authority"
    if case.organization:
        return "literal"
    return "hosts" if case.common_name and DOMAIN in case.common_name else "words"


def subject_of(case: Case) -> x509.Name:
    """As cert-manager writes it: a literal subject in the order in which X.500 has it."""
    attributes = [
        *([(NameOID.ORGANIZATION_NAME, case.organization)] if case.organization else []),
        *((NameOID.ORGANIZATIONAL_UNIT_NAME, unit) for unit in case.organizational_units),
        *([(NameOID.COMMON_NAME, case.common_name)] if case.common_name else []),
    ]
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in attributes])


def names_of(case: Case) -> list[x509.GeneralName]:
    return [
        *map(x509.DNSName, case.dns_names),
        *(x509.IPAddress(ipaddress.ip_address(address)) for address in case.ip_addresses),
        *map(x509.UniformResourceIdentifier, case.uris),
        *map(x509.RFC822Name, case.email_addresses),
        *(x509.OtherName(x509.ObjectIdentifier(oid), pki.tlv(0x0C, value.encode())) for oid, value in case.other_names),
    ]


def usages_of(case: Case) -> frozenset[Usage]:
    return parse_usage_names([usage for usage in case.usages if usage != "cert sign"]) if case.usages else DEFAULT_USAGES


def csr_of(case: Case, owner: str) -> tuple[bytes, CertificateIssuerPrivateKeyTypes]:
    """The CSR that cert-manager's controller makes: names, and usages always; basicConstraints only behind a feature gate of its."""
    key, subject = pki.key(case.key, owner=owner), subject_of(case)
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if names := names_of(case):
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=not list(subject))
    bits = key_usage(usages_of(case))
    assert bits is not None
    if case.is_ca:
        bits = x509.KeyUsage(
            digital_signature=True,
            content_commitment=False,
            key_encipherment=True,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=False,
            encipher_only=False,
            decipher_only=False,
        )
    builder = builder.add_extension(bits, critical=True)
    if purposes := extended_key_usage(usages_of(case)):
        builder = builder.add_extension(purposes, critical=False)
    return builder.sign(key, pki.hash_for(key)).public_bytes(Encoding.DER), key


def ask(system: System, name: str, case: Case, *, owner: str = "", issuer: str = "") -> Object:
    """Create the CertificateRequest of such a Certificate, approve it as cert-manager does, and wait for the end."""
    csr_der, _ = csr_of(case, owner or name)
    spec: dict[str, Any] = {
        "request": base64.b64encode(armour(csr_der)).decode(),
        "issuerRef": {"group": "est-issuer.io", "kind": "EstIssuer", "name": issuer or issuer_of(case)},
        **({"usages": list(case.usages)} if case.usages else {}),
        **({"duration": case.duration} if case.duration else {}),
        **({"isCA": True} if case.is_ca else {}),
    }
    metadata = {"name": name, "namespace": TENANT}
    system.api.apply({"apiVersion": "cert-manager.io/v1", "kind": "CertificateRequest", "metadata": metadata, "spec": spec})
    system.decide(TENANT, name, "Approved")
    return system.until(THEIRS, TENANT, name, lambda status: condition(status, "Ready").get("reason") in {"Issued", "Failed"})


def leaf_of(request: Object) -> x509.Certificate:
    """The leaf, its chain checked up to `ca`: SaveCAToSecret and SaveRootCAToSecret are for every row."""
    leaf, *above = x509.load_pem_x509_certificates(base64.b64decode(request["status"]["certificate"]))
    (root,) = x509.load_pem_x509_certificates(base64.b64decode(request["status"]["ca"]))
    root.verify_directly_issued_by(root)
    for lower, upper in zip([leaf, *above], [*above, root], strict=True):
        lower.verify_directly_issued_by(upper)
    collect(leaf.public_bytes(Encoding.DER), root.public_bytes(Encoding.DER))
    return leaf


def ask_natively(system: System, name: str, case: Case) -> Object:
    """Create the CertificateSigningRequest, its CSR of names alone as the suite makes it, approve it, and wait for its end."""
    key, subject = pki.key(case.key, owner=name), subject_of(case)
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if names := names_of(case):
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=not list(subject))
    csr_der = builder.sign(key, pki.hash_for(key)).public_bytes(Encoding.DER)
    annotations = {
        **({f"{EXPERIMENTAL}/request-duration": case.duration} if case.duration else {}),
        **({f"{EXPERIMENTAL}/request-is-ca": "true"} if case.is_ca else {}),
    }
    spec: dict[str, Any] = {
        "request": base64.b64encode(armour(csr_der)).decode(),
        "signerName": f"estissuers.est-issuer.io/{TENANT}.{issuer_of(case)}",
        "usages": list(case.usages),
        **({"expirationSeconds": case.expiration_seconds} if case.expiration_seconds else {}),
    }
    metadata = {"name": name, "annotations": annotations}
    system.api.apply({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": metadata, "spec": spec})
    system.api.kubectl("certificate", "approve", name)
    return until_ended(system, name)


def check(leaf: x509.Certificate, case: Case, owner: str) -> None:
    """What the suite's validations demand of a certificate."""
    assert leaf.public_key() == pki.key(case.key, owner=owner).public_key()
    assert leaf.subject == subject_of(case)
    asked = names_of(case)
    if asked:
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert sorted(map(repr, found)) == sorted(map(repr, asked))
    life = parse_go_duration(case.duration) if case.duration else DEFAULT_DURATION
    if case.expiration_seconds is not None:
        life = timedelta(seconds=case.expiration_seconds)
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc == life, "±0 s, where the suite permits 30 (contract 20)"
    constraints = leaf.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert constraints.ca == case.is_ca
    bits = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
    assert bits.digital_signature or case.is_ca
    assert bits.key_cert_sign == case.is_ca
    if case.usages and not case.is_ca:
        assert bits.data_encipherment == (Usage.DATA_ENCIPHERMENT in usages_of(case))
        assert bits.key_encipherment == (Usage.KEY_ENCIPHERMENT in usages_of(case) and case.key is KeyAlgorithm.RSA_2048), "RFC 8813"
        purposes = [extension.value for extension in leaf.extensions if isinstance(extension.value, x509.ExtendedKeyUsage)]
        assert purposes == ([asked_for] if (asked_for := extended_key_usage(usages_of(case))) else [])


@pytest.mark.parametrize("number", range(len(CERTIFICATES)), ids=[case.case for case in CERTIFICATES])
@pytest.mark.spec("K8S-CONTRACT-16", "K8S-CONTRACT-17", "K8S-CONTRACT-18", "K8S-CONTRACT-20", "K8S-CONTRACT-21")
def test_the_request_of_such_a_certificate_is_answered_as_the_table_says(system: System, number: int) -> None:
    case, name = CERTIFICATES[number], f"case-{number}"
    request = ask(system, name, case)
    ready = condition(request["status"], "Ready")
    if case.refused is None:
        assert ready["reason"] == "Issued", ready["message"]
        check(leaf_of(request), case, name)
    else:
        assert ready["reason"] == "Failed"
        assert case.refused in ready["message"]
        assert request["status"]["failureTime"]


@pytest.mark.parametrize("number", range(len(SIGNING_REQUESTS)), ids=[case.case for case in SIGNING_REQUESTS])
def test_such_a_certificate_signing_request_is_answered_as_the_table_says(system: System, number: int) -> None:
    """Contract 3a, points 4 and 5."""
    case, name = SIGNING_REQUESTS[number], f"conformance-{number}"
    status = ask_natively(system, name, case)
    assert case.refused is None, "every row is issued today"
    assert not condition(status, "Failed"), condition(status, "Failed")
    leaf = x509.load_pem_x509_certificates(base64.b64decode(status["certificate"]))[0]
    issuing = json.loads(system.api.kubectl("get", "estissuer", issuer_of(case), "-n", TENANT, "-o", "json"))["status"]["ca"]["bundle"]
    leaf.verify_directly_issued_by(x509.load_pem_x509_certificate(issuing.encode()))
    collect(leaf.public_bytes(Encoding.DER), x509.load_pem_x509_certificate(issuing.encode()).public_bytes(Encoding.DER))
    check(leaf, case, name)


def test_other_names_are_refused_where_no_rule_lists_them_and_the_message_names_the_field(system: System) -> None:
    """The row OtherNames is by opt-in: this issuer's rule is the same but for otherNames."""
    (case,) = (case for case in CERTIFICATES if case.other_names)
    ready = condition(ask(system, "unlisted", case, issuer="plain")["status"], "Ready")
    assert ready["reason"] == "Failed"
    assert f"otherName:{UPN};UTF8:upn@domain.test is not permitted" in ready["message"]
    assert "rule 1 permits otherNames none" in ready["message"]


def test_a_literal_subject_is_refused_where_no_rule_lists_its_parts_and_the_message_names_the_field(system: System) -> None:
    """The row LiteralCertificateSubject is by opt-in: this rule has one pattern for every unit, whose `*` stands for no dot."""
    (case,) = (case for case in CERTIFICATES if case.organizational_units)
    ready = condition(ask(system, "unpinned", case, issuer="one-unit")["status"], "Ready")
    assert ready["reason"] == "Failed"
    assert "subject OU=Dept. is not permitted" in ready["message"]
    assert "rule 1 permits subject.organizationalUnit *" in ready["message"]


def test_reuse_private_key_gives_another_certificate_for_the_same_key(system: System) -> None:
    case = Case(case=FURTHER[0][1], features=("ReusePrivateKey",), dns_names=(host("reuse"),))
    first = leaf_of(ask(system, "reuse", case))
    system.api.kubectl("delete", THEIRS, "reuse", "-n", TENANT)
    second = leaf_of(ask(system, "reuse", case))
    check(second, case, "reuse")
    assert first.public_key() == second.public_key()
    assert first.serial_number != second.serial_number


def test_a_certificate_that_gets_a_further_dns_name_is_issued_again(system: System) -> None:
    for revision, names in enumerate([("kept",), ("kept", "added")]):
        case = Case(case=FURTHER[1][1], features=("OnlySAN",), dns_names=tuple(map(host, names)))
        check(leaf_of(ask(system, f"update-{revision}", case, owner="update")), case, "update")


def test_every_feature_of_the_suite_but_acmes_has_a_case() -> None:
    shown = {feature for case in CERTIFICATES for feature in case.features} | {feature for feature, _ in FURTHER}
    assert set(FEATURES) - shown == {"SaveCAToSecret", "SaveRootCAToSecret", "ACMEUseARI"}, "the first two are checked in leaf_of"
    assert (len(CERTIFICATES), len(SIGNING_REQUESTS)) == (22, 23)
