"""The attributes of a certification request that mean something here (PKCS#10 attributes, RFC 2986 section 4.1).

RFC 2985 section 5.4 (challengePassword, extensionRequest), RFC 7894 (one-time password, revocation secret, identity linking), RFC 6402
section 2.8 (ChangeSubjectName), RFC 7030 section 4.4.1 (key identifiers, SMIMECapabilities), RFC 5272 section 6.3 (POP linking). What
asks for nothing we know is passed over, once it is seen to be DER.
"""

from collections.abc import Callable, Mapping
from typing import Final, TypedDict, cast

from estcore import der
from estcore.certification_request import ChangeSubjectName
from estcore.csr_vocabulary import (
    ASYMMETRIC_DECRYPT_KEY_ID,
    CHALLENGE_PASSWORD,
    CHANGE_SUBJECT_NAME,
    DECRYPT_KEY_ID,
    EST_IDENTITY_LINKING,
    EXTENSION_REQUEST,
    OTP_CHALLENGE,
    POP_LINK_WITNESS,
    POP_LINK_WITNESS_V2,
    REVOCATION_CHALLENGE,
    SMIME_CAPABILITIES,
)
from estcore.der import OCTET_STRING, SEQUENCE, SET, member, object_identifier
from estcore.errors import BadCsr
from estcore.general_names import parse_general_names
from estcore.names import parse_name

MAX_TEXT_CHARACTERS: Final = 255
"""RFC 2985 section 5.4.1, pkcs-9-ub-challengePassword, and RFC 7894 section 3."""
MAX_KEY_ID_OCTETS: Final = 255
MAX_WITNESS_OCTETS: Final = 64

_MICROSOFT_EXTENSION_REQUEST: Final = "1.3.6.1.4.1.311.2.1.14"

_STRING_ENCODINGS: Final = {0x0C: "utf-8", 0x13: "ascii", 0x14: "latin-1", 0x1C: "utf-32-be", 0x1E: "utf-16-be"}
"""DirectoryString (RFC 5280 Appendix A.1): UTF8String, PrintableString, TeletexString, UniversalString, BMPString."""


class RequestAttributes(TypedDict, total=False):
    """What was found; the members are those of CertificationRequest."""

    challenge_password: str
    identity_linking: str
    one_time_password: str
    revocation_challenge: str
    name_change: ChangeSubjectName
    smime_capabilities_der: bytes
    decrypt_key_id: bytes
    asymmetric_decrypt_key_id: bytes
    pop_link_witness: bytes
    pop_link_witness_v2_der: bytes


def read(attributes: Mapping[bytes, bytes]) -> tuple[RequestAttributes, bytes]:
    """Read attributes (DER of the OID → content of the SET of values); also the DER Extensions of the extensionRequest, empty without one.

    Raises BadCsr that names the attribute, MalformedBody where it is not DER.
    """
    found: dict[str, object] = {}
    extensions_der = b""
    for oid_der, values in attributes.items():
        known = _KNOWN.get(oid_der)
        if known is not None:
            member_name, name, read_value = known
            found[member_name] = read_value(_single(values, name), name)
        elif oid_der in _EXTENSION_REQUESTS:
            if extensions_der:
                raise BadCsr("the CSR has two extensionRequests, of PKCS#9 and of Microsoft")
            extensions_der = values
            if not values or member(values, 0, len(values), SEQUENCE, what="the extensionRequest")[1] != len(values):
                raise BadCsr("the extensionRequest has not exactly one value (RFC 2985 section 5.4.2)")
        else:
            _pass_over(values)
    return cast("RequestAttributes", found), extensions_der


def _single(values: bytes, name: str) -> bytes:
    if not values:
        raise BadCsr(f"the {name} has no value")
    *_, end = der.read(values, 0, len(values), what=f"the {name}")
    if end != len(values):
        raise BadCsr(f"the {name} has more than one value")
    return values


def _pass_over(values: bytes) -> None:
    """Nobody decodes these; still they are in a CSR that is kept and may be shown to others."""
    position = 0
    while position < len(values):
        *_, end = der.read(values, position, len(values), what="an attribute's value")
        der.check(values[position:end], what="an attribute's value")
        position = end


