"""Carries out the step for one request: asks estserver, checks what comes back, writes the status.

The one place where an error becomes a condition. A status is written for the version of the object that was judged; where it has
changed meanwhile it is read and decided again. A second enrolment of the same request gets the same certificate, because estserver
knows it by its transaction, the object's UID: that, not leadership, is why a restart or a second replica never yields two.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Protocol, assert_never

import structlog
from cryptography import x509

from estcore.errors import ClientError, ConfigurationError, EstError, Pending, SignerError
from estcore.full_request import Vouched
from estcore.keys import PublicKey
from estcore.requester import Door
from estoperator import chain, conditions, decide, vouching
from estoperator.conditions import RequestStatus
from estoperator.decide import Deny, Enroll, Ignore, Refuse, Retry, Step, Wait
from estoperator.doors import DOORS, KubernetesDoor
from estoperator.events import Event, Events, Subject
from estoperator.issuer_state import IssuerState
from estoperator.kubernetes_errors import Gone, Stale
from estoperator.metrics import Metrics
from estoperator.namespaces import LabelsOf, name_alone
from estoperator.open_requests import OpenRequests
from estoperator.remembered import Remembered
from estoperator.resources import CertRequest, IssuerRef, RequestKey, User
from estoperator.waiting import Waiting
from estoperator.workqueue import WorkQueue

log = structlog.get_logger(__name__)

MAX_CONFLICTS = 5
"""Times that a request is read again at once because it changed under us; then it waits for its backoff."""


REVIEW_AGAIN = timedelta(seconds=5)
"""After so long a user who may not use an issuer is asked about once more, and then refused."""

WARNED = frozenset({"retrying", "failed"})
"""Results whose Event is a Warning."""


class RequestApi(Protocol):
    """What this module needs of Kubernetes. Raises Stale, Gone and other errors of kubernetes_errors."""

    async def read_request(self, key: RequestKey) -> CertRequest | None:
        """The request as it is now, None where it has become somebody else's."""
        ...

    async def may_reference(self, user: User, issuer: IssuerRef) -> bool:
        """Whether the user may use a namespaced issuer."""
        ...

    async def apply_status(self, request: CertRequest, status: RequestStatus) -> CertRequest | None:
        """Write a status for the version that was judged; the request as it then is, unless it is finished."""
        ...


class Enroller(Protocol):
    """What this module needs of estserver. Raises errors of the ClientError branch."""

    async def enrol(
        self, label: str | None, vouched: Vouched, *, public_key: PublicKey, authorities: Sequence[x509.Certificate]
    ) -> x509.Certificate:
        """A certificate for the CSR that is vouched for; the same one for the same transaction."""
        ...


