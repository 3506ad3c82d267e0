"""The key that a client enrols with: one that signs its CSR, or none (RFC 5272 section 3.1)."""

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import x448, x25519
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from estclient import keyfile
from estcore.errors import ConfigurationError
from estcore.issuer_spec import KeyAlgorithm
from tests import pki


def pem(key: PrivateKeyTypes) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.spec("EST-ENROLL-04")
@pytest.mark.parametrize("make", [x25519.X25519PrivateKey.generate, x448.X448PrivateKey.generate], ids=["X25519", "X448"])
def test_a_key_that_cannot_sign_is_refused_before_anything_is_sent(
    make: Callable[[], x25519.X25519PrivateKey | x448.X448PrivateKey], tmp_path: Path
) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(pem(make()))
    with pytest.raises(ConfigurationError, match="cannot sign a CSR"):
        keyfile.load_or_make(path, KeyAlgorithm.ECDSA_P256)


def test_a_key_with_a_passphrase_and_what_is_no_key_are_told_apart_from_those_that_are(tmp_path: Path) -> None:
    encrypted = pki.key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"passphrase"))
    for content in (encrypted, b"", b"-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n"):
        with pytest.raises(ConfigurationError, match="without a passphrase"):
            keyfile.parse(content, where=tmp_path)
    assert keyfile.parse(pki.key_pem(pki.key()), where=tmp_path).public_key() == pki.key().public_key()
