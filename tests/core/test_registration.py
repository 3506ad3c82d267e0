"""Who may have which names, and the value that says so."""

import base64
import copy
import dataclasses
import ipaddress
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from estcore import registration
from estcore.errors import BadCsr, BindingMismatch, EstError, Forbidden, SignerError
from estcore.issuer_spec import KeyAlgorithm, Policy
from estcore.registration import Authorized
from estcore.requester import AuthenticatedBy, Requester
from estcore.usages import Usage
from tests import pki
from tests.core.requests import RA, basic, cluster, csr, holder, pod, policy

DNS, URI, EMAIL = x509.DNSName, x509.UniformResourceIdentifier, x509.RFC822Name


def ip(text: str) -> x509.IPAddress:
    return x509.IPAddress(ipaddress.ip_address(text))


def refusal(requester: Requester, rules: Policy, *sans: x509.GeneralName, subject: x509.Name | None = None) -> EstError:
    with pytest.raises((Forbidden, BadCsr)) as raised:
        registration.authorize(requester, csr(*sans, subject=subject), rules)
    assert "\n" not in raised.value.message
    return raised.value


# ---- which rule


@pytest.mark.spec("EST-CLI-06", "THREAT-22")
def test_no_rule_at_all_permits_nothing() -> None:
    error = refusal(basic("x"), policy(), DNS("a.example.com"))
    assert error.message == "No rule of this issuer's policy is for basic user 'x'"
    assert (error.reason, error.http_status) == ("NoRule", 403)


@pytest.mark.parametrize(
    ("requester", "named"),
    [
        (pod("shop", "web"), "service account shop/web"),
        (cluster("shop"), "namespace 'shop'"),
        (holder(pki.leaf(pki.ca())), "certificate 'CN=device-1'"),
        (holder(pki.leaf(pki.ca()), by=AuthenticatedBy.THIRD_PARTY_CERTIFICATE), "third-party certificate 'CN=device-1'"),
    ],
)
def test_a_refusal_names_what_was_looked_for(requester: Requester, named: str) -> None:
    assert refusal(requester, policy(), DNS("a.example.com")).message.endswith(f"is for {named}")


@pytest.mark.parametrize(
    ("from_", "requester", "matches"),
    [
        ({}, basic(), True),
        ({"authentication": "basic"}, basic(), True),
        ({"authentication": "basic"}, pod(), False),
        ({"authentication": "certificate"}, holder(pki.leaf(pki.ca()), by=AuthenticatedBy.THIRD_PARTY_CERTIFICATE), False),
        ({"users": ["device-*"]}, basic("device-7"), True),
        ({"users": ["device-*"]}, basic("laptop-7"), False),
        ({"users": ["*"]}, pod(), False),
        ({"namespaces": ["*"]}, pod(), True),
        ({"namespaces": ["*"]}, cluster(), True),
        ({"namespaces": ["*"]}, basic(), False),
        ({"namespaces": ["shop", "till"]}, pod("till"), True),
        ({"namespaces": ["shop-*"]}, pod("shop"), False),
        ({"serviceAccounts": ["web"]}, pod("shop", "web"), True),
        ({"serviceAccounts": ["web"]}, cluster("shop"), False),
        ({"groups": ["plant-*"]}, basic(groups=frozenset({"x", "plant-1"})), True),
        ({"groups": ["plant-*"]}, basic(), False),
        ({"namespaces": ["shop"], "serviceAccounts": ["api"]}, pod("shop", "web"), False),
    ],
)
def test_every_member_of_from_that_is_set_must_match(from_: dict[str, Any], requester: Requester, *, matches: bool) -> None:
    rules = policy({"from": from_, "dnsNames": ["a.example.com"]})
    if matches:
        assert registration.authorize(requester, csr(DNS("a.example.com")), rules).sans == (DNS("a.example.com"),)
    else:
        assert refusal(requester, rules, DNS("a.example.com")).reason == "NoRule"


