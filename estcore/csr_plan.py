"""What a client puts into its CSR: its own wishes and the server's, made one.

RFC 8951 section 4 and RFC 9908 sections 3.1 and 3.4. What the person at the client said counts first, for the server's policy has the
last word anyway; all that it left unsaid is taken from the server. What the server wants and nobody can fill in is named, not dropped.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509

from estcore import der
from estcore.attribute import Attribute
from estcore.csr_template import (
    ANY_DIRECTORY_NAME,
    ANY_IP_ADDRESS,
    ExtensionTemplate,
    NameComponent,
    RdnTemplate,
    encode_rdn,
    general_names,
)
from estcore.csr_vocabulary import (
    CHALLENGE_PASSWORD,
    EST_IDENTITY_LINKING,
    EXTENDED_KEY_USAGE,
    HASHES,
    KEY_USAGE,
    OTP_CHALLENGE,
    PROOFS,
    SIGNATURES,
    SUBJECT_ALT_NAME,
    describe,
)
from estcore.csr_wishes import KeyWish, Wishes
from estcore.der import BMP_STRING, IA5_STRING, PRINTABLE_STRING, SEQUENCE, T61_STRING, UNIVERSAL_STRING, UTF8_STRING
from estcore.errors import MalformedResponse
from estcore.foreign import foreign
from estcore.keys import PrivateKey, SignatureHash, key_algorithm
from estcore.spec_part import KeyAlgorithm
from estcore.usages import Usage, extended_key_usage, key_usage

_IP_ADDRESS: Final = ANY_IP_ADDRESS[:1]
_OTHER_NAME: Final = 0xA0

_STRING_TYPES: Final = frozenset({UTF8_STRING, PRINTABLE_STRING, T61_STRING, IA5_STRING, UNIVERSAL_STRING, BMP_STRING})

_DEFAULT_USAGES = {KEY_USAGE: frozenset({Usage.DIGITAL_SIGNATURE}), EXTENDED_KEY_USAGE: frozenset({Usage.CLIENT_AUTH})}
"""What a client that enrols over EST needs at least, where the server leaves the usages to it and nobody named any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the client itself wants in its certificate; each member may be empty."""

    subject: x509.Name
    sans: tuple[x509.GeneralName, ...] = ()
    usages: Collection[Usage] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CsrPlan:
    """The contents of a CSR but for its key and signature.

    Each extension has its value. `linking` is the type of the attribute that holds the channel binding, `hash` None where the key
    decides. `one_time_password_wanted` says that the server takes one. `unmet` names in words what the server wants and is not here.
    """

    subject: x509.Name
    extensions: tuple[ExtensionTemplate, ...]
    attributes: tuple[Attribute, ...] = ()
    signature: str | None = None
    linking: str = CHALLENGE_PASSWORD
    one_time_password_wanted: bool = False
    unmet: tuple[str, ...] = ()

    def hash_for(self, key: PrivateKey) -> SignatureHash | None:
        """The hash that is wanted of this key; None where none is, or one of another kind of key."""
        algorithm = key_algorithm(key.public_key())
        if self.signature is None or algorithm is KeyAlgorithm.ED25519:
            return None
        if self.signature in HASHES:
            return HASHES[self.signature]
        key_type, digest = SIGNATURES.get(self.signature, ("", None))
        return digest if KeyWish(algorithm=key_type).accepts(algorithm) else None


def plan(wishes: Wishes, own: Wanted) -> CsrPlan:
    """Lay down a CSR that follows the server's wishes where it can.

    Raises MalformedResponse where the server gave a name that no certificate can have.
    """
    unmet: list[str] = []
    subject = _subject(wishes.subject or (), own.subject, unmet)
    by_oid = {extension.oid: extension for extension in wishes.extensions}
    extensions = [_subject_alt_name(by_oid.pop(SUBJECT_ALT_NAME, None), own.sans, critical=not subject.rdns, unmet=unmet)]
    extensions += [_usages(oid, by_oid.pop(oid, None), own.usages) for oid in (KEY_USAGE, EXTENDED_KEY_USAGE)]
    for extension in by_oid.values():
        if extension.value is None:
            unmet.append(f"the extension {describe(extension.oid)}")
        else:
            extensions.append(extension)
    given = tuple(attribute for attribute in wishes.attributes if _can_be_copied(attribute))
    missing = [oid for oid in wishes.supplied if oid not in PROOFS]
    missing += [attribute.type for attribute in wishes.attributes if attribute not in given]
    unmet += [f"the attribute {describe(oid)}" for oid in missing]
    return CsrPlan(
        subject=subject,
        extensions=tuple(extension for extension in extensions if extension is not None),
        attributes=given,
        signature=wishes.signature,
        linking=EST_IDENTITY_LINKING if EST_IDENTITY_LINKING in wishes.supplied else CHALLENGE_PASSWORD,
        one_time_password_wanted=OTP_CHALLENGE in wishes.supplied,
        unmet=tuple(unmet),
    )


def _can_be_copied(attribute: Attribute) -> bool:
    """One value of a string type, which is all that the library beneath writes into an attribute."""
    return len(attribute.values) == 1 and attribute.values[0][0] in _STRING_TYPES


def _subject(wanted: Sequence[RdnTemplate], own: x509.Name, unmet: list[str]) -> x509.Name:
    """The server's components in its order, with the client's values where it named that component; then the client's others."""
    mine: dict[str, list[bytes]] = {}
    for rdn in own.rdns:
        encoded = x509.Name([rdn]).public_bytes()
        mine.setdefault(next(iter(rdn)).oid.dotted_string, []).append(der.children(encoded, SEQUENCE, what="the subject")[0])
    types = {component.type for rdn in wanted for component in rdn}
    rdns: list[bytes] = []
    for rdn_template in wanted:
        fixed: list[NameComponent] = []
        for component in rdn_template:
            if component.type in mine:
                rdns += mine[component.type]
                mine[component.type] = []
            elif component.value is not None:
                fixed.append(component)
            else:
                unmet.append(f"the subject's {describe(component.type)}")
        if fixed:
            rdns.append(encode_rdn(tuple(fixed)))
    rdns += [encoded for of_type, all_of_type in mine.items() if of_type not in types for encoded in all_of_type]
    name = der.tlv(SEQUENCE, b"".join(rdns))
    return foreign(lambda: x509.Name.from_bytes(name), lambda: MalformedResponse("the server wants a subject that cannot be read"))


