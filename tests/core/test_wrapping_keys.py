"""RFC 7030 sections 4.4.1 and 4.4.2: for whom a key is encrypted, by what, and that whatever cannot be done is an error."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from estcore import pkcs10, wrapping_keys
from estcore.certification_request import CertificationRequest
from estcore.errors import BadCsr, ConfigurationError, MalformedBody
from estcore.issuer_spec import KeyAlgorithm
from estcore.key_encryption import KeyAgreement, KeyTransport, KeyWrap
from estcore.recipient_info import (
    KeyAgreementRecipient,
    KeyEncryptionKey,
    KeyTransportRecipient,
    key_identifier,
)
from estcore.signed_data import IssuerAndSerialNumber, SubjectKeyIdentifier
from estcore.smime_capabilities import Mode
from estcore.wrapping_keys import Encryption, WrappingKeys
from tests import pki

WHERE = "Secret devices/wrapping"
CA = pki.ca("Recipients' CA")

AES128_WRAP = pki.sequence(pki.oid("2.16.840.1.101.3.4.1.5"))
AES192_WRAP = pki.sequence(pki.oid("2.16.840.1.101.3.4.1.25"))
AES256_WRAP = pki.sequence(pki.oid("2.16.840.1.101.3.4.1.45"))
AES128_CBC = pki.sequence(pki.oid("2.16.840.1.101.3.4.1.2"))
AES256_CBC = pki.sequence(pki.oid("2.16.840.1.101.3.4.1.42"))
CHACHA20_POLY1305 = pki.sequence(pki.oid("1.2.840.113549.1.9.16.3.18"))
AES256_GCM = pki.sequence(pki.oid("2.16.840.1.101.3.4.1.46"))
DES3_CBC = pki.sequence(pki.oid("1.2.840.113549.3.7"))
RSA = pki.sequence(pki.oid("1.2.840.113549.1.1.1"), b"\x05\x00")
RSA_BARE = pki.sequence(pki.oid("1.2.840.113549.1.1.1"))
SHA256 = pki.sequence(pki.oid("2.16.840.1.101.3.4.2.1"), b"\x05\x00")
OAEP_SHA256 = pki.sequence(  # RFC 4055 section 4.1
    pki.oid("1.2.840.113549.1.1.7"),
    pki.sequence(pki.tlv(0xA0, SHA256), pki.tlv(0xA1, pki.sequence(pki.oid("1.2.840.113549.1.1.8"), SHA256))),
)
OAEP_SHA1 = pki.sequence(pki.oid("1.2.840.113549.1.1.7"), pki.sequence())
OAEP_BARE = pki.sequence(pki.oid("1.2.840.113549.1.1.7"))
ECDH_SHA256 = pki.sequence(pki.oid("1.3.132.1.11.1"), AES128_WRAP)
ECDH_SHA384 = pki.sequence(pki.oid("1.3.132.1.11.2"), AES256_WRAP)
ECDH_BARE = pki.sequence(pki.oid("1.3.132.1.11.1"))
ECDH_SHA1 = pki.sequence(pki.oid("1.3.133.16.840.63.0.2"), AES128_WRAP)
SOMETHING_ELSE = pki.sequence(pki.oid("2.999"))

RSA_KEY = pki.key(KeyAlgorithm.RSA_2048, "recipient")
EC_KEY = pki.key(KeyAlgorithm.ECDSA_P256, "recipient")
P384_KEY = pki.key(KeyAlgorithm.ECDSA_P384, "recipient")
P521_KEY = pki.key(KeyAlgorithm.ECDSA_P521, "recipient")
ENCIPHERMENT, AGREEMENT = pki.key_usage("key_encipherment"), pki.key_usage("key_agreement")


def certificate(key: pki.SigningKey, usage: x509.KeyUsage | None = None, **options: object) -> x509.Certificate:
    without = () if usage else (x509.KeyUsage,)
    return pki.leaf(CA, public_key=key.public_key(), usage=usage, ekus=(), **{"without": without, **options})  # type: ignore[arg-type]  # as given


def ski(key: pki.SigningKey) -> bytes:
    return key_identifier(key.public_key())


def loaded(**entries: bytes | x509.Certificate) -> WrappingKeys:
    """Entries by name, a double underscore for the dot."""
    data = {name.replace("__", "."): value if isinstance(value, bytes) else pki.pem(value) for name, value in entries.items()}
    return wrapping_keys.load(data, where=WHERE)


def csr(*attributes: tuple[str, bytes]) -> CertificationRequest:
    """A request with these attributes, read as /serverkeygen reads it."""
    return pkcs10.parse_for_key(csr_der(*attributes), pki.key().public_key())


def csr_der(*attributes: tuple[str, bytes]) -> bytes:
    """Its key and signature are zeros: nobody looks at them."""
    info = pki.sequence(
        pki.tlv(0x02, b"\x00"),
        pki.name().public_bytes(),
        pki.spki_der(pki.key().public_key()),
        pki.tlv(0xA0, *sorted(pki.attribute(oid, value) for oid, value in attributes)),
    )
    return pki.sequence(info, pki.ECDSA_WITH_SHA256, pki.tlv(0x03, b"\x00" + pki.sequence(pki.tlv(0x02, b"\x01"), pki.tlv(0x02, b"\x01"))))


def symmetric_id(identifier: bytes) -> tuple[str, bytes]:
    return "1.2.840.113549.1.9.16.2.37", pki.tlv(0x04, identifier)


def asymmetric_id(identifier: bytes) -> tuple[str, bytes]:
    return "1.2.840.113549.1.9.16.2.54", pki.tlv(0x04, identifier)


def capabilities(*listed: bytes) -> tuple[str, bytes]:
    return "1.2.840.113549.1.9.15", pki.sequence(*listed)


def chosen(keys: WrappingKeys, *attributes: tuple[str, bytes], required: bool = True) -> Encryption:
    wanted = wrapping_keys.wanted_by(csr(*attributes), required=required)
    assert wanted is not None
    return wrapping_keys.choose(keys, wanted)


def refused(keys: WrappingKeys, *attributes: tuple[str, bytes]) -> BadCsr:
    with pytest.raises(BadCsr) as caught:
        chosen(keys, *attributes)
    return caught.value


KEYS = loaded(
    device__key=b"00112233445566778899aabbccddeeff\n",
    strong__key=b"00112233445566778899AABBCCDDEEFF" * 2,
    rsa__pem=certificate(RSA_KEY, ENCIPHERMENT),
    ec__pem=certificate(EC_KEY, AGREEMENT),
    p384__pem=certificate(P384_KEY),
    p521__pem=certificate(P521_KEY),
)


# ---- what a CSR asks for


@pytest.mark.spec("EST-SKG-04", "EST-SKG-07")
def test_a_csr_that_asks_for_no_encryption_is_refused_where_it_is_required() -> None:
    assert wrapping_keys.wanted_by(csr(), required=False) is None
    with pytest.raises(BadCsr, match="encrypted only") as caught:
        wrapping_keys.wanted_by(csr(), required=True)
    assert caught.value.reason == "EncryptionRequired"


@pytest.mark.spec("EST-SKG-04")
@pytest.mark.parametrize("required", [False, True])
@pytest.mark.parametrize(
    ("attributes", "why"),
    [
        ((symmetric_id(b"device"),), "no algorithms"),
        ((asymmetric_id(b"key"),), "no algorithms"),
        ((capabilities(AES128_WRAP),), "names no key"),
        ((symmetric_id(b"device"), asymmetric_id(b"key"), capabilities(AES128_WRAP)), "leave one"),
    ],
)
def test_a_csr_that_asks_for_half_of_it_is_refused_and_never_gets_the_key_in_plain(
    attributes: tuple[tuple[str, bytes], ...], why: str, *, required: bool
) -> None:
    with pytest.raises(BadCsr, match=why) as caught:
        wrapping_keys.wanted_by(csr(*attributes), required=required)
    assert caught.value.reason == "EncryptionUnclear"


@pytest.mark.spec("EST-SKG-08")
@pytest.mark.parametrize(
    ("value", "why"),
    [
        (pki.sequence(), "list nothing"),
        (pki.sequence(*[AES128_WRAP] * 65), "more than 64"),
        (pki.sequence(b"\x05\x00"), "tag"),
        (pki.sequence(pki.sequence()), "cut off"),
    ],
)
def test_capabilities_of_another_shape_are_refused(value: bytes, why: str) -> None:
    with pytest.raises((BadCsr, MalformedBody), match=why):
        chosen(KEYS, symmetric_id(b"device"), ("1.2.840.113549.1.9.15", value))


# ---- which key, by which algorithm


@pytest.mark.spec("EST-SKG-05", "EST-SKG-08")
def test_a_symmetric_key_is_found_by_its_name_and_used_with_its_wrap() -> None:
    found = chosen(KEYS, symmetric_id(b"device"), capabilities(AES256_WRAP, AES128_WRAP))
    assert isinstance(found.recipient, KeyEncryptionKey)
    assert found.recipient.key == bytes.fromhex("00112233445566778899aabbccddeeff")
    assert found.recipient.key_identifier == b"device"
    assert found.cipher.key_octets == 16
    assert chosen(KEYS, symmetric_id(b"strong"), capabilities(AES256_WRAP)).cipher == (Mode.CBC, 32)


@pytest.mark.spec("EST-SKG-05")
def test_an_identifier_of_any_octets_is_written_in_hexadecimal() -> None:
    found = chosen(loaded(**{"0x00ff__key": b"00" * 16}), symmetric_id(b"\x00\xff"), capabilities(AES128_WRAP))
    assert isinstance(found.recipient, KeyEncryptionKey)
    assert found.recipient.key_identifier == b"\x00\xff"


@pytest.mark.spec("EST-SKG-05", "EST-SKG-06", "EST-SKG-17")
@pytest.mark.parametrize(
    "identifier",
    [symmetric_id(b"devic"), symmetric_id(b"device.key"), symmetric_id(ski(RSA_KEY)), asymmetric_id(b"device"), asymmetric_id(b"x")],
)
def test_an_unknown_identifier_is_an_error(identifier: tuple[str, bytes]) -> None:
    assert refused(KEYS, identifier, capabilities(AES128_WRAP, RSA, ECDH_SHA256)).reason == "UnknownDecryptKey"
    assert refused(WrappingKeys(), identifier, capabilities(AES128_WRAP, RSA, ECDH_SHA256)).reason == "UnknownDecryptKey"


@pytest.mark.spec("EST-SKG-08")
@pytest.mark.parametrize(
    ("identifier", "listed"),
    [
        (symmetric_id(b"device"), (AES256_WRAP, RSA, SOMETHING_ELSE)),
        (symmetric_id(b"strong"), (AES128_WRAP, AES192_WRAP)),
        (asymmetric_id(ski(RSA_KEY)), (AES128_WRAP, ECDH_SHA256, OAEP_SHA1)),
        (asymmetric_id(ski(EC_KEY)), (AES128_WRAP, RSA, ECDH_SHA1)),
        (asymmetric_id(ski(EC_KEY)), (ECDH_BARE,)),
        (symmetric_id(b"device"), (AES128_WRAP, DES3_CBC)),
        (asymmetric_id(ski(RSA_KEY)), (OAEP_SHA256, CHACHA20_POLY1305)),
        (asymmetric_id(ski(EC_KEY)), (ECDH_SHA256, DES3_CBC, CHACHA20_POLY1305)),
    ],
)
def test_without_an_algorithm_in_common_the_request_fails(identifier: tuple[str, bytes], listed: tuple[bytes, ...]) -> None:
    assert refused(KEYS, identifier, capabilities(*listed)).reason == "NoCommonAlgorithm"


@pytest.mark.spec("EST-SKG-08", "EST-SKG-13")
@pytest.mark.parametrize(
    ("listed", "algorithm"),
    [
        ((OAEP_SHA256,), KeyTransport.OAEP_SHA256),
        ((RSA, OAEP_SHA256), KeyTransport.OAEP_SHA256),
        ((OAEP_BARE,), KeyTransport.OAEP_SHA256),
        ((OAEP_SHA1, RSA), KeyTransport.PKCS1_V15),
        ((RSA,), KeyTransport.PKCS1_V15),
        ((RSA_BARE, SOMETHING_ELSE), KeyTransport.PKCS1_V15),
    ],
)
def test_an_rsa_key_is_used_by_oaep_where_that_is_listed(listed: tuple[bytes, ...], algorithm: KeyTransport) -> None:
    found = chosen(KEYS, asymmetric_id(ski(RSA_KEY)), capabilities(*listed))
    assert isinstance(found.recipient, KeyTransportRecipient)
    assert found.recipient.algorithm is algorithm
    assert found.recipient.identifier == SubjectKeyIdentifier(ski(RSA_KEY))
    assert found.recipient.public_key == RSA_KEY.public_key()
    assert found.cipher.key_octets == 16, "RSA-2048 is no stronger than AES-128"


@pytest.mark.spec("EST-SKG-08", "EST-SKG-14")
@pytest.mark.parametrize("key", [EC_KEY, P384_KEY, P521_KEY], ids=["P-256", "P-384", "P-521"])
@pytest.mark.parametrize(
    ("listed", "scheme", "wrap"),
    [
        ((ECDH_SHA256, ECDH_SHA384), KeyAgreement.STD_DH_SHA256, KeyWrap.AES_128),
        ((ECDH_SHA1, ECDH_SHA384, ECDH_SHA256), KeyAgreement.STD_DH_SHA384, KeyWrap.AES_256),
        ((ECDH_BARE, AES192_WRAP), KeyAgreement.STD_DH_SHA256, KeyWrap.AES_192),
    ],
)
def test_an_ec_key_is_used_by_the_first_scheme_that_both_know(
    key: pki.SigningKey, listed: tuple[bytes, ...], scheme: KeyAgreement, wrap: KeyWrap
) -> None:
    found = chosen(KEYS, asymmetric_id(ski(key)), capabilities(*listed))
    assert isinstance(found.recipient, KeyAgreementRecipient)
    assert (found.recipient.algorithm, found.recipient.wrap) == (scheme, wrap)
    assert found.recipient.identifier == SubjectKeyIdentifier(ski(key))
    assert found.cipher.key_octets == wrap.value


@pytest.mark.spec("EST-SKG-08")
@pytest.mark.parametrize(
    ("listed", "cipher"),
    [
        ((AES256_CBC, AES128_CBC), (Mode.CBC, 32)),
        ((AES256_GCM, AES256_CBC), (Mode.GCM, 32)),
        ((AES128_CBC, AES256_GCM), (Mode.CBC, 16)),
        ((DES3_CBC, CHACHA20_POLY1305, AES256_GCM, AES128_CBC), (Mode.GCM, 32)),
        ((AES256_GCM,), (Mode.GCM, 32)),
        ((), (Mode.CBC, 16)),
    ],
)
def test_of_the_content_ciphers_that_are_listed_the_first_is_taken(listed: tuple[bytes, ...], cipher: tuple[Mode, int]) -> None:
    assert chosen(KEYS, symmetric_id(b"device"), capabilities(*listed, AES128_WRAP)).cipher == cipher
    assert chosen(KEYS, asymmetric_id(ski(RSA_KEY)), capabilities(OAEP_SHA256, *listed)).cipher == cipher
    assert chosen(KEYS, asymmetric_id(ski(EC_KEY)), capabilities(*listed, ECDH_SHA256)).cipher == cipher


# ---- recipients


@pytest.mark.spec("EST-SKG-06")
@pytest.mark.parametrize(
    ("key", "usage", "listed"),
    [
        (RSA_KEY, pki.key_usage("digital_signature"), RSA),
        (RSA_KEY, pki.key_usage("key_agreement", "data_encipherment"), RSA),
        (EC_KEY, pki.key_usage("digital_signature", "key_encipherment"), ECDH_SHA256),
    ],
)
def test_a_certificate_whose_usage_has_no_encipherment_is_refused(key: pki.SigningKey, usage: x509.KeyUsage, listed: bytes) -> None:
    keys = loaded(signer__pem=certificate(key, usage))
    error = refused(keys, asymmetric_id(ski(key)), capabilities(listed))
    assert error.reason == "DecryptKeyRefused"
    assert "keyUsage" in error.message


@pytest.mark.spec("EST-SKG-13", "EST-SKG-14")
@pytest.mark.parametrize(("key", "listed"), [(RSA_KEY, RSA), (EC_KEY, ECDH_SHA256)])
def test_a_certificate_without_subject_key_identifier_goes_by_issuer_and_serial(key: pki.SigningKey, listed: bytes) -> None:
    nameless = certificate(key, without=[x509.SubjectKeyIdentifier, x509.KeyUsage])
    found = chosen(loaded(nameless__pem=nameless), asymmetric_id(ski(key)), capabilities(listed))
    assert isinstance(found.recipient, KeyTransportRecipient | KeyAgreementRecipient)
    assert found.recipient.identifier == IssuerAndSerialNumber(nameless.issuer.public_bytes(), nameless.serial_number)


@pytest.mark.spec("EST-SKG-06")
def test_a_certificate_is_found_by_the_identifier_it_has() -> None:
    own = x509.SubjectKeyIdentifier(b"of another method")
    named = pki.leaf(CA, public_key=RSA_KEY.public_key(), without=[x509.KeyUsage, x509.SubjectKeyIdentifier])
    assert refused(loaded(rsa__pem=named), asymmetric_id(own.digest), capabilities(RSA)).reason == "UnknownDecryptKey"
    builder = x509.CertificateBuilder().subject_name(pki.name()).issuer_name(pki.name()).public_key(RSA_KEY.public_key())
    builder = builder.serial_number(1).not_valid_before(pki.EPOCH).not_valid_after(pki.EPOCH + pki.YEAR).add_extension(own, critical=False)
    signed = builder.sign(CA.key, pki.hash_for(CA.key))
    found = chosen(loaded(rsa__pem=signed), asymmetric_id(own.digest), capabilities(RSA))
    assert isinstance(found.recipient, KeyTransportRecipient)
    assert found.recipient.identifier == SubjectKeyIdentifier(own.digest)


@pytest.mark.spec("EST-SKG-06")
@pytest.mark.parametrize(("key", "listed"), [(RSA_KEY, OAEP_SHA256), (EC_KEY, ECDH_SHA256)])
def test_a_public_key_alone_is_found_by_its_hash(key: pki.SigningKey, listed: bytes) -> None:
    public_pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    found = chosen(loaded(any__pem=public_pem), asymmetric_id(ski(key)), capabilities(listed))
    assert isinstance(found.recipient, KeyTransportRecipient | KeyAgreementRecipient)
    assert found.recipient.identifier == SubjectKeyIdentifier(ski(key))


# ---- the Secret


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        ({}, "holds no key"),
        ({"device": b"00" * 16}, "name it <identifier>.key"),
        ({".key": b"00" * 16}, "no identifier before"),
        ({"device.key": b""}, "openssl rand -hex 32"),
        ({"device.key": b"00" * 15}, "hexadecimal digits"),
        ({"device.key": b"00" * 64}, "hexadecimal digits"),
        ({"device.key": bytes(16)}, "hexadecimal digits"),
        ({"device.key": b"zz" * 16}, "hexadecimal digits"),
        ({"0x.key": b"00" * 16}, "after 0x"),
        ({"0x0.key": b"00" * 16}, "after 0x"),
        ({"0xgg.key": b"00" * 16}, "after 0x"),
        ({"0x61.key": b"00" * 16, "a.key": b"11" * 16}, "same identifier"),
        ({"a.pem": b""}, "one certificate or one public key"),
        ({"a.pem": pki.pem(CA.certificate, CA.certificate)}, "one certificate or one public key"),
        ({"a.pem": pki.key_pem(RSA_KEY)}, "private key"),
        ({"a.pem": b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"}, "cannot be read"),
        ({"a.pem": b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"}, "cannot be read"),
        ({"a.pem": pki.pem(certificate(pki.key(KeyAlgorithm.ED25519)))}, "Ed25519"),
        ({"a.pem": pki.pem(certificate(pki.rsa_key(1024)))}, "1024 bits"),
        ({"a.pem": pki.pem(certificate(RSA_KEY)), "b.pem": pki.pem(certificate(RSA_KEY))}, "same key"),
        ({"a.pem": b"x" * 16385}, "more than 16384"),
        ({f"{number}.key": b"00" * 16 for number in range(10_001)}, "at most 10000"),
    ],
)
def test_a_secret_that_cannot_be_loaded_says_where_and_what_to_change(entries: dict[str, bytes], why: str) -> None:
    with pytest.raises(ConfigurationError, match=why) as caught:
        wrapping_keys.load(entries, where=WHERE)
    assert caught.value.message.startswith(WHERE)
    assert caught.value.reason == "SecretInvalidData"


@pytest.mark.spec("THREAT-18")
def test_keys_show_nothing_of_themselves() -> None:
    key = KEYS.symmetric[b"device"]
    for shown in (repr(KEYS), repr(key), repr(chosen(KEYS, symmetric_id(b"device"), capabilities(AES128_WRAP)))):
        assert "223344" not in shown
        assert repr(key.key) not in shown
