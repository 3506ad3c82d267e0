"""CSRs whose extensions, attributes, keys, signatures or encodings are hostile. The names are the requester's own."""

import base64
from functools import partial
from hashlib import sha256

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec as curves
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests import pki
from tests.hostile.case import Case, Cases, csr, prefixed
from tests.pki import extension, oid, sequence, tlv
from tests.server.app_fixtures import FACTORY_CA

SAN = extension("2.5.29.17", sequence(tlv(0x82, b"a.devices.example")))
NULL, TRUE = b"\x05\x00", b"\x01\x01\xff"
UNREADABLE = (400, "BadCsr")
NOT_DER = (400, "MalformedBody")
NOT_ISSUED = (400, "UnsupportedExtension")
CA_REQUESTED = (400, "CaRequested")
USAGE = (400, "UnsupportedUsage")


def asking(*extensions_der: bytes) -> bytes:
    return pki.raw_csr(pki.extension_request(*extensions_der))


# ---- a CA, usages, extensions that are not issued

KEY_USAGE, EXTENDED, CONSTRAINTS = "2.5.29.15", "2.5.29.37", "2.5.29.19"


def usage(bits: bytes) -> bytes:
    return asking(SAN, extension(KEY_USAGE, tlv(0x03, bits), critical=True))


def extended(*dotted: str) -> bytes:
    return asking(SAN, extension(EXTENDED, sequence(*map(oid, dotted))))


A_CA: Cases = {
    "CA:TRUE": csr(lambda: asking(SAN, extension(CONSTRAINTS, sequence(TRUE))), *CA_REQUESTED),
    "CA:TRUE, critical": csr(lambda: asking(SAN, extension(CONSTRAINTS, sequence(TRUE), critical=True)), *CA_REQUESTED),
    "CA:TRUE, pathLen 0": csr(lambda: asking(SAN, extension(CONSTRAINTS, sequence(TRUE, b"\x02\x01\x00"))), *CA_REQUESTED),
    "CA:TRUE, pathLen 2^31": csr(
        lambda: asking(SAN, extension(CONSTRAINTS, sequence(TRUE, b"\x02\x05\x00\x80\x00\x00\x00"))), *CA_REQUESTED
    ),
    "CA:TRUE, pathLen -1": csr(lambda: asking(SAN, extension(CONSTRAINTS, sequence(TRUE, b"\x02\x01\xff"))), *UNREADABLE),
    "pathLen without CA": csr(lambda: asking(SAN, extension(CONSTRAINTS, sequence(b"\x02\x01\x00"))), *UNREADABLE),
    "CA:TRUE by a BER boolean": csr(lambda: asking(SAN, extension(CONSTRAINTS, sequence(b"\x01\x01\x01"))), *UNREADABLE),
    "CA:FALSE written out": csr(lambda: asking(SAN, extension(CONSTRAINTS, sequence(b"\x01\x01\x00"))), *UNREADABLE),
    "basicConstraints in a NULL": csr(lambda: asking(SAN, extension(CONSTRAINTS, NULL)), *UNREADABLE),
    "two basicConstraints": csr(
        lambda: asking(SAN, extension(CONSTRAINTS, sequence()), extension(CONSTRAINTS, sequence(TRUE))), *UNREADABLE
    ),
    "keyCertSign": csr(lambda: usage(b"\x02\x04"), *CA_REQUESTED),
    "cRLSign": csr(lambda: usage(b"\x01\x02"), *CA_REQUESTED),
    "digitalSignature and keyCertSign": csr(lambda: usage(b"\x02\x84"), *CA_REQUESTED),
    "every bit": csr(lambda: usage(b"\x07\xff\x80"), *CA_REQUESTED),
    "CA:TRUE in Microsoft's attribute": csr(
        lambda: pki.raw_csr(pki.attribute("1.3.6.1.4.1.311.2.1.14", sequence(extension(CONSTRAINTS, sequence(TRUE))))), *CA_REQUESTED
    ),
    "CA:TRUE beside an extensionRequest of Microsoft's": csr(
        lambda: pki.raw_csr(
            pki.extension_request(SAN), pki.attribute("1.3.6.1.4.1.311.2.1.14", sequence(extension(CONSTRAINTS, sequence(TRUE))))
        ),
        *UNREADABLE,
    ),
}

