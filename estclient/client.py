"""EstClient: the EST operations against one server and label, over verified TLS with kept connections."""

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from cryptography import x509

from estclient import address, anchors
from estclient.connection import HttpConnection
from estclient.credentials import Basic, Bearer, CertificateAndPassword, ClientCertificate, Credentials, Digest
from estclient.digest import DigestAnswers
from estclient.pool import Pool
from estclient.transport import ConnectionCut, TlsContext
from estcore import exchange, full_exchange, server_key
from estcore.csrattrs import CsrAttrs
from estcore.errors import MalformedResponse, ServerUnavailable
from estcore.exchange import HttpRequest, HttpResponse
from estcore.full_exchange import FullRequest
from estcore.http_authentication import parse_challenges
from estcore.recipient_info import DecryptionKey
from estcore.server_key import ServerGeneratedKey

CsrBuilder = Callable[[bytes], bytes]
"""Channel binding of the connection → CSR as DER, made anew for each connection with the same key (RFC 7030 section 3.2.1)."""

FullRequestBuilder = Callable[[bytes], FullRequest]
"""The same for a Full PKI Request."""

RequestBuilder = Callable[[HttpConnection], HttpRequest]

DEFAULT_TIMEOUT = timedelta(seconds=30)
MAX_CHALLENGES = 2
"""Answered for one operation: the first one, and a second one where its nonce was stale."""
MAX_EXCHANGES = 5
"""For one operation, beside the answers to challenges: three redirects, and one repeat on a fresh connection."""

