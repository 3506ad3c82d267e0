"""An EST server that does what a test tells it, on Python's own TLS and in a thread of its own.

It shares no code with estserver on purpose: what the client is tested against here are answers that our server would never give.
Its test PKI is valid by the real clock, because OpenSSL verifies by it.
"""

import asyncio
import base64
import ipaddress
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, pkcs7
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

CMC_RA = ObjectIdentifier("1.3.6.1.5.5.7.3.28")
CMC_CA = ObjectIdentifier("1.3.6.1.5.5.7.3.27")
CERTS_ONLY = "application/pkcs7-mime; smime-type=certs-only"
NOW = datetime.now(UTC).replace(microsecond=0)


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def general_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


@dataclass(frozen=True, kw_only=True)
class Identity:
    """A certificate with its key, and the CA certificates between it and the root."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    above: tuple[x509.Certificate, ...] = ()

    @property
    def chain_pem(self) -> bytes:
        return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in (self.certificate, *self.above))

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def build(
    subject: x509.Name,
    public_key: object,
    *,
    signer: Identity | None = None,
    key: ec.EllipticCurvePrivateKey | None = None,
    ca: bool = False,
    sans: Sequence[x509.GeneralName] = (),
    ekus: Sequence[ObjectIdentifier] = (),
    life: tuple[timedelta, timedelta] = (timedelta(minutes=-5), timedelta(days=1)),
) -> x509.Certificate:
    signing_key = signer.key if signer else key
    assert signing_key is not None
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signer.certificate.subject if signer else subject)
        .public_key(public_key)  # type: ignore[arg-type]  # any key a test comes up with
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + life[0])
        .not_valid_after(NOW + life[1])
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key()), critical=False)
    )
    if sans:
        builder = builder.add_extension(x509.SubjectAlternativeName(sans), critical=False)
    if ekus:
        builder = builder.add_extension(x509.ExtendedKeyUsage(ekus), critical=False)
    return builder.sign(signing_key, hashes.SHA256())


def make_ca(text: str, signer: Identity | None = None) -> Identity:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = build(name(text), key.public_key(), signer=signer, key=key, ca=True)
    return Identity(certificate=certificate, key=key)


def make_server(
    ca: Identity,
    *sans: str,
    subject: str = "est server",
    ekus: Sequence[ObjectIdentifier] = (ExtendedKeyUsageOID.SERVER_AUTH,),
    life: tuple[timedelta, timedelta] = (timedelta(minutes=-5), timedelta(days=1)),
    above: tuple[x509.Certificate, ...] = (),
) -> Identity:
    key = ec.generate_private_key(ec.SECP256R1())
    names = [general_name(san) for san in sans]
    return Identity(certificate=build(name(subject), key.public_key(), signer=ca, sans=names, ekus=ekus, life=life), key=key, above=above)


def certs_only(certificates: Sequence[x509.Certificate]) -> bytes:
    """By the library's own PKCS#7 writer."""
    return pkcs7.serialize_certificates(list(certificates), Encoding.DER)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One request as the server saw it."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: int
    tls_version: str
    tls_unique: bytes
    client_certificate: bytes | None

    @property
    def csr_der(self) -> bytes:
        return base64.b64decode(self.body)


@dataclass(kw_only=True)
class Answer:
    """What goes back: `raw` as it is, else status, headers and body with a Content-Length."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    raw: bytes | None = None
    cut: bool = False
    """End the TCP connection without close_notify after the answer."""
    close: bool = False
    """Close properly after the answer, though nothing said so."""
    stall: bool = False
    """Say nothing more, and keep the connection open."""

    def to_bytes(self) -> bytes:
        if self.raw is not None:
            return self.raw
        lines = [f"HTTP/1.1 {self.status} Whatever", *(f"{key}: {value}" for key, value in self.headers.items())]
        return "\r\n".join([*lines, f"Content-Length: {len(self.body)}", "", ""]).encode() + self.body


def certificates(*bag: x509.Certificate) -> Answer:
    return Answer(headers={"Content-Type": CERTS_ONLY}, body=base64.b64encode(certs_only(bag)))


def issue(ca: Identity, csr_der: bytes) -> x509.Certificate:
    """A certificate with whatever the CSR asks for."""
    csr = x509.load_der_x509_csr(csr_der)
    try:
        sans = list(csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        sans = []
    return build(csr.subject, csr.public_key(), signer=ca, sans=sans, ekus=[ExtendedKeyUsageOID.CLIENT_AUTH])


class EstDouble:
    """Serves `behave` on 127.0.0.1.

    `seen` holds every request in order, `connections` counts finished handshakes, `all_closed` is set once all of them are gone.
    """

    def __init__(self, behave: Callable[[Seen], Answer], context: ssl.SSLContext) -> None:
        self.behave = behave
        self.csr_attrs = Answer(status=404, body=b"no such operation")
        """What it says to /csrattrs: like many servers, that there is no such thing."""
        self.seen: list[Seen] = []
        self.connections = 0
        self.all_closed = threading.Event()
        self._open = 0
        self._context = context
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._context)
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        await self._stop.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self._open += 1
        self.all_closed.clear()
        try:
            await self._talk(reader, writer, self.connections)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError, ssl.SSLError):
            pass  # the client left, or the test is over
        finally:
            self._open -= 1
            if not self._open:
                self.all_closed.set()
            self._tasks.discard(task)
            writer.transport.abort()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int) -> None:
        tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in head[1:] if line)}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            method, target, _ = head[0].split(" ")
            seen = Seen(
                method=method,
                target=target,
                headers=headers,
                body=body,
                connection=connection,
                tls_version=tls.version() or "",
                tls_unique=tls.get_channel_binding("tls-unique") or b"",
                client_certificate=tls.getpeercert(binary_form=True),
            )
            self.seen.append(seen)
            answer = self.csr_attrs if target.endswith("/csrattrs") else self.behave(seen)
            writer.write(answer.to_bytes())
            if answer.stall:
                await asyncio.Event().wait()
            if answer.cut:
                await asyncio.sleep(0)
                writer.transport.abort()
                return
            await writer.drain()
            if answer.close:
                writer.close()
                await writer.wait_closed()
                return


@contextmanager
def est_double(
    behave: Callable[[Seen], Answer],
    server: Identity,
    *,
    client_ca: Identity | None = None,
    newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    oldest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2,
    configure: Callable[[ssl.SSLContext], object] | None = None,
) -> Iterator[EstDouble]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version, context.maximum_version = oldest, newest
    with TemporaryDirectory() as folder:
        (Path(folder) / "chain.pem").write_bytes(server.chain_pem)
        (Path(folder) / "key.pem").write_bytes(server.key_pem)
        context.load_cert_chain(Path(folder) / "chain.pem", Path(folder) / "key.pem")
    if client_ca is not None:
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(cadata=client_ca.pem.decode())
    if configure is not None:
        configure(context)
    with EstDouble(behave, context) as double:
        yield double
