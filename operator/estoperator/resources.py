"""Frozen views of the Kubernetes objects that the operator reads: the only place that knows where a field is.

Status is never taken as truth, but for Approved and Denied (whose writers admission controls) and for what we wrote
ourselves: the Ready condition and whether the request is finished. No IO, no clock.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from estcore import issuer_spec
from estcore.errors import ConfigurationError
from estcore.issuer_spec import IssuerSpec
from estcore.requester import Door
from estoperator.doors import EST_ISSUER, GROUP, ISSUER_KINDS, ISSUER_PLURALS, ORIGIN_EST, Form, KubernetesDoor

Object = Mapping[str, Any]
"""A Kubernetes object as JSON gave it, valid under the schema of its CRD."""

_GO_DURATION = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)((\d+(\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h))*", re.ASCII)
_GO_DURATION_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_SECONDS = {"ns": "1e-9", "us": "1e-6", "µs": "1e-6", "μs": "1e-6", "ms": "1e-3", "s": "1", "m": "60", "h": "3600"}


MAX_REQUEST_CHARACTERS = 96 * 1024
"""Of spec.request, stubPKCS10Request or pkixPublicKey: the largest CSR (estcore.der.MAX_CSR_OCTETS) takes 59,248 as base64 of PEM.

What is longer is refused for its length, and not held until somebody approves it.
"""

DURATION_ANNOTATION = "experimental.cert-manager.io/request-duration"
IS_CA_ANNOTATION = "experimental.cert-manager.io/request-is-ca"


class RequestKey(NamedTuple):
    """Names one request object; `namespace` is empty for a CertificateSigningRequest, which has none."""

    door: Door
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.door}/{self.namespace}/{self.name}"


class IssuerRef(NamedTuple):
    """Names one issuer; `namespace` is empty for an EstClusterIssuer."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One condition of a status; `observed_generation` for issuers only."""

    type: str
    status: str
    reason: str
    message: str
    last_transition_time: str
    observed_generation: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Who made a CertificateSigningRequest; the API server wrote it, from how it authenticated them."""

    username: str
    uid: str
    groups: tuple[str, ...]
    extra: Object = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """For whom a PodCertificateRequest is; the API server held it against the pod, its ServiceAccount and its node."""

    name: str
    service_account: str
    longest_life: timedelta
    """spec.maxExpirationSeconds."""

    annotation_keys: tuple[str, ...]
    """Of spec.unverifiedUserAnnotations: nobody checked those."""

    public_key_b64: str | None = field(default="", repr=False)
    """spec.pkixPublicKey of a kubelet before 1.36, where there is no stub: base64 of a DER SubjectPublicKeyInfo.

    The API server checked the proof-of-possession. None where it is longer than MAX_REQUEST_CHARACTERS.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class CertRequest:
    """A request object of any door that names one of our issuers.

    `csr_b64` is the CSR as it stands: base64 of a PEM PKCS#10 CSR; of a PodCertificateRequest base64 of a DER one, whose key alone counts,
    or empty; None where that is longer than MAX_REQUEST_CHARACTERS.
    `duration` is a Go duration, as written. `user` and `pod` are there where the door tells them.
    `finished` is true once the request needs nothing more, whatever its outcome (contract 3).
    """

    key: RequestKey
    uid: str
    resource_version: str
    created: datetime
    issuer: IssuerRef
    csr_b64: str | None = field(repr=False)
    duration: str | None
    usages: tuple[str, ...]
    is_ca: bool
    username: str | None
    """spec.username: who made it, where admission checked that (admission_guard, webhook_guard)."""

    approved: bool
    """Approved is set, or the door approves by itself."""
    approved_by_condition: bool
    """Approved is set: what an issuer with `approval: Manual` asks for at any door."""
    denied: bool
    finished: bool
    ready: Condition | None
    failure_time: str | None
    user: User | None = field(default=None, repr=False)
    pod: Pod | None = None

    @property
    def names_no_issuer(self) -> bool:
        """Whether its signerName is of our domain and has no namespace where an EstIssuer has one."""
        return self.issuer.kind == "EstIssuer" and not self.issuer.namespace

    @property
    def judgement(self) -> tuple[object, ...]:
        """What a decision hangs on; while it is the same, a new version of the object is no news.

        What is asked for is in it, for nobody holds cert-manager's kind to its spec where cert-manager's webhook does not run.
        """
        asked = self.issuer, self.csr_b64, self.duration, self.usages, self.is_ca
        return *asked, self.uid, self.approved, self.approved_by_condition, self.denied, self.finished


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """An EstIssuer or EstClusterIssuer; `spec` is None and `problem` says why where it does not parse."""

    ref: IssuerRef
    uid: str
    generation: int
    resource_version: str
    spec: IssuerSpec | None = field(repr=False)
    problem: str
    ready: Condition | None
    status: Object = field(repr=False)
    """As it stands, only to see whether what we would write is there already."""


