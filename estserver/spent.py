"""What is good for one use, across workers and replicas: one-time passwords, nonces of Digest and CMC.

The ledger's database decides: whoever inserts the row first has it. Rows whose time is over are swept, for what they guard would be
refused by then anyway.
"""

import secrets
from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa

from estserver.ledger import Ledger
from estserver.ledger_schema import insert_or_nothing, shared_keys, spent

SWEEP_EVERY: Final = timedelta(minutes=10)
SHARED_KEY_OCTETS: Final = 32


class Spent:
    """The table `spent` of a ledger, and the keys that its users share."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._swept_at: datetime | None = None

    async def spend(self, scope: str, value: str, *, now: datetime, expires_at: datetime) -> bool:
        """Use `value` up; false where it was used before. Durable when this returns. Raises LedgerUnavailable."""
        sweep = self._swept_at is None or now - self._swept_at >= SWEEP_EVERY

        def insert(connection: sa.Connection) -> bool:
            if sweep:
                connection.execute(spent.delete().where(spent.c.expires_at < int(now.timestamp())))
            row = {"scope": scope, "value": value, "expires_at": int(expires_at.timestamp()) + 1}
            return connection.execute(insert_or_nothing(spent, connection.dialect.name).values(row)).rowcount == 1

        first = await self._ledger.transact(insert)
        if sweep:
            self._swept_at = now
        return first

    async def shared_key(self, name: str) -> bytes:
        """32 random octets that every process on this database has alike under this name. Raises LedgerUnavailable."""

        def make_or_read(connection: sa.Connection) -> bytes:
            mine = {"name": name, "key": secrets.token_bytes(SHARED_KEY_OCTETS)}
            connection.execute(insert_or_nothing(shared_keys, connection.dialect.name).values(mine))
            return bytes(connection.execute(sa.select(shared_keys.c.key).where(shared_keys.c.name == name)).scalar_one())

        return await self._ledger.transact(make_or_read)
