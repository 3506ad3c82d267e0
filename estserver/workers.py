"""`--workers N`: this process watches and keeps N others serving. It hands them snapshots and the certificate, and never a request.

They share the listening sockets, so one that dies takes no waiting connection with it; it is started anew, at once the first time
and then ever slower.
"""

import asyncio
import os
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from estcore.errors import ConfigurationError
from estserver import control, last_good
from estserver.issuers import Issuers
from estserver.metrics import Metrics, forget_process
from estserver.serving_certificate import ServingKeys
from estserver.settings import Settings
from estserver.snapshot import Snapshot

FIRST_BACKOFF_SECONDS = 0.5
LONGEST_BACKOFF_SECONDS = 30.0
STEADY_SECONDS = 60.0  # a worker that lived so long was in order
KILL_AFTER_SECONDS = 5.0  # beyond the drain

log = structlog.get_logger("estserver")


@dataclass(slots=True, eq=False)
class _Worker:
    process: asyncio.subprocess.Process
    writer: asyncio.StreamWriter
    ready: bool = False


class Workers:
    """A Front of other processes."""

    def __init__(self, settings: Settings, options: Mapping[str, Any], sockets: list[socket.socket]) -> None:
        self._settings = settings
        self._options = {**{name: _plain(value) for name, value in options.items()}, "public_url": settings.public_url}
        self._sockets = sockets
        self._snapshot: Snapshot | None = None
        self._keys: ServingKeys | None = None
        self._issuers = Issuers()
        self._alive: set[_Worker] = set()
        self._started = asyncio.Event()

    def feed(self, snapshot: Snapshot) -> None:
        """Hand it to every worker, and to those to come."""
        self._snapshot = snapshot
        self._tell(control.snapshot_line(snapshot))

    def use(self, keys: ServingKeys) -> None:
        """Hand the certificate to every worker, and to those to come."""
        self._keys = keys
        self._tell(control.certificate_line(keys))

    def not_ready(self) -> str:
        """Empty while one worker serves."""
        return "" if any(worker.ready for worker in self._alive) else "no worker is ready"

    async def serve(
        self, issuers: Issuers, keys: ServingKeys, metrics: Metrics, *, shutdown: asyncio.Event, started: Callable[[], None]
    ) -> None:
        """As Front.serve."""
        del metrics
        self._issuers = issuers
        self._keys = keys
        for sock in self._sockets:
            sock.set_inheritable(True)
        keepers = [asyncio.create_task(self._keep_one(number, shutdown)) for number in range(self._settings.workers)]
        first, ending = asyncio.create_task(self._started.wait()), asyncio.create_task(shutdown.wait())
        try:
            await asyncio.wait((first, ending, *keepers), return_when=asyncio.FIRST_COMPLETED)
            if first.done():
                started()
                await asyncio.wait((ending, *keepers), return_when=asyncio.FIRST_COMPLETED)
            if ending.done():
                await self._drain(keepers)
        finally:
            for task in (first, ending, *keepers):
                task.cancel()
            for worker in self._alive:
                worker.process.kill()
        for ended in await asyncio.gather(*keepers, return_exceptions=True):
            if isinstance(ended, Exception):  # one that was late was cancelled above, and its worker killed
                raise ended

    async def _drain(self, keepers: list[asyncio.Task[None]]) -> None:
        for sock in self._sockets:
            sock.close()
        self._tell(control.encode("drain"))
        patience = self._settings.drain.total_seconds() + KILL_AFTER_SECONDS
        _, late = await asyncio.wait(keepers, timeout=patience)
        if late:
            log.error("workers did not end and are killed", workers=len(late))

    async def _keep_one(self, number: int, shutdown: asyncio.Event) -> None:
        backoff = FIRST_BACKOFF_SECONDS
        loop = asyncio.get_running_loop()
        while not shutdown.is_set():
            begun = loop.time()
            status = await self._run_one(number)  # raises what a person must mend before anything can serve
            if shutdown.is_set():
                return
            backoff = FIRST_BACKOFF_SECONDS if loop.time() - begun > STEADY_SECONDS else min(2 * backoff, LONGEST_BACKOFF_SECONDS)
            log.error("a worker ended and is started again", worker=number, status=status, seconds=backoff)
            try:
                await asyncio.wait_for(shutdown.wait(), backoff)
            except TimeoutError:
                continue

    async def _run_one(self, number: int) -> int:
        """Start one worker and stay with it until it ends; its exit status.

        Raises ConfigurationError where it cannot serve by what a person must mend, and none has served yet.
        """
        ours, theirs = socket.socketpair()
        ours.settimeout(0)
        descriptors = [sock.fileno() for sock in self._sockets]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "estserver.worker",
            str(theirs.fileno()),
            pass_fds=(theirs.fileno(), *descriptors),
            stdin=asyncio.subprocess.DEVNULL,
        )
        theirs.close()
        incoming, writer = await control.messages(ours)
        worker = _Worker(process, writer)
        writer.write(control.encode("start", options=self._options, sockets=descriptors, parent=os.getpid()))
        writer.write(control.former_line(last_good.snapshots(self._issuers.current)))
        if self._snapshot is not None:
            writer.write(control.snapshot_line(self._snapshot))
        if self._keys is not None:
            writer.write(control.certificate_line(self._keys))
        self._alive.add(worker)
        refusal = ""
        try:
            while True:
                message = await asyncio.wait_for(anext(incoming), control.SILENT_SECONDS)
                if message["kind"] == "ready":
                    worker.ready = True
                    self._started.set()
                    log.info("worker ready", worker=number, pid=process.pid)
                elif message["kind"] == "refused":
                    refusal = message["message"]
        except StopAsyncIteration:
            pass
        except TimeoutError:
            log.warning("a worker fell silent and is killed", worker=number, pid=process.pid)
            process.kill()
        finally:
            self._alive.discard(worker)
            writer.close()
        status = await process.wait()
        forget_process(process.pid)
        if refusal and not self._started.is_set():
            raise ConfigurationError(refusal)
        if refusal:
            log.error("a worker cannot serve", worker=number, error=refusal)
        return status

    def _tell(self, line: bytes) -> None:
        for worker in self._alive:
            worker.writer.write(line)


def _plain(value: object) -> object:
    """An option as JSON carries it: paths as text."""
    return value if value is None or isinstance(value, str | int | bool | list | tuple) else str(value)
