"""Renewals that a registration authority asks for: the certificate that is to be renewed is one that the ledger has.

Its holder shows a certificate by TLS; a registration authority shows its own one or a token, so what it renews is found by the names in the
CSR, which are those of the certificate (RFC 7030 sections 3.7 and 4.2.2).
"""

import hashlib
from datetime import datetime, timedelta
from typing import Any, Final
from weakref import WeakSet

import sqlalchemy as sa
from cryptography import x509

from estcore.certification_request import CertificationRequest
from estcore.errors import Forbidden
from estcore.issuer_spec import IssuerSpec, KeyReuse
from estcore.names import describe_general_name, describe_name, same_general_names, same_name
from estcore.registration import key_reused, subject_alternative_names
from estcore.requester import Requester
from estserver import ledger_schema, retries
from estserver.ledger import Ledger
from estserver.ledger_entry import sans_text
from estserver.ledger_schema import STATE_ISSUED, certificates
from estserver.messages import Operation

MAX_LOOKED_AT: Final = 10
"""Rows with the same names as they are described: a description may be shortened, so the certificates themselves are compared."""

_indexed: Final[WeakSet[Ledger]] = WeakSet()


async def check_vouched(
    requester: Requester,
    csr: CertificationRequest,
    ledger: Ledger,
    *,
    issuer: str,
    spec: IssuerSpec,
    retry_window: timedelta,
    now: datetime,
) -> None:
    """Check that this issuer (key) has issued what a registration authority asks to renew, and that the policy lets its key be used again.

    A certificate counts that is not revoked, and valid or expired for as short as the issuer lets its holder renew it. Where the policy
    forbids it, no certificate of these names may ever have had the CSR's key, but for the one that an earlier try of this request got.
    Raises Forbidden (NotRenewable, KeyReused), LedgerUnavailable.
    """
    expired_for = max(
        (way.certificate.expired_for or timedelta(0) for way in spec.est.authentication if way.certificate), default=timedelta(0)
    )
    found, reused = (
        _renewable(issuer, csr, since=now - expired_for),
        _with_its_key(issuer, csr, requester, retries.rows_that_answer(retry_window=retry_window, now=now)),
    )

    def look(connection: sa.Connection) -> tuple[list[bytes], bool]:
        if ledger not in _indexed:
            ledger_schema.index_names(connection)
        has_key = spec.policy.key_reuse is KeyReuse.FORBIDDEN and connection.execute(reused).first() is not None
        return [bytes(der) for der in connection.execute(found).scalars()], has_key

    certificates_der, has_key = await ledger.transact(look)
    _indexed.add(ledger)
    if not any(_has_names_of(x509.load_der_x509_certificate(der), csr) for der in certificates_der):
        raise Forbidden(
            "this issuer has no certificate to renew with this subject and subjectAltName, as they stand in it (RFC 7030 section 4.2.2): "
            "use simpleenroll",
            reason="NotRenewable",
        )
    if has_key:
        raise key_reused()


def _named(issuer: str, csr: CertificationRequest) -> sa.ColumnElement[bool]:
    subject, sans = describe_name(csr.subject), sans_text(tuple(map(describe_general_name, csr.sans)))
    return sa.and_(
        certificates.c.issuer == issuer,
        sa.literal_column(ledger_schema.SUBJECT_BEGINS) == subject[: ledger_schema.BEGINNING],
        sa.literal_column(ledger_schema.SANS_BEGIN) == sans[: ledger_schema.BEGINNING],
        certificates.c.subject == subject,
        certificates.c.sans == sans,
    )


def _renewable(issuer: str, csr: CertificationRequest, *, since: datetime) -> sa.Select[Any]:
    stands = (certificates.c.state == STATE_ISSUED, certificates.c.not_after >= int(since.timestamp()))
    query = sa.select(certificates.c.der).where(_named(issuer, csr), *stands)
    return query.order_by(certificates.c.id.desc()).limit(MAX_LOOKED_AT)


def _with_its_key(issuer: str, csr: CertificationRequest, requester: Requester, answers: sa.ColumnElement[bool]) -> sa.Select[Any]:
    earlier_try = sa.and_(
        certificates.c.requester == str(requester),
        certificates.c.operation == Operation.SIMPLE_REENROLL.value,
        answers,
    )
    its_key = certificates.c.spki_sha256 == hashlib.sha256(csr.spki_der).hexdigest()
    return sa.select(certificates.c.id).where(_named(issuer, csr), its_key, sa.not_(earlier_try)).limit(1)


def _has_names_of(certificate: x509.Certificate, csr: CertificationRequest) -> bool:
    return same_name(certificate.subject, csr.subject) and same_general_names(subject_alternative_names(certificate), csr.sans)
