"""Octets for decoders: CsrAttrs and multipart, which our client reads, and what CMC is made of; each with the reason of its refusal."""

import base64
from collections.abc import Callable, Mapping

from estcore import csrattrs, multipart, pki_data, signed_data
from tests import pki
from tests.hostile.csr_contents import NULL, nested
from tests.pki import oid, sequence, set_of, tlv

Decoder = Callable[[bytes], object]
Table = Mapping[str, tuple[bytes, str]]
NOT_IT = "MalformedBody"

CHALLENGE = oid("1.2.840.113549.1.9.7")
INDEFINITE = b"\x30\x80" + CHALLENGE + b"\x00\x00"


def attribute(*members: bytes) -> bytes:
    return sequence(sequence(*members))


CSR_ATTRIBUTES: Table = {
    "nothing": (b"", NOT_IT),
    "one octet": (b"\x30", NOT_IT),
    "NULL": (NULL, NOT_IT),
    "a bare OID": (CHALLENGE, NOT_IT),
    "a SET": (set_of(CHALLENGE), NOT_IT),
    "an indefinite length": (INDEFINITE, NOT_IT),
    "a length in too many octets": (b"\x30\x81\x0b" + CHALLENGE, NOT_IT),
    "cut off": (sequence(CHALLENGE)[:-1], NOT_IT),
    "followed by an octet": (sequence(CHALLENGE) + b"\x00", NOT_IT),
    "twice": (sequence(CHALLENGE) * 2, NOT_IT),
    "an INTEGER": (sequence(b"\x02\x01\x01"), NOT_IT),
    "text": (sequence(tlv(0x0C, b"challengePassword")), NOT_IT),
    "an empty OID": (sequence(tlv(0x06)), NOT_IT),
    "an OID with padding": (sequence(tlv(0x06, b"\x2a\x80\x01")), NOT_IT),
    "an OID that does not end": (sequence(tlv(0x06, b"\x2a\x81")), NOT_IT),
    "an OID of 5,000 octets": (sequence(tlv(0x06, b"\x2a" + b"\x81" * 5000 + b"\x01")), NOT_IT),
    "an empty attribute": (attribute(), NOT_IT),
    "an attribute without values": (attribute(CHALLENGE), NOT_IT),
    "an attribute of three members": (attribute(CHALLENGE, set_of(), NULL), NOT_IT),
    "an attribute whose type is text": (attribute(tlv(0x0C, b"a"), set_of()), NOT_IT),
    "an attribute whose values are a SEQUENCE": (attribute(CHALLENGE, sequence()), NOT_IT),
    "values with an indefinite length": (attribute(CHALLENGE, b"\x31\x80\x05\x00\x00\x00"), NOT_IT),
    "a value that is cut off": (attribute(CHALLENGE, tlv(0x31, b"\x0c\x05a")), NOT_IT),
    "1,000 values": (attribute(CHALLENGE, tlv(0x31, NULL * 1000)), NOT_IT),
    "101 items": (sequence(*[CHALLENGE] * 101), NOT_IT),
    "10,000 items": (sequence(*[oid("1.2")] * 10_000), NOT_IT),
    "64 KiB": (sequence(tlv(0x04, bytes(64 * 1024))), NOT_IT),
    "nested 40 deep": (nested(40), NOT_IT),
    "nested 5,000 deep": (nested(5000), NOT_IT),
    "a CSR": (pki.raw_csr(), NOT_IT),
}

B64 = base64.b64encode(b"\x30\x03key") + b"\r\n"
PART = b"Content-Type: application/pkcs8\r\n\r\n" + B64


def parts(*each: bytes, end: bytes = b"--b--\r\n") -> bytes:
    return b"".join(b"--b\r\n" + part + b"\r\n" for part in each) + end