def read_request(door: KubernetesDoor, body: Object) -> CertRequest | None:
    """The request, or None where it names no issuer of ours (contract 1) or is being deleted."""
    return None if "deletionTimestamp" in body["metadata"] else _READERS[door.form](door, body)


def _read_certificate_request(door: KubernetesDoor, body: Object) -> CertRequest | None:
    """A CertificateRequest of either group.

    One that came by EST is estserver's: it shows people what waits, and nothing is ever enrolled by it.

    The namespaced issuer is the one of the request's own namespace (contract 2).
    """
    metadata, spec = body["metadata"], body["spec"]
    ref = spec["issuerRef"]
    # cert-manager's own default for an absent kind is its Issuer: such a request is never for us.
    if ref.get("group") != GROUP or ref.get("kind") not in ISSUER_KINDS:
        return None
    if door.door is EST_ISSUER.door and spec.get("origin") == ORIGIN_EST:
        return None
    namespace = metadata["namespace"]
    status = body.get("status") or {}
    conditions = {condition["type"]: condition for condition in status.get("conditions") or ()}
    ready = _condition(conditions.get("Ready"))
    return CertRequest(
        key=RequestKey(door.door, namespace, metadata["name"]),
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
        created=datetime.fromisoformat(metadata["creationTimestamp"]),
        issuer=IssuerRef(ref["kind"], namespace if ref["kind"] == "EstIssuer" else "", ref["name"]),
        csr_b64=_bounded(spec["request"]),
        duration=spec.get("duration"),
        usages=tuple(spec.get("usages") or ()),
        is_ca=bool(spec.get("isCA")),
        username=spec.get("username"),
        approved=not door.approval_required or _is_true(conditions.get("Approved")),
        approved_by_condition=_is_true(conditions.get("Approved")),
        denied=_is_true(conditions.get("Denied")),
        finished=_finished(status, ready) or _is_true(conditions.get("InvalidRequest")),
        ready=ready,
        failure_time=status.get("failureTime"),
    )


def _read_signing_request(door: KubernetesDoor, body: Object) -> CertRequest | None:
    """A CertificateSigningRequest (certificates.k8s.io/v1). cert-manager's annotations say what its spec has no room for."""
    metadata, spec = body["metadata"], body["spec"]
    issuer = read_signer_name(spec["signerName"])
    if issuer is None:
        return None
    status, annotations = body.get("status") or {}, metadata.get("annotations") or {}
    conditions = {condition["type"]: condition for condition in status.get("conditions") or ()}
    seconds = spec.get("expirationSeconds")
    user = User(
        username=spec.get("username") or "",
        uid=spec.get("uid") or "",
        groups=tuple(spec.get("groups") or ()),
        extra=spec.get("extra") or {},
    )
    return CertRequest(
        key=RequestKey(door.door, "", metadata["name"]),
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
        created=datetime.fromisoformat(metadata["creationTimestamp"]),
        issuer=issuer,
        csr_b64=_bounded(spec["request"]),
        duration=annotations.get(DURATION_ANNOTATION) or (None if seconds is None else f"{seconds}s"),
        usages=tuple(spec.get("usages") or ()),
        is_ca=annotations.get(IS_CA_ANNOTATION) == "true",
        username=user.username,
        approved=_is_true(conditions.get("Approved")),
        approved_by_condition=_is_true(conditions.get("Approved")),
        denied=_is_true(conditions.get("Denied")),
        finished=bool(status.get("certificate")) or not conditions.keys().isdisjoint({"Failed", "Denied"}),
        ready=None,
        failure_time=None,
        user=user,
    )


