"""CSRs that nobody may have answered: each is refused, in one line, with the reason (threats rows 1, 2, 5 and 8)."""

from contextlib import suppress
from time import process_time

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st

from estcore import der, extension_request, pkcs10
from estcore.errors import BadCsr, EstError, MalformedBody
from tests import pki

ONE = pki.extension("2.5.29.17", pki.sequence(pki.tlv(0x82, b"a.example")))


def asking(*extensions: bytes) -> bytes:
    return pki.raw_csr(pki.extension_request(*extensions))


# ---- extensions


@pytest.mark.spec("THREAT-01")
@pytest.mark.parametrize(
    "extension",
    [
        pytest.param(x509.BasicConstraints(ca=True, path_length=None), id="CA:TRUE"),
        pytest.param(x509.BasicConstraints(ca=True, path_length=0), id="CA:TRUE, pathLen 0"),
        pytest.param(pki.key_usage("key_cert_sign"), id="keyCertSign"),
        pytest.param(pki.key_usage("digital_signature", "crl_sign"), id="cRLSign"),
    ],
)
def test_a_csr_that_asks_to_be_a_ca_is_refused(extension: x509.ExtensionType) -> None:
    with pytest.raises(BadCsr, match="which is never issued") as refused:
        pkcs10.parse(pki.csr(extensions=[extension]))
    assert refused.value.reason == "CaRequested"


@pytest.mark.spec("THREAT-01")
def test_a_path_length_without_ca_is_refused() -> None:
    with pytest.raises(BadCsr):
        pkcs10.parse(asking(pki.extension("2.5.29.19", pki.sequence(b"\x02\x01\x00"))))


NAMED_EXTENSIONS = {
    "subjectDirectoryAttributes": "2.5.29.9",
    "issuerAltName": "2.5.29.18",
    "privateKeyUsagePeriod": "2.5.29.16",
    "nameConstraints": "2.5.29.30",
    "cRLDistributionPoints": "2.5.29.31",
    "certificatePolicies": "2.5.29.32",
    "policyMappings": "2.5.29.33",
    "authorityKeyIdentifier": "2.5.29.35",
    "policyConstraints": "2.5.29.36",
    "freshestCRL": "2.5.29.46",
    "inhibitAnyPolicy": "2.5.29.54",
    "authorityInfoAccess": "1.3.6.1.5.5.7.1.1",
    "subjectInfoAccess": "1.3.6.1.5.5.7.1.11",
    "ocspNoCheck": "1.3.6.1.5.5.7.48.1.5",
    "tlsFeature": "1.3.6.1.5.5.7.1.24",
    "msCertificateTemplate": "1.3.6.1.4.1.311.21.7",
}
OTHER_EXTENSIONS = [
    "2.5.29.14.1",
    "2.5.29.20",  # cRLNumber
    "1.3.6.1.4.1.311.20.2",  # Microsoft certificate template name
    "1.3.6.1.4.1.311.25.2",  # Microsoft SID: logs on as that user
    "1.3.6.1.4.1.11129.2.4.2",  # SCT list
    "1.3.6.1.4.1.11129.2.4.3",  # precertificate poison
    "2.16.840.1.113730.1.1",  # Netscape certificate type
    "1.3.6.1.5.5.7.1.3",  # qcStatements
    "1.2.840.113533.7.65.0",
    "1.2.3.4",
]


@pytest.mark.spec("THREAT-02", "EST-ENROLL-06")
@pytest.mark.parametrize("critical", [False, True])
@pytest.mark.parametrize("name", NAMED_EXTENSIONS)
def test_extensions_that_are_not_issued_are_refused_by_name(name: str, critical: bool) -> None:
    values = {
        "issuerAltName": pki.sequence(pki.tlv(0x82, b"a.example")),
        "nameConstraints": pki.sequence(pki.tlv(0xA0, pki.sequence(pki.tlv(0x82, b"example")))),
        "cRLDistributionPoints": pki.sequence(pki.sequence(pki.tlv(0xA0, pki.tlv(0xA0, pki.tlv(0x86, b"http://a.example"))))),
        "certificatePolicies": pki.sequence(pki.sequence(pki.oid("2.5.29.32.0"))),
        "authorityKeyIdentifier": pki.sequence(pki.tlv(0x80, bytes(20))),
        "policyConstraints": pki.sequence(pki.tlv(0x80, b"\x00")),
        "freshestCRL": pki.sequence(pki.sequence(pki.tlv(0xA0, pki.tlv(0xA0, pki.tlv(0x86, b"http://a.example"))))),
        "inhibitAnyPolicy": b"\x02\x01\x00",
        "authorityInfoAccess": pki.sequence(pki.sequence(pki.oid("1.3.6.1.5.5.7.48.1"), pki.tlv(0x86, b"http://a.example"))),
        "subjectInfoAccess": pki.sequence(pki.sequence(pki.oid("1.3.6.1.5.5.7.48.5"), pki.tlv(0x86, b"http://a.example"))),
        "ocspNoCheck": b"\x05\x00",
        "tlsFeature": pki.sequence(b"\x02\x01\x05"),
        "privateKeyUsagePeriod": pki.sequence(pki.tlv(0x80, b"20260101000000Z")),
        "msCertificateTemplate": pki.sequence(pki.oid("1.3.6.1.4.1.311.21.8.1")),
    }
    with pytest.raises(BadCsr, match=rf"extensions that are not issued: {name}$") as refused:
        pkcs10.parse(asking(ONE, pki.extension(NAMED_EXTENSIONS[name], values.get(name, b"\x30\x00"), critical=critical)))
    assert refused.value.reason == "UnsupportedExtension"