USAGES: Cases = {
    "no bits": csr(lambda: usage(b"\x00"), *UNREADABLE),
    "zero bits": csr(lambda: usage(b"\x07\x00"), *UNREADABLE),
    "eight unused bits": csr(lambda: usage(b"\x08\x80"), *UNREADABLE),
    "unused bits that are set": csr(lambda: usage(b"\x07\xff"), *UNREADABLE),
    "trailing zero bits": csr(lambda: usage(b"\x04\xa0"), *UNREADABLE, says="trailing zero bits"),
    "no unused bits where there are some": csr(lambda: usage(b"\x00\xa0"), *UNREADABLE, says="trailing zero bits"),
    "a trailing zero octet": csr(lambda: usage(b"\x00\xa0\x00"), *UNREADABLE, says="trailing zero bits"),
    "trailing zero bits in Microsoft's attribute": csr(
        lambda: pki.raw_csr(pki.attribute("1.3.6.1.4.1.311.2.1.14", sequence(extension(KEY_USAGE, tlv(0x03, b"\x00\xa0"))))), *UNREADABLE
    ),
    "bit 9": csr(lambda: usage(b"\x06\x80\x40"), *USAGE, says="bit 9,"),
    "bit 8 and bit 9": csr(lambda: usage(b"\x06\x88\xc0"), *USAGE, says="bit 9,"),
    "bit 15": csr(lambda: usage(b"\x00\x80\x01"), *USAGE, says="bit 15,"),
    "bit 9 alone": csr(lambda: usage(b"\x06\x00\x40"), *USAGE, says="bit 9,"),
    "200,000 bits": csr(lambda: usage(b"\x00\x88" + b"\xff" * 25_000), *USAGE, says="bit 9,"),
    "bit 9 behind the octets of a keyUsage that is in order": csr(
        lambda: asking(
            extension("2.5.29.17", sequence(tlv(0xA0, oid("1.2.3"), tlv(0xA0, tlv(0x04, extension(KEY_USAGE, b"\x03\x02\x07\x80")))))),
            extension(KEY_USAGE, tlv(0x03, b"\x06\x80\x40")),
        ),
        *USAGE,
        says="bit 9,",
    ),
    "no octets at all": csr(lambda: usage(b""), *UNREADABLE),
    "encipherOnly alone": csr(lambda: usage(b"\x00\x01"), *UNREADABLE),
    "keyAgreement and encipherOnly": csr(lambda: usage(b"\x00\x09"), *USAGE),
    "keyAgreement and decipherOnly": csr(lambda: usage(b"\x07\x08\x80"), *USAGE),
    "a usage that the policy does not list": csr(lambda: usage(b"\x06\x40"), 403, "UsageNotPermitted"),
    "keyUsage in an OCTET STRING": csr(lambda: asking(SAN, extension(KEY_USAGE, tlv(0x04, b"\x80"))), *UNREADABLE),
    "an empty extendedKeyUsage": csr(extended, *UNREADABLE),
    "anyExtendedKeyUsage": csr(lambda: extended("2.5.29.37.0"), *USAGE, says="anyExtendedKeyUsage"),
    "OCSPSigning": csr(lambda: extended("1.3.6.1.5.5.7.3.9"), *USAGE, says="OCSPSigning"),
    "timeStamping": csr(lambda: extended("1.3.6.1.5.5.7.3.8"), 403, "UsageNotPermitted"),
    "codeSigning": csr(lambda: extended("1.3.6.1.5.5.7.3.3"), 403, "UsageNotPermitted"),
    "emailProtection": csr(lambda: extended("1.3.6.1.5.5.7.3.4"), 403, "UsageNotPermitted"),
    "smartcardLogon": csr(lambda: extended("1.3.6.1.4.1.311.20.2.2"), *USAGE, says="smartcardLogon"),
    "cmcRA": csr(lambda: extended("1.3.6.1.5.5.7.3.28"), 403, "CmcRaRequested"),
    "cmcCA": csr(lambda: extended("1.3.6.1.5.5.7.3.27"), *USAGE, says="cmcCA"),
    "cmcArchive": csr(lambda: extended("1.3.6.1.5.5.7.3.29"), *USAGE),
    "clientAuth and cmcRA": csr(lambda: extended("1.3.6.1.5.5.7.3.2", "1.3.6.1.5.5.7.3.28"), 403, "CmcRaRequested"),
    "an unknown usage": csr(lambda: extended("1.2.3.4"), *USAGE, says="1.2.3.4"),
    "extendedKeyUsage twice": csr(lambda: asking(*[extension(EXTENDED, sequence(oid("1.3.6.1.5.5.7.3.2")))] * 2), *UNREADABLE),
}

_NOT_ISSUED_OIDS = {
    "subjectDirectoryAttributes": ("2.5.29.9", sequence()),
    "subjectKeyIdentifier of another key": ("2.5.29.14", tlv(0x04, b"mine")),
    "privateKeyUsagePeriod": ("2.5.29.16", sequence(tlv(0x80, b"20260101000000Z"))),
    "issuerAltName": ("2.5.29.18", sequence(tlv(0x82, b"a.example"))),
    "cRLNumber": ("2.5.29.20", b"\x02\x01\x01"),
    "deltaCRLIndicator": ("2.5.29.27", b"\x02\x01\x01"),
    "issuingDistributionPoint": ("2.5.29.28", sequence()),
    "nameConstraints": ("2.5.29.30", sequence(tlv(0xA0, sequence(tlv(0x82, b"example"))))),
    "cRLDistributionPoints": ("2.5.29.31", sequence(sequence(tlv(0xA0, tlv(0xA0, tlv(0x86, b"http://a.example")))))),
    "certificatePolicies": ("2.5.29.32", sequence(sequence(oid("2.5.29.32.0")))),
    "policyMappings": ("2.5.29.33", sequence(sequence(oid("1.2.3"), oid("1.2.4")))),
    "authorityKeyIdentifier": ("2.5.29.35", sequence(tlv(0x80, bytes(20)))),
    "policyConstraints": ("2.5.29.36", sequence(tlv(0x80, b"\x00"))),
    "freshestCRL": ("2.5.29.46", sequence(sequence(tlv(0xA0, tlv(0xA0, tlv(0x86, b"http://a.example")))))),
    "inhibitAnyPolicy": ("2.5.29.54", b"\x02\x01\x00"),
    "authorityInfoAccess": ("1.3.6.1.5.5.7.1.1", sequence(sequence(oid("1.3.6.1.5.5.7.48.1"), tlv(0x86, b"http://a.example")))),
    "subjectInfoAccess": ("1.3.6.1.5.5.7.1.11", sequence(sequence(oid("1.3.6.1.5.5.7.48.5"), tlv(0x86, b"http://a.example")))),
    "qcStatements": ("1.3.6.1.5.5.7.1.3", sequence()),
    "tlsFeature": ("1.3.6.1.5.5.7.1.24", sequence(b"\x02\x01\x05")),
    "ocspNoCheck": ("1.3.6.1.5.5.7.48.1.5", NULL),
    "an SCT list": ("1.3.6.1.4.1.11129.2.4.2", tlv(0x04, b"\x00\x00")),
    "the precertificate poison": ("1.3.6.1.4.1.11129.2.4.3", NULL),
    "a Microsoft template name": ("1.3.6.1.4.1.311.20.2", tlv(0x1E, "DomainController".encode("utf-16-be"))),
    "a Microsoft template": ("1.3.6.1.4.1.311.21.7", sequence(oid("1.3.6.1.4.1.311.21.8.1"))),
    "a Microsoft CA version": ("1.3.6.1.4.1.311.21.1", b"\x02\x01\x00"),
    "a Microsoft SID": ("1.3.6.1.4.1.311.25.2", sequence()),
    "a Netscape type": ("2.16.840.1.113730.1.1", tlv(0x03, b"\x00\xff")),
    "an Apple extension": ("1.2.840.113635.100.6.1.1", NULL),
    "a Kubernetes-like extension": ("1.3.6.1.4.1.57683.2", b"\x0c\x0esystem:masters"),
    "an unknown extension": ("1.2.3.4.5", tlv(0x04, b"")),
}


