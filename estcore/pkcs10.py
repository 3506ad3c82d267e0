"""PKCS#10: parse a certification request and prove that its sender has the key.

RFC 2986, RFC 2985 section 5.4 (challengePassword, extensionRequest), RFC 5272 section 3.1. What comes out of `parse` is bounded, strictly
DER, signed by its own key, and asks only for what can be issued; whatever is asked for and cannot be is refused here by name, never
dropped in silence. Attributes that ask for nothing we know are passed over.

The outer shape is read by our own reader, which also gives the octets that were signed; names, keys and extensions by `cryptography`.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple

from cryptography import x509

from estcore import der, extension_request
from estcore.der import BIT_STRING, CONTEXT_0, OBJECT_IDENTIFIER, SEQUENCE, SET, member, object_identifier
from estcore.errors import BadCsr, MalformedBody
from estcore.foreign import foreign
from estcore.issuer_spec import KeyAlgorithm
from estcore.keys import PublicKey, check_public_key
from estcore.names import parse_name
from estcore.proof_of_possession import load_public_key, verify
from estcore.usages import Usage

MAX_ATTRIBUTES: Final = 20
MAX_CHALLENGE_PASSWORD_CHARACTERS: Final = 255
"""RFC 2985 section 5.4.1, pkcs-9-ub-challengePassword."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pkcs10:
    """A CSR whose signature, key and names have been checked; nothing in it has been permitted.

    `usages` are those of the requested keyUsage and extendedKeyUsage, None where the CSR carries neither; `sans` is empty where it
    carries no subjectAltName. `challenge_password` is the text of that attribute: channel binding, or nothing (RFC 7030 section 3.5).
    `ca` says whether a CA certificate was asked for: never true of what `parse` returns, which refuses that; the profile asks all the same.
    """

    csr_der: bytes
    public_key: PublicKey
    spki_der: bytes
    key_algorithm: KeyAlgorithm
    subject: x509.Name
    subject_der: bytes
    sans: tuple[x509.GeneralName, ...] = ()
    usages: frozenset[Usage] | None = None
    ca: bool = False
    challenge_password: str | None = None


class _Sections(NamedTuple):
    """The parts of a CertificationRequest: DER slices, and the content of each attribute's SET of values by the DER of its OID."""

    signed: bytes
    subject: bytes
    spki: bytes
    attributes: dict[bytes, bytes]
    algorithm: bytes
    signature: bytes


def parse(csr_der: bytes) -> Pkcs10:
    """Parse and check a DER CSR.

    Raises MalformedBody where it is not DER of a CertificationRequest, BadCsr for all else that is not acceptable.
    """
    sections = _sections(csr_der)
    public_key = load_public_key(sections.spki)
    verify(public_key, signed=sections.signed, algorithm=sections.algorithm, signature=sections.signature)
    algorithm = check_public_key(public_key)
    subject = parse_name(sections.subject)
    challenge_password = None
    requested = extension_request.NOTHING
    if sections.attributes:
        csr = foreign(
            lambda: x509.load_der_x509_csr(csr_der), lambda: MalformedBody("the CSR's attributes are not DER (a SET OF is sorted)")
        )
        challenge_password, asks_for_extensions = _attributes(sections.attributes)
        if asks_for_extensions:
            requested = extension_request.read(csr, public_key)
    return Pkcs10(
        csr_der=csr_der,
        public_key=public_key,
        spki_der=sections.spki,
        key_algorithm=algorithm,
        subject=subject,
        subject_der=sections.subject,
        sans=requested.sans,
        usages=requested.usages,
        challenge_password=challenge_password,
    )


def _sections(csr: bytes) -> _Sections:
    size = len(csr)
    if size > der.MAX_CSR_OCTETS:
        raise MalformedBody(f"the CSR has {size} octets, more than {der.MAX_CSR_OCTETS}")
    start, end = member(csr, 0, size, SEQUENCE, what="the CSR")
    if end != size:
        raise MalformedBody(f"the CSR is followed by {size - end} octets that do not belong to it")
    version, info_end = member(csr, start, size, SEQUENCE, what="the CertificationRequestInfo")
    _, algorithm_end = member(csr, info_end, size, SEQUENCE, what="the signature algorithm")
    unused_bits, signature_end = member(csr, algorithm_end, size, BIT_STRING, what="the signature")
    if signature_end != size or csr[unused_bits : unused_bits + 1] != b"\x00":
        raise MalformedBody("the CSR does not end in a signature of whole octets")
    subject = version + 3
    if csr[version:subject] != b"\x02\x01\x00":
        raise MalformedBody("the CSR's version is not 0, the only one there is (RFC 2986 section 4.1)")
    _, subject_end = member(csr, subject, info_end, SEQUENCE, what="the subject")
    _, spki_end = member(csr, subject_end, info_end, SEQUENCE, what="the public key")
    return _Sections(
        signed=csr[start:info_end],
        subject=csr[subject:subject_end],
        spki=csr[subject_end:spki_end],
        # Some encoders leave the field out when it is empty, though it is not OPTIONAL.
        attributes=_split_attributes(csr, spki_end, info_end) if spki_end < info_end else {},
        algorithm=csr[info_end:algorithm_end],
        signature=csr[unused_bits + 1 :],
    )


