"""Liveness, readiness and metrics, on a port of their own, plain HTTP.

An answer at all shows that the event loop turns. Liveness fails when the watch is silent: our own Lease changes, and the watch has
not brought it for a minute. The age of the last event would not do: where nothing happens there are no events.
"""

from collections.abc import Callable

from aiohttp import web

from estoperator import metrics
from estoperator.metrics import Metrics

SILENT_SECONDS = 60.0


class Health:
    """The HTTP endpoint. `silent_seconds` tells how long the watch has been silent, `ready` whether the operator has started."""

    def __init__(self, *, collected: Metrics, silent_seconds: Callable[[], float], ready: Callable[[], bool]) -> None:
        self._metrics, self._silent_seconds, self._ready = collected, silent_seconds, ready
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; the port, which 0 leaves to the system."""
        application = web.Application()
        application.add_routes([web.get("/healthz", self._healthz), web.get("/readyz", self._readyz), web.get("/metrics", self._scrape)])
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _healthz(self, _: web.Request) -> web.Response:
        silent = self._silent_seconds()
        if silent > SILENT_SECONDS:
            return web.Response(status=503, text=f"the watch has been silent for {silent:.0f} s\n")
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n") if self._ready() else web.Response(status=503, text="starting\n")

    async def _scrape(self, _: web.Request) -> web.Response:
        return web.Response(body=self._metrics.render(), headers={"Content-Type": metrics.CONTENT_TYPE})