def test_the_first_rule_that_matches_is_the_only_one() -> None:
    rules = policy(
        {"from": {"users": ["device-*"]}, "dnsNames": ["first.example.com"]},
        {"from": {"users": ["*"]}, "dnsNames": ["second.example.com"]},
    )
    error = refusal(basic(), rules, DNS("second.example.com"))
    assert error.message == "DNS:second.example.com is not permitted to basic user 'device-1': rule 1 permits dnsNames first.example.com"
    registration.authorize(basic("other"), csr(DNS("second.example.com")), rules)


def test_a_rule_without_names_shuts_its_requester_out() -> None:
    rules = policy({"from": {"users": ["device-bad"]}}, {"from": {"users": ["*"]}, "dnsNames": ["*.example.com"]})
    assert refusal(basic("device-bad"), rules, DNS("a.example.com")).reason == "NameNotPermitted"


def test_a_rule_that_needs_a_namespace_is_not_for_a_requester_without_one() -> None:
    rules = policy({"dnsNames": ["*.{namespace}.svc"]}, {"dnsNames": ["a.example.com"]})
    registration.authorize(basic(), csr(DNS("a.example.com")), rules)
    assert refusal(basic(), policy({"dnsNames": ["*.{namespace}.svc"]}), DNS("a.b.svc")).reason == "NoRule"


def test_a_value_with_a_dot_fails_a_rule_that_puts_it_into_dns_names() -> None:
    rules = policy({"dnsNames": ["{serviceAccount}.{namespace}.svc"], "uris": ["urn:{serviceAccount}"]}, {"dnsNames": ["*.*.*.*"]})
    for name in (DNS("web.other.shop.svc"), URI("urn:web.other")):
        error = refusal(pod("shop", "web.other"), rules, name)
        assert "'web.other' of service account shop/web.other holds a dot" in error.message
        assert error.reason == "NameNotPermitted"


# ---- names

SHOP = policy(
    {
        "from": {"namespaces": ["*"]},
        "dnsNames": ["*.{namespace}.svc", "*.{namespace}.svc.cluster.local", "*.apps.example.com"],
        "uris": ["spiffe://cluster.local/ns/{namespace}/sa/*"],
        "ipAddresses": ["10.0.0.0/8", "2001:db8::1"],
        "emailAddresses": ["*@example.com"],
    }
)


@pytest.mark.parametrize(
    "san",
    [
        DNS("db.shop.svc"),
        DNS("DB.Shop.SVC"),
        DNS("db.shop.svc.cluster.local"),
        DNS("xn--bcher-kva.apps.example.com"),
        URI("spiffe://cluster.local/ns/shop/sa/web"),
        ip("10.1.2.3"),
        ip("2001:db8::1"),
        EMAIL("ops@example.com"),
    ],
)
def test_a_name_inside_the_rule_is_authorized(san: x509.GeneralName) -> None:
    assert registration.authorize(pod(), csr(san), SHOP).sans == (san,)


@pytest.mark.spec("THREAT-03", "EST-CLI-06")
@pytest.mark.parametrize(
    "name",
    [
        "db.other.svc",
        "shop.svc",
        "a.db.shop.svc",
        "db.shop.svc.evil.example",
        "*.shop.svc",
        "a.*.svc",
        "*",
        "*.com",
        "*.*.example.com",
        "w*.apps.example.com",
        "evilapps.example.com",
        "apps.example.com",
        "a.b.apps.example.com",
        "a.apps.example.com.",
        ".apps.example.com",
        "a..apps.example.com",
        "",
        "a_b.apps.example.com",
        "-a.apps.example.com",
        "a-.apps.example.com",
        "xn--a.apps.example.com",
        "ab--cd.apps.example.com",
        "a" * 64 + ".apps.example.com",
        ".".join(["a" * 60] * 5),
        "10.0.0.1",
        "0x7f000001",
        "a\x00.apps.example.com",
        "a\n.apps.example.com",
        "a apps.example.com",
        " a.apps.example.com",
        "kubernetes.default.svc",
        "kubernetes",
        "localhost",
    ],
)
def test_a_dns_name_outside_the_rule_is_refused(name: str) -> None:
    refusal(pod(), SHOP, DNS(name))
    refusal(pod(), SHOP, DNS("db.shop.svc"), DNS(name))


