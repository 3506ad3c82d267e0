"""RFC 2986 and RFC 5272 section 3.1: what a CSR may say, and that its sender has the key."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from estcore import pkcs10, transfer
from estcore.certification_request import CertificationRequest
from estcore.errors import BadCsr
from estcore.issuer_spec import KeyAlgorithm
from estcore.usages import Usage
from tests import pki
from tests.core import vectors

SIGNATURE = pki.key_usage("digital_signature")


# ---- what is read


@pytest.mark.spec("EST-ENROLL-01")
@pytest.mark.parametrize("algorithm", pki.ALL_ALGORITHMS)
def test_a_csr_of_each_listed_key_is_read_whole(algorithm: KeyAlgorithm) -> None:
    sans = (*pki.dns("device-1.example", "*.pool.example"), x509.UniformResourceIdentifier("spiffe://factory/device/1"))
    subject = pki.name("device-1", organization_name="Fabrik Süd", country_name="DE")
    private_key = pki.key(algorithm)
    csr_der = pki.csr(private_key, subject=subject, sans=sans, usage=SIGNATURE, ekus=[pki.CLIENT_AUTH], challenge_password="c2VjcmV0")

    csr = pkcs10.parse(csr_der)

    assert csr == CertificationRequest(
        csr_der=csr_der,
        public_key=private_key.public_key(),
        spki_der=pki.spki_der(private_key.public_key()),
        key_algorithm=algorithm,
        subject=subject,
        subject_der=subject.public_bytes(),
        sans=sans,
        usages=frozenset({Usage.DIGITAL_SIGNATURE, Usage.CLIENT_AUTH}),
        challenge_password="c2VjcmV0",
        attribute_types=frozenset({pki.oid(pki.CHALLENGE_PASSWORD), pki.oid(pki.EXTENSION_REQUEST)}),
        signature_algorithm_der=csr.signature_algorithm_der,
    )


@pytest.mark.spec("EST-ENROLL-05")
def test_a_csr_that_asks_for_nothing_says_so() -> None:
    csr = pkcs10.parse(pki.csr())
    assert (csr.sans, csr.usages, csr.challenge_password) == ((), None, None)


@pytest.mark.spec("EST-ENROLL-07")
def test_an_empty_subject_is_read() -> None:
    csr = pkcs10.parse(pki.csr(subject=pki.name(None), sans=pki.dns("a.example")))
    assert (csr.subject, csr.subject_der) == (x509.Name([]), b"\x30\x00")


def test_an_attributes_field_that_is_left_out_counts_as_empty() -> None:
    """RFC 2986 section 4.1 wants `A0 00`; some encoders drop it."""
    with_field, without = pki.raw_csr(), pki.raw_csr(attributes_field=b"")
    assert b"\xa0\x00" in with_field
    assert pkcs10.parse(with_field).subject == pkcs10.parse(without).subject


@pytest.mark.spec("EST-ENROLL-05")
@pytest.mark.parametrize(
    ("usage", "ekus", "expected"),
    [
        (pki.key_usage("digital_signature", "key_encipherment"), (), {Usage.DIGITAL_SIGNATURE, Usage.KEY_ENCIPHERMENT}),
        (pki.key_usage("content_commitment"), (), {Usage.CONTENT_COMMITMENT}),
        (pki.key_usage("data_encipherment", "key_agreement"), (), {Usage.DATA_ENCIPHERMENT, Usage.KEY_AGREEMENT}),
        (None, (pki.SERVER_AUTH, pki.CLIENT_AUTH), {Usage.SERVER_AUTH, Usage.CLIENT_AUTH}),
        (SIGNATURE, (ExtendedKeyUsageOID.CODE_SIGNING,), {Usage.DIGITAL_SIGNATURE, Usage.CODE_SIGNING}),
    ],
)
def test_requested_usages_are_those_of_key_usage_and_extended_key_usage(
    usage: x509.KeyUsage | None, ekus: tuple[x509.ObjectIdentifier, ...], expected: set[Usage]
) -> None:
    assert pkcs10.parse(pki.csr(usage=usage, ekus=ekus)).usages == frozenset(expected)


def test_extensions_that_ask_for_what_is_issued_anyway_are_accepted() -> None:
    """OpenSSL writes CA:FALSE and the subjectKeyIdentifier of method 1 into CSRs by its default configuration."""
    identifier = x509.SubjectKeyIdentifier.from_public_key(pki.key().public_key())
    csr = pkcs10.parse(pki.csr(extensions=[x509.BasicConstraints(ca=False, path_length=None), identifier]))
    assert (csr.sans, csr.usages) == ((), None)


@pytest.mark.parametrize("number", [pki.EXTENSION_REQUEST, "1.3.6.1.4.1.311.2.1.14"])
def test_extensions_are_read_from_the_attribute_of_pkcs9_and_of_microsoft(number: str) -> None:
    san = pki.extension("2.5.29.17", pki.sequence(pki.tlv(0x82, b"a.example")))
    csr = pkcs10.parse(pki.raw_csr(pki.attribute(number, pki.sequence(san))))
    assert csr.sans == pki.dns("a.example")


def test_attributes_that_ask_for_nothing_we_know_are_passed_over() -> None:
    """Microsoft's clients send the versions of their system and of themselves."""
    version = pki.attribute("1.3.6.1.4.1.311.13.2.3", pki.tlv(0x16, b"10.0.19042.2"))
    client = pki.attribute("1.3.6.1.4.1.311.21.20", pki.sequence(b"\x02\x01\x05", pki.tlv(0x0C, b"host")), pki.tlv(0x0C, b"two values"))
    assert pkcs10.parse(pki.raw_csr(version, client)).usages is None


