"""Requests that wait, shown in the cluster as CertificateRequests of est-issuer.io with `spec.origin: EST`.

The row in the ledger is the request. The object is how people see it with kubectl and decide: estserver reads its Approved or Denied
condition and nothing else, and never writes a status. The chart's ValidatingAdmissionPolicy says who may set the conditions. The object
goes when its request was issued, or its time is over; until then a denied one stays to be seen. Deleting a waiting one decides nothing:
it is made anew.
"""

import asyncio
import base64
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from datetime import datetime
from typing import Any, Final

import orjson
import structlog
from cachetools import LRUCache

from estcore import transfer
from estserver.held_requests import HeldRequest, HeldRequests, State, UndecidableRequest, shown_names
from estserver.kubernetes_api import ApiError, KubernetesApi, Object
from estserver.reflector import Reflector

GROUP: Final = "est-issuer.io"
ORIGIN: Final = "EST"
PREFIX: Final = "est-"
"""Of the objects' names; the request's id follows, so every replica makes the same object."""
DECIDED_BY: Final = "kubernetes"
PAUSE_SECONDS: Final = 30.0
"""After an error of the API, before it is asked again for that object, for any of that namespace, or at all."""
_API_IS_AWAY: Final = frozenset({0, 429})
"""No answer, or a wish to be asked less. Any other error may be that of one namespace: its quota, its admission webhook."""
MAX_FAILED: Final = 10_000
"""Objects, and namespaces, whose last error is remembered; of more those that failed first are tried at once."""
MAX_VALUES: Final = 64
MAX_VALUE: Final = 1024
_DECISIONS: Final[Sequence[tuple[str, State]]] = (("Denied", State.DENIED), ("Approved", State.APPROVED))
"""Denied first: where somebody managed to set both, it counts."""

log = structlog.get_logger("estserver")


class ApprovalObjects:
    """The objects of all issuers. `namespace`: where those of EstClusterIssuers are; `changed` is called when people did something."""

    def __init__(self, api: KubernetesApi, held: HeldRequests, *, namespace: str, changed: Callable[[], None]) -> None:
        self._api = api
        self._held = held
        self._namespace = namespace
        self._paused_until = 0.0
        # Request id → loop time: one that cannot be made or deleted holds up no other; likewise of namespaces.
        self._not_before: MutableMapping[str, float] = LRUCache(MAX_FAILED)
        self._namespace_not_before: MutableMapping[str, float] = LRUCache(MAX_FAILED)
        self._reflector = Reflector(
            api, f"/apis/{GROUP}/v1alpha1/certificaterequests", field_selector=f"spec.origin={ORIGIN}", changed=changed, keep=_keep
        )

    async def watch(self) -> None:
        """Until cancelled."""
        await self._reflector.run()

    async def show(self, waiting: Sequence[HeldRequest], *, now: datetime) -> None:
        """Make the objects of these requests, take over what people decided, delete those whose request is over.

        Raises LedgerUnavailable. While the API does not answer nothing changes.
        """
        if not self._reflector.synced or self._reflector.problem is not None:
            return
        objects = dict(self._reflector.objects)
        wanted = {key(request, self._namespace): request for request in waiting}
        for at in wanted.keys() & objects.keys():
            await self._take_over(wanted[at], objects[at], now)
        if _now() < self._paused_until:
            return
        await self._make_all([request for at, request in wanted.items() if at not in objects])
        await self._delete({at: objects[at] for at in objects.keys() - wanted.keys()}, now)

    async def _take_over(self, request: HeldRequest, found: Object, now: datetime) -> None:
        """What people decided about this very request: an object that says anything else than its row is none of ours."""
        state, reason = _decision(found)
        if state is None:
            return
        if found["spec"] != manifest(request, self._namespace)["spec"]:
            log.warning("a CertificateRequest is not what estserver wrote, so its conditions do not count", request=request.id)
            return
        try:
            await self._held.decide(request.id, state, by=DECIDED_BY, reason=reason, now=now)
        except UndecidableRequest:
            return  # another replica was sooner, or it expired

    async def _make_all(self, requests: Sequence[HeldRequest]) -> None:
        """One namespace after the other, those last where it failed last: a webhook of one that is down hides no other's requests."""
        by_namespace: dict[str, list[HeldRequest]] = {}
        for request in requests:
            by_namespace.setdefault(key(request, self._namespace)[0], []).append(request)
        for namespace in sorted(by_namespace, key=lambda name: self._namespace_not_before.get(name, 0.0)):
            if _now() < self._namespace_not_before.get(namespace, 0.0):
                continue
            try:
                for request in by_namespace[namespace]:
                    await self._make(request, namespace)
            except ApiError as error:
                self._namespace_not_before[namespace] = _now() + PAUSE_SECONDS
                log.warning("requests that wait cannot be shown in the cluster", namespace=namespace, error=str(error))
                if error.status in _API_IS_AWAY:
                    self._paused_until = _now() + PAUSE_SECONDS
                    return

    async def _make(self, request: HeldRequest, namespace: str) -> None:
        if _now() < self._not_before.get(request.id, 0.0):
            return
        try:
            await self._api.create(_path(namespace), manifest(request, self._namespace))
            self._not_before.pop(request.id, None)
        except ApiError as error:
            if not 400 <= error.status < 500 or error.status in _API_IS_AWAY:
                raise
            if not error.conflict:  # another replica's is as good
                log.warning("a request that waits cannot be shown in the cluster", request=request.id, error=str(error))
                self._not_before[request.id] = _now() + PAUSE_SECONDS

    async def _delete(self, objects: Mapping[tuple[str, str], Object], now: datetime) -> None:
        """Those whose request this ledger knows, and knows to be over; what it does not know may be another installation's."""
        ids = {name.removeprefix(PREFIX): (namespace, name) for namespace, name in objects if name.startswith(PREFIX)}
        over = await self._held.of(list(ids))
        for request in sorted(over, key=lambda one: self._not_before.get(one.id, 0.0)):  # as namespaces above
            at = ids[request.id]
            if at != key(request, self._namespace) or _now() < self._not_before.get(request.id, 0.0):
                continue
            if request.state in {State.ISSUED, State.EXPIRED} or now >= request.expires_at:
                try:
                    await self._api.delete(f"{_path(at[0])}/{at[1]}", uid=objects[at]["metadata"]["uid"])
                except ApiError as error:
                    if error.not_found or error.conflict:
                        continue
                    log.warning("a request that is over is still shown in the cluster", request=request.id, error=str(error))
                    self._not_before[request.id] = _now() + PAUSE_SECONDS
                    if error.status in _API_IS_AWAY:
                        self._paused_until = _now() + PAUSE_SECONDS
                        return


