"""What a client makes of a server's wishes and its own."""

import ipaddress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from estcore import csr_builder, csr_wishes, csrattrs, der, pkcs10, transfer
from estcore.attribute import Attribute
from estcore.csr_advice import CsrAdvice, Proofs
from estcore.csr_following import check_follows
from estcore.csr_plan import CsrPlan, Wanted, plan
from estcore.csr_template import ANY_DIRECTORY_NAME, ANY_IP_ADDRESS, ExtensionTemplate, NameComponent
from estcore.csr_vocabulary import (
    CHALLENGE_PASSWORD,
    EST_IDENTITY_LINKING,
    EXTENDED_KEY_USAGE,
    KEY_USAGE,
    OTP_CHALLENGE,
    SUBJECT_ALT_NAME,
)
from estcore.csr_wishes import Wishes
from estcore.errors import MalformedResponse
from estcore.other_names import other_name
from estcore.spec_part import KeyAlgorithm
from estcore.usages import Usage
from tests import pki
from tests.core import vectors
from tests.core.requests import basic, policy

NOBODY = Wanted(subject=x509.Name([]))
P256 = pki.key(KeyAlgorithm.ECDSA_P256)
DNS_A, DNS_B = x509.DNSName("a.example.com"), x509.DNSName("b.example.com")
PRINCIPAL, OTHER_PRINCIPAL = (other_name("1.3.6.1.4.1.311.20.2.3", text) for text in ("a@ad.example", "b@ad.example"))
XMPP_ADDRESS = other_name("1.3.6.1.5.5.7.8.5", "a@im.example")
ADDRESS = x509.IPAddress(ipaddress.ip_address("192.0.2.7"))


def name(text: str) -> x509.Name:
    return x509.Name.from_rfc4514_string(text)


def published(of: str) -> Wishes:
    return csr_wishes.read(csrattrs.decode(transfer.decode_body(vectors.body(of))))


def built(laid_down: CsrPlan, **others: object) -> x509.CertificateSigningRequest:
    return x509.load_der_x509_csr(csr_builder.build_planned(P256, laid_down, **others))  # type: ignore[arg-type]  # as named


def san_wish(value: bytes | None, *, critical: bool = False) -> Wishes:
    return Wishes(extensions=(ExtensionTemplate(oid=SUBJECT_ALT_NAME, critical=critical, value=value),))


def encoded(*names: x509.GeneralName) -> bytes:
    return x509.SubjectAlternativeName(names).public_bytes()