def _asking_for(dotted: str, value: bytes, *, critical: bool) -> bytes:
    return asking(SAN, extension(dotted, value, critical=critical))


EXTENSIONS: dict[str, Case] = {
    f"{name}{', critical' if critical else ''}": csr(
        partial(_asking_for, dotted, value, critical=critical),
        *(UNREADABLE if dotted == "2.5.29.14" else NOT_ISSUED),
    )
    for name, (dotted, value) in _NOT_ISSUED_OIDS.items()
    for critical in (False, True)
} | {
    "21 unknown extensions": csr(lambda: asking(*(extension(f"1.2.3.{number}", NULL) for number in range(21))), *UNREADABLE),
    "1,000 unknown extensions": csr(lambda: asking(*(extension(f"1.2.3.{number}", NULL) for number in range(1000))), *UNREADABLE),
    "two SANs": csr(lambda: asking(SAN, SAN), *UNREADABLE),
    "an extension that is empty": csr(lambda: asking(SAN, sequence()), *UNREADABLE),
    "an extension without value": csr(lambda: asking(SAN, sequence(oid("2.5.29.15"))), *UNREADABLE),
    "an extension of four members": csr(lambda: asking(sequence(oid("2.5.29.15"), TRUE, tlv(0x04, NULL), NULL)), *UNREADABLE),
    "critical FALSE written out": csr(
        lambda: asking(sequence(oid("2.5.29.15"), b"\x01\x01\x00", tlv(0x04, b"\x03\x02\x07\x80"))), *UNREADABLE
    ),
    "a SAN followed by octets": csr(lambda: asking(extension("2.5.29.17", sequence(tlv(0x82, b"a.devices.example")) + NULL)), *UNREADABLE),
    "a SAN that is text": csr(lambda: asking(extension("2.5.29.17", b"a.devices.example")), *UNREADABLE),
    "a SAN with an indefinite length": csr(
        lambda: asking(extension("2.5.29.17", b"\x30\x80" + tlv(0x82, b"a.devices.example") + b"\x00\x00")), *UNREADABLE
    ),
    "a SAN nested 40 deep": csr(lambda: asking(extension("2.5.29.17", nested(40))), *UNREADABLE),
}


def nested(depth: int, inner: bytes = b"") -> bytes:
    for _ in range(depth):
        inner = sequence(inner)
    return inner


# ---- attributes


def challenge(*values: bytes) -> bytes:
    return pki.raw_csr(pki.attribute(pki.CHALLENGE_PASSWORD, *values))


BINDING = base64.b64encode(b"b" * 32)
"""Of the connection that app_fixtures.tls makes."""
MISMATCH = (400, "BindingMismatch")

