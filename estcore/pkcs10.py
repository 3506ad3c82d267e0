"""PKCS#10: parse a certification request and prove that its sender has the key.

RFC 2986, RFC 2985 section 5.4 (challengePassword, extensionRequest), RFC 5272 section 3.1. What comes out of `parse` is bounded, strictly
DER, signed by its own key, and asks only for what can be issued; whatever is asked for and cannot be is refused here by name, never
dropped in silence. Attributes that ask for nothing we know are passed over.

The outer shape is read by our own reader, which also gives the octets that were signed; names, keys and extensions by `cryptography`.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple, cast

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import ExtensionOID

from estcore import der
from estcore.der import BIT_STRING, CONTEXT_0, OBJECT_IDENTIFIER, SEQUENCE, SET, member, object_identifier
from estcore.errors import BadCsr, MalformedBody
from estcore.foreign import foreign
from estcore.issuer_spec import KeyAlgorithm
from estcore.keys import PublicKey, check_public_key
from estcore.names import check_general_name, parse_name
from estcore.usages import EXTENDED_KEY_USAGES, KEY_USAGE_BITS, Usage

MAX_SANS: Final = 100
MAX_ATTRIBUTES: Final = 20
MAX_EXTENSIONS: Final = 20
MAX_CHALLENGE_PASSWORD_CHARACTERS: Final = 255
"""RFC 2985 section 5.4.1, pkcs-9-ub-challengePassword."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pkcs10:
    """A CSR whose signature, key and names have been checked; nothing in it has been permitted.

    `usages` are those of the requested keyUsage and extendedKeyUsage, None where the CSR carries neither; `sans` is empty where it
    carries no subjectAltName. `challenge_password` is the text of that attribute: channel binding, or nothing (RFC 7030 section 3.5).
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
    public_key = _public_key(sections.spki)
    _verify(public_key, sections)
    algorithm = check_public_key(public_key)
    subject = parse_name(sections.subject)
    challenge_password = None
    requested = _NOTHING_REQUESTED
    if sections.attributes:
        csr = foreign(
            lambda: x509.load_der_x509_csr(csr_der), lambda: MalformedBody("the CSR's attributes are not DER (a SET OF is sorted)")
        )
        challenge_password, asks_for_extensions = _attributes(sections.attributes)
        if asks_for_extensions:
            requested = _extensions(csr, public_key)
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


# ---- proof-of-possession


def _public_key(spki: bytes) -> PublicKey:
    key = foreign(
        lambda: serialization.load_der_public_key(spki),
        lambda: BadCsr("the public key cannot be read: a kind, a curve or parameters that are not accepted", reason="KeyNotAllowed"),
    )
    if not spki.startswith(_SPKI_BEGINNINGS.get(len(spki), _NEVER)):
        check_public_key(key)
        raise BadCsr("the public key is not in the usual encoding (uncompressed point, rsaEncryption with NULL)", reason="KeyNotAllowed")
    return cast("PublicKey", key)


_SPKI_BEGINNINGS = {
    91: bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004"),
    120: bytes.fromhex("3076301006072a8648ce3d020106052b8104002203620004"),
    44: bytes.fromhex("302a300506032b6570032100"),
    294: bytes.fromhex("30820122300d06092a864886f70d01010105000382010f003082010a0282010100"),
    422: bytes.fromhex("308201a2300d06092a864886f70d01010105000382018f003082018a0282018100"),
    550: bytes.fromhex("30820222300d06092a864886f70d01010105000382020f003082020a0282020100"),
}
"""How the SubjectPublicKeyInfo of each listed key begins, by its octets: P-256, P-384, Ed25519, RSA-2048, -3072, -4096 with e = 65537.

