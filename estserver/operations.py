"""The EST operations: an EstRequest for one issuer in, an EstResponse out, every fault an EstError.

The straight path of an enrolment, each step where its facts are known:

    authenticate → transfer.decode_body → pkcs10.parse → registration → authority.issue → ledger → certs_only.encode

Authentication, registration and the signer are called in one function, and the signer takes only what registration made.
Source: RFC 7030 sections 4.1 and 4.2, RFC 8951 section 3.
"""

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from estcore import authority, certs_only, pkcs10, registration, transfer
from estcore.authority import Authority, Issued
from estcore.errors import EstError, IssuerNotReady, UnsupportedMediaType
from estcore.issuer_spec import ChannelBinding, IssuerSpec, Policy
from estcore.pkcs10 import Pkcs10
from estcore.registration import Authorized
from estcore.requester import Requester
from estserver.audit import AuditLog, Outcome, Signature
from estserver.authentication import Authenticator
from estserver.issuers import Issuer
from estserver.ledger import Entry, Ledger
from estserver.messages import MEDIA_CERTS_ONLY, MEDIA_PKCS10, EstRequest, EstResponse
from estserver.metrics import Metrics

RETRY_WINDOW = timedelta(minutes=10)
"""How long the same key, names and requester get the same certificate: far longer than a client's retries, far shorter than a renewal."""

Clock = Callable[[], datetime]
Register = Callable[[Requester, Pkcs10, Policy], Authorized]


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What the operations work with. `retry_window` of zero switches the recognition of retries off, but for Idempotency-Keys."""

    authenticator: Authenticator
    ledger: Ledger
    audit: AuditLog
    metrics: Metrics
    clock: Clock
    retry_window: timedelta = RETRY_WINDOW
    random_octets: Callable[[int], bytes] = secrets.token_bytes


async def cacerts(request: EstRequest, issuer: Issuer, service: Service) -> EstResponse:
    """The CA certificate, its chain and the root, to anybody (RFC 7030 section 4.1). Raises IssuerNotReady."""
    issuer.usable_authority(now=service.clock())
    return _certs_only(issuer.cacerts_body_wrapped if request.wants_wrapped else issuer.cacerts_body)


async def enroll(request: EstRequest, issuer: Issuer, service: Service) -> EstResponse:
    """A certificate for the key of a PKCS#10 CSR, for names that a rule permits (RFC 7030 section 4.2.1)."""
    spec, ca = _ready(request, issuer, service)
    requester = await service.authenticator.enroller(request, issuer)
    return await _issue(request, issuer, spec, ca, requester, registration.authorize, service)


async def reenroll(request: EstRequest, issuer: Issuer, service: Service) -> EstResponse:
    """A new certificate for the names of the client certificate, which this issuer signed (RFC 7030 section 4.2.2)."""
    spec, ca = _ready(request, issuer, service)
    requester = service.authenticator.reenroller(request, issuer)
    return await _issue(request, issuer, spec, ca, requester, registration.authorize_renewal, service)


def _ready(request: EstRequest, issuer: Issuer, service: Service) -> tuple[IssuerSpec, Authority]:
    """The facts without which nobody can be served. The media type first: it is the sender's own, whatever state we are in."""
    if request.content_type is None or request.content_type.partition(";")[0].strip().lower() != MEDIA_PKCS10:
        raise UnsupportedMediaType(
            f"this operation takes Content-Type: {MEDIA_PKCS10}, the body being the base64 of DER (RFC 8951 section 3)"
        )
    if request.content_encoding is not None and request.content_encoding.strip().lower() != "identity":
        raise UnsupportedMediaType("send the body without Content-Encoding")
    if issuer.spec is None:
        raise IssuerNotReady("this issuer is not ready; try again later")
    return issuer.spec, issuer.usable_authority(now=service.clock())


async def _issue(
    request: EstRequest, issuer: Issuer, spec: IssuerSpec, ca: Authority, requester: Requester, register: Register, service: Service
) -> EstResponse:
    csr = pkcs10.parse(transfer.decode_body(request.body))
    if not requester.registration_authority:  # its CSRs come from elsewhere, bound to no connection of ours (RFC 7030 section 3.7)
        required = spec.est.channel_binding is ChannelBinding.REQUIRED or registration.binding_required(requester, spec.policy)
        registration.check_binding(csr, channel_binding=request.tls.channel_binding, required=required)
    authorized = register(requester, csr, spec.policy)
    serial = authority.serial_number(service.random_octets(16))
    signature = _signature(request, issuer, requester, csr, serial)
    now = service.clock()
    service.audit.before(signature, now=now)
    try:
        issued = authority.issue(ca, authorized, spec.policy, now=now, serial=serial)
        standing = await service.ledger.record(_entry(request, issuer, requester, csr, issued, service.retry_window, now=now))
    except BaseException as error:
        reason = error.reason if isinstance(error, EstError) else "InternalError"
        service.audit.after(signature, Outcome(result=reason), now=service.clock())
        raise
    repeated = standing.serial != serial
    service.audit.after(signature, _outcome(standing, repeated=repeated), now=service.clock())
    service.metrics.issued(issuer.key, requester.door, "repeated" if repeated else "issued")
    return _certs_only(transfer.encode_body(certs_only.encode([standing.der]), wrap=request.wants_wrapped))


def _signature(request: EstRequest, issuer: Issuer, requester: Requester, csr: Pkcs10, serial: int) -> Signature:
    return Signature(
        issuer=issuer.key,
        policy=f"{issuer.uid}/{issuer.generation}",
        operation=request.operation,
        door=requester.door,
        requester=str(requester),
        source=request.source,
        csr_sha256=hashlib.sha256(csr.csr_der).hexdigest(),
        serial=f"{serial:x}",
        idempotency_key=request.idempotency_key,
    )


def _outcome(standing: Entry, *, repeated: bool) -> Outcome:
    return Outcome(
        result="repeated" if repeated else "issued",
        subject=standing.subject,
        sans=standing.sans,
        not_after=standing.not_after,
        standing_serial=f"{standing.serial:x}" if repeated else None,
    )


def _entry(
    request: EstRequest, issuer: Issuer, requester: Requester, csr: Pkcs10, issued: Issued, retry_window: timedelta, *, now: datetime
) -> Entry:
    """The row of a certificate. What makes two requests the same transaction is the Idempotency-Key, or what was asked for and by whom."""
    who = str(requester)
    asked_for = _digest(issued.spki_sha256, csr.subject_der.hex(), *sorted(issued.sans), *sorted(csr.usages or ()))
    transaction: str | None = request.idempotency_key
    window: timedelta | None = None
    if transaction is None and retry_window:
        transaction, window = _digest(request.operation, who, asked_for), retry_window
    return Entry(
        issuer=issuer.key,
        serial=issued.serial,
        subject=issued.subject,
        sans=issued.sans,
        spki_sha256=issued.spki_sha256,
        not_before=issued.not_before,
        not_after=issued.not_after,
        door=requester.door,
        requester=who,
        authenticated_by=requester.authenticated_by,
        operation=request.operation,
        transaction=transaction,
        request_sha256=asked_for,
        der=issued.certificate_der,
        recorded_at=now,
        retry_window=window,
    )


def _digest(*parts: str) -> str:
    """SHA-256 in hex; each part is preceded by its length, so no two lists of parts read alike."""
    return hashlib.sha256("".join(f"{len(part)}:{part}" for part in parts).encode()).hexdigest()


def _certs_only(body: bytes) -> EstResponse:
    return EstResponse(status=200, body=body, headers=((b"content-type", MEDIA_CERTS_ONLY),))
