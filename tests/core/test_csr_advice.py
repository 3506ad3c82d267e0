"""What an issuer's policy makes of CsrAttrs, for each requester."""

from collections.abc import Mapping, Sequence

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import example, given
from hypothesis import strategies as st

from estcore import csr_wishes, csrattrs
from estcore.attribute import Attribute
from estcore.csr_advice import CsrAdvice, Proofs, derive
from estcore.csr_template import ANY_IP_ADDRESS, ExtensionTemplate
from estcore.csr_vocabulary import (
    CHALLENGE_PASSWORD,
    EC_PUBLIC_KEY,
    EST_IDENTITY_LINKING,
    EXTENSION_REQUEST,
    OTP_CHALLENGE,
    SUBJECT_ALT_NAME,
)
from estcore.csr_wishes import Wishes
from estcore.issuer_spec import KeyAlgorithm
from estcore.registration import authorize
from estcore.requester import Requester
from estcore.rule_names import MAX_FIXED_NAMES_OCTETS
from tests import pki
from tests.core.requests import DNS, EMAIL, RA, URI, basic, csr, ip, pod, policy

NOTHING_TO_PROVE = Proofs()
COUNTRY, ORGANIZATION, UNIT, CN = "2.5.4.6", "2.5.4.10", "2.5.4.11", "2.5.4.3"
KEY_USAGE, EXTENDED_KEY_USAGE = "2.5.29.15", "2.5.29.37"


def wishes(rules: Mapping[str, object] | Sequence[Mapping[str, object]], requester: Requester | None, **others: object) -> Wishes:
    listed = [rules] if isinstance(rules, Mapping) else rules
    return derive(policy(*listed, **others), requester, NOTHING_TO_PROVE)


def subject(found: Wishes) -> list[tuple[str, bytes | None]]:
    return [(component.type, component.value) for rdn in found.subject or () for component in rdn]


def san(found: Wishes) -> ExtensionTemplate | None:
    return next((extension for extension in found.extensions if extension.oid == SUBJECT_ALT_NAME), None)


def encoded(*names: x509.GeneralName) -> bytes:
    return x509.SubjectAlternativeName(names).public_bytes()


@pytest.mark.spec("EST-ATTR-13")
def test_a_rule_fixes_what_it_writes_out_and_leaves_open_what_it_does_not() -> None:
    rule = {"subject": {"commonName": "{user}", "organization": "Acme", "organizationalUnit": "Line *", "country": "DE"}}
    assert subject(wishes(rule, basic("device-7"))) == [
        (COUNTRY, b"\x13\x02DE"),
        (ORGANIZATION, b"\x0c\x04Acme"),
        (UNIT, None),
        (CN, b"\x0c\x08device-7"),
    ]


@pytest.mark.spec("EST-ATTR-13")
def test_the_parts_of_an_address_and_of_a_directory_come_from_the_widest_to_the_narrowest_in_their_string_types() -> None:
    """RFC 5280 Appendix A.1: a domainComponent is an IA5String."""
    fields = {"userId": "{user}", "postalCode": "80331", "locality": "München", "stateOrProvince": "*", "domainComponent": "example"}
    assert subject(wishes({"subject": fields | {"streetAddress": "Hof 1"}}, basic("u1"))) == [
        ("0.9.2342.19200300.100.1.25", b"\x16\x07example"),
        ("2.5.4.8", None),
        ("2.5.4.7", b"\x0c\x08" + "München".encode()),
        ("2.5.4.9", b"\x0c\x05Hof 1"),
        ("2.5.4.17", b"\x0c\x0580331"),
        ("0.9.2342.19200300.100.1.1", b"\x0c\x02u1"),
    ]


@pytest.mark.spec("EST-ATTR-13")
def test_a_value_that_no_certificate_can_have_is_left_to_the_client() -> None:
    assert subject(wishes({"subject": {"commonName": "{user}"}}, basic("x" * 65))) == [(CN, None)]


