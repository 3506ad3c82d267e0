"""CRMF as RFC 5272 and RFC 5274 narrow it: the same request as from PKCS#10 (EST-CMC-14), and each forbidden item refused by name."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Unpack

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st
from pyasn1.codec.der.decoder import decode
from pyasn1.codec.der.encoder import encode
from pyasn1_alt_modules import rfc4211, rfc6402

from estcore import cert_template, crmf, pkcs10
from estcore.certification_request import CertificationRequest
from estcore.errors import BadCsr, CmcFailed, CmcFailInfo, EstError, MalformedBody
from estcore.issuer_spec import KeyAlgorithm
from estcore.usages import Usage
from tests import pki
from tests.core.template_fields import TemplateFields

NOW = pki.EPOCH
SUBJECT = pki.name("device-1", organization_name="Acme")
SANS = (x509.DNSName("a.example"), x509.UniformResourceIdentifier("urn:device:1"))
ID = 4_000_000_000

EXTENSIONS = (
    x509.Extension(x509.SubjectAlternativeName.oid, False, x509.SubjectAlternativeName(SANS)),
    x509.Extension(x509.KeyUsage.oid, True, pki.key_usage("digital_signature")),
    x509.Extension(x509.ExtendedKeyUsage.oid, False, x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])),
)


def template(*, algorithm: KeyAlgorithm = KeyAlgorithm.ECDSA_P256, **fields: Unpack[TemplateFields]) -> bytes:
    usual: TemplateFields = {"subject": SUBJECT, "spki_der": pki.spki_der(pki.key(algorithm).public_key())}
    return cert_template.build(extensions=EXTENSIONS, **(usual | fields))


def message(
    template_der: bytes | None = None, *, algorithm: KeyAlgorithm = KeyAlgorithm.ECDSA_P256, controls: Mapping[str, bytes] | None = None
) -> bytes:
    return crmf.build(pki.key(algorithm), template_der or template(algorithm=algorithm), cert_req_id=ID, controls=controls)


def parsed(der_message: bytes, *, now: datetime = NOW) -> CertificationRequest:
    return crmf.parse(der_message, now=now).request


# ---- by hand, for what no builder writes

TEMPLATE_FIELDS = {
    "subject": pki.tlv(0xA5, SUBJECT.public_bytes()),
    "publicKey": b"\xa6" + pki.spki_der(pki.key().public_key())[1:],
}


def raw(
    *,
    cert_req_id: bytes = b"\x02\x01\x01",
    fields: bytes = b"".join(TEMPLATE_FIELDS.values()),
    controls: bytes = b"",
    proof: bytes | Callable[[bytes], bytes] | None = None,
    reg_info: bytes = b"",
) -> bytes:
    """A CertReqMsg of given parts, its POP signature over whatever the CertRequest is unless a proof is given."""
    cert_request = pki.sequence(cert_req_id, pki.sequence(fields), controls)
    if callable(proof):
        proof = proof(cert_request)
    return pki.sequence(cert_request, signed(cert_request) if proof is None else proof, reg_info)


def signed(octets: bytes, *, before: bytes = b"", unused_bits: bytes = b"\x00") -> bytes:
    key = pki.key()
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    signature = key.sign(octets, ec.ECDSA(hashes.SHA256()))
    return pki.tlv(0xA1, before, pki.ECDSA_WITH_SHA256, pki.tlv(0x03, unused_bits, signature))


def control(dotted: str, value: bytes) -> bytes:
    return pki.sequence(pki.sequence(pki.oid(dotted), value))


def refusal(der_message: bytes, *, now: datetime = NOW) -> CmcFailed:
    with pytest.raises(CmcFailed) as raised:
        crmf.parse(der_message, now=now)
    assert "\n" not in raised.value.message
    return raised.value


POP_LINK_WITNESS = pki.sequence(pki.oid("1.3.6.1.5.5.7.7.23"), pki.tlv(0x04, b"w"))


# ---- what is accepted


@pytest.mark.spec("EST-CMC-14", "EST-CMC-11")
@pytest.mark.parametrize("algorithm", pki.ALL_ALGORITHMS)
def test_a_request_gives_what_the_same_pkcs10_csr_gives(algorithm: KeyAlgorithm) -> None:
    key = pki.key(algorithm)
    msg = crmf.parse(message(algorithm=algorithm), now=NOW)
    usual = pkcs10.parse(
        pki.csr(key, subject=SUBJECT, sans=SANS, usage=pki.key_usage("digital_signature"), ekus=[ExtendedKeyUsageOID.CLIENT_AUTH])
    )
    assert msg.cert_req_id == ID
    for field in ("spki_der", "key_algorithm", "subject", "subject_der", "sans", "usages", "ca", "cmc_ra", "proven", "duration"):
        assert getattr(msg.request, field) == getattr(usual, field), field
    assert msg.request.csr_der == message(algorithm=algorithm)[:0] + msg.request.csr_der
    assert msg.request.proven


@pytest.mark.spec("EST-CMC-14")
def test_the_asn1_module_reads_what_is_built_and_writes_it_back() -> None:
    whole = message(template(not_before=NOW, not_after=datetime(2055, 1, 1, tzinfo=NOW.tzinfo)))
    decoded, rest = decode(whole, asn1Spec=rfc4211.CertReqMsg())
    assert rest == b""
    assert int(decoded["certReq"]["certReqId"]) == ID
    assert decoded["popo"].getName() == "signature"
    assert encode(decoded) == whole


@pytest.mark.spec("EST-CMC-14")
def test_the_signature_covers_the_der_of_cert_req() -> None:
    """Verified from the ASN.1 module's reading of the message, with the library alone."""
    decoded, _ = decode(raw(), asn1Spec=rfc4211.CertReqMsg())
    key = pki.key().public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    key.verify(decoded["popo"]["signature"]["signature"].asOctets(), encode(decoded["certReq"]), ec.ECDSA(hashes.SHA256()))