@pytest.mark.spec("THREAT-05")
@pytest.mark.parametrize(
    "san",
    [
        URI("spiffe://other.example/ns/shop/sa/web"),
        URI("spiffe://cluster.local/ns/other/sa/web"),
        URI("spiffe://cluster.local/ns/shop/sa/web/x"),
        URI("spiffe://cluster.local/ns/shop/sa/../../other"),
        URI("spiffe://user@cluster.local/ns/shop/sa/web"),
        URI("spiffe://cluster.local:443/ns/shop/sa/web"),
        URI("https://[fe80::1%25eth0]/"),
        ip("11.0.0.1"),
        ip("2001:db8::2"),
        ip("::ffff:10.1.2.3"),
        ip("::10.1.2.3"),
        ip("0.0.0.0"),  # noqa: S104 - refused as a name; nothing binds it
        ip("::"),
        ip("169.254.169.254"),
        ip("fe80::1"),
        ip("224.0.0.1"),
        x509.IPAddress(ipaddress.ip_network("10.0.0.0/16")),
        EMAIL("ops@other.example"),
        EMAIL("ops@a.example.com"),
        x509.OtherName(x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3"), b"\x0c\x05admin"),
        x509.DirectoryName(pki.name("x")),
        x509.RegisteredID(x509.ObjectIdentifier("1.2.3")),
    ],
)
def test_other_names_outside_the_rule_are_refused(san: x509.GeneralName) -> None:
    refusal(pod(), SHOP, san)


@pytest.mark.spec("THREAT-05")
@pytest.mark.parametrize(
    "san",
    [
        ip("169.254.169.254"),
        ip("fd00:ec2::254"),
        ip("::ffff:10.1.2.3"),
        ip("::10.1.2.3"),
        ip("255.255.255.255"),
        ip("ff02::1"),
        x509.OtherName(x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3"), b"\x0c\x05admin"),
        x509.DirectoryName(pki.name("x")),
        x509.RegisteredID(x509.ObjectIdentifier("1.2.3")),
    ],
)
def test_some_names_no_rule_and_no_registration_authority_can_permit(san: x509.GeneralName) -> None:
    everything = policy({"ipAddresses": ["0.0.0.0/0", "::/0"], "dnsNames": ["*"], "uris": ["urn:x"], "emailAddresses": ["*@example.com"]})
    refusal(basic(), everything, san)
    refusal(RA, everything, san)


@pytest.mark.spec("THREAT-05")
@pytest.mark.parametrize(
    ("requester", "pattern", "name", "permitted"),
    [
        (pod("default"), "*.{namespace}.svc", "kubernetes.default.svc", False),
        (pod("default"), "*.{namespace}.svc", "db.default.svc", True),
        (pod("default"), "*.{namespace}", "kubernetes.default", False),
        (pod("default"), "{serviceAccount}.{namespace}.svc.cluster.local", "kubernetes.default.svc.cluster.local", False),
        (pod(), "*", "kubernetes", False),
        (pod(), "*", "localhost", False),
        (pod(), "*", "db", True),
        (basic(), "*.*.svc", "db.other.svc", False),
        (basic(), "*.*.svc.cluster.local", "db.other.svc.cluster.local", False),
        (basic(), "*.other.svc", "db.other.svc", True),
        (basic(), "kubernetes.default.svc", "kubernetes.default.svc", True),
        (basic(), "kubernetes", "kubernetes", True),
        (basic(), "localhost", "localhost", True),
        (basic(), "*.svc.example.com", "db.svc.example.com", True),
    ],
)
def test_the_clusters_own_names_must_be_written_out(requester: Requester, pattern: str, name: str, *, permitted: bool) -> None:
    requester = dataclasses.replace(requester, service_account="kubernetes") if "serviceAccount" in pattern else requester
    if permitted:
        registration.authorize(requester, csr(DNS(name)), policy({"dnsNames": [pattern]}))
    else:
        refusal(requester, policy({"dnsNames": [pattern]}), DNS(name))


@pytest.mark.spec("THREAT-05")
def test_a_wildcard_does_not_cover_the_api_server_in_passing() -> None:
    rules = policy({"dnsNames": ["*.{namespace}.svc"], "wildcards": True})
    registration.authorize(pod("shop"), csr(DNS("*.shop.svc")), rules)
    refusal(pod("default"), rules, DNS("*.default.svc"))
    registration.authorize(pod("default"), csr(DNS("*.default.svc")), policy({"dnsNames": ["*.default.svc"], "wildcards": True}))


@pytest.mark.spec("THREAT-03")
def test_a_wildcard_name_needs_the_rule_to_say_so() -> None:
    assert refusal(pod(), SHOP, DNS("*.apps.example.com")).reason == "NameNotPermitted"
    rules = policy({"dnsNames": ["*.apps.example.com"], "wildcards": True})
    registration.authorize(basic(), csr(DNS("*.apps.example.com")), rules)
    refusal(basic(), rules, DNS("*.example.com"))


def test_a_refusal_shows_some_patterns_and_counts_the_rest() -> None:
    rules = policy({"dnsNames": [f"host-{number}.example.com" for number in range(8)]})
    assert refusal(basic(), rules, DNS("x.example.com")).message.endswith("host-3.example.com, host-4.example.com and 3 more")


def test_a_name_asked_for_twice_is_had_once() -> None:
    assert registration.authorize(pod(), csr(DNS("db.shop.svc"), DNS("db.shop.svc")), SHOP).sans == (DNS("db.shop.svc"),)


# ---- subject


def test_without_a_subject_in_the_rule_only_a_name_of_the_request_may_be_the_common_name() -> None:
    assert registration.authorize(pod(), csr(DNS("db.shop.svc"), subject=pki.name("db.shop.svc")), SHOP).subject == pki.name("db.shop.svc")
    registration.authorize(pod(), csr(ip("10.0.0.1"), subject=pki.name("10.0.0.1")), SHOP)
    for subject in (pki.name("other"), pki.name("db.shop.svc", organization_name="Acme"), pki.name(None, organization_name="db.shop.svc")):
        error = refusal(pod(), SHOP, DNS("db.shop.svc"), subject=subject)
        assert "permits of a subject only a commonName equal to one of the subject alternative names" in error.message


FACTORY = policy(
    {
        "from": {"authentication": "basic", "users": ["device-*"]},
        "subject": {"commonName": "{user}", "organization": "Acme *", "country": "DE"},
    }
)


def test_a_subject_inside_the_rule_is_authorized() -> None:
    subject = pki.name("device-1", organization_name="Acme Works", country_name="DE")
    assert registration.authorize(basic(), csr(subject=subject), FACTORY).subject == subject


@pytest.mark.spec("THREAT-04")
@pytest.mark.parametrize(
    ("subject", "said"),
    [
        (pki.name("device-2"), "subject CN=device-2 is not permitted to basic user 'device-1': rule 1 permits subject.commonName {user}"),
        (pki.name("device-1", organization_name="Evil"), "rule 1 permits subject.organization Acme *"),
        (pki.name("device-1", organizational_unit_name="Acme 1"), "rule 1 permits subject commonName, organization, country"),
        (pki.name("device-1", serial_number="7"), "rule 1 permits subject"),
        (pki.name("device-1", email_address="a@example.com"), "rule 1 permits subject"),
        (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "device-1"), x509.NameAttribute(NameOID.COMMON_NAME, "admin")]), "CN=admin"),
    ],
)
def test_a_subject_outside_the_rule_is_refused(subject: x509.Name, said: str) -> None:
    assert said in refusal(basic(), FACTORY, subject=subject).message


