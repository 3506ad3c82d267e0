"""Keeps the server's own certificate in order: made at the start, looked at once a minute, renewed in time, handed on when it changed."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from estcore.errors import ConfigurationError
from estserver.serving_certificate import Serial, ServingKeys, check, from_data, renewed, to_data
from estserver.serving_store import ServingStore
from estserver.tls import ServerTls

LOOK_SECONDS = 60.0  # another replica may have renewed, somebody may have replaced a given certificate
MAX_SWAPS = 5

log = structlog.get_logger(__name__)
_jitter = random.SystemRandom()


@dataclass(slots=True, kw_only=True)
class ServingKeeper:
    """`names` empty: the certificate is given, and is only read; `waits` then says whether it may come later than we do.

    `published` says where clients find the root, once known. Set `nudged` to look at once.
    """

    store: ServingStore
    names: tuple[str, ...]
    clock: Callable[[], datetime]
    serial: Serial
    waits: bool = False
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    keys: ServingKeys | None = None
    published: str = ""
    nudged: asyncio.Event = field(default_factory=asyncio.Event)
    _complaint: str = field(default="")

    async def refresh(self) -> ServingKeys:
        """What to serve with from now on: read, renewed where due, saved, published, in this order.

        Raises ConfigurationError where a given certificate is unusable, ApiError where the store is away.
        """
        for _ in range(MAX_SWAPS):
            stored = await self.store.load()
            current = from_data(stored.data) if stored.data is not None else None
            due = renewed(current, self.names, now=self.clock(), serial=self.serial) if self.names else current
            if due is None:
                raise ConfigurationError("it does not exist; make it, or let estserver make its own certificate", where=self.store.where)
            if due is current or await self.store.save(to_data(due), stored.version):
                break
        else:
            raise ConfigurationError("others keep changing it", where=self.store.where)
        certificate = check(due, now=self.clock(), where=self.store.where)
        _check_usable(due, where=self.store.where)
        if due.bundle_pem:
            self.published = await self.store.publish(due.bundle_pem)
        if due is not current:
            log.info("made a certificate of our own", where=self.store.where, not_after=certificate.not_valid_after_utc.isoformat())
        return due

    async def keep(self, use: Callable[[ServingKeys], None]) -> None:
        """Until cancelled: refresh each minute and `use` what changed. What goes wrong is logged once; the last certificate goes on."""
        while True:
            await self._pause(LOOK_SECONDS * (0.75 + _jitter.random() / 2))
            try:
                keys = await self.refresh()
                if keys != self.keys:
                    use(keys)
                    self.keys = keys
                    log.info("using another server certificate", where=self.store.where)
                self._complaint = ""
            except Exception as error:  # noqa: BLE001 - whatever it is, the server goes on with the certificate that it has
                if str(error) != self._complaint:
                    self._complaint = str(error)
                    log.warning("the server's certificate was not refreshed", error=str(error))

    async def _pause(self, seconds: float) -> None:
        """Until the time has come or somebody says now."""
        waits = [asyncio.ensure_future(self.sleep(seconds)), asyncio.ensure_future(self.nudged.wait())]
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in done:
                wait.result()
        finally:
            for wait in waits:
                wait.cancel()
            self.nudged.clear()


def _check_usable(keys: ServingKeys, *, where: str) -> None:
    """Raise ConfigurationError for what TLS refuses, such as RSA of 1024 bits: workers that were handed it could only fail by it."""
    try:
        ServerTls(keys.chain_pem, keys.key_pem)
    except ConfigurationError as error:
        raise ConfigurationError(error.message, where=where, reason=error.reason) from error
