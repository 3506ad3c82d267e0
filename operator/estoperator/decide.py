"""What to do about one request: pure. Requests, issuers and time come in; a step goes out; `issuing` carries it out.

In this order: finished or somebody else's, not approved, denied, the issuer, the CSR, policy. A refusal of the registration
(`estcore.registration.authorize`, asked with the namespace as the requester) becomes a step here, as does every error of the
enrolment, in the one function `after_error`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from cryptography import x509

from estcore import profile, registration, rule_names, rules
from estcore.certification_request import CertificationRequest
from estcore.errors import BadCsr, EstError, Forbidden, MalformedBody, Pending, Refused, RequestError
from estcore.issuer_spec import Approval, Policy
from estcore.requester import Door, Requester
from estcore.usages import Usage, parse_usage_names
from estoperator import request_body
from estoperator.chain import Chain
from estoperator.doors import CERT_MANAGER, DOORS, POD_CERTIFICATES, SIGNING_REQUESTS
from estoperator.go_duration import parse_go_duration
from estoperator.issuer_state import IssuerState
from estoperator.namespaces import LabelsOf, name_alone
from estoperator.requesters import not_served, requester_of, serves
from estoperator.resources import CertRequest, Pod
from estoperator.vouching import Wishes

CONFLICT = 409
"""Estserver's answer where the object's UID had a certificate before, with other names or usages."""

FRESH = timedelta(minutes=4)
"""How old a pod's certificate may be when it is written: kube-apiserver takes a notBefore within 5 minutes of its clock."""

PERMANENT_STATUSES = frozenset({400, 403, CONFLICT, 413})
"""Answers of estserver that blame the CSR; the other 4xx blame us or what lies between, and pass."""

LONGEST_RETRY = timedelta(minutes=10)
"""How much of a Retry-After is followed where the error passes. It need not be estserver's: a load balancer that answers 503 with a day
in it is itself back within minutes, and until then nothing but a restart would have the request tried again."""

LONGEST_PENDING = timedelta(hours=1)
"""How much is followed of the time that a 202 names: a person decides, so asking more often finds little, and less often keeps who was
approved waiting. estserver itself names ten minutes at most."""

WAIT_LIMIT = timedelta(hours=168)
"""How long a request of est-issuer.io waits for an issuer that is absent or not ready."""

CERT_MANAGER_USAGES = frozenset({Usage.DIGITAL_SIGNATURE, Usage.KEY_ENCIPHERMENT})
"""What a request of cert-manager.io asks for where neither its spec nor its CSR names a usage: the default of that API (contract 21)."""

CA_USAGES = frozenset({"cert sign", "crl sign"})
"""What the certificate of a CA has, and nothing else."""

AWAITS_APPROVAL = (
    "Waiting for approval (spec.est.approval is Manual): whoever has the verb approve on signers of est-issuer.io sets Approved or Denied"
)

KEY_NOT_SHOWN = (
    "spec.stubPKCS10Request is absent: a node before 1.36 made this request, and its key is shown in v1beta1 of the kind alone; where the "
    "API server serves that, it is watched from the next re-list on"
)

POLICY_CHANGED = (
    "the policy that names this pod was changed after a certificate was made for this request and before it could be written; the kubelet "
    "asks anew"
)


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
    left_out: frozenset[str]
    """Usages that were asked for and that this kind of certificate cannot have."""


Step = Ignore | Deny | Wait | Retry | Refuse | Enroll


def next_step(
    request: CertRequest, issuer: IssuerState | None, labels_of: LabelsOf = name_alone, seen: Callable[[str], bool] = lambda _: True
) -> Step:
    """The step for a request as it stands.

    `issuer` is the one that it names, None where there is none; `labels_of` gives the labels of a namespace, and `seen` says whether
    they are known: a refusal for want of labels that are about to come would be for good.
    """
    if request.finished:
        return Ignore()
    if request.denied:  # before Approved: cert-manager, too, takes Denied where both stand (contract 5)
        return Deny()
    if not request.approved:
        return Ignore()
    problem = _never(request)
    if problem is not None:
        return problem
    if issuer is None:
        return _not_found(request)
    if not issuer.ready or issuer.policy is None:
        return Wait(message=f"{issuer.ref} is not ready: {issuer.message}", reason="IssuerNotReady", until=_until(request))
    requester = requester_of(request, labels_of)
    if not serves(issuer, requester):
        return Wait(message=not_served(issuer, requester), reason="NamespaceNotAllowed", until=_until(request))
    try:
        enroll = _enroll(request, requester, issuer, issuer.policy)
    except RequestError as error:  # nobody is asked to approve what is refused anyway
        if requester.namespace is not None and not seen(requester.namespace):
            message = f"namespace {requester.namespace!r} is not known to the operator yet, and the policy may go by its labels"
            return Wait(message=message, reason="NamespaceNotSeen", until=_until(request))
        return _refused(error, request)
    if issuer.approval is Approval.MANUAL and request.key.door is Door.EST_ISSUER and not request.approved_by_condition:
        until = request.created + issuer.approval_within
        return Wait(message=AWAITS_APPROVAL, reason="ApprovalPending", until=until, for_person=True)
    return enroll