MAX_JSON_OCTETS = 16 * 1024 * 1024
"""The list of all issuers of a cluster, which estserver keeps within this (estserver.issuer_endpoint)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonAnswer:
    """A JSON document and the ETag to ask with next time."""

    value: Any
    etag: str | None


class EstClient:
    """EST client of one server and label; belongs to one event loop, any number of tasks may use it at once.

    `url` is `https://host[:port]` or a full base URI, `anchors_pem` the CA certificates that the server must chain to. `timeout`
    bounds each operation from connecting to the last byte. `now` is the clock for Retry-After dates.

    Every operation raises errors of the ClientError branch, the constructor ConfigurationError.
    """

    def __init__(
        self,
        *,
        url: str,
        label: str | None,
        anchors_pem: bytes,
        credentials: Credentials | None = None,
        timeout: timedelta = DEFAULT_TIMEOUT,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.address = address.parse(url, label)
        self._credentials = credentials
        self._digest = _digest_answers(credentials)
        self._timeout = timeout
        self._now = now
        self._pool = Pool(self._connect)
        self._context = self._tls_context(anchors_pem, credentials)
        self._anchors_pem = anchors_pem

    def replace(self, *, anchors_pem: bytes | None = None, credentials: Credentials | None = None) -> None:
        """Trust other anchors or use other credentials from the next request on; raises ConfigurationError and changes nothing."""
        anchors_pem = self._anchors_pem if anchors_pem is None else anchors_pem
        credentials = self._credentials if credentials is None else credentials
        self._context = self._tls_context(anchors_pem, credentials)
        self._anchors_pem, self._credentials = anchors_pem, credentials
        self._digest = _digest_answers(credentials)
        self._pool.clear()

    async def ca_certs(self) -> tuple[x509.Certificate, ...]:
        """The CA certificates of the issuer, in no order (RFC 7030 section 4.1). They are not trusted by being asked for."""
        response = await self._send(lambda _connection: exchange.get_ca_certs(self.address.label))
        return exchange.read_ca_certs(response, now=self._now())

    async def csr_attrs(self) -> CsrAttrs:
        """What the server wants in a CSR (RFC 7030 section 4.5); empty where it has no wishes. `estcore.csr_wishes` reads them."""
        response = await self._send(lambda _connection: exchange.get_csr_attrs(self.address.label))
        return exchange.read_csr_attrs(response, now=self._now())

    async def simple_enroll(self, csr: bytes | CsrBuilder) -> x509.Certificate:
        """A certificate for the CSR (RFC 7030 section 4.2.1)."""
        return await self._enroll(csr, renewal=False)

    async def simple_reenroll(self, csr: bytes | CsrBuilder) -> x509.Certificate:
        """A successor of the client certificate (RFC 7030 section 4.2.2): same subject and SAN, same key or another."""
        return await self._enroll(csr, renewal=True)

    async def server_keygen(self, csr: bytes | CsrBuilder, *, decryption_key: DecryptionKey | None = None) -> ServerGeneratedKey:
        """A key that the server makes, and its certificate for the names of the CSR, whose key means nothing (RFC 7030 section 4.4).

        With a `decryption_key` the CSR must ask for it (`estcore.server_key.attributes_for`), and a plain key is an error. A repeat gets
        another key, and est-issuer revokes the certificate of the first one.
        """
        ca_certificates = await self.ca_certs() if decryption_key is not None else ()
        response, _ = await self._send_csr(csr, lambda csr_der: server_key.post_csr(self.address.label, csr_der))
        return server_key.read_answer(response, decryption_key=decryption_key, ca_certificates=ca_certificates, now=self._now())

    async def full_cmc(
        self, request: FullRequest | FullRequestBuilder, *, ca_certificates: Sequence[x509.Certificate]
    ) -> full_exchange.FullAnswer:
        """What a Full PKI Request is answered with (RFC 7030 section 4.3); `estcore.full_request` and `estcore.secret_request` make them.

        A builder makes the request anew for each connection, with a senderNonce of its own. `ca_certificates` are those of `ca_certs`,
        which whoever signs a Full PKI Response is one of or is under. Raises FullRefused and FullPending beside the usual errors.
        """
        sent: FullRequest | None = None if callable(request) else request

        def build(connection: HttpConnection) -> HttpRequest:
            nonlocal sent
            if callable(request):
                sent = request(connection.channel_binding)
            assert sent is not None  # noqa: S101 - it is one or the other
            return full_exchange.post_full_request(self.address.label, sent.content_info_der)

        response = await self._send(build)
        assert sent is not None  # noqa: S101 - it was sent
        return full_exchange.read_full_response(
            response,
            ca_certificates=ca_certificates,
            sender_nonce=sent.sender_nonce,
            transaction_id=sent.transaction_id,
            now=self._now(),
        )

    async def get_json(self, path: str, etag: str | None = None) -> JsonAnswer | None:
        """The JSON document at `path`, or None when it is still the one of `etag`. Not EST: est-issuer's own endpoints."""
        headers = [("Accept", "application/json")]
        if etag is not None:
            headers.append(("If-None-Match", etag))
        request = HttpRequest(method="GET", target=path, headers=tuple(headers))
        response = await self._send(lambda _connection: request, max_octets=MAX_JSON_OCTETS)
        if response.status == 304 and etag is not None:
            return None
        exchange.check_status(response, now=self._now())
        kind, _ = exchange.media_type(response.headers.get("content-type", ""))
        if kind != "application/json":
            raise MalformedResponse(f"{path} answered with another type than JSON")
        try:
            return JsonAnswer(value=json.loads(response.body), etag=response.headers.get("etag"))
        except (ValueError, RecursionError) as error:
            raise MalformedResponse(f"{path} answered with something that is not JSON") from error

    async def aclose(self) -> None:
        """Close the kept connections. The client may be used again."""
        self._pool.clear()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _enroll(self, csr: bytes | CsrBuilder, *, renewal: bool) -> x509.Certificate:
        response, csr_der = await self._send_csr(csr, lambda csr_der: exchange.post_csr(self.address.label, csr_der, renewal=renewal))
        return exchange.read_issued(response, csr_der=csr_der, now=self._now())

    async def _send_csr(self, csr: bytes | CsrBuilder, post: Callable[[bytes], HttpRequest]) -> tuple[HttpResponse, bytes]:
        """Send the request that `post` makes of a CSR; returns the answer, and the CSR of the connection that it came on."""
        csr_der = b"" if callable(csr) else csr

        def build(connection: HttpConnection) -> HttpRequest:
            nonlocal csr_der
            if callable(csr):
                csr_der = csr(connection.channel_binding)
            return post(csr_der)

        response = await self._send(build)
        return response, csr_der

    async def _send(self, build: RequestBuilder, *, max_octets: int = exchange.MAX_ANSWER_OCTETS) -> HttpResponse:
        try:
            async with asyncio.timeout(self._timeout.total_seconds()):
                return await self._exchange(build, max_octets)
        except TimeoutError as error:
            seconds = self._timeout.total_seconds()
            raise ServerUnavailable(f"no answer from {self.address.origin} within {seconds:g} s") from error

    async def _exchange(self, build: RequestBuilder, max_octets: int) -> HttpResponse:
        """Build the request for a connection, send it there, and follow redirects within the origin.

        A kept connection may be closed by the server just as the request leaves. Then, and only where not one byte came back, the
        request goes out once more on a fresh connection. For an enrolment that is safe because the server knows a repeat by its
        transactionId, or by operation, key, names and requester, and answers it with the first one's certificate.
        """
        target: str | None = None
        fresh = False
        exchanges_left, challenges_left = MAX_EXCHANGES, MAX_CHALLENGES
        while exchanges_left:
            exchanges_left -= 1
            async with self._pool.connection(fresh=fresh) as connection:
                request = build(connection)
                request = self._authenticated(request if target is None else replace(request, target=target))
                kept = connection.answers > 0
                try:
                    response = await connection.exchange(request, max_octets=max_octets)
                except ConnectionCut:
                    if connection.answer_begun or not kept:
                        raise
                    fresh = True
                    continue
            if response.status == 401 and challenges_left and self._answers(request, response):
                challenges_left -= 1
                exchanges_left += 1
                continue
            redirected = exchange.redirect(request, response, origin=self.address.origin)
            if redirected is None:
                return response
            target = redirected.target
        raise MalformedResponse(f"{self.address.origin} redirects in a circle")

    def _authenticated(self, request: HttpRequest) -> HttpRequest:
        credentials = self._credentials
        if isinstance(credentials, CertificateAndPassword):
            credentials = credentials.password
        value = self._digest.header(request) if self._digest is not None else None
        if value is None and isinstance(credentials, Basic | Bearer):
            value = credentials.header()
        return request if value is None else request.with_headers(("Authorization", value))

    def _answers(self, request: HttpRequest, response: HttpResponse) -> bool:
        """Whether a challenge of Digest is answered now. Who has a password for Basic answers it too, where Basic is not taken."""
        sent = next((value for name, value in request.headers if name == "Authorization"), "")
        if self._digest is None or (sent.startswith("Basic ") and _takes_basic(response)):
            return False
        return self._digest.take(response.challenges, answered=sent.startswith("Digest "))

    async def _connect(self) -> HttpConnection:
        return await HttpConnection.open(self._context, port=self.address.port, authority=self.address.authority)

    def _tls_context(self, anchors_pem: bytes, credentials: Credentials | None) -> TlsContext:
        return TlsContext(
            host=self.address.host,
            anchors=anchors.load(anchors_pem),
            certificate=_certificate(credentials),
        )


def _certificate(credentials: Credentials | None) -> ClientCertificate | None:
    if isinstance(credentials, CertificateAndPassword):
        return credentials.certificate
    return credentials if isinstance(credentials, ClientCertificate) else None


def _digest_answers(credentials: Credentials | None) -> DigestAnswers | None:
    password = credentials.password if isinstance(credentials, CertificateAndPassword) else credentials
    return DigestAnswers(user=password.user, password=password.password) if isinstance(password, Basic | Digest) else None


def _takes_basic(response: HttpResponse) -> bool:
    return any(challenge.scheme == "basic" for challenge in parse_challenges(response.challenges))
