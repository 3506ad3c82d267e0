"""The root of a CA that was replaced without a roll-over stays trusted until no certificate under it can live. Pure.

A roll-over (`rollover.crt`) says itself what is trusted, and what is taken out of it is withdrawn. A Secret that simply has another CA
says nothing, and every certificate under the old one would fail at once. So the bundle that was published before is asked: the root that
signed by then is kept for policy.duration.max, or to its own end where that comes first. A longer maximum of before counts for as long
as certificates of its time can live. Deleting the bundle forgets it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from estoperator.conditions import timestamp
from estoperator.doors import GROUP

SIGNING_ANNOTATION = f"{GROUP}/signing-root"
"""SHA-256 of the trust anchor of what is signed now, hexadecimal."""

SIGNED_LIFE_ANNOTATION = f"{GROUP}/signed-life"
"""How long what the signing root signs lives at most, in seconds: what policy.duration.max was when this was written."""

SIGNED_UNTIL_ANNOTATION = f"{GROUP}/signed-until"
"""When the last certificate ends that it signed while that maximum was longer, RFC 3339; empty where none outlives the present one."""

KEPT_ANNOTATION = f"{GROUP}/kept-roots"
"""JSON: until when each root is kept that is no longer the issuer's, RFC 3339 by SHA-256."""

LONGEST_LIFE = timedelta(days=100 * 366)
"""What policy.duration.max can be at most; nothing signed outlives it, whatever an annotation says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchors:
    """Trust anchors with what is kept, PEM, and the annotations by which the next version knows what to keep."""

    pem: str = field(repr=False)
    annotations: Mapping[str, str]


def keep(present_pem: str, before: Anchors | None, *, max_life: timedelta, now: datetime) -> Anchors:
    """The anchors to publish: the present ones, that of the signing CA first, and those of `before` that are kept.

    `max_life` is how long a certificate lives at most. `before` is what was published, as it is there: somebody may have changed it;
    None where nothing is.
    """
    present = x509.load_pem_x509_certificates(present_pem.encode("ascii"))
    before = before or Anchors(pem="", annotations={})
    until: dict[str, datetime] = {}
    kept: list[x509.Certificate] = []
    for root in _roots(before.pem):
        if root in present:
            continue
        end = _until(root, before.annotations, max_life=max_life, now=now)
        if end is not None and now < end:
            until[_sha256(root)] = end
            kept.append(root)
    annotations = {
        SIGNING_ANNOTATION: _sha256(present[0]),
        SIGNED_LIFE_ANNOTATION: str(int(max_life.total_seconds())),
        SIGNED_UNTIL_ANNOTATION: _outliving(_sha256(present[0]), before.annotations, max_life=max_life, now=now),
        KEPT_ANNOTATION: json.dumps({digest: timestamp(end) for digest, end in sorted(until.items())}),
    }
    return Anchors(pem="".join(root.public_bytes(Encoding.PEM).decode("ascii") for root in (*present, *kept)), annotations=annotations)


def _until(root: x509.Certificate, annotations: Mapping[str, str], *, max_life: timedelta, now: datetime) -> datetime | None:
    """Until when a root that is no longer the issuer's is kept; None where it was withdrawn."""
    digest = _sha256(root)
    try:
        return datetime.fromisoformat(json.loads(annotations[KEPT_ANNOTATION])[digest]).astimezone(UTC)
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
        if annotations.get(SIGNING_ANNOTATION) != digest:
            return None
        return min(max(now + max_life, _last_end(annotations, now=now)), root.not_valid_after_utc)


def _outliving(signing: str, annotations: Mapping[str, str], *, max_life: timedelta, now: datetime) -> str:
    """SIGNED_UNTIL of the next version; `signing` is the SHA-256 of the root that signs."""
    if annotations.get(SIGNING_ANNOTATION) != signing:
        return ""
    shortened = _life(annotations) > max_life
    end = _last_end(annotations, now=now) if shortened else _signed_until(annotations, now)
    return timestamp(end) if end > now + max_life else ""


def _last_end(annotations: Mapping[str, str], *, now: datetime) -> datetime:
    """When the last certificate ends that the signing root has signed by now, as far as the annotations say."""
    return max(now + _life(annotations), _signed_until(annotations, now))


def _life(annotations: Mapping[str, str]) -> timedelta:
    try:
        life = timedelta(seconds=int(annotations[SIGNED_LIFE_ANNOTATION]))
    except (KeyError, TypeError, ValueError, OverflowError):
        return timedelta(0)
    return life if timedelta(0) < life <= LONGEST_LIFE else timedelta(0)


def _signed_until(annotations: Mapping[str, str], now: datetime) -> datetime:
    try:
        return datetime.fromisoformat(annotations[SIGNED_UNTIL_ANNOTATION]).astimezone(UTC)
    except (KeyError, TypeError, ValueError, OverflowError):
        return now


def _roots(pem: str) -> list[x509.Certificate]:
    """Nothing where somebody made it unreadable."""
    try:
        return x509.load_pem_x509_certificates(pem.encode("ascii"))
    except ValueError:
        return []


def _sha256(certificate: x509.Certificate) -> str:
    return certificate.fingerprint(hashes.SHA256()).hex()