@pytest.mark.spec("THREAT-05")
@pytest.mark.parametrize(
    ("pattern", "value", "permitted"),
    [
        ("*", "kubernetes", False),
        ("*", "localhost", False),
        ("*.default.svc", "kubernetes.default.svc", False),
        ("a.*.svc", "a.other.svc", False),
        ("kubernetes.default.svc", "kubernetes.default.svc", True),
        ("*", "system:admin", False),
        ("system:node:*", "system:node:worker-1", True),
        ("*", "worker-1", True),
    ],
)
def test_a_common_name_that_kubernetes_gives_a_meaning_to_must_be_written_out(pattern: str, value: str, *, permitted: bool) -> None:
    rules = policy({"subject": {"commonName": pattern, "organization": "*"}})
    if permitted:
        registration.authorize(basic(), csr(subject=pki.name(value)), rules)
    else:
        assert refusal(basic(), rules, subject=pki.name(value)).reason == "NameNotPermitted"
    assert refusal(basic(), rules, subject=pki.name("worker-1", organization_name="system:masters")).reason == "NameNotPermitted"


@pytest.mark.spec("EST-ENROLL-07")
@pytest.mark.parametrize("requester", [basic(), RA])
def test_a_csr_that_names_nobody_is_refused(requester: Requester) -> None:
    error = refusal(requester, policy({"subject": {"commonName": "*"}}))
    assert (error.reason, error.http_status) == ("NoName", 400)


