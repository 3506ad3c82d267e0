"""The extensions that a CSR asks for.

RFC 2985 section 5.4.2 and RFC 5280 section 4.2. An allow-list: subjectAltName, keyUsage, extendedKeyUsage, and those that say what is
issued anyway. The certificate's own extensions are built from what policy granted, never copied from here.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.x509.oid import ExtensionOID

from estcore.der import BIT_STRING, BOOLEAN, OCTET_STRING, SEQUENCE, member, object_identifier
from estcore.errors import BadCsr
from estcore.foreign import foreign
from estcore.keys import PublicKey
from estcore.names import check_general_name
from estcore.usages import EXTENDED_KEY_USAGES, KEY_USAGE_BITS, Usage

MAX_SANS: Final = 100
MAX_EXTENSIONS: Final = 20


class Requested(NamedTuple):
    """What is asked for; `usages` is None where neither keyUsage nor extendedKeyUsage is there.

    `cmc_ra` says whether the extended key usage of a registration authority is among it, which is no usage of any policy; `ca` whether a
    CA certificate is asked for.
    """

    sans: tuple[x509.GeneralName, ...] = ()
    usages: frozenset[Usage] | None = None
    cmc_ra: bool = False
    subject_key_identifier: bytes | None = None
    ca: bool = False


NOTHING = Requested()
CMC_RA = x509.ObjectIdentifier("1.3.6.1.5.5.7.3.28")
"""id-kp-cmcRA (RFC 6402 section 2.10)."""
_KEY_USAGE_BITS: Final = 9
"""RFC 5280 section 4.2.1.3 has the bits 0 to 8."""
_KEY_USAGE: Final = object_identifier(ExtensionOID.KEY_USAGE.dotted_string)

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
    "1.3.6.1.4.1.311.20.2.2": "smartcardLogon",
}


def read(requested: x509.Extensions, public_key: PublicKey | None, *, accept_ca: bool = False) -> Requested:
    """Read the extensions that a request asks for; raises BadCsr that names whatever is asked for and not issued.

    `public_key` is the request's own, which a subjectKeyIdentifier must fit; None where that key will not be certified. With `accept_ca`
    it may ask for a CA certificate, which only a registration authority's request leads to.
    """
    if len(requested) > MAX_EXTENSIONS:
        raise BadCsr(f"the CSR asks for more than {MAX_EXTENSIONS} extensions")
    sans: tuple[x509.GeneralName, ...] = ()
    usages: frozenset[Usage] | None = None
    cmc_ra = ca = False
    subject_key_identifier: bytes | None = None
    if accept_ca:
        ca = _asks_for_ca([extension.value for extension in requested])
    refused: list[str] = []
    for extension in requested:
        value = extension.value
        match value:
            case x509.SubjectAlternativeName():
                sans = _subject_alt_name(value)
            case x509.KeyUsage():
                bits = _key_usage(value, of_ca=ca)
                usages = bits | (usages or frozenset()) if bits else usages
            case x509.ExtendedKeyUsage():
                usages = (usages or frozenset()) | _extended_key_usage(value)
                cmc_ra = CMC_RA in value
            case x509.BasicConstraints():
                if (value.ca and not ca) or value.path_length not in ((None, 0) if ca else (None,)):
                    raise BadCsr(
                        "the CSR asks for a CA certificate (basicConstraints CA:TRUE), which is never issued", reason="CaRequested"
                    )
            case x509.SubjectKeyIdentifier():
                if public_key is not None:
                    _check_subject_key_identifier(value, public_key)
                subject_key_identifier = value.digest
            case _:
                refused.append(_EXTENSION_NAMES.get(extension.oid, extension.oid.dotted_string))
    if refused:
        raise BadCsr(f"the CSR asks for extensions that are not issued: {', '.join(refused)}", reason="UnsupportedExtension")
    return Requested(sans, usages, cmc_ra, subject_key_identifier, ca)


def load(extensions_der: bytes, library: Callable[[], x509.Extensions]) -> x509.Extensions:
    """The DER Extensions as `library` reads them. Raises BadCsr, also as `check_key_usage` does."""
    extensions = foreign(library, lambda: BadCsr("the requested extensions cannot be read, or one is there twice"))
    check_key_usage(extensions_der)
    return extensions


def check_key_usage(extensions_der: bytes) -> None:
    """Check the octets of keyUsage in a DER Extensions that `cryptography` has read: it sees the bits that it knows and no others.

    Raises BadCsr for bits that RFC 5280 has not, and for trailing zero bits, which DER leaves out (X.690 section 11.2.2).
    """
    if _KEY_USAGE not in extensions_der:
        return
    position, end = member(extensions_der, 0, len(extensions_der), SEQUENCE, what="the extensions")
    while position < end:
        oid, position = member(extensions_der, position, end, SEQUENCE, what="an extension")
        if extensions_der.startswith(_KEY_USAGE, oid):
            _check_key_usage_bits(extensions_der, oid + len(_KEY_USAGE), position)


def _check_key_usage_bits(extensions_der: bytes, position: int, end: int) -> None:
    if extensions_der[position] == BOOLEAN:
        _, position = member(extensions_der, position, end, BOOLEAN, what="critical")
    position, end = member(extensions_der, position, end, OCTET_STRING, what="the keyUsage")
    position, end = member(extensions_der, position, end, BIT_STRING, what="the keyUsage")
    unused, octets = extensions_der[position], extensions_der[position + 1 : end]
    bits = int.from_bytes(octets) >> unused
    count = 8 * len(octets) - unused
    if count and not bits & 1:
        raise BadCsr("the keyUsage is not DER, which leaves trailing zero bits out (X.690 section 11.2.2)")
    unknown = bits & (1 << count - _KEY_USAGE_BITS) - 1 if count > _KEY_USAGE_BITS else 0
    if unknown:
        first = count - unknown.bit_length()
        raise BadCsr(
            f"the CSR asks for the key usage of bit {first}, which RFC 5280 section 4.2.1.3 has not; bit 8 is its last",
            reason="UnsupportedUsage",
        )


def _asks_for_ca(values: Sequence[x509.ExtensionType]) -> bool:
    """By basicConstraints; without them by keyCertSign, which goes with CA:TRUE only (RFC 5280 section 4.2.1.9): so cert-manager asks."""
    for value in values:
        if isinstance(value, x509.BasicConstraints):
            return value.ca
    return any(isinstance(value, x509.KeyUsage) and value.key_cert_sign for value in values)


def _subject_alt_name(value: x509.SubjectAlternativeName) -> tuple[x509.GeneralName, ...]:
    sans = tuple(value)
    if not sans:
        raise BadCsr("the subjectAltName is empty (RFC 5280 section 4.2.1.6 asks for one name at least)")
    if len(sans) > MAX_SANS:
        raise BadCsr(f"the subjectAltName has {len(sans)} names, more than {MAX_SANS}")
    for name in sans:
        check_general_name(name)
    return sans


def _key_usage(value: x509.KeyUsage, *, of_ca: bool) -> frozenset[Usage]:
    """The usages but for those of a CA, which every CA certificate has."""
    if (value.key_cert_sign or value.crl_sign) and not of_ca:
        raise BadCsr("the CSR asks for the key usage of a CA (keyCertSign or cRLSign), which is never issued", reason="CaRequested")
    if value.key_agreement and (value.encipher_only or value.decipher_only):
        raise BadCsr("the CSR asks for the key usage encipherOnly or decipherOnly, which is not issued", reason="UnsupportedUsage")
    usages = frozenset(usage for bit, usage in KEY_USAGE_BITS.items() if getattr(value, bit))
    if not usages and not of_ca:
        raise BadCsr("the keyUsage has no bit set that can be issued (RFC 5280 section 4.2.1.3 asks for one at least)")
    return usages


def _extended_key_usage(value: x509.ExtendedKeyUsage) -> frozenset[Usage]:
    refused = [oid.dotted_string for oid in value if oid not in EXTENDED_KEY_USAGES and oid != CMC_RA]
    if refused:
        names = ", ".join(_NOT_USAGES.get(oid, oid) for oid in refused)
        raise BadCsr(f"the CSR asks for extended key usages that are not issued: {names}", reason="UnsupportedUsage")
    return frozenset(EXTENDED_KEY_USAGES[oid] for oid in value if oid != CMC_RA)  # the library refuses to read an empty one


def _check_subject_key_identifier(value: x509.SubjectKeyIdentifier, public_key: PublicKey) -> None:
    """OpenSSL puts it into CSRs by default; it is issued anyway, by method 1 of RFC 5280 section 4.2.1.2, so another one is refused."""
    if value != x509.SubjectKeyIdentifier.from_public_key(public_key):
        raise BadCsr("the subjectKeyIdentifier is not the SHA-1 of the public key (RFC 5280 section 4.2.1.2 method 1); leave it out")
