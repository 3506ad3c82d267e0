"""Whether a CSR follows the CSR attributes of its issuer, for issuers that insist (RFC 8951 section 4: a CA may refuse one that does not).

Everything that is wanted is looked for, and all that is missing is named at once. Not looked for: otpChallenge and revocationChallenge,
which a client includes if it has a value (RFC 7894 section 4), and the criticality of extensions, which the certificate's profile decides.
"""

from collections.abc import Iterator
from typing import Final

from cryptography import x509

from estcore import der
from estcore.attribute import is_object_identifier
from estcore.certification_request import CertificationRequest
from estcore.csr_template import ANY_DIRECTORY_NAME, ANY_IP_ADDRESS, ExtensionTemplate, NameComponent, general_names
from estcore.csr_vocabulary import (
    EXTENDED_KEY_USAGE,
    HASHES,
    KEY_USAGE,
    LINKING,
    OTP_CHALLENGE,
    REVOCATION_CHALLENGE,
    SIGNATURES,
    SUBJECT_ALT_NAME,
    SUBJECT_KEY_IDENTIFIER,
    describe,
)
from estcore.csr_wishes import Wishes
from estcore.der import SEQUENCE, SET
from estcore.errors import BadCsr, MalformedBody
from estcore.extension_request import CMC_RA
from estcore.foreign import foreign
from estcore.general_names import parse_general_names
from estcore.names import describe_general_name, describe_name, same_general_names, same_name
from estcore.usages import EXTENDED_KEY_USAGES, KEY_USAGES, key_usage

MAX_NAMED: Final = 8
"""A refusal is one line: so many missing things are named, and how many more there are."""

_IF_THE_CLIENT_HAS_ONE: Final = frozenset({OTP_CHALLENGE, REVOCATION_CHALLENGE})


def check_follows(csr: CertificationRequest, wishes: Wishes) -> None:
    """Refuse a CSR that lacks something that is wanted. Raises BadCsr (CsrAttributesIgnored) that names it."""
    missing = list(dict.fromkeys(_missing(csr, wishes)))
    if missing:
        more = f" and {len(missing) - MAX_NAMED} more" if len(missing) > MAX_NAMED else ""
        raise BadCsr(
            f"the CSR does not follow this issuer's CSR attributes (RFC 8951 section 4), which /csrattrs tells: it lacks"
            f" {', '.join(missing[:MAX_NAMED])}{more}",
            reason="CsrAttributesIgnored",
        )


def _missing(csr: CertificationRequest, wishes: Wishes) -> Iterator[str]:
    if wishes.key is not None and not wishes.key.accepts(csr.key_algorithm):
        yield f"a key of {wishes.key}"
    if wishes.signature is not None and not _is_signed_by(csr, wishes.signature):
        yield f"a signature by {describe(wishes.signature)}"
    for rdn in wishes.subject or ():
        yield from (_describe(component) for component in rdn if not _has_component(csr.subject, component))
    for extension in wishes.extensions:
        yield from _missing_of_extension(csr, extension)
    for oid in (*wishes.supplied, *(attribute.type for attribute in wishes.attributes)):
        if oid in LINKING:
            if csr.challenge_password is None and csr.identity_linking is None:
                yield "the channel binding in challengePassword or estIdentityLinking"
        elif oid not in _IF_THE_CLIENT_HAS_ONE and der.object_identifier(oid) not in csr.attribute_types:
            yield f"the attribute {describe(oid)}"


def _is_signed_by(csr: CertificationRequest, wanted: str) -> bool:
    """Whether the signature is by this algorithm, or any with this hash; RSASSA-PSS has the hash among its parameters."""
    try:
        oid = der.dotted(der.children(csr.signature_algorithm_der, SEQUENCE, what="the signature algorithm")[0], what="it")
    except MalformedBody:
        return False
    if wanted not in HASHES:
        return oid == wanted
    if oid not in SIGNATURES:
        return der.object_identifier(wanted) in csr.signature_algorithm_der
    digest = SIGNATURES[oid][1]
    return digest is None or digest.name == HASHES[wanted].name


def _has_component(subject: x509.Name, wanted: NameComponent) -> bool:
    """Whether the subject has it, its value compared by RFC 5280 section 7.1 where one is given."""
    mine = [attribute for attribute in subject if attribute.oid.dotted_string == wanted.type]
    if wanted.value is None:
        return bool(mine)
    name = _name(wanted)
    return name is not None and any(same_name(x509.Name([attribute]), name) for attribute in mine)


def _name(component: NameComponent) -> x509.Name | None:
    pair = der.tlv(SEQUENCE, der.object_identifier(component.type) + (component.value or b""))
    try:
        return foreign(lambda: x509.Name.from_bytes(der.tlv(SEQUENCE, der.tlv(SET, pair))), lambda: MalformedBody("it is no name"))
    except MalformedBody:
        return None


def _describe(component: NameComponent) -> str:
    name = None if component.value is None else _name(component)
    return f"the subject's {describe(component.type)}" + ("" if name is None else f" ({describe_name(name)})")


def _missing_of_extension(csr: CertificationRequest, wanted: ExtensionTemplate) -> Iterator[str]:
    match wanted.oid:
        case _ if wanted.oid == SUBJECT_ALT_NAME:
            yield from _missing_names(csr, wanted)
            return
        case _ if wanted.oid == KEY_USAGE:
            mine = key_usage((csr.usages or frozenset()) & KEY_USAGES)
            there = mine is not None and wanted.value in (None, mine.public_bytes())
        case _ if wanted.oid == EXTENDED_KEY_USAGE:
            purposes = {oid.dotted_string for oid, usage in EXTENDED_KEY_USAGES.items() if usage in (csr.usages or ())}
            purposes |= {CMC_RA.dotted_string} if csr.cmc_ra else set()
            there = bool(purposes) and (wanted.value is None or purposes == _purposes(wanted.value))
        case _ if wanted.oid == SUBJECT_KEY_IDENTIFIER:
            there = csr.subject_key_identifier is not None
        case _:
            there = False
    if not there:
        yield f"the extension {describe(wanted.oid)}" + ("" if wanted.value is None else " with the given value")


def _missing_names(csr: CertificationRequest, wanted: ExtensionTemplate) -> Iterator[str]:
    if not csr.sans:
        yield "the extension subjectAltName"
        return
    mine = general_names(x509.SubjectAlternativeName(csr.sans).public_bytes())
    for name in general_names(wanted.value or b""):
        if name in (ANY_IP_ADDRESS, ANY_DIRECTORY_NAME):
            if name[0] not in {own[0] for own in mine}:
                yield "an IP address in subjectAltName" if name == ANY_IP_ADDRESS else "a directoryName in subjectAltName"
            continue
        try:
            (parsed,) = parse_general_names(der.tlv(SEQUENCE, name))
        except (BadCsr, MalformedBody):
            yield "a subjectAltName of another kind"
            continue
        if not any(same_general_names([parsed], [own]) for own in csr.sans):
            yield f"{describe_general_name(parsed)} in subjectAltName"


def _purposes(extended_key_usage: bytes) -> set[str]:
    """The OIDs of a DER extendedKeyUsage; empty where it is none."""
    try:
        der.check(extended_key_usage, what="the extendedKeyUsage")
        members = der.children(extended_key_usage, SEQUENCE, what="the extendedKeyUsage")
        return {der.dotted(member, what="the extendedKeyUsage") for member in members if is_object_identifier(member)}
    except MalformedBody:
        return set()
