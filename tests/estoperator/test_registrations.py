"""The operator becomes registration authority of many issuers, of which some hang or fail."""

import asyncio
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from estcore.errors import ServerUnavailable
from estoperator.registrations import AT_ONCE, AT_ONCE_OF_NAMESPACE, RETRY_SECONDS, UNAVAILABLE, Registrations
from tests.estoperator.test_issuer_state import facts
from tests.estoperator.test_workqueue import Clock


@dataclass
class Registrar:
    """Gets a certificate of an issuer at once, unless the issuer's label is in `hanging`: then when `answers` is set."""

    hanging: frozenset[str] = frozenset()
    fault: Exception | None = None
    answers: asyncio.Event = field(default_factory=asyncio.Event)
    asked: list[str | None] = field(default_factory=list)
    got: set[str | None] = field(default_factory=set)

    def is_fresh(self, label: str | None, ca_sha256: str | None) -> bool:
        return label in self.got

    def is_usable(self, label: str | None, ca_sha256: str | None) -> bool:
        return label in self.got

    async def register(self, label: str | None, ca_sha256: str | None) -> None:
        self.asked.append(label)
        if self.fault is not None:
            raise self.fault
        if label in self.hanging:
            await self.answers.wait()
        self.got.add(label)

    def keep(self, labels: AbstractSet[str | None]) -> None:
        self.got &= labels


def told(*names: str, namespace: str = "devices") -> dict[str, Any]:
    return {name: facts(uid=name, namespace=namespace, name=name, label=name) for name in names}


async def test_issuers_that_hang_hold_up_no_other_and_become_ready_when_they_answer() -> None:
    """As where a tenant's issuer asks an authorization webhook that takes connections and says nothing."""
    hanging = tuple(f"hangs-{number}" for number in range(AT_ONCE + 1))
    registrar = Registrar(hanging=frozenset(hanging))
    registrations = Registrations(registrar, clock=Clock(), patience=0.05)
    issuers = told(*hanging) | told("good", namespace="others")
    async with asyncio.timeout(5):
        judged = await registrations.judge(issuers)
    assert judged["good"].ready
    assert {judged[name].reason for name in hanging} == {"RegistrationAuthorityStarting"}
    assert "has not answered yet" in judged[hanging[0]].message
    async with asyncio.timeout(5):
        await registrations.judge(issuers)
    assert len(registrar.asked) == AT_ONCE_OF_NAMESPACE + 1, "one that is asked is not asked again meanwhile"
    registrar.answers.set()
    for _ in range(2 * len(issuers)):  # turns of the event loop, no time
        await asyncio.sleep(0)
    judged = await registrations.judge(issuers)
    assert all(one.ready for one in judged.values())


async def test_of_an_issuer_that_is_gone_no_certificate_is_kept() -> None:
    registrar = Registrar()
    registrations = Registrations(registrar, clock=Clock(), patience=0.05)
    await registrations.judge(told("old", "stays"))
    assert len(registrar.got) == 2
    await registrations.judge(told("stays"))
    assert len(registrar.got) == 1


async def test_a_fault_of_ours_over_one_issuer_leaves_the_others_as_they_are() -> None:
    registrar, clock = Registrar(), Clock()
    registrations = Registrations(registrar, clock=clock, patience=0.05)
    await registrations.judge(told("good"))
    registrar.fault = ZeroDivisionError()
    judged = await registrations.judge(told("good", "odd"))
    assert judged["good"].ready
    assert judged["odd"].reason == UNAVAILABLE
    registrar.fault = None
    clock.seconds += RETRY_SECONDS
    assert (await registrations.judge(told("good", "odd")))["odd"].ready


async def test_a_fault_of_estserver_is_told_in_the_same_words_however_often_it_comes() -> None:
    """Each has an id of its own, and an issuer's new message rewrites the status of all that wait for it."""
    registrar, clock = Registrar(), Clock()
    registrations = Registrations(registrar, clock=clock, patience=0.05)
    messages = set()
    for incident in ("1f0c9a", "77b2e4"):
        registrar.fault = ServerUnavailable(f"the server cannot answer now (500): internal error {incident}; the server's log has it")
        messages.add((await registrations.judge(told("odd")))["odd"].message)
        clock.seconds += RETRY_SECONDS
    assert len(registrar.asked) == 2
    assert len(messages) == 1
    assert "internal error 1f0c9a; the server's log has it" in messages.pop()
