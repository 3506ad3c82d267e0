"""Requests by whoever is not who may ask; the CSR would be issued to the right one."""

import base64
import json
from collections.abc import Callable
from datetime import timedelta
from hashlib import sha256

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from estcore import transfer
from tests import pki
from tests.hostile.case import ENROLL, EST, ONE_TIME, PKCS10, REENROLL, Case, Cases, holder, prefixed
from tests.server.app_fixtures import FACTORY_CA, MANUFACTURER_CA, NOW, OTHER_CA, basic, leaf, make_csr, make_token, new_key, tls

BODY = transfer.encode_body(make_csr("device-1", "a.devices.example"))
SAME_NAMES = transfer.encode_body(make_csr("device-1"))
UNAUTHENTICATED = (401, "Unauthenticated")
MALFORMED = (401, "MalformedCredentials")
WRONG = (401, "WrongPassword")


def by(authorization: str, status: int = 401, reason: str = "Unauthenticated", says: str = "") -> Case:
    return Case(status=status, reason=reason, says=says, headers=(PKCS10, ("Authorization", authorization)), body=lambda: BODY)


def _basic(octets: bytes) -> str:
    return "Basic " + base64.b64encode(octets).decode()


PASSWORDS: Cases = {
    "none": Case(status=401, reason="Unauthenticated", headers=(PKCS10,), body=lambda: BODY),
    "empty": by(""),
    "a scheme without credentials": by("Basic"),
    "a scheme and spaces": by("Basic    "),
    "no scheme": by(basic().removeprefix("Basic ")),
    "two schemes": by(f"Basic {basic()}"),
    "two credentials": by(f"{basic()}, {basic()}"),
    "credentials and more": by(f"{basic()} x"),
    "a tab for the space": by(basic().replace(" ", "\t")),
    "an unknown scheme": by("Negotiate YII="),
    "NTLM": by("NTLM TlRMTVNTUAABAAAA"),
    "another user": by(basic("device-2"), *WRONG),
    "another password": by(basic(password="wrong"), *WRONG),
    "an empty password": by(basic(password=""), *WRONG),
    "an empty user": by(basic(user=""), *WRONG),
    "an empty user and password": by(basic("", ""), *WRONG),
    "the user in capitals": by(basic("DEVICE-1"), *WRONG),
    "the user with a space": by(basic("device-1 "), *WRONG),
    "the password with a space": by(basic(password="correct horse "), *WRONG),
    "the password in capitals": by(basic(password="CORRECT HORSE"), *WRONG),
    "the password and more": by(basic(password="correct horse\u200b"), *WRONG),
    "the user as a pattern": by(basic("*"), *WRONG),
    "the user as SQL": by(basic("' OR 1=1 --"), *WRONG),
    "the user as LDAP": by(basic("*)(uid=*"), *WRONG),
    "the user as a path": by(basic("../../etc/passwd"), *WRONG),
    "the user as a placeholder": by(basic("{user}"), *WRONG),
    "no colon": by(_basic(b"device-1"), *MALFORMED),
    "a NUL in the user": by(_basic(b"device-1\x00:correct horse"), *MALFORMED),
    "a NUL in the password": by(_basic(b"device-1:correct horse\x00"), *MALFORMED),
    "a line feed in the password": by(_basic(b"device-1:correct horse\n"), *MALFORMED),
    "an escape in the user": by(_basic(b"\x1b[31mdevice-1:correct horse"), *MALFORMED),
    "not UTF-8": by(_basic(b"device-1:\xff\xfe"), *MALFORMED),
    "a user of 256 characters": by(_basic(b"u" * 256 + b":p"), *MALFORMED),
    "a password of 1,025 characters": by(_basic(b"device-1:" + b"p" * 1025), *MALFORMED),
    "a password of 10,000 characters": by(_basic(b"device-1:" + b"p" * 10_000), *MALFORMED),
    "base64 that is cut": by("Basic ZGV2aWNlLT", *MALFORMED),
    "base64 for addresses": by("Basic ZGV2aWNlLTE6-_8=", *MALFORMED),
    "credentials in the clear": by("Basic device-1:correct"),
    "the password at an issuer without passwords": Case(
        status=403,
        reason="Unauthenticated",
        path=f"{EST}/certificates/simpleenroll",
        headers=(PKCS10, ("Authorization", basic())),
        body=lambda: BODY,
    ),
    "the password at simplereenroll": Case(
        status=403, reason="NoClientCertificate", path=REENROLL, headers=(PKCS10, ("Authorization", basic())), body=lambda: BODY
    ),
}


