"""Requests to /csrattrs, and CSRs that ignore what an issuer insists on.

The issuer `insisting` is the factory with `csrAttributes: Enforced`: P-256, digital signature and client auth, the user as commonName,
and a subjectAltName.
"""

import base64
from collections.abc import Callable, Sequence

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from estcore import csr_builder, der
from estcore.keys import PrivateKey
from estcore.usages import Usage
from tests.hostile.case import EST, Case, Cases, csr, holder, prefixed
from tests.server.app_fixtures import MANUFACTURER_CA, basic, leaf, name, new_key

CSRATTRS = f"{EST}/factory/csrattrs"
INSISTING = f"{EST}/insisting/simpleenroll"
IGNORED = "CsrAttributesIgnored"
NAMED = (x509.DNSName("a.devices.example"),)
FOLLOWING = (Usage.DIGITAL_SIGNATURE, Usage.CLIENT_AUTH)


def ask(status: int, reason: str, *headers: tuple[str, str], path: str = CSRATTRS, method: str = "GET", query: bytes = b"") -> Case:
    return Case(status=status, reason=reason, method=method, path=path, headers=headers, query=query)


def _login(text: bytes) -> tuple[str, str]:
    return "Authorization", "Basic " + base64.b64encode(text).decode()


REQUESTS: Cases = {
    **{method: ask(405, "WrongMethod", method=method) for method in ("POST", "PUT", "HEAD", "OPTIONS", "DELETE", "PATCH", "get", "TRACE")},
    **{
        f"at {path}": ask(404, "UnknownLabel", path=path)
        for path in (
            "/csrattrs",
            f"{EST}/csrattrs/",
            f"{EST}/factory/csrattrs/",
            f"{EST}/factory//csrattrs",
            f"{EST}/factory/csrattrs/factory",
            f"{EST}/factory/CSRattrs",
            f"{EST}/factory/csrattrs.der",
            f"{EST}/factory/csrattr",
            f"{EST}/factory/%63srattrs",
            f"{EST}/factory/csrattrs%00",
            f"{EST}/factory/csrattrs;a",
            f"{EST}/factory/att",
            f"{EST}/nobody/csrattrs",
            f"{EST}/csrattrs/csrattrs",
        )
    },
    "with a query": ask(404, "UnknownLabel", query=b"label=other"),
    "a wrong password": ask(401, "", _login(b"device-1:guess")),
    "an unknown user": ask(401, "", _login(b"root:guess")),
    "no colon": ask(401, "MalformedCredentials", _login(b"device-1")),
    "a control character": ask(401, "MalformedCredentials", _login(b"device-1\n:x")),
    "an unknown scheme": ask(401, "Unauthenticated", ("Authorization", "Negotiate YII=")),
    "no scheme": ask(401, "Unauthenticated", ("Authorization", "")),
    "a token that is none": ask(401, "", ("Authorization", "Bearer abc.def.ghi")),
    "credentials twice": ask(400, "BadHeader", ("Authorization", basic()), ("Authorization", basic())),
}


def ignoring(
    says: str,
    *,
    subject: str | None = "device-1",
    sans: Sequence[x509.GeneralName] = NAMED,
    usages: Sequence[Usage] = FOLLOWING,
    key: Callable[[], PrivateKey] = new_key,
    status: int = 400,
    reason: str = IGNORED,
) -> Case:
    return csr(lambda: csr_builder.build(key(), subject=name(subject), sans=sans, usages=usages), status, reason, says, path=INSISTING)


def _critical_nothing() -> bytes:
    """A keyUsage without a bit."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(name("device-1"))
    value = x509.UnrecognizedExtension(x509.KeyUsage.oid, der.tlv(0x03, b"\x00"))
    key = ec.generate_private_key(ec.SECP256R1())
    return builder.add_extension(value, critical=True).sign(key, SHA256()).public_bytes(Encoding.DER)


CSRS: Cases = {
    "nothing of it": ignoring(
        "the subject's commonName (CN=device-1), the extension keyUsage", subject=None, sans=[x509.DNSName("a.devices.example")], usages=()
    ),
    "no commonName": ignoring("it lacks the subject's commonName (CN=device-1)", subject=None),
    "no usages": ignoring("the extension keyUsage with the given value, the extension extendedKeyUsage", usages=()),
    "key usage only": ignoring("it lacks the extension extendedKeyUsage", usages=(Usage.DIGITAL_SIGNATURE,)),
    "purpose only": ignoring("it lacks the extension keyUsage", usages=(Usage.CLIENT_AUTH,)),
    "no subjectAltName": ignoring("it lacks the extension subjectAltName", sans=()),
    "another curve": ignoring("it lacks a key of EC P-256", key=lambda: ec.generate_private_key(ec.SECP384R1())),
    "another name": ignoring("", subject="device-2", status=403, reason="NameNotPermitted"),
    "a purpose too many": ignoring("", usages=(*FOLLOWING, Usage.SERVER_AUTH), status=403, reason="UsageNotPermitted"),
    "a keyUsage without a bit": csr(_critical_nothing, path=INSISTING),
    "by a third party's certificate": csr(
        lambda: csr_builder.build(new_key(), subject=name("serial 7")),
        400,
        IGNORED,
        "it lacks the extension subjectAltName, the extension keyUsage",
        path=INSISTING,
        headers=(("Content-Type", "application/pkcs10"),),
        connection=holder(leaf(MANUFACTURER_CA, "serial 7")),
    ),
    "at a renewal": csr(
        lambda: csr_builder.build(new_key(), subject=name("device-1")),
        400,
        IGNORED,
        "it lacks the extension keyUsage",
        path=f"{EST}/insisting/simplereenroll",
        headers=(("Content-Type", "application/pkcs10"),),
        connection=holder(),
    ),
}

CASES: Cases = prefixed(csrattrs=REQUESTS, ignoring=CSRS)