def after_error(
    error: EstError, request: CertRequest, issuer: IssuerState | None, *, since: datetime, now: datetime, max_retry: timedelta
) -> Step:
    """The step after an enrolment failed.

    What the CSR is to blame for is refused; but a pod's CSR names nothing, so what was enrolled before under other names came by another
    policy, and is waited out as in `undeliverable`. What passes is tried again until `max_retry` after `since`, when the first try failed
    of those that have failed in a row, or after the issuer became ready, whichever is later (contract 12); what waits for a person (202)
    waits without end. The time that the answer asks to wait is followed up to LONGEST_RETRY, of a 202 up to LONGEST_PENDING.
    """
    refused_with = error.http_status if isinstance(error, Refused) else None
    if refused_with == CONFLICT and request.pod is not None:
        return Wait(message=POLICY_CHANGED, reason="PolicyChanged")
    if isinstance(error, RequestError) or refused_with in PERMANENT_STATUSES:
        return _refused(error, request)
    if issuer is None:  # it went while estserver was asked, whose answer says so in other words
        return _not_found(request)
    if isinstance(error, Pending):
        return Retry(message=f"Waiting for approval: {error.message}", reason=error.reason, after=min(error.retry_after, LONGEST_PENDING))
    door = DOORS[request.key.door]
    if issuer.ready_since is not None:
        since = max(since, issuer.ready_since)
    if door.gives_up and now >= since + max_retry:
        return Refuse(message=f"Failed to sign {door.kind}: {error.message}", reason=error.reason)
    after = min(getattr(error, "retry_after", timedelta(0)), LONGEST_RETRY)
    return Retry(message=f"Failed to sign {door.kind}, will retry: {error.message}", reason=error.reason, after=after)


def _not_found(request: CertRequest) -> Wait:
    return Wait(message=f"{request.issuer} not found", reason="IssuerNotFound", until=_until(request))


def _until(request: CertRequest) -> datetime | None:
    """When a request whose issuer cannot be used has waited for long enough. Of cert-manager's it is not ours to say."""
    return request.created + WAIT_LIMIT if request.key.door is Door.EST_ISSUER else None


def must_be_reviewed(request: CertRequest) -> bool:
    """Whether to ask the API server first if the user may use this issuer: a namespaced one, asked for from outside any namespace."""
    return request.user is not None and bool(request.issuer.namespace) and request.approved and not request.finished


def denied_reference(request: CertRequest) -> Refuse:
    """The user may not use that namespace's issuer; it says nothing of whether there is one."""
    return Refuse(
        message=f"{request.username!r} may not use issuers of namespace {request.issuer.namespace!r}: this needs the verb reference on "
        f"signers of est-issuer.io there, for the name {request.issuer.name!r}",
        reason="DeniedReference",
    )


def undeliverable(request: CertRequest, certificate: x509.Certificate, *, now: datetime) -> Wait | None:
    """Why a certificate cannot be written for a pod, which kube-apiserver would refuse; None where it can.

    Nothing is written then: kube-controller-manager removes the request after 15 minutes, and the kubelet makes a new one.
    """
    if request.pod is None:
        return None
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    if now - certificate.not_valid_before_utc > FRESH:
        return Wait(
            message="the certificate was issued too long ago to be given to a pod; the kubelet asks anew", reason="CertificateTooOld"
        )
    if life < DOORS[request.key.door].shortest_life:
        return Wait(message="the issuer's CA ends before the hour that a pod's certificate must live", reason="CertificateTooShort")
    return None


def _never(request: CertRequest) -> Refuse | Wait | None:
    """What no issuer could change about a request: a signerName that can name none, and of a pod's contract 3b, points 1 and 3."""
    if request.names_no_issuer:
        return Refuse(
            message=f"spec.signerName names no issuer: estissuers.est-issuer.io/<namespace>.{request.issuer.name} would name an "
            "EstIssuer, estclusterissuers.est-issuer.io/<name> an EstClusterIssuer",
            reason="InvalidSignerName",
        )
    pod = request.pod
    if pod is None:
        return None
    if request.issuer.namespace and request.issuer.namespace != request.key.namespace:
        return Refuse(
            message=f"{request.issuer} is of another namespace than the pod; use one of its own, or an EstClusterIssuer",
            reason="IssuerOfAnotherNamespace",
        )
    if pod.annotation_keys:
        return Refuse(
            message=f"this signer knows no userAnnotations: leave {', '.join(pod.annotation_keys)} out of the podCertificate source",
            reason="InvalidUnverifiedUserAnnotations",
        )
    if request.csr_b64 == "" and pod.public_key_b64 == "":
        return Wait(message=KEY_NOT_SHOWN, reason="KeyNotShown")
    return None