@pytest.mark.spec("THREAT-02", "EST-ENROLL-06")
@pytest.mark.parametrize("critical", [False, True])
@pytest.mark.parametrize("dotted", OTHER_EXTENSIONS)
def test_unknown_extensions_are_refused_by_number(dotted: str, critical: bool) -> None:
    with pytest.raises(BadCsr, match=rf"extensions that are not issued: {dotted}$"):
        pkcs10.parse(asking(ONE, pki.extension(dotted, b"\x04\x00", critical=critical)))


@pytest.mark.spec("THREAT-02")
def test_all_refused_extensions_are_named_at_once() -> None:
    with pytest.raises(BadCsr, match=r"not issued: 1\.2\.3, ocspNoCheck, 1\.2\.4$"):
        pkcs10.parse(
            asking(
                pki.extension("1.2.3", b"\x05\x00"), pki.extension("1.3.6.1.5.5.7.48.1.5", b"\x05\x00"), pki.extension("1.2.4", b"\x05\x00")
            )
        )


@pytest.mark.spec("THREAT-02")
@pytest.mark.parametrize(
    ("oid", "name"),
    [
        (ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE, "anyExtendedKeyUsage"),
        (ExtendedKeyUsageOID.OCSP_SIGNING, "OCSPSigning"),
        (ExtendedKeyUsageOID.SMARTCARD_LOGON, "smartcardLogon"),
        (x509.ObjectIdentifier("1.3.6.1.5.5.7.3.27"), "cmcCA"),
        (x509.ObjectIdentifier("1.2.3.4"), "1.2.3.4"),
    ],
)
def test_extended_key_usages_that_are_not_issued_are_refused_by_name(oid: x509.ObjectIdentifier, name: str) -> None:
    with pytest.raises(BadCsr, match=f"extended key usages that are not issued: {name}$"):
        pkcs10.parse(pki.csr(ekus=[pki.CLIENT_AUTH, oid]))


