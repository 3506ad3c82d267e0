"""The database of a ledger, with what a ledger demands of it: one connection, and commits that are on disk."""

import sqlite3
import time
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

SQLITE_BUSY_TIMEOUT = timedelta(seconds=5)
SQLITE_BUSY_PAUSE = timedelta(milliseconds=10)


def engine_for(url: sa.URL) -> sa.Engine:
    """An engine of one connection, made ready for what a ledger demands of it."""
    # psycopg hands out the text of a database with SQL_ASCII, the default of an initdb without a locale, as bytes.
    encoding = {"client_encoding": "utf8"} if url.get_backend_name() == "postgresql" else {}
    engine = sa.create_engine(url, pool_size=1, max_overflow=0, hide_parameters=True, connect_args=encoding)
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _prepare_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _: object) -> None:
    """WAL, and every commit on disk before it counts: the answer leaves right after it."""
    connection.execute(f"PRAGMA busy_timeout={int(SQLITE_BUSY_TIMEOUT.total_seconds() * 1000)}")
    _switch_to_wal(connection)
    connection.execute("PRAGMA synchronous=FULL")


def _switch_to_wal(connection: Any) -> None:
    """SQLite does not wait by busy_timeout for the lock of this switch: of two that open a new database at once, one gets an error."""
    deadline = time.monotonic() + SQLITE_BUSY_TIMEOUT.total_seconds()
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(SQLITE_BUSY_PAUSE.total_seconds())
        else:
            return