def _claims(header: object, claims: object) -> str:
    parts = (json.dumps(header).encode(), json.dumps(claims).encode(), b"signature")
    return "Bearer " + ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


_DEVICES = {"sub": "shop/web", "aud": ["devices"], "exp": int((NOW + timedelta(hours=1)).timestamp())}

TOKENS: Cases = {
    "nothing": by("Bearer"),
    "one letter": by("Bearer a", reason="TokenNotAccepted"),
    "two dots": by("Bearer ..", reason="TokenNotAccepted"),
    "four parts": by("Bearer a.b.c.d", reason="TokenNotAccepted"),
    "no JSON": by("Bearer " + ".".join([base64.urlsafe_b64encode(b"nonsense").decode().rstrip("=")] * 3), reason="TokenNotAccepted"),
    "a list of claims": by(_claims({"alg": "RS256"}, [1, 2]), reason="TokenNotAccepted"),
    "no claims": by(_claims({"alg": "RS256"}, {}), reason="TokenNotAccepted"),
    "claims nested deep": by("Bearer a." + base64.urlsafe_b64encode(b"[" * 3000).decode().rstrip("=") + ".c", reason="TokenNotAccepted"),
    "a number of 3,000 digits": by(
        "Bearer a." + base64.urlsafe_b64encode(b'{"exp":' + b"9" * 3000 + b"}").decode().rstrip("=") + ".c", reason=""
    ),
    "exp is text": by(_claims({"alg": "RS256"}, {**_DEVICES, "exp": "tomorrow"}), reason="TokenNotAccepted"),
    "exp is infinite": by(
        "Bearer a." + base64.urlsafe_b64encode(b'{"aud":["devices"],"exp":1e999}').decode().rstrip("=") + ".c", reason=""
    ),
    "exp is true": by(_claims({"alg": "RS256"}, {**_DEVICES, "exp": True}), reason="TokenNotAccepted"),
    "exp is negative": by(_claims({"alg": "RS256"}, {**_DEVICES, "exp": -1}), reason="TokenNotAccepted"),
    "aud is a number": by(_claims({"alg": "RS256"}, {**_DEVICES, "aud": 1}), reason="TokenNotAccepted"),
    "aud is a list of lists": by(_claims({"alg": "RS256"}, {**_DEVICES, "aud": [["devices"]]}), reason="TokenNotAccepted"),
    "alg none": by(_claims({"alg": "none"}, _DEVICES), reason="TokenNotAccepted"),
    "the API server knows nothing of it": by(f"Bearer {make_token('shop/web', audience='devices')}", reason="TokenNotAccepted"),
    "another audience": by(f"Bearer {make_token('shop/web', audience='vault')}", reason="TokenNotAccepted"),
    "the audience of the registration authority": by(
        f"Bearer {make_token('est-issuer/operator', audience='est-issuer')}", reason="TokenNotAccepted"
    ),
    "expired": by(f"Bearer {make_token('shop/web', audience='devices', expires=NOW - timedelta(seconds=1))}", reason="TokenNotAccepted"),
    "10,000 characters": by("Bearer " + "a" * 10_000, reason="TokenNotAccepted"),
    "a token at simplereenroll": Case(
        status=403,
        reason="NoClientCertificate",
        path=REENROLL,
        headers=(PKCS10, ("Authorization", f"Bearer {make_token('shop/web', audience='devices')}")),
        body=lambda: BODY,
    ),
}


DIGEST_PATH = f"{EST}/digest/simpleenroll"
_MADE = {
    "username": '"device-1"',
    "realm": '"digest"',
    "nonce": f'"{"A" * 40}"',
    "uri": f'"{DIGEST_PATH}"',
    "algorithm": "SHA-256",
    "nc": "00000001",
    "cnonce": '"b"',
    "qop": "auth",
    "response": f'"{"0" * 64}"',
    "opaque": f'"{"B" * 24}"',
}


def answering(
    status: int = 400, reason: str = "BadHeader", says: str = "", *, username_star: str | None = None, **other: str | None
) -> Case:
    """Authorization: Digest with other parameters than usual; None leaves one out. The nonce is nobody's. `username_star`: username*."""
    parameters = {**_MADE, **other, "username*": username_star}
    return digest(", ".join(f"{name}={value}" for name, value in parameters.items() if value is not None), status, reason, says)


def digest(text: str, status: int = 400, reason: str = "BadHeader", says: str = "") -> Case:
    header = ("Authorization", f"Digest {text}")
    return Case(status=status, reason=reason, says=says, path=DIGEST_PATH, headers=(PKCS10, header), body=lambda: BODY)


