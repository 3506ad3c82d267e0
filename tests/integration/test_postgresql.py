"""The ledger on a real PostgreSQL, two replicas on it: what is good for one use is used once, and one request is one row."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from estserver.held_requests import HeldRequest, HeldRequests, State
from estserver.ledger import Ledger
from estserver.spent import Spent
from tests.integration.postgresql import PostgreSQL
from tests.server.test_ledger import entry
from tests.server.test_requests_command import ASKED, REQUEST

MANY = 20


@pytest.fixture(scope="module")
def postgresql() -> Iterator[PostgreSQL]:
    with tempfile.TemporaryDirectory() as directory:  # pytest's own are closed to the user that it runs as
        Path(directory).chmod(0o711)
        server = PostgreSQL(Path(directory) / "postgresql")
        server.start()
        yield server
        server.stop()


@pytest.fixture
async def replicas(postgresql: PostgreSQL) -> AsyncIterator[list[Ledger]]:
    ledgers = await asyncio.gather(Ledger.open(postgresql.url), Ledger.open(postgresql.url))
    yield list(ledgers)
    for ledger in ledgers:
        await ledger.aclose()


@pytest.mark.spec("THREAT-31")
async def test_one_transaction_has_one_certificate(replicas: list[Ledger]) -> None:
    for number in range(MANY):
        tries = [ledger.record(entry(2 * number + which, transaction=f"t{number}")) for which, ledger in enumerate(replicas)]
        one, two = await asyncio.gather(*tries)
        assert one.serial == two.serial


async def test_what_is_good_for_one_use_is_used_once_and_once_it_is(replicas: list[Ledger]) -> None:
    for number in range(MANY):
        uses = [
            Spent(ledger).spend("otp", f"v{number}", now=ASKED, expires_at=ASKED + timedelta(hours=1)) for ledger in (*replicas, *replicas)
        ]
        assert sorted(await asyncio.gather(*uses)) == [False, False, False, True]


@pytest.mark.spec("EST-RESP-10")
async def test_one_request_is_one_row_and_its_maker_knows_it(replicas: list[Ledger]) -> None:
    for number in range(MANY):
        wanted = [replace(REQUEST, id=f"{which}-{number}", slot=f"s{number}") for which in range(2)]
        found = await asyncio.gather(
            *(HeldRequests(ledger).hold(request, now=ASKED) for ledger, request in zip(replicas, wanted, strict=True))
        )
        assert found[0].id == found[1].id
        assert sum(one is two for one, two in zip(found, wanted, strict=True)) == 1


async def test_one_decision_is_made_and_told_once(replicas: list[Ledger]) -> None:
    sides = [HeldRequests(ledger) for ledger in replicas]
    for number in range(MANY):
        request = await sides[0].hold(replace(REQUEST, id=f"d{number}", slot=f"d{number}"), now=ASKED)
        decisions = [
            side.decide(request.id, state, by="x", reason="", now=ASKED)
            for side, state in zip(sides, (State.APPROVED, State.DENIED), strict=True)
        ]
        made = await asyncio.gather(*decisions, return_exceptions=True)
        assert sum(isinstance(one, HeldRequest) for one in made) == 1
        told = await asyncio.gather(*(side.news(now=ASKED) for side in sides))
        assert [row.id for rows in told for row in rows] == [request.id]
