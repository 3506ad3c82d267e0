"""The election, with a clock that the test moves and an API server in memory."""

import asyncio
from datetime import timedelta

import pytest

from estoperator.leadership import LEASE_SECONDS, RENEW_DEADLINE_SECONDS, RETRY_SECONDS, Heartbeat, Leadership
from tests import pki
from tests.estoperator.lease_server import LeaseServer
from tests.estoperator.test_workqueue import Clock


def candidate(server: LeaseServer, clock: Clock, identity: str) -> Leadership:
    def now() -> object:
        return pki.EPOCH + timedelta(seconds=clock.seconds)

    return Leadership(server, namespace="est", name="operator", identity=identity, clock=clock, now=now)  # type: ignore[arg-type]  # a datetime


async def rounds(clock: Clock, seconds: float, *candidates: Leadership) -> None:
    """Let time pass, with a round of each every two seconds."""
    for _ in range(int(seconds / RETRY_SECONDS)):
        clock.seconds += RETRY_SECONDS
        for each in candidates:
            await each.round()


async def test_the_first_becomes_leader_and_the_second_waits() -> None:
    server, clock = LeaseServer(), Clock()
    first, second = candidate(server, clock, "first"), candidate(server, clock, "second")
    await first.round()
    await rounds(clock, 60, first, second)
    assert first.leading.is_set()
    assert not second.leading.is_set()
    assert server.holder == "first"


async def test_the_second_leads_once_the_lease_has_not_changed_for_its_duration() -> None:
    server, clock = LeaseServer(), Clock()
    first, second = candidate(server, clock, "first"), candidate(server, clock, "second")
    await first.round()
    await second.round()  # sees the lease; the first is killed now
    await rounds(clock, LEASE_SECONDS - RETRY_SECONDS, second)
    assert not second.leading.is_set()
    await rounds(clock, RETRY_SECONDS, second)
    assert second.leading.is_set()
    assert server.lease is not None
    assert server.lease["spec"]["leaseTransitions"] == 2


async def test_who_waits_looks_again_when_the_lease_runs_out_and_not_later() -> None:
    """Seen 2 s after its last renewal at the latest, a leader that was killed is followed 12 s after it."""
    server, clock = LeaseServer(), Clock()
    first, second = candidate(server, clock, "first"), candidate(server, clock, "second")
    await first.round()
    await second.round()
    clock.seconds += LEASE_SECONDS - RETRY_SECONDS + 0.5
    await second.round()
    assert second.seconds_to_next_round() == RETRY_SECONDS - 0.5
    clock.seconds += second.seconds_to_next_round()
    await second.round()
    assert second.leading.is_set()
    assert second.seconds_to_next_round() == RETRY_SECONDS  # as for whoever leads


@pytest.mark.spec("THREAT-31")
async def test_a_leader_that_cannot_renew_stops_before_another_may_begin() -> None:
    server, clock = LeaseServer(), Clock()
    leader = candidate(server, clock, "leader")
    await leader.round()
    server.down = True
    await rounds(clock, RENEW_DEADLINE_SECONDS, leader)
    assert not leader.leading.is_set()
    assert leader.lost.is_set()
    assert RENEW_DEADLINE_SECONDS < LEASE_SECONDS


async def test_a_leader_leads_on_after_a_short_outage() -> None:
    server, clock = LeaseServer(), Clock()
    leader = candidate(server, clock, "leader")
    await leader.round()
    server.down = True
    await rounds(clock, RENEW_DEADLINE_SECONDS - RETRY_SECONDS, leader)
    server.down = False
    await rounds(clock, 60, leader)
    assert leader.leading.is_set()


async def test_a_clock_that_jumps_on_another_machine_elects_nobody() -> None:
    """The times written in the Lease are for people: only our own monotonic clock counts."""
    server, clock = LeaseServer(), Clock()
    first, second = candidate(server, clock, "first"), candidate(server, clock, "second")
    await first.round()
    assert server.lease is not None
    server.lease["spec"]["renewTime"] = "1970-01-01T00:00:00.000000Z"
    await second.round()
    assert not second.leading.is_set()