@pytest.mark.spec("THREAT-04")
def test_the_subject_is_encoded_anew() -> None:
    asked = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, "device-1", _type=x509.name._ASN1Type.PrintableString),
            x509.NameAttribute(NameOID.COUNTRY_NAME, "DE"),
        ]
    )
    subject = registration.authorize(basic(), csr(subject=asked), FACTORY).subject
    assert asked.public_bytes() != subject.public_bytes()
    assert subject.public_bytes() == pki.name("device-1", country_name="DE").public_bytes()


# ---- registration authority


@pytest.mark.spec("EST-CLI-03")
def test_a_registration_authority_vouches_for_names_that_no_rule_permits() -> None:
    sans = (DNS("a.example.com"), URI("https://b.example.com/x?y"), ip("192.0.2.1"), EMAIL("a@example.com"), DNS("*.example.com"))
    subject = pki.name("Anybody", organization_name="Acme", locality_name="Ulm")
    authorized = registration.authorize(RA, csr(*sans, subject=subject), policy())
    assert (authorized.subject, authorized.sans) == (subject, sans)


def test_a_registration_authority_cannot_vouch_for_malformed_names() -> None:
    for san in (DNS("a_b"), DNS("*.com"), URI("https://user@a.example"), EMAIL("nobody")):
        refusal(RA, policy(), san)


# ---- re-enrolment

OLD = pki.leaf(pki.ca(), subject=pki.name("Device 1", organization_name="Acme"), sans=(DNS("a.example.com"), URI("urn:a")))


@pytest.mark.spec("EST-REENR-02", "THREAT-10")
def test_a_holder_renews_its_own_names_whatever_the_rules_say() -> None:
    asked = csr(URI("urn:a"), DNS("A.Example.com"), subject=pki.name("device  1", organization_name="ACME"))
    authorized = registration.authorize_renewal(holder(OLD), asked, policy())
    assert authorized.subject == OLD.subject
    assert authorized.sans == (DNS("a.example.com"), URI("urn:a"))


@pytest.mark.spec("EST-REENR-02", "THREAT-10")
@pytest.mark.parametrize(
    ("subject", "sans"),
    [
        (pki.name("Device 2", organization_name="Acme"), (DNS("a.example.com"), URI("urn:a"))),
        (pki.name("Device 1"), (DNS("a.example.com"), URI("urn:a"))),
        (pki.name("Device 1", organization_name="Acme", country_name="DE"), (DNS("a.example.com"), URI("urn:a"))),
        (pki.name("Device 1", organization_name="Acme"), (DNS("a.example.com"), URI("urn:a"), DNS("b.example.com"))),
        (pki.name("Device 1", organization_name="Acme"), (DNS("a.example.com"),)),
        (pki.name("Device 1", organization_name="Acme"), (DNS("a.example.com"), URI("urn:A"))),
        (pki.name("Device 1", organization_name="Acme"), (DNS("a.example.com"), DNS("urn.a"))),
        (pki.name("Device 1", organization_name="Acme"), ()),
        (x509.Name([]), (DNS("a.example.com"), URI("urn:a"))),
        (x509.Name(list(OLD.subject)[::-1]), (DNS("a.example.com"), URI("urn:a"))),
    ],
)
def test_a_name_that_differs_is_not_renewed(subject: x509.Name, sans: tuple[x509.GeneralName, ...]) -> None:
    with pytest.raises(Forbidden, match="not that of the certificate to renew") as raised:
        registration.authorize_renewal(holder(OLD), csr(*sans, subject=subject), policy({"dnsNames": ["*.example.com"]}))
    assert raised.value.reason == "RenewalNamesDiffer"


