"""Where the operator is registration authority: each issuer that estserver has ready is ready for requests when it has let us be one."""

import asyncio
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Protocol
from weakref import WeakValueDictionary

import structlog

from estcore.errors import ClientError, ConfigurationError, EstError, MalformedResponse, Refused
from estoperator import issuer_state
from estoperator.conditions import without_incident
from estoperator.issuer_state import REFUSED_REASON, Facts

log = structlog.get_logger(__name__)

UNAVAILABLE = "RegistrationAuthorityPending"
RETRY_SECONDS = 15.0
AT_ONCE = 32
"""Issuers that are asked at the same time."""

AT_ONCE_OF_NAMESPACE = 4
"""Of these in one namespace, whose tenant may have made many that hang."""

PATIENCE_SECONDS = 1.0
"""How long the others wait for the issuers that are asked: one that hangs, as over its authorization webhook, must not hold them up."""


class Registrar(Protocol):
    """What this module needs of the registration authority."""

    def is_fresh(self, label: str | None, ca_sha256: str | None) -> bool:
        """Whether there is nothing to do."""
        ...

    def is_usable(self, label: str | None, ca_sha256: str | None) -> bool:
        """Whether there is a certificate that will do until a new one comes."""
        ...

    async def register(self, label: str | None, ca_sha256: str | None) -> None:
        """Get a certificate. Raises errors of the ClientError branch."""
        ...

    def keep(self, labels: AbstractSet[str | None]) -> None:
        """Forget the certificates of all other labels."""
        ...


class Registrations:
    """Belongs to one event loop. `clock` gives monotonic seconds; `patience` is in seconds."""

    def __init__(self, registrar: Registrar, *, clock: Callable[[], float], patience: float = PATIENCE_SECONDS) -> None:
        self._registrar, self._clock, self._patience = registrar, clock, patience
        self._failed: dict[str, tuple[float, str, str]] = {}  # uid → when to try again, reason, message
        self._asking: dict[str, asyncio.Task[None]] = {}  # uid →
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._of_namespace: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def judge(self, told: Mapping[str, Facts]) -> dict[str, Facts]:
        """What estserver told of the issuers, by uid, with those not ready that do not have us as registration authority."""
        for uid in self._failed.keys() - told.keys():
            del self._failed[uid]
        self._registrar.keep({facts.label for facts in told.values()})
        stale = [facts for facts in told.values() if facts.ready and not self._registrar.is_fresh(facts.label, _ca(facts))]
        asked = [self._ask(facts) for facts in stale if self._is_due(facts)]
        if asked:
            await asyncio.wait(asked, timeout=self._patience)
        return {uid: self._judged(facts) for uid, facts in told.items()}

    def _is_due(self, facts: Facts) -> bool:
        again_at, *_ = self._failed.get(facts.uid, (0.0, "", ""))
        return facts.uid not in self._asking and self._clock() >= again_at

    def _ask(self, facts: Facts) -> asyncio.Task[None]:
        task = asyncio.create_task(self._register(facts))
        self._asking[facts.uid] = task
        task.add_done_callback(lambda _: self._asking.pop(facts.uid))
        return task

    async def _register(self, facts: Facts) -> None:
        of_namespace = self._of_namespace.setdefault(facts.ref.namespace, asyncio.Semaphore(AT_ONCE_OF_NAMESPACE))
        try:
            async with of_namespace, self._at_once:
                await self._registrar.register(facts.label, _ca(facts))
        except (ClientError, ConfigurationError) as error:
            self._note(facts, error)
        except Exception:
            log.exception("internal_error", work="registration", issuer=str(facts.ref))
            self._note(facts, MalformedResponse("internal error; the operator's log has it"))
        else:
            if self._failed.pop(facts.uid, None) is not None:
                log.info("registration_authority_accepted", issuer=str(facts.ref))

    def _note(self, facts: Facts, error: EstError) -> None:
        reason = REFUSED_REASON if isinstance(error, Refused) else UNAVAILABLE
        _, before, message = self._failed.get(facts.uid, (0.0, "", ""))
        # A message that is another one each time would rewrite the issuer, and every request that waits for it, each time.
        if (before, without_incident(message)) != (reason, without_incident(error.message)):
            message = error.message
            log.warning("registration_authority_not_accepted", issuer=str(facts.ref), reason=reason, error=message)
        self._failed[facts.uid] = (self._clock() + RETRY_SECONDS, reason, message)

    def _judged(self, facts: Facts) -> Facts:
        failed = self._failed.get(facts.uid)
        if not facts.ready or self._registrar.is_usable(facts.label, _ca(facts)):
            return facts
        if failed is None:
            asked = "the operator is getting its registration authority certificate, and the issuer has not answered yet"
            return replace(facts, ready=False, reason=issuer_state.REGISTERING_REASON, message=asked)
        _, reason, message = failed
        if reason == REFUSED_REASON:
            untold = issuer_state.refused(message)
            return replace(facts, ready=False, reason=untold.reason, message=untold.message)
        told = f"the operator could not get its registration authority certificate, and tries again: {message}"
        return replace(facts, ready=False, reason=reason, message=told)


def _ca(facts: Facts) -> str | None:
    return facts.ca["sha256"] if facts.ca is not None else None
