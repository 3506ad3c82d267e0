"""The issuers: what Kubernetes holds of them and what estserver says, kept together, and their status written.

While this replica leads it asks estserver every two seconds for the list of issuers (an ETag makes it cheap). A change there or in
Kubernetes has the issuer's status judged again and its waiting requests decided again.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Protocol

import structlog

from estcore.errors import EstError, MalformedResponse, Refused
from estoperator import issuer_state
from estoperator.events import Event, Events, issuer_subject
from estoperator.issuer_state import Facts, IssuerState, Untold
from estoperator.kubernetes_errors import Gone, Stale
from estoperator.metrics import Metrics
from estoperator.open_requests import OpenRequests
from estoperator.registrations import Registrations
from estoperator.resources import Issuer, IssuerRef, RequestKey
from estoperator.workqueue import WorkQueue
from estoperator.youngest import youngest

log = structlog.get_logger(__name__)

SETTLE_SECONDS = 10.0
"""How long a change of an issuer may take to reach estserver before its condition says so."""

Index = Mapping[IssuerRef, Iterable[Issuer]]
"""kopf's index of the issuers."""


class IssuerApi(Protocol):
    """What this module needs of Kubernetes; raises kubernetes_errors."""

    async def apply_issuer_status(self, issuer: Issuer, status: Mapping[str, Any]) -> None:
        """Write an issuer's status."""
        ...


class IssuerSource(Protocol):
    """What this module needs of estserver; raises errors of the ClientError branch."""

    async def issuers(self) -> list[object] | None:
        """The entries of its list of issuers, None where nothing changed since the last answer."""
        ...

    def forget_issuers(self) -> None:
        """Have the next `issuers` answer in full."""
        ...


