"""otherNames that are text: their one form (RFC 5280 section 4.2.1.6, RFC 9598), their patterns, and all the ways that they come."""

from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ObjectIdentifier
from hypothesis import given
from hypothesis import strategies as st

from estcore import authority, authorization_callout, general_names, names, pkcs10, registration
from estcore.errors import BadCsr, EstError, Forbidden, MalformedBody
from estcore.issuer_spec import KeyAlgorithm
from estcore.other_name_patterns import OtherNamePattern
from estcore.other_names import check_other_name, other_name
from estcore.patterns import Template
from tests import pki
from tests.collect import collect
from tests.core.requests import DNS, RA, basic, csr, holder, made_ca, pod, policy, refusal
from tests.pki import EPOCH, tlv

UPN, XMPP, MAILBOX, NAI_REALM = "1.3.6.1.4.1.311.20.2.3", "1.3.6.1.5.5.7.8.5", "1.3.6.1.5.5.7.8.9", "1.3.6.1.5.5.7.8.8"
UTF8, BMP, IA5, PRINTABLE, OCTETS = 0x0C, 0x1E, 0x16, 0x13, 0x04


def upn(text: str) -> x509.OtherName:
    return other_name(UPN, text)


def rule(*patterns: tuple[str, str], **others: Any) -> dict[str, Any]:
    return {"otherNames": [{"oid": oid, "utf8Value": text} for oid, text in patterns], **others}


# ---- what may be there at all


@pytest.mark.parametrize(
    ("oid", "text"),
    [
        (UPN, "upn@domain.test"),
        (UPN, "HOST$@Corp.Test"),
        (UPN, "jürgen@domain.test"),
        (UPN, "a@" + "b" * 251),
        (XMPP, "juliet@im.example.com"),
        (XMPP, "im.example.com"),
        (XMPP, "juliet@im.example.com/балкон"),
        (NAI_REALM, "example.com"),
        (MAILBOX, "医生@example.com"),
        (MAILBOX, "jürgen.müller@xn--mller-kva.example"),
        ("1.2.3.4", "any-text"),
    ],
)
def test_text_is_read_as_it_is(oid: str, text: str) -> None:
    assert check_other_name(other_name(oid, text)) == text
    assert names.describe_general_name(other_name(oid, text)) == f"otherName:{oid};UTF8:{text}"


