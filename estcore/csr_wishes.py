"""What CsrAttrs ask for, in one form: read from both styles, and written in both.

RFC 8951 section 4 and RFC 9908 sections 3.2 (the old style: bare OIDs, a key-type attribute, an extensionRequest) and 3.4 (the template).
A client that knows the template uses it alone (RFC 9908 section 4). The exceptions are the four attributes of proof, challengePassword and
those of RFC 7894, which a template cannot ask for: its attributes have values, and theirs are the client's.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from estcore import der
from estcore.attribute import Attribute, is_object_identifier
from estcore.csr_template import (
    ExtensionTemplate,
    KeyTemplate,
    NameComponent,
    RdnTemplate,
    Template,
    decode_extensions,
    encode_extensions,
    integer,
    rsa_bits,
    rsa_placeholder,
)
from estcore.csr_vocabulary import (
    CERTIFICATION_REQUEST_INFO_TEMPLATE,
    CURVES,
    EC_PUBLIC_KEY,
    EXTENSION_REQUEST,
    FOLLOWABLE,
    HASHES,
    KEY_TYPES,
    NAME_COMPONENTS,
    PROOFS,
    RSA_ENCRYPTION,
    SIGNATURES,
    describe,
)
from estcore.csrattrs import CsrAttrs
from estcore.der import INTEGER
from estcore.errors import MalformedBody
from estcore.keys import SignatureHash
from estcore.spec_part import KeyAlgorithm

_NULL: Final = b"\x05\x00"
_EC_KEYS = {
    KeyAlgorithm.ECDSA_P256: "1.2.840.10045.3.1.7",
    KeyAlgorithm.ECDSA_P384: "1.3.132.0.34",
    KeyAlgorithm.ECDSA_P521: "1.3.132.0.35",
}
_RSA_KEYS = {KeyAlgorithm.RSA_2048: 2048, KeyAlgorithm.RSA_3072: 3072, KeyAlgorithm.RSA_4096: 4096}
SIGNATURE_OF: Final = {
    KeyAlgorithm.ECDSA_P256: "1.2.840.10045.4.3.2",
    KeyAlgorithm.ECDSA_P384: "1.2.840.10045.4.3.3",
    KeyAlgorithm.ECDSA_P521: "1.2.840.10045.4.3.4",
    KeyAlgorithm.RSA_2048: "1.2.840.113549.1.1.11",
    KeyAlgorithm.RSA_3072: "1.2.840.113549.1.1.11",
    KeyAlgorithm.RSA_4096: "1.2.840.113549.1.1.11",
    KeyAlgorithm.ED25519: "1.3.101.112",
}
"""The algorithm that each of our keys signs with: `estcore.keys.signature_hash` as OIDs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyWish:
    """The kind of key: `algorithm` is its OID; `curves` (OIDs) and `sizes` (bits) are those that will do, the best first, empty for any."""

    algorithm: str
    curves: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()

    def accepts(self, algorithm: KeyAlgorithm) -> bool:
        """Whether a key of this algorithm is what is wanted."""
        if algorithm in _EC_KEYS:
            return self.algorithm == EC_PUBLIC_KEY and (not self.curves or _EC_KEYS[algorithm] in self.curves)
        if algorithm in _RSA_KEYS:
            return self.algorithm == RSA_ENCRYPTION and (not self.sizes or _RSA_KEYS[algorithm] in self.sizes)
        return KEY_TYPES.get(self.algorithm) == algorithm

    def best(self) -> KeyAlgorithm | None:
        """The first of our algorithms that will do; None where we can make no such key."""
        ranked = {key: self.curves.index(curve) for key, curve in _EC_KEYS.items() if curve in self.curves}
        ranked |= {key: self.sizes.index(bits) for key, bits in _RSA_KEYS.items() if bits in self.sizes}
        return min(filter(self.accepts, KeyAlgorithm), key=lambda key: ranked.get(key, 0), default=None)

    def __str__(self) -> str:
        """For people."""
        choices = [describe(curve) for curve in self.curves] + [f"{bits} bits" for bits in self.sizes]
        return " ".join((describe(self.algorithm), " or ".join(choices))).strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """All that a server wants in a CSR.

    `subject` is None where nothing is asked of it. `signature` is the OID of a signature algorithm or of a hash. `supplied` are types of
    CSR attributes that the client supplies (challengePassword), `attributes` those that come with their values. `ignored` says in words
    what was found to be wrong and passed over.
    """

    key: KeyWish | None = None
    signature: str | None = None
    subject: tuple[RdnTemplate, ...] | None = None
    extensions: tuple[ExtensionTemplate, ...] = ()
    supplied: tuple[str, ...] = ()
    attributes: tuple[Attribute, ...] = ()
    ignored: tuple[str, ...] = field(default=(), compare=False)

    @property
    def hash(self) -> SignatureHash | None:
        """The hash that the CSR is to be signed with; None where nothing is asked, or the key's algorithm names none."""
        if self.signature is None:
            return None
        return HASHES.get(self.signature) or SIGNATURES.get(self.signature, ("", None))[1]

    def supply(self, oids: Iterable[str]) -> "Wishes":
        """The same and these attributes too, each once."""
        return replace(self, supplied=tuple(dict.fromkeys((*self.supplied, *oids))))