@pytest.mark.spec("THREAT-09", "THREAT-11")
@pytest.mark.parametrize("requester", [basic(), pod(), RA, holder(OLD, by=AuthenticatedBy.THIRD_PARTY_CERTIFICATE), cluster()])
def test_only_the_holder_of_a_certificate_of_this_issuer_renews(requester: Requester) -> None:
    with pytest.raises(Forbidden, match="use simpleenroll") as raised:
        registration.authorize_renewal(requester, csr(DNS("a.example.com"), URI("urn:a"), subject=OLD.subject), policy())
    assert raised.value.reason == "NotRenewable"


# ---- usages


@pytest.mark.parametrize(
    ("asked", "granted"),
    [
        (None, {"digital signature", "key encipherment", "server auth", "client auth"}),
        (["digital signature", "key encipherment"], {"digital signature", "key encipherment"}),
        (["digital signature", "client auth"], {"digital signature", "client auth"}),
        (["client auth"], {"digital signature", "client auth"}),
        (["server auth"], {"digital signature", "key encipherment", "server auth"}),
    ],
)
def test_usages_are_the_csrs_own_or_the_policys(asked: list[str] | None, granted: set[str]) -> None:
    wanted = None if asked is None else [Usage(usage) for usage in asked]
    assert registration.permitted_usages(csr(usages=wanted), policy()) == granted


@pytest.mark.spec("THREAT-02")
def test_a_usage_outside_the_policy_is_refused_by_name() -> None:
    with pytest.raises(Forbidden, match="usage code signing is not permitted: this issuer's policy lists digital signature, ") as raised:
        registration.authorize(pod(), csr(DNS("db.shop.svc"), usages=[Usage.DIGITAL_SIGNATURE, Usage.CODE_SIGNING]), SHOP)
    assert raised.value.reason == "UsageNotPermitted"


@pytest.mark.parametrize("algorithm", list(KeyAlgorithm))
def test_encipherment_is_left_out_for_keys_that_cannot(algorithm: KeyAlgorithm) -> None:
    asked = frozenset({Usage.DIGITAL_SIGNATURE, Usage.KEY_ENCIPHERMENT, Usage.DATA_ENCIPHERMENT, Usage.SERVER_AUTH})
    granted, left_out = registration.without_encipherment(asked, algorithm)
    assert granted | left_out == asked
    assert left_out == (set() if algorithm.startswith("RSA") else {Usage.KEY_ENCIPHERMENT, Usage.DATA_ENCIPHERMENT})


# ---- channel binding

BINDING = bytes(range(32))


def bound(challenge_password: str | None) -> Any:
    return dataclasses.replace(csr(), challenge_password=challenge_password)


@pytest.mark.spec("EST-POP-02", "EST-POP-07")
@pytest.mark.parametrize("required", [True, False])
def test_the_binding_of_this_connection_is_accepted(*, required: bool) -> None:
    registration.check_binding(bound(base64.b64encode(BINDING).decode()), channel_binding=BINDING, required=required)


