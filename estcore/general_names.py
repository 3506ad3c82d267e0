"""GeneralNames from their DER, for the places where no extension of `cryptography` stands around them (RFC 5280 section 4.2.1.6).

The kinds that can be issued are read, and checked by estcore.names; any other is refused by name.
"""

import ipaddress
from typing import Final

from cryptography import x509

from estcore import der
from estcore.der import SEQUENCE, member
from estcore.errors import BadCsr
from estcore.names import ISSUED_KINDS, check_general_name
from estcore.other_names import parse_other_name

MAX_GENERAL_NAMES: Final = 100

_OTHER_NAME, _RFC822_NAME, _DNS_NAME, _URI, _IP_ADDRESS = 0xA0, 0x81, 0x82, 0x86, 0x87
_OTHER_KINDS: Final = {
    0xA3: "an x400Address",
    0xA4: "a directoryName",
    0xA5: "an ediPartyName",
    0x88: "a registeredID",
}


def parse_general_names(names_der: bytes) -> tuple[x509.GeneralName, ...]:
    """Parse and check the DER of GeneralNames: dNSName, URI, iPAddress, rfc822Name and otherNames that are text, 1 to 100 of them.

    Raises BadCsr, or MalformedBody where it is not DER.
    """
    position, end = member(names_der, 0, len(names_der), SEQUENCE, what="the subjectAltName")
    if end != len(names_der):
        raise BadCsr("the subjectAltName is followed by octets that do not belong to it")
    names: list[x509.GeneralName] = []
    while position < end:
        tag, content, name_end = der.read(names_der, position, end, what="a name of the subjectAltName")
        name = _general_name(tag, names_der[content:name_end])
        check_general_name(name)
        names.append(name)
        if len(names) > MAX_GENERAL_NAMES:
            raise BadCsr(f"the subjectAltName has more than {MAX_GENERAL_NAMES} names")
        position = name_end
    if not names:
        raise BadCsr("the subjectAltName is empty (RFC 5280 section 4.2.1.6 asks for one name at least)")
    return tuple(names)


def _general_name(tag: int, octets: bytes) -> x509.GeneralName:
    if tag == _IP_ADDRESS:
        try:
            return x509.IPAddress(ipaddress.ip_address(octets))
        except ValueError as error:
            raise BadCsr("an iPAddress has 4 or 16 octets (RFC 5280 section 4.2.1.6)", reason="BadName") from error
    if tag == _OTHER_NAME:
        return parse_other_name(octets)
    kinds: dict[int, type[x509.DNSName | x509.UniformResourceIdentifier | x509.RFC822Name]] = {
        _DNS_NAME: x509.DNSName,
        _URI: x509.UniformResourceIdentifier,
        _RFC822_NAME: x509.RFC822Name,
    }
    kind = kinds.get(tag)
    if kind is None:
        raise BadCsr(
            f"the subjectAltName holds {_OTHER_KINDS.get(tag, 'a name of another kind')}; only {ISSUED_KINDS} are issued",
            reason="BadName",
        )
    try:
        return kind(octets.decode("ascii"))
    except ValueError as error:
        raise BadCsr("a name of the subjectAltName is not ASCII text (RFC 5280 section 4.2.1.6)", reason="BadName") from error