@pytest.mark.spec("EST-ATTR-13")
def test_a_rule_that_says_nothing_of_the_subject_asks_for_none() -> None:
    assert wishes({"dnsNames": ["a.example.com"]}, basic()).subject is None


@pytest.mark.spec("EST-ATTR-07", "EST-ATTR-16")
@pytest.mark.parametrize(
    ("rule", "value"),
    [
        ({"dnsNames": ["A.example.com", "b.example.com"]}, encoded(DNS("a.example.com"), DNS("b.example.com"))),
        ({"dnsNames": ["{user}.example.com"]}, encoded(DNS("device-1.example.com"))),
        ({"dnsNames": ["*.example.com"]}, None),
        ({"dnsNames": ["a.example.com", "*.example.com"]}, None),
        ({"uris": ["urn:dev:{user}"]}, encoded(URI("urn:dev:device-1"))),
        ({"uris": ["spiffe://a.example/ns/*"]}, None),
        ({"emailAddresses": ["{user}@example.com"]}, encoded(EMAIL("device-1@example.com"))),
        ({"emailAddresses": ["*@example.com"]}, None),
        ({"ipAddresses": ["10.1.2.3"]}, encoded(ip("10.1.2.3"))),
        ({"ipAddresses": ["10.0.0.0/8"]}, b"\x30\x02" + ANY_IP_ADDRESS),
        (
            {"dnsNames": ["www.myServer.com"], "ipAddresses": ["10.0.0.0/8"]},
            bytes.fromhex("3014") + b"\x82\x10www.myserver.com" + ANY_IP_ADDRESS,
        ),
    ],
)
def test_alternative_names_are_given_whole_in_part_or_not_at_all(rule: dict[str, object], value: bytes | None) -> None:
    found = san(wishes(rule, basic("device-1")))
    assert found == ExtensionTemplate(oid=SUBJECT_ALT_NAME, critical=True, value=value)


def test_the_subject_alt_name_is_critical_only_where_there_is_no_subject() -> None:
    found = san(wishes({"subject": {"commonName": "{user}"}, "dnsNames": ["a.example.com"]}, basic()))
    assert found is not None
    assert not found.critical


def test_a_rule_that_permits_no_alternative_names_asks_for_none() -> None:
    assert san(wishes({"subject": {"commonName": "{user}"}}, basic())) is None


@pytest.mark.parametrize("user", ["a.b", "ünsal"])
def test_a_user_name_that_makes_no_dns_name_is_left_to_the_client(user: str) -> None:
    found = san(wishes({"dnsNames": ["{user}.example.com"]}, basic(user)))
    assert found is not None
    assert found.value is None


def test_more_names_than_fit_are_left_to_the_client() -> None:
    octets_in_all = 64 * 200
    assert octets_in_all > MAX_FIXED_NAMES_OCTETS
    long = {"uris": [f"urn:{'x' * 200}:{number}" for number in range(64)]}
    found = san(wishes(long, basic()))
    assert found is not None
    assert found.value is None


@pytest.mark.spec("EST-CLI-02")
def test_each_requester_is_told_what_its_own_rule_says() -> None:
    rules: list[dict[str, object]] = [
        {"from": {"authentication": "basic"}, "subject": {"commonName": "{user}"}},
        {"from": {"authentication": "serviceAccountToken"}, "dnsNames": ["{serviceAccount}.{namespace}.svc"]},
    ]
    assert subject(wishes(rules, basic("device-7"))) == [(CN, b"\x0c\x08device-7")]
    found = san(wishes(rules, pod("shop", "web")))
    assert found is not None
    assert found.value == encoded(DNS("web.shop.svc"))


