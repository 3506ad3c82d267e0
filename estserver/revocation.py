"""Revoking: the row of a certificate is marked, and from then on the certificate authenticates nobody and answers no retry.

Source: RFC 5272 section 6.11 (revokeRequest); reasons of RFC 5280 section 5.3.1.
"""

from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa

from estserver.ledger import Ledger
from estserver.ledger_entry import Entry, from_row, to_row
from estserver.ledger_schema import STATE_ISSUED, STATE_REVOKED, certificates

SUPERSEDED: Final = 4
"""CRLReason (RFC 5280 section 5.3.1)."""


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


async def supersede(ledger: Ledger, standing: Entry, *, within: timedelta, now: datetime) -> tuple[int, ...]:
    """Revoke what the same requester got by the same operation for the same names shortly before; returns the serials.

    For an operation whose repeat gives another key: whoever asks again has not got the first one. Of two that run at once each revokes
    only what was recorded before its own, so the last one stands. Raises LedgerUnavailable.
    """

    def mark(connection: sa.Connection) -> tuple[int, ...]:
        own_id = sa.select(certificates.c.id).where(_is(standing.issuer, standing.serial)).scalar_subquery()
        row = to_row(standing)
        same = [certificates.c[name] == row[name] for name in ("issuer", "requester", "operation", "subject", "sans")]
        earlier = (certificates.c.id < own_id, certificates.c.recorded_at > int((now - within).timestamp() * 1000))
        found = sa.select(certificates.c.serial).where(*same, *earlier, certificates.c.state == STATE_ISSUED)
        serials = connection.execute(found).scalars().all()
        if serials:
            marked = certificates.update().where(certificates.c.issuer == standing.issuer, certificates.c.serial.in_(serials))
            connection.execute(marked.values(state=STATE_REVOKED, revoked_at=int(now.timestamp()), revocation_reason=SUPERSEDED))
        return tuple(int(serial, 16) for serial in serials)

    revoked = await ledger.transact(mark)
    for serial in revoked:
        ledger.note_revoked(standing.issuer, serial)
    return revoked


def _is(issuer: str, serial: int) -> sa.ColumnElement[bool]:
    return sa.and_(certificates.c.issuer == issuer, certificates.c.serial == f"{serial:x}")