class Issuers(Protocol):
    """Looks an issuer up; None where there is none of that name."""

    def state(self, ref: IssuerRef) -> IssuerState | None:
        """The issuer as requests see it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuing:
    """Everything that a step needs. `now` is the clock: aware, UTC."""

    api: RequestApi
    enroller: Enroller
    issuers: Issuers
    open_requests: OpenRequests
    queue: WorkQueue[RequestKey]
    metrics: Metrics
    events: Events
    now: Callable[[], datetime]
    max_retry: timedelta
    labels_of: LabelsOf = name_alone
    seen: Callable[[str], bool] = lambda _: True
    """Whether the labels of a namespace are known, where they are to be."""
    doors: dict[Door, KubernetesDoor] = field(default_factory=lambda: dict(DOORS))
    """In the versions that are watched, for Events to name an object by."""
    waiting: Waiting = field(default_factory=Waiting)
    told: Remembered[tuple[str, str]] = field(default_factory=Remembered, repr=False)
    """The Event told last of each open request whose status has no place for what is not finished: reason, note without incident."""
    failing_since: Remembered[datetime] = field(default_factory=Remembered, repr=False)
    """When the first of the tries failed that have failed in a row. It is tried again for so long from then on, not from its creation:
    until it was approved, or while its issuer was not there or waited for a person, nothing could fail."""
    denied_at: Remembered[datetime] = field(default_factory=Remembered, repr=False)
    """When the API server first said that the user may not use the issuer."""
    believes: Callable[[CertRequest], bool] = lambda _: False
    """Whether the username in a CertificateRequest of either group is the requester's own."""

    async def work(self, key: RequestKey) -> None:
        """Decide about the request as last seen and carry it out. Raises what Kubernetes raised, but for Stale and Gone."""
        request = self.open_requests.get(key)
        for _ in range(MAX_CONFLICTS):
            if request is None:
                return
            if request.user is None and request.username is not None and not self.believes(request):
                request = replace(request, username=None)
            try:
                await self.run_step(await self._reviewed_step(request), request)
            except Gone:
                self._forget(request)
            except Stale:
                request = await self._read_again(request)
                continue
            return
        self.queue.retry(key)

    async def run_step(self, step: Step, request: CertRequest) -> None:
        """Carry a step out; what it leads to is in the status, and in the queue where there is more to do."""
        issued: Issued | None = None
        if isinstance(step, Enroll):
            step, issued = await self._try(step, request)
        if not isinstance(step, Retry):
            self.failing_since.drop(request.key)
        match step:
            case Ignore():
                return
            case Deny():
                await self._write(request, conditions.denied(request, now=self.now()), result="denied")
            case Wait():
                await self._write(
                    request, conditions.pending(request, message=step.message, now=self.now()), result="waiting", event=step.reason
                )
                self.queue.succeeded(request.key)
                if step.until is not None:
                    self.queue.add_after(request.key, (step.until - self.now()).total_seconds())
            case Retry():
                self.metrics.retries.labels(request.key.door, step.reason).inc()
                await self._write(
                    request, conditions.pending(request, message=step.message, now=self.now()), result="retrying", event="RetryableError"
                )
                self.queue.retry(request.key, at_least=step.after.total_seconds())
            case Refuse():
                self.metrics.refused.labels(request.key.door, step.reason).inc()
                status = conditions.failed(request, message=step.message, reason=step.reason, invalid=step.invalid, now=self.now())
                await self._write(request, status, result="failed", event="PermanentError", reason=step.reason)
            case Enroll():
                if issued is None:
                    raise AssertionError("an enrolment without error has a certificate")
                status = conditions.issued(
                    request,
                    leaf=issued.leaf,
                    certificate_pem=issued.certificate_pem,
                    ca_pem=issued.ca_pem,
                    left_out=step.left_out,
                    asked_life=step.wishes.duration,
                    now=self.now(),
                )
                await self._write(request, status, result="issued", event="CertificateIssued")
            case _:
                assert_never(step)

    async def _reviewed_step(self, request: CertRequest) -> Step:
        if request.user is None or not decide.must_be_reviewed(request) or await self.api.may_reference(request.user, request.issuer):
            self.denied_at.drop(request.key)
            return self._next_step(request)
        # This refusal is for good, and an API server that is starting denies what it will allow once it has read every role.
        again_at = self.denied_at.first(request, self.now(), self.open_requests) + REVIEW_AGAIN
        if self.now() < again_at:
            self.queue.add_after(request.key, (again_at - self.now()).total_seconds())
            return Ignore()
        return decide.denied_reference(request)

    def _next_step(self, request: CertRequest) -> Step:
        try:
            step = decide.next_step(request, self.issuers.state(request.issuer), self.labels_of, self.seen)
            return self.waiting.judge(step, request, self.open_requests, now=self.now())
        except Exception as fault:  # noqa: BLE001  # a request whose reading fails must not be silent for ever
            return self._after_fault(fault, request)

    async def _try(self, step: Enroll, request: CertRequest) -> "tuple[Step, Issued | None]":
        """The step that comes of an enrolment, and what it brought."""
        try:
            issued = await self._enroll(step, request)
            return decide.undeliverable(request, issued.leaf, now=self.now()) or step, issued
        except (ClientError, ConfigurationError) as error:
            return self._after_error(error, request), None
        except Exception as fault:  # noqa: BLE001  # as in _next_step
            return self._after_fault(fault, request), None

    async def _enroll(self, step: Enroll, request: CertRequest) -> "Issued":
        with self.metrics.enrolment_seconds.time(), self.metrics.enrolling.track_inprogress():
            certificate = await self.enroller.enrol(
                step.label,
                vouching.vouched(request, step.csr, step.wishes, now=self.now()),
                public_key=step.csr.public_key,
                authorities=[chain.authority for chain in step.chains],
            )
        certificate_pem, ca_pem = chain.deliver(certificate, spki_der=step.csr.spki_der, known=step.chains, now=self.now())
        return Issued(leaf=certificate, certificate_pem=certificate_pem, ca_pem=ca_pem)

    def _after_error(self, error: EstError, request: CertRequest) -> Step:
        issuer, now = self.issuers.state(request.issuer), self.now()
        if isinstance(error, Pending):
            self.failing_since.drop(request.key)
            since = now
        else:
            since = self.failing_since.first(request, now, self.open_requests)
        return decide.after_error(error, request, issuer, since=since, now=now, max_retry=self.max_retry)

    def _after_fault(self, fault: Exception, request: CertRequest) -> Step:
        """A fault of ours, in the log with its trace: outside it is told as one, and tried again for as long as any other."""
        log.error("internal_error", request=str(request.key), uid=request.uid, exc_info=fault)
        return self._after_error(SignerError("internal error; the operator's log has it under this request"), request)

    async def _write(self, request: CertRequest, status: RequestStatus, *, result: str, event: str = "", reason: str = "") -> None:
        if not DOORS[request.key.door].says_ready:
            await self._write_end(request, status, result=result, event=event, reason=reason)
            return
        if not status.finished and conditions.says(request.ready, status.conditions[0]):
            return
        written = await self.api.apply_status(request, status)
        self.metrics.written.labels(request.key.door, result).inc()
        fields = {"request": str(request.key), "uid": request.uid, "issuer": str(request.issuer), "result": result}
        log.info("request_status", **fields, message=status.conditions[0].message, **({"reason": reason} if reason else {}))
        before, ready = request.ready, status.conditions[0]
        if event and (before is None or (before.status, before.reason) != (ready.status, ready.reason)):
            self._tell(request, event, ready.message, warning=result in WARNED)
        if status.finished:
            self._forget(request)
        elif written is not None:
            self.open_requests.observe(written)

    async def _write_end(self, request: CertRequest, status: RequestStatus, *, result: str, event: str, reason: str) -> None:
        """Of a door that says nothing before the end: what is not the end is an Event, each told once."""
        note = status.conditions[0].message if status.conditions else status.note
        said = event, conditions.without_incident(note)
        if status.finished:
            await self.api.apply_status(request, status)
            self.metrics.written.labels(request.key.door, result).inc()
        elif self.told.get(request) == said:
            return
        fields = {"request": str(request.key), "uid": request.uid, "issuer": str(request.issuer), "result": result}
        log.info("request_status", **fields, message=note, **({"reason": reason} if reason else {}))
        self._tell(request, event, note, warning=result in WARNED)
        if status.finished:
            self._forget(request)
        else:
            self.told.put(request, said, self.open_requests)

    def _tell(self, request: CertRequest, reason: str, note: str, *, warning: bool) -> None:
        subject = subject_of(request, self.doors[request.key.door])
        self.events.tell(Event(subject=subject, reason=reason, note=note, warning=warning, action="Issue"))

    async def _read_again(self, before: CertRequest) -> CertRequest | None:
        try:
            request = await self.api.read_request(before.key)
        except Gone:
            request = None
        if request is None or request.finished:
            self._forget(before)
            if request is not None:
                self._forget(request)
            return None
        self.open_requests.observe(request)
        return request

    def _forget(self, request: CertRequest) -> None:
        """It is finished or gone; another of its name, which the watch may have brought meanwhile, is yet to be decided."""
        key, known = request.key, self.open_requests.get(request.key)
        if known is not None and known.uid != request.uid:
            return
        self.open_requests.forget(key)
        self.queue.forget(key)
        for remembered in (self.told, self.failing_since, self.denied_at):
            remembered.drop(key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """What an enrolment brought: the certificate, and as it is written, PEM, with the chain below the root and with the root beside."""

    leaf: x509.Certificate
    certificate_pem: bytes = field(repr=False)
    ca_pem: bytes = field(repr=False)


def subject_of(request: CertRequest, door: KubernetesDoor) -> Subject:
    """The request as an Event names it."""
    return Subject(
        api_version=f"{door.group}/{door.version}",
        kind=door.kind,
        namespace=request.key.namespace,
        name=request.key.name,
        uid=request.uid,
    )
