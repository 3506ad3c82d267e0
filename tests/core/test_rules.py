"""Which rule is for a requester, and which names are inside it."""

import dataclasses
import ipaddress
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from estcore import registration
from estcore.requester import AuthenticatedBy, Requester
from tests import pki
from tests.core.requests import DNS, EMAIL, FACTORY, RA, SHOP, URI, basic, cluster, csr, holder, ip, pod, policy, refusal

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


def labelled(labels: dict[str, str]) -> Requester:
    return dataclasses.replace(cluster("shop"), namespace_labels=labels)


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
        ({"namespaceSelector": {"matchLabels": {"team": "a"}}}, labelled({"team": "a"}), True),
        ({"namespaceSelector": {"matchLabels": {"team": "a"}}}, labelled({"team": "b"}), False),
        ({"namespaceSelector": {}}, labelled({}), True),
        ({"namespaceSelector": {}}, cluster("shop"), False),  # its labels are not known
        ({"namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "DoesNotExist"}]}}, pod("shop"), False),
        ({"namespaceSelector": {}}, basic(), False),
        ({"doors": ["cert-manager.io"]}, cluster("shop"), True),
        ({"doors": ["est", "est-issuer.io"]}, cluster("shop"), False),
        ({"doors": ["est"]}, basic(), True),
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


@pytest.mark.parametrize(
    ("requester", "template"),
    [(basic(), "{namespace}"), (basic(), "{serviceAccount}"), (pod(), "{user}"), (cluster(), "{serviceAccount}")],
)
@pytest.mark.parametrize("field", ["dnsNames", "uris", "emailAddresses", "subject"])
def test_a_rule_that_needs_a_value_is_not_for_a_requester_without_it(requester: Requester, template: str, field: str) -> None:
    names = {
        "dnsNames": [f"*.{template}.svc"],
        "uris": [f"urn:{template}"],
        "emailAddresses": [template],
        "subject": {"commonName": template},
    }
    needs = {"dnsNames": ["b.example.com"], field: names[field]}
    registration.authorize(requester, csr(DNS("a.example.com")), policy(needs, {"dnsNames": ["a.example.com"]}))
    assert refusal(requester, policy(needs), DNS("b.example.com")).reason == "NoRule"


def test_a_value_with_a_dot_fails_a_rule_that_puts_it_into_dns_names() -> None:
    rules = policy({"dnsNames": ["{serviceAccount}.{namespace}.svc"], "uris": ["urn:{serviceAccount}"]}, {"dnsNames": ["*.*.*.*"]})
    for name in (DNS("web.other.shop.svc"), URI("urn:web.other")):
        error = refusal(pod("shop", "web.other"), rules, name)
        assert "'web.other' of service account shop/web.other holds a dot" in error.message
        assert error.reason == "NameNotPermitted"


# ---- names


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


# ---- subject


def test_without_a_subject_in_the_rule_only_a_name_of_the_request_may_be_the_common_name() -> None:
    assert registration.authorize(pod(), csr(DNS("db.shop.svc"), subject=pki.name("db.shop.svc")), SHOP).subject == pki.name("db.shop.svc")
    registration.authorize(pod(), csr(DNS("db.shop.svc"), subject=pki.name("DB.shop.svc")), SHOP)
    registration.authorize(pod(), csr(ip("10.0.0.1"), subject=pki.name("10.0.0.1")), SHOP)
    for subject in (pki.name("other"), pki.name("db.shop.svc", organization_name="Acme"), pki.name(None, organization_name="db.shop.svc")):
        error = refusal(pod(), SHOP, DNS("db.shop.svc"), subject=subject)
        assert "permits of a subject only a commonName equal to one of the subject alternative names" in error.message


def test_a_subject_inside_the_rule_is_authorized() -> None:
    subject = pki.name("device-1", organization_name="Acme Works", country_name="DE")
    assert registration.authorize(basic(), csr(subject=subject), FACTORY).subject == subject


@pytest.mark.parametrize(
    ("field", "attribute", "value"),
    [
        ("stateOrProvince", "state_or_province_name", "Bayern"),
        ("locality", "locality_name", "München"),
        ("streetAddress", "street_address", "Hauptstraße 1"),
        ("postalCode", "postal_code", "80331"),
        ("domainComponent", "domain_component", "example"),
        ("userId", "user_id", "device-1"),
    ],
)
def test_each_attribute_of_an_address_or_a_directory_has_its_pattern(field: str, attribute: str, value: str) -> None:
    subject = pki.name("device-1", **{attribute: value})
    for pattern in (value, "*", value[:2] + "*"):
        rules = policy({"subject": {"commonName": "{user}", field: pattern}})
        assert registration.authorize(basic(), csr(subject=subject), rules).subject == subject
        assert refusal(basic(), rules, subject=pki.name("device-1", **{attribute: "system:masters"})).reason == "NameNotPermitted"
    error = refusal(basic(), policy({"subject": {"commonName": "{user}", field: "x"}}), subject=subject)
    assert f"rule 1 permits subject.{field} x" in error.message


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
    registration.authorize(basic(), csr(subject=pki.name(None, organization_name="kubernetes")), rules)
    assert refusal(basic(), rules, subject=pki.name("worker-1", organization_name="system:masters")).reason == "NameNotPermitted"


USERS = Requester(
    authenticated_by=AuthenticatedBy.SERVICE_ACCOUNT_TOKEN,
    identity="system/masters",
    user="system:masters",
    namespace="system",
    service_account="masters",
    pod="system:node:n",
)
"""Each of its values is a name of the cluster's, or half of one."""


@pytest.mark.spec("THREAT-05")
@pytest.mark.parametrize("field", ["commonName", "organization", "organizations", "organizationalUnit", "userId"])
@pytest.mark.parametrize(
    ("pattern", "value"),
    [
        ("{user}", "system:masters"),
        ("{pod}", "system:node:n"),
        ("{namespace}:{serviceAccount}", "system:masters"),
        ("{namespace}:masters", "system:masters"),
        ("{namespace}:*", "system:kube-controller-manager"),
        ("{user}*", "system:masters-of-all"),
        ("sys*{serviceAccount}", "system:masters"),
        ("system:{serviceAccount}", "system:masters"),
        ("system:*", "system:masters"),
        ("system:node*", "system:node:n"),
        ("system:{serviceAccount}:*", "system:masters:a"),
    ],
)
def test_a_name_of_the_clusters_users_and_groups_is_not_had_by_a_placeholder_nor_by_a_star(field: str, pattern: str, value: str) -> None:
    """To an API server that trusts this CA the commonName is a user and each organization a group, compared octet by octet."""
    rules = policy({"subject": {field: [pattern] if field.endswith("s") else pattern}})
    attribute = {"commonName": NameOID.COMMON_NAME, "userId": NameOID.USER_ID, "organizationalUnit": OU}.get(field, O)
    assert refusal(USERS, rules, subject=dn((attribute, value))).reason == "NameNotPermitted"


@pytest.mark.spec("THREAT-05")
@pytest.mark.parametrize(
    ("pattern", "value"),
    [
        ("system:masters", "system:masters"),
        ("system:serviceaccount:{namespace}:{serviceAccount}", "system:serviceaccount:system:masters"),
        ("system:node:*", "system:node:n"),
        ("{user}", "System:masters"),
        ("{user}", " system:masters"),
        ("{user}", "a-system:masters"),
    ],
)
def test_a_name_of_the_clusters_is_had_where_its_kind_is_written_out_and_what_is_none_as_any_other(pattern: str, value: str) -> None:
    """An API server neither folds the case nor trims what it finds in a subject, so other spellings mean nothing to it."""
    requester = dataclasses.replace(USERS, user=value)
    for field, attribute in (("commonName", NameOID.COMMON_NAME), ("organization", O)):
        subject = dn((attribute, value))
        assert registration.authorize(requester, csr(subject=subject), policy({"subject": {field: pattern}})).subject == subject


@pytest.mark.spec("THREAT-05")
def test_an_alternative_name_lends_no_name_of_the_clusters_to_the_subject() -> None:
    rules = policy({"uris": ["system:masters"]})
    registration.authorize(basic(), csr(URI("system:masters")), rules)
    assert refusal(basic(), rules, URI("system:masters"), subject=pki.name("system:masters")).reason == "NameNotPermitted"


# ---- several patterns for one attribute, and a wildcard as common name

O, OU, DC = NameOID.ORGANIZATION_NAME, NameOID.ORGANIZATIONAL_UNIT_NAME, NameOID.DOMAIN_COMPONENT  # noqa: E741  # as X.500 writes it
LISTS = {"organizations": ["Corp.", "{user} *"], "organizationalUnits": ["Dept.", "Line *"], "domainComponents": ["example", "com"]}


def dn(*attributes: tuple[x509.ObjectIdentifier, str]) -> x509.Name:
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in attributes])


