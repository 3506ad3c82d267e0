"""What the operator makes of an issuer: its object and what estserver says of it, judged into readiness and a status. Pure.

estserver holds the truth (`GET /est-issuer/v1/issuers`); an entry counts only for the same uid and generation. The operator
never looks at a CA Secret, and takes nothing from the issuer's own status but the fields to carry over in the next apply.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from estcore.errors import ConfigurationError, MalformedResponse
from estcore.issuer_spec import Approval, Policy
from estcore.label_selector import LabelSelector
from estoperator import chain, conditions
from estoperator.chain import Chain
from estoperator.resources import Issuer, IssuerRef

READY_REASON = "Checked"
UNAVAILABLE_REASON = "EstServerUnavailable"
REFUSED_REASON = "RegistrationAuthorityRefused"
REGISTERING_REASON = "RegistrationAuthorityStarting"
BEGINNING_REASONS = frozenset({"CAGenerating", REGISTERING_REASON})
"""Of a new issuer whose CA estserver is making, or to which the operator introduces itself: nothing is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Untold:
    """Why estserver tells nothing of any issuer, as their Ready condition says it."""

    status: str
    reason: str
    message: str


def unavailable(why: str) -> Untold:
    """Estserver does not answer."""
    return Untold(status="Unknown", reason=UNAVAILABLE_REASON, message=f"estserver does not answer: {why}")


def refused(why: str) -> Untold:
    """Estserver answers, and not to us."""
    return Untold(
        status="False",
        reason=REFUSED_REASON,
        message=f"estserver does not let the operator be registration authority (its setting ra_service_accounts): {why}",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What estserver says of one issuer. `ca` and `est` are status.ca and status.est as we publish them."""

    ref: IssuerRef
    uid: str
    generation: int
    ready: bool
    reason: str
    message: str
    label: str | None
    ca: Mapping[str, str] | None = field(repr=False)
    est: Mapping[str, str] | None
    chains: tuple[Chain, ...] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerState:
    """An issuer as requests see it. Where `ready` is true, `policy` and `chains` are there."""

    ref: IssuerRef
    ready: bool
    message: str
    """Why it is not ready: a clause that can follow a colon."""

    policy: Policy | None = field(default=None, repr=False)
    label: str | None = None
    chains: tuple[Chain, ...] = field(default=(), repr=False)
    ready_since: datetime | None = None
    allowed_namespaces: LabelSelector | None = field(default=None, repr=False)
    """Of an EstClusterIssuer."""

    approval: Approval = Approval.AUTOMATIC
    approval_within: timedelta = timedelta(hours=168)


def read_facts(entry: object) -> Facts:
    """One entry of estserver's list; raises MalformedResponse."""
    if not isinstance(entry, dict):
        raise MalformedResponse("estserver's list of issuers holds something that is not an issuer")
    try:
        ca, bundle = entry.get("ca"), entry.get("caBundle")
        known = chain.chains(bundle.encode("ascii")) if bundle else ()
        label, url = entry["label"], entry.get("url")
        return Facts(
            ref=IssuerRef(entry["kind"], entry["namespace"], entry["name"]),
            uid=entry["uid"],
            generation=entry["generation"],
            ready=entry["state"] == "Ready" and bool(known),
            reason=entry["reason"],
            message=entry["message"],
            label=label,
            ca=_published_ca(ca, bundle) if ca and bundle else None,
            est=conditions.without_none({"url": url, "label": label}) if label or url else None,
            chains=known,
        )
    except (KeyError, TypeError, AttributeError, ValueError, ConfigurationError) as error:
        raise MalformedResponse(f"estserver's list of issuers cannot be read: {type(error).__name__} {error}") from error


def state(issuer: Issuer, facts: Facts | None, *, untold: Untold | None, ready_since: datetime | None) -> IssuerState:
    """The issuer for the requests that name it. `untold` says why estserver has told nothing for long, else None."""
    ready, _, message = _judge(issuer, facts, untold=untold)
    if ready != "True" or issuer.spec is None or facts is None:
        return IssuerState(ref=issuer.ref, ready=False, message=message)
    return IssuerState(
        ref=issuer.ref,
        ready=True,
        message=message,
        policy=issuer.spec.policy,
        label=facts.label,
        chains=facts.chains,
        ready_since=ready_since,
        allowed_namespaces=issuer.spec.allowed_namespaces,
        approval=issuer.spec.est.approval,
        approval_within=issuer.spec.est.approval_within,
    )


def status(issuer: Issuer, facts: Facts | None, *, untold: Untold | None, settled: bool, now: datetime) -> dict[str, Any] | None:
    """The status to write, every field that we own, or None while what is there may stay.

    `settled` is false for some seconds after a change of the spec: estserver is about to read it, and the condition that is there
    says by its observedGeneration that it is of the spec before.
    """
    verdict, reason, message = _judge(issuer, facts, untold=untold)
    if reason == "Pending" and not settled:
        return None
    ready = conditions.ready_condition(
        issuer.ready, status=verdict, reason=reason, message=message, now=now, observed_generation=issuer.generation
    )
    # estserver away, or not there yet, is no reason to take back what was published: each apply drops what it does not carry.
    ca, est = (facts.ca, facts.est) if facts is not None else (issuer.status.get("ca"), issuer.status.get("est"))
    published = conditions.without_none({"ca": ca, "est": est})
    kept = {name: issuer.status[name] for name in ("ca", "est") if name in issuer.status}
    if conditions.says(issuer.ready, ready) and kept == published:
        return None
    return {"conditions": [conditions.as_json(ready)], **published}


def _judge(issuer: Issuer, facts: Facts | None, *, untold: Untold | None) -> tuple[str, str, str]:
    """Status, reason and message of Ready."""
    if issuer.spec is None:
        return "False", "InvalidSpec", issuer.problem
    if untold is not None:
        return untold.status, untold.reason, untold.message
    if facts is None or facts.uid != issuer.uid or facts.generation != issuer.generation:
        return "False", "Pending", f"estserver has not read generation {issuer.generation} of this issuer yet"
    if facts.ready:
        return "True", READY_REASON, facts.message or "Succeeded checking the issuer"
    return "False", facts.reason, facts.message


def _published_ca(ca: Mapping[str, str], bundle: str) -> dict[str, str]:
    return {
        "subject": ca["subject"],
        "notAfter": ca["notAfter"],
        "sha256": ca["sha256"],
        "phase": ca.get("phase", "Active"),
        "bundle": bundle,
    }