@pytest.mark.spec("EST-CMC-14")
def test_a_request_within_a_tagged_request_is_read_as_it_stands_there() -> None:
    """TaggedRequest.crm is [1] IMPLICIT CertReqMsg, as the ASN.1 module of RFC 6402 writes it."""
    whole = message()
    decoded, _ = decode(whole, asn1Spec=rfc4211.CertReqMsg())
    tagged = rfc6402.TaggedRequest()
    tagged["crm"]["certReq"] = decoded["certReq"]
    tagged["crm"]["popo"] = decoded["popo"]
    octets = encode(tagged)
    assert octets[0] == 0xA1
    assert crmf.parse(octets, now=NOW) == crmf.parse(whole, now=NOW)
    assert parsed(octets).csr_der == whole


@pytest.mark.spec("EST-CMC-14")
def test_an_empty_subject_is_a_subject() -> None:
    request = parsed(message(template(subject=x509.Name([]))))
    assert request.subject == x509.Name([])
    assert request.subject_der == b"\x30\x00"


@pytest.mark.spec("EST-CMC-14")
def test_a_validity_asks_for_a_life() -> None:
    hour = timedelta(hours=1)
    assert parsed(message(template(not_before=NOW, not_after=NOW + 3 * hour))).duration == 3 * hour
    assert parsed(message(template(not_after=NOW + hour))).duration == hour
    assert parsed(message(template(not_before=NOW + timedelta(minutes=4), not_after=NOW + hour))).duration == timedelta(minutes=56)
    assert parsed(message(template(not_before=NOW))).duration is None
    assert parsed(message()).duration is None


@pytest.mark.spec("EST-CMC-14")
def test_an_end_alone_is_the_same_end_however_late_it_is_asked_for() -> None:
    end = NOW + timedelta(hours=1)
    assert parsed(message(template(not_after=end))).ends_at == end
    for other in (template(not_before=NOW, not_after=end), template(not_before=NOW), template()):
        assert parsed(message(other)).ends_at is None, "that is as long whenever it begins"