One key, one encoding: no compressed point, no key restricted to RSASSA-PSS, nothing that our certificate would write otherwise.
"""
_NEVER = b"\xff"

_NULL = b"\x05\x00"


def _algorithm_identifier(oid: str, parameters: bytes = b"") -> bytes:
    return _sequence(object_identifier(oid) + parameters)


def _sequence(content: bytes, identifier: int = SEQUENCE) -> bytes:
    return bytes((identifier, len(content))) + content


def _pss_identifiers() -> dict[bytes, hashes.HashAlgorithm]:
    """RSASSA-PSS with the one sane set of parameters per hash (RFC 4055 section 3.1): MGF1 of the same hash, salt as long as the hash."""
    identifiers: dict[bytes, hashes.HashAlgorithm] = {}
    for oid, digest in _DIGESTS.items():
        for hash_parameters in (_NULL, b""):
            hash_identifier = _algorithm_identifier(oid, hash_parameters)
            parameters = (
                _sequence(hash_identifier, 0xA0)
                + _sequence(_algorithm_identifier("1.2.840.113549.1.1.8", hash_identifier), 0xA1)
                + _sequence(bytes((0x02, 0x01, digest.digest_size)), 0xA2)
            )
            identifiers[_algorithm_identifier("1.2.840.113549.1.1.10", _sequence(parameters))] = digest
    return identifiers


_DIGESTS: dict[str, hashes.HashAlgorithm] = {
    "2.16.840.1.101.3.4.2.1": hashes.SHA256(),
    "2.16.840.1.101.3.4.2.2": hashes.SHA384(),
    "2.16.840.1.101.3.4.2.3": hashes.SHA512(),
}
_ECDSA: dict[bytes, ec.EllipticCurveSignatureAlgorithm] = {
    _algorithm_identifier("1.2.840.10045.4.3.2"): ec.ECDSA(hashes.SHA256()),
    _algorithm_identifier("1.2.840.10045.4.3.3"): ec.ECDSA(hashes.SHA384()),
    _algorithm_identifier("1.2.840.10045.4.3.4"): ec.ECDSA(hashes.SHA512()),
}
_RSA: dict[bytes, tuple[padding.AsymmetricPadding, hashes.HashAlgorithm]] = {
    **{
        # RFC 4055 section 5: parameters are NULL, and absent ones are accepted.
        _algorithm_identifier(oid, parameters): (padding.PKCS1v15(), digest)
        for oid, digest in zip(("1.2.840.113549.1.1.11", "1.2.840.113549.1.1.12", "1.2.840.113549.1.1.13"), _DIGESTS.values(), strict=True)
        for parameters in (_NULL, b"")
    },
    **{
        identifier: (padding.PSS(mgf=padding.MGF1(digest), salt_length=digest.digest_size), digest)
        for identifier, digest in _pss_identifiers().items()
    },
}
_ED25519 = _algorithm_identifier("1.3.101.112")
"""Signature algorithms by the DER of their AlgorithmIdentifier, parameters included: what is not here is refused.

Missing on purpose: SHA-1 and MD5 (collisions), SHA-224 (weaker than any key we accept), SHA-3 and Ed448 (nothing sends them), and
RSASSA-PSS with its SHA-1 defaults or with a salt of another length than the hash.
"""


def _verify(public_key: PublicKey, sections: _Sections) -> None:
    """Verify the CSR's signature by its own key; raises BadCsr."""
    try:
        if isinstance(public_key, ec.EllipticCurvePublicKey):
            public_key.verify(sections.signature, sections.signed, _ECDSA[sections.algorithm])
        elif isinstance(public_key, rsa.RSAPublicKey):
            public_key.verify(sections.signature, sections.signed, *_RSA[sections.algorithm])
        elif sections.algorithm == _ED25519:
            public_key.verify(sections.signature, sections.signed)
        else:
            raise KeyError(sections.algorithm)
    except KeyError as error:
        raise BadCsr(
            "the CSR's signature algorithm is not accepted for its key; use ECDSA or RSA with SHA-256, SHA-384 or SHA-512, or Ed25519",
            reason="SignatureAlgorithm",
        ) from error
    except InvalidSignature as error:
        raise BadCsr("the CSR's signature is not valid for its own public key", reason="BadSignature") from error


# ---- attributes

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


# ---- requested extensions


class _Requested(NamedTuple):
    sans: tuple[x509.GeneralName, ...]
    usages: frozenset[Usage] | None


_NOTHING_REQUESTED = _Requested((), None)


_EXTENSION_NAMES = {
    oid: name
    for name, oid in {
        "subjectDirectoryAttributes": ExtensionOID.SUBJECT_DIRECTORY_ATTRIBUTES,
        "privateKeyUsagePeriod": ExtensionOID.PRIVATE_KEY_USAGE_PERIOD,
        "issuerAltName": ExtensionOID.ISSUER_ALTERNATIVE_NAME,
        "nameConstraints": ExtensionOID.NAME_CONSTRAINTS,
        "cRLDistributionPoints": ExtensionOID.CRL_DISTRIBUTION_POINTS,
        "certificatePolicies": ExtensionOID.CERTIFICATE_POLICIES,
        "policyMappings": ExtensionOID.POLICY_MAPPINGS,
        "authorityKeyIdentifier": ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
        "policyConstraints": ExtensionOID.POLICY_CONSTRAINTS,
        "freshestCRL": ExtensionOID.FRESHEST_CRL,
        "inhibitAnyPolicy": ExtensionOID.INHIBIT_ANY_POLICY,
        "authorityInfoAccess": ExtensionOID.AUTHORITY_INFORMATION_ACCESS,
        "subjectInfoAccess": ExtensionOID.SUBJECT_INFORMATION_ACCESS,
        "ocspNoCheck": ExtensionOID.OCSP_NO_CHECK,
        "tlsFeature": ExtensionOID.TLS_FEATURE,
        "msCertificateTemplate": ExtensionOID.MS_CERTIFICATE_TEMPLATE,
    }.items()
}
_NOT_USAGES = {
    "2.5.29.37.0": "anyExtendedKeyUsage",
    "1.3.6.1.5.5.7.3.9": "OCSPSigning",
    "1.3.6.1.5.5.7.3.27": "cmcCA",
    "1.3.6.1.5.5.7.3.28": "cmcRA",
    "1.3.6.1.4.1.311.20.2.2": "smartcardLogon",
}


