"""Tasks that run beside other work, and end with it."""

import asyncio

import pytest
import structlog

from estserver.background import beside, until


async def test_they_run_while_the_block_does_and_have_ended_when_it_has() -> None:
    said = []

    async def work(name: str) -> None:
        said.append(f"{name} runs")
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            said.append(f"{name} has ended")

    async def block() -> None:
        async with beside(work("one"), work("another")):
            await asyncio.sleep(0)
            assert said == ["one runs", "another runs"]
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await block()
    assert sorted(said[2:]) == ["another has ended", "one has ended"]


async def test_one_that_fails_ends_neither_the_block_nor_the_others_and_is_in_the_log() -> None:
    waiting = asyncio.Event()

    async def fail() -> None:
        raise ValueError("of ours")

    async def work() -> None:
        waiting.set()
        await asyncio.Event().wait()

    with structlog.testing.capture_logs() as logged:
        async with beside(fail(), work()):
            await waiting.wait()
    ((event, error),) = [(line["event"], line["exc_info"]) for line in logged]
    assert (event, str(error)) == ("a background task failed", "of ours")


async def test_a_task_that_is_cancelled_as_its_event_comes_ends_all_the_same() -> None:
    event, begun = asyncio.Event(), asyncio.Event()

    async def look_again_and_again() -> None:
        while True:
            begun.set()
            await until(event, seconds=0.1)
            event.clear()

    task = asyncio.create_task(look_again_and_again())
    await begun.wait()
    await asyncio.sleep(0)
    event.set()
    task.cancel()
    done, _ = await asyncio.wait({task}, timeout=2)
    task.cancel()
    assert done == {task}


async def test_a_wait_ends_with_its_event_or_its_time() -> None:
    event = asyncio.Event()
    await until(event, seconds=0.01)
    assert not event.is_set()
    asyncio.get_running_loop().call_soon(event.set)
    async with asyncio.timeout(5):
        await until(event, seconds=60)
    assert event.is_set()