NOT_OURS = (401, "UnknownNonce")
DIGESTS: Cases = {
    "a nonce of nobody's": answering(*NOT_OURS),
    "an empty nonce": answering(*NOT_OURS, nonce='""'),
    "a nonce of one letter": answering(*NOT_OURS, nonce='"A"'),
    "a nonce of other letters": answering(*NOT_OURS, nonce=f'"{"!" * 40}"'),
    "a nonce of 1,000 letters": answering(nonce=f'"{"A" * 1000}"', reason=""),
    "a nonce that says 1970": answering(*NOT_OURS, nonce=f'"{base64.urlsafe_b64encode(bytes(30)).decode()}"'),
    "a nonce of the year 292 million": answering(*NOT_OURS, nonce=f'"{base64.urlsafe_b64encode(bytes([255] * 30)).decode()}"'),
    "the realm of another issuer": answering(401, "WrongRealm", realm='"factory"'),
    "an empty realm": answering(401, "WrongRealm", realm='""'),
    "another path": answering(uri='"/.well-known/est/digest/simplereenroll"', says="uri"),
    "the path without label": answering(uri='"/.well-known/est/simpleenroll"', says="uri"),
    "the whole address": answering(uri=f'"https://a{DIGEST_PATH}"', says="uri"),
    "a path and a query": answering(uri=f'"{DIGEST_PATH}?a"', says="uri"),
    "a star for the path": answering(uri='"*"', says="uri"),
    "an empty path": answering(uri='""', says="uri"),
    "qop auth-int": answering(qop="auth-int", says="qop"),
    "no qop, as in RFC 2069": answering(qop=None, nc=None, cnonce=None),
    "two qops": answering(qop='"auth,auth-int"', says="qop"),
    "MD5": answering(*NOT_OURS, algorithm="MD5", response=f'"{"0" * 32}"'),
    "no algorithm, which is MD5": answering(*NOT_OURS, algorithm=None, response=f'"{"0" * 32}"'),
    "MD5-sess": answering(algorithm="MD5-sess", response=f'"{"0" * 32}"', says="algorithm"),
    "SHA-256-sess": answering(algorithm="SHA-256-sess", says="algorithm"),
    "SHA-512-256": answering(algorithm="SHA-512-256", says="algorithm"),
    "SHA": answering(algorithm="SHA", says="algorithm"),
    "an empty algorithm": answering(algorithm='""', says="algorithm"),
    "userhash": answering(userhash="true", says="userhash"),
    "no user": answering(username=None, says="username"),
    "two kinds of user": answering(says="username", username_star="UTF-8''device-1"),
    "a user in another character set": answering(username=None, username_star="ISO-8859-1''device-1", says="username"),
    "a user with a colon": answering(username='"a:b"', says="colon"),
    "a user with an escape": answering(username=None, username_star="UTF-8''%1b%5b", says="control"),
    "a user that is not UTF-8": answering(username=None, username_star="UTF-8''%ff%fe", says="UTF-8"),
    "nc 0": answering(nc="00000000", says="nc"),
    "nc of seven digits": answering(nc="0000001", says="nc"),
    "nc of nine digits": answering(nc="000000001", says="nc"),
    "nc in capitals": answering(nc="0000000A", says="nc"),
    "nc negative": answering(nc="-0000001", says="nc"),
    "nc that is no number": answering(nc="zzzzzzzz", says="nc"),
    "no nc": answering(nc=None, says="nc"),
    "no cnonce": answering(cnonce=None, says="cnonce"),
    "a cnonce of 10,000 letters": answering(cnonce=f'"{"c" * 10_000}"', says="longer"),
    "no response": answering(response=None, says="response"),
    "an empty response": answering(response='""', says="response"),
    "half a response": answering(response=f'"{"0" * 32}"', says="response"),
    "a response that is no hexadecimal": answering(response=f'"{"g" * 64}"', says="response"),
    "another opaque": answering(*NOT_OURS, opaque='"x"'),
    "nothing": digest("", 401, ""),
    "no parameters": digest("abc"),
    "a parameter without value": digest("username="),
    "a value without name": digest('="a"'),
    "a quotation that does not end": digest('username="device-1'),
    "a parameter twice": digest('username="a", username="b"'),
    "10,000 commas": digest("," * 10_000, reason=""),
    "10,000 spaces": digest("a=b" + " " * 10_000 + "c=d", reason=""),
    "10,000 backslashes": digest('username="' + "\\" * 10_000, reason=""),
    "5,000 parameters": digest(", ".join(f"a{number}=b" for number in range(2000)), reason=""),
    "token68": digest("ZGV2aWNlLTE6cGFzc3dvcmQ="),
}


