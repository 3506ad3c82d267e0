"""What a Full PKI Request asks about certificates that there are: revoke them, hand them out again, note that they were accepted.

RFC 5272 sections 6.9, 6.11 and 6.14. Judged before anything is signed, done after. To whoever may not have an answer a certificate that
is not theirs is one that does not exist.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from estcore import cmc_controls as controls
from estcore.authority import Authority
from estcore.cmc_controls import Control, Status
from estcore.cmc_status import BodyPartPath, CmcStatus, StatusInfo
from estcore.der import SEQUENCE
from estcore.der_reader import Reader
from estcore.errors import CmcFailed, CmcFailInfo, EstError, MalformedBody, Unauthenticated
from estcore.full_processing import Layer
from estcore.names import parse_name, same_name
from estserver import revocation, revocation_secret
from estserver.full_cmc_requester import Sender
from estserver.issuers import Issuer
from estserver.issuing import Service
from estserver.ledger_entry import Entry
from estserver.throttle import Throttle

REVOCATION_REASONS: Final = frozenset({0, 1, 2, 3, 4, 5, 9, 10})
"""CRLReason (RFC 5280 section 5.3.1) but for certificateHold (6) and removeFromCRL (8): a revocation here is for ever."""
FREE_FAILURES: Final = 5
LONGEST_PAUSE: Final = timedelta(minutes=1)
_DIRECTORY_NAME: Final = 0xA4

_guesses = Throttle(free=FREE_FAILURES, longest=LONGEST_PAUSE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookups:
    """What was found and may be done: certificates to revoke with a CRLReason, to hand out, and that were accepted, by control."""

    revocations: tuple[tuple[BodyPartPath, Entry, int], ...] = ()
    fetched: tuple[Entry, ...] = ()
    accepted: tuple[BodyPartPath, ...] = ()
    requester: str = field(default="nobody")


def check_needs_nobody(layer: Layer, why_nobody: EstError | None) -> None:
    """Let a message that nobody vouches for pass only where it does nothing but revoke with a passphrase (RFC 5272 section 6.11).

    Raises what the connection said why it shows nobody, or Unauthenticated.
    """
    revokes = [value for _, value in layer.instructions.each(controls.RevokeRequest)]
    acts = any(
        isinstance(value, controls.GetCert | controls.QueryPending | controls.ConfirmCertAcceptance)
        for _, value in layer.instructions.values
    )
    if revokes and all(value.passphrase is not None for value in revokes) and not acts and not layer.body.requests:
        return
    raise why_nobody or Unauthenticated("authenticate: sign the message, prove an identity in it, or authenticate on the connection")


async def judge(issuer: Issuer, authority: Authority, service: Service, layer: Layer, sender: Sender) -> Lookups:
    """Find every certificate that the controls of a layer are about, and whether the sender may have what it asks.

    Raises CmcFailed with the control: badCertId for a certificate that is not there or not the sender's, badRequest for a reason that is
    not taken; badRequest for the whole where the message asks for nothing at all.
    """
    revocations: list[tuple[BodyPartPath, Entry, int]] = []
    fetched: list[Entry] = []
    accepted: list[BodyPartPath] = []
    asked = bool(layer.body.requests) or bool(layer.nested)
    for number, value in layer.instructions.values:
        here = (*layer.path, number)
        match value:
            case controls.RevokeRequest():
                entry = await _find(service, issuer, authority, value.issuer_name_der, value.serial_number, here)
                await _check_may_revoke(value, entry, sender, issuer, service, here)
                revocations.append(((number,), entry, value.reason))
            case controls.GetCert():
                entry = await _find(service, issuer, authority, _directory_name(value.issuer_name_der), value.serial_number, here)
                _check_owned(entry, sender, here)
                fetched.append(entry)
            case controls.ConfirmCertAcceptance():
                entry = await _find(service, issuer, authority, value.issuer_der, value.serial_number, here)
                _check_owned(entry, sender, here)
                accepted.append((number,))
            case controls.QueryPending():
                pass  # estserver.full_cmc_pending answers it
            case _:
                continue
        asked = True
    if not asked:
        raise _failed(
            "the message asks for nothing: it holds no certification request and no control that asks", CmcFailInfo.BAD_REQUEST, (0,)
        )
    return Lookups(
        revocations=tuple(revocations),
        fetched=tuple(fetched),
        accepted=tuple(accepted),
        requester=str(sender.requester) if sender.requester is not None else "passphrase",
    )


async def perform(lookups: Lookups, issuer: Issuer, service: Service, *, now: datetime) -> tuple[list[bytes], list[Control]]:
    """Revoke, and say what is to be said: DER of certificates handed out, and a status for each thing done."""
    said: list[Control] = []
    for here, entry, reason in lookups.revocations:
        if await revocation.revoke(service.ledger, issuer.key, entry.serial, reason=reason, now=now):
            service.audit.revoked(issuer.key, f"{entry.serial:x}", reason, requester=lookups.requester, now=now)
        said.append(Status(StatusInfo(status=CmcStatus.SUCCESS, body_parts=(here,))))
    said += [Status(StatusInfo(status=CmcStatus.SUCCESS, body_parts=(here,))) for here in lookups.accepted]
    return [entry.der for entry in lookups.fetched], said


async def _find(
    service: Service, issuer: Issuer, authority: Authority, issuer_name_der: bytes, serial_number: int, here: BodyPartPath
) -> Entry:
    """The ledger's entry of a certificate of this issuer. Raises CmcFailed (badCertId)."""
    entry = None
    if _is_name_of(authority.certificate, issuer_name_der) and 0 < serial_number < 1 << 160:
        entry = await revocation.find(service.ledger, issuer.key, serial_number)
    if entry is None:
        raise _unknown(here)
    return entry


