"""Revoking: the row of a certificate is marked, and from then on the certificate authenticates nobody and answers no retry.

Source: RFC 5272 section 6.11 (revokeRequest); reasons of RFC 5280 section 5.3.1.
"""

from datetime import datetime

import sqlalchemy as sa

from estserver.ledger import Entry, Ledger, from_row
from estserver.ledger_schema import STATE_ISSUED, STATE_REVOKED, certificates


async def find(ledger: Ledger, issuer: str, serial: int) -> Entry | None:
    """The entry of a certificate by issuer (key) and serial; None where this issuer recorded no such one. Raises LedgerUnavailable."""

    def read(connection: sa.Connection) -> Entry | None:
        row = connection.execute(sa.select(certificates).where(_is(issuer, serial))).mappings().one_or_none()
        return from_row(row) if row is not None else None

    return await ledger.transact(read)


async def revoke(ledger: Ledger, issuer: str, serial: int, *, reason: int, now: datetime) -> bool:
    """Mark a certificate as revoked; false where there is none, or it was revoked before (whose time and reason stay).

    `reason` is a CRLReason. Raises LedgerUnavailable.
    """

    def mark(connection: sa.Connection) -> bool:
        marked = certificates.update().where(_is(issuer, serial), certificates.c.state == STATE_ISSUED)
        values = {"state": STATE_REVOKED, "revoked_at": int(now.timestamp()), "revocation_reason": reason}
        return connection.execute(marked.values(values)).rowcount == 1

    done = await ledger.transact(mark)
    if done:
        ledger.note_revoked(issuer, serial)
    return done


def _is(issuer: str, serial: int) -> sa.ColumnElement[bool]:
    return sa.and_(certificates.c.issuer == issuer, certificates.c.serial == f"{serial:x}")
