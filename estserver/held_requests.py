"""Requests that wait for a person's approval: rows of the ledger, of which each replica and each command sees the same.

    waiting ──► approved ──► issued
       │  └───► denied
       └──────► expired ◄── approved

Every step is an update that names the state it leaves, so of two processes that race one makes it. A state ends by itself at
`expires_at`; then the same client may ask for the same anew. Rows that have ended stay for a while, as the record of who decided what.
Source: RFC 7030 section 4.2.3.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

import orjson
import sqlalchemy as sa

from estcore.errors import Busy, EstError
from estserver.ledger import Ledger
from estserver.ledger_schema import insert_or_nothing, requests

MAX_WAITING_PER_REQUESTER: Final = 100
"""Requests that one requester may have waiting at one issuer: people read the list."""
MAX_REASON: Final = 512
"""Characters of a decision's reason."""
MAX_LISTED: Final = 10_000
_TRIES: Final = 4
_IDS_AT_ONCE: Final = 500
_FORGOTTEN_AT_ONCE: Final = 500
_FULL_RETRY_AFTER: Final = timedelta(minutes=10)


class State(StrEnum):
    """Where a request is."""

    WAITING = "waiting"
    APPROVED = "approved"
    DENIED = "denied"
    ISSUED = "issued"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldRequest:
    """One request, with all that a person needs to judge it.

    `issuer` and `requester` as in the ledger's certificates; `requested_by` is JSON of the Requester. `slot` is the digest by which a
    repeat is known, None once the same may be asked for anew. `csr_der` is the request as it came first: a PKCS#10 CSR, or a CRMF
    message. `spki_sha256` is empty where the server makes the key. `announced`: the audit log has the state. Times are aware UTC.
    """

    id: str
    issuer: str
    requester: str
    requested_by: str = field(repr=False)
    operation: str
    slot: str | None
    spki_sha256: str
    subject: str
    sans: tuple[str, ...]
    usages: tuple[str, ...]
    csr_der: bytes = field(repr=False)
    source: str
    state: State = State.WAITING
    created_at: datetime
    expires_at: datetime
    announced: bool = True
    decided_at: datetime | None = None
    decided_by: str | None = None
    reason: str | None = None
    serial: int | None = None


class UndecidableRequest(EstError):
    """The request cannot be decided: it is not there, or it does not wait (any more)."""

    reason = "UndecidableRequest"
    http_status = 409