def _is_name_of(ca_certificate: x509.Certificate, issuer_name_der: bytes) -> bool:
    try:
        return same_name(parse_name(issuer_name_der), ca_certificate.subject)
    except EstError:
        return False


def _directory_name(general_name_der: bytes) -> bytes:
    """The DER Name in a GeneralName; empty for one of another kind, which names no issuer."""
    try:
        reader = Reader(general_name_der, what="the issuer's name")
        return reader.inside(_DIRECTORY_NAME).whole(SEQUENCE)
    except MalformedBody:
        return b""


def _check_owned(entry: Entry, sender: Sender, here: BodyPartPath) -> None:
    if not _owns(sender, entry):
        raise _unknown(here)


def _owns(sender: Sender, entry: Entry) -> bool:
    """Whether it is the sender's: by the certificate's own key, as who got it, or as a registration authority of this CA."""
    requester = sender.requester
    if requester is None:
        return False
    if sender.registration_authority or str(requester) == entry.requester:
        return True
    signer = sender.signatory.certificate
    # The whole certificate: that of a third party has whatever serial number its CA likes.
    return signer is not None and requester.certificate == signer and signer.public_bytes(Encoding.DER) == entry.der


async def _check_may_revoke(
    value: controls.RevokeRequest, entry: Entry, sender: Sender, issuer: Issuer, service: Service, here: BodyPartPath
) -> None:
    if value.reason not in REVOCATION_REASONS:
        raise _failed(
            f"a revocation is for ever here, so the reason {value.reason} is not taken; use one of {sorted(REVOCATION_REASONS)}",
            CmcFailInfo.BAD_REQUEST,
            here,
        )
    if _owns(sender, entry):
        return
    if value.passphrase is None:
        raise _unknown(here)
    key = f"{issuer.key} {entry.serial:x}"
    _guesses.check(key, now=service.clock())
    if not await revocation_secret.matches(entry.revocation_secret, value.passphrase):
        _guesses.failed(key, now=service.clock())
        raise _failed("the passphrase is not that of this certificate", CmcFailInfo.BAD_IDENTITY, here)


def _unknown(here: BodyPartPath) -> CmcFailed:
    return _failed("this issuer has no such certificate of yours", CmcFailInfo.BAD_CERT_ID, here)


def _failed(message: str, fail_info: CmcFailInfo, here: BodyPartPath) -> CmcFailed:
    return CmcFailed(message, fail_info=fail_info, body_parts=(here,))
