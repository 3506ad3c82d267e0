"""Backoff: few free failures, then doors that shut for longer each time, and a table that does not grow."""

from datetime import timedelta

import pytest

from estcore.errors import Busy
from estserver.throttle import Throttle
from tests.server.app_fixtures import NOW


def make(*, free: int = 3, longest: int = 60, max_entries: int = 100) -> Throttle:
    return Throttle(free=free, longest=timedelta(seconds=longest), max_entries=max_entries)


def pause(throttle: Throttle, key: str, *, after: timedelta = timedelta(0)) -> timedelta:
    try:
        throttle.check(key, now=NOW + after)
    except Busy as busy:
        return busy.retry_after
    return timedelta(0)


@pytest.mark.spec("THREAT-14")
def test_each_failure_after_the_free_ones_doubles_the_pause_up_to_the_longest() -> None:
    throttle, pauses = make(), []
    for _ in range(12):
        throttle.failed("user", now=NOW)
        pauses.append(pause(throttle, "user").total_seconds())
    assert pauses == [0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60]


@pytest.mark.spec("THREAT-14")
def test_ten_thousand_guesses_in_an_hour_get_few_checks() -> None:
    throttle, checks = make(free=10, longest=30), 0
    for guess in range(10_000):
        now = NOW + timedelta(hours=1) * guess / 10_000
        try:
            throttle.check("user", now=now)
        except Busy:
            continue
        checks += 1
        throttle.failed("user", now=now)
    assert checks < 140


def test_what_is_refused_while_the_door_is_shut_does_not_shut_it_for_longer() -> None:
    throttle = make(free=1)
    throttle.failed("user", now=NOW)
    for _ in range(50):
        assert pause(throttle, "user") == timedelta(seconds=1)
    assert pause(throttle, "user", after=timedelta(seconds=1)) == timedelta(0)


def test_success_and_a_quarter_of_an_hour_are_forgotten_and_others_are_not_touched() -> None:
    throttle = make(free=1)
    throttle.failed("a", now=NOW)
    throttle.failed("b", now=NOW)
    throttle.succeeded("a")
    assert pause(throttle, "a") == timedelta(0)
    assert pause(throttle, "b") == timedelta(seconds=1)
    assert pause(throttle, "c") == timedelta(0)
    later = NOW + timedelta(minutes=15)
    throttle.failed("b", now=later)
    assert pause(throttle, "b", after=timedelta(minutes=15)) == timedelta(seconds=1)


def test_a_failure_that_is_forgiven_does_not_count_and_nobody_gets_credit() -> None:
    throttle = make(free=3)
    for _ in range(2):
        throttle.failed("site", now=NOW)
    for _ in range(5):
        throttle.forgive("site")
    for _ in range(2):
        throttle.failed("site", now=NOW)
        assert pause(throttle, "site") == timedelta(0)
    throttle.failed("site", now=NOW)
    assert pause(throttle, "site") == timedelta(seconds=1)


def test_the_table_is_bounded_and_the_oldest_makes_room() -> None:
    throttle = make(free=1, max_entries=10)
    for number in range(11):
        throttle.failed(str(number), now=NOW)
    assert pause(throttle, "0") == timedelta(0)
    assert all(pause(throttle, str(number)) for number in range(1, 11))