ODD_VALUES: list[tuple[str, bytes, str]] = [
    ("BMPString", tlv(BMP, "upn@domain.test".encode("utf-16-be")), "no UTF8String"),
    ("IA5String", tlv(IA5, b"upn@domain.test"), "no UTF8String"),
    ("PrintableString", tlv(PRINTABLE, b"upn"), "no UTF8String"),
    ("OCTET STRING", tlv(OCTETS, b"upn@domain.test"), "no UTF8String"),
    ("a SEQUENCE around it", pki.sequence(tlv(UTF8, b"upn@domain.test")), "no UTF8String"),
    ("in parts", tlv(0x2C, tlv(UTF8, b"upn@domain.test")), "no UTF8String"),
    ("NULL", b"\x05\x00", "no UTF8String"),
    ("nothing", b"", "no UTF8String"),
    ("a length that is not minimal", b"\x0c\x81\x03a@b", "no UTF8String"),
    ("an indefinite length", b"\x2c\x80\x0c\x03a@b\x00\x00", "no UTF8String"),
    ("cut off", b"\x0c\x05a@b", "no UTF8String"),
    ("trailing octets", tlv(UTF8, b"a@b") + b"\x00", "followed by octets"),
    ("a second string", tlv(UTF8, b"a@b") + tlv(UTF8, b"root@b"), "followed by octets"),
    ("Latin-1", tlv(UTF8, b"j\xfcrgen@domain.test"), "not valid UTF-8"),
    ("an overlong NUL", tlv(UTF8, b"a\xc0\x80@domain.test"), "not valid UTF-8"),
    ("a surrogate", tlv(UTF8, b"\xed\xa0\x80@domain.test"), "not valid UTF-8"),
    *(
        (repr(text), tlv(UTF8, text.encode()), reason)
        for text, reason in [
            ("", "0 characters"),
            ("a@" + "b" * 252, "254 characters"),
            ("a" * 40_000 + "@domain.test", "40012 characters"),
            ("admin", "user@domain"),
            ("upn@evil@domain.test", "an @ too many"),
            ("@domain.test", "an @ too many"),
            ("upn@", "an @ too many"),
            ("upn\x00@domain.test", "cannot be seen"),
            ("upn@domain.test\x00", "cannot be seen"),
            ("upn@domain.test\n", "cannot be seen"),
            ("upn\u202e@domain.test", "cannot be seen"),
            ("upn\u2066@domain.test", "cannot be seen"),
            ("upn\u200b@domain.test", "cannot be seen"),
            ("\ufeffupn@domain.test", "cannot be seen"),
            ("upn\ufe0f@domain.test", "cannot be seen"),
            ("upn\u3164@domain.test", "cannot be seen"),
            ("u\u0308pn@domain.test", "normalization form C"),
            ("\u0308upn@domain.test", "combining"),
            ("upn\uff20evil@domain.test", "normalization form KC"),
            ("\uff55pn@domain.test", "normalization form KC"),
            (" upn@domain.test", "space"),
            ("u pn@domain.test", "no such name needs"),
            ("upn,DNS:evil@domain.test", "no such name needs"),
            ("upn;UTF8:x@domain.test", "no such name needs"),
            ("DOMAIN\\upn@domain.test", "no such name needs"),
            ('"upn"@domain.test', "no such name needs"),
        ]
    ),
]


@pytest.mark.spec("THREAT-05", "THREAT-36")
@pytest.mark.parametrize(("value", "reason"), [odd[1:] for odd in ODD_VALUES], ids=[odd[0][:40] for odd in ODD_VALUES])
def test_a_value_that_is_odd_is_refused_with_the_reason_for_everybody_and_on_every_way(value: bytes, reason: str) -> None:
    name = x509.OtherName(ObjectIdentifier(UPN), value)
    with pytest.raises(BadCsr, match=reason) as refused:
        names.check_general_name(name)
    assert UPN in refused.value.message
    assert refused.value.message.isprintable()
    assert len(refused.value.message) < 500
    everything = policy(rule((UPN, "*@domain.test"), (UPN, "{user}")))
    for requester in (basic(), RA):
        assert refusal(requester, everything, name).reason == "BadName"
    encoded = pki.sequence(tlv(0xA0, pki.oid(UPN), tlv(0xA0, value)))
    with pytest.raises((BadCsr, MalformedBody)):
        general_names.parse_general_names(encoded)
    with pytest.raises((BadCsr, MalformedBody)):
        pkcs10.parse(pki.raw_csr(pki.extension_request(pki.extension("2.5.29.17", encoded))))


@pytest.mark.spec("THREAT-05")
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("doctor@example.com", "never a SmtpUTF8Mailbox"),
        ("医生@EXAMPLE.com", "lower-case labels"),
        ("医生@例え.example", "has no domain"),
        ("医生@*.example.com", "lower-case labels"),
        ("医生@10.0.0.1", "has no domain"),
        ("医..生@example.com", "local-part@domain"),
        ("医(生)@example.com", "local-part@domain"),
        ("医" * 22 + "@example.com", "local-part@domain"),
        ("医生", "local-part@domain"),
    ],
)
def test_a_mailbox_is_one_of_rfc_9598_or_refused(text: str, reason: str) -> None:
    with pytest.raises(BadCsr, match=reason):
        check_other_name(other_name(MAILBOX, text))


