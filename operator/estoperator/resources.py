"""Frozen views of the Kubernetes objects that the operator reads; `object_reader` makes them of what JSON gave. No IO, no clock."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from estcore.issuer_spec import IssuerSpec
from estcore.requester import Door

Object = Mapping[str, Any]
"""A Kubernetes object as JSON gave it, valid under the schema of its CRD."""

MAX_REQUEST_CHARACTERS = 96 * 1024
"""Of spec.request, stubPKCS10Request or pkixPublicKey: the largest CSR (estcore.der.MAX_CSR_OCTETS) takes 59,248 as base64 of PEM.

What is longer is refused for its length, and not held until somebody approves it.
"""


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