OTP_CHALLENGE = "1.2.840.113549.1.9.16.2.56"
OTP_PATH = f"{EST}/once/simpleenroll"


def once(
    *values: bytes, status: int = 403, reason: str = "WrongPassword", common_name: str = "device-1", also: tuple[bytes, ...] = ()
) -> Case:
    """A CSR with these values of otpChallenge, and no other credentials; 403, for no HTTP challenge would help."""
    challenge = (pki.attribute(OTP_CHALLENGE, *values),) if values else ()
    subject = pki.sequence(pki.rdn("2.5.4.3", common_name.encode()))
    return Case(
        status=status,
        reason=reason,
        path=OTP_PATH,
        headers=(PKCS10,),
        body=lambda: transfer.encode_body(pki.raw_csr(*challenge, *also, subject_der=subject)),
    )


def utf8(text: str) -> bytes:
    return pki.tlv(0x0C, text.encode())


ONE_TIME_PASSWORDS: Cases = {
    "none": once(reason="Unauthenticated"),
    "another": once(utf8("another")),
    "cut by one": once(utf8(ONE_TIME[:-1])),
    "and more": once(utf8(f"{ONE_TIME}A")),
    "in another case": once(utf8(ONE_TIME.lower())),
    "with a space": once(utf8(f"{ONE_TIME} ")),
    "with a NUL": once(utf8(f"{ONE_TIME}\x00")),
    "its hash": once(utf8(sha256(ONE_TIME.encode()).hexdigest())),
    "a line of the Secret": once(utf8(f"device-1:sha256:{sha256(ONE_TIME.encode()).hexdigest()}")),
    "a pattern": once(utf8("*")),
    "empty": once(utf8(""), reason="Unauthenticated"),
    "of 256 characters": once(utf8("a" * 256), reason="Unauthenticated"),
    "two values": once(utf8(ONE_TIME), utf8("another"), reason="Unauthenticated"),
    "an OCTET STRING": once(pki.tlv(0x04, ONE_TIME.encode()), reason="Unauthenticated"),
    "NULL": once(b"\x05\x00", reason="Unauthenticated"),
    "in challengePassword": once(also=(pki.attribute(pki.CHALLENGE_PASSWORD, utf8(ONE_TIME)),), reason="Unauthenticated"),
    "in revocationChallenge": once(also=(pki.attribute("1.2.840.113549.1.9.16.2.57", utf8(ONE_TIME)),), reason="Unauthenticated"),
    "the right one at another issuer": Case(
        status=401,
        reason="Unauthenticated",
        headers=(PKCS10,),
        body=lambda: transfer.encode_body(pki.raw_csr(pki.attribute(OTP_CHALLENGE, utf8(ONE_TIME)))),
    ),
}


Chain = Callable[[], x509.Certificate | tuple[x509.Certificate, ...]]
"""Makes what a client shows: its certificate, and those above it where they are sent too."""


def with_certificate(make: Chain, path: str, status: int, reason: str, says: str = "", body: bytes = SAME_NAMES) -> Case:
    return Case(
        status=status,
        reason=reason,
        says=says,
        path=path,
        headers=(PKCS10,),
        body=lambda: body,
        connection=lambda: tls(*(made if isinstance(made := make(), tuple) else (made,))),
    )


def _self_signed() -> x509.Certificate:
    return pki.ca("device-1").certificate


def _same_name_other_key() -> x509.Certificate:
    """A CA that has the factory CA's name and its own key: CVE-2024-2048, CVE-2025-6037."""
    impostor = pki.ca("Factory CA")
    return pki.leaf(impostor, subject=pki.name("device-1"), not_before=NOW - timedelta(days=1), not_after=NOW + timedelta(days=1))


def _under_a_leaf() -> tuple[x509.Certificate, ...]:
    """A certificate that a device's certificate signed."""
    key = new_key()
    device = leaf(key=key)
    signer = pki.Ca(certificate=device, key=key)
    return pki.leaf(signer, subject=pki.name("device-1"), not_before=NOW - timedelta(days=1), not_after=NOW + timedelta(days=1)), device


