"""Retries: which requests ask for the same, and for how long a certificate answers them after a lost answer.

A client that got no answer sends its request again, perhaps rebuilt and at another replica. It has no name for what it did (a CMC
transactionId is one), so it is known by what would be certified. Whatever changes the certificate makes another request: a certificate
that was not asked for is no answer. What a policy or a callout says by now is not asked: a retry gets what they said first.
"""

import hashlib
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa
from cryptography import x509

from estcore.certification_request import CertificationRequest
from estcore.registration import Authorized
from estserver.ledger_entry import Entry, digest
from estserver.ledger_schema import STATE_ISSUED, certificates

SHARE_OF_LIFE: Final = 3
"""A certificate answers retries for a third of what was left of its life: clients renew at half of it at the soonest."""


def asked_for(csr: CertificationRequest, authorized: Authorized) -> str:
    """SHA-256 in hex of all in a request that its certificate comes of. `csr` is as it was sent, and `authorized` what came of it."""
    asked, more = asked_by_name(csr, authorized), tuple(_life_and_kind(csr))
    return digest(asked, *more) if more else asked


def asked_by_name(csr: CertificationRequest, authorized: Authorized) -> str:
    """SHA-256 in hex of key, names and usages: what a transactionId stands for, for ever.

    Rows of every release are compared by this, and what is left of a life is less when a message is repeated later.
    """
    spki_sha256 = hashlib.sha256(csr.spki_der).hexdigest()
    names = sorted(map(_whole, authorized.sans))
    changed = [f"subject {authorized.subject.public_bytes().hex()}"] if csr.name_change is not None else []
    return digest(spki_sha256, csr.subject_der.hex(), *names, *sorted(csr.usages or ()), *changed)


def _life_and_kind(csr: CertificationRequest) -> Iterator[str]:
    if csr.ends_at is not None:
        yield f"until {csr.ends_at.isoformat()}"
    elif csr.duration is not None:
        yield f"for {csr.duration.total_seconds():.0f} s"
    if csr.ca:
        yield "CA"
    if csr.cmc_ra:
        yield "cmcRA"


def _whole(san: x509.GeneralName) -> str:
    """A name as it is; Issued has it as a log shows it, which may be shortened."""
    if isinstance(san, x509.OtherName):
        return f"OtherName:{san.type_id.dotted_string}:{san.value.hex()}"
    return f"{type(san).__name__}:{san.value}"


def answers(standing: Entry, *, retry_window: timedelta, now: datetime) -> bool:
    """Whether an earlier certificate is still the answer to a retry: it is not revoked since, and neither it nor the first try is old."""
    age, left = now - standing.recorded_at, standing.not_after - standing.recorded_at
    return standing.state == STATE_ISSUED and age < min(retry_window, left / SHARE_OF_LIFE)


def rows_that_answer(*, retry_window: timedelta, now: datetime) -> sa.ColumnElement[bool]:
    """As `answers`, of rows of `certificates`."""
    now_ms = int(now.timestamp() * 1000)
    age, left = now_ms - certificates.c.recorded_at, certificates.c.not_after * 1000 - certificates.c.recorded_at
    return sa.and_(
        certificates.c.state == STATE_ISSUED,
        certificates.c.recorded_at > now_ms - int(retry_window.total_seconds() * 1000),
        age * SHARE_OF_LIFE < left,
    )
