"""Says what of an issuer's trust is not as it should be, by an Event on that issuer and in the log: once for as long as it is so."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import structlog

from estoperator.events import Event, issuer_subject
from estoperator.trust import Trust

log = structlog.get_logger(__name__)


class Missing(NamedTuple):
    """An object that is not out, or still out, against what it should be: the uid of its issuer, and where it is or would be."""

    uid: str
    at: str


class TrustNews:
    """Of one kind of object. Belongs to one event loop."""

    def __init__(self, kind: str, tell: Callable[[Event], None]) -> None:
        self._kind, self._tell = kind, tell
        self._told: dict[Missing, str] = {}

    def say(self, missing: Mapping[Missing, str], trusts: Mapping[str, Trust]) -> None:
        """`missing` is all that is missing now, each with a sentence on why; `trusts` has the issuers that there are, by uid."""
        for one, why in missing.items():
            if self._told.get(one) == why:
                continue
            owner = trusts.get(one.uid)
            log.warning("trust_not_published", kind=self._kind, object=one.at, issuer=str(owner.ref) if owner else one.uid, error=why)
            if owner is not None:
                subject, note = issuer_subject(owner.ref, one.uid), f"{self._kind} {one.at}: {why}"
                self._tell(Event(subject=subject, reason="TrustNotPublished", note=note, warning=True, action="Publish"))
        self._told = dict(missing)