def _read_pod_certificate(door: KubernetesDoor, body: Object) -> CertRequest | None:
    """A PodCertificateRequest (KEP-4317). Only the key is the kubelet's: in `stubPKCS10Request`, before 1.36 in `pkixPublicKey`."""
    metadata, spec = body["metadata"], body["spec"]
    issuer = read_signer_name(spec["signerName"])
    if issuer is None:
        return None
    conditions = (body.get("status") or {}).get("conditions") or ()
    stub_b64 = spec.get("stubPKCS10Request") or ""
    return CertRequest(
        key=RequestKey(door.door, metadata["namespace"], metadata["name"]),
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
        created=datetime.fromisoformat(metadata["creationTimestamp"]),
        issuer=issuer,
        csr_b64=_bounded(stub_b64),
        duration=None,
        usages=(),
        is_ca=False,
        username=None,
        approved=True,
        approved_by_condition=False,
        denied=False,
        finished=any(condition["type"] in {"Issued", "Denied", "Failed"} for condition in conditions),
        ready=None,
        failure_time=None,
        pod=Pod(
            name=spec["podName"],
            service_account=spec["serviceAccountName"],
            longest_life=timedelta(seconds=spec["maxExpirationSeconds"]),
            annotation_keys=tuple(sorted(spec.get("unverifiedUserAnnotations") or ())),
            public_key_b64="" if stub_b64 else _bounded(spec.get("pkixPublicKey") or ""),
        ),
    )


_READERS: Mapping[Form, Callable[[KubernetesDoor, Object], CertRequest | None]] = {
    Form.CERTIFICATE_REQUEST: _read_certificate_request,
    Form.SIGNING_REQUEST: _read_signing_request,
    Form.POD_CERTIFICATE: _read_pod_certificate,
}


def read_signer_name(signer_name: str) -> IssuerRef | None:
    """The issuer that a signerName names, None where its domain is not one of ours.

    A namespace holds no dot, an issuer's name may: `estissuers.est-issuer.io/<namespace>.<name>` splits at the first. Without a dot
    it names no issuer that could ever be: one of no namespace (`CertRequest.names_no_issuer`).
    """
    domain, _, path = signer_name.partition("/")
    if domain == f"{ISSUER_PLURALS['EstClusterIssuer']}.{GROUP}" and path:
        return IssuerRef("EstClusterIssuer", "", path)
    namespace, _, name = path.partition(".")
    if domain == f"{ISSUER_PLURALS['EstIssuer']}.{GROUP}" and path:
        return IssuerRef("EstIssuer", namespace, name) if namespace and name else IssuerRef("EstIssuer", "", path)
    return None


def read_issuer(kind: str, body: Object) -> Issuer:
    """The issuer, with a spec that may not parse."""
    metadata = body["metadata"]
    ref = IssuerRef(kind, metadata.get("namespace", ""), metadata["name"])
    spec, problem = None, ""
    try:
        spec = issuer_spec.parse(body.get("spec") or {}, where="")
    except ConfigurationError as error:
        problem = error.message
    status = body.get("status") or {}
    conditions = [condition for condition in status.get("conditions") or () if condition["type"] == "Ready"]
    return Issuer(
        ref=ref,
        uid=metadata["uid"],
        generation=metadata["generation"],
        resource_version=metadata["resourceVersion"],
        spec=spec,
        problem=problem,
        ready=_condition(conditions[0] if conditions else None),
        status=status,
    )


def parse_go_duration(text: str) -> timedelta:
    """A Go duration as metav1.Duration writes it (`2160h0m0s`, `1.5h`, `-3ns`); raises ValueError, also beyond 300 years."""
    if len(text) > 64 or not _GO_DURATION.fullmatch(text):
        raise ValueError("not a duration like 2160h or 1h30m")
    seconds = sum((Decimal(number) * Decimal(_SECONDS[unit]) for number, unit in _GO_DURATION_PART.findall(text)), Decimal(0))
    if seconds > 300 * 366 * 86400:
        raise ValueError("longer than 300 years")
    return timedelta(microseconds=int(seconds * 1_000_000)) * (-1 if text.startswith("-") else 1)


def _bounded(text: str) -> str | None:
    return text if len(text) <= MAX_REQUEST_CHARACTERS else None


def _finished(status: Object, ready: Condition | None) -> bool:
    if status.get("certificate"):
        return True
    return ready is not None and (ready.status == "True" or ready.reason in {"Failed", "Denied"})


def _is_true(condition: Object | None) -> bool:
    return condition is not None and condition["status"] == "True"


def _condition(condition: Object | None) -> Condition | None:
    if condition is None:
        return None
    return Condition(
        type=condition["type"],
        status=condition["status"],
        reason=condition.get("reason") or "",
        message=condition.get("message") or "",
        last_transition_time=condition.get("lastTransitionTime") or "",
        observed_generation=condition.get("observedGeneration"),
    )