@pytest.mark.spec("THREAT-05")
@pytest.mark.parametrize(
    "content",
    [
        b"",
        pki.oid(UPN),
        tlv(0xA0, tlv(UTF8, b"a@b")),
        pki.oid(UPN) + tlv(UTF8, b"a@b"),
        pki.oid(UPN) + tlv(0xA1, tlv(UTF8, b"a@b")),
        pki.oid(UPN) + tlv(0xA0, tlv(UTF8, b"a@b")) + tlv(0xA0, tlv(UTF8, b"a@b")),
        b"\x06\x02\x80\x01" + tlv(0xA0, tlv(UTF8, b"a@b")),
        b"\x06\x00" + tlv(0xA0, tlv(UTF8, b"a@b")),
        b"\x06\x01\x81" + tlv(0xA0, tlv(UTF8, b"a@b")),
        tlv(0x06, b"\x2b" + b"\xff" * 40 + b"\x01") + tlv(0xA0, tlv(UTF8, b"a@b")),
        tlv(0x06, b"\x01" * 64) + tlv(0xA0, tlv(UTF8, b"a@b")),
    ],
)
def test_an_other_name_of_another_shape_is_malformed(content: bytes) -> None:
    with pytest.raises((BadCsr, MalformedBody)):
        general_names.parse_general_names(pki.sequence(tlv(0xA0, content)))


@pytest.mark.spec("THREAT-05")
@given(st.text(max_size=30), st.sampled_from([UPN, XMPP, MAILBOX, "1.2.3"]))
def test_whatever_is_accepted_has_one_form_and_reads_back(text: str, oid: str) -> None:
    try:
        assert check_other_name(other_name(oid, text)) == text
    except BadCsr:
        return
    assert text.isprintable()
    assert text.count("@") < 2
    assert not set(text) & set(' ,;"\\')
    encoded = x509.SubjectAlternativeName([other_name(oid, text)]).public_bytes()
    assert general_names.parse_general_names(encoded) == (other_name(oid, text),)


# ---- patterns

VALUES = {Template.NAMESPACE: "shop", Template.USER: "device-1", Template.SERVICE_ACCOUNT: "web", Template.POD: "web-0"}


@pytest.mark.spec("THREAT-05")
@pytest.mark.parametrize(
    ("oid", "pattern", "text", "permits"),
    [
        (UPN, "*@domain.test", "upn@domain.test", True),
        (UPN, "*@domain.test", "a.b/../c@domain.test", False),
        (UPN, "*@domain.test", "*@domain.test", False),
        (UPN, "*@domain.test", "upn@DOMAIN.test", False),
        (UPN, "*@domain.test", "upn@evil-domain.test", False),
        (UPN, "*@domain.test", "upn@evil.domain.test", False),
        (UPN, "*@domain.test", "upn@domain.test.evil", False),
        (UPN, "admin@domain.test", "admin@domain.test", True),
        (UPN, "admin@domain.test", "Admin@domain.test", False),
        (UPN, "{user}@domain.test", "device-1@domain.test", True),
        (UPN, "{user}@domain.test", "device-2@domain.test", False),
        (UPN, "{serviceAccount}.{namespace}@domain.test", "web.shop@domain.test", True),
        (UPN, "{pod}@domain.test", "web-0@domain.test", True),
        (XMPP, "*@im.example", "evil.example/@im.example", False),
        (XMPP, "*@im.example", "im.example", False),
        (XMPP, "im.example", "im.example", True),
        (NAI_REALM, "{namespace}.example", "shop.example", True),
        (NAI_REALM, "{namespace}.example", "till.example", False),
        (MAILBOX, "*@example.com", "医生@example.com", True),
    ],
)
def test_a_star_is_the_whole_part_before_the_at_and_all_else_is_literal(oid: str, pattern: str, text: str, permits: bool) -> None:
    parsed = OtherNamePattern.parse(oid, pattern)
    assert parsed.permits(oid, text, VALUES) is permits
    assert not parsed.permits("1.2.3.4", text, VALUES)


