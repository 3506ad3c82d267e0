"""The server application in memory: issuers from manifests, a clock that stands still, ASGI calls without a socket.

Everything is the product's own code but the API server behind TokenReview, of which `Reviewer` is a stand-in.
"""

import base64
import json
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID
from fastapi import FastAPI

from estcore import authority, certs_only, csr_builder, transfer
from estcore.errors import Unavailable
from estcore.issuer_spec import Generate
from estcore.keys import PrivateKey
from estcore.usages import Usage
from estserver import issuers as issuers_module
from estserver.app import build_app
from estserver.audit import AuditLog
from estserver.connection import TlsConnection
from estserver.issuers import Issuers, Registry, RegistrySettings
from estserver.ledger import Ledger
from estserver.logs import renderer
from estserver.metrics import Metrics
from estserver.snapshot import IssuerManifest, SecretManifest, Snapshot
from estserver.tokens import ReviewedToken
from tests.collect import collect

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
USER, PASSWORD = "device-1", "correct horse"
RA = "est-issuer/operator"

SPEC: dict[str, Any] = {
    "ca": {"secretName": "factory-ca"},
    "est": {
        "label": "factory",
        "authentication": [
            {"certificate": {"issuedBy": "this"}},
            {"certificate": {"caSecretName": "manufacturer"}},
            {"serviceAccountToken": {"audience": "devices"}},
            {"basic": {"secretName": "passwords"}},
        ],
    },
    "policy": {
        "rules": [
            {"from": {"authentication": "basic"}, "subject": {"commonName": "{user}"}, "dnsNames": ["*.devices.example"]},
            {"from": {"authentication": "thirdPartyCertificate"}, "subject": {"commonName": "*"}, "dnsNames": ["*.devices.example"]},
            {"from": {"authentication": "certificate"}, "subject": {"commonName": "*"}, "dnsNames": ["*.devices.example"]},
            {"from": {"namespaces": ["*"]}, "dnsNames": ["*.{namespace}.svc"]},
        ]
    },
}


def secret(name: str, data: dict[str, bytes], *, type_: str = "Opaque", namespace: str = "devices") -> SecretManifest:
    return SecretManifest(namespace=namespace, name=name, type=type_, data=data)


def ca_secret(name: str, common_name: str, *, now: datetime = NOW, duration: timedelta = timedelta(days=3650)) -> SecretManifest:
    spec = Generate(common_name=common_name, duration=duration)
    key_pem, certificate_pem = authority.generate_ca(spec, now=now, serial=authority.serial_number(common_name.encode().ljust(16)[:16]))
    return secret(name, {"tls.crt": certificate_pem, "tls.key": key_pem}, type_="kubernetes.io/tls")


FACTORY_CA = ca_secret("factory-ca", "Factory CA")
OTHER_CA = ca_secret("other-ca", "Other CA")
MANUFACTURER_CA = ca_secret("manufacturer-ca", "Manufacturer CA")
SECRETS = (
    FACTORY_CA,
    OTHER_CA,
    secret("manufacturer", {"ca.crt": MANUFACTURER_CA.data["tls.crt"]}),
    secret("passwords", {"username": USER.encode(), "password": PASSWORD.encode()}, type_="kubernetes.io/basic-auth"),
)


def manifest(name: str = "factory", spec: dict[str, Any] | None = None, *, kind: str = "EstIssuer") -> IssuerManifest:
    return IssuerManifest(
        kind="EstClusterIssuer" if kind == "EstClusterIssuer" else "EstIssuer",
        namespace="" if kind == "EstClusterIssuer" else "devices",
        name=name,
        uid=f"uid-{name}",
        generation=3,
        created=NOW,
        spec=SPEC if spec is None else spec,
    )


def with_est(**est: Any) -> dict[str, Any]:
    """SPEC with other members of `est`."""
    return {**SPEC, "est": {**SPEC["est"], **est}}


def registry_of(
    *manifests: IssuerManifest, secrets: Sequence[SecretManifest] = SECRETS, default: str | None = "devices/factory", now: datetime = NOW
) -> Registry:
    snapshot = Snapshot(issuers=manifests, secrets={(item.namespace, item.name): item for item in secrets})
    settings = RegistrySettings(directory=True, default_issuer=default)
    return issuers_module.build(snapshot, Registry(), settings, now=now)