def key_wish(algorithms: Sequence[KeyAlgorithm]) -> KeyWish | None:
    """The wish for a key of one of these; None where they are of several kinds, for which CsrAttrs have no form (RFC 9908 section 3.2)."""
    curves = tuple(_EC_KEYS[algorithm] for algorithm in algorithms if algorithm in _EC_KEYS)
    sizes = tuple(_RSA_KEYS[algorithm] for algorithm in algorithms if algorithm in _RSA_KEYS)
    if len(curves) == len(algorithms):
        return KeyWish(algorithm=EC_PUBLIC_KEY, curves=curves)
    if len(sizes) == len(algorithms):
        return KeyWish(algorithm=RSA_ENCRYPTION, sizes=sizes)
    types = [oid for oid, name in KEY_TYPES.items() if name in algorithms]
    return KeyWish(algorithm=types[0]) if len(types) == len(algorithms) == 1 else None


def check_can_be_followed(wishes: Wishes) -> None:
    """Check, for an issuer that insists, that there is a CSR that has it all. Raises ValueError."""
    if wishes.key is not None and wishes.key.best() is None:
        raise ValueError(f"no CSR can follow them: {wishes.key} keys are never certified here")
    for extension in wishes.extensions:
        if extension.oid not in FOLLOWABLE:
            raise ValueError(f"no CSR can follow them: the extension {describe(extension.oid)} is never issued on request")


def read(csrattrs: CsrAttrs) -> Wishes:
    """What is asked for; what is unknown is passed over, and what is known but malformed is named in `ignored`."""
    bare = [item for item in csrattrs if isinstance(item, str)]
    attributes = [item for item in csrattrs if isinstance(item, Attribute)]
    ignored: list[str] = []
    for attribute in attributes:
        if attribute.type == CERTIFICATION_REQUEST_INFO_TEMPLATE:
            try:
                wishes = _of_template(attribute)
            except MalformedBody as error:
                ignored.append(error.message)
            else:
                return wishes.supply(oid for oid in bare if oid in PROOFS)
    return _of_old_style(bare, attributes, ignored)


def write(wishes: Wishes) -> CsrAttrs:
    """CsrAttrs that ask for it in the old style as far as that goes, and as a template where a name, a key or an extension is asked for."""
    items: list[str | Attribute] = list(wishes.supplied)
    if wishes.key is not None:
        items.append(_key_type_attribute(wishes.key))
    components = (component.type for rdn in wishes.subject or () for component in rdn)
    items += [oid for oid in dict.fromkeys(components) if oid not in items]
    complete = [extension for extension in wishes.extensions if extension.is_complete]
    if complete:
        items.append(encode_extensions(complete))
    items += wishes.attributes
    if wishes.signature is not None:
        items.append(wishes.signature)
    if wishes.subject is not None or wishes.key is not None or wishes.extensions:
        template = Template(
            subject=wishes.subject, key=_key_template(wishes.key), extensions=wishes.extensions, attributes=wishes.attributes
        )
        items.append(Attribute(type=CERTIFICATION_REQUEST_INFO_TEMPLATE, values=(template.encode(),)))
    return tuple(items)


def _of_template(attribute: Attribute) -> Wishes:
    if len(attribute.values) != 1:
        raise MalformedBody("the certificationRequestInfoTemplate has not exactly one value (RFC 9908 section 3.4)")
    template = Template.decode(attribute.values[0])
    return Wishes(
        key=None if template.key is None else _key_of_template(template.key),
        subject=template.subject,
        extensions=template.extensions,
        supplied=tuple(attribute.type for attribute in template.attributes if not attribute.values),
        attributes=tuple(attribute for attribute in template.attributes if attribute.values),
    )