@pytest.mark.spec("EST-CMC-14")
@pytest.mark.parametrize(
    ("not_before", "not_after", "fail_info"),
    [
        pytest.param(NOW + timedelta(minutes=6), NOW + timedelta(days=1), CmcFailInfo.BAD_TIME, id="a beginning to come"),
        pytest.param(NOW - timedelta(minutes=6), NOW + timedelta(days=1), CmcFailInfo.BAD_TIME, id="a beginning long ago"),
        pytest.param(None, NOW, CmcFailInfo.BAD_REQUEST, id="an end now"),
        pytest.param(NOW, NOW - timedelta(seconds=1), CmcFailInfo.BAD_REQUEST, id="an end before the beginning"),
    ],
)
def test_a_validity_that_cannot_be_honoured_is_refused(not_before: datetime | None, not_after: datetime, fail_info: CmcFailInfo) -> None:
    assert refusal(message(template(not_before=not_before, not_after=not_after))).fail_info is fail_info


@pytest.mark.spec("EST-CMC-22")
def test_pop_link_witnesses_are_controls() -> None:
    value = pki.sequence(pki.sequence(pki.oid("1.2.3")), pki.sequence(pki.oid("1.2.4")), pki.tlv(0x04, b"w"))
    request = parsed(message(controls={"1.3.6.1.5.5.7.7.33": value, "1.3.6.1.5.5.7.7.23": pki.tlv(0x04, b"old")}))
    assert request.pop_link_witness_v2_der == value
    assert request.pop_link_witness == b"old"


@pytest.mark.spec("EST-POP-17", "EST-POP-18")
def test_rfc_7894_attributes_and_channel_binding_are_controls_too() -> None:
    text = pki.tlv(0x13, b"90503846")
    numbers = {
        "1.2.840.113549.1.9.16.2.56": "one_time_password",
        "1.2.840.113549.1.9.16.2.57": "revocation_challenge",
        "1.2.840.113549.1.9.16.2.58": "identity_linking",
        "1.2.840.113549.1.9.7": "challenge_password",
    }
    request = parsed(message(controls=dict.fromkeys(numbers, text)))
    assert {name: getattr(request, name) for name in numbers.values()} == dict.fromkeys(numbers.values(), "90503846")


# ---- proof-of-possession


@pytest.mark.spec("EST-CMC-14", "EST-CMC-24", "EST-CMC-25")
@pytest.mark.parametrize(
    "proof",
    [
        pytest.param(b"", id="no popo"),
        pytest.param(pki.tlv(0xA2, b"\x81\x01\x01"), id="keyEncipherment, challengeResp"),
        pytest.param(pki.tlv(0xA3, b"\x81\x01\x01"), id="keyAgreement, challengeResp"),
    ],
)
def test_a_request_without_signature_is_not_proven_and_waits_for_a_challenge(proof: bytes) -> None:
    assert not parsed(raw(proof=proof)).proven


@pytest.mark.spec("EST-CMC-24")
@pytest.mark.parametrize(("key_agreement", "kind"), [(False, "keyEncipherment"), (True, "keyAgreement")])
def test_a_request_built_without_a_key_to_sign_asks_for_a_challenge(key_agreement: bool, kind: str) -> None:
    whole = crmf.build(None, template(), cert_req_id=1, key_agreement=key_agreement)
    decoded, _ = decode(whole, asn1Spec=rfc4211.CertReqMsg())
    assert decoded["popo"].getName() == kind
    assert int(decoded["popo"][kind]["subsequentMessage"]) == 1  # challengeResp
    assert encode(decoded) == whole
    assert not parsed(whole).proven