MULTIPARTS: Table = {
    "nothing": (b"", NOT_IT),
    "a boundary alone": (b"--b", NOT_IT),
    "the end alone": (b"--b--\r\n", NOT_IT),
    "no end": (parts(PART, end=b""), NOT_IT),
    "the end of another": (parts(PART, end=b"--c--\r\n"), NOT_IT),
    "a boundary that goes on": (parts(PART).replace(b"--b", b"--bb"), NOT_IT),
    "one hyphen": (parts(PART).replace(b"--b", b"-b"), NOT_IT),
    "an empty part": (parts(b""), NOT_IT),
    "no headers": (parts(b"\r\n" + B64), NOT_IT),
    "no empty line": (parts(b"Content-Type: application/pkcs8\r\n" + B64.strip()), NOT_IT),
    "no content type": (parts(b"Content-Length: 4\r\n\r\n" + B64), NOT_IT),
    "two content types": (parts(b"Content-Type: a/b\r\nContent-Type: a/c\r\n\r\n" + B64), NOT_IT),
    "a header without a colon": (parts(b"Content-Type\r\n\r\n" + B64), NOT_IT),
    "a header without a name": (parts(b": a/b\r\n\r\n" + B64), NOT_IT),
    "a name with a space": (parts(b"Content Type: a/b\r\n\r\n" + B64), NOT_IT),
    "a NUL in a header": (parts(b"Content-Type: a/b\x00\r\n\r\n" + B64), NOT_IT),
    "an escape in a header": (parts(b"Content-Type: a/b\x1b[2J\r\n\r\n" + B64), NOT_IT),
    "letters beyond ASCII in a header": (parts("Content-Type: a/é\r\n\r\n".encode() + B64), NOT_IT),
    "a continued header first": (parts(b" Content-Type: a/b\r\n\r\n" + B64), NOT_IT),
    "17 headers": (parts(b"".join(b"X-%d: a\r\n" % number for number in range(17)) + PART), NOT_IT),
    "a header of 2,000 octets": (parts(b"X: " + b"a" * 2000 + b"\r\n" + PART), NOT_IT),
    "no content": (parts(b"Content-Type: a/b\r\n\r\n"), NOT_IT),
    "content that is not base64": (parts(b"Content-Type: a/b\r\n\r\n<html>"), NOT_IT),
    "binary content": (parts(b"Content-Type: application/pkcs8\r\nContent-Transfer-Encoding: binary\r\n\r\n\x30\x03key"), NOT_IT),
    "PEM": (parts(b"Content-Type: application/pkcs8\r\n\r\n-----BEGIN PRIVATE KEY-----\r\n" + B64), NOT_IT),
    "nine parts": (parts(*[PART] * 9), NOT_IT),
    "10,000 boundaries": (b"--b\r\n" * 10_000, NOT_IT),
    "300 KiB": (parts(b"Content-Type: a/b\r\n\r\n" + B64 * 40_000), NOT_IT),
    "CR for line ends": (parts(PART).replace(b"\r\n", b"\r"), NOT_IT),
}

SIGNED_DATA = "1.2.840.113549.1.7.2"
PKI_DATA = "1.3.6.1.5.5.7.12.2"
SHA_256 = sequence(oid("2.16.840.1.101.3.4.2.1"))
CONTENT = sequence(oid(PKI_DATA), tlv(0xA0, tlv(0x04, sequence(*[sequence()] * 4))))


def content_info(content: bytes, kind: str = SIGNED_DATA) -> bytes:
    return sequence(oid(kind), tlv(0xA0, content))


def signed(*, version: bytes = b"\x02\x01\x03", digests: bytes | None = None, content: bytes = CONTENT, rest: bytes | None = None) -> bytes:
    return content_info(sequence(version, set_of(SHA_256) if digests is None else digests, content, set_of() if rest is None else rest))


def signer(
    *, version: bytes = b"\x02\x01\x03", identifier: bytes | None = None, digest: bytes = SHA_256, rest: bytes | None = None
) -> bytes:
    usual = pki.ECDSA_WITH_SHA256 + tlv(0x04, bytes(70))
    return sequence(version, tlv(0x80, bytes(20)) if identifier is None else identifier, digest, usual if rest is None else rest)