ATTRIBUTES: Cases = {
    "a password in challengePassword": csr(lambda: challenge(tlv(0x0C, b"secret")), *MISMATCH),
    "the binding of another connection": csr(lambda: challenge(tlv(0x13, base64.b64encode(b"c" * 32))), *MISMATCH),
    "the binding cut by one character": csr(lambda: challenge(tlv(0x13, BINDING[:-1])), *MISMATCH),
    "the binding cut by half": csr(lambda: challenge(tlv(0x13, BINDING[:22])), *MISMATCH),
    "the binding's first character": csr(lambda: challenge(tlv(0x13, BINDING[:1])), *MISMATCH),
    "the binding and more": csr(lambda: challenge(tlv(0x13, BINDING + b"A")), *MISMATCH),
    "the binding twice over": csr(lambda: challenge(tlv(0x13, BINDING * 2)), *MISMATCH),
    "the binding in another case": csr(lambda: challenge(tlv(0x13, BINDING.lower())), *MISMATCH),
    "the binding in hexadecimal": csr(lambda: challenge(tlv(0x13, (b"b" * 32).hex().encode())), *MISMATCH),
    "the binding's octets": csr(lambda: challenge(tlv(0x0C, b"b" * 32)), *MISMATCH),
    "the binding with a line break": csr(lambda: challenge(tlv(0x0C, BINDING + b"\n")), *MISMATCH),
    "the binding with spaces": csr(lambda: challenge(tlv(0x13, b" " + BINDING)), *MISMATCH),
    "the binding's SHA-256": csr(lambda: challenge(tlv(0x13, base64.b64encode(sha256(b"b" * 32).digest()))), *MISMATCH),
    "an empty challengePassword": csr(lambda: challenge(tlv(0x13, b"")), *UNREADABLE),
    "a challengePassword of 256 characters": csr(lambda: challenge(tlv(0x13, b"a" * 256)), *UNREADABLE),
    "a challengePassword of 20,000": csr(lambda: challenge(tlv(0x13, b"a" * 20_000)), *UNREADABLE),
    "two values": csr(lambda: challenge(tlv(0x13, BINDING), tlv(0x0C, BINDING)), *UNREADABLE),
    "no value": csr(challenge, *UNREADABLE),
    "an OCTET STRING": csr(lambda: challenge(tlv(0x04, BINDING)), *UNREADABLE),
    "an IA5String": csr(lambda: challenge(tlv(0x16, BINDING)), *UNREADABLE),
    "a SEQUENCE": csr(lambda: challenge(sequence(tlv(0x13, BINDING))), *UNREADABLE),
    "half a BMPString": csr(lambda: challenge(tlv(0x1E, b"\x00a\x00")), *UNREADABLE),
    "a UniversalString of three octets": csr(lambda: challenge(tlv(0x1C, b"\x00\x00a")), *UNREADABLE),
    "no valid UTF-8": csr(lambda: challenge(tlv(0x0C, b"\xff\xfe")), *UNREADABLE),
    "challengePassword twice": csr(
        lambda: pki.raw_csr(*[pki.attribute(pki.CHALLENGE_PASSWORD, tlv(0x13, BINDING))] * 2), *UNREADABLE, says="twice"
    ),
    "extensionRequest twice": csr(lambda: pki.raw_csr(*[pki.extension_request(SAN)] * 2), *UNREADABLE, says="twice"),
    "extensionRequest with two values": csr(
        lambda: pki.raw_csr(pki.attribute(pki.EXTENSION_REQUEST, sequence(SAN), sequence(extension(CONSTRAINTS, sequence(TRUE))))),
        *UNREADABLE,
    ),
    "extensionRequest without value": csr(lambda: pki.raw_csr(pki.attribute(pki.EXTENSION_REQUEST)), *UNREADABLE),
    "extensionRequest that is NULL": csr(lambda: pki.raw_csr(pki.attribute(pki.EXTENSION_REQUEST, NULL)), *NOT_DER),
    "21 attributes": csr(lambda: pki.raw_csr(*(pki.attribute(f"1.2.3.{number}", NULL) for number in range(21))), *UNREADABLE, says="20"),
    "2,000 attributes": csr(lambda: pki.raw_csr(*(pki.attribute(f"1.2.3.{number}", NULL) for number in range(2000))), *UNREADABLE),
    "an attribute of three members": csr(lambda: pki.raw_csr(sequence(oid("1.2.3"), tlv(0x31, NULL), NULL)), *NOT_DER),
    "an attribute without values": csr(lambda: pki.raw_csr(sequence(oid("1.2.3"))), *NOT_DER),
    "an attribute whose values are a SEQUENCE": csr(lambda: pki.raw_csr(sequence(oid("1.2.3"), sequence(NULL))), *NOT_DER),
    "an attribute that is an OID": csr(lambda: pki.raw_csr(oid("1.2.3")), *NOT_DER),
    "an empty changeSubjectName": csr(lambda: pki.raw_csr(pki.attribute("1.3.6.1.5.5.7.7.36", sequence())), *UNREADABLE),
    "a changeSubjectName that is NULL": csr(lambda: pki.raw_csr(pki.attribute("1.3.6.1.5.5.7.7.36", NULL)), *NOT_DER),
    "an empty otpChallenge": csr(lambda: pki.raw_csr(pki.attribute("1.2.840.113549.1.9.16.2.56", tlv(0x0C, b""))), *UNREADABLE),
    "an estIdentityLinking of another connection": csr(
        lambda: pki.raw_csr(pki.attribute("1.2.840.113549.1.9.16.2.58", tlv(0x13, base64.b64encode(b"c" * 32)))), *MISMATCH
    ),
    "a right challengePassword and a wrong estIdentityLinking": csr(
        lambda: pki.raw_csr(
            pki.attribute(pki.CHALLENGE_PASSWORD, tlv(0x13, BINDING)),
            pki.attribute("1.2.840.113549.1.9.16.2.58", tlv(0x13, base64.b64encode(b"c" * 32))),
        ),
        *MISMATCH,
    ),
    "no binding where it is required": csr(pki.raw_csr, *MISMATCH, path="/.well-known/est/bound/simpleenroll"),
    "a wrong binding where it is required": csr(
        lambda: challenge(tlv(0x13, base64.b64encode(b"c" * 32))), *MISMATCH, path="/.well-known/est/bound/simpleenroll"
    ),
}

# ---- keys

RSA, EC, ED25519 = "1.2.840.113549.1.1.1", "1.2.840.10045.2.1", "1.3.101.112"
P256, P384 = "1.2.840.10045.3.1.7", "1.3.132.0.34"
GENERATOR = bytes.fromhex(
    "046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c2964fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"
)
FIELD_PRIME = (1 << 256) - (1 << 224) + (1 << 192) + (1 << 96) - 1
NOT_A_KEY = (400, "KeyNotAllowed")
WEAK = (400, "WeakKey")