@pytest.mark.spec("EST-CMC-14")
@pytest.mark.parametrize("algorithm", pki.ALL_ALGORITHMS)
def test_a_request_for_a_bare_key_asks_for_nothing_else_and_proves_nothing(algorithm: KeyAlgorithm) -> None:
    spki = pki.spki_der(pki.key(algorithm).public_key())
    made = crmf.for_public_key(spki, cert_req_id=ID)
    assert crmf.parse(made.csr_der, now=NOW).cert_req_id == ID
    assert parsed(made.csr_der) == made
    assert (made.key_algorithm, made.spki_der, made.proven) == (algorithm, spki, False)
    assert (made.subject.rdns, made.sans, made.usages, made.duration) == ([], (), None, None)
    decoded, _ = decode(made.csr_der, asn1Spec=rfc4211.CertReqMsg())
    assert not decoded["popo"].isValue
    assert encode(decoded["certReq"]["certTemplate"]["publicKey"])[1:] == spki[1:]


@pytest.mark.spec("THREAT-06")
def test_a_bare_key_is_checked_as_a_csrs_is() -> None:
    spki = pki.spki_der(pki.key().public_key())
    for octets in (b"", spki + b"\0", spki[:-1], b"\x04\x82\x20\x00" + bytes(8192)):
        with pytest.raises(MalformedBody, match="the public key"):
            crmf.for_public_key(octets, cert_req_id=ID)
    compressed = pki.key().public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    for octets in (pki.spki_der(pki.curve_key(ec.SECP256K1).public_key()), pki.sequence(spki[2:23], pki.tlv(0x03, b"\0", compressed))):
        with pytest.raises(BadCsr) as raised:
            crmf.for_public_key(octets, cert_req_id=ID)
        assert raised.value.reason == "KeyNotAllowed"


@pytest.mark.spec("EST-CMC-14", "THREAT-07", "THREAT-17")
@pytest.mark.parametrize(
    ("proof", "fail_info", "text"),
    [
        pytest.param(b"\x80\x00", CmcFailInfo.POP_FAILED, "raVerified", id="raVerified"),
        pytest.param(lambda octets: signed(octets, before=pki.tlv(0xA0)), CmcFailInfo.BAD_REQUEST, "poposkInput", id="poposkInput"),
        pytest.param(pki.tlv(0xA2, b"\x81\x01\x00"), CmcFailInfo.BAD_REQUEST, "encrCert", id="encrCert"),
        pytest.param(pki.tlv(0xA2, b"\x81\x01\x02"), CmcFailInfo.BAD_REQUEST, "encrCert", id="a subsequentMessage that does not exist"),
        pytest.param(pki.tlv(0xA2, b"\x80\x02\x00\x00"), CmcFailInfo.POP_REQUIRED, "thisMessage", id="thisMessage"),
        pytest.param(pki.tlv(0xA3, b"\x82\x02\x00\x00"), CmcFailInfo.POP_REQUIRED, "dhMAC", id="dhMAC"),
        pytest.param(pki.tlv(0xA3, pki.tlv(0xA3)), CmcFailInfo.POP_REQUIRED, "agreeMAC", id="agreeMAC"),
        pytest.param(pki.tlv(0xA2, pki.tlv(0xA4)), CmcFailInfo.POP_REQUIRED, "encryptedKey", id="encryptedKey"),
    ],
)
def test_other_proofs_are_refused_by_name(proof: bytes | Callable[[bytes], bytes], fail_info: CmcFailInfo, text: str) -> None:
    failed = refusal(raw(proof=proof))
    assert failed.fail_info is fail_info
    assert text in failed.message


@pytest.mark.spec("EST-CMC-14", "EST-POP-01", "THREAT-07")
@pytest.mark.parametrize(
    "proof",
    [
        pytest.param(lambda octets: signed(octets[2:]), id="over the content of the CertRequest"),
        pytest.param(lambda octets: signed(pki.sequence(b"".join(TEMPLATE_FIELDS.values()))), id="over the certTemplate"),
        pytest.param(lambda octets: signed(b"\xa1" + octets[1:]), id="over the CertRequest under another tag"),
        pytest.param(lambda octets: signed(octets)[:-1] + bytes((signed(octets)[-1] ^ 1,)), id="damaged"),
    ],
)
def test_a_signature_over_anything_but_cert_req_is_refused(proof: Callable[[bytes], bytes]) -> None:
    with pytest.raises((BadCsr, MalformedBody)):
        crmf.parse(raw(proof=proof), now=NOW)


