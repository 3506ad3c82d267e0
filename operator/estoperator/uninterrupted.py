"""Since when an object of the API server has been what a guard needs it to be, by all that can be known of it.

The API server counts each change of a spec (metadata.generation), so two looks at the same generation, or at one and the next, saw all
there was. What happened before the first look is told by managedFields, with the time of each writer's last change. They tell nothing of
a writer who has taken back all that it had added: that is seen by an operator that ran meanwhile, and by no later one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from estoperator.resources import Object


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    uid: str
    generation: int
    scope: object
    since: datetime


class Uninterrupted:
    """What one guard has seen of one object. `now` is the clock."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._last: _Look | None = None
        self._looked = False

    def since(self, body: Object, scope: object = None) -> datetime:
        """Since when the object has been whole, which it is now; `scope` is what it covers, where that differs."""
        metadata = body["metadata"]
        uid, generation = metadata.get("uid", ""), metadata.get("generation", 0)
        last = self._last
        if last is not None and (last.uid, last.scope) == (uid, scope) and 0 <= generation - last.generation <= 1:
            since = last.since
        elif self._looked and generation != 1:
            since = max(last_change(metadata), self._now())
        else:
            since = last_change(metadata)
        self._last, self._looked = _Look(uid=uid, generation=generation, scope=scope, since=since), True
        return since

    def interrupted(self) -> None:
        """It was looked at, and is not whole."""
        self._last, self._looked = None, True


def last_change(metadata: Mapping[str, Any]) -> datetime:
    """When the spec of an object was changed last, as its metadata tell."""
    made = datetime.fromisoformat(metadata["creationTimestamp"])
    if metadata.get("generation") == 1:
        return made
    entries = [entry for entry in metadata.get("managedFields") or () if not entry.get("subresource") and not _keeps_ca_bundles(entry)]
    return max([made, *(datetime.fromisoformat(entry["time"]) for entry in entries if entry.get("time"))])


def _keeps_ca_bundles(entry: Object) -> bool:
    """Whether a writer has nothing of a webhook but its CA: cert-manager's cainjector renews that every few weeks."""
    owned = (entry.get("fieldsV1") or {}).get("f:webhooks") or {}
    webhooks = [fields for name, fields in owned.items() if name != "."]
    return bool(webhooks) and all(_owns_ca_bundle_alone(fields) for fields in webhooks)


def _owns_ca_bundle_alone(fields: Object) -> bool:
    return set(fields) - {".", "f:name"} == {"f:clientConfig"} and set(fields["f:clientConfig"]) - {"."} == {"f:caBundle"}