class Issuers:
    """Belongs to one event loop. `clock` gives monotonic seconds."""

    def __init__(
        self,
        *,
        api: IssuerApi,
        source: IssuerSource,
        registrations: Registrations,
        open_requests: OpenRequests,
        requests: WorkQueue[RequestKey],
        queue: WorkQueue[IssuerRef],
        metrics: Metrics,
        events: Events,
        unavailable_after: float,
        clock: Callable[[], float],
        now: Callable[[], datetime],
    ) -> None:
        self._api, self._source = api, source
        self._registrations = registrations
        self._open_requests, self._requests, self._queue = open_requests, requests, queue
        self._metrics, self._events = metrics, events
        self._unavailable_after = unavailable_after
        self._clock, self._now = clock, now
        self._indices: list[Index] = []
        self._told: dict[str, Facts] | None = None  # by estserver
        self._facts: dict[str, Facts] | None = None  # with what the operator finds
        self._ready_since: dict[str, datetime] = {}
        self._settling: dict[str, tuple[int, float]] = {}  # uid → generation that estserver has not read, and since when we know
        self._answered_at = clock()
        self._untold: Untold | None = None

    @property
    def known(self) -> bool:
        """Whether requests can be decided: estserver has answered, or has not for long enough to say so."""
        return self._facts is not None or self._untold is not None

    @property
    def settling(self) -> int:
        """How many issuers there are whose present generation estserver is yet to read."""
        return len(self._settling)

    def attach(self, index: Index) -> None:
        """Use kopf's index for one kind of issuer."""
        self._indices.append(index)

    def get(self, ref: IssuerRef) -> Issuer | None:
        """The issuer as Kubernetes has it."""
        for index in self._indices:
            if ref in index:
                return youngest(index[ref])
        return None

    def state(self, ref: IssuerRef) -> IssuerState | None:
        """The issuer as requests see it, None where there is none of that name."""
        issuer = self.get(ref)
        if issuer is None:
            return None
        facts = (self._facts or {}).get(issuer.uid)
        return issuer_state.state(issuer, facts, untold=self._untold, ready_since=self._ready_since.get(issuer.uid))

    def known_facts(self) -> Iterator[tuple[Issuer, Facts]]:
        """Each issuer with what estserver says of it, where that names a CA."""
        for issuer in self._all():
            facts = (self._facts or {}).get(issuer.uid)
            if facts is not None and facts.chains:
                yield issuer, facts

    def has_uid(self, uid: str) -> bool:
        """Whether the watch has told of an issuer with this uid."""
        return any(issuer.uid == uid for issuer in self._all())

    def uids(self, kind: str) -> frozenset[str]:
        """Of all of a kind that the watch has told of."""
        return frozenset(issuer.uid for issuer in self._all() if issuer.ref.kind == kind)

    def changed(self, ref: IssuerRef) -> None:
        """Kubernetes has another version of the issuer, or it is gone."""
        self._queue.add(ref)
        for key in self._open_requests.of_issuer(ref):
            self._requests.add(key)

    def start_over(self) -> None:
        """Forget what estserver said: this replica begins to lead, and will ask afresh."""
        self._told, self._facts, self._untold, self._answered_at = None, None, None, self._clock()
        self._source.forget_issuers()

    async def poll(self) -> None:
        """Ask estserver once and pass on what changed. Does not raise: estserver away is a state of the issuers."""
        try:
            entries = await self._source.issuers()
            if entries is not None:
                self._told = {fact.uid: fact for fact in map(issuer_state.read_facts, entries)}
            facts = None if self._told is None else await self._registrations.judge(self._told)
        except EstError as error:
            self._poll_failed(error)
            return
        except Exception:
            log.exception("issuer_poll")  # a fault of ours must not end the only loop that could recover
            self._poll_failed(MalformedResponse("internal error while reading its list of issuers"))
            return
        self._answered_at = self._clock()
        if self._untold is not None:
            log.info("estserver_answers_again")
            self._untold = None
            self._ready_since.clear()  # none was ready meanwhile
            self._all_changed()
        if facts is not None:
            self._take(facts)

    async def work(self, ref: IssuerRef) -> None:
        """Write the issuer's status where it should say something else. Raises what Kubernetes raised, but for Stale and Gone."""
        issuer = self.get(ref)
        if issuer is None or not self.known:
            return
        facts = (self._facts or {}).get(issuer.uid)
        settled = self._is_settled(issuer, facts)
        status = issuer_state.status(issuer, facts, untold=self._untold, settled=settled, now=self._now())
        if not settled:
            self._queue.add_after(ref, SETTLE_SECONDS)
        if status is None:
            return
        try:
            await self._api.apply_issuer_status(issuer, status)
        except (Stale, Gone):
            return  # the watch brings what is there now, and with it another turn
        self._queue.succeeded(ref)
        condition = status["conditions"][0]
        if issuer.ready is None or (issuer.ready.status, issuer.ready.reason) != (condition["status"], condition["reason"]):
            self._events.tell(_event(issuer, condition))
        log.info("issuer_status", issuer=str(ref), ready=condition["status"], reason=condition["reason"], message=condition["message"])

    def _poll_failed(self, error: EstError) -> None:
        self._metrics.poll_failures.labels(error.reason).inc()
        self._source.forget_issuers()  # or a list that makes no sense would pass for known, once it has not changed
        refused = isinstance(error, Refused) and error.http_status == 403
        if not refused and self._clock() - self._answered_at < self._unavailable_after:
            return
        if self._untold is None or refused != (self._untold.reason == issuer_state.REFUSED_REASON):
            log.warning("estserver_refuses" if refused else "estserver_unavailable", error=error.message)
            self._untold = (issuer_state.refused if refused else issuer_state.unavailable)(error.message)
            self._all_changed()

    def _take(self, facts: dict[str, Facts]) -> None:
        before, self._facts = self._facts, facts
        if self._settling:
            for uid in self._settling.keys() - {issuer.uid for issuer in self._all()}:
                del self._settling[uid]
        for uid, fact in facts.items():
            old = None if before is None else before.get(uid)
            if fact.ready and not (old is not None and old.ready and uid in self._ready_since):
                self._ready_since[uid] = self._now()
            if old != fact:
                self.changed(fact.ref)
        for uid, old in (before or {}).items():
            if uid not in facts:
                self._ready_since.pop(uid, None)
                self.changed(old.ref)
        if before is None:
            self._all_changed()

    def _all(self) -> Iterator[Issuer]:
        for index in self._indices:
            for ref in tuple(index):
                yield from tuple(index[ref])

    def _all_changed(self) -> None:
        for index in self._indices:
            for ref in tuple(index):
                self.changed(ref)

    def _is_settled(self, issuer: Issuer, facts: Facts | None) -> bool:
        """Whether estserver has read this generation, or has had long enough to."""
        if facts is not None and facts.generation == issuer.generation:
            self._settling.pop(issuer.uid, None)
            return True
        generation, since = self._settling.get(issuer.uid, (None, 0.0))
        if generation != issuer.generation:
            since = self._clock()
            self._settling[issuer.uid] = (issuer.generation, since)
        return self._clock() - since >= SETTLE_SECONDS


def _event(issuer: Issuer, condition: Mapping[str, Any]) -> Event:
    return Event(
        subject=issuer_subject(issuer.ref, issuer.uid),
        reason=condition["reason"],
        note=condition["message"],
        warning=condition["status"] != "True" and condition["reason"] not in issuer_state.BEGINNING_REASONS,
        action="Check",
    )
