"""Publishes the issuers' trust while this replica leads.

Every turn is level-triggered: what is there is listed by our label, and the difference to what should be is written. A turn comes with
every change, so a CA's new certificate is out within seconds; and every minute, so that somebody's edit is undone and what belongs to an
issuer that is gone is swept. A kind that RBAC or the API server does not have is off, with a log line and a metric, and asked for again
with every sweep.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Protocol

import structlog

from estoperator import trust
from estoperator.doors import GROUP, ISSUER_PLURALS, VERSION
from estoperator.events import Event
from estoperator.issuer_state import Facts
from estoperator.kubernetes_errors import Gone, KubernetesError, Stale
from estoperator.metrics import Metrics
from estoperator.pages import uids
from estoperator.resources import Issuer, Object
from estoperator.trust import Plan, Trust
from estoperator.trust_kinds import Kind, TrustApi
from estoperator.trust_news import Missing, TrustNews

log = structlog.get_logger(__name__)

TURN_SECONDS = 1.0
SWEEP_SECONDS = 60.0
RETRY_SECONDS = 5.0
"""How soon something that failed is tried again."""


class TrustSource(Protocol):
    """The issuers, as issuers.Issuers knows them."""

    def trusts(self) -> dict[str, Trust]:
        """What each gives out, by uid; those of which estserver has told no CA are not in it."""
        ...

    def has_uid(self, uid: str) -> bool:
        """Whether Kubernetes has an issuer with this uid, as far as the watch has told."""
        ...


class IssuerFacts(Protocol):
    """What this module needs of issuers.Issuers."""

    def known_facts(self) -> Iterator[tuple[Issuer, Facts]]:
        """Each issuer of which estserver says what its CA is."""
        ...

    def has_uid(self, uid: str) -> bool:
        """Whether the watch has told of an issuer with this uid."""
        ...


class IssuerTrusts:
    """The TrustSource: what estserver says, worked out once for each answer, and again after a while because certificates expire."""

    def __init__(self, issuers: IssuerFacts, *, now: Callable[[], datetime]) -> None:
        self._issuers, self._now = issuers, now
        self._made: dict[str, tuple[Facts, datetime, str]] = {}

    def trusts(self) -> dict[str, Trust]:
        """What each gives out, by uid. Of one whose spec does not parse nothing is known, so that what it has out stays."""
        made: dict[str, tuple[Facts, datetime, str]] = {}
        trusts: dict[str, Trust] = {}
        now = self._now()
        for issuer, facts in self._issuers.known_facts():
            known, at, pem = self._made.get(issuer.uid, (None, now, ""))
            if known is not facts or now - at >= timedelta(seconds=SWEEP_SECONDS):
                at, pem = now, trust.anchors_pem(facts.chains, now=now)
            made[issuer.uid] = facts, at, pem
            if pem and issuer.spec is not None:
                trusts[issuer.uid] = Trust(
                    ref=issuer.ref,
                    uid=issuer.uid,
                    anchors_pem=pem,
                    config_map=issuer.spec.trust.config_map,
                    max_life=issuer.spec.policy.duration.max,
                )
        self._made = made
        return trusts

    def has_uid(self, uid: str) -> bool:
        """Whether there is an issuer with this uid."""
        return self._issuers.has_uid(uid)


class Publisher:
    """Keeps one kind. Belongs to one event loop; `clock` gives monotonic seconds, `tell` posts an Event."""

    def __init__(
        self,
        *,
        kind: Kind,
        api: TrustApi,
        source: TrustSource,
        metrics: Metrics,
        clock: Callable[[], float],
        tell: Callable[[Event], None],
    ) -> None:
        self._kind, self._api, self._source, self._metrics, self._clock = kind, api, source, metrics, clock
        self._news = TrustNews(kind.name, tell)
        self._missing: dict[Missing, str] = {}
        self._done: dict[str, Trust] | None = None
        self._next_at = float("-inf")
        self._off: str | None = None
        self._failures = 0

    async def turn_or_rest(self, *, leads: bool) -> None:
        """A turn while this replica leads. Raises nothing: no error, of ours or another's, ends the publishing."""
        if not leads:
            self._done, self._next_at = None, float("-inf")  # who leads next begins with a sweep
            return
        try:
            await self.turn()
        except Exception:
            self._metrics.errors.labels("trust", "Internal").inc()
            log.exception("internal_error", work="trust", kind=self._kind.name)
            self._done, self._next_at = None, self._clock() + RETRY_SECONDS

    async def turn(self) -> None:
        """Bring the API server up to date, if something changed or it is time to look. Raises no KubernetesError."""
        trusts = self._source.trusts()
        due = self._clock() >= self._next_at
        if not due and (self._off is not None or self._done is None or trusts == self._done):
            return
        try:
            listed = await self._kind.listed()
            wanted = await self._kind.wanted(trusts.values(), listed)
        except KubernetesError as error:
            if error.http_status == 403:  # a fault that passes says nothing of what is missing
                self._news.say(self._kind.missing, trusts)
            self._failed(error)
            return
        self._missing = dict(self._kind.missing)
        plan = trust.plan(listed, wanted, known_uids=self._source.has_uid, settled_uids=frozenset(trusts))
        try:
            complete = await self._carry_out(plan)
        except KubernetesError as error:
            self._failed(error)
            return
        self._news.say(self._missing, trusts)
        self._switch(None)
        self._done = trusts  # what could not be done waits for its time, other changes do not wait for it
        self._failures = 0 if complete else self._failures + 1
        self._next_at = self._clock() + (SWEEP_SECONDS if complete else self._backoff())

    async def _carry_out(self, plan: Plan) -> bool:
        """Whether all of it was done; one object that fails keeps no other. Raises KubernetesError 403 where we may not."""
        orphans = await self._certain(plan.orphans)
        steps = [
            *(("create", "POST", body) for body in plan.create),
            *(("replace", "PUT", body) for body in plan.replace),
            *(("remove", "DELETE", body) for body in (*plan.remove, *orphans)),
        ]
        return all([await self._step(result, method, body) for result, method, body in steps]) and len(orphans) == len(plan.orphans)

    async def _step(self, result: str, method: str, body: Object) -> bool:
        at = trust.place(body)
        collection, sent = trust.collection_in(self._kind.collection, at.namespace), body
        path = collection if method == "POST" else f"{collection}/{at.name}"
        if method == "DELETE":
            preconditions = {"uid": body["metadata"]["uid"], "resourceVersion": body["metadata"]["resourceVersion"]}
            sent = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": preconditions}
        try:
            await self._api.call(method, path, body=sent)
        except Gone:
            return method == "DELETE"
        except KubernetesError as error:
            # Every ServiceAccount may read bundles, so the list has not told. In a namespace it is that one's affair: a quota that is
            # used up, a policy, its end.
            if error.http_status == 403 and not at.namespace:
                raise
            self._metrics.errors.labels("trust", error.reason).inc()
            taken = isinstance(error, Stale) and method == "POST"
            said = "an object of this name is there, and not ours; it is left as it is" if taken else error.message
            self._missing[Missing(body["metadata"]["labels"][trust.UID_LABEL], str(at))] = said
            return taken  # somebody has to act first, so the next sweep is soon enough
        self._metrics.trust_written.labels(self._kind.name, result).inc()
        log.info("trust_published", kind=self._kind.name, object=str(at), step=result)
        return True

    async def _certain(self, orphans: tuple[Object, ...]) -> tuple[Object, ...]:
        """Those whose issuer the API server does not have either; none where it cannot be asked."""
        if not orphans:
            return ()
        try:
            there = [await uids(self._api, f"/apis/{GROUP}/{VERSION}/{plural}") for plural in ISSUER_PLURALS.values()]
            known = frozenset().union(*there)
        except KubernetesError as error:
            log.warning("trust_not_swept", kind=self._kind.name, error=error.message)
            return ()
        return tuple(body for body in orphans if body["metadata"]["labels"][trust.UID_LABEL] not in known)

    def _failed(self, error: KubernetesError) -> None:
        self._done = None
        if error.http_status == 404:
            self._switch("the API server does not have this kind")
        elif error.http_status == 403:
            self._switch(f"the operator's ServiceAccount may not: {error.message}")
        else:
            self._metrics.errors.labels("trust", error.reason).inc()
            log.warning("trust_not_published", kind=self._kind.name, error=error.message)
            self._failures += 1
            self._next_at = self._clock() + self._backoff()
            return
        self._next_at = self._clock() + SWEEP_SECONDS

    def _backoff(self) -> float:
        """An object that nobody can write, such as a ConfigMap that its namespace made immutable, is tried as often as all is looked at."""
        return min(RETRY_SECONDS * 2.0 ** min(self._failures - 1, 8), SWEEP_SECONDS)

    def _switch(self, off: str | None) -> None:
        """Say on and off, each once."""
        self._metrics.trust_open.labels(self._kind.name).set(0 if off else 1)
        if off is not None and self._off is None:
            log.warning("trust_off", kind=self._kind.name, reason=off)
        elif off is None and self._off is not None:
            log.info("trust_on", kind=self._kind.name)
        self._off = off


async def publish(publishers: Sequence[Publisher], leads: Callable[[], bool], sleep: Callable[[float], Awaitable[None]]) -> None:
    """Take turns until cancelled, one kind after another: ConfigMaps follow what the bundles say."""
    while True:
        for publisher in publishers:
            await publisher.turn_or_rest(leads=leads())
        await sleep(TURN_SECONDS)
