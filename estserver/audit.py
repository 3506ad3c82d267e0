"""The audit log: who asked for which certificate and what became of it, one event before and one after each signature.

A request that waits for a person has an event of its own for each step.

Events are chained: each holds its number, and the SHA-256 of the line before it, so a line that is altered, taken out or put in
breaks the chain at that place. Each process has a chain of its own. `python -m estserver.audit < log` checks all chains of a
log, whatever other lines are between.
"""

import hashlib
import json
import re
import sys
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Final

from estcore.value import value
from estserver.logs import Render, Write, clean

if TYPE_CHECKING:
    from estserver.held_requests import HeldRequest  # whoever checks a log need not load a database

BEFORE: Final = "signing"
AFTER: Final = "signed"
REVOKED: Final = "revoked"

_FIRST: Final = "0" * 64
_KEYVALUE_CHAIN = re.compile(
    rb"audit=(?P<audit>[a-z]+) chain=(?P<chain>[0-9a-f]+) number=(?P<number>[0-9]+) previous=(?P<previous>[0-9a-f]{64}) "
)


Signature = Mapping[str, object]
"""What both events of one signature say; `signature` makes it."""


def signature(
    *,
    issuer: str,
    policy: str,
    operation: str,
    door: str,
    requester: str,
    source: str,
    csr_sha256: str,
    serial: str,
    transaction: str | None,
) -> Signature:
    """The facts as a log may show them. `policy` names the policy in force: uid and generation of the issuer."""
    return {
        "issuer": issuer,
        "policy": policy,
        "operation": operation,
        "door": door,
        "requester": clean(requester),
        "source": source,
        "csr_sha256": csr_sha256,
        "serial": serial,
        "transaction": clean(transaction),
    }


@value(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a signature.

    `result`: issued; repeated, where the earlier certificate of the same transaction was handed out instead; or the reason of the error
    after which nothing was. `standing_serial` is the serial of what was handed out, where it is not the one that was announced: that of
    the earlier certificate, or the one that an external signer chose.
    """

    result: str
    subject: str | None = None
    sans: tuple[str, ...] = ()
    not_after: datetime | None = None
    standing_serial: str | None = None


class AuditLog:
    """Writes the events; `write` gets each line whole and must have kept it when it returns."""

    def __init__(self, write: Write, render: Render, *, chain: str) -> None:
        self._write = write
        self._render = render
        self._chain = chain
        self._number = 0
        self._previous = _FIRST

    def before(self, signature: Signature, *, now: datetime) -> None:
        """The signer is about to sign."""
        self._append(BEFORE, now, signature)

    def after(self, signature: Signature, outcome: Outcome, *, now: datetime) -> None:
        """What became of it."""
        self._append(
            AFTER,
            now,
            {
                **signature,
                "result": outcome.result,
                "subject": clean(outcome.subject),
                "sans": clean(outcome.sans),
                "not_after": outcome.not_after,
                "standing_serial": outcome.standing_serial,
            },
        )

    def request(self, event: str, request: "HeldRequest", *, now: datetime) -> None:
        """A request waits for a person, or does not any more: `event` is waiting, approved, denied or expired."""
        self._append(
            event,
            now,
            {
                "issuer": request.issuer,
                "operation": request.operation,
                "requester": clean(request.requester),
                "source": clean(request.source),
                "csr_sha256": hashlib.sha256(request.csr_der).hexdigest(),
                "request": request.id,
                "subject": clean(request.subject),
                "sans": clean(request.sans),
                "spki_sha256": request.spki_sha256,
                "by": clean(request.decided_by),
                "reason": clean(request.reason),
            },
        )

    def revoked(self, issuer: str, serial: str, reason: int, *, requester: str, now: datetime) -> None:
        """A certificate was revoked, with a CRLReason; `serial` is lower-case hex."""
        self._append(REVOKED, now, {"issuer": issuer, "serial": serial, "reason": reason, "requester": clean(requester)})

    def _append(self, event: str, now: datetime, facts: Mapping[str, object]) -> None:
        self._number += 1
        line = self._render(
            {"audit": event, "chain": self._chain, "number": self._number, "previous": self._previous, "timestamp": now, **facts}
        )
        self._previous = hashlib.sha256(line).hexdigest()
        self._write(line + b"\n")


class BrokenChain(Exception):
    """An audit event was altered, taken out or put in; the text says where."""


def verify(lines: Iterable[bytes]) -> int:
    """Check the chains in a log's lines and return how many events they hold.

    A log may begin within a chain (older files are elsewhere) and a chain's last event has no successor that would vouch for it.
    Raises BrokenChain.
    """
    last: dict[str, tuple[int, str]] = {}
    events = 0
    for position, line in enumerate(lines, start=1):
        raw = line.rstrip(b"\r\n")
        link = _read_link(raw)
        if link is None:
            continue
        chain, number, previous = link
        before = last.get(chain)
        if before is not None and (number, previous) != (before[0] + 1, before[1]):
            raise BrokenChain(f"line {position}: event {number} of chain {chain} does not follow event {before[0]}")
        if before is None and number == 1 and previous != _FIRST:
            raise BrokenChain(f"line {position}: the first event of chain {chain} follows another one")
        last[chain] = (number, hashlib.sha256(raw).hexdigest())
        events += 1
    return events


def _read_link(line: bytes) -> tuple[str, int, str] | None:
    """Chain, number and previous hash of an audit event; None for any other line."""
    match = _KEYVALUE_CHAIN.match(line)
    if match is not None:
        return match["chain"].decode(), int(match["number"]), match["previous"].decode()
    if not line.startswith(b'{"audit"'):
        return None
    try:
        event = json.loads(line)
        return str(event["chain"]), int(event["number"]), str(event["previous"])
    except (ValueError, KeyError):
        raise BrokenChain("an audit event cannot be read") from None


def main() -> int:
    """Check the log on standard input; the exit status says whether it is whole."""
    try:
        events = verify(sys.stdin.buffer)
    except BrokenChain as broken:
        sys.stderr.write(f"{broken}\n")
        return 1
    sys.stdout.write(f"{events} audit events, no chain is broken\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