@pytest.mark.spec("THREAT-02")
def test_of_key_usage_every_set_of_the_nine_bits_passes_as_der_has_it_and_no_other_bit() -> None:
    """RFC 5280 section 4.2.1.3 and X.690 section 11.2.2; the shortest octets of a named bit list are computed here from the bits."""
    for number in range(1, 1 << 10):
        bits = f"{number:010b}".rstrip("0")
        unused = -len(bits) % 8
        value = pki.tlv(0x03, bytes((unused,)) + int(bits + "0" * unused, 2).to_bytes((len(bits) + unused) // 8))
        extensions = pki.sequence(pki.extension("2.5.29.15", value, critical=bool(number % 2)))
        if len(bits) <= 9:
            extension_request.check_key_usage(extensions)
        else:
            with pytest.raises(BadCsr, match="key usage of bit 9, which RFC 5280"):
                extension_request.check_key_usage(extensions)


@pytest.mark.spec("THREAT-02", "THREAT-08")
@pytest.mark.parametrize(
    "extension",
    [
        pytest.param(pki.extension("2.5.29.37", pki.sequence()), id="an empty extendedKeyUsage (CVE-2026-40097)"),
        pytest.param(pki.extension("2.5.29.15", b"\x03\x01\x00"), id="a keyUsage without bits"),
        pytest.param(pki.extension("2.5.29.15", b"\x03\x02\x07\x00"), id="a keyUsage with zero bits"),
        pytest.param(pki.extension("2.5.29.15", b"\x03\x02\x00\x09"), id="keyAgreement and encipherOnly"),
        pytest.param(pki.extension("2.5.29.15", b"\x03\x02\x00\x01"), id="encipherOnly alone"),
        pytest.param(pki.extension("2.5.29.15", b"\x05\x00"), id="a keyUsage that is NULL"),
        pytest.param(pki.extension("2.5.29.17", pki.sequence()), id="an empty subjectAltName"),
        pytest.param(pki.extension("2.5.29.17", b""), id="a subjectAltName of no octets"),
        pytest.param(pki.extension("2.5.29.17", pki.sequence(pki.tlv(0x82, b"a.example")) + b"\x00"), id="octets after the subjectAltName"),
        pytest.param(pki.extension("2.5.29.17", pki.sequence(pki.tlv(0x82, b"\xff"))), id="a dNSName that is not IA5"),
        pytest.param(pki.extension("2.5.29.17", pki.sequence(pki.tlv(0x89, b"a"))), id="a name of an unknown kind"),
        pytest.param(pki.extension("2.5.29.17", pki.sequence(pki.tlv(0xA3, b""))), id="an x400Address"),
        pytest.param(pki.extension("2.5.29.17", pki.sequence(pki.tlv(0xA5, pki.tlv(0xA1, pki.tlv(0x0C, b"a"))))), id="an ediPartyName"),
        pytest.param(pki.extension("2.5.29.14", pki.tlv(0x04, bytes(20))), id="a subjectKeyIdentifier of somebody else's key"),
        pytest.param(pki.extension("2.5.29.14", b"\x05\x00"), id="a subjectKeyIdentifier that is NULL"),
        pytest.param(pki.extension("2.5.29.19", b"\x30\x03\x01\x01\x00"), id="CA:FALSE written out, which DER forbids"),
        pytest.param(pki.extension("2.5.29.19", b"\x30\x03\x01\x01\x01"), id="a BOOLEAN of 01"),
        pytest.param(ONE + ONE, id="the same extension twice"),
        pytest.param(b"\x05\x00", id="an extension that is NULL"),
        pytest.param(pki.sequence(pki.oid("2.5.29.17"), b"\x01\x01\x00", pki.tlv(0x04, b"")), id="critical FALSE written out"),
    ],
)
def test_malformed_extensions_are_refused(extension: bytes) -> None:
    with pytest.raises(BadCsr):
        pkcs10.parse(asking(extension))


# ---- attributes

SAN_VALUE = pki.sequence(ONE)


@pytest.mark.spec("THREAT-08")
@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        pytest.param([pki.attribute(pki.EXTENSION_REQUEST)], "not exactly one value", id="an extensionRequest without value"),
        pytest.param([pki.attribute(pki.EXTENSION_REQUEST, SAN_VALUE, pki.sequence())], "not exactly one value", id="of two values"),
        pytest.param([pki.attribute(pki.EXTENSION_REQUEST, SAN_VALUE)] * 2, "attribute twice", id="two extensionRequests"),
        pytest.param(
            [pki.attribute(pki.EXTENSION_REQUEST, SAN_VALUE), pki.attribute("1.3.6.1.4.1.311.2.1.14", SAN_VALUE)],
            "two extensionRequests",
            id="one of PKCS#9 and one of Microsoft",
        ),
        pytest.param([pki.attribute(pki.CHALLENGE_PASSWORD, pki.tlv(0x13, b"a"))] * 2, "attribute twice", id="two challengePasswords"),
        pytest.param([pki.attribute("1.2.3", b"\x05\x00")] * 2, "attribute twice", id="an unknown attribute twice"),
        pytest.param(
            [pki.attribute(f"1.2.3.{number}", b"\x05\x00") for number in range(21)], "more than 20 attributes", id="21 attributes"
        ),
    ],
)
def test_attributes_that_contradict_each_other_are_refused(attributes: list[bytes], reason: str) -> None:
    with pytest.raises(BadCsr, match=reason):
        pkcs10.parse(pki.raw_csr(*attributes))


@pytest.mark.spec("THREAT-08")
def test_attributes_out_of_order_are_refused() -> None:
    attributes = sorted([pki.attribute("1.2.3", b"\x05\x00"), pki.attribute("1.2.4", b"\x05\x00")], reverse=True)
    with pytest.raises(MalformedBody, match="a SET OF is sorted"):
        pkcs10.parse(pki.raw_csr(*attributes, ordered=False))


