"""TLS client certificates as credentials: whose they are at one issuer, and if nobody's, why.

TLS proved that the client holds the leaf's key (connection.TlsConnection); everything else is `estcore.trust`, per issuer. The result
is kept with the connection, for a path check costs more than the rest of a request; time and revocation are asked each time, and the
path anew when the issuer's CA or anchors were replaced, or after a minute.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from estcore import trust
from estcore.errors import EstError, Unauthenticated
from estcore.requester import AuthenticatedBy, Requester
from estserver.issuers import Issuer

VERDICT_LIFE = timedelta(seconds=60)
"""How long a path check is believed on one connection: intermediates and anchors expire too."""


class Presented(Protocol):
    """A chain whose leaf's key the sender was seen to hold, and what was found of it: a TLS connection's, or a signed message's."""

    @property
    def unverified_client_chain(self) -> tuple[x509.Certificate, ...]:
        """The leaf first."""

    @property
    def verdicts(self) -> dict[str, object]:
        """Kept between checks of the same chain."""


IsRevoked = Callable[[str, int], bool]
"""Whether the ledger says that this issuer (key) revoked this serial."""


@dataclass(frozen=True, slots=True)
class _Verdict:
    outcome: Requester | EstError
    judged_by: tuple[object, object]
    judged_at: datetime


def issued_by_this(tls: Presented, issuer: Issuer, *, is_revoked: IsRevoked, now: datetime) -> Requester:
    """The owner of a certificate that this issuer signed (RFC 7030 section 3.3.2: it may enrol and re-enrol).

    With id-kp-cmcRA it is a registration authority of this issuer (section 3.7); from any other issuer that says nothing.

    Raises Unauthenticated with one sentence why not.
    """
    requester = _kept(tls, issuer, "this", _judge_own, now)
    _check_not_revoked(requester, issuer, is_revoked)
    return requester


def renewable(tls: Presented, issuer: Issuer, *, expired_for: timedelta | None, is_revoked: IsRevoked, now: datetime) -> Requester:
    """As `issued_by_this`, also of a certificate that expired at most `expired_for` ago: judged at its last moment, and never an RA's.

    For simplereenroll only, where a device that was switched off for too long renews itself. Raises Unauthenticated.
    """
    try:
        return issued_by_this(tls, issuer, is_revoked=is_revoked, now=now)
    except Unauthenticated as error:
        if error.reason != "Expired" or not expired_for:
            raise
    requester = _judge_own(tls, issuer, now, expired_for=expired_for)
    _check_not_revoked(requester, issuer, is_revoked)
    return replace(requester, registration_authority=False)


def under_anchors(tls: Presented, issuer: Issuer, secret_name: str, *, now: datetime) -> Requester:
    """The owner of a third party's certificate, such as a manufacturer's: it may enrol only (RFC 7030 section 3.3.2).

    The anchors are those of the Secret `secret_name`, which must be loaded.

    Raises Unauthenticated with one sentence why not.
    """

    def judge(tls: Presented, issuer: Issuer, now: datetime) -> Requester:
        leaf, *intermediates = tls.unverified_client_chain
        trust.verify_under_anchors(leaf, intermediates, issuer.anchors[secret_name], now=now)
        return _requester(leaf, AuthenticatedBy.THIRD_PARTY_CERTIFICATE)

    return _kept(tls, issuer, f"anchors {secret_name}", judge, now)


def _kept(tls: Presented, issuer: Issuer, way: str, judge: Callable[[Presented, Issuer, datetime], Requester], now: datetime) -> Requester:
    judged_by = (issuer.authority, issuer.secrets.anchors.value)
    key = f"{way} {issuer.key}"
    verdict = tls.verdicts.get(key)
    if not isinstance(verdict, _Verdict) or not _holds(verdict, judged_by, now):
        try:
            outcome: Requester | EstError = judge(tls, issuer, now)
        except EstError as error:
            outcome = error
        verdict = tls.verdicts[key] = _Verdict(outcome, judged_by, now)
    elif isinstance(verdict.outcome, Requester):
        trust.check_time(tls.unverified_client_chain[0], now=now)
    if isinstance(verdict.outcome, EstError):
        raise verdict.outcome.with_traceback(None)
    return verdict.outcome


def _holds(verdict: _Verdict, judged_by: tuple[object, object], now: datetime) -> bool:
    same = all(then is it for then, it in zip(verdict.judged_by, judged_by, strict=True))
    return same and verdict.judged_at <= now < verdict.judged_at + VERDICT_LIFE


def _check_not_revoked(requester: Requester, issuer: Issuer, is_revoked: IsRevoked) -> None:
    if requester.certificate is not None and is_revoked(issuer.key, requester.certificate.serial_number):
        raise Unauthenticated("it is revoked", reason="CertificateRevoked")


def _judge_own(tls: Presented, issuer: Issuer, now: datetime, *, expired_for: timedelta = timedelta(0)) -> Requester:
    leaf = tls.unverified_client_chain[0]
    if issuer.authority is None:
        raise Unauthenticated("this issuer is not ready to check it", reason="IssuerNotReady")
    trust.verify_issued_by(leaf, issuer.authority.present_and_former, now=now, expired_for=expired_for)
    return replace(_requester(leaf, AuthenticatedBy.CERTIFICATE), registration_authority=trust.is_registration_authority(leaf))


def _requester(leaf: x509.Certificate, authenticated_by: AuthenticatedBy) -> Requester:
    if authenticated_by is AuthenticatedBy.CERTIFICATE:
        identity = f"{hashlib.sha256(leaf.issuer.public_bytes()).hexdigest()}:{leaf.serial_number:x}"
    else:  # below several anchors CAs may have the same name, and give the same numbers
        identity = leaf.fingerprint(hashes.SHA256()).hex()
    return Requester(authenticated_by=authenticated_by, identity=identity, certificate=leaf)
