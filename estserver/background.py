"""Tasks that run beside other work, and end with it: how they are begun, how they wait, how they are ended."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

import structlog

log = structlog.get_logger("estserver")


@asynccontextmanager
async def beside(*works: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run all of `works` until the block ends, however it does."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        yield
    finally:
        await stop(tasks)


async def stop(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait until they have ended; one that failed says so in the log."""
    tasks = tuple(tasks)
    for task in tasks:
        task.cancel()
    for ended in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(ended, Exception):
            log.error("a background task failed", exc_info=ended)


async def until(event: asyncio.Event, *, seconds: float) -> None:
    """Wait until the event is set, or for so long.

    `asyncio.wait_for` of CPython 3.11 loses a cancellation that comes with the event (python/cpython#86296): the task would go on for ever.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
