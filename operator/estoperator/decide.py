"""What to do about one request: pure. Requests, issuers and time come in; a step goes out; `issuing` carries it out.

In this order: finished or somebody else's, not approved, denied, the issuer, the CSR, policy. A refusal of the registration
(`estcore.registration.authorize`, asked with the namespace as the requester) becomes a step here, as does every error of the
enrolment, in the one function `after_error`.
"""

import base64
import re
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from estcore import pkcs10, profile, registration
from estcore.certification_request import CertificationRequest
from estcore.errors import BadCsr, EstError, Forbidden, MalformedBody, Pending, Refused, RequestError
from estcore.issuer_spec import Approval, Policy
from estcore.requester import AuthenticatedBy, Door, Requester
from estcore.usages import Usage, parse_usage_names
from estoperator.chain import Chain
from estoperator.issuer_state import IssuerState
from estoperator.resources import CertRequest, parse_go_duration
from estoperator.vouching import Wishes

SHORTEST_LIFE = timedelta(hours=1)
"""cert-manager's own minimum, of both groups (cert-manager.io/v1 MinimumCertificateDuration)."""

PERMANENT_STATUSES = frozenset({400, 403, 409, 413})
"""Answers of estserver that blame the CSR; the other 4xx blame us or what lies between, and pass."""

WAIT_LIMIT = timedelta(hours=168)
"""How long a request of est-issuer.io waits for an issuer that is absent or not ready."""

AWAITS_APPROVAL = (
    "Waiting for approval (spec.est.approval is Manual): whoever has the verb approve on signers of est-issuer.io sets Approved or Denied"
)

_PEM = re.compile(rb"-----BEGIN (?:NEW )?CERTIFICATE REQUEST-----([^-]*)-----END (?:NEW )?CERTIFICATE REQUEST-----")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ignore:
    """Nothing to do until the object changes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deny:
    """Somebody denied it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Pending until the issuer changes. `reason` is the Event's."""

    message: str
    reason: str
    until: datetime | None = None
    """When it has waited for too long; None is never."""
    for_person: bool = False
    """Whether somebody must approve or deny it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Pending, and tried again after `after` at the soonest."""

    message: str
    reason: str
    after: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse:
    """Failed for good. `invalid` where the same request could never pass; `reason` labels the metric."""

    message: str
    reason: str
    invalid: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Enroll:
    """Ask estserver at `label` for the CSR with `wishes`, then write what comes back with one of `chains`."""

    csr: CertificationRequest = field(repr=False)
    """As it came, but for what `wishes` changes."""

    wishes: Wishes
    label: str | None
    chains: tuple[Chain, ...] = field(repr=False)
    left_out: frozenset[Usage]


Step = Ignore | Deny | Wait | Retry | Refuse | Enroll


def next_step(request: CertRequest, issuer: IssuerState | None) -> Step:
    """The step for a request as it stands; `issuer` is the one that it names, None where there is none."""
    if request.finished:
        return Ignore()
    if request.denied:  # before Approved: cert-manager, too, takes Denied where both stand (contract 5)
        return Deny()
    if not request.approved:
        return Ignore()
    if issuer is None:
        return Wait(message=f"{request.issuer} not found", reason="IssuerNotFound", until=_until(request))
    if not issuer.ready or issuer.policy is None:
        return Wait(message=f"{issuer.ref} is not ready: {issuer.message}", reason="IssuerNotReady", until=_until(request))
    try:
        enroll = _enroll(request, issuer, issuer.policy)
    except RequestError as error:  # nobody is asked to approve what is refused anyway
        return _refused(error)
    if issuer.approval is Approval.MANUAL and request.key.door is Door.EST_ISSUER and not request.approved_by_condition:
        until = request.created + issuer.approval_within
        return Wait(message=AWAITS_APPROVAL, reason="ApprovalPending", until=until, for_person=True)
    return enroll


def after_error(error: EstError, request: CertRequest, issuer: IssuerState | None, *, now: datetime, max_retry: timedelta) -> Step:
    """The step after an enrolment failed.

    What the CSR is to blame for is refused; what passes is tried again until `max_retry` after the request was made or the issuer
    became ready, whichever is later (contract 12); what waits for a person (202) waits without end.
    """
    if isinstance(error, RequestError) or (isinstance(error, Refused) and error.http_status in PERMANENT_STATUSES):
        return _refused(error)
    if isinstance(error, Pending):
        return Retry(message=f"Waiting for approval: {error.message}", reason=error.reason, after=error.retry_after)
    since = request.created
    if issuer is not None and issuer.ready_since is not None:
        since = max(since, issuer.ready_since)
    if now >= since + max_retry:
        return Refuse(message=f"Failed to sign CertificateRequest: {error.message}", reason=error.reason)
    after = getattr(error, "retry_after", timedelta(0))
    return Retry(message=f"Failed to sign CertificateRequest, will retry: {error.message}", reason=error.reason, after=after)


