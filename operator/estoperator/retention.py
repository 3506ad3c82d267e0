"""Removes finished CertificateRequests of est-issuer.io when their time is over (spec.ttlSecondsAfterFinished).

Only of this group: cert-manager removes its own. Those that came by EST are estserver's. When one is due is known from the watch, so
nothing is listed for it; before it is deleted it is read again, and deleted only as the version that was read.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import structlog

from estoperator.doors import EST_ISSUER, ORIGIN_EST
from estoperator.kubernetes_errors import Gone, Stale
from estoperator.metrics import Metrics
from estoperator.resources import Object, RequestKey
from estoperator.workqueue import WorkQueue

log = structlog.get_logger(__name__)

DEFAULT_SECONDS = 86400
"""Not a default of the CRD: estserver holds what it shows of EST requests against what it wrote, to the field."""


class RetentionApi(Protocol):
    """What this module needs of Kubernetes; raises kubernetes_errors."""

    async def call(
        self, method: str, path: str, *, query: list[tuple[str, str]] | None = None, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """One JSON request."""
        ...


class Retention:
    """Belongs to one event loop. `now` is the clock: aware, UTC."""

    def __init__(self, *, api: RetentionApi, queue: WorkQueue[RequestKey], metrics: Metrics, now: Callable[[], datetime]) -> None:
        self._api, self._metrics, self._now = api, metrics, now
        self.queue = queue

    def observe(self, body: Object, *, deleted: bool) -> None:
        """A request was made, changed or deleted."""
        key = RequestKey(EST_ISSUER.door, body["metadata"]["namespace"], body["metadata"]["name"])
        due = None if deleted else due_at(body)
        if due is None:
            self.queue.forget(key)
        else:
            self.queue.add_after(key, (due - self._now()).total_seconds())

    async def work(self, key: RequestKey) -> None:
        """Delete the request if it is due, as it is now. Raises what Kubernetes raised, but for Gone."""
        path = f"/apis/{EST_ISSUER.group}/{EST_ISSUER.version}/namespaces/{key.namespace}/{EST_ISSUER.plural}/{key.name}"
        try:
            body = await self._api.call("GET", path)
            due = due_at(body)
            if due is not None and due <= self._now():
                preconditions = {name: body["metadata"][name] for name in ("uid", "resourceVersion")}
                await self._api.call("DELETE", path, body={"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": preconditions})
                self._metrics.removed.inc()
                log.info("request_removed", request=str(key), uid=body["metadata"]["uid"])
                due = None
        except Gone:
            due = None
        except Stale:
            self.queue.retry(key)
            return
        self.queue.forget(key)
        if due is not None:
            self.queue.add_after(key, (due - self._now()).total_seconds())


def due_at(body: Object) -> datetime | None:
    """When a request is to be removed; None for one that is not finished, is estserver's, or goes already."""
    spec, status = body["spec"], body.get("status") or {}
    if spec.get("origin") == ORIGIN_EST or "deletionTimestamp" in body["metadata"]:
        return None
    finished = _finished_at(status)
    if finished is None:
        return None
    life = timedelta(seconds=spec.get("ttlSecondsAfterFinished", DEFAULT_SECONDS))
    try:
        return datetime.fromisoformat(finished).astimezone(UTC) + life
    except (ValueError, OverflowError):  # it does not say, or a time that there is not: the schema lets 23:59:60 pass, and the year 0
        return datetime.fromisoformat(body["metadata"]["creationTimestamp"]) + life


def _finished_at(status: Object) -> str | None:
    """When a request was finished, RFC 3339; empty where it is and does not say when; None where it is not."""
    conditions = {condition["type"]: condition for condition in status.get("conditions") or ()}
    ready, invalid = conditions.get("Ready") or {}, conditions.get("InvalidRequest") or {}
    if status.get("failureTime"):
        return str(status["failureTime"])
    if status.get("certificate") or ready.get("status") == "True" or ready.get("reason") in {"Failed", "Denied"}:
        return str(ready.get("lastTransitionTime") or "")
    return str(invalid.get("lastTransitionTime") or "") if invalid.get("status") == "True" else None