def _enroll(request: CertRequest, requester: Requester, issuer: IssuerState, policy: Policy) -> Enroll:
    csr = request_body.read(request)
    wishes = _wishes(request, csr, policy) if request.pod is None else _wishes_of_pod(requester, request.pod, csr, issuer, policy)
    if wishes.subject is not None:
        csr = replace(csr, subject=wishes.subject, sans=wishes.sans)
    csr = replace(csr, duration=wishes.duration, usages=csr.usages if wishes.usages is None else wishes.usages, ca=wishes.is_ca)
    profile.check_csr(csr, policy)
    authorized = registration.authorize(requester, csr, policy)
    if registration.binding_required(requester, policy):
        raise Forbidden(
            f"The rule for namespace {request.key.namespace} requires channel binding (RFC 7030 section 3.5): no Kubernetes request has it"
        )
    left_out: frozenset[str] = registration.without_encipherment(authorized.usages, csr.key_algorithm)[1]
    if request.is_ca:
        left_out = frozenset(request.usages) - CA_USAGES
    return Enroll(csr=csr, wishes=wishes, label=issuer.label, chains=issuer.chains, left_out=left_out)


def _wishes_of_pod(requester: Requester, pod: Pod, csr: CertificationRequest, issuer: IssuerState, policy: Policy) -> Wishes:
    """Key from the kubelet, names from the rule for this pod, which must write each of them out; raises Forbidden."""
    if issuer.approval is Approval.MANUAL:
        raise Forbidden("this issuer has approval: Manual, and nobody can approve a pod's request", reason="ApprovalIsManual")
    if csr.key_algorithm not in policy.keys:
        raise Forbidden(
            f"{csr.key_algorithm} keys are not permitted: set keyType of the podCertificate source to one of {', '.join(policy.keys)}",
            reason="UnsupportedKeyType",
        )
    shortest = POD_CERTIFICATES.shortest_life
    if policy.duration.max < shortest:
        raise Forbidden(f"this issuer's certificates live {policy.duration.max} at most, a pod's {shortest} at least", reason="Duration")
    found = rules.rule_for(requester, policy)
    names = None if found is None else rule_names.fixed_names(found[1], rules.values_of(requester))
    if found is not None and not names:
        raise Forbidden(
            f"rule {found[0] + 1} does not write out the names of {rules.describe(requester)}: a pod asks for none, so a rule for pods "
            "lists each, without *, and in a DNS name a value holds no dot and makes no label longer than 63 characters",
            reason="NoNames",
        )
    # Without a rule `authorize` refuses.
    life = max(shortest, min(policy.duration.default, pod.longest_life))
    return Wishes(duration=life, subject=x509.Name([]), sans=names or ())


def _wishes(request: CertRequest, csr: CertificationRequest, policy: Policy) -> Wishes:
    """What the object asks for beyond its CSR. Raises Forbidden for what cannot be read, BadCsr for what contradicts the CSR."""
    duration = None
    if request.duration is not None:
        try:
            duration = parse_go_duration(request.duration)
        except ValueError as error:
            raise Forbidden(f"spec.duration {request.duration!r} is {error}", reason="Duration") from error
        shortest = DOORS[request.key.door].shortest_life
        if duration < shortest:
            raise Forbidden(
                f"spec.duration {request.duration} is shorter than {shortest}, the least there is",
                reason="InvalidDuration" if request.key.door is SIGNING_REQUESTS.door else "Duration",
            )
    usages = (parse_usage_names(request.usages) if not request.is_ca else None) if request.usages else None
    if usages is not None and csr.usages is not None and csr.usages != usages:
        raise BadCsr(
            f"spec.usages ({_names(usages)}) differ from the usages in the CSR ({_names(csr.usages)}): make them the same",
            reason="UsagesContradict",
        )
    if usages is None and csr.usages is None and not request.is_ca and request.key.door is CERT_MANAGER.door:
        usages = CERT_MANAGER_USAGES & policy.allowed_usages or CERT_MANAGER_USAGES
    if csr.ca and not request.is_ca:
        raise BadCsr("the CSR asks for a CA certificate and spec.isCA does not: make them the same", reason="IsCAContradicts")
    return Wishes(duration=duration, usages=usages, is_ca=request.is_ca)


def _refused(error: EstError, request: CertRequest) -> Refuse:
    """`InvalidRequest` goes with what no policy could ever let pass: a CSR that is malformed or whose key is not acceptable."""
    invalid = error.reason if isinstance(error, BadCsr | MalformedBody) else None
    return Refuse(message=f"Failed to sign {DOORS[request.key.door].kind}: {error.message}", reason=error.reason, invalid=invalid)


def _names(usages: frozenset[Usage]) -> str:
    return ", ".join(sorted(usages))
