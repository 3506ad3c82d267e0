"""Over many requests: what is issued is inside the policy, and is never a CA."""

import json
import os
from collections import Counter
from datetime import timedelta
from itertools import product
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtensionOID
from hypothesis import given, settings
from hypothesis import strategies as st

from estcore import authority, pkcs10, registration
from estcore.errors import RequestError
from estcore.issuer_spec import KeyAlgorithm
from estcore.requester import Requester
from tests import pki
from tests.collect import collect
from tests.core.permitted import assert_names_inside, is_for
from tests.core.requests import RA, basic, cluster, csr, made_ca, pod, policy
from tests.pki import EPOCH

CA = made_ca(KeyAlgorithm.ECDSA_P256)

# Few words, so that names and patterns meet often.
LABELS = ["a", "shop", "svc", "default", "kubernetes", "device-1", "*"]
SEGMENTS = ["a", "shop", "device-1", "web", ".."]
DNS_NAMES = [
    ".".join(labels)
    for labels in [
        *product(LABELS),
        *product(LABELS, LABELS),
        *product(LABELS, LABELS, LABELS),
        *product(LABELS, LABELS, ["svc"], ["local"]),
    ]
]
URIS = ["spiffe://td.example/" + "/".join(parts) for count in (1, 2, 3) for parts in product(SEGMENTS, repeat=count)]
EMAILS = ["@".join(parts) for parts in product(["a", "device-1"], ["a.example", "b.example"])]
TEXTS = ["a", "device-1", "device-2", "a.shop", "x.a.shop", "*", "kubernetes", "shop", "device-1*"]
REQUESTS = [
    *(csr(x509.DNSName(name)) for name in DNS_NAMES),
    *(csr(x509.UniformResourceIdentifier(uri)) for uri in URIS),
    *(csr(x509.RFC822Name(address)) for address in EMAILS),
    *(csr(subject=pki.name(text)) for text in TEXTS),
    *(csr(x509.DNSName("a.shop"), subject=pki.name(text)) for text in TEXTS),
    *(csr(x509.DNSName("a.shop"), san) for san in (x509.DNSName("shop.a"), x509.UniformResourceIdentifier("spiffe://td.example/a"))),
]

PATTERN_LABELS = [*LABELS, "*", "*", "*", "*", "svc", "{namespace}", "{user}", "{serviceAccount}"]


def dns_pattern(number: int) -> str:
    """One to four labels from one number: Hypothesis draws a number sooner than a list."""
    rest, count = divmod(number, 4)
    labels = []
    for _ in range(count + 1):
        rest, place = divmod(rest, len(PATTERN_LABELS))
        labels.append(PATTERN_LABELS[place])
    return ".".join(labels)


dns_patterns = st.integers(0, 4 * len(PATTERN_LABELS) ** 4 - 1).map(dns_pattern)
uri_patterns = st.sampled_from(
    [
        "spiffe://td.example/" + "/".join((*parts, last))
        for count in range(3)
        for parts in product(["a", "{namespace}", "{user}", "{serviceAccount}"], repeat=count)
        for last in ("a", "*", "{user}")
    ]
)
email_patterns = st.sampled_from(["@".join(parts) for parts in product(["a", "*", "{user}"], ["a.example", "b.example"])])
text_patterns = st.sampled_from(["a", "*", "device-*", "{user}", "{namespace}", "*.shop", "{user}*"])

requesters = st.sampled_from(
    [basic(), basic("a.b"), basic("*"), basic("kubernetes"), pod(), pod("default", "kubernetes"), cluster(), cluster("a")]
)


@st.composite
def rules(draw: st.DrawFn) -> dict[str, Any]:
    rule: dict[str, Any] = {
        "dnsNames": draw(st.lists(dns_patterns, min_size=1, max_size=3)),
        "uris": draw(st.lists(uri_patterns, max_size=2)),
        "emailAddresses": draw(st.lists(email_patterns, max_size=1)),
        "wildcards": draw(st.booleans()),
    }
    if draw(st.booleans()):
        rule["subject"] = {"commonName": draw(text_patterns)}
    if draw(st.integers(0, 3)) == 0:
        rule["from"] = {draw(st.sampled_from(["users", "namespaces"])): [draw(st.sampled_from(["*", "a*", "shop", "device-*"]))]}
    return rule


def made_for(rule: dict[str, Any], requester: Requester) -> dict[str, Any]:
    """The rule without what keeps it from the requester: whom it is for, and values that the requester lacks."""
    values = {"{namespace}": requester.namespace, "{user}": requester.user, "{serviceAccount}": requester.service_account}
    text = json.dumps({member: value for member, value in rule.items() if member != "from"})
    for placeholder, value in values.items():
        if value is None:
            text = text.replace(placeholder, "a")
    made: dict[str, Any] = json.loads(text)
    return made


@st.composite
def requesters_with_rules(draw: st.DrawFn) -> tuple[Requester, list[dict[str, Any]]]:
    """Whoever has no rule is told the same whatever is asked, so nearly always the last rule is for the requester, if no earlier one is."""
    requester, given_rules = draw(requesters), draw(st.lists(rules(), min_size=1, max_size=3))
    if draw(st.integers(0, 9)) != 7:  # Hypothesis likes the ends better
        given_rules[-1] = made_for(given_rules[-1], requester)
    return requester, given_rules


