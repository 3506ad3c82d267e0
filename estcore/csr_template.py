"""The template of a CSR: which names, which key and which extensions a server wants, with or without their values.

RFC 9908 section 3.4 and its module:

    CertificationRequestInfoTemplate ::= SEQUENCE {
        version       INTEGER { v1(0) },
        subject       SEQUENCE OF SET SIZE (1..MAX) OF SEQUENCE { type OBJECT IDENTIFIER, value ANY OPTIONAL } OPTIONAL,
        subjectPKInfo [0] SEQUENCE { algorithm AlgorithmIdentifier, subjectPublicKey BIT STRING OPTIONAL } OPTIONAL,
        attributes    [1] SET OF Attribute }
    ExtensionReqTemplate ::= SEQUENCE SIZE (1..MAX) OF
        SEQUENCE { extnID OBJECT IDENTIFIER, critical BOOLEAN DEFAULT FALSE, extnValue OCTET STRING OPTIONAL }

A sentence of section 3.4 says ExtensionTemplate where module and example have a SEQUENCE of them, and servers were seen to put one
Extension where extensionRequest has Extensions: that lone form is read too, never written.
Whatever is decoded here was found to be DER all through before (`der.check`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from estcore import der
from estcore.attribute import Attribute, is_object_identifier, read_object_identifier
from estcore.csr_vocabulary import EXTENSION_REQ_TEMPLATE, EXTENSION_REQUEST, SUBJECT_ALT_NAME
from estcore.der import BIT_STRING, BOOLEAN, CONTEXT_0, CONTEXT_1, INTEGER, OCTET_STRING, SEQUENCE, SET
from estcore.errors import MalformedBody

MAX_NAME_COMPONENTS: Final = 20
MAX_EXTENSIONS: Final = 50
MAX_ATTRIBUTES: Final = 50

ANY_IP_ADDRESS: Final = b"\x87\x00"
"""A GeneralName iPAddress without octets: the client fills in its own."""
ANY_DIRECTORY_NAME: Final = b"\xa4\x02\x30\x00"
"""A GeneralName directoryName without RDNs: the client fills in its own."""

_V1 = b"\x02\x01\x00"
_TRUE = b"\x01\x01\xff"


@dataclass(frozen=True, slots=True, kw_only=True)
class NameComponent:
    """One attribute of the subject that is wanted: a dotted OID, and its DER value or None where the client fills it in."""

    type: str
    value: bytes | None = None


RdnTemplate = tuple[NameComponent, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtensionTemplate:
    """One extension that is wanted: `value` is the content of extnValue, None where the client fills it in."""

    oid: str
    critical: bool = False
    value: bytes | None = None

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left for the client to fill in."""
        if self.value is None:
            return False
        return self.oid != SUBJECT_ALT_NAME or not {ANY_IP_ADDRESS, ANY_DIRECTORY_NAME} & set(general_names(self.value))


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyTemplate:
    """The key that is wanted: dotted OID and DER parameters of its algorithm.

    `public_key` is what the BIT STRING holds of an RSA placeholder, which says nothing but a length.
    """

    algorithm: str
    parameters: bytes | None = None
    public_key: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A CertificationRequestInfoTemplate.

    `subject` and `key` are None where nothing is asked of them; `attributes` are all but those that hold the extensions.
    """

    subject: tuple[RdnTemplate, ...] | None = None
    key: KeyTemplate | None = None
    extensions: tuple[ExtensionTemplate, ...] = ()
    attributes: tuple[Attribute, ...] = ()

    @classmethod
    def decode(cls, template: bytes) -> Self:
        """Read a DER CertificationRequestInfoTemplate; raises MalformedBody."""
        version, *members = der.children(template, SEQUENCE, what="the template") or (b"",)
        if version != _V1:
            raise MalformedBody("the template's version is not 0, the only one there is (RFC 9908 section 3.4)")
        subject = _decode_subject(members.pop(0)) if members and members[0][0] == SEQUENCE else None
        key = _decode_key(members.pop(0)) if members and members[0][0] == CONTEXT_0 else None
        if len(members) != 1:
            raise MalformedBody("the template does not end in its attributes (RFC 9908 section 3.4)")
        attributes = tuple(map(Attribute.decode, der.children(members[0], CONTEXT_1, what="the template's attributes")))
        if len(attributes) > MAX_ATTRIBUTES:
            raise MalformedBody(f"the template has more than {MAX_ATTRIBUTES} attributes")
        wanting = [attribute for attribute in attributes if attribute.type in _EXTENSIONS]
        if len(wanting) > 1:
            raise MalformedBody("the template has more than one of extensionRequest and extensionReqTemplate (RFC 9908 section 3.4)")
        return cls(
            subject=subject,
            key=key,
            extensions=decode_extensions(wanting[0]) if wanting else (),
            attributes=tuple(attribute for attribute in attributes if attribute.type not in _EXTENSIONS),
        )

    def encode(self) -> bytes:
        """As DER. The extensions go into an extensionReqTemplate where a value is left open, else into an extensionRequest."""
        attributes = [attribute.encode() for attribute in self.attributes]
        if self.extensions:
            attributes.append(encode_extensions(self.extensions).encode())
        return der.tlv(
            SEQUENCE,
            _V1
            + (b"" if self.subject is None else _encode_subject(self.subject))
            + (b"" if self.key is None else _encode_key(self.key))
            + der.tlv(CONTEXT_1, b"".join(sorted(attributes))),
        )


_EXTENSIONS = frozenset({EXTENSION_REQUEST, EXTENSION_REQ_TEMPLATE})


def decode_extensions(attribute: Attribute) -> tuple[ExtensionTemplate, ...]:
    """The extensions in an extensionRequest or extensionReqTemplate: one value, no extnID twice, values left out in the latter only.

    Raises MalformedBody, also for the example of RFC 7030 section 4.5.2, which has an OID there (RFC 9908 section 5.2).
    """
    what = "the extensionReqTemplate" if attribute.type == EXTENSION_REQ_TEMPLATE else "the extensionRequest"
    if len(attribute.values) != 1:
        raise MalformedBody(f"{what} has not exactly one value (RFC 9908 section 3)")
    members = der.children(attribute.values[0], SEQUENCE, what=what)
    if members and is_object_identifier(members[0]):
        members = (attribute.values[0],)
    if not 0 < len(members) <= MAX_EXTENSIONS:
        raise MalformedBody(f"{what} has {len(members)} extensions; 1 to {MAX_EXTENSIONS} are allowed")
    extensions = tuple(_decode_extension(member, what) for member in members)
    if len({extension.oid for extension in extensions}) != len(extensions):
        raise MalformedBody(f"{what} has the same extension twice (RFC 9908 section 3.2)")
    if attribute.type == EXTENSION_REQUEST and any(extension.value is None for extension in extensions):
        raise MalformedBody("the extensionRequest has an extension without a value; only a template may leave one out")
    return extensions


def encode_extensions(extensions: Sequence[ExtensionTemplate]) -> Attribute:
    """The attribute that asks for extensions: extensionRequest where all values are complete (RFC 9908 section 3.4)."""
    complete = all(extension.is_complete for extension in extensions)
    values = der.tlv(SEQUENCE, b"".join(map(_encode_extension, extensions)))
    return Attribute(type=EXTENSION_REQUEST if complete else EXTENSION_REQ_TEMPLATE, values=(values,))


def general_names(subject_alt_name: bytes) -> tuple[bytes, ...]:
    """The DER GeneralNames of a DER subjectAltName, open ones included; empty where it cannot be read."""
    try:
        der.check(subject_alt_name, what="the subjectAltName")
        return der.children(subject_alt_name, SEQUENCE, what="the subjectAltName")
    except MalformedBody:
        return ()


def _decode_extension(extension: bytes, what: str) -> ExtensionTemplate:
    oid, *rest = der.children(extension, SEQUENCE, what=what) or (b"",)
    # An explicit FALSE is not DER, for it is the default; it is harmless, and written by hand now and then.
    critical = bool(rest) and rest[0][0] == BOOLEAN and rest.pop(0) == _TRUE
    if len(rest) > 1 or (rest and rest[0][0] != OCTET_STRING):
        raise MalformedBody(f"{what} has an extension of more than an identifier, a criticality and a value")
    value = rest[0] if rest else None
    return ExtensionTemplate(
        oid=read_object_identifier(oid, what=what), critical=critical, value=None if value is None else _content(value)
    )


def _encode_extension(extension: ExtensionTemplate) -> bytes:
    critical = _TRUE if extension.critical else b""
    value = b"" if extension.value is None else der.tlv(OCTET_STRING, extension.value)
    return der.tlv(SEQUENCE, der.object_identifier(extension.oid) + critical + value)


def _decode_subject(subject: bytes) -> tuple[RdnTemplate, ...]:
    rdns = der.children(subject, SEQUENCE, what="the template's subject")
    decoded = tuple(tuple(map(_decode_component, der.children(rdn, SET, what="the template's subject"))) for rdn in rdns)
    if sum(map(len, decoded)) > MAX_NAME_COMPONENTS or not all(decoded):
        raise MalformedBody(f"the template's subject has an empty RDN or more than {MAX_NAME_COMPONENTS} attributes")
    return decoded


def _decode_component(pair: bytes) -> NameComponent:
    oid, *value = der.children(pair, SEQUENCE, what="the template's subject") or (b"",)
    if len(value) > 1:
        raise MalformedBody("the template's subject has an attribute of more than a type and a value")
    return NameComponent(type=read_object_identifier(oid, what="the template's subject"), value=value[0] if value else None)


def _encode_subject(subject: Sequence[RdnTemplate]) -> bytes:
    return der.tlv(SEQUENCE, b"".join(encode_rdn(rdn) for rdn in subject))


def encode_rdn(rdn: RdnTemplate) -> bytes:
    """The DER RelativeDistinguishedName of components; one without a value is its type alone."""
    return der.tlv(SET, b"".join(sorted(map(_encode_component, rdn))))


def _encode_component(component: NameComponent) -> bytes:
    return der.tlv(SEQUENCE, der.object_identifier(component.type) + (component.value or b""))


def _decode_key(key: bytes) -> KeyTemplate:
    algorithm, *placeholder = der.children(key, CONTEXT_0, what="the template's key") or (b"",)
    oid, *parameters = der.children(algorithm, SEQUENCE, what="the template's key algorithm") or (b"",)
    if len(parameters) > 1 or len(placeholder) > 1 or (placeholder and placeholder[0][0] != BIT_STRING):
        raise MalformedBody("the template's key is more than an algorithm and a placeholder key")
    return KeyTemplate(
        algorithm=read_object_identifier(oid, what="the template's key algorithm"),
        parameters=parameters[0] if parameters else None,
        public_key=_content(placeholder[0])[1:] if placeholder else None,
    )


def _encode_key(key: KeyTemplate) -> bytes:
    algorithm = der.tlv(SEQUENCE, der.object_identifier(key.algorithm) + (key.parameters or b""))
    placeholder = b"" if key.public_key is None else der.tlv(BIT_STRING, b"\x00" + key.public_key)
    return der.tlv(CONTEXT_0, algorithm + placeholder)


def rsa_placeholder(bits: int) -> bytes:
    """A DER RSAPublicKey with a modulus of this length that is nobody's key: 2^(bits-1) + 1, exponent 65537."""
    modulus = (1 << (bits - 1)) | 1
    return der.tlv(SEQUENCE, der.integer(modulus) + der.integer(65537))


def rsa_bits(public_key: bytes) -> int | None:
    """The length of the modulus of a DER RSAPublicKey; None where it is none."""
    try:
        der.check(public_key, what="the placeholder key")
        members = der.children(public_key, SEQUENCE, what="the placeholder key")
    except MalformedBody:
        return None
    return integer(members[0]).bit_length() if members and members[0][0] == INTEGER else None


def integer(value: bytes) -> int:
    """The number in a DER INTEGER."""
    return int.from_bytes(_content(value), signed=True)


def _content(value: bytes) -> bytes:
    _, content, end = der.read(value, 0, len(value), what="a value")
    return value[content:end]