def _now() -> float:
    """Loop time."""
    return asyncio.get_running_loop().time()


def key(request: HeldRequest, install_namespace: str) -> tuple[str, str]:
    """Namespace and name of its object: beside its EstIssuer; that of an EstClusterIssuer where we are installed."""
    _, *namespace, _ = request.issuer.split("/")
    return (namespace[0] if namespace else install_namespace), f"{PREFIX}{request.id}"


def manifest(request: HeldRequest, install_namespace: str) -> dict[str, Any]:
    """The object of a request."""
    namespace, name = key(request, install_namespace)
    kind, *_, issuer = request.issuer.split("/")
    requester = orjson.loads(request.requested_by)
    extra = {
        "operation": [request.operation],
        "names": [text[:MAX_VALUE] for text in _few(shown_names(request))],
        "key-sha256": [request.spki_sha256 or "made by the server"],
        "source": [request.source],
        "expires": [request.expires_at.isoformat()],
    }
    spec = {
        "origin": ORIGIN,
        # A CRMF message goes under the same label: nobody signs what is in an object.
        "request": base64.b64encode(transfer.encode_pem("CERTIFICATE REQUEST", request.csr_der)).decode(),
        "issuerRef": {"group": GROUP, "kind": kind, "name": issuer},
        "username": request.requester[:MAX_VALUE],
        "groups": requester["groups"],
        "extra": {f"{GROUP}/{name}": values for name, values in extra.items()},
        "usages": list(request.usages),
    }
    return {
        "apiVersion": f"{GROUP}/v1alpha1",
        "kind": "CertificateRequest",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app.kubernetes.io/managed-by": "est-issuer"}},
        "spec": {member: value for member, value in spec.items() if value != []},
    }


def _few(values: Sequence[str]) -> Sequence[str]:
    return values if len(values) <= MAX_VALUES else (*values[: MAX_VALUES - 1], f"and {len(values) - MAX_VALUES + 1} more")


def _decision(found: Object) -> tuple[State | None, str]:
    conditions = {condition["type"]: condition for condition in found["conditions"] if condition.get("status") == "True"}
    for type_, state in _DECISIONS:
        if type_ in conditions:
            condition = conditions[type_]
            return state, ": ".join(part for part in (condition.get("reason", ""), condition.get("message", "")) if part)
    return None, ""


def _keep(item: Object) -> Object:
    """Of the status the conditions; of the rest what says which object it is, and what it asks for."""
    metadata = item["metadata"]
    return {
        "metadata": {"namespace": metadata["namespace"], "name": metadata["name"], "uid": metadata["uid"]},
        "spec": item["spec"],
        "conditions": (item.get("status") or {}).get("conditions") or [],
    }


def _path(namespace: str) -> str:
    return f"/apis/{GROUP}/v1alpha1/namespaces/{namespace}/certificaterequests"
