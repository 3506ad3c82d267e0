"""DER of a certificate to be signed: RFC 5280 section 4.1, assembled from a `Plan` and the issuer's fixed pieces.

Only the fixed frame is put together here; names and extension values are encoded by `cryptography`. `CertificateBuilder` encodes the
issuer's constants and the key anew for each certificate: 67 µs, where this takes 10, beside a P-256 signature of 22. A test holds
both to the same octets.
"""

from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from hashlib import sha1
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtensionOID, ObjectIdentifier

from estcore.der import BIT_STRING, INTEGER, OCTET_STRING, SEQUENCE, member, object_identifier, tlv
from estcore.extension_request import CMC_RA
from estcore.profile import Plan
from estcore.usages import EXTENDED_KEY_USAGES, KEY_USAGE_BITS, Usage

_UTC_TIME: Final = 0x17
_GENERALIZED_TIME: Final = 0x18
_VERSION_3: Final = bytes.fromhex("a003020102")
_TRUE: Final = bytes.fromhex("0101ff")
_EXTENSIONS: Final = 0xA3
_SHA1_OCTETS: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerPieces:
    """What is the same in all certificates of one CA certificate, encoded once."""

    signature_algorithm: bytes
    name: bytes
    authority_key_identifier: bytes
    """The whole extension."""


def issuer_pieces(ca_certificate: x509.Certificate, signature_algorithm: bytes) -> IssuerPieces:
    """Encode them. The AKI holds the CA's own SKI where it has one (RFC 5280 section 4.2.1.1), else method 1 over its key."""
    try:
        ski = ca_certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        aki = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ski)
    except x509.ExtensionNotFound:
        spki_der = ca_certificate.public_key().public_bytes(
            Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        )  # a signer's may be of any kind
        aki = x509.AuthorityKeyIdentifier(key_identifier(spki_der), None, None)
    return IssuerPieces(
        signature_algorithm=signature_algorithm,
        name=ca_certificate.subject.public_bytes(),
        authority_key_identifier=_extension(aki.oid, aki.public_bytes()),
    )


def encode(plan: Plan, issuer: IssuerPieces, serial: int) -> bytes:
    """The DER TBSCertificate; `serial` is positive."""
    extensions = [
        _SUBJECT_KEY_IDENTIFIER + key_identifier(plan.spki_der),
        issuer.authority_key_identifier,
        *((_CA_USAGES, _SUBORDINATE_CA) if plan.ca else (_usage_extensions(plan.usages, cmc_ra=plan.cmc_ra), _NOT_A_CA)),
    ]
    if plan.sans:
        value = x509.SubjectAlternativeName(plan.sans).public_bytes()
        extensions.append(_extension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, value, critical=not plan.subject.rdns))
    return tlv(
        SEQUENCE,
        b"".join(
            (
                _VERSION_3,
                tlv(INTEGER, serial.to_bytes(serial.bit_length() // 8 + 1)),
                issuer.signature_algorithm,
                issuer.name,
                _validity(plan.not_before, plan.not_after),
                plan.subject.public_bytes(),
                plan.spki_der,
                tlv(_EXTENSIONS, tlv(SEQUENCE, b"".join(extensions))),
            )
        ),
    )


def sealed(tbs_der: bytes, issuer: IssuerPieces, signature: bytes) -> bytes:
    """The DER Certificate from its signed part and the signature."""
    return tlv(SEQUENCE, tbs_der + issuer.signature_algorithm + tlv(BIT_STRING, b"\x00" + signature))


def key_identifier(spki_der: bytes) -> bytes:
    """SHA-1 of the key's bits: method 1 of RFC 5280 section 4.2.1.2, where SHA-1 names and protects nothing."""
    what = "the public key"
    content, end = member(spki_der, 0, len(spki_der), SEQUENCE, what=what)
    _, algorithm_end = member(spki_der, content, end, SEQUENCE, what=what)
    bits, end = member(spki_der, algorithm_end, end, BIT_STRING, what=what)
    return sha1(spki_der[bits + 1 : end], usedforsecurity=False).digest()


@lru_cache(maxsize=64)
def _validity(not_before: datetime, not_after: datetime) -> bytes:
    """All certificates of one second share it: a busy server encodes it once."""
    return tlv(SEQUENCE, _time(not_before) + _time(not_after))


def _time(moment: datetime) -> bytes:
    """UTCTime through 2049, GeneralizedTime from 2050 on (RFC 5280 section 4.1.2.5)."""
    if moment.year < 2050:
        return tlv(_UTC_TIME, moment.strftime("%y%m%d%H%M%SZ").encode())
    return tlv(_GENERALIZED_TIME, moment.strftime("%Y%m%d%H%M%SZ").encode())


def _extension(oid: ObjectIdentifier, value_der: bytes, *, critical: bool = False) -> bytes:
    header = _extension_header(oid, critical=critical)
    return tlv(SEQUENCE, header + tlv(OCTET_STRING, value_der))


@lru_cache(maxsize=32)
def _extension_header(oid: ObjectIdentifier, *, critical: bool) -> bytes:
    return object_identifier(oid.dotted_string) + (_TRUE if critical else b"")


_SUBJECT_KEY_IDENTIFIER: Final = _extension(ExtensionOID.SUBJECT_KEY_IDENTIFIER, tlv(OCTET_STRING, bytes(_SHA1_OCTETS)))[:-_SHA1_OCTETS]
"""The extension up to the identifier, which always has as many octets."""

_NOT_A_CA: Final = _extension(
    ExtensionOID.BASIC_CONSTRAINTS, x509.BasicConstraints(ca=False, path_length=None).public_bytes(), critical=True
)


_SUBORDINATE_CA: Final = _extension(
    ExtensionOID.BASIC_CONSTRAINTS, x509.BasicConstraints(ca=True, path_length=0).public_bytes(), critical=True
)
_CA_USAGES: Final = _extension(ExtensionOID.KEY_USAGE, bytes.fromhex("03020106"), critical=True)
"""keyCertSign and cRLSign: bits 5 and 6 (RFC 5280 section 4.2.1.3)."""


@lru_cache(maxsize=1024)
def _usage_extensions(usages: frozenset[Usage], *, cmc_ra: bool) -> bytes:
    """KeyUsage, critical, and extendedKeyUsage exactly when a usage is one; that one is critical for a timestamping authority only."""
    bits = {bit: usage in usages for bit, usage in KEY_USAGE_BITS.items()}
    key_usage = x509.KeyUsage(**bits, key_cert_sign=False, crl_sign=False, encipher_only=False, decipher_only=False)
    encoded = _extension(ExtensionOID.KEY_USAGE, key_usage.public_bytes(), critical=True)
    purposes = [oid for oid, usage in EXTENDED_KEY_USAGES.items() if usage in usages] + ([CMC_RA] if cmc_ra else [])
    if purposes:
        value = x509.ExtendedKeyUsage(purposes).public_bytes()
        encoded += _extension(ExtensionOID.EXTENDED_KEY_USAGE, value, critical=Usage.TIMESTAMPING in usages)  # RFC 3161 section 2.3
    return encoded
