"""The ledger on a real PostgreSQL, two replicas on it: what is good for one use is used once, and one request is one row."""

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from estcore import issuer_spec, pkcs10
from estcore.errors import Forbidden
from estcore.requester import AuthenticatedBy, Requester
from estserver import renewals
from estserver.held_requests import HeldRequest, HeldRequests, State
from estserver.ledger import Ledger
from estserver.spent import Spent
from tests.integration.postgresql import PostgreSQL
from tests.server.app_fixtures import NOW, SPEC, leaf, make_csr, new_key
from tests.server.test_ledger import entry
from tests.server.test_requests_command import ASKED, REQUEST

MANY = 20
HOUR = timedelta(hours=1)


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


@pytest.mark.spec("EST-REENR-02", "EST-REENR-04")
async def test_what_a_registration_authority_renews_is_found_by_its_names_and_long_ones_are_recorded_all_the_same(
    replicas: list[Ledger],
) -> None:
    """PostgreSQL refuses a row whose index entry is longer than a third of a page."""
    key = new_key()
    certificate, csr = leaf(key=key), pkcs10.parse(make_csr(key=key))
    ra = Requester(authenticated_by=AuthenticatedBy.SERVICE_ACCOUNT_TOKEN, identity="est/ra", registration_authority=True)

    async def check(ledger: Ledger, key_reuse: str = "Allowed") -> None:
        spec = issuer_spec.parse({**SPEC, "policy": {**SPEC["policy"], "keyReuse": key_reuse}}, where="factory")
        await renewals.check_vouched(ra, csr, ledger, issuer="EstIssuer/devices/renewals", spec=spec, retry_window=HOUR, now=NOW)

    for found in await asyncio.gather(*(check(ledger) for ledger in replicas), return_exceptions=True):
        assert isinstance(found, Forbidden)
        assert found.reason == "NotRenewable"
    row = replace(
        entry(9_000, transaction="renewals"),
        issuer="EstIssuer/devices/renewals",
        subject="CN=device-1",
        sans=(),
        spki_sha256=hashlib.sha256(csr.spki_der).hexdigest(),
        der=certificate.public_bytes(Encoding.DER),
        not_after=certificate.not_valid_after_utc,
    )
    await replicas[0].record(row)
    await asyncio.gather(*(check(ledger) for ledger in replicas))
    with pytest.raises(Forbidden) as raised:
        await check(replicas[1], "Forbidden")
    assert raised.value.reason == "KeyReused"
    long_names = tuple(f"DNS:{number}{'x' * 60}.example" for number in range(100))
    long = replace(row, serial=9_001, transaction="long", subject="CN=" + "ü" * 4_000, sans=long_names)
    assert await replicas[0].record(long) == long
