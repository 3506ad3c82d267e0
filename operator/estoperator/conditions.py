"""What the operator writes into a status: pure builders with an injected clock.

A CertificateRequest gets Ready, and InvalidRequest where a new one would fail too; an issuer gets Ready. The lastTransitionTime
changes only when the status does. One value holds every field that we own, because each apply must carry them all.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509

from estcore.visible_text import printable
from estoperator.doors import DOORS, Form
from estoperator.resources import CertRequest, Condition

MAX_MESSAGE_CHARACTERS = 1024
REFRESH_MARGIN = timedelta(minutes=10)
ISSUED = "Certificate fetched from issuer successfully"
DENIED = "The CertificateRequest was denied by an approval controller"

_INCIDENT = re.compile(r"\binternal error [0-9a-f]+\b")
"""In what estserver says of a fault of its own: the id under which its log has this one, another one at each attempt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestStatus:
    """The fields that we own in a request's status. Certificates are PEM, each with its final line feed."""

    conditions: tuple[Condition, ...]
    certificate_pem: bytes | None = field(default=None, repr=False)
    ca_pem: bytes | None = field(default=None, repr=False)
    failure_time: str | None = None
    times: "Times | None" = None
    note: str = ""
    """What is told of an end that has no condition to say it."""

    @property
    def finished(self) -> bool:
        """Whether the request needs nothing more."""
        ended = any(condition.type in {"Failed", "Denied", "Issued"} for condition in self.conditions)
        return self.certificate_pem is not None or self.failure_time is not None or ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """When a pod's certificate begins, is to be replaced, and ends."""

    not_before: datetime
    begin_refresh_at: datetime
    not_after: datetime


def issued(
    request: CertRequest,
    *,
    leaf: x509.Certificate,
    certificate_pem: bytes,
    ca_pem: bytes | None,
    left_out: frozenset[str],
    asked_life: timedelta | None = None,
    now: datetime,
) -> RequestStatus:
    """The certificate is there (contracts 16 to 18).

    What it has not is told, where it was asked for: usages `left_out`, and of `asked_life` what is missing.
    """
    if request.pod is not None:
        ended = ready_condition(None, type_="Issued", status="True", reason="Issued", message=ISSUED, now=now)
        return RequestStatus(conditions=(ended,), certificate_pem=certificate_pem, times=times_of(leaf))
    message = ISSUED + _less_than_asked(request, leaf, left_out, asked_life)
    if request.user is not None:
        return RequestStatus(conditions=(), certificate_pem=certificate_pem, note=message)
    ready = ready_condition(request.ready, status="True", reason="Issued", message=message, now=now)
    return RequestStatus(conditions=(ready,), certificate_pem=certificate_pem, ca_pem=ca_pem)


def pending(request: CertRequest, *, message: str, now: datetime) -> RequestStatus:
    """Not now (contracts 9, 11 and 12). There is no failureTime: the request goes on by itself."""
    return RequestStatus(conditions=(ready_condition(request.ready, status="False", reason="Pending", message=message, now=now),))


_REFUSALS = {Form.SIGNING_REQUEST: "Failed", Form.POD_CERTIFICATE: "Denied"}
"""What a refusal is where there is no Ready. Of a pod all are by policy: what passes is never told as Failed there, which is final."""


def failed(request: CertRequest, *, message: str, reason: str, invalid: str | None, now: datetime) -> RequestStatus:
    """For good (contracts 13 and 14). `invalid` is the reason of InvalidRequest where the same request can never pass.

    Without failureTime in the same write cert-manager would never try again. `reason` is for the doors whose one condition it is.
    """
    type_ = _REFUSALS.get(DOORS[request.key.door].form)
    if type_ is not None:
        return RequestStatus(conditions=(ready_condition(None, type_=type_, status="True", reason=reason, message=message, now=now),))
    ready = ready_condition(request.ready, status="False", reason="Failed", message=message, now=now)
    conditions: tuple[Condition, ...] = (ready,)
    if invalid is not None:
        conditions += (ready_condition(None, type_="InvalidRequest", status="True", reason=invalid, message=message, now=now),)
    return RequestStatus(conditions=conditions, failure_time=request.failure_time or timestamp(now))


