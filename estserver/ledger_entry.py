"""One row of the ledger's certificates, as the rest of the server sees it and as the table has it."""

import hashlib
from dataclasses import field
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import sqlalchemy as sa

from estcore.requester import AuthenticatedBy, Door
from estcore.value import value
from estserver.ledger_schema import STATE_ISSUED

_NOT_OF_AN_ENTRY = frozenset({"id", "revoked_at", "revocation_reason"})


@value(frozen=True, slots=True, kw_only=True)
class Entry:
    """One certificate as the ledger keeps it.

    `issuer`: kind/namespace/name. `requester`: how authenticated, colon, identity. `transaction`: unique with issuer and requester;
    None is exempt. `request_sha256`: hex digest of what was asked for. `retry_window`: how long this transaction keeps giving the
    same certificate; None is for ever. `on_behalf_of`: JSON that a registration authority sent along. `revocation_secret`: a hash.
    Times are aware UTC.
    """

    issuer: str
    serial: int
    subject: str
    sans: tuple[str, ...]
    spki_sha256: str
    not_before: datetime
    not_after: datetime
    door: Door
    requester: str
    authenticated_by: AuthenticatedBy
    operation: str
    transaction: str | None
    request_sha256: str
    der: bytes = field(repr=False)
    recorded_at: datetime
    state: str = STATE_ISSUED
    retry_window: timedelta | None = None
    on_behalf_of: str | None = None
    revocation_secret: str | None = field(default=None, repr=False)


def to_row(entry: Entry) -> dict[str, object]:
    """The row of an entry, column by column."""
    return {
        "issuer": entry.issuer,
        "serial": hex_serial(entry.serial),
        "subject": entry.subject,
        "sans": sans_text(entry.sans),
        "spki_sha256": entry.spki_sha256,
        "not_before": int(entry.not_before.timestamp()),
        "not_after": int(entry.not_after.timestamp()),
        "door": entry.door.value,
        "requester": entry.requester,
        "authenticated_by": entry.authenticated_by.value,
        "operation": entry.operation,
        "transaction": entry.transaction,
        "request_sha256": entry.request_sha256,
        "der": entry.der,
        "state": entry.state,
        "recorded_at": int(entry.recorded_at.timestamp() * 1000),
        "on_behalf_of": entry.on_behalf_of,
        "revocation_secret": entry.revocation_secret,
        "revoked_at": None,
        "revocation_reason": None,
    }


def sans_text(sans: tuple[str, ...]) -> str:
    """The column `sans` of names as they are described."""
    return orjson.dumps(sans).decode()


def from_row(row: sa.RowMapping) -> Entry:
    """The entry of a row of `certificates`."""
    fields: dict[str, Any] = {name: value for name, value in row.items() if name not in _NOT_OF_AN_ENTRY}
    for name in ("not_before", "not_after"):
        fields[name] = datetime.fromtimestamp(fields[name], UTC)
    fields["recorded_at"] = datetime.fromtimestamp(fields["recorded_at"] / 1000, UTC)
    fields["serial"] = int(fields["serial"], 16)
    fields["sans"] = tuple(orjson.loads(fields["sans"]))
    fields["door"] = Door(fields["door"])
    fields["authenticated_by"] = AuthenticatedBy(fields["authenticated_by"])
    return Entry(**fields)


def digest(*parts: str) -> str:
    """SHA-256 in hex; each part is preceded by its length, so no two lists of parts read alike."""
    return hashlib.sha256("".join(f"{len(part)}:{part}" for part in parts).encode()).hexdigest()


def hex_serial(serial: int) -> str:
    """The column `serial`."""
    return f"{serial:x}"
