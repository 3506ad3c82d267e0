"""Requests to /serverkeygen: a key that should not be made, or not be sent so. The CSR's own key and signature mean nothing there."""

from estcore import transfer
from tests import pki
from tests.hostile.case import EST, PKCS10, Case, Cases, csr, prefixed
from tests.hostile.csr_contents import A_CA, NULL, nested
from tests.hostile.csr_names import SUBJECTS
from tests.pki import attribute, oid, sequence, tlv
from tests.server.app_fixtures import basic

PATH = f"{EST}/keys/serverkeygen"
STRICT = f"{EST}/strict/serverkeygen"
DECRYPT_KEY, ASYMMETRIC, CAPABILITIES = "1.2.840.113549.1.9.16.2.37", "1.2.840.113549.1.9.16.2.54", "1.2.840.113549.1.9.15"
AES_WRAP = [sequence(oid(f"2.16.840.1.101.3.4.1.{number}")) for number in (5, 25, 45)]


def key(*attributes: bytes, reason: str, status: int = 400, path: str = PATH) -> Case:
    return csr(lambda: pki.raw_csr(*attributes), status, reason, path=path)


def identified(value: bytes, *capabilities: bytes, dotted: str = DECRYPT_KEY) -> tuple[bytes, ...]:
    listed = (attribute(CAPABILITIES, sequence(*capabilities)),) if capabilities else ()
    return (attribute(dotted, value), *listed)


KNOWN, UNKNOWN = tlv(0x04, b"device-1"), tlv(0x04, b"nobody")
WRONG = "BadCsr"
NOT_DER = "MalformedBody"
ENCRYPTION: Cases = {
    "none where it is required": key(reason="EncryptionRequired", path=STRICT),
    "an unknown key": key(*identified(UNKNOWN, *AES_WRAP), reason="UnknownDecryptKey"),
    "an unknown key where it is required": key(*identified(UNKNOWN, *AES_WRAP), reason="UnknownDecryptKey", path=STRICT),
    "an unknown public key": key(*identified(UNKNOWN, *AES_WRAP, dotted=ASYMMETRIC), reason="UnknownDecryptKey"),
    "a symmetric key's name for a public key": key(*identified(KNOWN, *AES_WRAP, dotted=ASYMMETRIC), reason="UnknownDecryptKey"),
    "the name in another case": key(*identified(tlv(0x04, b"DEVICE-1"), *AES_WRAP), reason="UnknownDecryptKey"),
    "the name and a NUL": key(*identified(tlv(0x04, b"device-1\x00"), *AES_WRAP), reason="UnknownDecryptKey"),
    "the name of a file": key(*identified(tlv(0x04, b"../device-1.key"), *AES_WRAP), reason="UnknownDecryptKey"),
    "an empty name": key(*identified(tlv(0x04), *AES_WRAP), reason=WRONG),
    "a name of 10,000 octets": key(*identified(tlv(0x04, bytes(10_000)), *AES_WRAP), reason=WRONG),
    "a name that is text": key(*identified(tlv(0x0C, b"device-1"), *AES_WRAP), reason=NOT_DER),
    "a name that is NULL": key(*identified(NULL, *AES_WRAP), reason=NOT_DER),
    "two names": key(attribute(DECRYPT_KEY, KNOWN, UNKNOWN), attribute(CAPABILITIES, sequence(*AES_WRAP)), reason=WRONG),
    "no name within": key(attribute(DECRYPT_KEY), attribute(CAPABILITIES, sequence(*AES_WRAP)), reason=WRONG),
    "both kinds of names": key(*identified(KNOWN, *AES_WRAP), attribute(ASYMMETRIC, KNOWN), reason="EncryptionUnclear"),
    "a name without capabilities": key(*identified(KNOWN), reason="EncryptionUnclear"),
    "capabilities without a name": key(attribute(CAPABILITIES, sequence(*AES_WRAP)), reason="EncryptionUnclear"),
    "no capabilities in the list": key(attribute(DECRYPT_KEY, KNOWN), attribute(CAPABILITIES, sequence()), reason="NoCommonAlgorithm"),
    "Triple DES alone": key(*identified(KNOWN, sequence(oid("1.2.840.113549.1.9.16.3.6"))), reason="NoCommonAlgorithm"),
    "RSA alone for a symmetric key": key(*identified(KNOWN, sequence(oid("1.2.840.113549.1.1.1"))), reason="NoCommonAlgorithm"),
    "an unknown algorithm alone": key(*identified(KNOWN, sequence(oid("1.2.3.4"))), reason="NoCommonAlgorithm"),
    "capabilities that are OIDs": key(*identified(KNOWN, oid("2.16.840.1.101.3.4.1.5")), reason=NOT_DER),
    "capabilities that are NULL": key(attribute(DECRYPT_KEY, KNOWN), attribute(CAPABILITIES, NULL), reason=NOT_DER),
    "1,000 capabilities": key(attribute(DECRYPT_KEY, KNOWN), attribute(CAPABILITIES, sequence(*AES_WRAP * 333)), reason=NOT_DER),
    "capabilities nested 20 deep": key(attribute(DECRYPT_KEY, KNOWN), attribute(CAPABILITIES, nested(20)), reason=NOT_DER),
}
REQUESTS: Cases = {
    "nobody": Case(status=401, reason="Unauthenticated", path=PATH, headers=(PKCS10,), body=lambda: transfer.encode_body(pki.raw_csr())),
    "a wrong password": Case(
        status=401,
        reason="WrongPassword",
        path=PATH,
        headers=(PKCS10, ("Authorization", basic(password="wrong"))),
        body=lambda: transfer.encode_body(pki.raw_csr()),
    ),
    "where it is off": csr(pki.raw_csr, 404, "NotEnabled", path=f"{EST}/factory/serverkeygen"),
    "nothing": Case(status=400, reason=NOT_DER, path=PATH),
    "an empty CSR": csr(sequence(), 400, NOT_DER, path=PATH),
    "a CSR and an octet": csr(lambda: pki.raw_csr() + b"\x00", 400, NOT_DER, path=PATH),
    "a PKCS#8 key for a CSR": csr(lambda: pki.key_pem(pki.key()), 400, NOT_DER, path=PATH),
    "another media type": Case(
        status=415,
        reason="UnsupportedMediaType",
        path=PATH,
        headers=(("Content-Type", "application/pkcs8"), ("Authorization", basic())),
        body=lambda: transfer.encode_body(pki.raw_csr()),
    ),
    "GET": Case(status=405, reason="WrongMethod", method="GET", path=PATH),
}


def _here(cases: Cases) -> dict[str, Case]:
    return {name: Case(status=case.status, reason=case.reason, path=PATH, body=case.body) for name, case in cases.items()}


CASES: dict[str, Case] = prefixed(
    **{"key encryption": ENCRYPTION, "key request": REQUESTS, "key of a CA": _here(A_CA), "key for a subject": _here(SUBJECTS)}
)