def sans(laid_down: CsrPlan) -> list[x509.GeneralName]:
    try:
        return list(built(laid_down).extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return []


@pytest.mark.spec("EST-ATTR-16")
def test_the_template_of_rfc_9908_is_followed() -> None:
    wanted = Wanted(subject=name("CN=my name"), sans=(ADDRESS,))
    laid_down = plan(published("derived-rfc9908-3.4-template-csrattrs"), wanted)
    csr = built(laid_down)
    assert laid_down.unmet == ()
    assert [(attribute.oid, attribute.value) for attribute in csr.subject] == [
        (NameOID.COMMON_NAME, "my name"),
        (NameOID.ORGANIZATIONAL_UNIT_NAME, "myDept"),
        (NameOID.ORGANIZATIONAL_UNIT_NAME, "myGroup"),
    ]
    assert sans(laid_down) == [x509.DNSName("www.myServer.com"), ADDRESS]
    usage = csr.extensions.get_extension_for_oid(ExtensionOID.KEY_USAGE)
    assert usage.critical
    assert usage.value.public_bytes() == bytes.fromhex("03020388")
    assert list(csr.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.CLIENT_AUTH]


@pytest.mark.spec("EST-ATTR-16")
def test_what_nobody_can_fill_in_is_named() -> None:
    assert plan(published("derived-rfc9908-3.4-template-csrattrs"), NOBODY).unmet == (
        "the subject's commonName",
        "an IP address in subjectAltName",
    )
    assert plan(Wishes(extensions=(ExtensionTemplate(oid="2.5.29.32"),), supplied=("1.2.840.113549.1.9.20",)), NOBODY).unmet == (
        "the extension certificatePolicies",
        "the attribute friendlyName",
    )
    assert plan(san_wish(None), NOBODY).unmet == ("the extension subjectAltName",)
    assert plan(san_wish(b"\x30\x04" + ANY_DIRECTORY_NAME), NOBODY).unmet == ("a directoryName in subjectAltName",)
    assert plan(Wishes(attributes=(Attribute(type="2.999.1", values=(b"\x05\x00",)),)), NOBODY).unmet == ("the attribute 2.999.1",)


@pytest.mark.spec("EST-ATTR-09")
def test_an_extension_that_is_given_whole_is_copied_octet_by_octet() -> None:
    wishes = published("rfc9908-5.1-csrattrs")
    (given_extension,) = wishes.extensions
    assert given_extension.value is not None
    csr_der = csr_builder.build_planned(P256, plan(wishes, NOBODY))
    whole = der.object_identifier(SUBJECT_ALT_NAME) + b"\x01\x01\xff" + der.tlv(0x04, given_extension.value)
    assert whole in csr_der


@pytest.mark.spec("EST-ATTR-07")
@pytest.mark.parametrize(
    ("vector", "algorithm", "digest"),
    [
        ("rfc9908-5.2-csrattrs", KeyAlgorithm.ECDSA_P384, hashes.SHA384),
        ("rfc9908-5.4-csrattrs", KeyAlgorithm.RSA_4096, hashes.SHA256),
        ("rfc9908-5.5-csrattrs", KeyAlgorithm.ECDSA_P384, hashes.SHA384),
    ],
)
def test_key_and_hash_of_the_examples_are_followed(vector: str, algorithm: KeyAlgorithm, digest: type[hashes.HashAlgorithm]) -> None:
    wishes = published(vector)
    assert wishes.key is not None
    assert wishes.key.best() is algorithm
    assert isinstance(plan(wishes, NOBODY).hash_for(pki.key(algorithm)), digest)


@pytest.mark.spec("EST-ATTR-07")
def test_a_wanted_hash_is_what_the_csr_is_signed_with() -> None:
    assert isinstance(built(plan(Wishes(signature="1.2.840.10045.4.3.4"), NOBODY)).signature_hash_algorithm, hashes.SHA512)
    assert isinstance(built(plan(Wishes(signature="2.16.840.1.101.3.4.2.2"), NOBODY)).signature_hash_algorithm, hashes.SHA384)
    assert isinstance(built(plan(Wishes(), NOBODY)).signature_hash_algorithm, hashes.SHA256)


def test_a_hash_for_another_kind_of_key_is_not_taken() -> None:
    laid_down = plan(Wishes(signature="1.2.840.113549.1.1.13"), NOBODY)
    assert laid_down.hash_for(P256) is None
    assert plan(Wishes(signature="2.16.840.1.101.3.4.2.2"), NOBODY).hash_for(pki.key(KeyAlgorithm.ED25519)) is None


@pytest.mark.spec("EST-ATTR-07")
def test_a_name_component_that_is_wanted_comes_from_the_client() -> None:
    wanted = Wanted(subject=name("2.5.4.5=4711"))
    laid_down = plan(published("rfc9908-5.5-csrattrs"), wanted)
    assert [(attribute.oid, attribute.value) for attribute in built(laid_down).subject] == [(NameOID.SERIAL_NUMBER, "4711")]
    assert laid_down.unmet == ()


@pytest.mark.parametrize(
    ("wanted", "subject"),
    [
        ("", "CN=device-7,O=Acme"),
        ("CN=mine", "CN=mine,O=Acme"),
        ("O=Mine", "CN=device-7,O=Mine"),
        ("L=Here", "L=Here,CN=device-7,O=Acme"),
    ],
)
def test_of_the_subject_what_the_client_named_counts_first(wanted: str, subject: str) -> None:
    wishes = Wishes(
        subject=(
            (NameComponent(type="2.5.4.10", value=b"\x0c\x04Acme"),),
            (NameComponent(type="2.5.4.3", value=b"\x0c\x08device-7"),),
        )
    )
    assert plan(wishes, Wanted(subject=name(wanted) if wanted else x509.Name([]))).subject.rfc4514_string() == subject


@pytest.mark.parametrize(
    ("value", "own", "asked"),
    [
        (encoded(DNS_A), [], [DNS_A]),
        (encoded(DNS_A), [DNS_B], [DNS_B]),
        (encoded(DNS_A), [ADDRESS], [DNS_A, ADDRESS]),
        (None, [DNS_B], [DNS_B]),
        (None, [], []),
        (b"\x30\x02" + ANY_IP_ADDRESS, [ADDRESS], [ADDRESS]),
        (b"\x30\x02" + ANY_IP_ADDRESS, [], []),
        (encoded(PRINCIPAL), [DNS_A], [PRINCIPAL, DNS_A]),
        (encoded(PRINCIPAL), [OTHER_PRINCIPAL], [OTHER_PRINCIPAL]),
        (encoded(PRINCIPAL), [XMPP_ADDRESS], [PRINCIPAL, XMPP_ADDRESS]),
    ],
)
def test_of_the_names_those_of_the_kinds_that_the_client_named_are_its_own(
    value: bytes | None, own: list[x509.GeneralName], asked: list[x509.GeneralName]
) -> None:
    assert sans(plan(san_wish(value), Wanted(subject=x509.Name([]), sans=tuple(own)))) == asked


@pytest.mark.spec("EST-ATTR-16")
def test_whether_an_extension_is_critical_is_the_servers_wish() -> None:
    for critical in (True, False):
        csr = built(plan(san_wish(encoded(DNS_A), critical=critical), Wanted(subject=name("CN=x"), sans=(DNS_B,))))
        assert csr.extensions[0].critical == critical


def test_without_wishes_the_csr_is_what_the_client_wants() -> None:
    wanted = Wanted(subject=name("CN=x"), sans=(DNS_A,), usages=(Usage.CLIENT_AUTH, Usage.DIGITAL_SIGNATURE))
    planned = built(plan(Wishes(), wanted))
    plain = x509.load_der_x509_csr(csr_builder.build(P256, subject=wanted.subject, sans=wanted.sans, usages=wanted.usages))
    assert planned.subject == plain.subject
    assert sorted(str(extension) for extension in planned.extensions) == sorted(str(extension) for extension in plain.extensions)


def test_usages_that_the_client_named_are_its_own() -> None:
    wishes = Wishes(extensions=(ExtensionTemplate(oid=KEY_USAGE, value=b"\x03\x02\x05\xa0"), ExtensionTemplate(oid=EXTENDED_KEY_USAGE)))
    csr = built(plan(wishes, Wanted(subject=name("CN=x"), usages=(Usage.SERVER_AUTH,))))
    assert [extension.oid for extension in csr.extensions] == [ExtensionOID.EXTENDED_KEY_USAGE]
    assert list(csr.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.SERVER_AUTH]


@pytest.mark.spec("EST-POP-06", "EST-POP-17")
@pytest.mark.parametrize(
    ("supplied", "linking"),
    [
        ((), CHALLENGE_PASSWORD),
        ((CHALLENGE_PASSWORD,), CHALLENGE_PASSWORD),
        ((CHALLENGE_PASSWORD, EST_IDENTITY_LINKING), EST_IDENTITY_LINKING),
    ],
)
def test_the_binding_goes_where_the_server_looks_for_it(supplied: tuple[str, ...], linking: str) -> None:
    csr = built(plan(Wishes(supplied=supplied), NOBODY), channel_binding=b"b" * 32)
    assert [attribute.oid.dotted_string for attribute in csr.attributes] == [linking]
    assert csr.attributes.get_attribute_for_oid(x509.ObjectIdentifier(linking)).value == b"YmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmI="


@pytest.mark.spec("EST-POP-18")
def test_a_one_time_password_is_included_where_the_server_takes_one() -> None:
    csr_der = csr_builder.build_planned(P256, plan(Wishes(supplied=(OTP_CHALLENGE,)), NOBODY), one_time_password="42-otp")
    assert pkcs10.parse(csr_der).one_time_password == "42-otp"
    assert not built(plan(Wishes(), NOBODY), one_time_password="42-otp").attributes


def test_an_attribute_that_is_given_with_its_value_is_copied() -> None:
    wishes = Wishes(attributes=(Attribute(type="1.2.840.113549.1.9.20", values=(b"\x0c\x05press",)),))
    csr = built(plan(wishes, NOBODY))
    assert csr.attributes.get_attribute_for_oid(x509.ObjectIdentifier("1.2.840.113549.1.9.20")).value == b"press"


@pytest.mark.spec("THREAT-08")
def test_a_subject_that_no_certificate_can_have_is_the_servers_fault() -> None:
    with pytest.raises(MalformedResponse):
        plan(Wishes(subject=((NameComponent(type="2.5.4.3", value=b"\x30\x00"),),)), NOBODY)


rule_lists = st.lists(
    st.sampled_from(
        [
            {"subject": {"commonName": "{user}", "organization": "Acme"}},
            {"dnsNames": ["{user}.example.com"], "uris": ["urn:dev:{user}"]},
            {"subject": {"commonName": "{user}"}, "dnsNames": ["a.example.com", "b.example.com"], "ipAddresses": ["10.0.0.1"]},
            {"subject": {"serialNumber": "4711"}, "emailAddresses": ["{user}@example.com"]},
            {"otherNames": [{"oid": "1.3.6.1.4.1.311.20.2.3", "utf8Value": "{user}@example.com"}], "dnsNames": ["a.example.com"]},
        ]
    ),
    min_size=1,
    max_size=1,
)


@pytest.mark.spec("EST-ATTR-09", "EST-ATTR-16", "EST-ATTR-18")
@given(
    rules=rule_lists,
    key=st.sampled_from(["ECDSA-P256", "ECDSA-P384", "Ed25519"]),
    binding=st.booleans(),
    usages=st.sampled_from([["digital signature"], ["digital signature", "key encipherment", "client auth", "server auth"]]),
)
def test_a_client_that_does_as_it_is_told_is_let_pass_by_an_issuer_that_insists(
    rules: list[dict[str, object]], key: str, binding: bool, usages: list[str]
) -> None:
    advice = CsrAdvice.derived(policy(*rules, keys=[key], usages=usages), basic("device-7"), Proofs(channel_binding=binding))
    wishes = csr_wishes.read(csrattrs.decode(advice.csrattrs_der))
    assert wishes.key is not None
    algorithm = wishes.key.best()
    assert algorithm is not None
    laid_down = plan(wishes, NOBODY)
    assert laid_down.unmet == ()
    csr_der = csr_builder.build_planned(pki.key(algorithm), laid_down, channel_binding=b"b" * 32)
    check_follows(pkcs10.parse(csr_der), advice.enforced)