def _split_attributes(csr: bytes, position: int, end: int) -> dict[bytes, bytes]:
    position, field_end = member(csr, position, end, CONTEXT_0, what="the attributes")
    if field_end != end:
        raise MalformedBody("the CertificationRequestInfo holds more than its attributes")
    attributes: dict[bytes, bytes] = {}
    while position < end:
        oid, attribute_end = member(csr, position, end, SEQUENCE, what="an attribute")
        _, oid_end = member(csr, oid, attribute_end, OBJECT_IDENTIFIER, what="an attribute's type")
        values, values_end = member(csr, oid_end, attribute_end, SET, what="an attribute's values")
        if values_end != attribute_end:
            raise MalformedBody("an attribute holds more than a type and values")
        if csr[oid:oid_end] in attributes:
            raise BadCsr("the CSR has the same attribute twice")
        attributes[csr[oid:oid_end]] = csr[values:values_end]
        if len(attributes) > MAX_ATTRIBUTES:
            raise BadCsr(f"the CSR has more than {MAX_ATTRIBUTES} attributes")
        position = attribute_end
    return attributes


_CHALLENGE_PASSWORD = object_identifier("1.2.840.113549.1.9.7")
_EXTENSION_REQUESTS = frozenset({object_identifier("1.2.840.113549.1.9.14"), object_identifier("1.3.6.1.4.1.311.2.1.14")})
"""extensionRequest, and Microsoft's number for the same: `cryptography` reads the first of them that it meets, so there may be only one."""

_NOT_SUPPORTED = {
    object_identifier("1.3.6.1.5.5.7.7.36"): "ChangeSubjectName (RFC 6402)",
    object_identifier("1.2.840.113549.1.9.16.2.56"): "otpChallenge (RFC 7894)",
    object_identifier("1.2.840.113549.1.9.16.2.57"): "revocationChallenge (RFC 7894)",
    object_identifier("1.2.840.113549.1.9.16.2.58"): "estIdentityLinking (RFC 7894)",
}
"""Attributes that ask for something this server cannot do: to pass over them would drop what the client asked for."""

_STRING_ENCODINGS = {0x0C: "utf-8", 0x13: "ascii", 0x14: "latin-1", 0x1C: "utf-32-be", 0x1E: "utf-16-be"}
"""DirectoryString (RFC 5280 Appendix A.1): UTF8String, PrintableString, TeletexString, UniversalString, BMPString."""


def _attributes(attributes: dict[bytes, bytes]) -> tuple[str | None, bool]:
    """Look at each attribute; return the challengePassword and whether there is an extensionRequest."""
    challenge_password: str | None = None
    asks_for_extensions = False
    for oid, values in attributes.items():
        if oid == _CHALLENGE_PASSWORD:
            challenge_password = _challenge_password(values)
        elif oid in _EXTENSION_REQUESTS:
            if asks_for_extensions:
                raise BadCsr("the CSR has two extensionRequests, of PKCS#9 and of Microsoft")
            asks_for_extensions = True
            if not values or member(values, 0, len(values), SEQUENCE, what="the extensionRequest")[1] != len(values):
                raise BadCsr("the extensionRequest has not exactly one value (RFC 2985 section 5.4.2)")
        elif oid in _NOT_SUPPORTED:
            name = _NOT_SUPPORTED[oid]
            raise BadCsr(f"the CSR has the attribute {name}, which is not supported yet; leave it out", reason="UnsupportedAttribute")
        else:
            _pass_over(values)
    return challenge_password, asks_for_extensions


def _pass_over(values: bytes) -> None:
    """Nobody decodes these; still they are in a CSR that is kept and may be shown to others."""
    position = 0
    while position < len(values):
        *_, end = der.read(values, position, len(values), what="an attribute's value")
        der.check(values[position:end], what="an attribute's value")
        position = end


def _challenge_password(values: bytes) -> str:
    if not values:
        raise BadCsr("the challengePassword has no value (RFC 2985 section 5.4.1)")
    string_type, content, end = der.read(values, 0, len(values), what="the challengePassword")
    if end != len(values):
        raise BadCsr("the challengePassword has more than one value (RFC 2985 section 5.4.1)")
    encoding = _STRING_ENCODINGS.get(string_type)
    if encoding is None:
        raise BadCsr("the challengePassword is not a DirectoryString (RFC 2985 section 5.4.1)")
    try:
        text = values[content:].decode(encoding)
    except UnicodeDecodeError as error:
        raise BadCsr("the challengePassword is not valid text of its string type") from error
    if not 0 < len(text) <= MAX_CHALLENGE_PASSWORD_CHARACTERS:
        raise BadCsr(f"the challengePassword has {len(text)} characters; 1 to {MAX_CHALLENGE_PASSWORD_CHARACTERS} are allowed")
    return text