@pytest.mark.spec("THREAT-05")
@pytest.mark.parametrize(
    ("pattern", "user", "text", "permits"),
    [
        ("{user}@domain.test", "root@evil.test", "root@evil.test@domain.test", False),
        ("{user}@domain.test", "evil.test/", "evil.test/@domain.test", False),
        ("{user}@domain.test", "*", "*@domain.test", False),
        ("{user}@domain.test", "*", "root@domain.test", False),
        ("{user}@domain.test", "a.b", "a.b@domain.test", True),
        ("x-{user}@domain.test", "root@evil.test", "x-root@evil.test@domain.test", False),
        ("{user}", "root@domain.test", "root@domain.test", True),
        ("{user}", "root@domain.test", "root@domain.test.evil", False),
        ("{user}.example", "a.b", "a.b.example", False),
        ("{user}.example", "a@b", "a@b.example", False),
        ("{user}.example", "a", "a.example", True),
    ],
)
def test_a_value_of_the_requester_reaches_into_no_other_domain(pattern: str, user: str, text: str, permits: bool) -> None:
    parsed = OtherNamePattern.parse(XMPP, pattern)
    values = {Template.USER: user}
    assert parsed.permits(XMPP, text, values) is permits
    if permits:
        assert parsed.fixed(values) == text


PATTERN_MISTAKES = [
    ("1.3.06.1", "*@domain.test", "leading zeros"),
    ("1.40.1", "*@domain.test", "no object identifier"),
    ("1.3" + ".1" * 63, "*@domain.test", "no object identifier"),
    ("userPrincipalName", "*@domain.test", "no object identifier"),
    (UPN, "*", "before an @"),
    (UPN, "web-*@domain.test", "before an @"),
    (UPN, "a@*", "written out"),
    (UPN, "a@{user}", "written out"),
    (UPN, "{cn}@domain.test", "unknown"),
    (UPN, "admin", "user@domain"),
    (UPN, "a@b@domain.test", "too many"),
    (UPN, "@domain.test", "too many"),
    (UPN, "a b@domain.test", "no such name needs"),
    (UPN, "u\u0308@domain.test", "normalization form C"),
    (UPN, "*@\u202edomain.test", "cannot be seen"),
    (MAILBOX, "admin@example.com", "never a SmtpUTF8Mailbox"),
    (MAILBOX, "*@Example.com", "lower-case"),
]


