"""Certs-only: the CMC Simple PKI Response that carries certificates, and nothing that is signed.

RFC 7030 sections 4.1.3 and 4.2.3, RFC 5272 section 4.1: ContentInfo of id-signedData, whose SignedData has no digest algorithms, no
content and no signers.
"""

from collections.abc import Sequence
from functools import partial
from typing import Final

from cryptography import x509

from estcore import der as der_module
from estcore.der import CONTEXT_0, CONTEXT_1, SEQUENCE, member, tlv
from estcore.errors import MalformedBody
from estcore.foreign import foreign

MAX_OCTETS: Final = 256 * 1024
MAX_CERTIFICATES: Final = 64

_SIGNED_DATA_OID = bytes.fromhex("06092a864886f70d010702")
_BEFORE_CERTIFICATES = bytes.fromhex("0201013100300b06092a864886f70d010701")
"""version 1, no digestAlgorithms, encapContentInfo of id-data without content."""
_NO_SIGNERS = bytes.fromhex("3100")
_WHAT = "certs-only"


def encode(certificates_der: Sequence[bytes]) -> bytes:
    """Encode DER certificates as a DER certs-only; one or more, in any order.

    More than one are sorted, for `certificates` is a SET OF (X.690 section 11.6) and receivers must not read meaning into their order
    (RFC 5272 section 4.1). The crls field is left out. Put together by hand: a fixed shape, on the path of every enrolment.
    """
    if not certificates_der:
        raise ValueError("certs-only holds at least one certificate")
    certificates = tlv(CONTEXT_0, b"".join(sorted(certificates_der)))
    signed_data = tlv(SEQUENCE, _BEFORE_CERTIFICATES + certificates + _NO_SIGNERS)
    return tlv(SEQUENCE, _SIGNED_DATA_OID + tlv(CONTEXT_0, signed_data))


def decode(der: bytes) -> tuple[x509.Certificate, ...]:
    """Decode a DER certs-only to its certificates, in the order they are in, which means nothing.

    A crls field is accepted, empty (all published EST examples have it) or not, and not read. Raises MalformedBody for anything else
    that is not the shape above, and for a certificate that cannot be parsed.
    """
    der_module.check(der, what=_WHAT, max_octets=MAX_OCTETS)
    size = len(der)
    position, _ = member(der, 0, size, SEQUENCE, what=_WHAT)
    position = _expect(der, position, _SIGNED_DATA_OID, "its content is not signedData")
    position, end = member(der, position, size, CONTEXT_0, what="the content of certs-only")
    position, signed_data_end = member(der, position, end, SEQUENCE, what="signedData")
    if not signed_data_end == end == size:
        raise MalformedBody("certs-only holds more than signedData")
    position = _expect(der, position, _BEFORE_CERTIFICATES, "it is not of version 1 with no digest algorithms and no content")
    first, certificates_end = member(der, position, size, CONTEXT_0, what="the certificates of certs-only")
    position = certificates_end
    if der[position : position + 1] == bytes((CONTEXT_1,)):
        _, position = member(der, position, size, CONTEXT_1, what="the crls of certs-only")
    if der[position:] != _NO_SIGNERS:
        raise MalformedBody("certs-only does not end in an empty set of signers")
    return _certificates(der, first, certificates_end)


def _certificates(der: bytes, position: int, end: int) -> tuple[x509.Certificate, ...]:
    certificates: list[x509.Certificate] = []
    while position < end:
        if len(certificates) == MAX_CERTIFICATES:
            raise MalformedBody(f"certs-only holds more than {MAX_CERTIFICATES} certificates")
        _, certificate_end = member(der, position, end, SEQUENCE, what="a certificate")
        certificate_der = der[position:certificate_end]
        certificates.append(foreign(partial(x509.load_der_x509_certificate, certificate_der), _unreadable))
        position = certificate_end
    if not certificates:
        raise MalformedBody("certs-only holds no certificate")
    return tuple(certificates)


def _unreadable() -> MalformedBody:
    return MalformedBody("certs-only holds a certificate that cannot be parsed")


def _expect(der: bytes, position: int, octets: bytes, fault: str) -> int:
    end = position + len(octets)
    if der[position:end] != octets:
        raise MalformedBody(f"not certs-only: {fault}")
    return end
