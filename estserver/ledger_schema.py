"""The ledger's tables, and the check that a database is of this version.

Portable between SQLite and PostgreSQL on purpose: times are integers (seconds or milliseconds since the epoch), lists are JSON text.
A column that is added later comes with a new VERSION and a migration here; a database of another version is refused at start.
"""

from collections.abc import Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateTable

from estcore.errors import ConfigurationError

VERSION: Final = 2
_SCHEMA_LOCK: Final = 0x657374  # any number that nobody else takes

STATE_ISSUED: Final = "issued"
STATE_REVOKED: Final = "revoked"

_metadata = sa.MetaData()
_Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")  # only INTEGER PRIMARY KEY numbers itself in SQLite

version = sa.Table("ledger_version", _metadata, sa.Column("version", sa.Integer, primary_key=True))

certificates = sa.Table(
    "certificates",
    _metadata,
    sa.Column("id", _Id, primary_key=True),
    sa.Column("issuer", sa.Text, nullable=False),  # kind/namespace/name: a reinstall goes on with the same rows
    sa.Column("serial", sa.Text, nullable=False),  # lower-case hex
    sa.Column("subject", sa.Text, nullable=False),  # RFC 4514
    sa.Column("sans", sa.Text, nullable=False),  # JSON list of "DNS:a.example", …
    sa.Column("spki_sha256", sa.Text, nullable=False),
    sa.Column("not_before", sa.BigInteger, nullable=False),  # seconds since the epoch
    sa.Column("not_after", sa.BigInteger, nullable=False),
    sa.Column("door", sa.Text, nullable=False),
    sa.Column("requester", sa.Text, nullable=False),  # <how authenticated>:<identity>
    sa.Column("authenticated_by", sa.Text, nullable=False),
    sa.Column("operation", sa.Text, nullable=False),
    sa.Column("transaction", sa.Text),  # NULL: released, or exempt
    sa.Column("request_sha256", sa.Text, nullable=False),  # what was asked for: public key, names, usages
    sa.Column("der", sa.LargeBinary, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("recorded_at", sa.BigInteger, nullable=False),  # milliseconds since the epoch
    sa.Column("on_behalf_of", sa.Text),  # JSON of id-cmc-regInfo: whom a registration authority asked for
    sa.Column("revocation_secret", sa.Text),  # hash of the passphrase by which its holder may revoke it (RFC 7894 section 3.2)
    sa.Column("revoked_at", sa.BigInteger),  # seconds since the epoch
    sa.Column("revocation_reason", sa.Integer),  # CRLReason (RFC 5280 section 5.3.1)
    sa.UniqueConstraint("issuer", "serial", name="certificates_serial"),
    sa.UniqueConstraint("issuer", "requester", "transaction", name="certificates_transaction"),
)
spent = sa.Table(
    "spent",
    _metadata,
    sa.Column("scope", sa.Text, primary_key=True),  # what it is and whose: "digest", "otp EstIssuer/devices/factory", …
    sa.Column("value", sa.Text, primary_key=True),
    sa.Column("expires_at", sa.BigInteger, nullable=False),  # seconds since the epoch; afterwards it would be refused anyway
)
"""What is good for one use: whoever inserts the row first has it."""

shared_keys = sa.Table(
    "shared_keys",
    _metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("key", sa.LargeBinary, nullable=False),
)
"""Random keys that all workers and replicas must have alike; the first one makes them."""

requests = sa.Table(
    "requests",
    _metadata,
    sa.Column("id", sa.Text, primary_key=True),  # 16 hex digits, random: people type it, and clients hold it as a pendToken
    sa.Column("issuer", sa.Text, nullable=False),
    sa.Column("requester", sa.Text, nullable=False),  # as in certificates
    sa.Column("requested_by", sa.Text, nullable=False),  # JSON of the Requester
    sa.Column("operation", sa.Text, nullable=False),
    sa.Column("slot", sa.Text),  # digest of what is asked for; NULL: the same may be asked for anew
    sa.Column("spki_sha256", sa.Text, nullable=False),  # hex of the SubjectPublicKeyInfo's digest; empty: the server makes the key
    sa.Column("subject", sa.Text, nullable=False),  # RFC 4514
    sa.Column("sans", sa.Text, nullable=False),  # JSON list, as in certificates
    sa.Column("usages", sa.Text, nullable=False),  # JSON list
    sa.Column("csr", sa.LargeBinary, nullable=False),  # DER, as it came first
    sa.Column("source", sa.Text, nullable=False),  # address it came from first
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),  # seconds since the epoch
    sa.Column("expires_at", sa.BigInteger, nullable=False),  # when the state ends by itself
    sa.Column("announced", sa.Integer, nullable=False),  # 1: the audit log has the state
    sa.Column("decided_at", sa.BigInteger),
    sa.Column("decided_by", sa.Text),
    sa.Column("reason", sa.Text),
    sa.Column("serial", sa.Text),  # of its certificate, lower-case hex
    sa.UniqueConstraint("issuer", "requester", "slot", name="requests_slot"),
)
"""Requests by EST that wait, or waited, for a person. The row is the request, whatever shows it to people."""