def denied(request: CertRequest, *, now: datetime) -> RequestStatus:
    """Somebody set Denied (contract 5)."""
    ready = ready_condition(request.ready, status="False", reason="Denied", message=DENIED, now=now)
    return RequestStatus(conditions=(ready,), failure_time=request.failure_time or timestamp(now))


def ready_condition(
    before: Condition | None,
    *,
    status: str,
    reason: str,
    message: str,
    now: datetime,
    type_: str = "Ready",
    observed_generation: int | None = None,
) -> Condition:
    """A condition that follows `before`, whose lastTransitionTime it keeps while the status is the same."""
    kept = before is not None and before.status == status and before.last_transition_time
    return Condition(
        type=type_,
        status=status,
        reason=reason,
        message=one_line(message),
        last_transition_time=before.last_transition_time if before is not None and kept else timestamp(now),
        observed_generation=observed_generation,
    )


def times_of(leaf: x509.Certificate) -> Times:
    """To be replaced at two thirds of its life, and within the 10 minutes that kube-apiserver wants on both sides (KEP-4317)."""
    not_before, not_after = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    begin = not_before + (not_after - not_before) * 2 // 3
    begin = min(max(begin, not_before + REFRESH_MARGIN), not_after - REFRESH_MARGIN)
    return Times(not_before=not_before, begin_refresh_at=begin.replace(microsecond=0), not_after=not_after)


def as_json(condition: Condition) -> dict[str, Any]:
    """The condition as the API has it."""
    written: dict[str, Any] = {
        "type": condition.type,
        "status": condition.status,
        "reason": condition.reason,
        "message": condition.message,
        "lastTransitionTime": condition.last_transition_time,
    }
    if condition.observed_generation is not None:
        written["observedGeneration"] = condition.observed_generation
    return written


def says(condition: Condition | None, written: Condition) -> bool:
    """Whether `condition` tells a reader the same as `written`, so that writing it would be noise."""
    return condition is not None and _told(condition) == _told(written)


def without_incident(message: str) -> str:
    """What a message says of a fault of estserver, whichever one it is. A message that is told already stays, with the id of the first."""
    return _INCIDENT.sub("internal error", message)


def timestamp(now: datetime) -> str:
    """metav1.Time: RFC 3339 in UTC, whole seconds."""
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def one_line(text: str) -> str:
    """A message holds names that a tenant chose: nothing in it may steer a terminal, and it has an end."""
    line = printable(text).strip()
    return line if len(line) <= MAX_MESSAGE_CHARACTERS else line[: MAX_MESSAGE_CHARACTERS - 1] + "…"


def _less_than_asked(request: CertRequest, leaf: x509.Certificate, left_out: frozenset[str], asked_life: timedelta | None) -> str:
    """Clauses that follow ISSUED, or nothing."""
    told = ""
    if left_out:
        why = "a CA's certificate signs certificates and CRLs alone" if request.is_ca else "such a key cannot encipher (RFC 8813, RFC 8410)"
        told += f"; {' and '.join(sorted(left_out))} left out, for {why}"
    life = leaf.not_valid_after_utc - leaf.not_valid_before_utc
    if asked_life is not None and asked_life - life >= timedelta(seconds=1):
        end = timestamp(leaf.not_valid_after_utc)
        told += f"; it ends on {end}, sooner than asked for: none outlives the issuer's CA, and who is asked about it may give it less"
    return told


def _told(condition: Condition) -> tuple[str, str, str, int | None]:
    return condition.status, condition.reason, without_incident(condition.message), condition.observed_generation


def without_none(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Server-side apply takes an absent field as not ours."""
    return {name: value for name, value in fields.items() if value is not None}
