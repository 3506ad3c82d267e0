"""The ledger: every certificate is a durable row before it leaves, and one transaction never has two.

A retry of the same transaction gets the certificate of the first try. The winner is decided by the database's unique constraint, so
a lost answer, a restart, several workers and several replicas are one case. Writing is by group commit: entries of about 2 ms
go in one thread hop and one database transaction, for a hop and an fsync a request would cost more than the signature.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from estcore.errors import Busy, ConfigurationError, Conflict, EstError, LedgerUnavailable
from estserver import ledger_schema, retries
from estserver.ledger_engine import engine_for
from estserver.ledger_entry import Entry, from_row, hex_serial, to_row
from estserver.ledger_schema import STATE_REVOKED, certificates

GATHER = timedelta(milliseconds=2)
"""How long the first entry of a batch waits for company."""
MAX_BATCH = 64
MAX_WAITING = 2048
MAX_TRIES = 4

T = TypeVar("T")


class Ledger:
    """Use as: `ledger = await Ledger.open(url)`, `record`, `aclose`. One per process; several processes may share a database."""

    def __init__(self, engine: sa.Engine, *, gather: timedelta) -> None:
        self._engine = engine
        self._gather = gather.total_seconds()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._connection: sa.Connection | None = None
        self._insert = ledger_schema.BatchInsert(engine.dialect)
        self._waiting: list[tuple[Entry, asyncio.Future[Entry]]] = []
        self._writing: asyncio.Task[None] | None = None
        self._revoked: frozenset[tuple[str, int]] = frozenset()
        self._writable = True
        self.on_writable: Callable[[bool], None] = lambda _: None
        """Told when writing begins to fail, and when it works again."""

    @classmethod
    async def open(cls, url: str, *, gather: timedelta = GATHER) -> "Ledger":
        """Open the database at a SQLAlchemy URL (`sqlite:////var/lib/est/ledger.sqlite`, `postgresql+psycopg://…`), made where it is empty.

        Raises ConfigurationError where it cannot be opened or is of another version; the text never holds the URL's password.
        """
        where = "ledger"
        try:
            parsed = sa.make_url(url)
            where = f"ledger {parsed.render_as_string(hide_password=True)}"
            engine = engine_for(parsed)
        except (SQLAlchemyError, ImportError, TypeError) as error:
            raise ConfigurationError(f"it is no usable database URL ({type(error).__name__})", where=where) from error
        ledger = cls(engine, gather=gather)
        try:
            await ledger._in_thread(lambda: ledger._prepare(where))
            await ledger.refresh_revoked()
        except BaseException:
            await ledger.aclose()
            raise
        return ledger

    async def record(self, entry: Entry) -> Entry:
        """Make the entry durable, and return the entry that stands for its transaction: this one, or the one recorded before.

        Raises Conflict where the earlier one was asked for with other keys, names or usages; LedgerUnavailable where nothing is
        durable; Busy where too many wait.
        """
        if len(self._waiting) >= MAX_WAITING:
            raise Busy("too many certificates wait to be recorded; try again")
        recorded: asyncio.Future[Entry] = asyncio.get_running_loop().create_future()
        self._waiting.append((entry, recorded))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_batches(), name="ledger")
        winner = await recorded
        if winner.request_sha256 != entry.request_sha256:
            raise Conflict("this transaction was used before, for another key, other names or other usages: use a new transactionId")
        return winner

    def is_revoked(self, issuer: str, serial: int) -> bool:
        """Whether the ledger said so when it was last asked."""
        return (issuer, serial) in self._revoked

    async def transact(self, work: Callable[[sa.Connection], T]) -> T:
        """Run `work` in one transaction on the ledger's thread, for the tables beside certificates.

        Raises LedgerUnavailable where it cannot be committed; whatever else `work` raises rolls back and comes through.
        """

        def in_transaction() -> T:
            connection = self._connect()
            try:
                with connection.begin():
                    return work(connection)
            except SQLAlchemyError:
                self._forget_connection()
                raise

        return await self._in_thread(in_transaction)

    def note_revoked(self, issuer: str, serial: int) -> None:
        """This process revoked a certificate: it authenticates nobody from now on, before the next refresh."""
        self._revoked |= {(issuer, serial)}

    async def refresh_revoked(self) -> None:
        """Read again which certificates are revoked. Raises LedgerUnavailable; what was known before stays known."""
        self._revoked = await self._in_thread(self._read_revoked)

    async def keep_revoked_fresh(self, *, every: timedelta, on_error: Callable[[EstError], None]) -> None:
        """Refresh until cancelled; a failure is reported and tried again."""
        while True:
            await asyncio.sleep(every.total_seconds())
            try:
                await self.refresh_revoked()
            except EstError as error:
                on_error(error)

    async def aclose(self) -> None:
        """Write what waits, then close. Nothing may be recorded afterwards."""
        if self._writing is not None:
            await asyncio.wait([self._writing])
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=False)

    async def _write_batches(self) -> None:
        """One batch after the other until nothing waits; while one is being written the next one gathers."""
        try:
            await asyncio.sleep(self._gather)
            while self._waiting:
                batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
                await self._write_batch(batch)
        finally:
            self._writing = None

    async def _write_batch(self, batch: list[tuple[Entry, asyncio.Future[Entry]]]) -> None:
        entries = [entry for entry, _ in batch]
        results: Sequence[Entry | EstError]
        try:
            results = await self._in_thread(lambda: self._write_alone_if_needed(entries))
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait must hear of it
            results = [_unavailable(error)] * len(batch)
        self._notice(writable=not any(isinstance(result, LedgerUnavailable) for result in results))
        for (_, recorded), result in zip(batch, results, strict=True):
            if recorded.done():  # its request went away
                continue
            if isinstance(result, EstError):
                recorded.set_exception(result)
            else:
                recorded.set_result(result)

    def _notice(self, *, writable: bool) -> None:
        if writable is not self._writable:
            self._writable = writable
            self.on_writable(writable)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Run on the ledger's thread; foreign errors become LedgerUnavailable here and nowhere else."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except SQLAlchemyError as error:
            raise _unavailable(error) from error

    # what follows runs on the ledger's thread

    def _connect(self) -> sa.Connection:
        if self._connection is None or self._connection.closed or self._connection.invalidated:
            self._connection = self._engine.connect()
        return self._connection

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._engine.dispose()

    def _prepare(self, where: str) -> None:
        try:
            with self._connect().begin():
                ledger_schema.prepare(self._connect(), where=where)
        except SQLAlchemyError as error:
            raise ConfigurationError(f"it cannot be opened: {_cause(error)}", where=where) from error

    def _write_alone_if_needed(self, entries: list[Entry]) -> Sequence[Entry | EstError]:
        """Write all in one transaction, or each in its own where that failed: one bad entry never fails its neighbours."""
        try:
            return self._write(entries)
        except SQLAlchemyError as error:
            self._forget_connection()
            if len(entries) == 1:
                return [_unavailable(error)]
            if not _is_data_error(error):
                return [_unavailable(error)] * len(entries)
            return [self._write_alone_if_needed([entry])[0] for entry in entries]

    def _write(self, entries: list[Entry]) -> list[Entry]:
        connection = self._connect()
        with connection.begin():
            inserted = self._insert.execute(connection, [to_row(entry) for entry in entries])
            # where none collided, there is nothing to read again
            return entries if inserted == len(entries) else [self._winner(connection, entry) for entry in entries]

    def _winner(self, connection: sa.Connection, entry: Entry) -> Entry:
        """Which row stands for the entry's transaction, when some rows of its batch collided."""
        for _ in range(MAX_TRIES):
            row = connection.execute(_select_standing(entry)).mappings().one_or_none()
            if row is not None:
                standing = from_row(row)
                if standing.serial == entry.serial or _still_stands(standing, entry):
                    return standing
                released = certificates.update().where(certificates.c.id == row["id"], certificates.c.transaction == entry.transaction)
                connection.execute(released.values(transaction=None))
            if self._insert.execute(connection, [to_row(entry)]) == 1:
                return entry
        raise sa.exc.InvalidRequestError("no row stands for the transaction")

    def _read_revoked(self) -> frozenset[tuple[str, int]]:
        query = sa.select(certificates.c.issuer, certificates.c.serial).where(certificates.c.state == STATE_REVOKED)
        connection = self._connect()
        try:
            with connection.begin():
                return frozenset((issuer, int(serial, 16)) for issuer, serial in connection.execute(query))
        except SQLAlchemyError:
            self._forget_connection()
            raise

    def _forget_connection(self) -> None:
        """After an error the next use connects anew: a database that came back is used again."""
        if self._connection is not None:
            try:
                self._connection.invalidate()
                self._connection.close()
            except SQLAlchemyError:
                pass
            self._connection = None