class HeldRequests:
    """The table `requests` of a ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def hold(self, wanted: HeldRequest, *, now: datetime) -> HeldRequest:
        """The row that stands for this request: the one of an earlier try, or `wanted`, which then waits (and has its own id).

        A row whose state is EXPIRED is returned once, so that the client hears of it; the next try is a new request. Raises Busy where
        the requester has too many waiting, LedgerUnavailable.
        """

        def find_or_insert(connection: sa.Connection) -> HeldRequest:
            for _ in range(_TRIES):
                standing = _one(connection, _stands_for(wanted))
                if standing is not None:
                    told = _told(connection, standing, now=now)
                    if told is not None:
                        return told
                _check_room(connection, wanted)
                statement = insert_or_nothing(requests, connection.dialect.name)
                if connection.execute(statement.values(_to_row(wanted))).rowcount == 1:
                    return wanted
            raise sa.exc.InvalidRequestError("no row stands for the request")

        return await self._ledger.transact(find_or_insert)

    async def find(self, request_id: str) -> HeldRequest | None:
        """The row of an id. Raises LedgerUnavailable."""
        return await self._ledger.transact(lambda connection: _one(connection, requests.c.id == request_id))

    async def listed(self, *states: State) -> list[HeldRequest]:
        """The rows in these states, or all of them, oldest first; MAX_LISTED at most. Raises LedgerUnavailable."""
        query = sa.select(requests).order_by(requests.c.created_at, requests.c.id).limit(MAX_LISTED)
        if states:
            query = query.where(requests.c.state.in_([state.value for state in states]))
        return await self._ledger.transact(lambda connection: [_from_row(row) for row in connection.execute(query).mappings()])

    async def of(self, request_ids: Sequence[str]) -> list[HeldRequest]:
        """The rows of those ids that there are. Raises LedgerUnavailable."""

        def read(connection: sa.Connection) -> list[HeldRequest]:
            found: list[HeldRequest] = []
            for start in range(0, len(request_ids), _IDS_AT_ONCE):
                query = sa.select(requests).where(requests.c.id.in_(request_ids[start : start + _IDS_AT_ONCE]))
                found += map(_from_row, connection.execute(query).mappings())
            return found

        return await self._ledger.transact(read) if request_ids else []

    async def decide(self, request_id: str, state: State, *, by: str, reason: str, now: datetime) -> HeldRequest:
        """Approve or deny what waits, for as long as it might have waited. Raises UndecidableRequest, LedgerUnavailable."""
        lasts = requests.c.expires_at - requests.c.created_at
        values = {
            "state": state.value,
            "announced": 0,
            "decided_at": _seconds(now),
            "decided_by": by[:MAX_REASON],
            "reason": reason[:MAX_REASON],
            "expires_at": lasts + _seconds(now),
        }
        waiting = (requests.c.id == request_id, requests.c.state == State.WAITING.value, requests.c.expires_at > _seconds(now))

        def update(connection: sa.Connection) -> tuple[bool, HeldRequest | None]:
            done = connection.execute(requests.update().where(*waiting).values(values)).rowcount == 1
            return done, _one(connection, requests.c.id == request_id)

        done, found = await self._ledger.transact(update)
        if found is None:
            raise UndecidableRequest(f"there is no request {request_id[:64]}")
        if not done:
            raise UndecidableRequest(_why_not(found))
        return found

    async def issued(self, request: HeldRequest, serial: int, *, now: datetime, retry_window: timedelta) -> None:
        """Its certificate is in the ledger; a repeat within `retry_window` still means this request. Raises LedgerUnavailable."""
        values = {"state": State.ISSUED.value, "serial": f"{serial:x}", "expires_at": _seconds(now + retry_window)}
        approved = (requests.c.id == request.id, requests.c.state == State.APPROVED.value)
        await self._ledger.transact(lambda connection: connection.execute(requests.update().where(*approved).values(values)).rowcount)

    async def news(self, *, now: datetime) -> list[HeldRequest]:
        """Expire what is over, and return each decision and each expiry once, to whichever process asks first. Raises LedgerUnavailable."""
        over = (requests.c.state.in_([State.WAITING.value, State.APPROVED.value]), requests.c.expires_at <= _seconds(now))
        unannounced = (requests.c.state != State.ISSUED.value, requests.c.announced == 0)

        def expire_and_take(connection: sa.Connection) -> list[HeldRequest]:
            if connection.execute(sa.select(requests.c.id).where(*over).limit(1)).first() is not None:
                connection.execute(requests.update().where(*over).values(state=State.EXPIRED.value, announced=0))
            rows = [_from_row(row) for row in connection.execute(sa.select(requests).where(*unannounced)).mappings()]
            return [row for row in rows if _take(connection, row)]

        return await self._ledger.transact(expire_and_take)

    async def forget(self, *, ended_before: datetime) -> int:
        """Delete rows that ended before a time, some hundreds at most; returns how many. Nothing that waits, is approved or is yet untold.

        Raises LedgerUnavailable.
        """
        final = sa.or_(
            requests.c.state == State.ISSUED.value,
            sa.and_(requests.c.state.in_([State.DENIED.value, State.EXPIRED.value]), requests.c.announced == 1),
        )
        over = sa.select(requests.c.id).where(requests.c.expires_at < _seconds(ended_before), final)
        some = over.order_by(requests.c.expires_at).limit(_FORGOTTEN_AT_ONCE)
        # final states are never left, so what was chosen is what is deleted
        return await self._ledger.transact(lambda connection: connection.execute(requests.delete().where(requests.c.id.in_(some))).rowcount)

    async def announce(self, request: HeldRequest) -> bool:
        """Whether it falls to the caller to write this state into the audit log. Raises LedgerUnavailable."""
        if request.announced:
            return False
        return await self._ledger.transact(lambda connection: _take(connection, request))


def _stands_for(wanted: HeldRequest) -> sa.ColumnElement[bool]:
    return sa.and_(requests.c.issuer == wanted.issuer, requests.c.requester == wanted.requester, requests.c.slot == wanted.slot)


def _told(connection: sa.Connection, standing: HeldRequest, *, now: datetime) -> HeldRequest | None:
    """What the client hears of a row, which may end with that; None where its time is over and the client knows it."""
    over = now >= standing.expires_at
    if not over and standing.state is not State.EXPIRED:
        return standing
    expires = standing.state in {State.WAITING, State.APPROVED}
    values: dict[str, object] = {"slot": None}
    if expires:
        values |= {"state": State.EXPIRED.value, "announced": 0}
    same = (requests.c.id == standing.id, requests.c.state == standing.state.value, requests.c.slot == standing.slot)
    connection.execute(requests.update().where(*same).values(values))
    if not expires and standing.state is not State.EXPIRED:
        return None
    return _one(connection, requests.c.id == standing.id)


def _check_room(connection: sa.Connection, wanted: HeldRequest) -> None:
    mine = (
        requests.c.issuer == wanted.issuer,
        requests.c.requester == wanted.requester,
        requests.c.state == State.WAITING.value,
    )
    if connection.execute(sa.select(sa.func.count()).select_from(requests).where(*mine)).scalar_one() >= MAX_WAITING_PER_REQUESTER:
        raise Busy(
            f"{MAX_WAITING_PER_REQUESTER} requests of yours wait for approval at this issuer already; try again when some were decided",
            retry_after=_FULL_RETRY_AFTER,
            reason="TooManyWaiting",
        )


def _take(connection: sa.Connection, row: HeldRequest) -> bool:
    mine = (requests.c.id == row.id, requests.c.state == row.state.value, requests.c.announced == 0)
    return connection.execute(requests.update().where(*mine).values(announced=1)).rowcount == 1


def _why_not(found: HeldRequest) -> str:
    if found.state is State.WAITING:
        return f"request {found.id} waited until {found.expires_at.isoformat()}; it expired"
    by = f" by {found.decided_by}" if found.decided_by else ""
    return f"request {found.id} is {found.state}{by}; only a waiting one can be decided"


def _one(connection: sa.Connection, where: sa.ColumnElement[bool]) -> HeldRequest | None:
    row = connection.execute(sa.select(requests).where(where)).mappings().one_or_none()
    return _from_row(row) if row is not None else None


_TIMES: Final = ("created_at", "expires_at", "decided_at")
_LISTS: Final = ("sans", "usages")


def _to_row(request: HeldRequest) -> dict[str, object]:
    row: dict[str, object] = {each.name: getattr(request, each.name) for each in fields(request)}
    row["csr"] = row.pop("csr_der")
    row["state"], row["announced"] = request.state.value, int(request.announced)
    row["serial"] = None if request.serial is None else f"{request.serial:x}"
    row.update({name: orjson.dumps(row[name]).decode() for name in _LISTS})
    row.update({name: _seconds(value) if isinstance(value := row[name], datetime) else None for name in _TIMES})
    return row


def _from_row(row: sa.RowMapping) -> HeldRequest:
    values: dict[str, Any] = dict(row)
    values["csr_der"] = bytes(values.pop("csr"))
    values["state"], values["announced"] = State(values["state"]), bool(values["announced"])
    values["serial"] = None if values["serial"] is None else int(values["serial"], 16)
    values.update({name: tuple(orjson.loads(values[name])) for name in _LISTS})
    values.update({name: None if values[name] is None else datetime.fromtimestamp(values[name], UTC) for name in _TIMES})
    return HeldRequest(**values)


def _seconds(moment: datetime) -> int:
    return int(moment.timestamp())


def shown_names(request: HeldRequest) -> Sequence[str]:
    """Subject and subjectAltNames as a person reads them."""
    return (*([request.subject] if request.subject else []), *request.sans)