@pytest.mark.spec("THREAT-03", "EST-CLI-06")
def test_what_is_issued_is_inside_the_first_rule_for_the_requester() -> None:
    """Nearly 100,000 pairs of a policy and a request, most of them of a requester who has a rule."""
    asked: Counter[str] = Counter()

    @settings(max_examples=150, deadline=None)
    @given(drawn=requesters_with_rules())
    def try_every_request(drawn: tuple[Requester, list[dict[str, Any]]]) -> None:
        requester, given_rules = drawn
        issuer_policy = policy(*given_rules)
        rule = next((rule for rule in issuer_policy.rules if is_for(rule, requester)), None)
        for request in REQUESTS:
            try:
                authorized = registration.authorize(requester, request, issuer_policy)
            except RequestError:
                asked["refused"] += 1
                continue
            issued = authority.issue(CA, authorized, issuer_policy, now=EPOCH, serial=authority.serial_number(os.urandom(16)))
            assert rule is not None
            certificate = x509.load_der_x509_certificate(issued.certificate_der)
            assert_names_inside(certificate.subject, registration.subject_alternative_names(certificate), rule, requester)
            asked["issued"] += 1

    try_every_request()
    assert asked["issued"] > 50
    assert asked["refused"] > 10_000


# ---- never a CA, nothing copied

PROFILE_EXTENSIONS = {
    ExtensionOID.SUBJECT_KEY_IDENTIFIER,
    ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
    ExtensionOID.KEY_USAGE,
    ExtensionOID.EXTENDED_KEY_USAGE,
    ExtensionOID.BASIC_CONSTRAINTS,
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
}
bits = st.lists(
    st.sampled_from(["digital_signature", "content_commitment", "key_encipherment", "key_agreement", "key_cert_sign", "crl_sign"]),
    min_size=1,
)
wanted_extensions = st.lists(
    st.one_of(
        st.builds(
            lambda ca, length: x509.BasicConstraints(ca=ca, path_length=length if ca else None),
            st.booleans(),
            st.one_of(st.none(), st.integers(0, 3)),
        ),
        bits.map(lambda chosen: pki.key_usage(*chosen)),
        st.lists(
            st.sampled_from(["1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2", "1.3.6.1.5.5.7.3.9", "1.3.6.1.5.5.7.3.28", "2.5.29.37.0"]),
            min_size=1,
        ).map(lambda oids: x509.ExtendedKeyUsage([x509.ObjectIdentifier(oid) for oid in oids])),
        st.just(x509.NameConstraints([x509.DNSName("example.com")], None)),
        st.just(x509.SubjectKeyIdentifier(b"mine")),
        st.just(x509.CRLDistributionPoints([x509.DistributionPoint([x509.DNSName("x.example")], None, None, None)])),
        st.just(x509.OCSPNoCheck()),
        st.just(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00")),
    ),
    max_size=3,
    unique_by=lambda extension: extension.oid,
)


@pytest.mark.spec("THREAT-01", "THREAT-02")
@settings(max_examples=250, deadline=None)
@given(extensions=wanted_extensions, requester=st.sampled_from([RA, basic()]))
def test_whatever_a_csr_asks_for_no_certificate_is_a_cas(extensions: list[x509.ExtensionType], requester: Requester) -> None:
    rules = policy({"dnsNames": ["a.example.com"], "subject": {"commonName": "*"}})
    try:
        asked = pkcs10.parse(pki.csr(sans=[x509.DNSName("a.example.com")], extensions=extensions))
        authorized = registration.authorize(requester, asked, rules)
        issued = authority.issue(CA, authorized, rules, now=EPOCH, serial=authority.serial_number(os.urandom(16)))
    except RequestError:
        return
    certificate = x509.load_der_x509_certificate(issued.certificate_der)
    assert {extension.oid for extension in certificate.extensions} <= PROFILE_EXTENSIONS
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    key_usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert not key_usage.key_cert_sign
    assert not key_usage.crl_sign
    assert certificate.not_valid_after_utc - certificate.not_valid_before_utc == timedelta(hours=2160)
    collect(issued.certificate_der, pki.der(CA.certificate))


@pytest.mark.spec("THREAT-01", "THREAT-02")
@pytest.mark.parametrize(
    "extension",
    [
        x509.BasicConstraints(ca=True, path_length=None),
        x509.BasicConstraints(ca=True, path_length=0),
        pki.key_usage("digital_signature", "key_cert_sign"),
        pki.key_usage("crl_sign"),
        x509.ExtendedKeyUsage([x509.ObjectIdentifier("2.5.29.37.0")]),
        x509.ExtendedKeyUsage([x509.ObjectIdentifier("1.3.6.1.5.5.7.3.9")]),
        x509.ExtendedKeyUsage([x509.ObjectIdentifier("1.3.6.1.5.5.7.3.28")]),
        x509.ExtendedKeyUsage([x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.2")]),
        x509.NameConstraints(None, [x509.DNSName("example.com")]),
        x509.SubjectKeyIdentifier(b"mine"),
        x509.AuthorityKeyIdentifier(b"other", None, None),
        x509.InhibitAnyPolicy(0),
    ],
)
@pytest.mark.parametrize("requester", [RA, basic()])
def test_a_csr_that_asks_for_a_cas_powers_is_refused(extension: x509.ExtensionType, requester: Requester) -> None:
    rules = policy({"dnsNames": ["a.example.com"], "subject": {"commonName": "*"}})
    with pytest.raises(RequestError):
        registration.authorize(requester, pkcs10.parse(pki.csr(sans=[x509.DNSName("a.example.com")], extensions=[extension])), rules)