# ---- challengePassword


@pytest.mark.spec("EST-POP-07", "EST-POP-08")
@pytest.mark.parametrize(
    ("string_type", "encoding"), [(0x13, "ascii"), (0x0C, "utf-8"), (0x14, "latin-1"), (0x1C, "utf-32-be"), (0x1E, "utf-16-be")]
)
def test_a_challenge_password_is_read_from_every_directory_string(string_type: int, encoding: str) -> None:
    text = "Z9/kU0A+T2n5mZ3rX0y1Sw=="
    attribute = pki.attribute(pki.CHALLENGE_PASSWORD, pki.tlv(string_type, text.encode(encoding)))
    assert pkcs10.parse(pki.raw_csr(attribute)).challenge_password == text


@pytest.mark.spec("EST-POP-07")
@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ((), "no value"),
        ((pki.tlv(0x13, b"a"), pki.tlv(0x13, b"b")), "more than one value"),
        ((pki.tlv(0x16, b"a"),), "not a DirectoryString"),
        ((pki.tlv(0x04, b"a"),), "not a DirectoryString"),
        ((pki.sequence(),), "not a DirectoryString"),
        ((pki.tlv(0x0C, b"\xff"),), "not valid text"),
        ((pki.tlv(0x1E, b"\xd8\x00"),), "not valid text"),
        ((pki.tlv(0x1C, b"\x00\x11\x00\x00"),), "not valid text"),
        ((pki.tlv(0x13, b""),), "0 characters"),
        ((pki.tlv(0x13, b"a" * 256),), "256 characters"),
    ],
)
def test_another_challenge_password_is_refused_with_the_reason(values: tuple[bytes, ...], reason: str) -> None:
    with pytest.raises(BadCsr, match=reason):
        pkcs10.parse(pki.raw_csr(pki.attribute(pki.CHALLENGE_PASSWORD, *values)))


# ---- published requests


@pytest.mark.parametrize("name", ["rfc7030-a3-simpleenroll-request", "rfc7030-a4-serverkeygen-request"])
def test_published_requests_signed_with_sha1_are_refused_for_that(name: str) -> None:
    with pytest.raises(BadCsr, match="signature algorithm is not accepted") as refused:
        pkcs10.parse(transfer.decode_body(vectors.body(name)))
    assert refused.value.reason == "SignatureAlgorithm"


def test_the_published_request_for_a_hardware_module_name_is_refused_for_its_kind_of_name() -> None:
    with pytest.raises(BadCsr, match="holds an otherName"):
        pkcs10.parse(transfer.decode_body(vectors.body("rfc9148-a2-sen-request")))