@pytest.mark.spec("THREAT-08")
@pytest.mark.parametrize(
    "value",
    [
        pytest.param(pki.tlv(0x30, b"\x30\x80\x00\x00"), id="indefinite length within"),
        pytest.param(pki.tlv(0x30, b"\x02\x02\x00\x01"), id="an INTEGER that is not minimal"),
        pytest.param(b"\x24\x02\x04\x00", id="a string in parts"),
        pytest.param(b"\x00\x00", id="end-of-contents"),
    ],
)
def test_unknown_attributes_are_der_nevertheless(value: bytes) -> None:
    with pytest.raises(MalformedBody):
        pkcs10.parse(pki.raw_csr(pki.attribute("1.2.3.4", value)))


# ---- bounds


@pytest.mark.spec("THREAT-08")
def test_bounds_are_exact() -> None:
    hundred = pki.dns(*(f"h{number}.example" for number in range(100)))
    assert len(pkcs10.parse(pki.csr(sans=hundred)).sans) == 100
    with pytest.raises(BadCsr, match="101 names, more than 100"):
        pkcs10.parse(pki.csr(sans=(*hundred, *pki.dns("one.example"))))

    many = [pki.extension(f"1.2.3.{number}", b"\x05\x00") for number in range(21)]
    with pytest.raises(BadCsr, match="more than 20 extensions"):
        pkcs10.parse(asking(*many))
    with pytest.raises(BadCsr, match="extensions that are not issued"):
        pkcs10.parse(asking(*many[:20]))

    def of(rdns: int) -> bytes:
        return pki.raw_csr(subject_der=pki.sequence(*(pki.rdn("2.5.4.11", b"unit %d" % number) for number in range(rdns))))

    assert len(pkcs10.parse(of(20)).subject.rdns) == 20
    with pytest.raises(BadCsr, match="more than 20 attributes"):
        pkcs10.parse(of(21))

    def sized(octets: int) -> bytes:
        filler = octets - len(pki.raw_csr(pki.attribute("1.2.3.4", pki.tlv(0x04, bytes(20_000))))) + 20_000
        return pki.raw_csr(pki.attribute("1.2.3.4", pki.tlv(0x04, bytes(filler))), signature=bytes(72))

    slack = der.MAX_CSR_OCTETS - len(sized(der.MAX_CSR_OCTETS))
    assert abs(slack) <= 2  # an ECDSA signature is 70 to 72 octets long
    with pytest.raises(BadCsr, match="signature is not valid"):
        pkcs10.parse(sized(der.MAX_CSR_OCTETS - 4))
    with pytest.raises(MalformedBody, match="octets, more than 32768"):
        pkcs10.parse(sized(der.MAX_CSR_OCTETS + 4))


@pytest.mark.spec("THREAT-08")
@pytest.mark.parametrize("where", ["attribute", "subject", "spki", "algorithm", "whole"])
def test_nesting_of_5000_is_refused_wherever_it_is(where: str) -> None:
    nested = b""
    for _ in range(5000):
        nested = pki.sequence(nested)
    hostile = {
        "attribute": lambda: pki.raw_csr(pki.attribute("1.2.3.4", nested)),
        "subject": lambda: pki.raw_csr(subject_der=nested),
        "spki": lambda: pki.raw_csr(spki=nested),
        "algorithm": lambda: pki.raw_csr(algorithm=nested),
        "whole": lambda: nested,
    }[where]()
    start = process_time()
    with pytest.raises((BadCsr, MalformedBody)):
        pkcs10.parse(hostile)
    assert process_time() - start < 0.05


# ---- the outer shape

WHOLE = pki.csr(sans=pki.dns("a.example"), usage=pki.key_usage("digital_signature"), challenge_password="abcd")


def content(value: bytes) -> bytes:
    """The content of a DER value of 256 octets or more."""
    assert value[1] == 0x82
    return value[4:]


