"""Which names of a certificate are not those that its CSR asked for.

An issuer's policy may change them, so they are no reason to refuse a certificate; whoever owns the device is to know it. RFC 5280
section 7 says when two names are the same.
"""

from collections.abc import Iterator
from typing import Final

from cryptography import x509

from estcore.errors import MalformedResponse
from estcore.foreign import foreign
from estcore.names import describe_general_name, describe_name, names_beyond, same_name

MAX_TOLD: Final = 20

_Names = tuple[x509.Name, tuple[x509.GeneralName, ...]]


def changed_names(csr_der: bytes, certificate: x509.Certificate) -> tuple[str, ...]:
    """What differs, a name a sentence, none where nothing does; of more than MAX_TOLD the rest are counted.

    The texts are for people: what cannot be seen is escaped in them.
    """
    try:
        asked = foreign(lambda: _names(x509.load_der_x509_csr(csr_der)), _not_comparable)
        given = foreign(lambda: _names(certificate), _not_comparable)
    except MalformedResponse as fault:
        return (fault.message,)
    told = list(_differences(asked, given))
    return tuple(told) if len(told) <= MAX_TOLD else (*told[:MAX_TOLD], f"and {len(told) - MAX_TOLD} more")


def _differences(asked: _Names, given: _Names) -> Iterator[str]:
    wanted, subject = asked[0], given[0]
    if not same_name(wanted, subject):
        has = f"its subject is {describe_name(subject)}" if subject.rdns else "it has no subject"
        yield f"{has}, and {describe_name(wanted) if wanted.rdns else 'none'} was asked for"
    for san in names_beyond(asked[1], given[1]):
        yield f"{describe_general_name(san)} was asked for and is not in it"
    for san in names_beyond(given[1], asked[1]):
        yield f"{describe_general_name(san)} is in it and was not asked for"


def _names(of: x509.Certificate | x509.CertificateSigningRequest) -> _Names:
    try:
        return of.subject, tuple(of.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return of.subject, ()


def _not_comparable() -> MalformedResponse:
    return MalformedResponse("its names cannot be compared with those that were asked for")