# what is wrong → how it is made, and the reason at simplereenroll
_FAULTY: dict[str, tuple[Chain, str]] = {
    "self-signed": (_self_signed, "UnknownIssuer"),
    "of an unknown CA": (lambda: pki.leaf(pki.ca("Nobody"), subject=pki.name("device-1")), "UnknownIssuer"),
    "of another issuer": (lambda: leaf(OTHER_CA), "UnknownIssuer"),
    "of a CA with our name and another key": (_same_name_other_key, "UnknownIssuer"),
    "forged": (lambda: leaf(FACTORY_CA, signed_by=OTHER_CA), "UnknownIssuer"),
    "signed by a device's": (_under_a_leaf, "UnknownIssuer"),
    "expired": (lambda: leaf(not_after=NOW - timedelta(seconds=1)), "Expired"),
    "expired for a year": (lambda: leaf(not_before=NOW - timedelta(days=800), not_after=NOW - timedelta(days=365)), "Expired"),
    "not yet valid": (lambda: leaf(not_before=NOW + timedelta(seconds=1)), "NotYetValid"),
    "for servers": (lambda: leaf(purpose=ExtendedKeyUsageOID.SERVER_AUTH), "WrongPurpose"),
    "for any purpose": (lambda: leaf(purpose=ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE), "WrongPurpose"),
    "for OCSP": (lambda: leaf(purpose=ExtendedKeyUsageOID.OCSP_SIGNING), "WrongPurpose"),
    "for no stated purpose": (lambda: leaf(purpose=None), "WrongPurpose"),
    "the CA's own": (lambda: x509.load_pem_x509_certificate(FACTORY_CA.data["tls.crt"]), "IsCa"),
    "the CA of the manufacturer": (lambda: x509.load_pem_x509_certificate(MANUFACTURER_CA.data["tls.crt"]), "UnknownIssuer"),
}

CERTIFICATES: Cases = {
    **{f"{name}, at simpleenroll": with_certificate(make, ENROLL, *UNAUTHENTICATED) for name, (make, _) in _FAULTY.items()},
    **{f"{name}, at simplereenroll": with_certificate(make, REENROLL, 403, reason) for name, (make, reason) in _FAULTY.items()},
    "none at simplereenroll": Case(status=403, reason="NoClientCertificate", path=REENROLL, headers=(PKCS10,), body=lambda: SAME_NAMES),
    # EJBCA CVE-2020-28942
    "the factory's at another issuer": with_certificate(leaf, f"{EST}/other/simplereenroll", 403, "UnknownIssuer"),
    "the factory's at another issuer's simpleenroll": with_certificate(leaf, f"{EST}/other/simpleenroll", *UNAUTHENTICATED),
    "the manufacturer's at simplereenroll": with_certificate(lambda: leaf(MANUFACTURER_CA), REENROLL, 403, "UnknownIssuer"),
    "the factory's with cmcRA of the manufacturer": with_certificate(
        lambda: leaf(MANUFACTURER_CA, purpose=x509.ObjectIdentifier("1.3.6.1.5.5.7.3.28")), ENROLL, *UNAUTHENTICATED
    ),
}


def _renewal(common_name: str | None, *dns_names: str, subject_der: bytes | None = None) -> Case:
    def make() -> bytes:
        return make_csr(common_name, *dns_names) if subject_der is None else pki.raw_csr(subject_der=subject_der)

    return Case(
        status=403,
        reason="RenewalNamesDiffer",
        path=REENROLL,
        headers=(PKCS10,),
        body=lambda: transfer.encode_body(make()),
        connection=holder(),
    )


RENEWALS: Cases = {
    "another name": _renewal("device-2"),
    "a longer name": _renewal("device-11"),
    "a shorter name": _renewal("device-"),
    "no name": _renewal(None, "a.devices.example"),
    "a homoglyph": _renewal("dеvice-1"),  # noqa: RUF001 - a Cyrillic letter
    "a dash of another kind": _renewal("device\u20101"),
    "an accent": _renewal("d\u00e9vice-1"),
    "a name more": _renewal("device-1", "a.devices.example"),
    "a name that a rule permits": _renewal("device-1", "b.devices.example"),
    "a wildcard more": _renewal("device-1", "*.devices.example"),
    "an organization more": _renewal("", subject_der=pki.sequence(pki.rdn("2.5.4.3", b"device-1"), pki.rdn("2.5.4.10", b"Acme 1"))),
    "the CN as an O": _renewal("", subject_der=pki.sequence(pki.rdn("2.5.4.10", b"device-1"))),
    "the CN as a serialNumber": _renewal("", subject_der=pki.sequence(pki.rdn("2.5.4.5", b"device-1", 0x13))),
    "the CN as a UID": _renewal("", subject_der=pki.sequence(pki.rdn("0.9.2342.19200300.100.1.1", b"device-1"))),
}

CASES: dict[str, Case] = prefixed(
    password=PASSWORDS, token=TOKENS, digest=DIGESTS, once=ONE_TIME_PASSWORDS, certificate=CERTIFICATES, renewal=RENEWALS
)
