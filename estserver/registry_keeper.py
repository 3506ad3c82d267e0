"""Keeps the registry in step with what the source sees and with the clock, and says in the log what changed."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime

import structlog

from estcore.issuer_spec import Approval
from estserver import last_good
from estserver.background import until
from estserver.issuers import Issuer, Issuers, Registry, RegistrySettings, build
from estserver.snapshot import EMPTY, Snapshot

REJUDGE_SECONDS = 30.0
"""Longest time between judgements, for clocks jump. That an expired CA signs nothing does not depend on it (usable_authority asks)."""

log = structlog.get_logger(__name__)


class RegistryKeeper:
    """`feed` it snapshots; `run` judges the newest one, off the event loop, and again because time passes: CAs expire."""

    def __init__(
        self, issuers: Issuers, settings: RegistrySettings, *, clock: Callable[[], datetime], public_url: str = "", tells: bool = True
    ) -> None:
        self._issuers = issuers
        self._settings = settings
        self._clock = clock
        self._public_url = public_url
        self._tells = tells  # of the processes that judge the same, one writes the log
        self._snapshot = EMPTY
        self._former: Sequence[Snapshot] = ()
        self._judged_at = datetime.min.replace(tzinfo=UTC)
        self._fed = asyncio.Event()
        self.judged = asyncio.Event()  # set from the first registry on

    def feed(self, snapshot: Snapshot) -> None:
        """Take note of what there is now."""
        self._snapshot = snapshot
        self._fed.set()

    def remember(self, former: Sequence[Snapshot]) -> None:
        """Take what others go on with for the last good state, where nothing was judged yet."""
        self._former = former

    async def run(self) -> None:
        """Until cancelled."""
        await self._fed.wait()
        while True:
            self._fed.clear()
            await self.judge()
            await until(self._fed, seconds=self.seconds_to_next())

    async def judge(self) -> None:
        """Judge the newest snapshot now and put the registry in place."""
        before, now = self._issuers.current, self._clock()
        if self._former:
            before, self._former = await asyncio.to_thread(last_good.judge, self._former, self._settings, now=now), ()
        # Loading an RSA-4096 key checks it for 100 ms and more: requests go on meanwhile.
        registry = await asyncio.to_thread(build, self._snapshot, before, self._settings, now=now)
        self._judged_at = now
        if self.judged.is_set() and registry == before:
            return
        self._issuers.current = registry
        self.judged.set()
        if not self._tells:
            return
        for issuer in _changed(before, registry):
            _say(issuer, self._public_url)
        for key in before.issuers.keys() - registry.issuers.keys():
            log.info("issuer removed", issuer=key)

    def seconds_to_next(self) -> float:
        """Until time alone changes the registry: half a minute, or sooner where a CA expires by then."""
        now = self._clock()
        # What expired since the judgement was not judged so: a timer is early at times.
        left = [(end - now).total_seconds() for _, end in self.ca_expiries() if end > self._judged_at]
        return max(0.0, min([REJUDGE_SECONDS, *left]))

    def any_manual(self) -> bool:
        """Whether some issuer's requests wait for approval."""
        specs = [issuer.spec for issuer in self._issuers.current.issuers.values() if issuer.spec is not None]
        return any(spec.est.approval is Approval.MANUAL for spec in specs)

    def ca_expiries(self) -> Iterable[tuple[str, datetime]]:
        """Key and end of each issuer's CA, or of what is above it where that ends first, for the metrics.

        Also of one that has ended, for that is worth an alert.
        """
        return [
            (issuer.key, ca.first_to_end.not_valid_after_utc)
            for issuer in self._issuers.current.issuers.values()
            if (ca := issuer.secrets.ca.value) is not None
        ]

    def states(self) -> Iterable[tuple[str, bool]]:
        """Key of each issuer and whether it is ready, for the metrics."""
        return [(issuer.key, issuer.ready) for issuer in self._issuers.current.issuers.values()]


def _changed(before: Registry, after: Registry) -> Iterable[Issuer]:
    for key, issuer in after.issuers.items():
        former = before.issuers.get(key)
        if former is None or (former.ready, former.reason, former.message, former.label, former.authority) != (
            issuer.ready,
            issuer.reason,
            issuer.message,
            issuer.label,
            issuer.authority,
        ):
            yield issuer


def _say(issuer: Issuer, public_url: str) -> None:
    url = f"{public_url}/.well-known/est/{issuer.label}" if public_url and issuer.label else None
    say = log.info if issuer.ready else log.warning
    say(
        "issuer ready" if issuer.ready else "issuer not ready",
        issuer=issuer.key,
        reason=issuer.reason,
        message=issuer.message,
        url=url,
        ca_not_after=issuer.authority.certificate.not_valid_after_utc.isoformat() if issuer.authority is not None else None,
    )