@pytest.mark.spec("EST-POP-03", "EST-POP-04", "THREAT-16")
@pytest.mark.parametrize("required", [True, False])
@pytest.mark.parametrize(
    "password",
    [
        "secret",
        "",
        base64.b64encode(BINDING[:-1]).decode(),
        base64.b64encode(BINDING).decode()[:-1],
        base64.b64encode(BINDING).decode().lower(),
        base64.b64encode(BINDING).decode() + "\n",
        base64.b64encode(bytes(32)).decode(),
        BINDING.hex(),
        "\udcff",
        "é",
    ],
)
def test_another_value_is_refused_required_or_not(password: str, *, required: bool) -> None:
    with pytest.raises(BindingMismatch, match="not the channel binding of this TLS connection"):
        registration.check_binding(bound(password), channel_binding=BINDING, required=required)


@pytest.mark.spec("THREAT-16")
def test_an_empty_binding_is_never_equal() -> None:
    with pytest.raises(BindingMismatch):
        registration.check_binding(bound(""), channel_binding=b"", required=False)


@pytest.mark.spec("EST-POP-05", "EST-POP-15")
def test_absence_is_refused_only_where_binding_is_required() -> None:
    registration.check_binding(bound(None), channel_binding=BINDING, required=False)
    with pytest.raises(BindingMismatch, match="linking of identity and proof of possession is required"):
        registration.check_binding(bound(None), channel_binding=BINDING, required=True)


@pytest.mark.spec("EST-POP-05")
def test_a_rule_can_require_binding() -> None:
    rules = policy({"from": {"users": ["device-*"]}, "channelBinding": "Required"}, {"from": {"users": ["*"]}})
    assert registration.binding_required(basic("device-1"), rules)
    assert not registration.binding_required(basic("laptop-1"), rules)
    assert not registration.binding_required(pod(), rules)
    assert not registration.binding_required(RA, rules)


# ---- Authorized


@pytest.mark.spec("THREAT-09")
def test_an_authorized_cannot_be_forged_copied_or_changed() -> None:
    genuine = registration.authorize(pod(), csr(DNS("db.shop.svc")), SHOP)
    values = {field.name: getattr(genuine, field.name) for field in dataclasses.fields(genuine) if field.init}
    for seal in (None, object(), True, "seal"):
        with pytest.raises(TypeError, match=r"comes from estcore\.registration only"):
            Authorized(**values, seal=seal)
    with pytest.raises(TypeError):
        Authorized(**values)
    with pytest.raises((TypeError, ValueError)):
        dataclasses.replace(genuine, sans=(DNS("evil.example"),))  # type: ignore[call-arg]  # what the test is about
    for forge in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="cannot be copied"):
            forge(genuine)
    with pytest.raises(dataclasses.FrozenInstanceError):
        genuine.sans = ()  # type: ignore[misc]  # what the test is about
    with pytest.raises(TypeError, match="no subclasses"):
        type("Forged", (Authorized,), {})


@pytest.mark.spec("THREAT-09")
def test_an_authorized_is_redeemed_once() -> None:
    authorized = registration.authorize(pod(), csr(DNS("db.shop.svc")), SHOP)
    authorized.redeem()
    with pytest.raises(SignerError, match="used twice"):
        authorized.redeem()


@pytest.mark.spec("THREAT-09")
def test_the_type_checker_lets_nothing_but_an_authorized_be_signed(tmp_path: Path) -> None:
    snippet = tmp_path / "snippet.py"
    snippet.write_text(
        textwrap.dedent(
            """
            from datetime import datetime
            from estcore import authority
            from estcore.issuer_spec import Policy
            from estcore.pkcs10 import Pkcs10
            from estcore.registration import Authorized

            def sign(ca: authority.Authority, csr: Pkcs10, authorized: Authorized, policy: Policy, now: datetime) -> None:
                authority.issue(ca, authorized, policy, now=now, serial=1)
                authority.issue(ca, csr, policy, now=now, serial=1)
            """
        )
    )
    root = Path(registration.__file__).parents[1]
    mypy = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", root / "pyproject.toml", snippet], cwd=root, capture_output=True, text=True
    )
    assert mypy.returncode == 1, mypy.stderr
    assert "snippet.py:10: error: Argument 2 to" in mypy.stdout
    assert 'incompatible type "Pkcs10"; expected "Authorized"' in mypy.stdout
    assert "Found 1 error" in mypy.stdout