SIGNED: Table = {
    "nothing": (b"", NOT_IT),
    "an empty SEQUENCE": (sequence(), NOT_IT),
    "no content": (sequence(oid(SIGNED_DATA)), NOT_IT),
    "another type": (content_info(sequence(), "1.2.840.113549.1.7.1"), NOT_IT),
    "EnvelopedData where SignedData belongs": (content_info(sequence(), "1.2.840.113549.1.7.3"), NOT_IT),
    "an OID beyond the last arc": (sequence(tlv(0x06, b"\x80"), tlv(0xA0, sequence())), NOT_IT),
    "a content in [1]": (sequence(oid(SIGNED_DATA), tlv(0xA1, sequence())), NOT_IT),
    "two contents": (sequence(oid(SIGNED_DATA), tlv(0xA0, sequence(), sequence())), NOT_IT),
    "an indefinite length": (b"\x30\x80" + signed()[2:] + b"\x00\x00", NOT_IT),
    "one octet more": (signed() + b"\x00", NOT_IT),
    "version 1 over PKIData": (signed(version=b"\x02\x01\x01", rest=set_of(signer())), NOT_IT),
    "version 255": (signed(version=b"\x02\x02\x00\xff"), NOT_IT),
    "a negative version": (signed(version=b"\x02\x01\xfd"), NOT_IT),
    "a version of 65 octets": (signed(version=tlv(0x02, b"\x01" * 65)), NOT_IT),
    "MD5": (signed(digests=set_of(sequence(oid("1.2.840.113549.2.5"), NULL))), "DigestAlgorithm"),
    "a digest that is NULL": (signed(digests=set_of(NULL)), NOT_IT),
    "digests in a SEQUENCE": (signed(digests=sequence(SHA_256)), NOT_IT),
    "a thousand digests": (signed(digests=tlv(0x31, SHA_256 * 1000)), NOT_IT),
    "a content in parts": (signed(content=sequence(oid(PKI_DATA), tlv(0xA0, tlv(0x24, tlv(0x04, b"a"), tlv(0x04, b"b"))))), NOT_IT),
    "a content that is no octets": (signed(content=sequence(oid(PKI_DATA), tlv(0xA0, sequence()))), NOT_IT),
    "a content without type": (signed(content=sequence(tlv(0xA0, tlv(0x04)))), NOT_IT),
    "signers in a SEQUENCE": (signed(rest=sequence()), NOT_IT),
    "an empty signer": (signed(rest=set_of(sequence())), NOT_IT),
    "a signer of version 0": (signed(rest=set_of(signer(version=b"\x02\x01\x00"))), NOT_IT),
    "a signer of nobody": (signed(rest=set_of(signer(identifier=NULL))), NOT_IT),
    "a signer with MD5": (signed(rest=set_of(signer(digest=sequence(oid("1.2.840.113549.2.5"), NULL)))), "DigestAlgorithm"),
    "a signer without signature": (signed(rest=set_of(signer(rest=pki.ECDSA_WITH_SHA256))), NOT_IT),
    "a signer with more": (signed(rest=set_of(signer(rest=pki.ECDSA_WITH_SHA256 + tlv(0x04) + NULL))), NOT_IT),
    "a thousand signers": (signed(rest=tlv(0x31, signer() * 1000)), NOT_IT),
    "a hundred thousand octets": (signed(content=sequence(oid(PKI_DATA), tlv(0xA0, tlv(0x04, bytes(200_000))))), NOT_IT),
    "nested SignedData 20 deep": (nested(20, signed()), NOT_IT),
}

EMPTY = sequence()
TRANSACTION = sequence(b"\x02\x01\x01", oid("1.3.6.1.5.5.7.7.5"), set_of(b"\x02\x01\x05"))


def pki_data_of(*members: bytes) -> bytes:
    return sequence(*members)


def with_controls(*controls: bytes) -> bytes:
    return sequence(sequence(*controls), EMPTY, EMPTY, EMPTY)


def with_requests(*requests: bytes) -> bytes:
    return sequence(EMPTY, sequence(*requests), EMPTY, EMPTY)


def numbered(number: bytes) -> bytes:
    return sequence(number, oid("1.3.6.1.5.5.7.7.5"), set_of(b"\x02\x01\x05"))


