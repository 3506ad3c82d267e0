"""The key that a server-generated key is to be encrypted for, from the options of the command line."""

import re
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from estclient import files, keyfile
from estcore.errors import ConfigurationError
from estcore.key_encryption import KeyWrap
from estcore.recipient_info import DecryptionKey, KeyEncryptionKey, RecipientKey, identifiers_of, key_identifier
from estcore.signed_data import SubjectKeyIdentifier

_HEX = re.compile(r"[0-9A-Fa-f]+")


def decryption_key_from(
    *, kek_id: str | None, kek_file: Path | None, decrypt_key: Path | None, decrypt_cert: Path | None
) -> DecryptionKey | None:
    """A symmetric key by --kek-id and --kek-file, a private key by --decrypt-key and perhaps --decrypt-cert; None where neither is given.

    Raises ConfigurationError.
    """
    if (kek_id is None) != (kek_file is None):
        raise ConfigurationError("--kek-id and --kek-file belong together")
    if decrypt_cert is not None and decrypt_key is None:
        raise ConfigurationError("--decrypt-cert belongs to --decrypt-key")
    if kek_id is not None and kek_file is not None:
        if decrypt_key is not None:
            raise ConfigurationError("have the key encrypted by one of --kek-id with --kek-file, and --decrypt-key")
        return KeyEncryptionKey(key=_symmetric(kek_file), key_identifier=_identifier(kek_id))
    return None if decrypt_key is None else _recipient(decrypt_key, decrypt_cert)


def _symmetric(path: Path) -> bytes:
    digits = files.read_line(path, what="symmetric key").strip()
    if not _HEX.fullmatch(digits) or len(digits) not in {2 * wrap.value for wrap in KeyWrap}:
        raise ConfigurationError("is not 32, 48 or 64 hexadecimal digits", where=str(path))
    return bytes.fromhex(digits)


def _identifier(text: str) -> bytes:
    """As the server's Secret names its entries: the text's octets, or those that hexadecimal digits after 0x stand for."""
    if not text.startswith("0x"):
        identifier = text.encode()
    else:
        try:
            identifier = bytes.fromhex(text.removeprefix("0x"))
        except ValueError as error:
            raise ConfigurationError("after 0x come hexadecimal digits, two for each octet", field="--kek-id") from error
    if not identifier:
        raise ConfigurationError("it is empty", field="--kek-id")
    return identifier


def _recipient(key_path: Path, certificate_path: Path | None) -> RecipientKey:
    private_key = keyfile.parse(files.read(key_path, what="private key"), where=key_path)
    if not isinstance(private_key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise ConfigurationError("nothing can be decrypted with an Ed25519 key; give an RSA or EC key", where=str(key_path))
    by_hash = SubjectKeyIdentifier(key_identifier(private_key.public_key()))
    if certificate_path is None:
        return RecipientKey(private_key=private_key, identifiers=(by_hash,))
    certificate = keyfile.parse_certificate(files.read(certificate_path, what="certificate"), where=certificate_path)
    if certificate.public_key() != private_key.public_key():
        raise ConfigurationError("is not the certificate of --decrypt-key", where=str(certificate_path))
    return RecipientKey(private_key=private_key, identifiers=(*identifiers_of(certificate), by_hash))
