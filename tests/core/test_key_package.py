"""RFC 5958 and RFC 7030 section 4.4.2: keys in packages, signed by whoever made them; what was altered or signed by others is refused."""

import subprocess
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from asn1crypto import cms
from asn1crypto import keys as asn1_keys
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier
from hypothesis import given
from hypothesis import strategies as st

from estcore import cms_signature, enveloped_data, key_package, signed_data, transfer
from estcore.cms_signature import BadSignature
from estcore.errors import EstError, MalformedBody
from estcore.issuer_spec import KeyAlgorithm
from estcore.keys import PrivateKey, generate_private_key
from estcore.recipient_info import identifiers_of
from estcore.signed_data import DATA, SIGNED_DATA
from tests import pki
from tests.core import cms_recipients as recipients
from tests.core import vectors
from tests.pki import EPOCH

KEY = pki.key(owner="delivered")
CA = pki.ca("Key maker")
OTHER_CA = pki.ca("Somebody else")
ALGORITHMS = (KeyAlgorithm.ECDSA_P256, KeyAlgorithm.ECDSA_P384, KeyAlgorithm.ECDSA_P521, KeyAlgorithm.RSA_2048, KeyAlgorithm.ED25519)
KGA = ObjectIdentifier("1.3.6.1.5.5.7.3.32")


def sign(*keys: PrivateKey, ca: pki.Ca = CA) -> bytes:
    assert isinstance(ca.key, PrivateKey)
    return key_package.sign(keys or (KEY,), certificate=ca.certificate, signer=cms_signature.signer_of(ca.key), signing_time=EPOCH)


def opened(content: bytes, *trusted: x509.Certificate, content_type: str = SIGNED_DATA) -> tuple[PrivateKey, ...]:
    return key_package.open_signed(content_type, content, ca_certificates=trusted or (CA.certificate,), now=EPOCH)


def same(one: PrivateKey, other: PrivateKey) -> bool:
    return key_package.private_key_info(one) == key_package.private_key_info(other)


@pytest.mark.spec("EST-SKG-10")
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_key_is_written_as_private_key_info_of_version_1_and_read_back(algorithm: KeyAlgorithm) -> None:
    private_key = pki.key(algorithm, "delivered")
    written = key_package.private_key_info(private_key)
    parsed = asn1_keys.PrivateKeyInfo.load(written, strict=True)
    assert int(parsed["version"]) == 0
    assert not written.startswith(b"-----")
    assert same(key_package.load_private_key(written), private_key)


@pytest.mark.spec("EST-SKG-11", "EST-SKG-12")
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_signed_package_is_signed_data_version_3_over_the_package_by_the_ca(algorithm: KeyAlgorithm) -> None:
    ca = pki.ca(f"{algorithm} CA", algorithm=algorithm)
    bare = sign(ca=ca)
    message = cms.SignedData.load(bare, strict=True)
    assert message["version"].native == "v3"
    assert message["encap_content_info"]["content_type"].dotted == "2.16.840.1.101.2.1.2.78.5"
    assert [certificate.chosen.dump() for certificate in message["certificates"]] == [ca.der]
    (signer,) = message["signer_infos"]
    assert signer["sid"].name == "subject_key_identifier"
    (key,) = opened(bare, ca.certificate)
    assert same(key, KEY)


@pytest.mark.spec("EST-SKG-11")
def test_the_content_is_a_sequence_of_one_asymmetric_key() -> None:
    content = signed_data.parse_bare(sign()).content
    assert content == pki.sequence(key_package.private_key_info(KEY))


def test_several_keys_travel_together() -> None:
    other = generate_private_key(KeyAlgorithm.ED25519)
    first, second = opened(sign(KEY, other))
    assert same(first, KEY)
    assert same(second, other)


@pytest.mark.spec("EST-SKG-11")
@pytest.mark.parametrize("content_type", [SIGNED_DATA, DATA])
def test_a_content_info_around_the_signed_data_is_accepted(content_type: str) -> None:
    (key,) = opened(signed_data.content_info(SIGNED_DATA, sign()), content_type=content_type)
    assert same(key, KEY)