def _subject_alt_name(
    wanted: ExtensionTemplate | None, own: Sequence[x509.GeneralName], *, critical: bool, unmet: list[str]
) -> ExtensionTemplate | None:
    """The server's value as it is; where it is open, or the client named any, the server's names but of the kinds that the client named."""
    mine = general_names(x509.SubjectAlternativeName(own).public_bytes()) if own else ()
    if wanted is None:
        # Critical exactly where the subject is empty (RFC 5280 section 4.2.1.6).
        return _of_names(mine, critical=critical)
    if wanted.is_complete and not mine:
        return wanted
    if wanted.value is None and not mine:
        unmet.append("the extension subjectAltName")
        return None
    kinds = set(map(_kind, mine))
    theirs = general_names(wanted.value or b"")
    if ANY_IP_ADDRESS in theirs and _IP_ADDRESS not in kinds:
        unmet.append("an IP address in subjectAltName")
    if ANY_DIRECTORY_NAME in theirs:
        unmet.append("a directoryName in subjectAltName")
    fixed = (name for name in theirs if name not in (ANY_IP_ADDRESS, ANY_DIRECTORY_NAME) and _kind(name) not in kinds)
    return _of_names((*fixed, *mine), critical=wanted.critical)


def _kind(name: bytes) -> bytes:
    """What of a DER GeneralName makes two of one kind: its tag, and an otherName's type."""
    if name[0] != _OTHER_NAME:
        return name[:1]
    return name[:1] + b"".join(der.children(name, _OTHER_NAME, what="an otherName")[:1])


def _of_names(names: Sequence[bytes], *, critical: bool) -> ExtensionTemplate | None:
    if not names:
        return None
    return ExtensionTemplate(oid=SUBJECT_ALT_NAME, critical=critical, value=der.tlv(SEQUENCE, b"".join(names)))


def _usages(oid: str, wanted: ExtensionTemplate | None, own: Collection[Usage]) -> ExtensionTemplate | None:
    """The client's usages if it named any; else the server's, and where it leaves them open, the least that a client needs."""
    if own:
        return _usage_extension(oid, own)
    if wanted is None or wanted.value is not None:
        return wanted
    default = _usage_extension(oid, _DEFAULT_USAGES[oid])
    return default and ExtensionTemplate(oid=oid, critical=wanted.critical, value=default.value)


def _usage_extension(oid: str, usages: Collection[Usage]) -> ExtensionTemplate | None:
    """KeyUsage, critical, or extendedKeyUsage; None where no usage is of that extension."""
    value = key_usage(usages) if oid == KEY_USAGE else extended_key_usage(usages)
    return None if value is None else ExtensionTemplate(oid=oid, critical=oid == KEY_USAGE, value=value.public_bytes())
