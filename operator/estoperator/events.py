"""Kubernetes Events: what changed about a request or an issuer, for who looks at it with `kubectl describe`.

They are told when a status changes, never per attempt, and posted by one task from a bounded queue of their own: certificates never
wait for them, and while requests wait for a worker they wait, for the API server has one certificate the more to write in the time that
an Event takes. An Event's name is made of what it says, so that a restart or a second replica that says the same finds it there.
"""

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any, Protocol

import structlog

from estoperator.doors import GROUP, VERSION
from estoperator.kubernetes_errors import Gone, KubernetesError, Stale
from estoperator.metrics import Metrics
from estoperator.resources import IssuerRef

log = structlog.get_logger(__name__)

MAX_WAITING = 5000
"""Events not posted yet; what comes beyond is dropped, and counted."""

PATIENCE_SECONDS = 30.0
"""How long an Event lets requests go first."""

LOOK_SECONDS = 0.2
"""How often it looks whether they are through."""

MAX_NOTE_CHARACTERS = 1000
"""events.k8s.io/v1 takes notes of 1 KiB."""

MAX_NAME_CHARACTERS = 253
DIGEST_CHARACTERS = 16
RETRY_SECONDS = 2.0
_FOREIGN = re.compile(r"[^a-z0-9.-]+")
CONTROLLER = "est-issuer.io/operator"
CLUSTER_NAMESPACE = "default"
"""Where Events of objects without a namespace are."""

PASSING_STATUSES = frozenset({0, 429, 500, 502, 503, 504})
"""The API server could not be asked or could not answer: the same Event is posted again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The object that an Event is about; `namespace` is empty where it has none."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What is told. `reason` is one word in CamelCase; `action` what the operator was doing."""

    subject: Subject
    reason: str
    note: str
    warning: bool
    action: str


def issuer_subject(ref: IssuerRef, uid: str) -> Subject:
    """The issuer as an Event names it."""
    return Subject(api_version=f"{GROUP}/{VERSION}", kind=ref.kind, namespace=ref.namespace, name=ref.name, uid=uid)


class EventApi(Protocol):
    """What this module needs of Kubernetes; raises kubernetes_errors, Stale where the Event is there already."""

    async def create_event(self, namespace: str, body: Mapping[str, Any]) -> None:
        """Create an Event of events.k8s.io/v1."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Waiting:
    """`refused_at`: when it was forbidden, which an API server that is starting does with what it will permit.

    A namespace that is going forbids it too, so it goes to the end of the queue and holds up no other.
    """

    event: Event
    told_at: datetime
    refused_at: datetime | None = None


class Events:
    """The Events that wait to be posted. Belongs to one event loop; `instance` names this replica, `now` is aware.

    `pressed` says whether there is more urgent work.
    """

    def __init__(
        self,
        api: EventApi,
        *,
        instance: str,
        now: Callable[[], datetime],
        metrics: Metrics,
        pressed: Callable[[], bool] = lambda: False,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._api, self._instance, self._now, self._metrics, self._sleep = api, instance, now, metrics, sleep
        self._pressed = pressed
        self._waiting: asyncio.Queue[_Waiting] = asyncio.Queue(MAX_WAITING)

    def tell(self, event: Event) -> None:
        """Have the Event posted soon. Neither waits nor raises: an Event is news, the truth is in the status."""
        self._put(_Waiting(event=event, told_at=self._now()))

    async def run(self) -> None:
        """Post what is told, one after the other, until cancelled."""
        while True:
            waiting = await self._waiting.get()
            try:
                while self._pressed() and self._now() - waiting.told_at < timedelta(seconds=PATIENCE_SECONDS):
                    await self._sleep(LOOK_SECONDS)
                if waiting.refused_at is not None:
                    since = (self._now() - waiting.refused_at).total_seconds()
                    if 0 <= since < RETRY_SECONDS:
                        await self._sleep(RETRY_SECONDS - since)
                await self._post(waiting)
            finally:
                self._waiting.task_done()

    async def posted(self) -> None:
        """Return once nothing waits."""
        await self._waiting.join()

    def _put(self, waiting: "_Waiting") -> None:
        try:
            self._waiting.put_nowait(waiting)
        except asyncio.QueueFull:
            self._metrics.events.labels("dropped").inc()

    async def _post(self, waiting: "_Waiting") -> None:
        namespace = waiting.event.subject.namespace or CLUSTER_NAMESPACE
        body = event_body(waiting.event, namespace=namespace, instance=self._instance, now=waiting.told_at)
        while True:
            result = "posted"
            try:
                await self._api.create_event(namespace, body)
            except Stale:
                result = "known"
            except Gone:
                result = "gone"  # the namespace went
            except KubernetesError as error:
                if error.http_status in PASSING_STATUSES:
                    await self._sleep(RETRY_SECONDS)
                    continue
                if error.http_status == HTTPStatus.FORBIDDEN and waiting.refused_at is None:
                    self._put(replace(waiting, refused_at=self._now()))
                    return
                result = "refused"
                log.warning("event_refused", error=error.message, http_status=error.http_status)
            except Exception:
                result = "refused"
                log.exception("internal_error", work="event")
            self._metrics.events.labels(result).inc()
            return


def event_body(event: Event, *, namespace: str, instance: str, now: datetime) -> dict[str, Any]:
    """The Event as events.k8s.io/v1 has it; its name depends on subject, reason and note alone."""
    subject = event.subject
    said = f"{subject.uid} {event.reason} {event.note}"  # neither a uid nor a reason holds a space
    digest = hashlib.sha256(said.encode()).hexdigest()[:DIGEST_CHARACTERS]
    note = event.note if len(event.note.encode()) <= MAX_NOTE_CHARACTERS else _cut(event.note)
    regarding = {"apiVersion": subject.api_version, "kind": subject.kind, "name": subject.name, "uid": subject.uid}
    if subject.namespace:
        regarding["namespace"] = subject.namespace
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": f"{_stem(subject.name)}{digest}", "namespace": namespace},
        "eventTime": now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "type": "Warning" if event.warning else "Normal",
        "reason": event.reason,
        "note": note,
        "action": event.action,
        "regarding": regarding,
        "reportingController": CONTROLLER,
        "reportingInstance": instance[:128],
    }


def _stem(name: str) -> str:
    """What an Event's name may keep of its object's, and a dot: it is an RFC 1123 subdomain, a CertificateSigningRequest's is anything."""
    labels = (label.strip("-") for label in _FOREIGN.sub("-", name.lower()).split("."))
    stem = ".".join(filter(None, labels))[: MAX_NAME_CHARACTERS - DIGEST_CHARACTERS - 1].rstrip(".-")
    return f"{stem}." if stem else ""


def _cut(note: str) -> str:
    return note.encode()[: MAX_NOTE_CHARACTERS - 3].decode("utf-8", "ignore") + "…"
