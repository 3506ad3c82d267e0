"""The poll of estserver's issuers and what follows from it, with an estserver and an API server that a test scripts."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from estcore.errors import ClientError, EstError, Refused, ServerUnavailable
from estcore.spec_part import parse_duration
from estoperator import est_server, settings
from estoperator.issuers import SETTLE_SECONDS, Issuers
from estoperator.kubernetes_errors import KubernetesError, Stale
from estoperator.metrics import Metrics
from estoperator.open_requests import OpenRequests
from estoperator.registrations import RETRY_SECONDS, Registrations
from estoperator.resources import Issuer, IssuerRef, RequestKey
from estoperator.workqueue import WorkQueue
from tests.estoperator.builders import FACTORY, NOW, request_of
from tests.estoperator.test_issuer_state import entry, issuer
from tests.estoperator.test_issuing import Told
from tests.estoperator.test_settings import NEEDED
from tests.estoperator.test_workqueue import Clock

UNAVAILABLE_AFTER = 30.0


@dataclass
class Source:
    """estserver: its list, None for "as before", or an error."""

    answer: list[object] | EstError | None = None
    forgotten: int = 0

    async def issuers(self) -> list[object] | None:
        if isinstance(self.answer, EstError):
            raise self.answer
        return self.answer

    def forget_issuers(self) -> None:
        self.forgotten += 1


@dataclass
class Registrar:
    """The registration authority: it has no certificate, and gets one unless a test scripts an `error`."""

    error: ClientError | None = None
    usable: bool = False
    tries: int = 0

    def is_fresh(self, label: str | None, ca_sha256: str | None) -> bool:
        return self.usable

    def is_usable(self, label: str | None, ca_sha256: str | None) -> bool:
        return self.usable

    async def register(self, label: str | None, ca_sha256: str | None) -> None:
        self.tries += 1
        if self.error is not None:
            raise self.error
        self.usable = True

    def keep(self, labels: AbstractSet[str | None]) -> None:
        self.usable &= bool(labels)


@dataclass
class Api:
    written: list[Mapping[str, Any]] = field(default_factory=list)
    error: KubernetesError | None = None

    async def apply_issuer_status(self, issuer: Issuer, status: Mapping[str, Any]) -> None:
        if self.error is not None:
            raise self.error
        self.written.append(status)


@dataclass
class World:
    issuers: Issuers
    source: Source
    api: Api
    clock: Clock
    index: dict[IssuerRef, list[Issuer]]
    requests: WorkQueue[RequestKey]
    queue: WorkQueue[IssuerRef]
    open_requests: OpenRequests
    told: Told
    registrar: Registrar

    async def poll(self, answer: list[object] | EstError | None) -> None:
        self.source.answer = answer
        await self.issuers.poll()

    def is_ready(self) -> bool:
        state = self.issuers.state(FACTORY)
        assert state is not None
        return state.ready

    @property
    def last(self) -> tuple[str, str]:
        (condition,) = self.api.written[-1]["conditions"]
        return condition["status"], condition["reason"]


@pytest.fixture
def world() -> World:
    return world_of()


def world_of(*, unavailable_after: float = UNAVAILABLE_AFTER, source: Source | None = None) -> World:
    clock, source, api, open_requests, registrar = Clock(), source or Source(), Api(), OpenRequests(), Registrar()
    requests: WorkQueue[RequestKey] = WorkQueue(clock=clock, per_namespace=9)
    queue: WorkQueue[IssuerRef] = WorkQueue(clock=clock, per_namespace=9)
    issuers = Issuers(
        api=api,
        source=source,
        registrations=Registrations(registrar, clock=clock),
        open_requests=open_requests,
        requests=requests,
        queue=queue,
        metrics=Metrics(),
        events=(told := Told()),
        unavailable_after=unavailable_after,
        clock=clock,
        now=lambda: NOW + timedelta(seconds=clock.seconds - Clock().seconds),
    )
    index = {FACTORY: [issuer()]}
    issuers.attach(index)
    return World(issuers, source, api, clock, index, requests, queue, open_requests, told, registrar)


async def test_nothing_is_known_before_estserver_has_answered(world: World) -> None:
    assert not world.issuers.known
    await world.poll([])
    assert world.issuers.known


async def test_an_issuer_is_ready_once_estserver_lists_its_uid_and_generation(world: World) -> None:
    await world.poll([])
    assert not world.is_ready()
    await world.poll([entry()])
    assert world.is_ready()
    await world.issuers.work(FACTORY)
    assert world.last == ("True", "Checked")


async def test_an_answer_without_news_changes_nothing(world: World) -> None:
    await world.poll([entry()])
    world.queue.forget(FACTORY)
    await world.poll(None)
    assert world.is_ready()
    assert len(world.queue) == 0


@pytest.mark.spec("K8S-CONTRACT-09")
async def test_a_change_of_an_issuer_has_its_waiting_requests_decided_again(world: World) -> None:
    await world.poll([])
    waiting = request_of()
    world.open_requests.observe(waiting)
    world.requests.forget(waiting.key)
    await world.poll([entry()])
    assert len(world.requests) == 1


async def test_an_issuer_deleted_in_kubernetes_is_none(world: World) -> None:
    await world.poll([entry()])
    world.index.clear()
    assert world.issuers.state(FACTORY) is None
    await world.issuers.work(FACTORY)
    assert world.api.written == []


async def test_an_issuer_made_anew_under_the_same_name_is_not_the_one_estserver_knows(world: World) -> None:
    await world.poll([entry()])
    world.index[FACTORY] = [issuer(uid="u2", generation=2)]
    assert not world.is_ready()


async def test_a_changed_spec_is_not_ready_at_once_and_said_so_after_some_seconds(world: World) -> None:
    await world.poll([entry()])
    world.index[FACTORY] = [issuer(generation=3)]
    assert not world.is_ready()
    await world.issuers.work(FACTORY)
    assert world.api.written == []
    world.clock.seconds += SETTLE_SECONDS
    await world.issuers.work(FACTORY)
    assert world.last == ("False", "Pending")


async def test_estserver_away_for_a_moment_changes_nothing(world: World) -> None:
    await world.poll([entry()])
    world.clock.seconds += UNAVAILABLE_AFTER - 1
    await world.poll(ServerUnavailable("refused"))
    assert world.is_ready()


@pytest.mark.parametrize("poll", ["1s", "2s", "1m"])
async def test_with_the_shortest_silence_that_may_be_set_one_poll_that_fails_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, poll: str
) -> None:
    interval = parse_duration(poll)
    least = interval + timedelta(seconds=settings.POLL_SECONDS)
    for name, value in {**NEEDED, "EST_OPERATOR_POLL_INTERVAL": poll, "EST_OPERATOR_SERVER_UNAVAILABLE_AFTER": f"{least.seconds}s"}.items():
        monkeypatch.setenv(name, value)
    loaded = settings.load()
    world = world_of(unavailable_after=loaded.server_unavailable_after.total_seconds())
    await world.poll([entry()])
    world.clock.seconds += (loaded.poll_interval + est_server.TIMEOUT).total_seconds()
    await world.poll(ServerUnavailable("no answer within 15 s"))
    assert world.is_ready()


async def test_estserver_away_for_long_makes_every_issuer_unknown_until_it_answers(world: World) -> None:
    await world.poll([entry()])
    world.clock.seconds += UNAVAILABLE_AFTER
    await world.poll(ServerUnavailable("refused"))
    assert not world.is_ready()
    await world.issuers.work(FACTORY)
    assert world.last == ("Unknown", "EstServerUnavailable")
    await world.poll([entry()])
    assert world.is_ready()
    await world.issuers.work(FACTORY)
    assert world.last == ("True", "Checked")


@pytest.mark.spec("K8S-CONTRACT-12")
async def test_after_an_outage_of_estserver_an_issuer_is_ready_since_its_end(world: World) -> None:
    """So that what failed before it is tried again for the whole time."""
    await world.poll([entry()])
    world.clock.seconds += UNAVAILABLE_AFTER
    await world.poll(ServerUnavailable("refused"))
    world.clock.seconds += 3600
    await world.poll([entry()])
    state = world.issuers.state(FACTORY)
    assert state is not None
    assert state.ready_since == NOW + timedelta(seconds=UNAVAILABLE_AFTER + 3600)


async def test_a_list_that_makes_no_sense_is_as_good_as_no_answer(world: World) -> None:
    await world.poll([{"kind": "EstIssuer"}])
    assert not world.issuers.known


class Tagged(Source):
    """estserver as it is: a list that the operator has by its ETag is not sent again."""

    sent: bool = False

    async def issuers(self) -> list[object] | None:
        if self.sent:
            return None
        self.sent = True
        return await super().issuers()

    def forget_issuers(self) -> None:
        self.sent = False


async def test_a_list_that_makes_no_sense_is_no_answer_however_often_it_is_asked_for() -> None:
    world = world_of(source=Tagged())
    for _ in range(3):
        await world.poll([{"kind": "EstIssuer"}])
        assert not world.issuers.known
    world.clock.seconds += UNAVAILABLE_AFTER
    await world.poll([{"kind": "EstIssuer"}])
    await world.issuers.work(FACTORY)
    assert world.last == ("Unknown", "EstServerUnavailable")


async def test_a_new_leader_asks_for_everything_afresh(world: World) -> None:
    await world.poll([entry()])
    world.issuers.start_over()
    assert not world.issuers.known
    assert world.source.forgotten == 1


async def test_a_status_for_another_version_waits_for_the_watch(world: World) -> None:
    await world.poll([entry()])
    world.api.error = Stale("modified", http_status=409)
    await world.issuers.work(FACTORY)
    assert world.api.written == []


async def test_an_issuer_that_becomes_ready_or_stops_to_be_is_told_of_once_each(world: World) -> None:
    await world.poll([entry()])
    for _ in range(2):
        await world.issuers.work(FACTORY)
        world.index[FACTORY] = [issuer(status=dict(world.api.written[-1]))]  # as the watch brings it back
    await world.poll([entry(state="NotReady", reason="SecretMissing", message="there is no Secret factory-ca")])
    await world.issuers.work(FACTORY)
    assert [(event.reason, event.warning) for event in world.told.events] == [("Checked", False), ("SecretMissing", True)]
    assert world.told.events[1].note == "there is no Secret factory-ca"
    assert (world.told.events[0].subject.kind, world.told.events[0].subject.namespace) == ("EstIssuer", "devices")


async def test_a_ca_that_is_being_generated_is_no_warning(world: World) -> None:
    await world.poll([entry(state="NotReady", reason="CAGenerating", message="its CA is being generated")])
    await world.issuers.work(FACTORY)
    assert [(event.reason, event.warning) for event in world.told.events] == [("CAGenerating", False)]


async def test_an_issuer_that_refuses_the_registration_authority_is_not_ready_and_says_what_to_set(world: World) -> None:
    world.registrar.error = Refused("this is for nobody", http_status=403)
    await world.poll([entry()])
    await world.issuers.work(FACTORY)
    assert not world.is_ready()
    assert world.last == ("False", "RegistrationAuthorityRefused")
    (condition,) = world.api.written[-1]["conditions"]
    assert "ra_service_accounts" in condition["message"]
    assert "this is for nobody" in condition["message"]


async def test_an_estserver_that_tells_the_operator_of_no_issuer_is_not_called_away_and_says_what_to_set(world: World) -> None:
    """Its setting names another ServiceAccount: then even the list of issuers is refused, and no wait mends that."""
    await world.poll([entry()])
    await world.poll(Refused("this is for the registration authority only", http_status=403))
    assert not world.is_ready()
    await world.issuers.work(FACTORY)
    assert world.last == ("False", "RegistrationAuthorityRefused")
    (condition,) = world.api.written[-1]["conditions"]
    assert "ra_service_accounts" in condition["message"]
    world.clock.seconds += UNAVAILABLE_AFTER
    await world.poll(ServerUnavailable("restarting"))
    await world.issuers.work(FACTORY)
    assert world.last == ("Unknown", "EstServerUnavailable")
    await world.poll([entry()])
    assert world.is_ready()


async def test_a_token_that_is_not_confirmed_for_a_moment_changes_nothing(world: World) -> None:
    await world.poll([entry()])
    await world.poll(Refused("the API server does not confirm it", http_status=401))
    assert world.is_ready()


async def test_a_registration_that_failed_is_tried_again_after_a_while_though_estserver_tells_nothing_new(world: World) -> None:
    world.registrar.error = ServerUnavailable("estserver is restarting")
    await world.poll([entry()])
    assert not world.is_ready()
    world.registrar.error = None
    await world.poll(None)
    assert world.registrar.tries == 1, "not at each poll"
    world.clock.seconds += RETRY_SECONDS
    await world.poll(None)
    assert world.is_ready()


async def test_a_certificate_that_is_still_good_carries_an_issuer_over_a_renewal_that_fails(world: World) -> None:
    await world.poll([entry()])
    world.registrar.is_fresh = lambda label, ca_sha256: False  # type: ignore[method-assign]
    world.registrar.error = ServerUnavailable("estserver is restarting")
    await world.poll(None)
    assert world.registrar.tries == 2
    assert world.is_ready()


async def test_an_issuer_that_is_gone_before_estserver_read_it_leaves_nothing_behind(world: World) -> None:
    world.source.answer = []
    await world.issuers.poll()
    await world.issuers.work(FACTORY)
    assert world.issuers.settling == 1
    del world.index[FACTORY]
    await world.issuers.poll()
    assert world.issuers.settling == 0