@pytest.mark.spec("EST-CMC-14", "THREAT-08")
@pytest.mark.parametrize(
    "proof",
    [
        pytest.param(pki.tlv(0xA2), id="an empty keyEncipherment"),
        pytest.param(pki.tlv(0xA2, b"\x81\x01\x01", b"\x81\x01\x01"), id="two choices"),
        pytest.param(pki.tlv(0xA2, b"\x85\x00"), id="a choice that does not exist"),
        pytest.param(pki.tlv(0xA1), id="an empty signature"),
        pytest.param(lambda octets: signed(octets, unused_bits=b"\x04"), id="a signature of half an octet"),
        pytest.param(pki.tlv(0xA4), id="a fifth kind of proof"),
        pytest.param(lambda octets: signed(octets) * 2, id="two proofs"),
    ],
)
def test_proofs_of_no_shape_are_malformed(proof: bytes | Callable[[bytes], bytes]) -> None:
    with pytest.raises(MalformedBody):
        crmf.parse(raw(proof=proof), now=NOW)


# ---- what may not be there


def test_the_hand_made_request_of_this_module_is_good() -> None:
    assert parsed(raw()).proven


@pytest.mark.spec("EST-CMC-14", "THREAT-17")
@pytest.mark.parametrize(
    ("parts", "text"),
    [
        pytest.param({"reg_info": control("1.3.6.1.5.5.7.5.2.1", b"\x0c\x00")}, "regInfo", id="regInfo"),
        pytest.param({"controls": control("1.3.6.1.5.5.7.5.1.1", b"\x0c\x00")}, "regToken", id="regToken"),
        pytest.param({"controls": control("1.3.6.1.5.5.7.5.1.2", b"\x0c\x00")}, "authenticator", id="authenticator"),
        pytest.param({"controls": control("1.3.6.1.5.5.7.5.1.3", pki.sequence())}, "pkiPublicationInfo", id="pkiPublicationInfo"),
        pytest.param({"controls": control("1.3.6.1.5.5.7.5.1.4", pki.tlv(0xA0))}, "pkiArchiveOptions", id="pkiArchiveOptions"),
        pytest.param({"controls": control("1.3.6.1.5.5.7.5.1.5", pki.sequence())}, "oldCertID", id="oldCertID"),
        pytest.param({"controls": control("1.3.6.1.5.5.7.5.1.6", pki.sequence())}, "protocolEncrKey", id="protocolEncrKey"),
        pytest.param({"controls": control("1.2.3.4", b"\x05\x00")}, "1.2.3.4", id="an unknown control"),
        pytest.param({"controls": control("1.2.840.113549.1.9.14", pki.sequence())}, "1.2.840.113549.1.9.14", id="extensionRequest"),
        pytest.param(
            {"controls": pki.sequence(*[pki.sequence(pki.oid("1.3.6.1.5.5.7.7.23"), pki.tlv(0x04, b"w"))] * 2)},
            "twice",
            id="a control twice",
        ),
        pytest.param({"cert_req_id": b"\x02\x01\x00"}, "certReqId", id="certReqId 0"),
        pytest.param({"cert_req_id": b"\x02\x01\xff"}, "certReqId", id="certReqId -1"),
        pytest.param({"cert_req_id": b"\x02\x05\x01\x00\x00\x00\x00"}, "certReqId", id="certReqId 2^32"),
        pytest.param({"fields": TEMPLATE_FIELDS["subject"]}, "publicKey", id="no public key"),
        pytest.param({"fields": TEMPLATE_FIELDS["publicKey"]}, "subject", id="no subject"),
        pytest.param({"fields": b"\x80\x01\x01" + b"".join(TEMPLATE_FIELDS.values())}, "version", id="version 2"),
        pytest.param({"fields": b"\x81\x01\x01" + b"".join(TEMPLATE_FIELDS.values())}, "serialNumber", id="serialNumber"),
        pytest.param({"fields": b"\xa2" + pki.ECDSA_WITH_SHA256[1:] + b"".join(TEMPLATE_FIELDS.values())}, "signingAlg", id="signingAlg"),
        pytest.param({"fields": b"".join(TEMPLATE_FIELDS.values()) + b"\x87\x02\x00\x01"}, "issuerUID", id="issuerUID"),
        pytest.param({"fields": b"".join(TEMPLATE_FIELDS.values()) + b"\x88\x02\x00\x01"}, "subjectUID", id="subjectUID"),
        pytest.param({"fields": pki.tlv(0xA4) + b"".join(TEMPLATE_FIELDS.values())}, "validity", id="an empty validity"),
    ],
)
def test_what_may_not_be_there_is_a_bad_request_that_names_it(parts: dict[str, bytes], text: str) -> None:
    failed = refusal(raw(**parts))
    assert failed.fail_info is CmcFailInfo.BAD_REQUEST
    assert text in failed.message