@pytest.mark.parametrize(("oid", "pattern", "said"), PATTERN_MISTAKES)
def test_a_pattern_that_could_permit_no_name_is_refused_when_it_is_read(oid: str, pattern: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        OtherNamePattern.parse(oid, pattern)


# ---- who may have which

DOMAIN = policy(rule((UPN, "*@domain.test"), (XMPP, "{namespace}@im.example"), dnsNames=["*.{namespace}.svc"]))


def test_names_inside_the_rule_are_authorized_and_issued() -> None:
    sans = (DNS("db.shop.svc"), upn("a@domain.test"), upn("b@domain.test"), other_name(XMPP, "shop@im.example"))
    authorized = registration.authorize(pod("shop"), csr(*sans), DOMAIN)
    ca = made_ca(KeyAlgorithm.ECDSA_P256)
    issued = authority.issue(ca, authorized, DOMAIN, now=EPOCH, serial=authority.serial_number(bytes(range(16))))
    certificate = x509.load_der_x509_certificate(issued.certificate_der)
    collect(issued.certificate_der, pki.der(ca.certificate))
    assert registration.subject_alternative_names(certificate) == sans
    assert issued.sans[1] == f"otherName:{UPN};UTF8:a@domain.test"


@pytest.mark.spec("THREAT-05")
def test_one_permitted_name_does_not_let_another_pass() -> None:
    error = refusal(pod("shop"), DOMAIN, upn("a@domain.test"), upn("a@domain2.test"))
    assert error.reason == "NameNotPermitted"
    assert f"otherName:{UPN};UTF8:a@domain2.test is not permitted to service account shop/web" in error.message
    assert f"rule 1 permits otherNames {UPN};UTF8:*@domain.test, {XMPP};UTF8:{{namespace}}@im.example" in error.message


def test_without_opt_in_a_refusal_names_the_field_that_would_permit() -> None:
    error = refusal(pod("shop"), policy({"dnsNames": ["*.shop.svc"], "emailAddresses": ["*@domain.test"]}), upn("a@domain.test"))
    assert error.message.endswith("rule 1 permits otherNames none")


@pytest.mark.spec("THREAT-05")
def test_a_type_permits_no_other_type() -> None:
    refusal(pod("shop"), DOMAIN, other_name("1.2.3", "a@domain.test"))
    refusal(pod("shop"), DOMAIN, x509.RFC822Name("a@domain.test"))


@pytest.mark.spec("EST-CLI-03", "THREAT-05")
def test_a_registration_authority_vouches_for_types_that_a_rule_has_and_for_no_others() -> None:
    assert registration.authorize(RA, csr(upn("root@else.where")), DOMAIN).sans == (upn("root@else.where"),)
    for rules in (policy(), policy({"emailAddresses": ["*@domain.test"]}), policy(rule((XMPP, "*@domain.test")))):
        with pytest.raises(Forbidden, match=f"no rule of this issuer's policy has the type {UPN} in otherNames") as refused:
            registration.authorize(RA, csr(upn("a@domain.test")), rules)
        assert refused.value.reason == "NameNotPermitted"
        with pytest.raises(Forbidden, match="otherNames"):
            registration.authorize_renewal(RA, csr(upn("a@domain.test")), rules)


@pytest.mark.spec("EST-REENR-02", "THREAT-10")
def test_a_holder_renews_its_own_names_and_no_others() -> None:
    old = pki.leaf(pki.ca(), subject=pki.name("a"), sans=(upn("a@domain.test"), other_name(XMPP, "a@domain.test")))
    me = holder(old)
    same = csr(other_name(XMPP, "a@domain.test"), upn("a@domain.test"), subject=pki.name("a"))
    assert registration.authorize_renewal(me, same, policy()).sans == (upn("a@domain.test"), other_name(XMPP, "a@domain.test"))
    for sans in (
        (upn("a@domain.test"),),
        (upn("a@domain.test"), other_name("1.2.3", "a@domain.test")),
        (upn("A@domain.test"), other_name(XMPP, "a@domain.test")),
        (upn("a@domain.test"), other_name(XMPP, "a@domain.test"), upn("root@domain.test")),
    ):
        with pytest.raises(Forbidden) as refused:
            registration.authorize_renewal(me, csr(*sans, subject=pki.name("a")), DOMAIN)
        assert refused.value.reason == "RenewalNamesDiffer"


def test_a_callout_keeps_the_names_that_it_lists_and_no_two_names_look_alike() -> None:
    longest = "c" * 240
    sans = (upn("a@domain.test"), upn("b@domain.test"), upn(f"{longest}@d.test"), upn(f"{longest}@d.tesT"), other_name("1.2.3", "a@d.test"))
    rules = policy(rule((UPN, "*@domain.test"), (UPN, "*@d.test"), (UPN, "*@d.tesT"), ("1.2.3", "*@d.test")))
    authorized = registration.authorize(basic(), csr(*sans), rules)
    assert len(set(map(names.describe_general_name, sans))) == len(sans)
    answer = authorization_callout.Answer(allowed=True, sans=(f"otherName:{UPN};UTF8:b@domain.test",))
    narrowed = authorization_callout.apply(answer, authorized, default_duration=rules.duration.default)
    assert narrowed.sans == (upn("b@domain.test"),)


def test_nothing_but_our_errors_escapes() -> None:
    for cut in range(len(encoded := x509.SubjectAlternativeName([upn("a@domain.test")]).public_bytes())):
        with pytest.raises(EstError):
            general_names.parse_general_names(encoded[:cut])