def integer(value: int) -> bytes:
    return tlv(0x02, value.to_bytes(value.bit_length() // 8 + 1))


def spki(algorithm: str, parameters: bytes, key: bytes) -> bytes:
    return pki.raw_csr(spki=sequence(sequence(oid(algorithm), parameters), tlv(0x03, b"\x00", key)))


def rsa(modulus: int, exponent: int = 65537) -> bytes:
    return spki(RSA, NULL, sequence(integer(modulus), integer(exponent)))


def ec(point: bytes, parameters: bytes | None = None) -> bytes:
    return spki(EC, oid(P256) if parameters is None else parameters, point)


def point(x: int, y: int) -> bytes:
    return b"\x04" + x.to_bytes(32) + y.to_bytes(32)


def _modulus(bits: int) -> int:
    """Odd, of the size, the product of nothing in particular."""
    stream = b"".join(sha256(b"modulus %d" % number).digest() for number in range(bits // 256 + 1))
    return int.from_bytes(stream) >> (len(stream) * 8 - bits) | 1 << (bits - 1) | 1


def _rsa_of(bits: int, exponent: int = 65537) -> bytes:
    return rsa(_modulus(bits), exponent)


def _ca_key_csr() -> bytes:
    """A CSR for the CA's own key, signed with it: only the CA itself could make it, and it must not be made."""
    key = load_pem_private_key(FACTORY_CA.data["tls.key"], None)
    return pki.csr(key, subject=pki.name("device-1"))  # type: ignore[arg-type]  # an EC key


KEYS: Cases = {
    **{f"RSA of {bits} bits": csr(partial(_rsa_of, bits), *NOT_A_KEY) for bits in (512, 768, 1024, 1536, 2047, 2049, 2056)},
    **{f"RSA of {bits} bits": csr(partial(_rsa_of, bits), *NOT_A_KEY) for bits in (3000, 4095, 4104, 8192, 16384)},
    **{f"RSA with e = {e}": csr(partial(_rsa_of, 2048, e), *WEAK) for e in (3, 17, 2**32 + 1)},
    "RSA with e = 1": csr(lambda: rsa(_modulus(2048), 1), *NOT_A_KEY),
    "RSA with an even e": csr(lambda: rsa(_modulus(2048), 65536), *NOT_A_KEY),
    "RSA with e of 2,047 bits": csr(lambda: rsa(_modulus(2048), _modulus(2047)), *WEAK),
    "RSA with modulus 0": csr(lambda: rsa(0), *NOT_A_KEY),
    "RSA with a negative modulus": csr(lambda: spki(RSA, NULL, sequence(b"\x02\x01\xf9", integer(65537))), *NOT_A_KEY),
    "RSA without numbers": csr(lambda: spki(RSA, NULL, sequence()), *NOT_A_KEY),
    "RSA with three numbers": csr(lambda: spki(RSA, NULL, sequence(integer(_modulus(2048)), integer(65537), integer(1))), *NOT_A_KEY),
    "RSA with padding before the modulus": csr(
        lambda: spki(RSA, NULL, sequence(tlv(0x02, b"\x00\x00" + _modulus(2048).to_bytes(256)), integer(65537))), *NOT_A_KEY
    ),
    "RSA for PSS only": csr(lambda: spki("1.2.840.113549.1.1.10", b"", sequence(integer(_modulus(2048)), integer(65537))), *WEAK),
    "RSA for OAEP only": csr(lambda: spki("1.2.840.113549.1.1.7", b"", sequence(integer(_modulus(2048)), integer(65537))), *NOT_A_KEY),
    "a point off the curve": csr(lambda: ec(point(1, 1)), *NOT_A_KEY),
    "the point at infinity": csr(lambda: ec(b"\x00"), *NOT_A_KEY),
    "the point (0, 0)": csr(lambda: ec(point(0, 0)), *NOT_A_KEY),
    "a coordinate beyond the field": csr(lambda: ec(point(FIELD_PRIME, 1)), *NOT_A_KEY),
    "a compressed point": csr(lambda: ec(b"\x03" + GENERATOR[1:33]), *NOT_A_KEY),
    "a hybrid point": csr(lambda: ec(b"\x07" + GENERATOR[1:]), *NOT_A_KEY),
    "a short point": csr(lambda: ec(GENERATOR[:-1]), *NOT_A_KEY),
    "a long point": csr(lambda: ec(GENERATOR + b"\x00"), *NOT_A_KEY),
    "an empty point": csr(lambda: ec(b""), *NOT_A_KEY),
    "a point of P-256 on P-384": csr(lambda: ec(GENERATOR, oid(P384)), *NOT_A_KEY),
    "explicit parameters": csr(lambda: ec(GENERATOR, sequence(b"\x02\x01\x01")), *NOT_A_KEY),
    "implicit parameters": csr(lambda: ec(GENERATOR, NULL), *NOT_A_KEY),
    "no parameters": csr(lambda: ec(GENERATOR, b""), *NOT_A_KEY),
    "an unknown curve": csr(lambda: ec(GENERATOR, oid("1.2.3.4")), *NOT_A_KEY),
    "P-192": csr(lambda: ec(b"\x04" + bytes(48), oid("1.2.840.10045.3.1.1")), *NOT_A_KEY),
    "P-224": csr(lambda: pki.csr(pki.curve_key(curves.SECP224R1)), *NOT_A_KEY),
    "secp256k1": csr(lambda: pki.csr(pki.curve_key(curves.SECP256K1)), *NOT_A_KEY),
    "brainpoolP256r1": csr(lambda: pki.csr(pki.curve_key(curves.BrainpoolP256R1)), *NOT_A_KEY),
    "P-521 where policy does not list it": csr(lambda: pki.csr(pki.curve_key(curves.SECP521R1)), 403, "KeyNotPermitted"),
    "sect283k1 (CVE-2026-26007)": csr(lambda: ec(b"\x04" + bytes(72), oid("1.3.132.0.16")), *NOT_A_KEY),
    "id-ecDH": csr(lambda: spki("1.3.132.1.12", oid(P256), GENERATOR), *NOT_A_KEY),
    "id-ecMQV": csr(lambda: spki("1.3.132.1.13", oid(P256), GENERATOR), *NOT_A_KEY),
    "Ed25519 of 31 octets": csr(lambda: spki(ED25519, b"", bytes(31)), *NOT_A_KEY),
    "Ed25519 with NULL": csr(lambda: spki(ED25519, NULL, bytes(32)), *NOT_A_KEY),
    "Ed448": csr(lambda: spki("1.3.101.113", b"", bytes(57)), *NOT_A_KEY),
    "X25519": csr(lambda: spki("1.3.101.110", b"", bytes(32)), *NOT_A_KEY),
    "X448": csr(lambda: spki("1.3.101.111", b"", bytes(56)), *NOT_A_KEY),
    "DSA": csr(lambda: spki("1.2.840.10040.4.1", sequence(integer(7), integer(3), integer(2)), integer(5)), *NOT_A_KEY),
    "DH": csr(lambda: spki("1.2.840.10046.2.1", sequence(integer(7), integer(3), integer(2)), integer(5)), *NOT_A_KEY),
    "ML-DSA-65": csr(lambda: spki("2.16.840.1.101.3.4.3.18", b"", bytes(1952)), *NOT_A_KEY),
    "ML-KEM-768": csr(lambda: spki("2.16.840.1.101.3.4.4.2", b"", bytes(1184)), *NOT_A_KEY),
    "an unknown kind": csr(lambda: spki("1.2.3.4", b"", GENERATOR), *NOT_A_KEY),
    "unused bits in the key": csr(
        lambda: pki.raw_csr(spki=sequence(sequence(oid(EC), oid(P256)), tlv(0x03, b"\x04", GENERATOR[:-1] + b"\xf0"))), *NOT_A_KEY
    ),
    "a key that is an OCTET STRING": csr(
        lambda: pki.raw_csr(spki=sequence(sequence(oid(EC), oid(P256)), tlv(0x04, b"\x00", GENERATOR))), *NOT_A_KEY
    ),
    "the CA's own key": csr(_ca_key_csr, 400, "KeyRefused"),
}


# ---- proof of possession

NOT_PROVEN = (400, "BadSignature")
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def signed(signature: bytes, algorithm: bytes = pki.ECDSA_WITH_SHA256) -> bytes:
    return pki.raw_csr(signature=signature, algorithm=algorithm)


def _altered(**changed: int) -> bytes:
    """A right signature whose r or s was changed by so much."""
    info = _info(pki.raw_csr())
    key = pki.key()
    assert isinstance(key, curves.EllipticCurvePrivateKey)
    r, s = decode_dss_signature(key.sign(info, curves.ECDSA(hashes.SHA256())))
    return signed(encode_dss_signature(r + changed.get("r", 0), s + changed.get("s", 0)))


def _info(csr_der: bytes) -> bytes:
    """The CertificationRequestInfo of a CSR that raw_csr made: the first member."""
    content = csr_der[4 if csr_der[1] & 0x80 else 2 :] if csr_der[1] != 0x81 else csr_der[3:]
    size = 2 + content[1] if content[1] < 0x80 else (3 + content[2] if content[1] == 0x81 else 4 + int.from_bytes(content[2:4]))
    return content[:size]


def _signed_by(digest: hashes.HashAlgorithm, algorithm: bytes) -> bytes:
    """Rightly signed, by a digest that the algorithm may or may not name."""
    key = pki.key()
    assert isinstance(key, curves.EllipticCurvePrivateKey)
    return signed(key.sign(_info(pki.raw_csr()), curves.ECDSA(digest)), algorithm)


def _of_another_key() -> bytes:
    key = pki.key(owner="another")
    assert isinstance(key, curves.EllipticCurvePrivateKey)
    return signed(key.sign(_info(pki.raw_csr()), curves.ECDSA(hashes.SHA256())))


def _two(r: bytes, s: bytes) -> bytes:
    return signed(sequence(tlv(0x02, r), tlv(0x02, s)))


def _subject_changed() -> bytes:
    return pki.csr(subject=pki.name("device-2")).replace(b"device-2", b"device-1")


SMALL_ORDERS = (0, 1, 2**255 - 20, 2**255 - 19, 2**255 - 18, 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826)


def _small_order(y: int) -> bytes:
    """A key to which anybody can sign: R the neutral point, s zero."""
    return pki.raw_csr(
        spki=sequence(sequence(oid(ED25519)), tlv(0x03, b"\x00" + y.to_bytes(32, "little"))),
        algorithm=sequence(oid(ED25519)),
        signature=(1).to_bytes(32, "little") + bytes(32),
    )


NOT_AN_ALGORITHM = (400, "SignatureAlgorithm")
POSSESSION: Cases = {
    "no signature": csr(lambda: signed(b""), *NOT_PROVEN),
    "zeros": csr(lambda: signed(bytes(70)), *NOT_PROVEN),
    "the signature of another key": csr(_of_another_key, *NOT_PROVEN),
    "r + 1": csr(lambda: _altered(r=1), *NOT_PROVEN),
    "s + 1": csr(lambda: _altered(s=1), *NOT_PROVEN),
    "r + n": csr(lambda: _altered(r=ORDER), *NOT_PROVEN),
    "s + n": csr(lambda: _altered(s=ORDER), *NOT_PROVEN),
    "r = s = 0 (CVE-2022-21449)": csr(lambda: _two(b"\x00", b"\x00"), *NOT_PROVEN),
    "r = 0, s = 1": csr(lambda: _two(b"\x00", b"\x01"), *NOT_PROVEN),
    "r = 1, s = 0": csr(lambda: _two(b"\x01", b"\x00"), *NOT_PROVEN),
    "r = s = 1": csr(lambda: _two(b"\x01", b"\x01"), *NOT_PROVEN),
    "r = s = n": csr(lambda: _two(*[b"\x00" + ORDER.to_bytes(32)] * 2), *NOT_PROVEN),
    "negative numbers": csr(lambda: _two(b"\xff", b"\xff"), *NOT_PROVEN),
    "numbers of 4,000 octets": csr(lambda: _two(b"\x01" * 4000, b"\x01" * 4000), *NOT_PROVEN),
    "numbers with padding": csr(lambda: _two(b"\x00\x01", b"\x00\x01"), *NOT_PROVEN),
    "three numbers": csr(lambda: signed(sequence(*[b"\x02\x01\x01"] * 3)), *NOT_PROVEN),
    "a signature followed by octets": csr(lambda: signed(sequence(*[b"\x02\x01\x01"] * 2) + NULL), *NOT_PROVEN),
    "a raw signature of 64 octets": csr(lambda: signed(b"\x01" * 64), *NOT_PROVEN),
    "a name changed after signing": csr(_subject_changed, *NOT_PROVEN),
    "SHA-384 called SHA-256": csr(lambda: _signed_by(hashes.SHA384(), pki.ECDSA_WITH_SHA256), *NOT_PROVEN),
    "SHA-256 called SHA-512": csr(lambda: _signed_by(hashes.SHA256(), sequence(oid("1.2.840.10045.4.3.4"))), *NOT_PROVEN),
    "ECDSA with SHA-1": csr(lambda: _signed_by(hashes.SHA1(), sequence(oid("1.2.840.10045.4.1"))), *NOT_AN_ALGORITHM),  # noqa: S303
    "ECDSA with SHA-224": csr(lambda: _signed_by(hashes.SHA224(), sequence(oid("1.2.840.10045.4.3.1"))), *NOT_AN_ALGORITHM),
    "ECDSA with SHA3-256": csr(lambda: _signed_by(hashes.SHA3_256(), sequence(oid("2.16.840.1.101.3.4.3.10"))), *NOT_AN_ALGORITHM),
    "ECDSA with NULL": csr(lambda: _signed_by(hashes.SHA256(), sequence(oid("1.2.840.10045.4.3.2"), NULL)), *NOT_AN_ALGORITHM),
    "RSA's algorithm for an EC key": csr(lambda: signed(bytes(256), sequence(oid("1.2.840.113549.1.1.11"), NULL)), *NOT_AN_ALGORITHM),
    "RSA with MD5": csr(lambda: signed(bytes(256), sequence(oid("1.2.840.113549.1.1.4"), NULL)), *NOT_AN_ALGORITHM),
    "Ed25519's algorithm for an EC key": csr(lambda: signed(bytes(64), sequence(oid("1.3.101.112"))), *NOT_AN_ALGORITHM),
    "id-alg-noSignature": csr(lambda: signed(bytes(32), sequence(oid("1.3.6.1.5.5.7.6.2"), NULL)), *NOT_AN_ALGORITHM),
    "HMAC": csr(lambda: signed(bytes(32), sequence(oid("1.2.840.113549.2.9"), NULL)), *NOT_AN_ALGORITHM),
    "an unknown algorithm": csr(lambda: signed(bytes(70), sequence(oid("1.2.3.4"))), *NOT_AN_ALGORITHM),
    "PSS with its defaults": csr(lambda: signed(bytes(256), sequence(oid("1.2.840.113549.1.1.10"), sequence())), *NOT_AN_ALGORITHM),
    "an empty algorithm": csr(lambda: signed(bytes(70), sequence()), *NOT_AN_ALGORITHM),
    **{
        f"Ed25519's point of small order {number}": csr(lambda y=y: _small_order(y), 400, "")  # type: ignore[misc]  # the loop's value is kept
        for number, y in enumerate(SMALL_ORDERS)
    },
}

# ---- DER

GOOD = pki.raw_csr(pki.extension_request(SAN))
INFO = _info(GOOD)
REST = GOOD[GOOD.index(INFO) + len(INFO) :]


def outer(content: bytes) -> bytes:
    return sequence(content)


def longer(count: int) -> bytes:
    """The CSR with its length in so many octets."""
    content = INFO + REST
    return b"\x30" + bytes((0x80 | count,)) + len(content).to_bytes(count) + content


ENCODINGS: Cases = {
    "one octet": csr(b"0", *NOT_DER),
    "two octets": csr(b"\x30\x00", *NOT_DER),
    "an octet that is no tag": csr(b"\x00", *NOT_DER),
    "end of contents": csr(b"\x00\x00", *NOT_DER),
    "NULL": csr(NULL, *NOT_DER),
    "an INTEGER": csr(b"\x02\x01\x00", *NOT_DER),
    "a SET": csr(b"\x31" + GOOD[1:], *NOT_DER),
    "a context tag": csr(b"\xa0" + GOOD[1:], *NOT_DER),
    "a high tag": csr(b"\x3f\x81\x00" + GOOD[1:], *NOT_DER),
    "an indefinite length": csr(b"\x30\x80" + INFO + REST + b"\x00\x00", *NOT_DER, says="indefinite"),
    "an indefinite length within": csr(outer(b"\x30\x80" + INFO[4:] + b"\x00\x00" + REST), *NOT_DER),
    "a length in three octets": csr(longer(3), *NOT_DER),
    "a length in four octets": csr(longer(4), *NOT_DER),
    "a length in 126 octets": csr(longer(126), *NOT_DER),
    "a length of 127 octets of lengths": csr(b"\x30\xff" + bytes(200), *NOT_DER),
    "a length of 2^32": csr(b"\x30\x85\x01\x00\x00\x00\x00" + INFO + REST, *NOT_DER),
    "a length of 2^64 - 1": csr(b"\x30\x88" + b"\xff" * 8 + INFO + REST, *NOT_DER),
    "a length beyond the end": csr(b"\x30\x82\x7f\xff" + INFO + REST, *NOT_DER),
    "a length before the end": csr(b"\x30\x10" + INFO + REST, *NOT_DER),
    "one octet more": csr(GOOD + b"\x00", *NOT_DER, says="followed by 1 octets"),
    "a second CSR": csr(GOOD + GOOD, *NOT_DER, says="followed by"),
    "one octet less": csr(GOOD[:-1], *NOT_DER),
    "half": csr(GOOD[: len(GOOD) // 2], *NOT_DER),
    "twice wrapped": csr(sequence(GOOD), *NOT_DER),
    "in an OCTET STRING": csr(tlv(0x04, GOOD), *NOT_DER),
    "five members": csr(sequence(INFO, REST, NULL), *NOT_DER),
    "two members": csr(sequence(INFO, pki.ECDSA_WITH_SHA256), *NOT_DER),
    "no members": csr(sequence(), *NOT_DER),
    "version 1": csr(lambda: pki.raw_csr(version=b"\x02\x01\x01"), *NOT_DER, says="version"),
    "version -1": csr(lambda: pki.raw_csr(version=b"\x02\x01\xff"), *NOT_DER),
    "version 0 with padding": csr(lambda: pki.raw_csr(version=b"\x02\x02\x00\x00"), *NOT_DER),
    "no version": csr(lambda: pki.raw_csr(version=b""), *NOT_DER),
    "version NULL": csr(lambda: pki.raw_csr(version=NULL), *NOT_DER),
    "an empty INTEGER": csr(lambda: pki.raw_csr(version=b"\x02\x00"), *NOT_DER),
    "attributes in [1]": csr(lambda: pki.raw_csr(attributes_field=b"\xa1\x00"), *NOT_DER),
    "attributes in a SET": csr(lambda: pki.raw_csr(attributes_field=b"\x31\x00"), *NOT_DER),
    "attributes that are primitive": csr(lambda: pki.raw_csr(attributes_field=b"\x80\x00"), *NOT_DER),
    "attributes twice": csr(lambda: pki.raw_csr(attributes_field=b"\xa0\x00\xa0\x00"), *NOT_DER),
    "a field after the attributes": csr(lambda: pki.raw_csr(attributes_field=b"\xa0\x00" + NULL), *NOT_DER),
    "a signature in parts": csr(sequence(INFO, pki.ECDSA_WITH_SHA256, tlv(0x23, tlv(0x03, b"\x00\x00"))), *NOT_DER),
    "a signature of seven bits": csr(sequence(INFO, pki.ECDSA_WITH_SHA256, tlv(0x03, b"\x01\x00")), *NOT_DER),
    "a signature without octets": csr(sequence(INFO, pki.ECDSA_WITH_SHA256, tlv(0x03)), *NOT_DER),
    "nested 33 deep": csr(lambda: pki.raw_csr(pki.attribute("1.2.3", nested(33))), *NOT_DER, says="nested deeper"),
    "nested 5,000 deep": csr(lambda: nested(5000), *NOT_DER),
    "nested 5,000 deep, indefinite": csr(b"\x30\x80" * 5000, *NOT_DER),
    "nested 16,000 deep in SETs": csr(b"\x31\x80" * 16_000, *NOT_DER),
    "32 KiB and an octet": csr(lambda: pki.raw_csr(pki.attribute("1.2.3", tlv(0x04, bytes(32 * 1024)))), *NOT_DER, says="more than 32768"),
    "40 KiB of zeros": csr(bytes(40 * 1024), *NOT_DER),
    "40 KiB of 0xff": csr(b"\xff" * 40 * 1024, *NOT_DER),
    "64 KiB": csr(bytes(64 * 1024), 413, "TooLarge"),
    "16,000 NULLs": csr(lambda: sequence(NULL * 16_000), *NOT_DER),
    "16,000 NULLs among the attributes": csr(lambda: pki.raw_csr(attributes_field=tlv(0xA0, NULL * 10_000)), *NOT_DER),
    "an OID of 10,000 octets": csr(lambda: pki.raw_csr(sequence(tlv(0x06, b"\x81" * 10_000 + b"\x01"), tlv(0x31, NULL))), *NOT_DER),
    "an OID with padding": csr(lambda: pki.raw_csr(sequence(tlv(0x06, b"\x2a\x80\x01"), tlv(0x31, NULL))), *NOT_DER),
    "an OID that does not end": csr(lambda: pki.raw_csr(sequence(tlv(0x06, b"\x2a\x81"), tlv(0x31, NULL))), *NOT_DER),
    "an empty OID": csr(lambda: pki.raw_csr(sequence(tlv(0x06), tlv(0x31, NULL))), *NOT_DER),
    "a boolean of two octets": csr(lambda: pki.raw_csr(pki.attribute("1.2.3", b"\x01\x02\x00\x00")), *NOT_DER),
    "a NULL with content": csr(lambda: pki.raw_csr(pki.attribute("1.2.3", b"\x05\x01\x00")), *NOT_DER),
    "values of a SET out of order": csr(lambda: pki.raw_csr(sequence(oid("1.2.3"), tlv(0x31, b"\x02\x01\x02", b"\x02\x01\x01"))), *NOT_DER),
    "a certificate": csr(lambda: pki.ca().der, *NOT_DER),
    "a private key": csr(lambda: base64.b64decode("MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g"), *NOT_DER),
    "a certs-only message": csr(
        lambda: bytes.fromhex("3023 06092a864886f70d010702 a0163014 020101 3100 300b06092a864886f70d010701 3100"), *NOT_DER
    ),
    "CRMF": csr(lambda: sequence(sequence(sequence(b"\x02\x01\x00", sequence()))), *NOT_DER),
}

CASES: dict[str, Case] = {
    **prefixed(CA=A_CA, usage=USAGES, extension=EXTENSIONS, attribute=ATTRIBUTES, key=KEYS, possession=POSSESSION, DER=ENCODINGS)
}