def test_the_published_request_with_empty_attributes_is_read() -> None:
    csr = pkcs10.parse(transfer.decode_body(vectors.body("rfc9148-a3-skg-request")))
    assert (csr.subject.rfc4514_string(), csr.key_algorithm, csr.usages) == ("O=skg example", KeyAlgorithm.ECDSA_P256, None)


# ---- proof-of-possession


@pytest.mark.spec("EST-POP-01", "THREAT-07")
@pytest.mark.parametrize("algorithm", pki.ONE_OF_EACH_KIND)
def test_one_flipped_bit_of_the_signature_is_refused(algorithm: KeyAlgorithm) -> None:
    whole = pki.csr(pki.key(algorithm))
    for octet in (-1, -20, -40):
        forged = bytearray(whole)
        forged[octet] ^= 1
        with pytest.raises(BadCsr, match="signature is not valid"):
            pkcs10.parse(bytes(forged))


@pytest.mark.spec("EST-POP-01", "THREAT-07")
def test_a_csr_signed_by_another_key_is_refused() -> None:
    other = pki.spki_der(pki.key(owner="somebody else").public_key())
    with pytest.raises(BadCsr, match="signature is not valid"):
        pkcs10.parse(pki.raw_csr(spki=other))


R, S = 0x1234, 0x5678
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def integer(value: int) -> bytes:
    return pki.tlv(0x02, value.to_bytes(value.bit_length() // 8 + 1, signed=True))


@pytest.mark.spec("EST-POP-01", "THREAT-07")
@pytest.mark.parametrize(
    "signature",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x30\x00", id="empty SEQUENCE"),
        pytest.param(pki.sequence(integer(0), integer(0)), id="r = s = 0"),
        pytest.param(pki.sequence(integer(0), integer(1)), id="r = 0"),
        pytest.param(pki.sequence(integer(1), integer(0)), id="s = 0"),
        pytest.param(pki.sequence(integer(ORDER), integer(ORDER)), id="r = s = n"),
        pytest.param(pki.sequence(integer(-R), integer(-S)), id="negative"),
        pytest.param(pki.sequence(integer(R)), id="s missing"),
        pytest.param(bytes(64), id="raw zeroes"),
    ],
)
def test_degenerate_ecdsa_signatures_are_refused(signature: bytes) -> None:
    with pytest.raises(BadCsr, match="signature is not valid"):
        pkcs10.parse(pki.raw_csr(signature=signature))


@pytest.mark.spec("THREAT-07")
def test_a_good_signature_with_something_after_it_is_refused() -> None:
    info = pki.sequence(b"\x02\x01\x00", pki.name().public_bytes(), pki.spki_der(pki.key().public_key()), b"\xa0\x00")
    good = pki.key().sign(info, ec.ECDSA(hashes.SHA256()))  # type: ignore[call-arg, arg-type]  # pki.key() is P-256 by default
    assert pkcs10.parse(pki.raw_csr(signature=good)).subject == pki.name()
    with pytest.raises(BadCsr, match="signature is not valid"):
        pkcs10.parse(pki.raw_csr(signature=good + b"\x00"))


def pss(hash_oid: str, mgf_hash_oid: str, salt: int, *, trailer: bytes = b"", null: bytes = b"\x05\x00") -> bytes:
    """AlgorithmIdentifier of RSASSA-PSS (RFC 4055 section 3.1)."""
    hash_identifier, mgf_identifier = pki.sequence(pki.oid(hash_oid), null), pki.sequence(pki.oid(mgf_hash_oid), null)
    mgf = pki.sequence(pki.oid("1.2.840.113549.1.1.8"), mgf_identifier)
    parameters = pki.sequence(pki.tlv(0xA0, hash_identifier), pki.tlv(0xA1, mgf), pki.tlv(0xA2, integer(salt)), trailer)
    return pki.sequence(pki.oid("1.2.840.113549.1.1.10"), parameters)


SHA1, SHA256, SHA384 = "1.3.14.3.2.26", "2.16.840.1.101.3.4.2.1", "2.16.840.1.101.3.4.2.2"
NULL = b"\x05\x00"


@pytest.mark.parametrize("digest", [hashes.SHA256(), hashes.SHA384(), hashes.SHA512()], ids=lambda digest: digest.name)
def test_every_listed_signature_algorithm_is_accepted(digest: hashes.HashAlgorithm) -> None:
    rsa_key = pki.key(KeyAlgorithm.RSA_2048)
    pss_padding = padding.PSS(mgf=padding.MGF1(digest), salt_length=digest.digest_size)
    for csr_der in (
        pki.csr(signature_hash=digest),
        pki.csr(rsa_key, signature_hash=digest),
        pki.csr(rsa_key, signature_hash=digest, rsa_padding=pss_padding),
    ):
        assert pkcs10.parse(csr_der).subject == pki.name()


@pytest.mark.spec("THREAT-07")
@pytest.mark.parametrize(
    ("algorithm_identifier", "key_algorithm"),
    [
        pytest.param(pki.sequence(pki.oid("1.2.840.10045.4.1")), KeyAlgorithm.ECDSA_P256, id="ECDSA with SHA-1"),
        pytest.param(pki.sequence(pki.oid("1.2.840.10045.4.3.1")), KeyAlgorithm.ECDSA_P256, id="ECDSA with SHA-224"),
        pytest.param(pki.sequence(pki.oid("1.2.840.10045.4.3.2"), NULL), KeyAlgorithm.ECDSA_P256, id="ECDSA with NULL parameters"),
        pytest.param(pki.sequence(pki.oid("1.2.840.113549.1.1.4"), NULL), KeyAlgorithm.RSA_2048, id="RSA with MD5"),
        pytest.param(pki.sequence(pki.oid("1.2.840.113549.1.1.5"), NULL), KeyAlgorithm.RSA_2048, id="RSA with SHA-1"),
        pytest.param(pki.sequence(pki.oid("1.2.840.113549.1.1.11"), b"\x30\x00"), KeyAlgorithm.RSA_2048, id="RSA with odd parameters"),
        pytest.param(pki.sequence(pki.oid("1.2.840.113549.1.1.1"), NULL), KeyAlgorithm.RSA_2048, id="a key's OID"),
        pytest.param(pki.sequence(pki.oid("1.2.840.113549.1.1.10"), b"\x30\x00"), KeyAlgorithm.RSA_2048, id="PSS with SHA-1 defaults"),
        pytest.param(pss(SHA256, SHA1, 32), KeyAlgorithm.RSA_2048, id="PSS with MGF1 of SHA-1"),
        pytest.param(pss(SHA256, SHA384, 32), KeyAlgorithm.RSA_2048, id="PSS with MGF1 of another hash"),
        pytest.param(pss(SHA256, SHA256, 0), KeyAlgorithm.RSA_2048, id="PSS without salt"),
        pytest.param(pss(SHA256, SHA256, 20), KeyAlgorithm.RSA_2048, id="PSS with a salt of 20"),
        pytest.param(pss(SHA256, SHA256, 32, trailer=pki.tlv(0xA3, integer(2))), KeyAlgorithm.RSA_2048, id="PSS with trailer 2"),
        pytest.param(pki.sequence(pki.oid("1.2.840.113549.1.1.11"), NULL), KeyAlgorithm.ECDSA_P256, id="RSA's algorithm for an EC key"),
        pytest.param(pki.ECDSA_WITH_SHA256, KeyAlgorithm.RSA_2048, id="ECDSA's algorithm for an RSA key"),
        pytest.param(pki.ECDSA_WITH_SHA256, KeyAlgorithm.ED25519, id="ECDSA's algorithm for an Ed25519 key"),
        pytest.param(pki.sequence(pki.oid("1.3.101.112"), NULL), KeyAlgorithm.ED25519, id="Ed25519 with parameters"),
        pytest.param(pki.sequence(pki.oid("1.3.101.113")), KeyAlgorithm.ED25519, id="Ed448's algorithm for an Ed25519 key"),
        pytest.param(pki.sequence(pki.oid("1.3.6.1.5.5.7.6.2"), NULL), KeyAlgorithm.ECDSA_P256, id="noSignature (RFC 5272)"),
        pytest.param(pki.sequence(), KeyAlgorithm.ECDSA_P256, id="none"),
    ],
)
def test_other_signature_algorithms_are_refused_whatever_the_signature(algorithm_identifier: bytes, key_algorithm: KeyAlgorithm) -> None:
    csr_der = pki.raw_csr(private_key=pki.key(key_algorithm), algorithm=algorithm_identifier, signature=bytes(64))
    with pytest.raises(BadCsr, match="signature algorithm is not accepted") as refused:
        pkcs10.parse(csr_der)
    assert refused.value.reason == "SignatureAlgorithm"


@pytest.mark.spec("EST-ENROLL-03")
def test_a_key_that_is_not_for_signatures_may_sign_its_own_csr() -> None:
    csr = pkcs10.parse(pki.csr(pki.key(KeyAlgorithm.RSA_2048), usage=pki.key_usage("key_encipherment")))
    assert csr.usages == frozenset({Usage.KEY_ENCIPHERMENT})


# ---- keys


@pytest.mark.spec("EST-ENROLL-10", "THREAT-06")
@pytest.mark.parametrize(
    ("private_key", "reason"),
    [
        pytest.param(pki.curve_key(ec.SECP224R1), "EC on secp224r1", id="P-224"),
        pytest.param(pki.curve_key(ec.SECP256K1), "EC on secp256k1", id="secp256k1"),
        pytest.param(pki.curve_key(ec.BrainpoolP256R1), "EC on brainpoolP256r1", id="brainpoolP256r1"),
        pytest.param(pki.rsa_key(1024), "RSA with 1024 bits", id="RSA 1024"),
        pytest.param(pki.rsa_key(2056), "RSA with 2056 bits", id="RSA 2056"),
        pytest.param(pki.rsa_key(2048, 3), "exponent is not 65537", id="e = 3"),
    ],
)
def test_keys_that_are_not_listed_are_refused_by_name(private_key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, reason: str) -> None:
    with pytest.raises(BadCsr, match=reason):
        pkcs10.parse(pki.csr(private_key, signature_hash=hashes.SHA256()))


P256 = "1.2.840.10045.3.1.7"
GENERATOR = bytes.fromhex(  # SEC 2 section 2.4.2
    "046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c2964fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"
)


EXPLICIT_P256 = (
    pki.sequence(  # SEC 1 section C.2: the same curve, spelled out; some libraries load it as P-256 (CVE-2020-0601 was about these)
        integer(1),
        pki.sequence(pki.oid("1.2.840.10045.1.1"), integer(2**256 - 2**224 + 2**192 + 2**96 - 1)),
        pki.sequence(
            pki.tlv(0x04, (2**256 - 2**224 + 2**192 + 2**96 - 4).to_bytes(32)),
            pki.tlv(0x04, bytes.fromhex("5ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604b")),
        ),
        pki.tlv(0x04, GENERATOR),
        integer(ORDER),
        integer(1),
    )
)


def ec_spki(parameters: bytes, point: bytes, algorithm: str = "1.2.840.10045.2.1") -> bytes:
    return pki.sequence(pki.sequence(pki.oid(algorithm), parameters), pki.tlv(0x03, b"\x00", point))


@pytest.mark.spec("EST-ENROLL-10", "THREAT-06", "EST-ENROLL-04")
@pytest.mark.parametrize(
    "spki",
    [
        pytest.param(ec_spki(pki.oid(P256), GENERATOR[:-1] + b"\x00"), id="a point off the curve"),
        pytest.param(ec_spki(pki.oid(P256), bytes((4,)) + bytes(64)), id="the point (0, 0)"),
        pytest.param(ec_spki(pki.oid(P256), b"\x00"), id="the point at infinity"),
        pytest.param(ec_spki(pki.oid(P256), b"\x03" + GENERATOR[1:33]), id="a compressed point"),
        pytest.param(ec_spki(pki.oid(P256), b"\x07" + GENERATOR[1:]), id="a hybrid point"),
        pytest.param(ec_spki(pki.oid(P256), GENERATOR[:-1]), id="a short point"),
        pytest.param(ec_spki(pki.oid(P256), GENERATOR + b"\x00"), id="a long point"),
        pytest.param(ec_spki(pki.sequence(b"\x02\x01\x01"), GENERATOR), id="explicit parameters"),
        pytest.param(ec_spki(EXPLICIT_P256, GENERATOR), id="P-256 by explicit parameters"),
        pytest.param(ec_spki(b"\x05\x00", GENERATOR), id="implicit parameters"),
        pytest.param(ec_spki(b"", GENERATOR), id="no parameters"),
        pytest.param(ec_spki(pki.oid("1.3.132.0.1"), GENERATOR), id="a SECT curve"),
        pytest.param(ec_spki(pki.oid(P256), GENERATOR, "1.3.132.1.12"), id="id-ecDH"),
        pytest.param(ec_spki(b"", bytes(32), "1.3.101.110"), id="X25519"),
        pytest.param(ec_spki(b"", bytes(57), "1.3.101.113"), id="Ed448"),
        pytest.param(ec_spki(b"", bytes(31), "1.3.101.112"), id="a short Ed25519 key"),
        pytest.param(ec_spki(b"\x05\x00", bytes(32), "1.3.101.112"), id="Ed25519 with NULL"),
        pytest.param(ec_spki(b"\x05\x00", pki.sequence(integer(3), integer(3)), "1.2.840.113549.1.1.1"), id="a toy RSA key"),
        pytest.param(ec_spki(b"\x05\x00", pki.sequence(integer(-7), integer(65537)), "1.2.840.113549.1.1.1"), id="a negative modulus"),
        pytest.param(ec_spki(b"\x05\x00", pki.sequence(), "1.2.840.113549.1.1.1"), id="an empty RSA key"),
        pytest.param(ec_spki(b"", GENERATOR, "1.2.3.4"), id="an unknown kind"),
        pytest.param(pki.sequence(), id="nothing"),
    ],
)
def test_odd_public_keys_are_refused(spki: bytes) -> None:
    with pytest.raises(BadCsr) as refused:
        pkcs10.parse(pki.raw_csr(spki=spki))
    assert refused.value.reason in ("KeyNotAllowed", "WeakKey")


@pytest.mark.spec("THREAT-06")
def test_an_rsa_key_restricted_to_pss_is_refused() -> None:
    rsa_encryption = pki.spki_der(pki.key(KeyAlgorithm.RSA_2048).public_key())
    restricted = rsa_encryption.replace(pki.oid("1.2.840.113549.1.1.1"), pki.oid("1.2.840.113549.1.1.10"))
    with pytest.raises(BadCsr):
        pkcs10.parse(pki.raw_csr(spki=restricted))


CA_BITS = pki.key_usage("digital_signature", "key_encipherment", "key_cert_sign")


@pytest.mark.parametrize(
    ("extensions", "ca"),
    [
        ((x509.BasicConstraints(ca=True, path_length=None), CA_BITS), True),
        ((CA_BITS,), True),
        ((pki.key_usage("digital_signature"),), False),
        ((x509.BasicConstraints(ca=False, path_length=None), pki.key_usage("digital_signature")), False),
    ],
)
def test_a_ca_certificate_is_asked_for_by_basic_constraints_or_as_cert_manager_does_by_key_cert_sign_alone(
    extensions: tuple[x509.ExtensionType, ...], ca: bool
) -> None:
    csr_der = pki.csr(pki.key(), subject=pki.name(), extensions=list(extensions))
    assert pkcs10.parse(csr_der, accept_ca=True).ca is ca
    if ca:
        with pytest.raises(BadCsr, match="never issued"):
            pkcs10.parse(csr_der)


@pytest.mark.parametrize("constraints", [(), (x509.BasicConstraints(ca=False, path_length=None),)])
def test_a_csr_that_contradicts_itself_about_being_a_ca_is_refused(constraints: tuple[x509.ExtensionType, ...]) -> None:
    bits = pki.key_usage("digital_signature", "key_cert_sign") if constraints else pki.key_usage("digital_signature", "crl_sign")
    csr_der = pki.csr(pki.key(), subject=pki.name(), extensions=[*constraints, bits])
    with pytest.raises(BadCsr, match="the key usage of a CA"):
        pkcs10.parse(csr_der, accept_ca=True)