def _key_of_template(key: KeyTemplate) -> KeyWish:
    if key.algorithm == EC_PUBLIC_KEY and key.parameters is not None and is_object_identifier(key.parameters):
        return KeyWish(algorithm=key.algorithm, curves=(der.dotted(key.parameters, what="the curve"),))
    bits = rsa_bits(key.public_key) if key.algorithm == RSA_ENCRYPTION and key.public_key is not None else None
    return KeyWish(algorithm=key.algorithm, sizes=() if bits is None else (bits,))


def _key_template(key: KeyWish | None) -> KeyTemplate | None:
    if key is None:
        return None
    if key.algorithm == EC_PUBLIC_KEY:
        # The parameters of id-ecPublicKey are not optional (RFC 5480 section 2.1.1): of several curves the best one is asked for.
        return KeyTemplate(algorithm=key.algorithm, parameters=der.object_identifier(key.curves[0]) if key.curves else None)
    if key.algorithm == RSA_ENCRYPTION:
        placeholder = rsa_placeholder(key.sizes[0]) if len(key.sizes) == 1 else None
        return KeyTemplate(algorithm=key.algorithm, parameters=_NULL, public_key=placeholder)
    return KeyTemplate(algorithm=key.algorithm)


def _key_type_attribute(key: KeyWish) -> Attribute:
    """One attribute; its SET is empty where more than one curve or size will do (RFC 9908 section 3.2)."""
    if len(key.curves) == 1:
        return Attribute(type=key.algorithm, values=(der.object_identifier(key.curves[0]),))
    if len(key.sizes) == 1:
        return Attribute(type=key.algorithm, values=(der.integer(key.sizes[0]),))
    return Attribute(type=key.algorithm)


def _of_old_style(bare: Sequence[str], attributes: Sequence[Attribute], ignored: list[str]) -> Wishes:
    key: KeyWish | None = None
    extensions: dict[str, ExtensionTemplate] = {}
    others: list[Attribute] = []
    for attribute in attributes:
        if attribute.type in KEY_TYPES and key is None:
            key = _key_of_attribute(attribute)
        elif attribute.type == EXTENSION_REQUEST:
            try:
                for extension in decode_extensions(attribute):
                    extensions.setdefault(extension.oid, extension)
            except MalformedBody as error:
                ignored.append(error.message)
        elif attribute.type not in (CERTIFICATION_REQUEST_INFO_TEMPLATE, *KEY_TYPES):
            others.append(attribute)
    signature = next((oid for oid in bare if oid in SIGNATURES or oid in HASHES), None)
    curve = next((oid for oid in bare if oid in CURVES), None)
    if key is None and curve is not None:
        key = KeyWish(algorithm=EC_PUBLIC_KEY, curves=(curve,))
    if key is None and signature in SIGNATURES:
        key = KeyWish(algorithm=SIGNATURES[signature][0])
    components = tuple((NameComponent(type=oid),) for oid in dict.fromkeys(bare) if oid in NAME_COMPONENTS)
    rest = (oid for oid in bare if not any(oid in known for known in (SIGNATURES, HASHES, CURVES, NAME_COMPONENTS, KEY_TYPES)))
    return Wishes(
        key=key or next((KeyWish(algorithm=oid) for oid in bare if oid in KEY_TYPES), None),
        signature=signature,
        subject=components or None,
        extensions=tuple(extensions.values()),
        supplied=tuple(dict.fromkeys((*rest, *(attribute.type for attribute in others if not attribute.values)))),
        attributes=tuple(attribute for attribute in others if attribute.values),
        ignored=tuple(ignored),
    )


def _key_of_attribute(attribute: Attribute) -> KeyWish:
    """Of a SET that holds something else than a curve or a size nothing is understood but the kind of key."""
    value = attribute.values[0] if len(attribute.values) == 1 else b"\x00"
    if attribute.type == EC_PUBLIC_KEY and is_object_identifier(value):
        return KeyWish(algorithm=attribute.type, curves=(der.dotted(value, what="the curve"),))
    if attribute.type == RSA_ENCRYPTION and value[0] == INTEGER and len(value) < 8:
        return KeyWish(algorithm=attribute.type, sizes=(integer(value),))
    return KeyWish(algorithm=attribute.type)
