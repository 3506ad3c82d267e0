"""Which certificate a SignerInfo means: RFC 5652 section 5.3, by issuer and serial number or by subjectKeyIdentifier.

Finding it proves nothing: whoever signed chose the bag that it is looked for in.
"""

from collections.abc import Iterable
from functools import lru_cache

from cryptography import x509

from estcore.der import CONTEXT_0, SEQUENCE
from estcore.der_reader import only
from estcore.errors import EstError, MalformedBody
from estcore.foreign import foreign
from estcore.signed_data import IssuerAndSerialNumber, SignerIdentifier, SubjectKeyIdentifier


def find(identifier: SignerIdentifier, certificates_der: Iterable[bytes]) -> bytes | None:
    """The first of the DER certificates that the identifier means; None where there is none.

    Raises MalformedBody for one that cannot be read on the way.
    """
    for certificate_der in certificates_der:
        if isinstance(identifier, IssuerAndSerialNumber):
            if issuer_and_serial_number(certificate_der) == identifier:
                return certificate_der
        else:
            if subject_key_identifier(load(certificate_der)) == identifier:
                return certificate_der
    return None


@lru_cache(maxsize=256)
def issuer_and_serial_number(certificate_der: bytes) -> IssuerAndSerialNumber:
    """What identifies this certificate, its issuer's name with the octets that it has there. Raises MalformedBody."""
    tbs = only(certificate_der, what="a certificate").inside(SEQUENCE)
    if tbs.next_is(CONTEXT_0):
        tbs.inside(CONTEXT_0)
    serial_number = tbs.integer()
    tbs.whole(SEQUENCE)
    return IssuerAndSerialNumber(tbs.whole(SEQUENCE), serial_number)


def subject_key_identifier(certificate: x509.Certificate) -> SubjectKeyIdentifier | None:
    """The content of its subjectKeyIdentifier extension; None where it has none. Raises MalformedBody."""
    extensions = foreign(lambda: certificate.extensions, _unreadable)
    return next((SubjectKeyIdentifier(each.value.digest) for each in extensions if isinstance(each.value, x509.SubjectKeyIdentifier)), None)


@lru_cache(maxsize=256)
def load(certificate_der: bytes) -> x509.Certificate:
    """Load a certificate. Raises MalformedBody. Senders come again with the same one."""
    return foreign(lambda: x509.load_der_x509_certificate(certificate_der), _unreadable)


@lru_cache(maxsize=256)
def public_key(certificate_der: bytes) -> object:
    """The public key of a certificate, of whatever kind. Raises MalformedBody."""
    return foreign(load(certificate_der).public_key, _unreadable)


def _unreadable() -> EstError:
    return MalformedBody("the message holds a certificate that cannot be read")
