"""estserver's own TLS certificate: a small root of its own and a server certificate under it, both renewed in time. Pure.

This root is no issuer's CA and signs nothing but this server's certificates; clients trust it to reach the server at all, before
they know any issuer (RFC 7030 section 3.6.1, explicit trust anchors). Nobody runs `curl -k`.

* The server certificate lives 90 days and is replaced after 60, or at once when the names change.
* A root lives ten years. A year before its end the next root is made and published beside it; it signs only when it has been
  published for 30 days, so every client that refreshes its bundle once a month meets no gap.
"""

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from estcore import authority
from estcore.errors import ConfigurationError
from estcore.issuer_spec import Generate

SERVER_LIFE = timedelta(days=90)
SERVER_RENEWAL = SERVER_LIFE * 2 / 3
ROOT_LIFE = timedelta(days=3650)
NEXT_ROOT_AHEAD = timedelta(days=365)
PUBLISHED_BEFORE_USE = timedelta(days=30)
BACKDATE = timedelta(minutes=5)  # for clients whose clock is a little behind; part of the life, not added to it
MAX_NAMES = 100

Serial = Callable[[], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingKeys:
    """All that is kept of it, PEM. `bundle_pem` is what clients trust: every root that is not expired, the signing one among them."""

    chain_pem: bytes
    key_pem: bytes = field(repr=False)
    bundle_pem: bytes
    root_pem: bytes = b""
    root_key_pem: bytes = field(default=b"", repr=False)
    next_root_pem: bytes = b""
    next_root_key_pem: bytes = field(default=b"", repr=False)


_MEMBERS = {
    "chain_pem": "tls.crt",
    "key_pem": "tls.key",
    "bundle_pem": "ca.crt",
    "root_pem": "root.crt",
    "root_key_pem": "root.key",
    "next_root_pem": "next-root.crt",
    "next_root_key_pem": "next-root.key",
}


def to_data(keys: ServingKeys) -> dict[str, bytes]:
    """As members of a kubernetes.io/tls Secret."""
    return {member: value for name, member in _MEMBERS.items() if (value := getattr(keys, name))}


def from_data(data: Mapping[str, bytes]) -> ServingKeys:
    """The inverse of `to_data`, also for a Secret that a person or cert-manager made (then there is no root key)."""
    return ServingKeys(**{name: data.get(member, b"") for name, member in _MEMBERS.items()})


def check(keys: ServingKeys, *, now: datetime, where: str) -> x509.Certificate:
    """The server certificate, where certificate and key are a pair and it is valid at `now`; else raises ConfigurationError."""
    try:
        certificate = x509.load_pem_x509_certificates(keys.chain_pem)[0]
        matches = load_pem_private_key(keys.key_pem, password=None).public_key() == certificate.public_key()
    except (ValueError, TypeError) as error:
        raise ConfigurationError("tls.crt or tls.key is not PEM of a certificate and its unencrypted key", where=where) from error
    if not matches:
        raise ConfigurationError("tls.key is not the key of the certificate in tls.crt", where=where)
    if not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc:
        begin, end = certificate.not_valid_before_utc.isoformat(), certificate.not_valid_after_utc.isoformat()
        raise ConfigurationError(f"the certificate is valid from {begin} to {end} only", where=where)
    return certificate


def renewed(keys: ServingKeys | None, names: Sequence[str], *, now: datetime, serial: Serial) -> ServingKeys:
    """What should be in use at `now` for a server of these names; the very same object when nothing is due.

    `names` are DNS names and IP addresses as text, at least one; raises ConfigurationError for anything else. Unusable keys are replaced.
    """
    sans = subject_alternative_names(names)
    if keys is None or not _root_usable(keys.root_pem, keys.root_key_pem, now):
        key_pem, root_pem = _make_root(now, serial)
        keys = ServingKeys(chain_pem=b"", key_pem=b"", bundle_pem=_bundle(keys, root_pem, now), root_pem=root_pem, root_key_pem=key_pem)
    keys = _with_next_root(keys, now, serial)
    keys = _with_root_in_turn(keys, now)
    if (bundle_pem := _bundle(keys, keys.root_pem, now)) != keys.bundle_pem:
        keys = replace(keys, bundle_pem=bundle_pem)
    return keys if _leaf_in_order(keys, sans, now) else _with_new_leaf(keys, sans, now, serial())


def subject_alternative_names(names: Sequence[str]) -> tuple[x509.DNSName | x509.IPAddress, ...]:
    """DNS names and IP addresses in order, each once. Raises ConfigurationError naming the one that is neither."""
    if not 0 < len(names) <= MAX_NAMES:
        raise ConfigurationError(f"a server has 1 to {MAX_NAMES} names", where="--server-name")
    found: list[x509.DNSName | x509.IPAddress] = []
    for name in names:
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
            continue
        except ValueError:
            pass
        labels = name.lower().split(".")
        if len(name) > 253 or not all(
            0 < len(label) <= 63 and label.isascii() and label.replace("-", "").isalnum() and label[0] != "-" != label[-1]
            for label in labels
        ):
            raise ConfigurationError(f"{name[:64]!r} is neither a DNS name nor an IP address", where="--server-name")
        found.append(x509.DNSName(name.lower()))
    return tuple(dict.fromkeys(found))


def _root_usable(root_pem: bytes, root_key_pem: bytes, now: datetime) -> bool:
    try:
        root = x509.load_pem_x509_certificate(root_pem)
        key = load_pem_private_key(root_key_pem, password=None)
    except (ValueError, TypeError):
        return False
    return key.public_key() == root.public_key() and now < root.not_valid_after_utc


def _make_root(now: datetime, serial: Serial) -> tuple[bytes, bytes]:
    number = serial()
    # A name of its own for each root: two roots of one name and two keys would make clients try the wrong one.
    spec = Generate(common_name=f"est-issuer serving root {number & 0xFFFFFFFF:08x}", duration=ROOT_LIFE)
    return authority.generate_ca(spec, now=now, serial=number)


def _bundle(keys: ServingKeys | None, added_pem: bytes, now: datetime) -> bytes:
    """The roots that are published already and not expired, and the added one, last where it is new."""
    try:
        former = x509.load_pem_x509_certificates(keys.bundle_pem) if keys is not None and keys.bundle_pem else []
    except ValueError:
        former = []
    roots = [*(root for root in former if now < root.not_valid_after_utc), x509.load_pem_x509_certificate(added_pem)]
    return b"".join(root.public_bytes(Encoding.PEM) for root in dict.fromkeys(roots))


def _with_next_root(keys: ServingKeys, now: datetime, serial: Serial) -> ServingKeys:
    root = x509.load_pem_x509_certificate(keys.root_pem)
    if _root_usable(keys.next_root_pem, keys.next_root_key_pem, now) or now < root.not_valid_after_utc - NEXT_ROOT_AHEAD:
        return keys
    key_pem, root_pem = _make_root(now, serial)
    return replace(keys, next_root_pem=root_pem, next_root_key_pem=key_pem, bundle_pem=_bundle(keys, root_pem, now))


def _with_root_in_turn(keys: ServingKeys, now: datetime) -> ServingKeys:
    if not _root_usable(keys.next_root_pem, keys.next_root_key_pem, now):
        return keys
    next_root = x509.load_pem_x509_certificate(keys.next_root_pem)
    if now < next_root.not_valid_before_utc + PUBLISHED_BEFORE_USE:
        return keys
    return replace(
        keys,
        root_pem=keys.next_root_pem,
        root_key_pem=keys.next_root_key_pem,
        next_root_pem=b"",
        next_root_key_pem=b"",
        bundle_pem=_bundle(keys, keys.next_root_pem, now),
    )


def _leaf_in_order(keys: ServingKeys, sans: tuple[x509.GeneralName, ...], now: datetime) -> bool:
    try:
        leaf = check(keys, now=now, where="")
        leaf.verify_directly_issued_by(x509.load_pem_x509_certificate(keys.root_pem))
        held = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ConfigurationError, InvalidSignature, x509.ExtensionNotFound, ValueError, TypeError):
        return False  # whatever is wrong with it, the remedy is a new one
    return set(held) == set(sans) and now < leaf.not_valid_before_utc + SERVER_RENEWAL


def _with_new_leaf(keys: ServingKeys, sans: tuple[x509.GeneralName, ...], now: datetime, serial: int) -> ServingKeys:
    root = x509.load_pem_x509_certificate(keys.root_pem)
    root_key = load_pem_private_key(keys.root_key_pem, password=None)
    if not isinstance(root_key, ec.EllipticCurvePrivateKey):
        raise ConfigurationError("root.key is not the ECDSA key that estserver makes", where="the serving Secret")
    key = ec.generate_private_key(ec.SECP256R1())
    begin = (now - BACKDATE).replace(microsecond=0)
    usages = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "key_cert_sign", "crl_sign", "encipher_only"),
        False,
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "estserver")]))
        .issuer_name(root.subject)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(begin)
        .not_valid_after(min(begin + SERVER_LIFE - timedelta(seconds=1), root.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(digital_signature=True, decipher_only=False, **usages), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(sans), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_authority_key_identifier(root), critical=False)
        .sign(root_key, hashes.SHA256())
    )
    key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return replace(keys, chain_pem=certificate.public_bytes(Encoding.PEM), key_pem=key_pem)


def _authority_key_identifier(root: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    held = root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(held)