@pytest.mark.parametrize(
    "subject",
    [
        dn((O, "Corp.")),
        dn((O, "device-1 Works")),
        dn((DC, "com"), (DC, "example"), (O, "Corp."), (O, "device-1 Works"), (OU, "Line 7"), (OU, "Dept."), (OU, "Line 7")),
        dn((DC, "example"), (DC, "com")),
    ],
)
def test_each_value_fits_one_of_the_patterns_of_its_list(subject: x509.Name) -> None:
    assert registration.authorize(basic(), csr(subject=subject), policy({"subject": LISTS})).subject == subject


@pytest.mark.spec("THREAT-04")
@pytest.mark.parametrize(
    ("subject", "said"),
    [
        (
            dn((O, "Corp.x")),
            "subject O=Corp.x is not permitted to basic user 'device-1': rule 1 permits subject.organizations Corp., {user}",
        ),
        (dn((O, "Corp."), (O, "device-2 Works")), "subject O=device-2 Works is not permitted"),
        (dn((OU, "Dept.")), None),
        (dn((OU, "Dept.."), (OU, "Dept.")), "permits subject.organizationalUnits Dept., Line *"),
        (dn((OU, "Line 7.evil")), "permits subject.organizationalUnits"),
        (dn((DC, "evil"), (DC, "example"), (DC, "com")), "subject DC=evil is not permitted"),
        (dn((DC, "Example"), (DC, "com")), "permits subject.domainComponents example, com"),
        (dn((NameOID.COMMON_NAME, "Corp.")), "permits subject organizations, organizationalUnits, domainComponents"),
    ],
)
def test_a_value_that_fits_none_is_refused_and_the_list_is_named(subject: x509.Name, said: str | None) -> None:
    rules = policy({"subject": LISTS})
    if said is None:
        registration.authorize(basic(), csr(subject=subject), rules)
    else:
        assert said in refusal(basic(), rules, subject=subject).message


