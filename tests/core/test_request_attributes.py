"""The attributes of a CSR that mean something: each is read whole, or refused by name."""

import hashlib
from collections.abc import Sequence

import pytest
from cryptography import x509

from estcore import pkcs10
from estcore.certification_request import CertificationRequest
from estcore.errors import BadCsr, EstError
from tests import pki

DIRECTORY_STRINGS = [(0x0C, "utf-8"), (0x13, "ascii"), (0x14, "latin-1"), (0x1C, "utf-32-be"), (0x1E, "utf-16-be")]
TEXTS = [
    ("1.2.840.113549.1.9.7", "challenge_password"),
    ("1.2.840.113549.1.9.16.2.56", "one_time_password"),
    ("1.2.840.113549.1.9.16.2.57", "revocation_challenge"),
    ("1.2.840.113549.1.9.16.2.58", "identity_linking"),
]
OCTETS = [
    ("1.2.840.113549.1.9.16.2.37", "decrypt_key_id", 255),
    ("1.2.840.113549.1.9.16.2.54", "asymmetric_decrypt_key_id", 255),
    ("1.3.6.1.5.5.7.7.23", "pop_link_witness", 64),
]
CHANGE = "1.3.6.1.5.5.7.7.36"
NEW_NAME = pki.name("device-2")
GENERAL_NAMES = pki.sequence(pki.tlv(0x82, b"a.example"), pki.tlv(0x86, b"urn:a"), pki.tlv(0x87, bytes((192, 0, 2, 1))))


def parsed(*attributes_der: bytes) -> CertificationRequest:
    return pkcs10.parse(pki.raw_csr(*attributes_der))


@pytest.mark.spec("EST-POP-08", "EST-POP-17", "EST-POP-18")
@pytest.mark.parametrize(("dotted", "member"), TEXTS)
@pytest.mark.parametrize(("string_type", "encoding"), DIRECTORY_STRINGS)
def test_a_text_is_read_from_every_string_type_and_shown_as_an_attribute(dotted: str, member: str, string_type: int, encoding: str) -> None:
    csr = parsed(pki.attribute(dotted, pki.tlv(string_type, "+rrCir/7".encode(encoding))))
    assert getattr(csr, member) == "+rrCir/7"
    assert csr.attribute_types == {pki.oid(dotted)}


@pytest.mark.parametrize(("dotted", "member"), TEXTS)
@pytest.mark.parametrize(
    "values",
    [
        pytest.param([], id="no value"),
        pytest.param([pki.tlv(0x0C, b"a"), pki.tlv(0x0C, b"b")], id="two values"),
        pytest.param([pki.tlv(0x0C, b"")], id="empty"),
        pytest.param([pki.tlv(0x0C, b"a" * 256)], id="256 characters"),
        pytest.param([pki.tlv(0x0C, b"\xff")], id="not UTF-8"),
        pytest.param([pki.tlv(0x04, b"a")], id="octets"),
    ],
)
def test_a_text_of_another_shape_is_refused(dotted: str, member: str, values: Sequence[bytes]) -> None:
    with pytest.raises(BadCsr):
        parsed(pki.attribute(dotted, *values))


def test_secrets_of_a_request_are_not_in_its_repr() -> None:
    csr = parsed(*(pki.attribute(dotted, pki.tlv(0x13, b"canary-4711")) for dotted, member in TEXTS if member != "challenge_password"))
    assert csr.one_time_password == csr.revocation_challenge == "canary-4711"
    assert repr(csr).count("canary-4711") == 1  # estIdentityLinking is no secret


@pytest.mark.spec("EST-SKG-04")
@pytest.mark.parametrize(("dotted", "member", "most"), OCTETS)
def test_octets_are_read_up_to_their_bound(dotted: str, member: str, most: int) -> None:
    assert getattr(parsed(pki.attribute(dotted, pki.tlv(0x04, b"k" * most))), member) == b"k" * most
    for wrong in (pki.tlv(0x04, b""), pki.tlv(0x04, b"k" * (most + 1)), pki.tlv(0x0C, b"k")):
        with pytest.raises(EstError):
            parsed(pki.attribute(dotted, wrong))


@pytest.mark.spec("EST-SKG-04")
def test_capabilities_and_witnesses_are_kept_as_der() -> None:
    capabilities = pki.sequence(pki.sequence(pki.oid("2.16.840.1.101.3.4.1.45")))
    csr = parsed(pki.attribute("1.2.840.113549.1.9.15", capabilities), pki.attribute("1.3.6.1.5.5.7.7.33", pki.sequence()))
    assert (csr.smime_capabilities_der, csr.pop_link_witness_v2_der) == (capabilities, pki.sequence())