@dataclass(frozen=True, kw_only=True)
class AppConfiguration:
    """AppSettings of a test."""

    ra_service_accounts: tuple[str, ...] = (RA,)
    ra_audience: str = "est-issuer"
    retry_window: timedelta = timedelta(minutes=10)
    throttle_sources: bool = True
    public_url: str | None = None


@dataclass
class Clock:
    """A clock that goes on only when it is told to."""

    now: datetime = NOW

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **by: float) -> None:
        self.now += timedelta(**by)


@dataclass
class Reviewer:
    """The API server: knows tokens by their text; counts how often it was asked."""

    known: dict[str, ReviewedToken] = field(default_factory=dict)
    asked: int = 0
    away: bool = False

    async def review(self, token: str, *, audiences: Collection[str]) -> ReviewedToken | None:
        self.asked += 1
        if self.away:
            raise Unavailable("the API server cannot be asked")
        known = self.known.get(token)
        return replace(known, audiences=known.audiences & frozenset(audiences)) if known else None

    def add(self, service_account: str, *, audience: str, expires: datetime = NOW + timedelta(hours=1)) -> str:
        """A token of `<namespace>/<name>` that the API server knows."""
        token = make_token(service_account, audience=audience, expires=expires)
        namespace, name = service_account.split("/")
        self.known[token] = ReviewedToken(
            username=f"system:serviceaccount:{namespace}:{name}",
            groups=frozenset({"system:serviceaccounts"}),
            audiences=frozenset({audience}),
        )
        return token


def make_token(subject: str, *, audience: object, expires: object = NOW + timedelta(hours=1)) -> str:
    when = int(expires.timestamp()) if isinstance(expires, datetime) else expires
    claims = {"sub": subject, "aud": audience, "exp": when}
    return ".".join(
        base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (b'{"alg":"RS256"}', json.dumps(claims).encode(), b"signature")
    )


@dataclass(frozen=True)
class Answer:
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        found = self.all(name)
        assert len(found) < 2, f"{name} is there {len(found)} times"
        return found[0] if found else None

    def all(self, name: str) -> list[str]:
        return [value for header, value in self.headers if header == name]

    @property
    def text(self) -> str:
        """The body of an error: one line of plain text."""
        assert self.header("content-type") == "text/plain; charset=utf-8"
        text = self.body.decode()
        assert text.endswith("\n")
        assert text.count("\n") == 1
        return text[:-1]

    @property
    def certificate(self) -> x509.Certificate:
        """The one certificate of a granted enrolment."""
        assert self.status == 200, self.body
        (certificate,) = certs_only.decode(transfer.decode_body(self.body))
        ca = x509.load_pem_x509_certificate(FACTORY_CA.data["tls.crt"])
        by_factory = certificate.issuer == ca.subject  # a test may have a CA of its own
        collect(certificate.public_bytes(Encoding.DER), ca.public_bytes(Encoding.DER) if by_factory else None)
        return certificate


def tls(*chain: x509.Certificate, binding: bytes = b"b" * 32, version: str = "TLSv1.3") -> TlsConnection:
    return TlsConnection(version=version, channel_binding=binding, unverified_client_chain=chain)


