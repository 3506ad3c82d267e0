"""Issuers of the Kubernetes API on their way into a snapshot: what one tenant writes holds up nobody else's news."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from estserver.followed_issuers import FIRST_READ_SECONDS, FollowedIssuers
from estserver.secret_uses import SecretReference
from estserver.snapshot import IssuerManifest, SecretKey
from tests.server.manifest_builders import issuer

OURS = issuer()
THEIRS = issuer("theirs", namespace="mallory", ca="theirs-ca")
OUR_SECRET, THEIR_SECRET = ("devices", "factory-ca"), ("mallory", "theirs-ca")


class Following:
    """FollowedIssuers, its reader and a hand on its clock."""

    def __init__(self) -> None:
        self._read: asyncio.Queue[None] = asyncio.Queue()
        self.issuers = FollowedIssuers("est-system", changed=lambda: self._read.put_nowait(None))

    async def see(self, *manifests: IssuerManifest, new: int) -> None:
        """Show it these, and wait until it has read the `new` ones."""
        self.issuers.see(manifests)
        for _ in range(new):
            await asyncio.wait_for(self._read.get(), 30)

    def settle(self, *silent: SecretKey, now: float = 0.0) -> bool:
        return self.issuers.settle(lambda key: key not in silent, now=now)

    @property
    def watched(self) -> set[SecretKey]:
        return {reference.key for reference in self.issuers.references()}


@asynccontextmanager
async def following() -> AsyncIterator[Following]:
    found = Following()
    task = asyncio.create_task(found.issuers.run())
    try:
        yield found
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_an_issuer_is_let_in_when_all_of_its_secrets_have_answered() -> None:
    async with following() as found:
        await found.see(OURS, new=1)
        assert found.watched == {OUR_SECRET}
        assert (found.settle(OUR_SECRET), found.issuers.manifests, found.issuers.waiting) == (False, (), True)
        assert (found.settle(), found.issuers.manifests, found.issuers.waiting) == (True, (OURS,), False)
        assert not found.settle()


@pytest.mark.spec("THREAT-34")
async def test_an_issuer_whose_secret_is_silent_holds_up_no_other() -> None:
    async with following() as found:
        await found.see(OURS, new=1)
        found.settle()
        changed = issuer(generation=2, policy={"rules": []})
        await found.see(changed, THEIRS, new=2)
        found.settle(THEIR_SECRET)
        assert found.issuers.manifests == (changed,)
        assert found.issuers.complete()


@pytest.mark.spec("THREAT-34")
async def test_an_issuer_that_names_another_secret_goes_on_as_it_was_until_that_one_answers() -> None:
    renamed = issuer(generation=2, ca="new-ca")
    async with following() as found:
        await found.see(OURS, new=1)
        found.settle()
        await found.see(renamed, new=1)
        found.settle(("devices", "new-ca"))
        assert found.issuers.manifests == (OURS,)
        assert found.watched == {OUR_SECRET, ("devices", "new-ca")}, "what it goes on with may be deleted meanwhile"
        found.settle()
        assert found.issuers.manifests == (renamed,)
        assert found.watched == {("devices", "new-ca")}


@pytest.mark.spec("THREAT-34")
async def test_an_issuer_is_held_back_for_ten_seconds_at_most_however_often_it_names_another_secret() -> None:
    silent = [("devices", f"ca-{number}") for number in range(4)]
    async with following() as found:
        await found.see(OURS, new=1)
        found.settle()
        for number in range(4):
            renamed = issuer(generation=2 + number, ca=f"ca-{number}")
            await found.see(renamed, new=1)
            found.settle(*silent, now=number * FIRST_READ_SECONDS / 3)
            assert found.issuers.manifests == ((OURS,) if number < 3 else (renamed,))


async def test_the_first_snapshot_waits_for_the_issuers_that_were_there_first_and_for_no_later_one() -> None:
    async with following() as found:
        await found.see(OURS, THEIRS, new=2)
        found.settle(THEIR_SECRET)
        assert not found.issuers.complete()
        await found.see(OURS, issuer("theirs", namespace="mallory", ca="theirs-ca", uid="made anew"), new=1)
        found.settle(THEIR_SECRET)
        assert found.issuers.complete()
        assert found.issuers.manifests == (OURS,)


async def test_an_issuer_that_was_deleted_is_gone_at_once_and_its_secret_with_it() -> None:
    async with following() as found:
        await found.see(OURS, THEIRS, new=2)
        found.settle()
        await found.see(OURS, new=0)
        assert found.issuers.manifests == (OURS,)
        assert found.watched == {OUR_SECRET}


def longest(name: str) -> IssuerManifest:
    """A policy as long as the CRD takes it."""
    rules = [
        {
            "from": {"users": [f"u{rule}"]},
            "dnsNames": [f"h{host}.{rule}.example.com" for host in range(64)],
            "uris": [f"https://h{host}.example.com/{rule}" for host in range(64)],
        }
        for rule in range(64)
    ]
    return issuer(name, policy={"rules": rules})


@pytest.mark.spec("THREAT-34")
async def test_specs_are_read_off_the_event_loop_and_once() -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0)
            ticks += 1

    long = longest("long")
    async with following() as found:
        ticking = asyncio.create_task(tick())
        await found.see(long, new=1)
        ticking.cancel()
        assert ticks > 10, "the event loop stood still"
        found.settle()
        before = references(found)
        await found.see(longest("long"), new=0)
        assert not found.issuers.waiting, "an equal spec would be read anew"
        await found.see(issuer("long", generation=2, policy=long.spec["policy"]), new=1)
        found.settle()
        assert all(one is other for one, other in zip(references(found), before, strict=True)), "an equal spec was read anew"


def references(found: Following) -> list[SecretReference]:
    return list(found.issuers.references())


@pytest.mark.spec("THREAT-27")
@pytest.mark.parametrize("spec", [{}, {"ca": 1}, {"ca": {"secretName": "a"}, "policy": {"rules": [{"dnsNames": ["x*.example.com"]}]}}])
async def test_a_spec_that_does_not_parse_is_let_in_to_be_judged_and_holds_up_nobody(spec: dict[str, Any]) -> None:
    bad = IssuerManifest(kind="EstIssuer", namespace="mallory", name="bad", uid="1", generation=1, created=OURS.created, spec=spec)
    async with following() as found:
        await found.see(bad, OURS, new=2)
        found.settle()
        assert found.issuers.manifests == (bad, OURS)


@pytest.mark.spec("THREAT-27")
async def test_a_spec_that_does_not_parse_goes_on_with_the_secrets_of_the_one_before_it_and_makes_no_ca() -> None:
    """So that a CA that is deleted, or a password that is taken out, is heard of."""
    generating = {"secretName": "factory-ca", "generate": {"commonName": "Factory CA"}}
    basic = {"authentication": [{"basic": {"secretName": "passwords"}}]}
    async with following() as found:
        await found.see(issuer_of(ca=generating, est=basic), new=1)
        found.settle()
        watched = found.watched
        assert watched == {OUR_SECRET, ("devices", "passwords")}
        assert any(reference.generate for reference in references(found))
        for generation in (2, 3):
            bad = issuer_of(generation=generation, ca=generating, est={"lable": "x"})
            await found.see(bad, new=1)
            assert found.watched == watched
            found.settle()
            assert (found.issuers.manifests, found.watched) == ((bad,), watched)
            assert not any(reference.generate for reference in references(found))
        await found.see(issuer_of(generation=4, ca={"secretName": "new-ca"}), new=1)
        found.settle()
        assert found.watched == {("devices", "new-ca")}


async def test_of_two_specs_the_ca_is_made_by_the_newer_one() -> None:
    first, second = ({"secretName": "factory-ca", "generate": {"commonName": name}} for name in ("Facotry CA", "Factory CA"))
    async with following() as found:
        await found.see(issuer_of(ca=first), new=1)
        found.settle()
        await found.see(issuer_of(generation=2, ca=second), new=1)
        assert [reference.generate.common_name for reference in references(found) if reference.generate] == ["Factory CA"]


def issuer_of(*, generation: int = 1, **spec: Any) -> IssuerManifest:
    return replace(OURS, generation=generation, spec=spec)