@pytest.mark.spec("EST-CMC-14")
def test_a_version_that_says_3_is_harmless() -> None:
    assert parsed(raw(fields=b"\x80\x01\x02" + b"".join(TEMPLATE_FIELDS.values()))).proven


@pytest.mark.spec("EST-CMC-14")
def test_a_template_that_names_another_issuer_is_refused() -> None:
    issuer = pki.name("Factory CA")
    msg = crmf.parse(raw(fields=pki.tlv(0xA3, issuer.public_bytes()) + b"".join(TEMPLATE_FIELDS.values())), now=NOW)
    assert msg.template.issuer == issuer
    cert_template.check_issuer(msg.template, same=True)
    with pytest.raises(CmcFailed, match="issuer"):
        cert_template.check_issuer(msg.template, same=False)
    cert_template.check_issuer(crmf.parse(raw(), now=NOW).template, same=False)


# ---- names, keys and extensions: the checks of PKCS#10


def with_extensions(*extensions: bytes) -> bytes:
    return raw(fields=b"".join(TEMPLATE_FIELDS.values()) + pki.tlv(0xA9, *extensions))


@pytest.mark.spec("EST-CMC-14", "THREAT-01", "THREAT-02", "THREAT-03", "THREAT-05")
@pytest.mark.parametrize(
    "extension",
    [
        pytest.param(pki.extension("2.5.29.19", pki.sequence(b"\x01\x01\xff")), id="CA:TRUE"),
        pytest.param(pki.extension("2.5.29.15", b"\x03\x02\x02\x04"), id="keyCertSign"),
        pytest.param(pki.extension("2.5.29.15", b"\x03\x03\x06\x80\x40"), id="a key usage that RFC 5280 has not"),
        pytest.param(pki.extension("2.5.29.15", b"\x03\x02\x00\x80"), id="a key usage with trailing zero bits"),
        pytest.param(pki.extension("2.5.29.37", pki.sequence(pki.oid("2.5.29.37.0"))), id="anyExtendedKeyUsage"),
        pytest.param(pki.extension("2.5.29.37", pki.sequence()), id="an empty extendedKeyUsage"),
        pytest.param(pki.extension("2.5.29.30", pki.sequence(pki.tlv(0xA0, pki.sequence(pki.tlv(0x82, b"x"))))), id="nameConstraints"),
        pytest.param(pki.extension("1.2.3.4", b"\x05\x00"), id="an unknown extension"),
        pytest.param(pki.extension("2.5.29.17", pki.sequence(pki.tlv(0x82, b"*.com"))), id="a wildcard over a TLD"),
        pytest.param(pki.extension("2.5.29.17", pki.sequence(pki.tlv(0x82, b"a\x00.example"))), id="a NUL in a name"),
        pytest.param(pki.extension("2.5.29.17", pki.sequence()), id="an empty subjectAltName"),
        pytest.param(pki.extension("2.5.29.14", pki.tlv(0x04, bytes(20))), id="a subjectKeyIdentifier of another key"),
        pytest.param(pki.extension("2.5.29.17", pki.sequence(pki.tlv(0x82, b"a.example"))) * 2, id="an extension twice"),
        pytest.param(pki.sequence(pki.oid("2.5.29.17")), id="an extension without value"),
    ],
)
def test_extensions_that_a_csr_may_not_have_are_refused(extension: bytes) -> None:
    with pytest.raises(BadCsr):
        crmf.parse(with_extensions(extension), now=NOW)