@dataclass
class Server:
    """The running application, and what a test looks at beside its answers."""

    app: FastAPI
    issuers: Issuers
    ledger: Ledger
    clock: Clock
    reviewer: Reviewer
    metrics: Metrics
    audit_lines: list[bytes]

    async def request(
        self,
        method: str,
        raw_path: bytes | str,
        *,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        connection: TlsConnection | None = None,
        source: str = "192.0.2.7",
        query: bytes = b"",
        chunks: int = 1,
        user_agent: str = "tests",
    ) -> Answer:
        path = raw_path.encode("latin-1") if isinstance(raw_path, str) else raw_path
        sent_headers = [("User-Agent", user_agent), *headers] if user_agent else headers
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "https",
            "path": path.decode("latin-1"),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": [(name.lower().encode(), value.encode()) for name, value in sent_headers],
            "client": (source, 40000),
            "server": ("127.0.0.1", 8443),
            "extensions": {"tls": connection or tls()},
        }
        size = -(-len(body) // chunks) or 1
        parts = [body[start : start + size] for start in range(0, len(body), size)] or [b""]
        incoming = [{"type": "http.request", "body": part, "more_body": number < len(parts)} for number, part in enumerate(parts, start=1)]
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return incoming.pop(0) if incoming else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        start, *bodies = sent
        assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"], "head and body, once each"
        answer = Answer(
            status=start["status"],
            headers=tuple((name.decode(), value.decode()) for name, value in start["headers"]),
            body=b"".join(message.get("body", b"") for message in bodies),
        )
        assert answer.header("content-length") == (None if answer.status in (204, 304) else str(len(answer.body)))
        return answer

    async def enroll(
        self,
        csr_der: bytes,
        *,
        operation: str = "simpleenroll",
        label: str | None = "factory",
        authorization: str | None = None,
        headers: Sequence[tuple[str, str]] = (),
        connection: TlsConnection | None = None,
        source: str = "192.0.2.7",
        user_agent: str = "tests",
    ) -> Answer:
        path = f"/.well-known/est/{label}/{operation}" if label else f"/.well-known/est/{operation}"
        authorized = [("Authorization", authorization)] if authorization else []
        return await self.request(
            "POST",
            path,
            headers=[("Content-Type", "application/pkcs10"), *authorized, *headers],
            body=transfer.encode_body(csr_der),
            connection=connection,
            source=source,
            user_agent=user_agent,
        )

    @property
    def audit_events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.audit_lines]

    def metric(self, sample: str) -> float:
        """Value of a sample as the exposition text names it, 0 where it is not there."""
        for line in self.metrics.render()[0].decode().splitlines():
            if line.startswith(f"{sample} "):
                return float(line.rsplit(" ", 1)[1])
        return 0.0


@asynccontextmanager
async def running(
    directory: Path, registry: Registry | None = None, *, configuration: AppConfiguration | None = None
) -> AsyncIterator[Server]:
    """The application from startup to shutdown, its ledger in `directory`."""
    clock, reviewer, lines = Clock(), Reviewer(), list[bytes]()
    issuers = Issuers(registry if registry is not None else registry_of(manifest()))
    metrics = Metrics()
    ledger = await Ledger.open(f"sqlite:///{directory / 'ledger.sqlite'}")
    try:
        app = build_app(
            issuers=issuers,
            ledger=ledger,
            tokens=reviewer,
            settings=configuration or AppConfiguration(),
            clock=clock,
            metrics=metrics,
            audit=AuditLog(lines.append, renderer("json"), chain="c0ffee"),
        )
        async with app.router.lifespan_context(app):
            yield Server(app, issuers, ledger, clock, reviewer, metrics, lines)
    finally:
        await ledger.aclose()


def basic(user: str = USER, password: str = PASSWORD) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def new_key() -> PrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def name(common_name: str | None) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)] if common_name is not None else [])


def make_csr(
    common_name: str | None = USER,
    *dns_names: str,
    key: PrivateKey | None = None,
    channel_binding: bytes | None = None,
    usages: Collection[Usage] = (),
) -> bytes:
    sans = [x509.DNSName(dns_name) for dns_name in dns_names]
    return csr_builder.build(key or new_key(), subject=name(common_name), sans=sans, usages=usages, channel_binding=channel_binding)


LEAF_SERIAL = authority.serial_number(b"leaf" * 4)


def leaf(
    ca: SecretManifest = FACTORY_CA,
    common_name: str = USER,
    *,
    key: PrivateKey | None = None,
    purpose: x509.ObjectIdentifier | None = ExtendedKeyUsageOID.CLIENT_AUTH,
    purposes: Sequence[x509.ObjectIdentifier] = (),
    not_before: datetime = NOW - timedelta(days=1),
    not_after: datetime = NOW + timedelta(days=30),
    signed_by: SecretManifest | None = None,
    serial: int = LEAF_SERIAL,
) -> x509.Certificate:
    """A client certificate that names `ca` as its issuer; `signed_by` another CA's key is a forgery."""
    issuer = x509.load_pem_x509_certificate(ca.data["tls.crt"])
    signing_key = load_pem_private_key((signed_by or ca).data["tls.key"], None)
    assert isinstance(signing_key, ec.EllipticCurvePrivateKey)
    public_key = (key or new_key()).public_key()
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(common_name))
        .issuer_name(issuer.subject)
        .public_key(public_key)
        .serial_number(serial)
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key()), critical=False)  # type: ignore[arg-type]  # an EC key
    )
    if purpose is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes or [purpose]), critical=False)
    return builder.sign(signing_key, hashes.SHA256())