BAD_REQUEST = "BadRequest"
PKI_DATAS: Table = {
    "nothing": (b"", NOT_IT),
    "no members": (EMPTY, NOT_IT),
    "three members": (sequence(EMPTY, EMPTY, EMPTY), NOT_IT),
    "five members": (sequence(*[EMPTY] * 5), NOT_IT),
    "members that are SETs": (sequence(*[set_of()] * 4), NOT_IT),
    "a PKCS#10 CSR": (pki.raw_csr(), NOT_IT),
    "a control of one member": (with_controls(sequence(b"\x02\x01\x01")), NOT_IT),
    "a control without values": (with_controls(sequence(b"\x02\x01\x01", oid("1.3.6.1.5.5.7.7.5"))), NOT_IT),
    "a control of four members": (with_controls(TRANSACTION[:-2] + NULL), NOT_IT),
    "a control whose type is text": (with_controls(sequence(b"\x02\x01\x01", tlv(0x0C, b"a"), set_of())), NOT_IT),
    "a control with a hundred values": (
        with_controls(sequence(b"\x02\x01\x01", oid("1.3.6.1.5.5.7.7.5"), tlv(0x31, b"\x02\x01\x05" * 100))),
        NOT_IT,
    ),
    "number 0": (with_controls(numbered(b"\x02\x01\x00")), ""),
    "number -1": (with_controls(numbered(b"\x02\x01\xff")), ""),
    "number 2^32": (with_controls(numbered(b"\x02\x05\x01\x00\x00\x00\x00")), ""),
    "a number with padding": (with_controls(numbered(b"\x02\x02\x00\x01")), NOT_IT),
    "a number of 100 octets": (with_controls(numbered(tlv(0x02, b"\x01" * 100))), NOT_IT),
    "a number twice": (with_controls(TRANSACTION, TRANSACTION), ""),
    "a thousand controls": (with_controls(*[TRANSACTION] * 1000), NOT_IT),
    "a request in [3]": (with_requests(tlv(0xA3, b"\x02\x01\x01", pki.raw_csr())), NOT_IT),
    "a request without number": (with_requests(tlv(0xA0, pki.raw_csr())), NOT_IT),
    "a request that is NULL": (with_requests(NULL), NOT_IT),
    "a CSR and more": (with_requests(tlv(0xA0, b"\x02\x01\x01", pki.raw_csr(), NULL)), NOT_IT),
    "a thousand requests": (with_requests(*[tlv(0xA0, b"\x02\x01\x01", sequence())] * 1000), NOT_IT),
    "the number of a control for a request": (
        sequence(sequence(TRANSACTION), sequence(tlv(0xA0, b"\x02\x01\x01", pki.raw_csr())), EMPTY, EMPTY),
        "",
    ),
    "a content that is NULL": (sequence(EMPTY, EMPTY, sequence(sequence(b"\x02\x01\x01", NULL)), EMPTY), NOT_IT),
    "a thousand contents": (
        sequence(EMPTY, EMPTY, sequence(*[sequence(b"\x02\x01\x01", sequence())] * 1000), EMPTY),
        NOT_IT,
    ),
    "another message without value": (sequence(EMPTY, EMPTY, EMPTY, sequence(sequence(b"\x02\x01\x01", oid("1.2.3")))), NOT_IT),
    "another message nested 5,000 deep": (
        sequence(EMPTY, EMPTY, EMPTY, sequence(sequence(b"\x02\x01\x01", oid("1.2.3"), nested(5000)))),
        NOT_IT,
    ),
}

TABLES: Mapping[str, tuple[Decoder, Table]] = {
    "CsrAttrs": (csrattrs.decode, CSR_ATTRIBUTES),
    "multipart": (lambda body: multipart.decode("multipart/mixed; boundary=b", body), MULTIPARTS),
    "SignedData": (signed_data.parse, SIGNED),
    "PKIData": (pki_data.parse, PKI_DATAS),
}
CONTENT_TYPES = {
    "nothing": "",
    "no boundary": "multipart/mixed",
    "an empty boundary": "multipart/mixed; boundary=",
    "an empty quoted boundary": 'multipart/mixed; boundary=""',
    "a boundary of 71 characters": f"multipart/mixed; boundary={'b' * 71}",
    "a boundary of 10,000": f"multipart/mixed; boundary={'b' * 10_000}",
    "a boundary that ends in a space": 'multipart/mixed; boundary="b "',
    "a boundary with a line feed": 'multipart/mixed; boundary="a\nb"',
    "a boundary with an escape": 'multipart/mixed; boundary="a\x1bb"',
    "a boundary beyond ASCII": "multipart/mixed; boundary=é",
    "two boundaries": "multipart/mixed; boundary=a; boundary=b",
    "a quotation that does not end": 'multipart/mixed; boundary="b',
    "another multipart": "multipart/form-data; boundary=b",
    "no multipart": "application/pkcs8; boundary=b",
    "10,000 semicolons": "multipart/mixed" + ";" * 10_000,
    "10,000 spaces": "multipart/mixed;" + " " * 10_000 + "x",
    "10,000 backslashes": 'multipart/mixed; boundary="' + "\\" * 10_000,
}
