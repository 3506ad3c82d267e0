"""Requests whose body, headers or framing are hostile; the CSR within, where there is one, would be issued."""

import base64
import gzip
import zlib

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from estcore import transfer
from tests import pki
from tests.hostile.case import ENROLL, EST, PKCS10, Case, Cases, prefixed
from tests.server.app_fixtures import basic, make_csr

GOOD = make_csr("device-1", "a.devices.example")
BODY = transfer.encode_body(GOOD)
AUTHORIZED = ("Authorization", basic())
NOT_BASE64 = (400, "MalformedBody")
NOT_TAKEN = (415, "UnsupportedMediaType")


def body(octets: bytes, status: int = 400, reason: str = "MalformedBody", says: str = "") -> Case:
    return Case(status=status, reason=reason, says=says, body=lambda: octets)


BODIES: Cases = {
    "empty": body(b"", says="empty"),
    "white space": body(b" \t\r\n", says="empty"),
    "64 KiB of white space": body(b" " * 65_536, says="empty"),
    "padding alone": body(b"===="),
    "one character": body(b"M"),
    "one character and padding": body(b"M==="),
    "two characters": body(b"MI"),
    "cut by one": body(BODY.rstrip()[:-1]),
    "cut by two": body(BODY.rstrip().rstrip(b"=")[:-2]),
    "padding in the middle": body(BODY[:40] + b"=" + BODY[40:]),
    "more padding than needed": body(BODY.rstrip() + b"="),
    "a kilobyte of padding": body(BODY.rstrip() + b"=" * 1024),
    "text after the padding": body(base64.b64encode(b"0") + b"MIIB"),
    "two bodies": body(base64.b64encode(GOOD[:-1]) + BODY),
    "bits before the padding": body(b"MIB="),
    "the URL alphabet": body(BODY.replace(b"A", b"-")),
    "a hyphen and an underscore": body(b"MI-_" + BODY),
    "a comma": body(BODY[:40] + b"," + BODY[40:]),
    "a NUL": body(BODY[:40] + b"\x00" + BODY[40:]),
    "a form feed": body(BODY[:40] + b"\x0c" + BODY[40:]),
    "a vertical tab": body(BODY[:40] + b"\x0b" + BODY[40:]),
    "a no-break space": body(BODY[:40] + b"\xa0" + BODY[40:]),
    "a byte order mark": body(b"\xef\xbb\xbf" + BODY),
    "quotation marks": body(b'"' + BODY.strip() + b'"'),
    "UTF-16": body(BODY.decode().encode("utf-16-le")),
    "base64 of base64": body(base64.b64encode(BODY)),
    "hexadecimal": body(GOOD.hex().encode()),
    "base32": body(base64.b32encode(GOOD)),
    "Ascii85": body(base64.a85encode(GOOD)),
    "uuencoded": body(b"begin 644 csr\n" + BODY + b"end\n"),
    "raw DER": body(GOOD, says="DER"),
    "PEM": body(x509.load_der_x509_csr(GOOD).public_bytes(Encoding.PEM), says="PEM"),
    "PEM of a certificate": body(pki.ca().pem, says="PEM"),
    "PEM of a key": body(pki.ca().key_pem, says="PEM"),
    "PEM without an end": body(b"-----BEGIN CERTIFICATE REQUEST-----\n" + BODY),
    "gzip": body(gzip.compress(BODY, mtime=0)),
    "deflate": body(zlib.compress(BODY)),
    "gzip in base64": body(base64.b64encode(gzip.compress(GOOD, mtime=0))),
    "JSON": body(b'{"csr": "' + BODY.strip() + b'"}'),
    "a form": body(b"csr=" + BODY),
    "XML with an entity": body(b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>'),
    "a file's path": body(b"file:///etc/passwd"),
    "an address": body(b"https://169.254.169.254/latest/meta-data"),
    "an HTTP request": body(b"POST /.well-known/est/simpleenroll HTTP/1.1\r\nHost: a\r\n\r\n" + BODY),
    "MIME headers before it": body(b"Content-Type: application/pkcs10\r\n\r\n" + BODY),
    "a multipart of one CSR": body(b"--b\r\nContent-Type: application/pkcs10\r\n\r\n" + BODY + b"\r\n--b--\r\n"),
    "a multipart of a thousand parts": body(b"--b\r\n\r\n" * 1000 + b"--b--\r\n"),
    "a boundary that never ends": body(b"--" + b"b" * 60_000),
    "one octet too many": body(b"A" * (64 * 1024 + 1), 413, "TooLarge"),
    "a CSR and 64 KiB of line feeds": body(BODY + b"\n" * 65_536, 413, "TooLarge"),
    "60,000 letters": body(b"A" * 60_000),
    "60,000 equals signs": body(b"=" * 60_000),
    "60,000 plus signs": body(b"+" * 60_000),
    "a bell and an escape": body(b"\x07\x1b[2J"),
    "random octets": body(bytes(range(256)) * 8),
}


def typed(*values: str, status: int = 415, reason: str = "UnsupportedMediaType", more: tuple[tuple[str, str], ...] = ()) -> Case:
    return Case(
        status=status, reason=reason, headers=(*(("Content-Type", value) for value in values), AUTHORIZED, *more), body=lambda: BODY
    )


MEDIA_TYPES: Cases = {
    "none": typed(),
    "empty": typed(""),
    "a space": typed(" "),
    "text/plain": typed("text/plain"),
    "octets": typed("application/octet-stream"),
    "anything": typed("*/*"),
    "any application": typed("application/*"),
    "JSON": typed("application/json"),
    "a form": typed("application/x-www-form-urlencoded"),
    "multipart/form-data": typed("multipart/form-data; boundary=b"),
    "multipart/mixed": typed("multipart/mixed; boundary=b"),
    "multipart/mixed without boundary": typed("multipart/mixed"),
    "multipart/mixed with a boundary of 10,000": typed(f"multipart/mixed; boundary={'b' * 10_000}"),
    "application/pkcs10 as a boundary": typed("multipart/mixed; boundary=application/pkcs10"),
    "application/pkcs10x": typed("application/pkcs10x"),
    "xapplication/pkcs10": typed("xapplication/pkcs10"),
    "application/pkcs10/": typed("application/pkcs10/"),
    "application / pkcs10": typed("application / pkcs10"),
    "two types": typed("text/plain, application/pkcs10"),
    "the type as a parameter": typed("text/plain; application/pkcs10"),
    "a type in quotation marks": typed('"application/pkcs10"'),
    "CMC": typed("application/pkcs7-mime; smime-type=CMC-request"),
    "certs-only": typed("application/pkcs7-mime; smime-type=certs-only"),
    "the name of Netscape": typed("application/x-pkcs10"),
    "PEM": typed("application/x-pem-file"),
    "letters beyond ASCII": typed("application/pkcs1\u00b9"),
    "10,000 letters": typed("a" * 10_000),
    "10,000 semicolons": typed(";" * 10_000),
    "twice": typed("application/pkcs10", "application/pkcs10", status=400, reason="BadHeader"),
    "twice, of two minds": typed("application/pkcs10", "text/plain", status=400, reason="BadHeader"),
    "gzip": typed("application/pkcs10", more=(("Content-Encoding", "gzip"),)),
    "br": typed("application/pkcs10", more=(("Content-Encoding", "br"),)),
    "identity, gzip": typed("application/pkcs10", more=(("Content-Encoding", "identity, gzip"),)),
    "an empty encoding": typed("application/pkcs10", more=(("Content-Encoding", ""),)),
    "two encodings": typed(
        "application/pkcs10", status=400, reason="BadHeader", more=(("Content-Encoding", "identity"), ("Content-Encoding", "identity"))
    ),
}

# No way in: what a proxy might have said of the client counts for nothing.
_IDENTITY_HEADERS = {
    "X-Forwarded-Client-Cert": 'Hash=00;Subject="CN=device-1"',
    "X-Forwarded-User": "device-1",
    "X-Forwarded-For": "127.0.0.1",
    "Forwarded": "for=127.0.0.1;proto=https",
    "X-Real-IP": "127.0.0.1",
    "X-Remote-User": "device-1",
    "Remote-User": "device-1",
    "X-SSL-Client-Verify": "SUCCESS",
    "X-SSL-Client-Cert": base64.b64encode(pki.ca().der).decode(),
    "X-SSL-Client-S-DN": "CN=device-1",
    "X-Client-Cert": base64.b64encode(pki.ca().der).decode(),
    "Client-Cert": f":{base64.b64encode(pki.ca().der).decode()}:",
    "Ssl-Client-Cert": "%2D%2D%2D%2D%2DBEGIN",
    "X-ARR-ClientCert": base64.b64encode(pki.ca().der).decode(),
    "X-Amzn-Mtls-Clientcert-Leaf": "%2D%2D%2D%2D%2DBEGIN",
    "X-Original-URL": "/.well-known/est/cacerts",
    "X-Rewrite-URL": "/.well-known/est/cacerts",
    "X-HTTP-Method-Override": "GET",
    "X-Forwarded-Host": "factory",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Prefix": "/admin",
    "Impersonate-User": "system:admin",
    "X-Auth-Request-User": "device-1",
    "Cookie": "session=device-1",
    "Idempotency-Key": "est-issuer.io/team-a/web-1/1f0c9a52-5f5a-4c39-9b8e-0d6f4f1f9a01",
    "X-Api-Key": "est-issuer",
    "Proxy-Authorization": basic(),
    "Token-Binding": "AAAA",
}
SPOOFED: Cases = {
    header: Case(status=401, reason="Unauthenticated", headers=(PKCS10, (header, value)), body=lambda: BODY)
    for header, value in _IDENTITY_HEADERS.items()
}

HEADERS: Cases = {
    "Authorization twice": Case(status=400, reason="BadHeader", headers=(PKCS10, AUTHORIZED, AUTHORIZED), body=lambda: BODY),
    "Authorization twice, one of nobody's": Case(
        status=400, reason="BadHeader", headers=(PKCS10, ("Authorization", basic("nobody", "x")), AUTHORIZED), body=lambda: BODY
    ),
    "a Range": Case(status=401, reason="Unauthenticated", headers=(PKCS10, ("Range", "bytes=" + "0-," * 3000)), body=lambda: BODY),
    "an Expect of nonsense": Case(
        status=401, reason="Unauthenticated", headers=(PKCS10, ("Expect", "the-spanish-inquisition")), body=lambda: BODY
    ),
    "10,000 letters of language": Case(
        status=401, reason="Unauthenticated", headers=(PKCS10, ("Accept-Language", "a," * 5000)), body=lambda: BODY
    ),
    "a User-Agent of libest's with an escape": Case(
        status=401, reason="Unauthenticated", headers=(PKCS10, ("User-Agent", "libest\x1b[31m")), body=lambda: BODY
    ),
    "a query": Case(status=404, reason="UnknownLabel", query=b"a=b", body=lambda: BODY),
    "a CSR in the query": Case(status=404, reason="UnknownLabel", method="GET", path=f"{EST}/cacerts", query=b"csr=" + BODY[:1000]),
    "a body at cacerts": Case(status=405, reason="WrongMethod", path=f"{EST}/cacerts", body=lambda: BODY),
    "a CSR at the issuers' endpoint": Case(status=405, reason="WrongMethod", path="/est-issuer/v1/issuers", body=lambda: BODY),
    "the issuers' endpoint by a device": Case(
        status=401, reason="Unauthenticated", method="GET", path="/est-issuer/v1/issuers", headers=(AUTHORIZED,)
    ),
}

CASES: dict[str, Case] = prefixed(body=BODIES, type=MEDIA_TYPES, spoofed=SPOOFED, header=HEADERS)
assert ENROLL