async def test_a_released_lease_is_taken_at_once() -> None:
    server, clock = LeaseServer(), Clock()
    first, second = candidate(server, clock, "first"), candidate(server, clock, "second")
    await first.round()
    await second.round()
    await first.release()
    assert not first.leading.is_set()
    await second.round()
    assert second.leading.is_set()


async def test_a_lease_whose_renewal_was_cut_off_by_the_end_is_released_too() -> None:
    """The API server may have stored what nobody waited for: the version that we know is then the one before."""
    server, clock = LeaseServer(), Clock()
    first, second = candidate(server, clock, "first"), candidate(server, clock, "second")
    await first.round()
    await second.round()
    assert server.lease is not None
    server.lease["metadata"]["resourceVersion"] = "999"
    await first.release()
    await second.round()
    assert (server.holder, second.leading.is_set()) == ("second", True)


async def test_a_lease_that_another_took_is_not_released_in_its_place() -> None:
    server, clock = LeaseServer(), Clock()
    first, second = candidate(server, clock, "first"), candidate(server, clock, "second")
    await first.round()
    await second.round()
    clock.seconds += LEASE_SECONDS
    await second.round()
    await first.release()
    assert server.holder == "second"


async def test_a_leader_whose_lease_another_took_stops_at_its_next_round() -> None:
    server, clock = LeaseServer(), Clock()
    first, second = candidate(server, clock, "first"), candidate(server, clock, "second")
    await first.round()
    await second.round()
    clock.seconds += LEASE_SECONDS  # the first was suspended
    await second.round()
    await first.round()
    assert (first.leading.is_set(), second.leading.is_set()) == (False, True)


async def test_of_two_that_take_an_abandoned_lease_one_leads() -> None:
    server, clock = LeaseServer(), Clock()
    gone, one, other = (candidate(server, clock, name) for name in ("gone", "one", "other"))
    for each in (gone, one, other):
        await each.round()
    clock.seconds += LEASE_SECONDS
    await asyncio.gather(one.round(), other.round())
    assert [one.leading.is_set(), other.leading.is_set()].count(True) == 1


async def test_of_two_that_create_the_lease_one_leads() -> None:
    server, clock = LeaseServer(), Clock()
    one, other = candidate(server, clock, "one"), candidate(server, clock, "other")
    await asyncio.gather(one.round(), other.round())
    assert [one.leading.is_set(), other.leading.is_set()].count(True) == 1


async def test_a_deleted_lease_is_made_again() -> None:
    server, clock = LeaseServer(), Clock()
    leader = candidate(server, clock, "leader")
    await leader.round()
    server.lease = None
    await rounds(clock, 4, leader)
    assert leader.leading.is_set()
    assert server.holder == "leader"


async def test_a_watch_that_brings_every_renewal_is_not_silent() -> None:
    server, clock = LeaseServer(), Clock()
    leader = candidate(server, clock, "leader")
    running = asyncio.create_task(leader.run())
    await asyncio.wait_for(leader.leading.wait(), 5)
    await server.brought.wait()
    clock.seconds += 3600
    assert leader.heartbeat.silent_seconds(clock.seconds) == 0
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_watch_that_stays_silent_while_the_lease_changes_is_found_out() -> None:
    server, clock = LeaseServer(), Clock()
    server.deaf = True
    leader = candidate(server, clock, "leader")
    await leader.round()
    await rounds(clock, 62, leader)
    assert leader.heartbeat.silent_seconds(clock.seconds) > 60


async def test_an_api_server_that_is_away_is_no_silence() -> None:
    server, clock = LeaseServer(), Clock()
    server.deaf = True
    leader = candidate(server, clock, "leader")
    await leader.round()
    server.down = True
    await rounds(clock, 300, leader)
    assert leader.heartbeat.silent_seconds(clock.seconds) == 0


def test_a_watch_event_that_comes_before_the_answer_counts() -> None:
    heartbeat = Heartbeat()
    heartbeat.watched("12")
    heartbeat.known("12", 100.0)
    assert heartbeat.silent_seconds(200.0) == 0