def test_a_list_is_for_requesters_that_have_the_values_of_all_its_patterns() -> None:
    rules = policy({"subject": {"organizations": ["Corp.", "{namespace}"]}})
    assert refusal(basic(), rules, subject=dn((O, "Corp."))).reason == "NoRule"
    assert registration.authorize(pod("shop"), csr(subject=dn((O, "shop"))), rules).subject == dn((O, "shop"))


@pytest.mark.spec("THREAT-05")
def test_a_list_with_a_star_lends_no_name_of_the_cluster() -> None:
    rules = policy({"subject": {"organizations": ["Acme", "*"]}})
    assert refusal(basic(), rules, subject=dn((O, "system:masters"))).reason == "NameNotPermitted"
    literal = policy({"subject": {"organizations": ["*", "system:nodes"]}})
    assert registration.authorize(basic(), csr(subject=dn((O, "system:nodes"))), literal).subject == dn((O, "system:nodes"))


STARRED = {"dnsNames": ["*.apps.example.com", "*.example.com"], "subject": {"commonName": "*.apps.example.com"}, "wildcards": True}


@pytest.mark.spec("THREAT-03")
@pytest.mark.parametrize(
    ("changes", "common_name", "dns_name", "permitted"),
    [
        ({}, "*.apps.example.com", "*.apps.example.com", True),
        ({}, "*.apps.example.com", "*.APPS.example.com", True),
        ({"wildcards": False}, "*.apps.example.com", "a.apps.example.com", False),
        ({}, "*.apps.example.com", "a.apps.example.com", False),
        ({}, "*.apps.example.com", "*.example.com", False),
        ({}, "*.example.com", "*.example.com", False),
        ({}, "*", "*.apps.example.com", False),
        ({"subject": {"commonName": "*.example.com"}}, "*.apps.example.com", "*.apps.example.com", False),
        ({"subject": {"commonName": "a*.apps.example.com"}}, "a*.apps.example.com", "*.apps.example.com", False),
        ({"subject": {"commonName": "*"}}, "*", "*.apps.example.com", False),
        ({"subject": {"organization": "*.apps.example.com"}}, "*.apps.example.com", "*.apps.example.com", False),
    ],
)
def test_a_wildcard_as_common_name_is_the_very_pattern_and_a_dns_name_of_the_request(
    changes: dict[str, Any], common_name: str, dns_name: str, *, permitted: bool
) -> None:
    rules = policy({**STARRED, **changes})
    if permitted:
        assert registration.authorize(basic(), csr(DNS(dns_name), subject=pki.name(common_name)), rules).subject == pki.name(common_name)
    else:
        assert refusal(basic(), rules, DNS(dns_name), subject=pki.name(common_name)).reason == "NameNotPermitted"


@pytest.mark.spec("THREAT-05")
def test_a_wildcard_over_the_api_server_is_no_common_name_of_a_star() -> None:
    rules = policy({"dnsNames": ["*.default.svc"], "subject": {"commonName": "*.default.svc"}, "wildcards": True})
    assert refusal(basic(), rules, DNS("*.default.svc"), subject=pki.name("*.default.svc")).reason == "NameNotPermitted"
