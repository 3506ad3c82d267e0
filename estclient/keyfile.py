"""Private keys and certificates as PEM files.

A key that is to take the place of another waits beside it, in `<name>.new`, until its certificate is written; only then it moves. So at
any moment the pair in place belongs together, or the key that the certificate belongs to is the one that waits.
"""

from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from estclient import files
from estcore.errors import ConfigurationError
from estcore.issuer_spec import KeyAlgorithm
from estcore.keys import PrivateKey, generate_private_key, key_algorithm, spki_der


def load_or_make(path: Path, algorithm: KeyAlgorithm | None, *, advised: KeyAlgorithm = KeyAlgorithm.ECDSA_P256) -> PrivateKey:
    """The key in `path`, or a new one that is written there with mode 0600 first.

    Where no `algorithm` is demanded a new key is of the `advised` one, and a key that is there may be of any.
    Raises ConfigurationError where the file holds something else, or a key of another algorithm than the one demanded.
    """
    if not path.exists():
        key = generate_private_key(algorithm or advised)
        files.write(path, to_pem(key), private=True)
        return key
    key = parse(files.read(path, what="private key"), where=path)
    if algorithm is not None and key_algorithm(key.public_key()) is not algorithm:
        raise ConfigurationError(f"there is a key already, and it is not of {algorithm}", where=str(path))
    return key


def current(path: Path, certificate: x509.Certificate) -> PrivateKey:
    """The key in `path`. Where the key that waits beside it is the certificate's instead, it moves into its place first.

    Raises ConfigurationError.
    """
    key, waiting = parse(files.read(path, what="private key"), where=path), beside(path)
    if _is_of(key, certificate) or not waiting.exists():
        return key
    successor = parse(files.read(waiting, what="private key"), where=waiting)
    if not _is_of(successor, certificate):
        return key
    put_in_place(path, successor)
    return successor


def successor(path: Path, algorithm: KeyAlgorithm, certificate: x509.Certificate) -> PrivateKey:
    """The key that waits to take the place of that in `path`, or a new one that is written there with mode 0600 first.

    It is another one than that of the certificate. Raises ConfigurationError, as `load_or_make`.
    """
    waiting = beside(path)
    if waiting.exists() and _is_of(parse(files.read(waiting, what="private key"), where=waiting), certificate):
        files.remove(waiting)  # a copy: it took its place already
    return load_or_make(waiting, algorithm)


def put_in_place(path: Path, key: PrivateKey) -> None:
    """Write the key that waited, whose certificate is written. Raises ConfigurationError."""
    files.write(path, to_pem(key), private=True)
    files.remove(beside(path))


def beside(path: Path) -> Path:
    """Where the next key waits."""
    return path.with_name(f"{path.name}.new")


def _is_of(key: PrivateKey, certificate: x509.Certificate) -> bool:
    return spki_der(key.public_key()) == spki_der(certificate.public_key())


def parse(pem: bytes, *, where: Path) -> PrivateKey:
    """A private key, not encrypted; raises ConfigurationError."""
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigurationError("is no private key in PEM without a passphrase", where=str(where)) from error
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey):
        raise ConfigurationError("is a key that cannot sign a CSR here: RSA, ECDSA or Ed25519", where=str(where))
    return key


def parse_certificate(pem: bytes, *, where: Path) -> x509.Certificate:
    """The first certificate of a PEM file; raises ConfigurationError."""
    try:
        return x509.load_pem_x509_certificates(pem)[0]
    except ValueError as error:
        raise ConfigurationError("is no certificate in PEM", where=str(where)) from error


def to_pem(key: PrivateKey) -> bytes:
    """PKCS#8, not encrypted."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