def _select_standing(entry: Entry) -> sa.Select[Any]:
    query = sa.select(certificates).where(certificates.c.issuer == entry.issuer)
    if entry.transaction is None:
        return query.where(certificates.c.serial == hex_serial(entry.serial))
    return query.where(certificates.c.requester == entry.requester, certificates.c.transaction == entry.transaction)


def _still_stands(standing: Entry, retry: Entry) -> bool:
    """Whether an earlier row answers a retry: a transaction that has a name does so for ever, whatever became of its certificate."""
    return retry.retry_window is None or retries.answers(standing, retry_window=retry.retry_window, now=retry.recorded_at)


def _is_data_error(error: SQLAlchemyError) -> bool:
    """One entry is at fault, rather than the database."""
    return isinstance(error, sa.exc.DataError | sa.exc.IntegrityError) or not isinstance(error, sa.exc.DBAPIError)


def _unavailable(error: Exception) -> LedgerUnavailable:
    unavailable = LedgerUnavailable("the certificate cannot be recorded now, so it was not handed out; try again")
    unavailable.__cause__ = error
    return unavailable


def _cause(error: SQLAlchemyError) -> str:
    """The driver's own sentence, without the statement and its parameters."""
    original = getattr(error, "orig", None)
    return str(original or type(error).__name__).splitlines()[0]
