"""`estserver roll-over`: files in, the roll-over set of a CA as PEM out."""

import secrets
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from estcore import authority, roll_over
from estcore.errors import ConfigurationError
from estcore.keys import PrivateKey


def rollover_pem(old_certificate: Path, old_key: Path, new_certificate: Path, new_key: Path) -> str:
    """OldWithOld, OldWithNew and NewWithOld. Raises ConfigurationError that names the file or says why the two are no roll-over."""
    old, new = _certificate(old_certificate), _certificate(new_certificate)
    serials = tuple(authority.serial_number(secrets.token_bytes(16)) for _ in range(2))
    links = roll_over.link_certificates(old, _key(old_key), new, _key(new_key), serials=(serials[0], serials[1]))
    return "".join(certificate.public_bytes(Encoding.PEM).decode() for certificate in (old, *links))


def _certificate(file: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(_read(file))
    except ValueError as error:
        raise ConfigurationError("it holds no PEM certificate that can be read", where=str(file)) from error


def _key(file: Path) -> PrivateKey:
    try:
        key = load_pem_private_key(_read(file), password=None)
    except (ValueError, TypeError) as error:
        raise ConfigurationError("it holds no unencrypted PEM private key that can be read", where=str(file)) from error
    if not isinstance(key, PrivateKey):
        raise ConfigurationError("its kind of key is no CA's here; use ECDSA, RSA or Ed25519", where=str(file))
    return key


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"it cannot be read: {error.strerror}", where=str(file)) from error