def _extensions(csr: x509.CertificateSigningRequest, public_key: PublicKey) -> _Requested:
    extensions = foreign(lambda: csr.extensions, lambda: BadCsr("the requested extensions cannot be read, or one is there twice"))
    if len(extensions) > MAX_EXTENSIONS:
        raise BadCsr(f"the CSR asks for more than {MAX_EXTENSIONS} extensions")
    sans: tuple[x509.GeneralName, ...] = ()
    usages: frozenset[Usage] | None = None
    refused: list[str] = []
    for extension in extensions:
        value = extension.value
        match value:
            case x509.SubjectAlternativeName():
                sans = _subject_alt_name(value)
            case x509.KeyUsage():
                usages = (usages or frozenset()) | _key_usage(value)
            case x509.ExtendedKeyUsage():
                usages = (usages or frozenset()) | _extended_key_usage(value)
            case x509.BasicConstraints():
                if value.ca or value.path_length is not None:
                    raise BadCsr(
                        "the CSR asks for a CA certificate (basicConstraints CA:TRUE), which is never issued", reason="CaRequested"
                    )
            case x509.SubjectKeyIdentifier():
                _check_subject_key_identifier(value, public_key)
            case _:
                refused.append(_EXTENSION_NAMES.get(extension.oid, extension.oid.dotted_string))
    if refused:
        raise BadCsr(f"the CSR asks for extensions that are not issued: {', '.join(refused)}", reason="UnsupportedExtension")
    return _Requested(sans, usages)


def _subject_alt_name(value: x509.SubjectAlternativeName) -> tuple[x509.GeneralName, ...]:
    sans = tuple(value)
    if not sans:
        raise BadCsr("the subjectAltName is empty (RFC 5280 section 4.2.1.6 asks for one name at least)")
    if len(sans) > MAX_SANS:
        raise BadCsr(f"the subjectAltName has {len(sans)} names, more than {MAX_SANS}")
    for name in sans:
        check_general_name(name)
    return sans


def _key_usage(value: x509.KeyUsage) -> frozenset[Usage]:
    if value.key_cert_sign or value.crl_sign:
        raise BadCsr("the CSR asks for the key usage of a CA (keyCertSign or cRLSign), which is never issued", reason="CaRequested")
    if value.key_agreement and (value.encipher_only or value.decipher_only):
        raise BadCsr("the CSR asks for the key usage encipherOnly or decipherOnly, which is not issued", reason="UnsupportedUsage")
    usages = frozenset(usage for bit, usage in KEY_USAGE_BITS.items() if getattr(value, bit))
    if not usages:
        raise BadCsr("the keyUsage has no bit set that can be issued (RFC 5280 section 4.2.1.3 asks for one at least)")
    return usages


def _extended_key_usage(value: x509.ExtendedKeyUsage) -> frozenset[Usage]:
    refused = [oid.dotted_string for oid in value if oid not in EXTENDED_KEY_USAGES]
    if refused:
        names = ", ".join(_NOT_USAGES.get(oid, oid) for oid in refused)
        raise BadCsr(f"the CSR asks for extended key usages that are not issued: {names}", reason="UnsupportedUsage")
    usages = frozenset(EXTENDED_KEY_USAGES[oid] for oid in value)
    if not usages:
        raise BadCsr("the extendedKeyUsage is empty (RFC 5280 section 4.2.1.12 asks for one purpose at least)")
    return usages


def _check_subject_key_identifier(value: x509.SubjectKeyIdentifier, public_key: PublicKey) -> None:
    """OpenSSL puts it into CSRs by default; it is issued anyway, by method 1 of RFC 5280 section 4.2.1.2, so another one is refused."""
    if value != x509.SubjectKeyIdentifier.from_public_key(public_key):
        raise BadCsr("the subjectKeyIdentifier is not the SHA-1 of the public key (RFC 5280 section 4.2.1.2 method 1); leave it out")