_ADDED_IN_2: Final = ("on_behalf_of", "revocation_secret", "revoked_at", "revocation_reason")
_REVOKED_INDEX = sa.text(
    f"CREATE INDEX IF NOT EXISTS certificates_revoked ON certificates (issuer, serial) WHERE state = '{STATE_REVOKED}'"
)
_OPEN_INDEX = sa.text("CREATE INDEX IF NOT EXISTS requests_open ON requests (state, announced) WHERE state <> 'issued'")
_ENDED_INDEX = sa.text("CREATE INDEX IF NOT EXISTS requests_ended ON requests (expires_at)")
"""As text, which both databases read: sa.Index would load both dialects, 2 MiB of memory, to check its options."""
BEGINNING: Final = 128
"""Characters of names that are in an index: PostgreSQL fails the insert of a row whose index entry has more than a third of a page."""
SUBJECT_BEGINS: Final = f"substr(subject, 1, {BEGINNING})"
SANS_BEGIN: Final = f"substr(sans, 1, {BEGINNING})"
_NAMES_INDEX = sa.text(f"CREATE INDEX IF NOT EXISTS certificates_names ON certificates (issuer, {SUBJECT_BEGINS}, {SANS_BEGIN})")


_INSERTED: Final = tuple(column.name for column in certificates.columns if column.name != "id")
_values = itemgetter(*_INSERTED)


class BatchInsert:
    """INSERT … ON CONFLICT DO NOTHING of several rows in one statement, on whichever unique constraint.

    One statement and not one a row: sqlite3 lets go of the interpreter at each step of a statement, and beside a busy event loop
    getting it back is the slow part.
    """

    def __init__(self, dialect: sa.Dialect) -> None:
        self._dialect = dialect
        self._statements: dict[int, tuple[str, Sequence[str] | None]] = {}

    def execute(self, connection: sa.Connection, rows: Sequence[Mapping[str, object]]) -> int:
        """Insert rows (column → value) and return how many did not collide."""
        sql, names = self.statement(len(rows))
        values = tuple(chain.from_iterable(map(_values, rows)))
        return connection.exec_driver_sql(sql, values if names is None else dict(zip(names, values, strict=True))).rowcount

    def statement(self, rows: int) -> tuple[str, Sequence[str] | None]:
        """The text for so many rows, and the names of its parameters in the order of rows; None where the driver takes them by position."""
        statement = self._statements.get(rows)
        if statement is None:
            statement = self._statements[rows] = self._compile(rows)
        return statement

    def _compile(self, rows: int) -> tuple[str, Sequence[str] | None]:
        values: list[dict[str, object]] = [{name: sa.bindparam(f"{name}_{number}") for name in _INSERTED} for number in range(rows)]
        names = [f"{name}_{number}" for number in range(rows) for name in _INSERTED]
        compiled = insert_or_nothing(certificates, self._dialect.name).values(values).compile(dialect=self._dialect)
        if compiled.positiontup is None:
            return str(compiled), names
        assert list(compiled.positiontup) == names  # noqa: S101 - the order of the table's columns, row by row
        return str(compiled), None


def insert_or_nothing(table: sa.Table, dialect: str) -> sa.Insert:
    """INSERT … ON CONFLICT DO NOTHING for a dialect's name; its rowcount says whether the row went in."""
    if dialect == "postgresql":
        from sqlalchemy.dialects import postgresql  # not for a server on SQLite

        # for INSERT SQLAlchemy gives -1 with psycopg unless it is told to keep what the driver said
        return postgresql.insert(table).on_conflict_do_nothing().execution_options(preserve_rowcount=True)
    return sqlite.insert(table).on_conflict_do_nothing()


def prepare(connection: sa.Connection, *, where: str) -> None:
    """Make the tables in an empty database, or check that they are of this VERSION.

    Several processes may do so at once. Raises ConfigurationError for a ledger of another version, before anything in it is touched.
    """
    if connection.dialect.name == "postgresql":
        # CREATE TABLE IF NOT EXISTS of two sessions at once still fails there, on a system catalogue
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_SCHEMA_LOCK)))
    else:
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # sqlite3 begins no transaction by itself for CREATE
    connection.execute(CreateTable(version, if_not_exists=True))
    found = connection.execute(sa.select(version.c.version)).scalars().all()
    if any(number > VERSION for number in found):
        raise ConfigurationError(
            f"the ledger is of version {max(found)} and this program writes version {VERSION}; "
            "run the release that wrote it, or restore the backup made before it",
            where=where,
        )
    connection.execute(CreateTable(certificates, if_not_exists=True))
    connection.execute(_REVOKED_INDEX)
    for table in (spent, shared_keys, requests):
        connection.execute(CreateTable(table, if_not_exists=True))
    connection.execute(_OPEN_INDEX)
    connection.execute(_ENDED_INDEX)
    if found and max(found) < VERSION:
        _migrate(connection)
    connection.execute(insert_or_nothing(version, connection.dialect.name).values(version=VERSION))


def index_names(connection: sa.Connection) -> None:
    """Make the index by which certificates are found by their names, where it is not there yet.

    Made by whoever looks first and not with the tables: every enrolment pays for an index, and only registration authorities that renew for
    others need this one.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_SCHEMA_LOCK)))
    connection.execute(_NAMES_INDEX)


def _migrate(connection: sa.Connection) -> None:
    """From version 1: columns that may be empty, so a replica of the release before still writes its rows while it is replaced."""
    for name in _ADDED_IN_2:
        kind = certificates.c[name].type.compile(connection.dialect)
        connection.execute(sa.text(f"ALTER TABLE certificates ADD COLUMN {name} {kind}"))
    connection.execute(version.delete().where(version.c.version < VERSION))
