"""Tasks that run beside other work, and end with it."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager
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
