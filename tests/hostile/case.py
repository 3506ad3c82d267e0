"""A hostile input and the answer that it must get; the site that it is sent to; what became of it.

The corpus is in tables (`csr_names.py`, `csr_contents.py`, …). Every case is one request to the real application. Whatever it is: nothing
is issued, nothing is a 5xx, and it costs the server little.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from time import process_time
from typing import Any

import structlog
from cryptography import x509

from estcore import pki_response, transfer
from estcore.errors import CmcFailInfo
from estserver.connection import TlsConnection
from tests.server.app_fixtures import (
    PASSWORD,
    SECRETS,
    SPEC,
    Answer,
    AppConfiguration,
    Server,
    basic,
    leaf,
    manifest,
    registry_of,
    running,
    secret,
    tls,
)
from tests.server.digest_client import digests, line

EST = "/.well-known/est"
ENROLL = f"{EST}/factory/simpleenroll"
REENROLL = f"{EST}/factory/simplereenroll"
PKCS10 = ("Content-Type", "application/pkcs10")

MAX_CPU_SECONDS = 0.05
"""What a hostile request may cost the server."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A request and its answer: status, the reason in log and metric, and words of the text. `body` is made when it is needed.

    Without a reason any is right: where two checks would do, their order is nobody's business.
    """

    status: int
    reason: str
    says: str = ""
    method: str = "POST"
    path: str | bytes = ENROLL
    query: bytes = b""
    headers: tuple[tuple[str, str], ...] = (PKCS10, ("Authorization", basic()))
    body: Callable[[], bytes] = bytes
    connection: Callable[[], TlsConnection] = tls


Cases = Mapping[str, Case]


def csr(make: Callable[[], bytes] | bytes, status: int = 400, reason: str = "BadCsr", says: str = "", **request: Any) -> Case:
    """A CSR in DER, sent as EST wants it."""
    return Case(status=status, reason=reason, says=says, body=lambda: transfer.encode_body(make() if callable(make) else make), **request)


def prefixed(**tables: Cases) -> dict[str, Case]:
    """Several tables as one: `table: case`."""
    return {f"{table}: {name}": case for table, cases in tables.items() for name, case in cases.items()}


POLICY: dict[str, Any] = {
    "rules": [
        {
            "from": {"authentication": "basic"},
            "subject": {"commonName": "{user}", "organization": "Acme *", "country": "DE"},
            "dnsNames": ["*.devices.example"],
            "uris": ["spiffe://factory.example/device/{user}"],
            "ipAddresses": ["10.1.0.0/16", "2001:db8:1::/48"],
            "emailAddresses": ["*@devices.example"],
            "otherNames": [
                {"oid": "1.3.6.1.4.1.311.20.2.3", "utf8Value": "*@ad.example"},
                {"oid": "1.3.6.1.5.5.7.8.5", "utf8Value": "{user}@im.example"},
            ],
        },
        *SPEC["policy"]["rules"][1:],
    ]
}
FACTORY = {**SPEC, "policy": POLICY}
OTHER = {**SPEC, "ca": {"secretName": "other-ca"}, "est": {**SPEC["est"], "label": "other"}}
CERTIFICATES_ONLY = {**SPEC, "est": {"label": "certificates", "authentication": [{"certificate": {"issuedBy": "this"}}]}}
BOUND = {**FACTORY, "est": {**SPEC["est"], "label": "bound", "channelBinding": "Required"}}
INSISTING = {
    **FACTORY,
    "est": {**SPEC["est"], "label": "insisting", "csrAttributes": "Enforced"},
    "policy": {**POLICY, "keys": ["ECDSA-P256"], "usages": ["digital signature", "client auth"], "rules": SPEC["policy"]["rules"]},
}
DIGEST = {**FACTORY, "est": {"label": "digest", "authentication": [{"digest": {"secretName": "digests"}}]}}


def keygen(label: str, encryption: str) -> dict[str, Any]:
    generation = {"enabled": True, "encryption": encryption, "wrappingKeys": {"secretName": "wrapping"}}
    return {**FACTORY, "est": {**SPEC["est"], "label": label, "serverKeyGeneration": generation}}


ONE_TIME = "c2VjcmV0LXJhbmRvbS1vbmUtdGltZQ"
"""The password of device-1 that is good once at `once`."""
ONCE = {
    **FACTORY,
    "est": {"label": "once", "authentication": [{"oneTimePassword": {"secretName": "otps"}}]},
    "policy": {"rules": [{"from": {"authentication": "oneTimePassword"}, "subject": {"commonName": "{user}"}}]},
}
OTPS = secret("otps", {"otp": f"device-1:sha256:{sha256(ONE_TIME.encode()).hexdigest()}".encode()})
WRAPPING = secret("wrapping", {"device-1.key": bytes(range(16)).hex().encode()})
LETTERS = secret("letters", {"username": b"\xc3\xbcser", "password": b"p\xc3\xa4ss"}, type_="kubernetes.io/basic-auth")


def holder(certificate: x509.Certificate | None = None) -> Callable[[], TlsConnection]:
    """A connection with a client certificate: a good one of the factory's, if none is given."""
    return lambda: tls(certificate or leaf())


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a case."""

    status: int
    reason: str
    text: str
    cpu_seconds: float
    issued: bool


@asynccontextmanager
async def site(directory: Path) -> AsyncIterator[Server]:
    """Issuers of every kind; no retry window, so that no answer is a repetition."""
    registry = registry_of(
        manifest(spec=FACTORY),
        manifest("other", OTHER),
        manifest("certificates", CERTIFICATES_ONLY),
        manifest("bound", BOUND),
        manifest("insisting", INSISTING),
        manifest("digest", DIGEST),
        manifest("once", ONCE),
        manifest("keys", keygen("keys", "Optional")),
        manifest("strict", keygen("strict", "Required")),
        secrets=(*SECRETS, LETTERS, digests(line("device-1", PASSWORD, realm="digest")), WRAPPING, OTPS),
    )
    async with running(directory, registry, configuration=AppConfiguration(retry_window=timedelta(0))) as server:
        yield server


def _text(answer: Answer) -> str:
    """What an answer says; of a Full PKI Response its status, failInfo and text."""
    if answer.header("content-type") != "application/pkcs7-mime; smime-type=CMC-response":
        return answer.body.decode("utf-8", "replace")
    _, response = pki_response.parse_message(transfer.decode_body(answer.body))
    (info,) = response.statuses
    return f"{info.status.name} {info.fail_info.name if isinstance(info.fail_info, CmcFailInfo) else '-'} {info.text}"


async def send(server: Server, case: Case, number: int) -> Outcome:
    """One case, from a source of its own: the brake on guessing is not what is tested here."""
    body, connection, before = case.body(), case.connection(), len(server.audit_lines)
    source = f"198.18.{number >> 8}.{number & 255}"
    with structlog.testing.capture_logs() as logs:
        started = process_time()
        answer = await server.request(
            case.method, case.path, headers=case.headers, body=body, connection=connection, source=source, query=case.query
        )
        spent = process_time() - started
    reasons = [str(line.get("reason", "InternalError")) for line in logs if line["log_level"] in {"info", "error"}]
    return Outcome(
        status=answer.status,
        reason=reasons[-1] if reasons else "",
        text=_text(answer),
        cpu_seconds=spent,
        issued=any(event.get("result") in {"issued", "repeated"} for event in server.audit_events[before:]),
    )
