"""What a certificate has of the names that were asked for, told in words (EST-RESP-04)."""

import ipaddress
from collections.abc import Sequence

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID

from estclient import changed_names, enrolment
from estclient.client import EstClient
from estclient.credentials import Basic
from estcore import csr_builder
from tests import pki
from tests.client.double import Answer, Identity, Seen, build, certificates, est_double, name

DNS, URI, EMAIL = x509.DNSName, x509.UniformResourceIdentifier, x509.RFC822Name
KEY = ec.generate_private_key(ec.SECP256R1())
PASSWORD = Basic(user="device-1", password="correct horse")


def told(
    asked: tuple[x509.Name, Sequence[x509.GeneralName]], given: tuple[x509.Name, Sequence[x509.GeneralName]], ca: Identity
) -> tuple[str, ...]:
    csr_der = csr_builder.build(KEY, subject=asked[0], sans=asked[1])
    return changed_names.changed_names(csr_der, build(given[0], KEY.public_key(), signer=ca, sans=given[1]))


@pytest.mark.spec("EST-RESP-04")
def test_each_name_that_is_missing_and_each_that_is_too_many_is_told(ca: Identity) -> None:
    address = x509.IPAddress(ipaddress.ip_address("192.0.2.7"))
    asked = (name("device-1"), (DNS("a.example"), DNS("b.example"), address, URI("urn:a")))
    assert told(asked, (name("device-2"), (DNS("b.example"), DNS("c.example"), EMAIL("a@example.com"))), ca) == (
        "its subject is CN=device-2, and CN=device-1 was asked for",
        "DNS:a.example was asked for and is not in it",
        "IP:192.0.2.7 was asked for and is not in it",
        "URI:urn:a was asked for and is not in it",
        "DNS:c.example is in it and was not asked for",
        "email:a@example.com is in it and was not asked for",
    )


@pytest.mark.spec("EST-RESP-04")
def test_a_subject_that_is_there_or_gone_is_told(ca: Identity) -> None:
    names = (DNS("a.example"),)
    empty = x509.Name([])
    assert told((empty, names), (name("device-1"), names), ca) == ("its subject is CN=device-1, and none was asked for",)
    assert told((name("device-1"), names), (empty, names), ca) == ("it has no subject, and CN=device-1 was asked for",)


@pytest.mark.spec("EST-RESP-04")
def test_the_same_names_in_another_order_case_or_string_type_are_no_change(ca: Identity) -> None:
    """RFC 5280 section 7: what compares equal is the same name."""
    printable = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Device-1", _ASN1Type.PrintableString)])
    asked = (name("device-1"), (DNS("a.example"), URI("https://A.example/x"), EMAIL("a@Example.com")))
    given = (printable, (EMAIL("a@example.com"), URI("https://a.example/x"), DNS("A.example")))
    assert told(asked, given, ca) == ()


@pytest.mark.spec("EST-RESP-04")
def test_what_is_told_is_short_and_steers_no_terminal(ca: Identity) -> None:
    many = [DNS(f"{number}.example") for number in range(1_000)]
    said = told((name("device-1"), ()), (name("\x1b[31m\nred"), many), ca)
    assert all(line.isprintable() for line in said)
    assert len(said) == changed_names.MAX_TOLD + 1
    assert said[-1] == f"and {1_001 - changed_names.MAX_TOLD} more"


def test_names_that_cannot_be_read_are_told_as_such(ca: Identity) -> None:
    """An x400Address, which no library here knows."""
    unreadable = x509.UnrecognizedExtension(x509.SubjectAlternativeName.oid, pki.sequence(pki.tlv(0xA3, b"\x30\x00")))
    builder = x509.CertificateSigningRequestBuilder().subject_name(name("device-1")).add_extension(unreadable, critical=False)
    csr_der = csr_builder._sign(builder, KEY, None)
    certificate = build(name("device-1"), KEY.public_key(), signer=ca)
    assert changed_names.changed_names(csr_der, certificate) == ("its names cannot be compared with those that were asked for",)


@pytest.mark.spec("EST-RESP-04")
@pytest.mark.parametrize("bind", [True, False], ids=["bound to its connection", "unbound"])
async def test_the_library_says_so_at_each_operation_and_refuses_nothing(ca: Identity, server: Identity, bind: bool) -> None:
    """The issuer's policy has the last word on names; a device owner is to know it."""

    def behave(seen: Seen) -> Answer:
        if seen.method == "GET":
            return certificates(ca.certificate)
        public_key = x509.load_der_x509_csr(seen.csr_der).public_key()
        return certificates(build(name("somebody-else"), public_key, signer=ca, sans=[DNS("elsewhere.example")]))

    wanted = enrolment.Wanted(subject=name("device-1"), sans=(DNS("a.example"),))
    with est_double(behave, server) as double:
        async with EstClient(url=double.url, label=None, anchors_pem=ca.pem, credentials=PASSWORD) as client:
            enrolled = await enrolment.enroll(client, KEY, wanted, bind=bind)
            renewed = await enrolment.renew(
                client, build(name("device-1"), KEY.public_key(), signer=ca, sans=[DNS("a.example")]), KEY, bind=bind
            )
            unchanged = await enrolment.renew(client, enrolled.certificate, KEY, bind=bind)
    assert enrolled.changed == renewed.changed
    assert enrolled.changed == (
        "its subject is CN=somebody-else, and CN=device-1 was asked for",
        "DNS:a.example was asked for and is not in it",
        "DNS:elsewhere.example is in it and was not asked for",
    )
    assert unchanged.changed == ()
