"""The root of a CA that was replaced without a roll-over stays trusted until no certificate under it can live. Pure.

A roll-over (`rollover.crt`) says itself what is trusted, and what is taken out of it is withdrawn. A Secret that simply has another CA
says nothing, and every certificate under the old one would fail at once. So the bundle that was published before is asked: the root that
signed by then is kept for policy.duration.max, or to its own end where that comes first. Deleting the bundle forgets it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from estoperator.doors import GROUP

SIGNING_ANNOTATION = f"{GROUP}/signing-root"
"""SHA-256 of the trust anchor of what is signed now, hexadecimal."""

KEPT_ANNOTATION = f"{GROUP}/kept-roots"
"""JSON: until when each root is kept that is no longer the issuer's, RFC 3339 by SHA-256."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchors:
    """Trust anchors with what is kept, PEM, and the annotations by which the next version knows what to keep."""

    pem: str = field(repr=False)
    annotations: Mapping[str, str]


def keep(present_pem: str, before: Mapping[str, Any] | None, *, max_life: timedelta, now: datetime) -> Anchors:
    """The anchors to publish: the present ones, that of the signing CA first, and those of the bundle `before` that are kept.

    `max_life` is how long a certificate lives at most. `before` is None where there is no bundle of this issuer yet.
    """
    present = x509.load_pem_x509_certificates(present_pem.encode("ascii"))
    until: dict[str, datetime] = {}
    kept: list[x509.Certificate] = []
    for root in _roots(before):
        if root in present:
            continue
        end = _until(root, before, max_life=max_life, now=now)
        if end is not None and now < end:
            until[_sha256(root)] = end
            kept.append(root)
    annotations = {
        SIGNING_ANNOTATION: _sha256(present[0]),
        KEPT_ANNOTATION: json.dumps({digest: end.strftime("%Y-%m-%dT%H:%M:%SZ") for digest, end in sorted(until.items())}),
    }
    return Anchors(pem="".join(root.public_bytes(Encoding.PEM).decode("ascii") for root in (*present, *kept)), annotations=annotations)


def _until(root: x509.Certificate, before: Mapping[str, Any] | None, *, max_life: timedelta, now: datetime) -> datetime | None:
    """Until when a root that is no longer the issuer's is kept; None where it was withdrawn."""
    annotations = _annotations(before)
    digest = _sha256(root)
    try:
        return datetime.fromisoformat(json.loads(annotations[KEPT_ANNOTATION])[digest]).astimezone(UTC)
    except (KeyError, TypeError, ValueError):
        return min(now + max_life, root.not_valid_after_utc) if annotations.get(SIGNING_ANNOTATION) == digest else None


def _roots(before: Mapping[str, Any] | None) -> list[x509.Certificate]:
    """What the bundle holds; nothing where somebody made it unreadable."""
    try:
        return x509.load_pem_x509_certificates(before["spec"]["trustBundle"].encode("ascii")) if before is not None else []
    except (KeyError, ValueError):
        return []


def _annotations(before: Mapping[str, Any] | None) -> Mapping[str, Any]:
    return (before or {}).get("metadata", {}).get("annotations") or {}


def _sha256(certificate: x509.Certificate) -> str:
    return certificate.fingerprint(hashes.SHA256()).hex()