@pytest.mark.spec("EST-CLI-02")
def test_somebody_who_did_not_authenticate_is_told_no_value_of_a_rule() -> None:
    rules: list[dict[str, object]] = [
        {"from": {"users": ["a*"]}, "subject": {"commonName": "secret-project", "organization": "Acme"}},
        {"subject": {"commonName": "{user}", "country": "DE"}, "dnsNames": ["internal.example.com"]},
    ]
    found = wishes(rules, None)
    assert subject(found) == [(CN, None)]
    assert san(found) is None
    written = csrattrs.encode(csr_wishes.write(found))
    for value in (b"secret", b"Acme", b"internal"):
        assert value not in written


@pytest.mark.spec("EST-CLI-02")
@pytest.mark.parametrize(
    ("rules", "asked"),
    [
        ([{"dnsNames": ["a.example.com"]}, {"uris": ["urn:a:b"]}], True),
        ([{"dnsNames": ["a.example.com"]}, {"subject": {"commonName": "a"}}], False),
        ([], False),
    ],
)
def test_somebody_who_did_not_authenticate_is_asked_for_names_where_every_rule_does(rules: list[dict[str, object]], asked: bool) -> None:
    found = san(wishes(rules, None))
    assert (found is not None) == asked
    assert found is None or found.value is None


def test_a_registration_authority_vouches_for_names_so_it_is_told_none() -> None:
    found = wishes({"subject": {"commonName": "a"}, "dnsNames": ["a.example.com"]}, RA)
    assert found.subject is None
    assert san(found) is None


def test_a_requester_without_a_rule_is_told_no_names() -> None:
    found = wishes({"from": {"users": ["other"]}, "dnsNames": ["a.example.com"]}, basic())
    assert (found.subject, san(found)) == (None, None)


def test_a_renewal_is_told_no_names() -> None:
    found = derive(policy({"subject": {"commonName": "{user}"}}), basic(), NOTHING_TO_PROVE, names=False)
    assert found.subject is None


@pytest.mark.spec("EST-ATTR-05")
def test_the_key_and_its_signature_are_announced_where_there_is_one_kind() -> None:
    found = wishes([], None, keys=["ECDSA-P384"])
    assert str(found.key) == "EC P-384"
    assert found.signature == "1.2.840.10045.4.3.3"
    items = csr_wishes.write(found)
    assert "1.2.840.10045.4.3.3" in items
    assert Attribute(type=EC_PUBLIC_KEY, values=(bytes.fromhex("06052b81040022"),)) in items


@pytest.mark.parametrize(
    ("keys", "signature"),
    [
        (["ECDSA-P256", "ECDSA-P384"], None),
        (["RSA-2048", "RSA-4096"], "1.2.840.113549.1.1.11"),
        (["Ed25519"], "1.3.101.112"),
        (["Ed25519", "RSA-2048"], None),
    ],
)
def test_a_signature_algorithm_is_announced_where_all_keys_have_the_same(keys: list[str], signature: str | None) -> None:
    assert wishes([], None, keys=keys).signature == signature


@pytest.mark.spec("EST-ATTR-07")
@pytest.mark.parametrize(
    ("keys", "usages", "key_usage", "extended"),
    [
        (["ECDSA-P256"], ["digital signature", "key encipherment", "server auth"], "03020780", "300a06082b06010505070301"),
        (["RSA-2048"], ["digital signature", "key encipherment", "client auth"], "030205a0", "300a06082b06010505070302"),
        (["RSA-2048", "ECDSA-P256"], ["digital signature", "key encipherment", "client auth"], None, "300a06082b06010505070302"),
        (["RSA-2048", "ECDSA-P256"], ["digital signature"], "03020780", ""),
    ],
)
def test_usages_are_asked_for_as_the_certificate_will_have_them(
    keys: list[str], usages: list[str], key_usage: str | None, extended: str
) -> None:
    found = {extension.oid: extension for extension in wishes([], None, keys=keys, usages=usages).extensions}
    assert (KEY_USAGE in found) == (key_usage is not None)
    if key_usage is not None:
        assert found[KEY_USAGE] == ExtensionTemplate(oid=KEY_USAGE, critical=True, value=bytes.fromhex(key_usage))
    assert (found[EXTENDED_KEY_USAGE].value == bytes.fromhex(extended)) if extended else EXTENDED_KEY_USAGE not in found


