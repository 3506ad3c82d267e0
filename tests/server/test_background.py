"""Tasks that run beside other work, and end with it."""

import asyncio

import pytest
import structlog

from estserver.background import beside


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
