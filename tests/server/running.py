"""The real program as a child process: its log lines, its addresses, its end."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from estclient import EstClient
from estcore.errors import Refused, ServerUnavailable

START_SECONDS = 60
END_SECONDS = 60
Line = Mapping[str, Any]


class Running:
    """One `estserver serve`. `lines` are all JSON lines so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[Line] = []
        self.errors = b""
        self._news = asyncio.Condition()
        self._reading = [asyncio.create_task(self._read_lines()), asyncio.create_task(self._read_errors())]

    async def until_audit(self, audit: str, request_id: str) -> Line:
        """The audit event of a request that waits, or waited."""
        return await self._until(f"audit {audit}", {"audit": audit, "request": request_id})

    async def until(self, event: str, *, times: int = 1, **more: object) -> Line:
        """The first line (or the one that many times), past or to come, of this event with these members."""
        return await self._until(event, {"event": event, **more}, times=times)

    async def _until(self, what: str, wanted: Mapping[str, object], *, times: int = 1) -> Line:
        def _found() -> Line | None:
            return next(iter([line for line in self.lines if wanted.items() <= line.items()][times - 1 :]), None)

        async with asyncio.timeout(START_SECONDS), self._news:
            await self._news.wait_for(lambda: _found() or self.process.returncode is not None)
        found = _found()
        assert found is not None, f"ended without {what!r}: {self.lines} {self.errors.decode()}"
        return found

    async def url(self) -> str:
        listening = await self.until("listening")
        return str(listening["addresses"][0])

    async def ended(self) -> int:
        """The exit status, when it ends by itself."""
        async with asyncio.timeout(END_SECONDS):
            status = await self.process.wait()
            await asyncio.gather(*self._reading)
        return status

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return await self.ended()

    async def _read_lines(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            async with self._news:
                self.lines.append(json.loads(line))
                self._news.notify_all()
        await self.process.wait()
        async with self._news:
            self._news.notify_all()

    async def _read_errors(self) -> None:
        assert self.process.stderr is not None
        self.errors = await self.process.stderr.read()


def children(pid: int) -> list[int]:
    """Child processes of a process, by their ids."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pids: Iterable[int]) -> list[int]:
    """Those that still run."""
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait for what nobody announces: the end of a process that is not our child, a figure in the metrics."""
    async with asyncio.timeout(START_SECONDS):
        while not await holds():  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.05)


async def until_served(est: EstClient) -> None:
    """The issuer is told ready by the process that watches; the worker at the other end judges it itself, a moment later."""

    async def served() -> bool:
        try:
            await est.ca_certs()
        except (Refused, ServerUnavailable):
            return False
        return True

    await eventually(served)


@asynccontextmanager
async def estserver(*options: str, environ: Mapping[str, str] | None = None) -> AsyncIterator[Running]:
    """`estserver serve OPTIONS` on ports of its own; killed at the end if it still runs."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("EST_")}
    defaults = ("--listen", "127.0.0.1:0", "--metrics-listen", "", "--log-format", "json")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "estserver",
        "serve",
        *defaults,
        *options,
        env={**variables, **(environ or {})},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=1024 * 1024,
        cwd=Path(__file__).parents[2],
    )
    running = Running(process)
    try:
        yield running
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await running.ended()
