"""The ledger: durable, one winner per transaction whoever races, and never half of anything."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from estcore.errors import Busy, ConfigurationError, Conflict, LedgerUnavailable
from estcore.requester import AuthenticatedBy, Door
from estserver import ledger as ledger_module
from estserver import ledger_engine, ledger_schema, revocation
from estserver.ledger import Ledger
from estserver.ledger_entry import Entry
from estserver.spent import Spent
from tests.server.app_fixtures import NOW

WINDOW = timedelta(minutes=10)


def entry(serial: int = 1, *, transaction: str | None = "t", **fields: object) -> Entry:
    made = Entry(
        issuer="EstIssuer/devices/factory",
        serial=(1 << 128) + serial,
        subject="CN=device-1",
        sans=("DNS:a.example", "URI:spiffe://x/y"),
        spki_sha256="ab" * 32,
        not_before=NOW,
        not_after=NOW + timedelta(days=90),
        door=Door.EST,
        requester="basic:device-1",
        authenticated_by=AuthenticatedBy.BASIC,
        operation="simpleenroll",
        transaction=transaction,
        request_sha256="cd" * 32,
        der=b"\x30\x00",
        recorded_at=NOW,
        retry_window=WINDOW,
    )
    return replace(made, **fields)  # type: ignore[arg-type]  # a test names the fields it changes


def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'ledger.sqlite'}"


def rows(tmp_path: Path, query: str = "SELECT serial FROM certificates ORDER BY id") -> list[tuple[object, ...]]:
    with sqlite3.connect(tmp_path / "ledger.sqlite") as database:
        return database.execute(query).fetchall()


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    opened = await Ledger.open(url(tmp_path))
    yield opened
    await opened.aclose()


async def test_a_recorded_entry_is_a_row_with_everything_it_said(ledger: Ledger, tmp_path: Path) -> None:
    assert await ledger.record(entry()) == entry()
    (row,) = rows(
        tmp_path,
        "SELECT issuer, serial, subject, sans, not_before, not_after, door, requester, authenticated_by, operation,"
        ' "transaction", der, state FROM certificates',
    )
    assert row == (
        "EstIssuer/devices/factory",
        "1" + "0" * 31 + "1",
        "CN=device-1",
        '["DNS:a.example","URI:spiffe://x/y"]',
        int(NOW.timestamp()),
        int((NOW + timedelta(days=90)).timestamp()),
        "est",
        "basic:device-1",
        "basic",
        "simpleenroll",
        "t",
        b"\x30\x00",
        "issued",
    )


@pytest.mark.spec("THREAT-31")
async def test_the_second_entry_of_a_transaction_gets_the_first_back_as_it_was_written(ledger: Ledger, tmp_path: Path) -> None:
    await ledger.record(entry(1))
    winner = await ledger.record(entry(2, recorded_at=NOW + timedelta(minutes=9, seconds=59)))
    assert replace(winner, retry_window=WINDOW) == entry(1)
    assert len(rows(tmp_path)) == 1


@pytest.mark.spec("THREAT-31")
async def test_racers_in_one_batch_have_one_winner_and_their_neighbours_are_all_recorded(ledger: Ledger, tmp_path: Path) -> None:
    same = [entry(number) for number in range(10)]
    others = [entry(100 + number, transaction=f"other-{number}") for number in range(10)]
    exempt = [entry(200 + number, transaction=None) for number in range(5)]
    results = await asyncio.gather(*map(ledger.record, [*same, *others, *exempt]))
    assert len({result.serial for result in results[:10]}) == 1
    assert [result.serial for result in results[10:]] == [one.serial for one in (*others, *exempt)]
    assert len(rows(tmp_path)) == 16


def test_all_that_open_a_new_database_at_the_same_moment_have_it(tmp_path: Path) -> None:
    """SQLite does not wait by itself when two switch a new database to WAL; threads race here as processes do."""

    def _open(path: Path, barrier: threading.Barrier) -> None:
        engine = ledger_engine.engine_for(sa.make_url(f"sqlite:///{path}"))
        barrier.wait()
        with engine.begin() as connection:
            ledger_schema.prepare(connection, where="test")
        engine.dispose()

    with ThreadPoolExecutor(3) as threads:
        for number in range(30):
            barrier = threading.Barrier(3)
            for opened in [threads.submit(_open, tmp_path / f"{number}.sqlite", barrier) for _ in range(3)]:
                opened.result(timeout=30)


@pytest.mark.spec("THREAT-31")
async def test_two_processes_racing_on_the_same_transactions_have_one_winner_each(ledger: Ledger, tmp_path: Path) -> None:
    other = await Ledger.open(url(tmp_path))
    try:
        tries = [
            side.record(entry(2 * number + which, transaction=f"t{number}"))
            for number in range(50)
            for which, side in enumerate((ledger, other))
        ]
        results = await asyncio.gather(*tries)
    finally:
        await other.aclose()
    for one, two in zip(results[::2], results[1::2], strict=True):
        assert one.serial == two.serial
    assert len(rows(tmp_path)) == 50


async def test_transactions_of_other_requesters_and_issuers_are_others(ledger: Ledger, tmp_path: Path) -> None:
    for number, fields in enumerate(({}, {"requester": "basic:device-2"}, {"issuer": "EstIssuer/devices/other"}), start=1):
        assert (await ledger.record(entry(number, **fields))).serial == (1 << 128) + number
    assert len(rows(tmp_path)) == 3


async def test_after_the_window_the_transaction_is_released_and_both_rows_stay(ledger: Ledger, tmp_path: Path) -> None:
    await ledger.record(entry(1))
    later = NOW + WINDOW
    assert (await ledger.record(entry(2, recorded_at=later))).serial == (1 << 128) + 2
    assert (await ledger.record(entry(3, recorded_at=later + timedelta(minutes=1)))).serial == (1 << 128) + 2
    assert rows(tmp_path, 'SELECT "transaction" FROM certificates ORDER BY id') == [(None,), ("t",)]


@pytest.mark.spec("THREAT-30")
async def test_a_short_life_ends_the_window_at_a_third_of_what_was_left(ledger: Ledger) -> None:
    await ledger.record(entry(1, not_after=NOW + timedelta(minutes=6)))
    assert (await ledger.record(entry(2, recorded_at=NOW + timedelta(seconds=119)))).serial == (1 << 128) + 1
    assert (await ledger.record(entry(3, recorded_at=NOW + timedelta(minutes=2)))).serial == (1 << 128) + 3


async def test_without_window_a_transaction_stands_for_ever(ledger: Ledger) -> None:
    await ledger.record(entry(1, retry_window=None))
    winner = await ledger.record(entry(2, retry_window=None, recorded_at=NOW + timedelta(days=999)))
    assert winner.serial == (1 << 128) + 1


async def test_a_revoked_certificate_does_not_answer_a_retry(ledger: Ledger, tmp_path: Path) -> None:
    await ledger.record(entry(1))
    rows(tmp_path, "UPDATE certificates SET state = 'revoked'")
    assert (await ledger.record(entry(2))).serial == (1 << 128) + 2
    assert not ledger.is_revoked("EstIssuer/devices/factory", (1 << 128) + 1)
    await ledger.refresh_revoked()
    assert ledger.is_revoked("EstIssuer/devices/factory", (1 << 128) + 1)
    assert not ledger.is_revoked("EstIssuer/devices/other", (1 << 128) + 1)


async def test_the_same_key_for_another_request_is_a_conflict(ledger: Ledger, tmp_path: Path) -> None:
    await ledger.record(entry(1, retry_window=None))
    with pytest.raises(Conflict):
        await ledger.record(entry(2, retry_window=None, request_sha256="ef" * 32))
    assert len(rows(tmp_path)) == 1


async def test_a_reopened_ledger_goes_on(tmp_path: Path) -> None:
    for number in (1, 2):
        opened = await Ledger.open(url(tmp_path))
        winner = await opened.record(entry(number))
        await opened.aclose()
        assert winner.serial == (1 << 128) + 1


async def test_what_waits_is_written_before_the_ledger_closes(tmp_path: Path) -> None:
    opened = await Ledger.open(url(tmp_path), gather=timedelta(milliseconds=20))
    waiting = asyncio.gather(*(opened.record(entry(number, transaction=str(number))) for number in range(200)))
    await asyncio.sleep(0)
    await opened.aclose()
    assert len(await waiting) == len(rows(tmp_path)) == 200


async def test_one_entry_that_the_database_does_not_take_fails_alone(ledger: Ledger, tmp_path: Path) -> None:
    good = [ledger.record(entry(number, transaction=str(number))) for number in range(5)]
    bad = ledger.record(entry(99, transaction="bad", subject=None))
    results = await asyncio.gather(*good, bad, return_exceptions=True)
    assert [type(result) for result in results] == [Entry] * 5 + [LedgerUnavailable]
    assert len(rows(tmp_path)) == 5


async def test_a_ledger_that_cannot_be_written_says_so_and_works_again_when_it_can(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[bool] = []
    ledger.on_writable = told.append
    rows(tmp_path, "ALTER TABLE certificates RENAME TO away")
    with pytest.raises(LedgerUnavailable) as raised:
        await ledger.record(entry(1))
    assert raised.value.retry_after == timedelta(seconds=5)
    assert "away" not in raised.value.message
    rows(tmp_path, "ALTER TABLE away RENAME TO certificates")
    assert (await ledger.record(entry(2))).serial == (1 << 128) + 2
    assert told == [False, True]


async def test_the_line_of_entries_is_bounded(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "MAX_WAITING", 3)
    waiting = [asyncio.create_task(ledger.record(entry(number, transaction=str(number)))) for number in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(Busy):
        await ledger.record(entry(9))
    assert len(await asyncio.gather(*waiting)) == 3


async def test_a_request_that_went_away_leaves_its_neighbours_alone(ledger: Ledger, tmp_path: Path) -> None:
    gone = asyncio.create_task(ledger.record(entry(1, transaction="gone")))
    stays = asyncio.create_task(ledger.record(entry(2, transaction="stays")))
    await asyncio.sleep(0)
    gone.cancel()
    assert (await stays).serial == (1 << 128) + 2
    assert len(rows(tmp_path)) == 2, "recorded is recorded, whether or not somebody still waits"


async def test_every_commit_is_on_disk_before_it_counts(ledger: Ledger) -> None:
    def _pragmas() -> tuple[object, object]:
        connection = ledger._connect()
        return connection.exec_driver_sql("PRAGMA journal_mode").scalar(), connection.exec_driver_sql("PRAGMA synchronous").scalar()

    assert await ledger._in_thread(_pragmas) == ("wal", 2)


async def test_a_ledger_of_another_version_is_refused_at_start_and_not_touched(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "ledger.sqlite") as database:
        database.execute("CREATE TABLE ledger_version (version INTEGER PRIMARY KEY)")
        database.execute("INSERT INTO ledger_version VALUES (7)")
    with pytest.raises(ConfigurationError, match=r"ledger\.sqlite: the ledger is of version 7 and this program writes version 2"):
        await Ledger.open(url(tmp_path))
    assert rows(tmp_path, "SELECT name FROM sqlite_master WHERE type = 'table'") == [("ledger_version",)]


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        ("nonsense", "no usable database URL"),
        ("unknown://host/db", "no usable database URL"),
        ("sqlite:////nowhere/at/all.sqlite", "cannot be opened"),
    ],
)
async def test_a_ledger_that_cannot_be_opened_is_a_configuration_error(broken: str, expected: str) -> None:
    with pytest.raises(ConfigurationError, match=expected):
        await Ledger.open(broken)


async def test_a_file_that_is_no_database_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").write_bytes(b"not a database, but long enough to be looked at" * 100)
    with pytest.raises(ConfigurationError, match="not a database"):
        await Ledger.open(url(tmp_path))


async def test_the_password_of_a_database_is_in_no_error() -> None:
    with pytest.raises(ConfigurationError) as raised:
        await Ledger.open("postgresql+psycopg://est:hunter2@127.0.0.1:1/ledger?connect_timeout=1")
    assert "hunter2" not in raised.value.message


def test_statements_and_tables_are_portable_to_postgresql() -> None:
    dialect = postgresql.psycopg.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy's is untyped
    insert, names = ledger_schema.BatchInsert(dialect).statement(2)
    assert insert.endswith("ON CONFLICT DO NOTHING")
    assert "%(serial_0)s" in insert
    assert "%(serial_1)s" in insert
    assert names is not None  # psycopg takes parameters by name
    table = str(sa.schema.CreateTable(ledger_schema.certificates).compile(dialect=dialect))
    assert "id BIGSERIAL NOT NULL" in table
    assert "der BYTEA NOT NULL" in table


async def test_a_ledger_of_version_1_is_taken_over_with_its_rows(tmp_path: Path) -> None:
    ledger = await Ledger.open(url(tmp_path))
    await ledger.record(entry())
    await ledger.aclose()
    with sqlite3.connect(tmp_path / "ledger.sqlite") as database:
        for column in ("on_behalf_of", "revocation_secret", "revoked_at", "revocation_reason"):
            database.execute(f"ALTER TABLE certificates DROP COLUMN {column}")
        database.execute("UPDATE ledger_version SET version = 1")
        database.execute("DROP TABLE spent")
        database.execute("DROP TABLE shared_keys")

    ledger = await Ledger.open(url(tmp_path))
    try:
        assert rows(tmp_path, "SELECT version FROM ledger_version") == [(2,)]
        kept = await revocation.find(ledger, entry().issuer, entry().serial)
        assert kept is not None
        assert kept.serial == entry().serial
        assert await ledger.record(entry(2, transaction="another")) is not None
    finally:
        await ledger.aclose()


@pytest.mark.spec("EST-CMC-28")
async def test_a_revoked_certificate_is_known_as_such_at_once_and_after_a_restart(ledger: Ledger, tmp_path: Path) -> None:
    await ledger.record(entry())
    issuer = entry().issuer
    assert not await revocation.revoke(ledger, issuer, entry(2).serial, reason=1, now=NOW)
    assert await revocation.revoke(ledger, issuer, entry().serial, reason=1, now=NOW)
    assert not await revocation.revoke(ledger, issuer, entry().serial, reason=4, now=NOW)
    assert ledger.is_revoked(issuer, entry().serial)
    assert rows(tmp_path, "SELECT state, revoked_at, revocation_reason FROM certificates") == [("revoked", int(NOW.timestamp()), 1)]
    again = await Ledger.open(url(tmp_path))
    try:
        assert again.is_revoked(issuer, entry().serial)
    finally:
        await again.aclose()


async def test_what_is_good_for_one_use_is_used_once_though_two_processes_race(ledger: Ledger, tmp_path: Path) -> None:
    other = await Ledger.open(url(tmp_path))
    try:
        later = NOW + timedelta(minutes=5)
        spends = [Spent(each).spend("digest", "nonce", now=NOW, expires_at=later) for each in (ledger, other) * 10]
        assert sorted(await asyncio.gather(*spends)) == [False] * 19 + [True]
        assert await Spent(other).spend("otp", "nonce", now=NOW, expires_at=later)
        assert await Spent(ledger).shared_key("digest") == await Spent(other).shared_key("digest")
        assert await Spent(ledger).shared_key("digest") != await Spent(other).shared_key("else")
        await Spent(ledger).spend("digest", "another", now=NOW + timedelta(hours=1), expires_at=NOW + timedelta(hours=2))
        assert rows(tmp_path, "SELECT value FROM spent") == [("another",)]
    finally:
        await other.aclose()