@pytest.mark.spec("EST-ENROLL-08", "EST-ENROLL-09")
@pytest.mark.parametrize(
    ("value", "subject", "sans"),
    [
        (pki.sequence(NEW_NAME.public_bytes(), GENERAL_NAMES), NEW_NAME, 3),
        (pki.sequence(NEW_NAME.public_bytes()), NEW_NAME, 0),
        (pki.sequence(GENERAL_NAMES), x509.Name([]), 3),
        (pki.sequence(pki.sequence(), GENERAL_NAMES), x509.Name([]), 3),
    ],
)
def test_what_change_subject_name_leaves_out_is_removed(value: bytes, subject: x509.Name, sans: int) -> None:
    """RFC 6402 section 2.8: an absent subject makes it empty, an absent subjectAlt removes the extension."""
    change = parsed(pki.attribute(CHANGE, value)).name_change
    assert change is not None
    assert change.subject == subject
    assert len(change.sans) == sans


@pytest.mark.spec("EST-ENROLL-09")
@pytest.mark.parametrize(
    "value",
    [
        pytest.param(pki.sequence(), id="empty"),
        pytest.param(pki.sequence(GENERAL_NAMES, NEW_NAME.public_bytes()), id="the wrong way round"),
        pytest.param(pki.sequence(NEW_NAME.public_bytes(), NEW_NAME.public_bytes()), id="two subjects"),
        pytest.param(pki.sequence(GENERAL_NAMES, GENERAL_NAMES), id="two subjectAlts"),
        pytest.param(pki.sequence(pki.sequence(pki.tlv(0xA4, NEW_NAME.public_bytes()))), id="a directoryName"),
        pytest.param(pki.sequence(pki.sequence(pki.tlv(0x82, b"a_b"))), id="a name that is none"),
        pytest.param(pki.sequence(pki.sequence(pki.tlv(0x82, b"\xff"))), id="a dNSName that is not ASCII"),
        pytest.param(pki.sequence(pki.sequence(pki.tlv(0x87, b"abc"))), id="an address of three octets"),
        pytest.param(pki.sequence(pki.sequence(*[pki.tlv(0x82, b"a.example")] * 101)), id="101 names"),
        pytest.param(pki.tlv(0x04, b"a"), id="octets"),
        pytest.param(pki.sequence(NEW_NAME.public_bytes() + b"\x00"), id="a stray octet"),
    ],
)
def test_a_change_subject_name_of_another_shape_is_refused(value: bytes) -> None:
    with pytest.raises(EstError):
        parsed(pki.attribute(CHANGE, value))


X25519_SPKI = bytes.fromhex("302a300506032b656e032100") + bytes(range(32))


@pytest.mark.spec("EST-SKG-03")
def test_for_another_key_neither_signature_nor_key_of_the_csr_is_looked_at() -> None:
    given = pki.key(owner="server").public_key()
    csr_der = pki.raw_csr(pki.attribute(TEXTS[0][0], pki.tlv(0x13, b"a")), spki=X25519_SPKI, signature=b"nonsense")
    with pytest.raises(BadCsr):
        pkcs10.parse(csr_der)
    csr = pkcs10.parse_for_key(csr_der, given)
    assert (csr.public_key, csr.spki_der, csr.challenge_password) == (given, pki.spki_der(given), "a")


NO_SIGNATURE = pki.sequence(pki.oid("1.3.6.1.5.5.7.6.2"), b"\x05\x00")


@pytest.mark.spec("EST-CMC-25")
@pytest.mark.parametrize("digest", ["sha256", "sha1"])
def test_no_signature_is_accepted_only_where_it_is_asked_for_and_proves_nothing(digest: str) -> None:
    signed = pki.raw_csr()
    info = x509.load_der_x509_csr(signed).tbs_certrequest_bytes
    csr_der = pki.sequence(info, NO_SIGNATURE, pki.tlv(0x03, b"\x00", hashlib.new(digest, info).digest()))
    assert pkcs10.parse(csr_der, accept_no_signature=True).proven is False
    assert pkcs10.parse(signed, accept_no_signature=True).proven is True
    with pytest.raises(BadCsr):
        pkcs10.parse(csr_der)
    damaged = pki.sequence(info, NO_SIGNATURE, pki.tlv(0x03, b"\x00", bytes(32)))
    with pytest.raises(BadCsr, match="noSignature"):
        pkcs10.parse(damaged, accept_no_signature=True)