@pytest.mark.spec("EST-CMC-14", "EST-ENROLL-10", "THREAT-06")
@pytest.mark.parametrize(
    "spki",
    [
        pytest.param(pki.spki_der(pki.rsa_key(1024).public_key()), id="RSA-1024"),
        pytest.param(pki.spki_der(pki.curve_key(ec.SECP224R1).public_key()), id="P-224"),
        pytest.param(pki.sequence(pki.sequence(pki.oid("1.3.101.110")), pki.tlv(0x03, bytes(33))), id="X25519"),
        pytest.param(pki.sequence(pki.sequence(pki.oid("1.2.3")), b"\x03\x01\x00"), id="an unknown key"),
    ],
)
def test_keys_that_a_csr_may_not_have_are_refused(spki: bytes) -> None:
    with pytest.raises(BadCsr):
        crmf.parse(raw(fields=TEMPLATE_FIELDS["subject"] + b"\xa6" + spki[1:], proof=b""), now=NOW)


@pytest.mark.spec("EST-CMC-14", "THREAT-04")
def test_names_that_a_csr_may_not_have_are_refused() -> None:
    for rdn in (pki.rdn("2.5.4.3", b"a\x00b"), pki.rdn("2.5.4.3", b"a") * 2, pki.rdn("2.5.4.99", b"a"), pki.rdn("2.5.4.3", b"a", 0x14)):
        with pytest.raises(BadCsr, match="subject"):
            crmf.parse(raw(fields=pki.tlv(0xA5, pki.sequence(rdn)) + TEMPLATE_FIELDS["publicKey"]), now=NOW)


@pytest.mark.spec("THREAT-02")
def test_usages_are_read_as_from_a_csr() -> None:
    assert parsed(message()).usages == frozenset({Usage.DIGITAL_SIGNATURE, Usage.CLIENT_AUTH})
    assert parsed(raw()).usages is None


# ---- hostile octets


@pytest.mark.spec("THREAT-08")
def test_a_request_cut_off_anywhere_is_malformed() -> None:
    whole = message()
    for end in range(len(whole)):
        with pytest.raises(MalformedBody):
            crmf.parse(whole[:end], now=NOW)
    with pytest.raises(MalformedBody):
        crmf.parse(whole + b"\x00", now=NOW)


@pytest.mark.spec("THREAT-07", "THREAT-08")
def test_every_flipped_bit_is_noticed() -> None:
    """The signature covers all of the CertRequest, and the signature's own octets are no other signature."""
    whole = message()
    for position in range(len(whole)):
        changed = bytearray(whole)
        changed[position] ^= 1
        try:
            request = parsed(bytes(changed))
        except EstError:
            continue
        # The first octet is the tag that may be [1] as well; all else counts.
        assert position == 0 or not request.proven, position


@pytest.mark.spec("THREAT-08")
@given(st.binary(max_size=300))
def test_nothing_but_our_errors_escapes(octets: bytes) -> None:
    for candidate in (octets, pki.sequence(octets), pki.sequence(pki.sequence(b"\x02\x01\x01", pki.sequence(octets)))):
        with pytest.raises(EstError):
            crmf.parse(candidate, now=NOW)