def _text(value: bytes, name: str) -> str:
    string_type, content, _ = der.read(value, 0, len(value), what=f"the {name}")
    encoding = _STRING_ENCODINGS.get(string_type)
    if encoding is None:
        raise BadCsr(f"the {name} is not a DirectoryString (RFC 2985 section 5.4.1)")
    try:
        text = value[content:].decode(encoding)
    except UnicodeDecodeError as error:
        raise BadCsr(f"the {name} is not valid text of its string type") from error
    if not 0 < len(text) <= MAX_TEXT_CHARACTERS:
        raise BadCsr(f"the {name} has {len(text)} characters; 1 to {MAX_TEXT_CHARACTERS} are allowed")
    return text


def _octets(most: int) -> Callable[[bytes, str], bytes]:
    def read_octets(value: bytes, name: str) -> bytes:
        content, end = member(value, 0, len(value), OCTET_STRING, what=f"the {name}")
        if not 0 < end - content <= most:
            raise BadCsr(f"the {name} has {end - content} octets; 1 to {most} are allowed")
        return value[content:end]

    return read_octets


def _sequence(value: bytes, name: str) -> bytes:
    member(value, 0, len(value), SEQUENCE, what=f"the {name}")
    der.check(value, what=f"the {name}")
    return value


def _change_subject_name(value: bytes, name: str) -> ChangeSubjectName:
    """RFC 6402 section 2.8: SEQUENCE { subject Name OPTIONAL, subjectAlt GeneralNames OPTIONAL }, at least one of them.

    Both are untagged SEQUENCEs: a Name holds SETs, or nothing; GeneralNames hold context-specific tags.
    """
    der.check(value, what=f"the {name}")
    position, end = member(value, 0, len(value), SEQUENCE, what=f"the {name}")
    subject_der, alternative_der = b"", b""
    while position < end:
        content, part_end = member(value, position, end, SEQUENCE, what=f"a part of the {name}")
        part = value[position:part_end]
        if content == part_end or value[content] == SET:
            if subject_der or alternative_der:
                raise BadCsr(f"the {name} has a second subject, or one behind the subjectAlt (RFC 6402 section 2.8)")
            subject_der = part
        elif alternative_der:
            raise BadCsr(f"the {name} has a second subjectAlt (RFC 6402 section 2.8)")
        else:
            alternative_der = part
        position = part_end
    if not subject_der and not alternative_der:
        raise BadCsr(f"the {name} is empty: it holds a subject, a subjectAlt or both (RFC 6402 section 2.8)")
    return ChangeSubjectName(
        subject=parse_name(subject_der or b"\x30\x00"), sans=parse_general_names(alternative_der) if alternative_der else ()
    )


_EXTENSION_REQUESTS = frozenset({object_identifier(EXTENSION_REQUEST), object_identifier(_MICROSOFT_EXTENSION_REQUEST)})
"""extensionRequest, and Microsoft's number for the same: `cryptography` reads the first of them that it meets, so there may be only one."""

_KNOWN: Final[Mapping[bytes, tuple[str, str, Callable[[bytes, str], object]]]] = {
    object_identifier(oid): (member_name, name, read_value)
    for oid, member_name, name, read_value in (
        (CHALLENGE_PASSWORD, "challenge_password", "challengePassword", _text),
        (SMIME_CAPABILITIES, "smime_capabilities_der", "SMIMECapabilities", _sequence),
        (DECRYPT_KEY_ID, "decrypt_key_id", "DecryptKeyIdentifier", _octets(MAX_KEY_ID_OCTETS)),
        (ASYMMETRIC_DECRYPT_KEY_ID, "asymmetric_decrypt_key_id", "AsymmetricDecryptKeyIdentifier", _octets(MAX_KEY_ID_OCTETS)),
        (OTP_CHALLENGE, "one_time_password", "otpChallenge", _text),
        (REVOCATION_CHALLENGE, "revocation_challenge", "revocationChallenge", _text),
        (EST_IDENTITY_LINKING, "identity_linking", "estIdentityLinking", _text),
        (POP_LINK_WITNESS, "pop_link_witness", "popLinkWitness", _octets(MAX_WITNESS_OCTETS)),
        (POP_LINK_WITNESS_V2, "pop_link_witness_v2_der", "popLinkWitnessV2", _sequence),
        (CHANGE_SUBJECT_NAME, "name_change", "ChangeSubjectName", _change_subject_name),
    )
}
"""DER of the OID → member of CertificationRequest, name in the RFC, how the one value is read."""