def test_timestamping_stands_alone_so_of_several_purposes_the_client_chooses() -> None:
    found = wishes([], None, usages=["digital signature", "timestamping", "client auth"]).extensions
    assert ExtensionTemplate(oid=EXTENDED_KEY_USAGE) in found


@pytest.mark.spec("EST-ATTR-06", "EST-POP-17")
def test_where_binding_is_required_both_attributes_for_it_are_listed() -> None:
    advice = CsrAdvice.derived(policy(), None, Proofs(channel_binding=True))
    assert csrattrs.decode(advice.csrattrs_der)[:2] == (CHALLENGE_PASSWORD, EST_IDENTITY_LINKING)


@pytest.mark.spec("EST-POP-18")
def test_wanted_proofs_are_listed_in_every_answer() -> None:
    proofs = Proofs(one_time_password=True)
    for requester in (None, basic(), RA):
        listed = csrattrs.decode(CsrAdvice.derived(policy({"subject": {"commonName": "a"}}), requester, proofs).csrattrs_der)
        assert OTP_CHALLENGE in listed


@pytest.mark.spec("EST-ATTR-06", "EST-POP-18")
def test_what_was_written_by_hand_is_kept_and_completed_by_what_must_be_listed() -> None:
    by_hand = ("1.3.6.1.1.1.1.22", CHALLENGE_PASSWORD)
    advice = CsrAdvice.written(by_hand, Proofs(channel_binding=True))
    assert csrattrs.decode(advice.csrattrs_der) == (EST_IDENTITY_LINKING, "1.3.6.1.1.1.1.22", CHALLENGE_PASSWORD)
    assert not advice.is_empty


def test_ill_formed_wishes_by_hand_are_refused() -> None:
    with pytest.raises(ValueError, match="never a bare OID"):
        CsrAdvice.written((EXTENSION_REQUEST,), NOTHING_TO_PROVE)


@pytest.mark.spec("EST-ATTR-13")
def test_of_a_list_one_pattern_is_fixed_and_of_several_the_attribute_is_wanted_once_and_left_open() -> None:
    rule = {"subject": {"organizations": ["Acme"], "organizationalUnits": ["Dept.", "Line"], "domainComponents": ["{user}*"]}}
    assert subject(wishes(rule, basic("device-7"))) == [
        ("0.9.2342.19200300.100.1.25", None),
        (ORGANIZATION, b"\x0c\x04Acme"),
        (UNIT, None),
    ]


@pytest.mark.spec("EST-ATTR-02")
def test_nothing_to_say_is_empty() -> None:
    assert CsrAdvice.written((), NOTHING_TO_PROVE).is_empty


names = st.sampled_from(
    [
        "a.example.com",
        "*.example.com",
        "{user}.example.com",
        "{namespace}.example.com",
        "{serviceAccount}.{namespace}.svc",
        "kubernetes.default",
    ]
)
texts = st.sampled_from(["{user}", "{namespace}", "Acme", "Acme *", "DE", "x" * 65, "system:{user}"])
rules = st.fixed_dictionaries(
    {},
    optional={
        "dnsNames": st.lists(names, max_size=3),
        "uris": st.lists(st.sampled_from(["spiffe://a.example/ns/{namespace}", "urn:x:{user}", "spiffe://a.example/*"]), max_size=2),
        "ipAddresses": st.lists(st.sampled_from(["10.0.0.1", "10.0.0.0/8", "2001:db8::1"]), max_size=2),
        "emailAddresses": st.lists(st.sampled_from(["{user}", "{user}@example.com", "*@example.com"]), max_size=2),
        "otherNames": st.lists(
            st.fixed_dictionaries(
                {
                    "oid": st.sampled_from(["1.3.6.1.4.1.311.20.2.3", "1.3.6.1.5.5.7.8.5"]),
                    "utf8Value": st.sampled_from(["{user}", "{user}@example.com", "{namespace}@example.com", "*@example.com"]),
                }
            ),
            max_size=2,
        ),
        "subject": st.fixed_dictionaries(
            {},
            optional={
                "commonName": texts,
                "organization": texts,
                "organizationalUnits": st.lists(texts, min_size=1, max_size=2),
                "country": texts,
                "serialNumber": texts,
            },
        ),
    },
)
requesters = st.one_of(
    st.none(),
    st.just(RA),
    st.builds(basic, st.sampled_from(["device-1", "a.b", "a@example.com", "ü", "x" * 70, "system:masters"])),
    st.builds(pod, st.sampled_from(["shop", "kube-system"]), st.sampled_from(["web", "a.b"])),
)
key_lists = st.lists(st.sampled_from(["ECDSA-P256", "ECDSA-P384", "RSA-2048", "RSA-3072", "Ed25519"]), min_size=1, max_size=3, unique=True)


