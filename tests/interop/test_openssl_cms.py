"""`openssl cms`: what we encrypt it decrypts, and what it encrypts we decrypt."""

import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from estcore import auth_enveloped_data, enveloped_data
from estcore.issuer_spec import KeyAlgorithm
from estcore.key_encryption import KeyAgreement, KeyTransport, KeyWrap
from estcore.recipient_info import KeyAgreementRecipient, KeyEncryptionKey, KeyTransportRecipient, RecipientKey, identifiers_of
from estcore.signed_data import DATA, SIGNED_DATA
from tests import pki

CONTENT = b"content of any kind\x00\xff" * 20
CA = pki.ca("Recipients' CA")


def run(folder: Path, *command: str) -> bytes:
    done = subprocess.run(command, cwd=folder, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def recipient_files(folder: Path, algorithm: KeyAlgorithm) -> RecipientKey:
    """key.pem and certificate.pem of a recipient."""
    private_key = pki.key(algorithm, "openssl recipient")
    assert isinstance(private_key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey)
    usage = pki.key_usage("key_encipherment" if isinstance(private_key, rsa.RSAPrivateKey) else "key_agreement")
    certificate = pki.leaf(CA, public_key=private_key.public_key(), usage=usage, ekus=())
    (folder / "key.pem").write_bytes(pki.key_pem(private_key))
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return RecipientKey(private_key=private_key, identifiers=identifiers_of(certificate))


def encrypted(folder: Path, recipient: KeyTransportRecipient | KeyAgreementRecipient | KeyEncryptionKey, octets: int) -> None:
    message = enveloped_data.encrypt(CONTENT, SIGNED_DATA, [recipient], content_key=bytes(range(octets)), iv=bytes(16))
    (folder / "message.der").write_bytes(message)


@pytest.mark.spec("EST-SKG-12")
@pytest.mark.parametrize("wrap", KeyWrap)
def test_a_key_both_sides_have(tmp_path: Path, wrap: KeyWrap) -> None:
    key = KeyEncryptionKey(key=bytes(range(wrap.value)), key_identifier=b"\x01kek")
    options = ("-secretkey", key.key.hex(), "-secretkeyid", key.key_identifier.hex())
    encrypted(tmp_path, key, wrap.value)
    assert run(tmp_path, "openssl", "cms", "-decrypt", "-inform", "DER", "-in", "message.der", *options) == CONTENT

    (tmp_path / "content").write_bytes(CONTENT)
    run(
        tmp_path,
        *("openssl", "cms", "-encrypt", "-binary", "-in", "content", "-outform", "DER", "-out", "theirs.der"),
        *(f"-aes{8 * wrap.value}", *options),
    )
    assert enveloped_data.decrypt((tmp_path / "theirs.der").read_bytes(), [key]) == (DATA, CONTENT)


@pytest.mark.parametrize("octets", [16, 24, 32])
def test_what_it_encrypts_with_aes_gcm_we_decrypt(tmp_path: Path, octets: int) -> None:
    """The other way round OpenSSL 3.0 does not go: it cannot parse authAttrs, which content other than id-data has (RFC 5083)."""
    key = KeyEncryptionKey(key=bytes(range(octets)), key_identifier=b"\x01kek")
    (tmp_path / "content").write_bytes(CONTENT)
    run(
        tmp_path,
        *("openssl", "cms", "-encrypt", "-binary", "-in", "content", "-outform", "DER", "-out", "theirs.der"),
        *(f"-aes-{8 * octets}-gcm", "-secretkey", key.key.hex(), "-secretkeyid", key.key_identifier.hex()),
    )
    assert auth_enveloped_data.decrypt((tmp_path / "theirs.der").read_bytes(), [key]) == (DATA, CONTENT)


@pytest.mark.spec("EST-SKG-13")
@pytest.mark.parametrize("by_serial", [False, True])
@pytest.mark.parametrize(
    ("algorithm", "options"),
    [
        (KeyTransport.OAEP_SHA256, ("rsa_padding_mode:oaep", "rsa_oaep_md:sha256")),
        (KeyTransport.OAEP_SHA384, ("rsa_padding_mode:oaep", "rsa_oaep_md:sha384")),
        (KeyTransport.OAEP_SHA512, ("rsa_padding_mode:oaep", "rsa_oaep_md:sha512")),
        (KeyTransport.PKCS1_V15, ("rsa_padding_mode:pkcs1",)),
    ],
)
def test_an_rsa_key(tmp_path: Path, algorithm: KeyTransport, options: tuple[str, ...], *, by_serial: bool) -> None:
    key = recipient_files(tmp_path, KeyAlgorithm.RSA_2048)
    assert isinstance(key.private_key, rsa.RSAPrivateKey)
    identifier = key.identifiers[by_serial]
    encrypted(tmp_path, KeyTransportRecipient(public_key=key.private_key.public_key(), identifier=identifier, algorithm=algorithm), 16)
    decrypt = ("openssl", "cms", "-decrypt", "-inform", "DER", "-in", "message.der", "-inkey", "key.pem", "-recip", "certificate.pem")
    assert run(tmp_path, *decrypt) == CONTENT

    (tmp_path / "content").write_bytes(CONTENT)
    keyopts = [part for option in options for part in ("-keyopt", option)]
    encrypt = ("openssl", "cms", "-encrypt", "-binary", "-in", "content", "-outform", "DER", "-out", "theirs.der", "-aes128")
    run(tmp_path, *encrypt, *(() if by_serial else ("-keyid",)), "-recip", "certificate.pem", *keyopts)
    assert enveloped_data.decrypt((tmp_path / "theirs.der").read_bytes(), [key]) == (DATA, CONTENT)


@pytest.mark.spec("EST-SKG-14")
@pytest.mark.parametrize("by_serial", [False, True])
@pytest.mark.parametrize(
    ("curve", "scheme", "digest", "wrap"),
    [
        (KeyAlgorithm.ECDSA_P256, KeyAgreement.STD_DH_SHA256, "sha256", KeyWrap.AES_128),
        (KeyAlgorithm.ECDSA_P256, KeyAgreement.STD_DH_SHA384, "sha384", KeyWrap.AES_192),
        (KeyAlgorithm.ECDSA_P384, KeyAgreement.STD_DH_SHA384, "sha384", KeyWrap.AES_256),
        (KeyAlgorithm.ECDSA_P384, KeyAgreement.STD_DH_SHA256, "sha256", KeyWrap.AES_256),
    ],
)
def test_an_ec_key(tmp_path: Path, curve: KeyAlgorithm, scheme: KeyAgreement, digest: str, wrap: KeyWrap, *, by_serial: bool) -> None:
    key = recipient_files(tmp_path, curve)
    assert isinstance(key.private_key, ec.EllipticCurvePrivateKey)
    recipient = KeyAgreementRecipient(
        public_key=key.private_key.public_key(), identifier=key.identifiers[by_serial], algorithm=scheme, wrap=wrap
    )
    encrypted(tmp_path, recipient, wrap.value)
    decrypt = ("openssl", "cms", "-decrypt", "-inform", "DER", "-in", "message.der", "-inkey", "key.pem", "-recip", "certificate.pem")
    assert run(tmp_path, *decrypt) == CONTENT

    (tmp_path / "content").write_bytes(CONTENT)
    encrypt = ("openssl", "cms", "-encrypt", "-binary", "-in", "content", "-outform", "DER", "-out", "theirs.der", f"-aes{8 * wrap.value}")
    options = (*(() if by_serial else ("-keyid",)), f"-aes{8 * wrap.value}-wrap", "-recip", "certificate.pem")
    run(tmp_path, *encrypt, *options, "-keyopt", f"ecdh_kdf_md:{digest}")
    assert enveloped_data.decrypt((tmp_path / "theirs.der").read_bytes(), [key]) == (DATA, CONTENT)