def requester_of(request: CertRequest) -> Requester:
    """Who asks, for the policy: the namespace alone.

    A tenant can forge the username in an est-issuer.io request, and in a cert-manager.io one where cert-manager's webhook does
    not run (contract 24).
    """
    namespace = request.key.namespace
    return Requester(
        authenticated_by=AuthenticatedBy.KUBERNETES,
        identity=namespace,
        door=request.key.door,
        namespace=namespace,
    )


def _until(request: CertRequest) -> datetime | None:
    """When a request whose issuer cannot be used has waited for long enough. Of cert-manager's it is not ours to say."""
    return request.created + WAIT_LIMIT if request.key.door is Door.EST_ISSUER else None


def _enroll(request: CertRequest, issuer: IssuerState, policy: Policy) -> Enroll:
    csr = pkcs10.parse(_csr_der(request.csr_b64), accept_ca=True)
    wishes = _wishes(request, csr)
    csr = replace(csr, duration=wishes.duration, usages=csr.usages if wishes.usages is None else wishes.usages, ca=wishes.is_ca)
    profile.check_csr(csr, policy)
    requester = requester_of(request)
    authorized = registration.authorize(requester, csr, policy)
    if registration.binding_required(requester, policy):
        raise Forbidden(
            f"The rule for namespace {request.key.namespace} requires channel binding (RFC 7030 section 3.5): no Kubernetes request has it"
        )
    _, left_out = registration.without_encipherment(authorized.usages, csr.key_algorithm)
    return Enroll(csr=csr, wishes=wishes, label=issuer.label, chains=issuer.chains, left_out=left_out)


def _csr_der(csr_b64: str) -> bytes:
    """spec.request → DER; raises MalformedBody. It is base64 of one PEM block (RFC 7468 section 7)."""
    try:
        blocks = _PEM.findall(base64.b64decode(csr_b64, validate=True))
    except ValueError as error:
        raise MalformedBody("spec.request is not base64") from error
    if len(blocks) != 1:
        raise MalformedBody(f"spec.request holds {len(blocks) or 'no'} PEM blocks of type CERTIFICATE REQUEST instead of one")
    try:
        return base64.b64decode(b"".join(blocks[0].split()), validate=True)
    except ValueError as error:
        raise MalformedBody("spec.request holds a CERTIFICATE REQUEST that is not base64 between its lines") from error


def _wishes(request: CertRequest, csr: CertificationRequest) -> Wishes:
    """What the object asks for beyond its CSR. Raises Forbidden for what cannot be read, BadCsr for what contradicts the CSR."""
    duration = None
    if request.duration is not None:
        try:
            duration = parse_go_duration(request.duration)
        except ValueError as error:
            raise Forbidden(f"spec.duration {request.duration!r} is {error}", reason="Duration") from error
        if duration < SHORTEST_LIFE:
            raise Forbidden(f"spec.duration {request.duration} is shorter than {SHORTEST_LIFE}, the least there is", reason="Duration")
    usages = (parse_usage_names(request.usages) if not request.is_ca else None) if request.usages else None
    if usages is not None and csr.usages is not None and csr.usages != usages:
        raise BadCsr(
            f"spec.usages ({_names(usages)}) differ from the usages in the CSR ({_names(csr.usages)}): make them the same",
            reason="UsagesContradict",
        )
    if csr.ca and not request.is_ca:
        raise BadCsr("the CSR asks for a CA certificate and spec.isCA does not: make them the same", reason="IsCAContradicts")
    return Wishes(duration=duration, usages=usages, is_ca=request.is_ca)


def _refused(error: EstError) -> Refuse:
    """`InvalidRequest` goes with what no policy could ever let pass: a CSR that is malformed or whose key is not acceptable."""
    invalid = error.reason if isinstance(error, BadCsr | MalformedBody) else None
    return Refuse(message=f"Failed to sign CertificateRequest: {error.message}", reason=error.reason, invalid=invalid)


def _names(usages: frozenset[Usage]) -> str:
    return ", ".join(sorted(usages))
