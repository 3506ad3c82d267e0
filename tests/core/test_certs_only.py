"""RFC 7030 section 4.1.3 and RFC 5272 section 4.1: the Simple PKI Response, both ways."""

from contextlib import suppress

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs7
from hypothesis import given
from hypothesis import strategies as st

from estcore import certs_only, transfer
from estcore.errors import EstError, MalformedBody
from tests import pki
from tests.core import vectors

ROOT = pki.ca()
LEAF = pki.leaf(ROOT)
SIGNED_DATA = pki.oid("1.2.840.113549.1.7.2")
DATA = pki.oid("1.2.840.113549.1.7.1")
EMPTY_CRLS = b"\xa1\x00"


def shape(  # the skeleton of RFC 5652 section 5.1, each part replaceable
    *,
    content_type: bytes = SIGNED_DATA,
    version: bytes = b"\x02\x01\x01",
    digests: bytes = b"\x31\x00",
    encapsulated: bytes | None = None,
    certificates: bytes | None = None,
    crls: bytes = b"",
    signers: bytes = b"\x31\x00",
    after_signers: bytes = b"",
    after_content: bytes = b"",
) -> bytes:
    encapsulated = pki.sequence(DATA) if encapsulated is None else encapsulated
    certificates = pki.tlv(0xA0, ROOT.der) if certificates is None else certificates
    signed = pki.sequence(version, digests, encapsulated, certificates, crls, signers, after_signers)
    return pki.sequence(content_type, pki.tlv(0xA0, signed), after_content)


@pytest.mark.spec("EST-CACERTS-03")
def test_one_certificate_is_encoded_as_the_skeleton_of_rfc_5652() -> None:
    assert certs_only.encode([ROOT.der]) == shape()


@pytest.mark.spec("EST-CACERTS-03", "EST-CACERTS-06")
@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_what_is_encoded_decodes_to_the_same_certificates(count: int) -> None:
    certificates = [pki.ca(f"CA {number}").certificate for number in range(count)]
    encoded = certs_only.encode([pki.der(certificate) for certificate in certificates])
    assert set(certs_only.decode(encoded)) == set(certificates)
    assert encoded == certs_only.encode([pki.der(certificate) for certificate in reversed(certificates)])
    assert set(pkcs7.load_der_pkcs7_certificates(encoded)) == set(certificates)


def test_a_certs_only_of_the_library_decodes() -> None:
    encoded = pkcs7.serialize_certificates([ROOT.certificate, LEAF], serialization.Encoding.DER)
    assert set(certs_only.decode(encoded)) == {ROOT.certificate, LEAF}


def test_nothing_is_not_encoded() -> None:
    with pytest.raises(ValueError, match="at least one"):
        certs_only.encode([])


@pytest.mark.spec("EST-CACERTS-03")
@pytest.mark.parametrize(
    ("name", "subjects"),
    [
        ("rfc7030-a1-cacerts-response", {"CN=estExampleCA OwO", "CN=estExampleCA NwO", "CN=estExampleCA OwN", "CN=estExampleCA NwN"}),
        ("rfc7030-a3-simpleenroll-response", {"CN=demostep4 1368141352"}),
        ("rfc7030-a4-serverkeygen-cert-part", {"CN=serverside key generated response"}),
        ("rfc9148-a1-crts-response", {"CN=Root CA,OU=Example Division,O=Example Inc,L=Example City,ST=CA,C=US"}),
        ("rfc9148-a3-skg-certs-only", {"O=skg example"}),
    ],
)
def test_published_responses_decode(name: str, subjects: set[str]) -> None:
    certificates = certs_only.decode(transfer.decode_body(vectors.body(name)))
    assert len(certificates) == len(subjects)
    names = {certificate.subject.rfc4514_string() for certificate in certificates}
    assert {subject.split(",")[0].split(" ")[0] for subject in subjects} == {found.split(",")[0].split(" ")[0] for found in names}


def test_the_crls_field_may_be_there_empty_or_not() -> None:
    assert certs_only.decode(shape(crls=EMPTY_CRLS)) == (ROOT.certificate,)
    assert certs_only.decode(shape(crls=pki.tlv(0xA1, pki.sequence()))) == (ROOT.certificate,)


@pytest.mark.spec("EST-CACERTS-03", "EST-ENC-06")
@pytest.mark.parametrize(
    ("der", "reason"),
    [
        pytest.param(b"", "empty", id="nothing"),
        pytest.param(shape() + b"\x00", "followed by 1", id="trailing octet"),
        pytest.param(shape(content_type=DATA), "not signedData", id="another content type"),
        pytest.param(shape(version=b"\x02\x01\x03"), "not of version 1", id="version 3"),
        pytest.param(shape(digests=pki.set_of(pki.sequence(pki.oid("2.16.840.1.101.3.4.2.1")))), "no digest", id="digest algorithms"),
        pytest.param(shape(encapsulated=pki.sequence(DATA, pki.tlv(0xA0, pki.tlv(0x04, b"x")))), "no content", id="content"),
        pytest.param(shape(signers=pki.set_of(pki.sequence())), "signers", id="a signer"),
        pytest.param(shape(signers=b""), "signers", id="no signers field"),
        pytest.param(shape(after_signers=b"\x05\x00"), "signers", id="something after the signers"),
        pytest.param(shape(after_content=b"\x05\x00"), "more than signedData", id="something after the content"),
        pytest.param(shape(certificates=pki.tlv(0xA0)), "no certificate", id="an empty bag"),
        pytest.param(shape(certificates=b""), "certificates of certs-only", id="no bag"),
        pytest.param(shape(certificates=pki.tlv(0xA0, pki.sequence())), "cannot be parsed", id="an empty SEQUENCE for a certificate"),
        pytest.param(shape(certificates=pki.tlv(0xA0, pki.tlv(0xA2, b""))), "tag 0xa2", id="an attribute certificate"),
        pytest.param(shape(certificates=pki.tlv(0xA0, ROOT.der * 65)), "more than 64", id="65 certificates"),
        pytest.param(shape(certificates=pki.tlv(0xA0, bytes(300_000))), "more than 262144", id="300 kB"),
        pytest.param(ROOT.der, "not signedData", id="a bare certificate"),
        pytest.param(ROOT.pem, "certs-only", id="PEM"),
    ],
)
def test_what_is_not_certs_only_is_refused_with_the_reason(der: bytes, reason: str) -> None:
    with pytest.raises(MalformedBody, match=reason):
        certs_only.decode(der)


def test_every_truncation_is_refused() -> None:
    whole = shape()
    for length in range(len(whole)):
        with pytest.raises(MalformedBody):
            certs_only.decode(whole[:length])


@pytest.mark.spec("THREAT-08")
@given(st.data())
def test_mutants_raise_nothing_but_the_error_tree(data: st.DataObject) -> None:
    octets = bytearray(shape(crls=EMPTY_CRLS))
    for _ in range(data.draw(st.integers(1, 3))):
        octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    with suppress(EstError):
        certs_only.decode(bytes(octets))
