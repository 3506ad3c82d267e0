"""What the object identifiers in CSR attributes mean.

RFC 8951 section 4 and RFC 9908 section 3.2 leave it to each OID what a bare one, or an attribute of that type, asks for. Those that are
not listed here are unknown to us: a client ignores them, a server that enforces them looks for a CSR attribute of that type.
"""

from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtensionOID

from estcore.keys import SignatureHash
from estcore.names import SUBJECT_ATTRIBUTE_NAMES

CHALLENGE_PASSWORD: Final = "1.2.840.113549.1.9.7"
EXTENSION_REQUEST: Final = "1.2.840.113549.1.9.14"
"""id-ExtensionReq."""
SMIME_CAPABILITIES: Final = "1.2.840.113549.1.9.15"
DECRYPT_KEY_ID: Final = "1.2.840.113549.1.9.16.2.37"
ASYMMETRIC_DECRYPT_KEY_ID: Final = "1.2.840.113549.1.9.16.2.54"
OTP_CHALLENGE: Final = "1.2.840.113549.1.9.16.2.56"
REVOCATION_CHALLENGE: Final = "1.2.840.113549.1.9.16.2.57"
EST_IDENTITY_LINKING: Final = "1.2.840.113549.1.9.16.2.58"
CERTIFICATION_REQUEST_INFO_TEMPLATE: Final = "1.2.840.113549.1.9.16.2.61"
EXTENSION_REQ_TEMPLATE: Final = "1.2.840.113549.1.9.16.2.62"
POP_LINK_WITNESS: Final = "1.3.6.1.5.5.7.7.23"
POP_LINK_WITNESS_V2: Final = "1.3.6.1.5.5.7.7.33"
CHANGE_SUBJECT_NAME: Final = "1.3.6.1.5.5.7.7.36"

LINKING: Final = (CHALLENGE_PASSWORD, EST_IDENTITY_LINKING)
"""Either links a CSR to its TLS connection (RFC 7030 section 3.5, RFC 7894 section 3.3)."""
PROOFS: Final = frozenset({CHALLENGE_PASSWORD, OTP_CHALLENGE, REVOCATION_CHALLENGE, EST_IDENTITY_LINKING})
"""Attributes that carry something of the client or of its connection, which no server can put into a template."""

SUBJECT_ALT_NAME: Final = ExtensionOID.SUBJECT_ALTERNATIVE_NAME.dotted_string
KEY_USAGE: Final = ExtensionOID.KEY_USAGE.dotted_string
EXTENDED_KEY_USAGE: Final = ExtensionOID.EXTENDED_KEY_USAGE.dotted_string
SUBJECT_KEY_IDENTIFIER: Final = ExtensionOID.SUBJECT_KEY_IDENTIFIER.dotted_string
FOLLOWABLE: Final = frozenset({SUBJECT_ALT_NAME, KEY_USAGE, EXTENDED_KEY_USAGE, SUBJECT_KEY_IDENTIFIER})
"""Extensions that a CSR can ask for here (`estcore.extension_request`): to insist on another would refuse every CSR."""

RSA_ENCRYPTION: Final = "1.2.840.113549.1.1.1"
EC_PUBLIC_KEY: Final = "1.2.840.10045.2.1"
ED25519: Final = "1.3.101.112"
ED448: Final = "1.3.101.113"
KEY_TYPES: Final = {RSA_ENCRYPTION: "RSA", EC_PUBLIC_KEY: "EC", ED25519: "Ed25519", ED448: "Ed448"}
"""Types of an attribute that asks for a kind of key (RFC 9908 section 3.2)."""

CURVES: Final = {
    "1.2.840.10045.3.1.7": "P-256",
    "1.3.132.0.34": "P-384",
    "1.3.132.0.35": "P-521",
    "1.3.36.3.3.2.8.1.1.7": "brainpoolP256r1",
    "1.3.36.3.3.2.8.1.1.11": "brainpoolP384r1",
    "1.3.36.3.3.2.8.1.1.13": "brainpoolP512r1",
}
HASHES: Final[dict[str, SignatureHash]] = {
    "2.16.840.1.101.3.4.2.1": hashes.SHA256(),
    "2.16.840.1.101.3.4.2.2": hashes.SHA384(),
    "2.16.840.1.101.3.4.2.3": hashes.SHA512(),
}
SIGNATURES: Final[dict[str, tuple[str, SignatureHash | None]]] = {
    "1.2.840.10045.4.3.2": (EC_PUBLIC_KEY, hashes.SHA256()),
    "1.2.840.10045.4.3.3": (EC_PUBLIC_KEY, hashes.SHA384()),
    "1.2.840.10045.4.3.4": (EC_PUBLIC_KEY, hashes.SHA512()),
    "1.2.840.113549.1.1.11": (RSA_ENCRYPTION, hashes.SHA256()),
    "1.2.840.113549.1.1.12": (RSA_ENCRYPTION, hashes.SHA384()),
    "1.2.840.113549.1.1.13": (RSA_ENCRYPTION, hashes.SHA512()),
    ED25519: (ED25519, None),
}
"""Signature algorithm → type of its key, hash (Ed25519 names none: RFC 8410 section 3)."""

NAME_COMPONENTS: Final = {oid.dotted_string: name for oid, name in SUBJECT_ATTRIBUTE_NAMES.items()}
"""Attribute types of a subject; a bare OID of these asks for that component (RFC 9908 section 5.5: serialNumber)."""

_OTHERS = {
    CHALLENGE_PASSWORD: "challengePassword",
    EXTENSION_REQUEST: "extensionRequest",
    OTP_CHALLENGE: "otpChallenge",
    REVOCATION_CHALLENGE: "revocationChallenge",
    EST_IDENTITY_LINKING: "estIdentityLinking",
    CERTIFICATION_REQUEST_INFO_TEMPLATE: "certificationRequestInfoTemplate",
    EXTENSION_REQ_TEMPLATE: "extensionReqTemplate",
    SMIME_CAPABILITIES: "smimeCapabilities",
    "1.2.840.113549.1.9.20": "friendlyName",
    "1.3.6.1.1.1.1.22": "macAddress",
    "1.2.840.10045.4.3.2": "ECDSA with SHA-256",
    "1.2.840.10045.4.3.3": "ECDSA with SHA-384",
    "1.2.840.10045.4.3.4": "ECDSA with SHA-512",
    "1.2.840.113549.1.1.11": "RSA with SHA-256",
    "1.2.840.113549.1.1.12": "RSA with SHA-384",
    "1.2.840.113549.1.1.13": "RSA with SHA-512",
    "2.16.840.1.101.3.4.2.1": "SHA-256",
    "2.16.840.1.101.3.4.2.2": "SHA-384",
    "2.16.840.1.101.3.4.2.3": "SHA-512",
    SUBJECT_ALT_NAME: "subjectAltName",
    KEY_USAGE: "keyUsage",
    EXTENDED_KEY_USAGE: "extendedKeyUsage",
    ExtensionOID.BASIC_CONSTRAINTS.dotted_string: "basicConstraints",
    SUBJECT_KEY_IDENTIFIER: "subjectKeyIdentifier",
    ExtensionOID.CERTIFICATE_POLICIES.dotted_string: "certificatePolicies",
    ExtensionOID.TLS_FEATURE.dotted_string: "tlsFeature",
}
_NAMES = KEY_TYPES | CURVES | NAME_COMPONENTS | _OTHERS


def describe(oid: str) -> str:
    """The name of an OID for people, or the OID."""
    return _NAMES.get(oid, oid)
