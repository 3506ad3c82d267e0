import asyncio
import heapq
import tracemalloc
from typing import NamedTuple

import pytest

from estoperator.workqueue import FIRST_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS, K, WorkQueue


class Key(NamedTuple):
    namespace: str
    name: str


class Clock:
    """Seconds that a test moves."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def queue(clock: Clock | None = None, *, per_namespace: int = 100) -> WorkQueue[Key]:
    made: WorkQueue[Key] = WorkQueue(clock=clock or Clock(), per_namespace=per_namespace, jitter=lambda: 1.0)
    made.resume()
    return made


def add_many(work: WorkQueue[Key], namespace: str, count: int) -> None:
    for number in range(count):
        work.add(Key(namespace, f"{number:04}"))


async def take(work: WorkQueue[K]) -> K | None:
    """The next key, None where the queue hands out nothing now."""
    getting = asyncio.ensure_future(work.get())
    for _ in range(5):
        await asyncio.sleep(0)
    if getting.done():
        return getting.result()
    getting.cancel()
    return None


@pytest.mark.spec("THREAT-34")
async def test_a_flood_in_one_namespace_does_not_hold_another_back() -> None:
    work = queue()
    add_many(work, "flood", 5000)
    work.add(Key("quiet", "one"))
    taken = [await take(work) for _ in range(3)]
    assert Key("quiet", "one") in taken


@pytest.mark.parametrize("work_seconds", [0.02, 1.0, 4.0])
@pytest.mark.spec("THREAT-34")
async def test_5000_slow_requests_in_one_namespace_hold_no_others_for_more_than_5_s(work_seconds: float) -> None:
    """Sixteen workers as the program has them, in time that the test moves; another namespace asks once a second."""
    workers, clock = 16, Clock()
    work = queue(clock, per_namespace=workers * 3 // 4)
    add_many(work, "flood", 5000)
    busy: list[tuple[float, Key]] = []
    asked: dict[Key, float] = {}
    waited: list[float] = []
    for second in range(60):
        quiet = Key("quiet", str(second))
        asked[quiet] = clock()
        work.add(quiet)
        until = clock() + 1
        while clock() < until:
            while len(busy) < workers and (key := await take(work)) is not None:
                if key in asked:
                    waited.append(clock() - asked[key])
                heapq.heappush(busy, (clock() + work_seconds, key))
            clock.seconds = min(until, busy[0][0]) if busy else until
            while busy and busy[0][0] <= clock():
                work.done(heapq.heappop(busy)[1])
    assert len(waited) >= 59
    assert max(waited) < 5


@pytest.mark.spec("THREAT-34")
async def test_namespaces_take_turns_and_each_is_first_in_first_out() -> None:
    work = queue()
    for namespace in ("a", "b", "c"):
        add_many(work, namespace, 2)
    taken = [await take(work) for _ in range(6)]
    assert [key.namespace for key in taken if key] == ["a", "b", "c", "a", "b", "c"]
    assert [key.name for key in taken if key and key.namespace == "b"] == ["0000", "0001"]


@pytest.mark.spec("THREAT-34")
async def test_one_namespace_may_not_hold_every_worker() -> None:
    work = queue(per_namespace=3)
    add_many(work, "slow", 10)
    taken = [await take(work) for _ in range(4)]
    assert taken[3] is None
    work.add(Key("other", "one"))
    assert await take(work) == Key("other", "one")
    assert taken[0] is not None
    work.done(taken[0])
    assert await take(work) == Key("slow", "0003")


@pytest.mark.spec("THREAT-34")
async def test_what_has_no_namespace_of_its_own_takes_the_turns_of_its_owner() -> None:
    work: WorkQueue[Key] = WorkQueue(clock=Clock(), per_namespace=3, owner_of=lambda key: key.name.partition("-")[0])
    work.resume()
    for name in (*(f"flood-{number}" for number in range(9)), "quiet-1"):
        work.add(Key("", name))
    taken = [await take(work) for _ in range(5)]
    assert [key and key.name for key in taken] == ["flood-0", "quiet-1", "flood-1", "flood-2", None]


async def test_a_keys_owner_may_change_at_any_moment_and_its_turn_is_counted_where_it_was_taken() -> None:
    owners, one = {"owner": "a"}, Key("", "one")
    work: WorkQueue[Key] = WorkQueue(clock=Clock(), per_namespace=1, owner_of=lambda _key: owners["owner"])
    work.resume()
    work.add(one)
    owners["owner"] = "b"
    work.add(one)
    assert len(work) == 1
    assert await take(work) == one
    owners["owner"] = "c"
    work.add(one)
    work.forget(one)
    work.add(one)
    work.done(one)
    work.add_after(one, 60)
    assert len(work) == 1, "it is ready"
    owners["owner"] = "d"
    work.forget(one)
    assert len(work) == 0
    for owner in "abcd":  # none is thought to be busy
        owners["owner"] = owner
        work.add(Key("", owner))
        assert await take(work) == Key("", owner)


async def test_a_key_is_there_once_however_often_it_is_added() -> None:
    work = queue()
    for _ in range(10):
        work.add(Key("a", "one"))
    assert len(work) == 1
    assert await take(work) == Key("a", "one")
    assert await take(work) is None


async def test_a_key_added_while_in_work_is_taken_again_afterwards_and_never_twice_at_once() -> None:
    work = queue()
    work.add(Key("a", "one"))
    key = await work.get()
    work.add(key)
    assert await take(work) is None
    work.done(key)
    assert await take(work) == key
    work.done(key)
    assert await take(work) is None


async def test_the_backoff_doubles_to_a_minute_and_begins_anew_after_success() -> None:
    clock = Clock()
    work = queue(clock)
    key = Key("a", "one")
    waits = []
    for _ in range(9):
        work.retry(key)
        before = clock.seconds
        while await take(work) is None:
            clock.seconds += 0.25
        waits.append(clock.seconds - before)
        work.done(key)
    assert waits == [min(FIRST_BACKOFF_SECONDS * 2**attempt, MAX_BACKOFF_SECONDS) for attempt in range(9)]
    work.succeeded(key)
    work.retry(key)
    clock.seconds += FIRST_BACKOFF_SECONDS
    assert await take(work) == key


async def test_a_retry_waits_at_least_as_long_as_the_server_asked_for() -> None:
    clock = Clock()
    work = queue(clock)
    work.retry(Key("a", "one"), at_least=30)
    clock.seconds += 29
    assert await take(work) is None
    clock.seconds += 1
    assert await take(work) == Key("a", "one")


async def test_news_about_a_key_end_its_delay() -> None:
    work = queue()
    work.retry(Key("a", "one"), at_least=3600)
    work.add(Key("a", "one"))
    assert await take(work) == Key("a", "one")


async def test_a_forgotten_key_is_gone_wherever_it_waited() -> None:
    clock = Clock()
    work = queue(clock)
    ready, delayed, in_work = Key("a", "ready"), Key("a", "delayed"), Key("a", "in work")
    work.add(in_work)
    assert await take(work) == in_work
    work.add(in_work)
    work.add(ready)
    work.retry(delayed)
    for key in (ready, delayed, in_work):
        work.forget(key)
    work.done(in_work)
    clock.seconds += 3600
    assert await take(work) is None
    assert len(work) == 0


async def test_a_paused_queue_hands_out_nothing_and_forgets_nothing() -> None:
    work = queue()
    work.pause()
    work.add(Key("a", "one"))
    assert await take(work) is None
    work.resume()
    assert await take(work) == Key("a", "one")


async def test_workers_that_wait_are_woken_one_for_each_key() -> None:
    work = queue()
    workers = [asyncio.create_task(work.get()) for _ in range(4)]
    add_many(work, "a", 2)
    done, waiting = await asyncio.wait(workers, return_when=asyncio.ALL_COMPLETED, timeout=0.05)
    assert {task.result() for task in done} == {Key("a", "0000"), Key("a", "0001")}
    add_many(work, "b", 2)
    done, _ = await asyncio.wait(waiting)
    assert {task.result() for task in done} == {Key("b", "0000"), Key("b", "0001")}


async def test_a_worker_wakes_by_itself_when_a_delay_ends() -> None:
    loop = asyncio.get_running_loop()
    work: WorkQueue[Key] = WorkQueue(clock=loop.time, per_namespace=1)
    work.resume()
    work.add_after(Key("a", "one"), 0.02)
    assert await asyncio.wait_for(work.get(), 5) == Key("a", "one")


async def test_every_key_that_waits_is_told_with_its_age_and_a_delayed_one_with_none() -> None:
    clock = Clock()
    work = queue(clock)
    assert list(work.waiting()) == []
    work.add(Key("a", "one"))
    clock.seconds += 7
    work.add(Key("b", "two"))
    work.add_after(Key("b", "later"), 60)
    assert list(work.waiting()) == [(Key("a", "one"), 7), (Key("b", "two"), 0), (Key("b", "later"), 0)]


def test_what_was_forgotten_takes_no_room_however_long_its_delay_was() -> None:
    work = queue()
    tracemalloc.start()
    try:
        for number in range(20_000):
            key = Key("a", f"{number:06}")
            work.add_after(key, 86400)
            work.forget(key)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 1_000_000


async def test_it_is_pressed_while_keys_are_ready_that_no_worker_has_taken() -> None:
    work = queue()
    assert not work.pressed()
    work.add(Key("a", "1"))
    assert work.pressed()
    work.pause()
    assert not work.pressed(), "a replica that does not lead has no certificates to write"
    work.resume()
    await take(work)
    work.add_after(Key("a", "2"), 60.0)
    assert not work.pressed()