@pytest.mark.spec("EST-ENC-06", "EST-ENC-08", "THREAT-08")
@pytest.mark.parametrize(
    ("csr_der", "reason"),
    [
        pytest.param(b"", "cut off", id="nothing"),
        pytest.param(b"\x30", "cut off", id="one octet"),
        pytest.param(WHOLE + b"\x00", "followed by 1 octets", id="a trailing octet"),
        pytest.param(WHOLE + WHOLE, "octets that do not belong", id="two CSRs"),
        pytest.param(b"\x30\x80" + WHOLE[4:] + b"\x00\x00", "indefinite", id="indefinite length"),
        pytest.param(b"\x30\x83\x00" + WHOLE[2:], "not minimal", id="a length that is not minimal"),
        pytest.param(b"\x30\x84\xff\xff\xff\xff" + WHOLE[4:], "cut off", id="a length of 4 GiB"),
        pytest.param(b"\x31" + WHOLE[1:], "tag 0x31", id="a SET"),
        pytest.param(pki.raw_csr(version=b"\x02\x01\x01"), "version is not 0", id="version 1"),
        pytest.param(pki.raw_csr(version=b"\x02\x01\xff"), "version is not 0", id="version -1"),
        pytest.param(pki.raw_csr(version=b""), "version is not 0", id="no version"),
        pytest.param(pki.raw_csr(attributes_field=b"\xa1\x00"), "tag 0xa1", id="attributes of another tag"),
        pytest.param(pki.raw_csr(attributes_field=b"\x31\x00"), "tag 0x31", id="attributes as a plain SET"),
        pytest.param(pki.raw_csr(attributes_field=b"\xa0\x00\xa0\x00"), "more than its attributes", id="attributes twice"),
        pytest.param(pki.raw_csr(attributes_field=b"\xa0\x02\x05\x00"), "tag 0x05", id="an attribute that is NULL"),
        pytest.param(pki.sequence(), "cut off", id="an empty SEQUENCE"),
        pytest.param(pki.sequence(content(WHOLE), b"\x05\x00"), "signature of whole octets", id="something after the signature"),
        pytest.param(
            pki.raw_csr(signature=bytes(72)).replace(b"\x03\x49\x00", b"\x03\x49\x01"), "signature of whole octets", id="unused bits"
        ),
        pytest.param(
            pki.raw_csr(pki.sequence(pki.oid("1.2.3.4"), pki.set_of(b"\x05\x00"), b"\x05\x00")),
            "more than a type and values",
            id="an attribute of three parts",
        ),
        pytest.param(pki.ca().der, "", id="a certificate"),
        pytest.param(b"-----BEGIN CERTIFICATE REQUEST-----", "cut off", id="PEM"),
    ],
)
def test_what_is_not_a_der_csr_is_refused_with_the_reason(csr_der: bytes, reason: str) -> None:
    with pytest.raises(MalformedBody) as refused:
        pkcs10.parse(csr_der)
    assert reason in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.spec("EST-ENC-06", "THREAT-08")
def test_every_truncation_is_refused() -> None:
    for length in range(len(WHOLE)):
        with pytest.raises(MalformedBody):
            pkcs10.parse(WHOLE[:length])


@pytest.mark.spec("THREAT-08")
def test_each_single_octet_may_hold_anything_and_only_the_original_is_accepted() -> None:
    """Every octet of a CSR is signed, or part of the signature, or of the frame: no change at all is accepted."""
    for position in range(len(WHOLE)):
        mutant = bytearray(WHOLE)
        mutant[position] ^= 1 + position % 255
        with pytest.raises((BadCsr, MalformedBody)):
            pkcs10.parse(bytes(mutant))


@pytest.mark.spec("THREAT-08")
@settings(max_examples=150)
@given(st.data())
def test_signed_mutants_of_what_is_asked_for_raise_nothing_but_the_error_tree(data: st.DataObject) -> None:
    """The mutated parts are signed, so that the parsers behind the signature meet them."""
    parts = [
        bytearray(pki.extension_request(ONE, pki.extension("2.5.29.37", pki.sequence(pki.oid("1.3.6.1.5.5.7.3.2"))))),
        bytearray(pki.sequence(pki.rdn("2.5.4.3", "dévice".encode()), pki.rdn("2.5.4.6", b"DE", 0x13))),
    ]
    for _ in range(data.draw(st.integers(1, 4))):
        part = data.draw(st.sampled_from(parts))
        part[data.draw(st.integers(0, len(part) - 1))] = data.draw(st.integers(0, 255))
    with suppress(EstError):
        pkcs10.parse(pki.raw_csr(bytes(parts[0]), subject_der=bytes(parts[1])))


@pytest.mark.spec("THREAT-08")
@settings(max_examples=150)
@given(st.binary(max_size=120))
def test_junk_in_a_signed_frame_raises_nothing_but_the_error_tree(junk: bytes) -> None:
    for csr_der in (
        pki.raw_csr(pki.attribute(pki.EXTENSION_REQUEST, junk)),
        pki.raw_csr(pki.extension_request(pki.extension("2.5.29.17", junk))),
        pki.raw_csr(subject_der=pki.sequence(pki.rdn("2.5.4.3", junk))),
        pki.raw_csr(spki=junk),
    ):
        with suppress(EstError):
            pkcs10.parse(csr_der)
