"""Every kopf handler; each delegates in one call.

Only `on.event` and `index`: they write no annotation and no finalizer, so an object can be deleted while the operator is gone. kopf
forgets an event whose handler failed, so handlers only note what came and put a key into our own queue. The indices of the issuers
are complete before the first request's event arrives: no request is Pending because its issuer was not listed yet.
"""

from collections.abc import Iterable
from typing import Any

import kopf
import structlog

from estoperator import object_reader
from estoperator.doors import EST_ISSUER, GROUP, ISSUER_PLURALS, VERSION, KubernetesDoor
from estoperator.issuers import Issuers
from estoperator.namespaces import Namespace, Namespaces
from estoperator.open_requests import OpenRequests
from estoperator.resources import Issuer, IssuerRef, RequestKey
from estoperator.retention import Retention
from estoperator.workqueue import WorkQueue

log = structlog.get_logger(__name__)


def register(
    registry: kopf.OperatorRegistry,
    doors: Iterable[KubernetesDoor],
    *,
    issuers: Issuers,
    open_requests: OpenRequests,
    queue: WorkQueue[RequestKey],
    retention: Retention,
) -> None:
    """Watch the issuers and the given doors; of est-issuer.io's also when they are to be removed."""
    for kind, plural in ISSUER_PLURALS.items():
        _register_issuers(registry, kind, plural, issuers)
    for door in doors:
        _register_requests(registry, door, open_requests, queue, retention)


def register_namespaces(
    registry: kopf.OperatorRegistry, namespaces: Namespaces, *, open_requests: OpenRequests, queue: WorkQueue[RequestKey]
) -> None:
    """Watch the labels of the namespaces."""

    @kopf.index("", "v1", "namespaces", id="namespaces", registry=registry)
    async def _index(body: kopf.Body, **_: Any) -> dict[str, Namespace]:
        metadata = body["metadata"]
        return {metadata["name"]: Namespace(metadata["uid"], dict(metadata.get("labels") or {}))}

    @kopf.on.event("", "v1", "namespaces", id="on_namespaces", registry=registry)
    async def _on_namespace(event: kopf.RawEvent, **_: Any) -> None:
        for key in open_requests.of_namespace(event["object"]["metadata"]["name"]):
            queue.add(key)

    @kopf.on.startup(id="attach_namespaces", registry=registry)
    async def _attach(**indices: Any) -> None:
        namespaces.attach(indices["namespaces"])


def on_request(door: KubernetesDoor, event: kopf.RawEvent, open_requests: OpenRequests, queue: WorkQueue[RequestKey]) -> None:
    """A request was made, changed or deleted."""
    body = event["object"]
    request = object_reader.read_request(door, body)
    if request is None or request.finished or event["type"] == "DELETED":
        metadata = body["metadata"]
        key = RequestKey(door.door, metadata.get("namespace", ""), metadata["name"])
        known = open_requests.get(key)
        # kopf keeps the order within one uid only: another object of the same name may have come before this one's end.
        if known is not None and known.uid == metadata["uid"]:
            open_requests.forget(key)
            queue.forget(key)
    elif open_requests.observe(request):
        queue.add(request.key)


def _register_requests(
    registry: kopf.OperatorRegistry,
    door: KubernetesDoor,
    open_requests: OpenRequests,
    queue: WorkQueue[RequestKey],
    retention: Retention,
) -> None:
    # One handler, for kopf's own work for each is as much as what ours does.
    @kopf.on.event(door.group, door.version, door.plural, id=f"on_request_{door.door}", registry=registry)
    async def _on_request(event: kopf.RawEvent, **_: Any) -> None:
        on_request(door, event, open_requests, queue)
        if door.door is EST_ISSUER.door:
            retention.observe(event["object"], deleted=event["type"] == "DELETED")


def _register_issuers(registry: kopf.OperatorRegistry, kind: str, plural: str, issuers: Issuers) -> None:
    @kopf.index(GROUP, VERSION, plural, id=plural, registry=registry)
    async def _index(body: kopf.Body, **_: Any) -> dict[IssuerRef, Issuer]:
        issuer = object_reader.read_issuer(kind, body)
        return {issuer.ref: issuer}

    @kopf.on.event(GROUP, VERSION, plural, id=f"on_{plural}", registry=registry)
    async def _on_issuer(event: kopf.RawEvent, **_: Any) -> None:
        issuers.changed(object_reader.read_issuer(kind, event["object"]).ref)

    @kopf.on.startup(id=f"attach_{plural}", registry=registry)
    async def _attach(**indices: Any) -> None:
        issuers.attach(indices[plural])