def test_openssl_verifies_a_signed_package(tmp_path: Path) -> None:
    ca = pki.ca("OpenSSL's key maker", not_before=EPOCH - timedelta(days=1))
    (tmp_path / "ca.pem").write_bytes(ca.pem)
    (tmp_path / "package.der").write_bytes(signed_data.content_info(SIGNED_DATA, sign(ca=ca)))
    command = ("openssl", "cms", "-verify", "-inform", "DER", "-in", "package.der", "-CAfile", "ca.pem", "-purpose", "any", "-binary")
    done = subprocess.run((*command, "-attime", str(int(EPOCH.timestamp()))), cwd=tmp_path, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    (key,) = key_package.decode(done.stdout)
    assert same(key, KEY)


# ---- who may sign


def certificate_of(usage: ObjectIdentifier, issuer: pki.Ca = CA) -> x509.Certificate:
    return pki.leaf(issuer, public_key=pki.key(owner="signer").public_key(), ekus=[usage])


def signed_by(certificate: x509.Certificate) -> bytes:
    return key_package.sign([KEY], certificate=certificate, signer=cms_signature.signer_of(pki.key(owner="signer")))


def test_a_certificate_of_the_ca_for_making_keys_may_sign() -> None:
    (key,) = opened(signed_by(certificate_of(KGA)))
    assert same(key, KEY)


@pytest.mark.parametrize(
    "certificate",
    [certificate_of(ExtendedKeyUsageOID.CLIENT_AUTH), certificate_of(KGA, OTHER_CA), pki.leaf(CA, signed_by=OTHER_CA.key, ekus=[KGA])],
    ids=["a device of the CA", "another CA's", "a forged one"],
)
def test_nobody_else_may(certificate: x509.Certificate) -> None:
    with pytest.raises(BadSignature):
        opened(signed_by(certificate))


def test_another_ca_may_not() -> None:
    with pytest.raises(BadSignature, match="not trusted"):
        opened(sign(ca=OTHER_CA))


def test_a_ca_of_the_same_name_and_another_key_may_not() -> None:
    twin = pki.ca("Key maker", private_key=pki.key(owner="twin"))
    with pytest.raises(BadSignature):
        opened(sign(ca=twin))


def test_an_altered_signature_is_refused() -> None:
    package = sign()
    for position in range(len(package) - 8, len(package)):  # the last octets of the signature's s
        altered = bytearray(package)
        altered[position] ^= 1
        with pytest.raises(BadSignature):
            opened(bytes(altered))


def test_a_package_without_signer_is_refused() -> None:
    unsigned = signed_data.build_bare(key_package.KEY_PACKAGE, key_package.encode([KEY]), [])
    with pytest.raises(BadSignature, match="nobody signed"):
        opened(unsigned)


def test_a_signer_whose_certificate_is_nowhere_is_refused() -> None:
    signer = cms_signature.signer_of(pki.key(owner="signer"))
    identifier = identifiers_of(certificate_of(KGA))[0]
    message = signed_data.build_bare(key_package.KEY_PACKAGE, key_package.encode([KEY]), [(identifier, signer)])
    with pytest.raises(BadSignature, match="is not there"):
        opened(message)


def test_a_certificate_that_cannot_be_read_is_refused() -> None:
    signer = cms_signature.signer_of(CA.key)  # type: ignore[arg-type]  # an EC key
    message = signed_data.build_bare(
        key_package.KEY_PACKAGE,
        key_package.encode([KEY]),
        [(identifiers_of(CA.certificate)[0], signer)],
        certificates_der=[pki.sequence(b"\x05\x00")],
    )
    with pytest.raises(MalformedBody, match="certificate beside"):
        opened(message)


# ---- altered messages


@pytest.mark.spec("EST-SKG-11", "THREAT-18")
@pytest.mark.parametrize("case", [recipients.CASES["kekri, AES-256"], recipients.CASES["kari, by serial"]], ids=["kekri", "kari"])
def test_no_altered_octet_of_an_encrypted_package_gives_another_key(case: recipients.Case) -> None:
    recipient, decryption_key = case
    message = enveloped_data.encrypt(sign(), SIGNED_DATA, [recipient], content_key=recipients.CONTENT_KEY, iv=recipients.IV)
    for position in range(len(message)):
        altered = bytearray(message)
        altered[position] ^= 1 << position % 8
        with suppress(EstError):
            content_type, content = enveloped_data.decrypt(bytes(altered), [decryption_key])
            (key,) = opened(content, content_type=content_type)
            assert same(key, KEY), "an altered key was believed"


def test_what_is_not_signed_data_over_a_key_package_is_refused() -> None:
    assert isinstance(CA.key, PrivateKey)
    signer = (identifiers_of(CA.certificate)[0], cms_signature.signer_of(CA.key))
    for content_type, content, why in (
        ("1.2.840.113549.1.7.5", sign(), "not SignedData"),
        (SIGNED_DATA, signed_data.build_bare(DATA, key_package.encode([KEY]), [signer]), "not an AsymmetricKeyPackage"),
        (SIGNED_DATA, signed_data.build_bare(key_package.KEY_PACKAGE, pki.sequence(), [signer]), "holds no key"),
        (SIGNED_DATA, b"", "empty"),
        (SIGNED_DATA, b"\x05\x00", "tag"),
        (SIGNED_DATA, signed_data.content_info(DATA, pki.sequence()), "not SignedData"),
        (SIGNED_DATA, bytes(key_package.MAX_OCTETS + 1), "more than"),
    ):
        with pytest.raises(MalformedBody, match=why):
            opened(content, content_type=content_type)


@pytest.mark.parametrize("length", range(0, 400, 7))
def test_a_package_cut_off_is_refused(length: int) -> None:
    with pytest.raises(EstError):
        opened(sign()[:length])


# ---- OneAsymmetricKey


ED25519 = pki.key(KeyAlgorithm.ED25519, "delivered")
ED25519_INFO = key_package.private_key_info(ED25519)
ED25519_ALGORITHM = pki.sequence(pki.oid("1.3.101.112"))
SECRET = ED25519.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
PUBLIC = ED25519.public_key().public_bytes_raw()  # type: ignore[union-attr]  # an Ed25519 key


def one_asymmetric_key(
    *,
    version: int = 1,
    algorithm: bytes = ED25519_ALGORITHM,
    attributes: bytes = b"",
    public: bytes | None = b"\x00" + PUBLIC,
    after: bytes = b"",
) -> bytes:
    """RFC 5958 section 2 by hand."""
    private = pki.tlv(0x04, pki.tlv(0x04, SECRET))
    public_key = b"" if public is None else pki.tlv(0x81, public)
    return pki.sequence(pki.tlv(0x02, bytes([version])), algorithm, private, attributes, public_key, after)


ATTRIBUTES = pki.tlv(0xA0, pki.attribute("1.2.840.113549.1.9.20", pki.tlv(0x1E, "key".encode("utf-16-be"))))


@pytest.mark.spec("EST-SKG-10")
@pytest.mark.parametrize(
    "key_der",
    [
        one_asymmetric_key(),
        one_asymmetric_key(attributes=ATTRIBUTES),
        one_asymmetric_key(version=0, public=None),
        one_asymmetric_key(version=0, public=None, attributes=ATTRIBUTES),
    ],
    ids=["version 2", "version 2 with attributes", "version 1", "version 1 with attributes"],
)
def test_both_versions_are_read(key_der: bytes) -> None:
    assert same(key_package.load_private_key(key_der), ED25519)


@pytest.mark.spec("EST-SKG-10")
def test_published_keys_are_read() -> None:
    for name in ("rfc7030-a4-serverkeygen-pkcs8-part", "rfc9148-a3-skg-pkcs8"):
        key_der = transfer.decode_body(vectors.body(name))
        assert key_package.private_key_info(key_package.load_private_key(key_der))


@pytest.mark.parametrize(
    ("key_der", "why"),
    [
        (one_asymmetric_key(version=0), "does not fit"),
        (one_asymmetric_key(version=1, public=None), "does not fit"),
        (one_asymmetric_key(version=2), "does not fit"),
        (one_asymmetric_key(public=b"\x00" + bytes(32)), "another key's"),
        (one_asymmetric_key(after=b"\x05\x00"), "more than"),
        (one_asymmetric_key(algorithm=pki.sequence(pki.oid("2.999"))), "cannot be read"),
        (one_asymmetric_key(algorithm=pki.sequence(pki.oid("1.3.101.110")), version=0, public=None), "not RSA, EC or Ed25519"),
        (ED25519_INFO[:-1], "cut off"),
        (ED25519_INFO + b"\x00", "do not belong"),
        (b"-----BEGIN PRIVATE KEY-----", "cut off"),
    ],
    ids=[
        *("version 1 with a public key", "version 2 without", "version 3", "another public key", "more", "unknown algorithm", "X25519"),
        *("cut off", "followed", "PEM"),
    ],
)
def test_another_key_is_refused(key_der: bytes, why: str) -> None:
    with pytest.raises(MalformedBody, match=why) as caught:
        key_package.load_private_key(key_der)
    assert SECRET.hex() not in str(caught.value)


def test_an_encrypted_key_and_a_dsa_key_are_refused() -> None:
    encrypted = KEY.private_bytes(Encoding.DER, PrivateFormat.PKCS8, BestAvailableEncryption(b"password"))
    dsa_key = dsa.generate_private_key(2048).private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    for key_der in (encrypted, dsa_key):
        with pytest.raises(MalformedBody):
            key_package.load_private_key(key_der)


def test_no_key_makes_no_package() -> None:
    with pytest.raises(ValueError, match="at least one"):
        key_package.encode([])


def test_more_keys_than_eight_are_refused() -> None:
    with pytest.raises(MalformedBody, match="more than 8"):
        key_package.decode(pki.sequence(*[key_package.private_key_info(KEY)] * 9))


@given(st.binary(max_size=200))
def test_nothing_but_our_error_escapes(octets: bytes) -> None:
    for read in (key_package.load_private_key, key_package.decode, opened):
        with suppress(EstError):
            read(octets)


@pytest.mark.spec("THREAT-18")
def test_ten_thousand_keys_are_distinct() -> None:
    points = {generate_private_key(KeyAlgorithm.ECDSA_P256).private_numbers().private_value for _ in range(10_000)}  # type: ignore[union-attr]  # EC
    assert len(points) == 10_000