@pytest.mark.spec("EST-ATTR-08", "EST-ATTR-10", "EST-ATTR-12")
@given(
    rule_list=st.lists(rules, max_size=3),
    requester=requesters,
    keys=key_lists,
    proofs=st.builds(Proofs, channel_binding=st.booleans(), one_time_password=st.booleans()),
)
def test_whatever_the_policy_the_answer_is_well_formed(
    rule_list: list[dict[str, object]], requester: Requester | None, keys: list[str], proofs: Proofs
) -> None:
    advice = CsrAdvice.derived(policy(*rule_list, keys=keys), requester, proofs)
    read = csrattrs.decode(advice.csrattrs_der)
    assert csrattrs.encode(read) == advice.csrattrs_der
    assert {item for item in read if isinstance(item, str)} >= set(proofs.oids())


@given(rule=rules, requester=requesters)
def test_fixed_names_are_names_that_the_rule_permits(rule: dict[str, object], requester: Requester | None) -> None:
    """A client that does as it is told is not refused for it."""
    found = wishes(rule, requester)
    fixed = san(found)
    if requester is None or requester.registration_authority or fixed is None or fixed.value is None or not fixed.is_complete:
        return
    names = tuple(_general_names(fixed.value))
    assert authorize(requester, csr(*names), policy(rule)).sans == names


@example(
    rule={"dnsNames": ["{serviceAccount}.{namespace}.svc"], "subject": {"organizationalUnits": ["{namespace}"]}},
    requester=pod("shop", "a.b"),
)
@given(rule=rules, requester=requesters)
def test_a_fixed_subject_is_one_that_the_rule_permits(rule: dict[str, object], requester: Requester | None) -> None:
    found = subject(wishes(rule, requester))
    if requester is None or requester.registration_authority:
        return
    fixed = [(x509.ObjectIdentifier(oid), value[2:].decode()) for oid, value in found if value is not None]  # of at most 127 octets
    if fixed:
        told = x509.Name([x509.NameAttribute(oid, text) for oid, text in fixed])
        assert authorize(requester, csr(subject=told), policy(rule)).subject == told


@pytest.mark.spec("EST-ATTR-13", "THREAT-05")
@pytest.mark.parametrize("user", ["system:masters", "kubernetes.default.svc"])
def test_a_name_of_the_clusters_that_no_placeholder_lends_is_not_advised(user: str) -> None:
    assert subject(wishes({"subject": {"commonName": "{user}"}}, basic(user))) == [(CN, None)]


def _general_names(subject_alt_name: bytes) -> x509.SubjectAlternativeName:
    whole = x509.UnrecognizedExtension(x509.SubjectAlternativeName.oid, subject_alt_name)
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).add_extension(whole, critical=False)
    request = x509.load_der_x509_csr(builder.sign(pki.key(KeyAlgorithm.ECDSA_P256), SHA256()).public_bytes(Encoding.DER))
    return request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
