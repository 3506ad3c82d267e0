"""From an authorized request to a certificate in the ledger: the one place where estserver signs.

    Order → callouts.ask → approvals.require → authority.issue → ledger → Entry

Every operation that ends in a certificate comes here with an `Order`: enrolment, renewal, server-side key generation, Full PKI Requests,
requests that a person approved. Its `Authorized` was made by registration, where the requester was authenticated.
"""

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from estcore import authority
from estcore.authority import Authority, Issued
from estcore.certification_request import CertificationRequest
from estcore.errors import Busy, Conflict, EstError, Forbidden
from estcore.issuer_spec import IssuerSpec
from estcore.registration import Authorized
from estcore.requester import AuthenticatedBy, Requester
from estcore.value import value
from estserver import approval, audit, external_signer, retries, revocation_secret
from estserver.approval import Approvals
from estserver.audit import AuditLog, Outcome
from estserver.authentication import Authenticator
from estserver.callouts import Callouts
from estserver.csr_attributes import AdviceCache
from estserver.held_requests import HeldRequest, State
from estserver.issuers import Issuer
from estserver.key_generator import KeyGenerator
from estserver.ledger import Ledger
from estserver.ledger_entry import Entry, digest
from estserver.messages import Operation
from estserver.metrics import Metrics
from estserver.program_call import ProgramCalls
from estserver.spent import Spent
from estserver.throttle import Guesses

RETRY_WINDOW = timedelta(minutes=10)
"""How long the same key, names and requester get the same certificate: far longer than a client's retries, far shorter than a renewal."""

Clock = Callable[[], datetime]


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What the operations work with. `retry_window` of zero switches the recognition of retries off, but for named transactions."""

    authenticator: Authenticator
    guesses: Guesses
    """The authenticator's own: what is guessed in a message counts with what is guessed on connections."""
    ledger: Ledger
    spent: Spent
    approvals: Approvals
    callouts: Callouts
    programs: ProgramCalls
    audit: AuditLog
    metrics: Metrics
    clock: Clock
    csr_advice: AdviceCache = field(default_factory=AdviceCache)
    key_generator: KeyGenerator = field(default_factory=KeyGenerator)
    retry_window: timedelta = RETRY_WINDOW
    random_octets: Callable[[int], bytes] = secrets.token_bytes


@value(frozen=True, slots=True, kw_only=True)
class Order:
    """One certificate to be issued.

    `transaction` names it for ever (a CMC transactionId); without one a retry is known by what was asked for, within
    the retry window. `exempt` from both is server-side key generation: a retry gets a new key. `source` is the peer's address;
    `on_behalf_of` JSON of whom a registration authority asked for; `revocation_secret` the hash of a passphrase.
    `approved` is what `Approvals.require` said, where it had to be asked before a key was made; `permitted` is set by the function of
    that name.
    """

    issuer: Issuer
    spec: IssuerSpec
    authority: Authority
    operation: Operation
    requester: Requester
    csr: CertificationRequest
    authorized: Authorized
    source: str
    transaction: str | None = None
    exempt: bool = False
    on_behalf_of: str | None = None
    revocation_secret: str | None = None
    approved: HeldRequest | None = None
    permitted: bool = False

    @property
    def issuer_key(self) -> str:
        """kind/namespace/name."""
        return self.issuer.key


async def permitted(order: Order, service: Service) -> Order:
    """The order with what others have to say: the issuer's callout, which may narrow it, and a person. Asked once.

    `issue` asks by itself; who issues several certificates or none asks for each before the first is signed. Raises what `Callouts.ask` and
    `Approvals.require` raise.
    """
    order, held = await _permission(order, service)
    return replace(order, approved=held, permitted=True)


async def _permission(order: Order, service: Service) -> tuple[Order, HeldRequest | None]:
    """The order, narrowed where the callout did so, and what a person approved: as a pair, for to copy an order is dear on every path."""
    if order.permitted:
        return order, order.approved
    authorized = await service.callouts.ask(
        order.authorized, order.spec, issuer=order.issuer.key, operation=order.operation, source=order.source
    )
    if authorized is not order.authorized:
        order = replace(order, authorized=authorized)  # a person sees what would be certified
    return order, order.approved or await service.approvals.require(order, now=service.clock())


async def issue(order: Order, service: Service) -> Entry:
    """Sign, record, and return the entry that stands for the order's transaction: the new one, or that of an earlier try.

    Raises what `permitted`, `authority.issue` and `Ledger.record` raise; whatever was signed and not recorded goes nowhere.
    """
    order, held = await _permission(order, service)
    if held is not None:
        approval.check_is_for(held, order)
    if order.csr.revocation_challenge is not None:
        order = replace(order, revocation_secret=await revocation_secret.hash_passphrase(order.csr.revocation_challenge))
    serial = authority.serial_number(service.random_octets(16))
    transaction = _transaction(order, held)
    signature = _signature(order, transaction, serial)
    now = service.clock()
    service.audit.before(signature, now=now)
    try:
        issued = await _sign(order, service, now=now, serial=serial)
        standing = await _record(order, _entry(order, issued, held, transaction, service.retry_window, now=now), service, now=now)
    except BaseException as error:
        reason = error.reason if isinstance(error, EstError) else "InternalError"
        service.audit.after(signature, Outcome(result=reason), now=service.clock())
        if held is not None and isinstance(error, Conflict):
            raise Busy("another try of this request was served just now; try again") from error
        raise
    if held is not None:
        await service.approvals.issued(held, standing.serial, now=service.clock())
    repeated = standing.serial != issued.serial
    service.audit.after(signature, _outcome(standing, serial, repeated=repeated), now=service.clock())
    service.metrics.issued(order.issuer.key, order.requester.door, "repeated" if repeated else "issued")
    return standing


async def _record(order: Order, entry: Entry, service: Service, *, now: datetime) -> Entry:
    """As Ledger.record; what a one-time password was used for before is given again to its own retry only, within the retry window.

    The ledger's unique constraint is what spends the password: in the transaction that records the certificate, so of two replicas one
    has it, and a request that is refused for another reason has not used it up. Raises Forbidden for a used one.
    """
    if order.requester.single_use is None:
        return await service.ledger.record(entry)
    try:
        standing = await service.ledger.record(entry)
    except Conflict as error:
        raise _used() from error
    if standing.serial != entry.serial and not retries.answers(standing, retry_window=service.retry_window, now=now):
        raise _used()
    return standing


def _spender(requester: Requester) -> str | None:
    """Whose one-time password a certificate's row spends: alike whatever came beside it, for the row's key holds the requester too."""
    return f"{AuthenticatedBy.ONE_TIME_PASSWORD}:{requester.user}" if requester.single_use is not None else None


def _used() -> Forbidden:
    return Forbidden("this one-time password was used before; ask for another one", reason="OneTimePasswordUsed")


def _transaction(order: Order, held: HeldRequest | None) -> str | None:
    """The name of the order's transaction, where it has one. An approved request is one, whichever poll is served first.

    But for server-side key generation, where a retry gets a new key: there the first certificate is the request's transaction, and a
    retry afterwards is a retry like any other. A one-time password is one transaction, whatever it is used for.
    """
    if order.requester.single_use is not None:
        return order.requester.single_use
    if held is None:
        return order.transaction
    return None if order.exempt and held.state is State.ISSUED else approval.transaction(held)


async def _sign(order: Order, service: Service, *, now: datetime, serial: int) -> Issued:
    policy = order.spec.policy
    if order.spec.signer is None:
        return authority.issue(order.authority, order.authorized, policy, now=now, serial=serial)
    return await external_signer.sign(
        service.programs, order.spec.signer.exec_, order.authority, order.authorized, policy, issuer=order.issuer.key, now=now
    )


def _signature(order: Order, transaction: str | None, serial: int) -> audit.Signature:
    return audit.signature(
        issuer=order.issuer.key,
        policy=f"{order.issuer.uid}/{order.issuer.generation}",
        operation=order.operation,
        door=order.requester.door,
        requester=str(order.requester),
        source=order.source,
        csr_sha256=hashlib.sha256(order.csr.csr_der).hexdigest(),
        serial=f"{serial:x}",
        transaction=transaction,
    )


def _outcome(standing: Entry, serial: int, *, repeated: bool) -> Outcome:
    return Outcome(
        result="repeated" if repeated else "issued",
        subject=standing.subject,
        sans=standing.sans,
        not_after=standing.not_after,
        standing_serial=f"{standing.serial:x}" if standing.serial != serial else None,
    )


def _entry(
    order: Order, issued: Issued, held: HeldRequest | None, transaction: str | None, retry_window: timedelta, *, now: datetime
) -> Entry:
    """The row of a certificate. What makes two requests the same transaction is its name, or what was asked for and by whom."""
    requester = order.requester
    who = _spender(requester) or str(requester)
    if held is not None:  # its repeats were found by this already
        asked_for = digest(issued.spki_sha256, held.slot or "")
    else:
        asked = retries.asked_by_name if transaction is not None and transaction == order.transaction else retries.asked_for
        asked_for = asked(order.csr, order.authorized)
    window: timedelta | None = None
    if transaction is None and retry_window and not order.exempt:
        # What the CA of before signed is no answer to a retry: where a Secret was mended meanwhile nobody trusts it.
        transaction, window = digest(order.operation, who, asked_for, order.authority.certificate_sha256), retry_window
    return Entry(
        issuer=order.issuer.key,
        serial=issued.serial,
        subject=issued.subject,
        sans=issued.sans,
        spki_sha256=issued.spki_sha256,
        not_before=issued.not_before,
        not_after=issued.not_after,
        door=requester.door,
        requester=who,
        authenticated_by=requester.authenticated_by,
        operation=order.operation,
        transaction=transaction,
        request_sha256=asked_for,
        der=issued.certificate_der,
        recorded_at=now,
        retry_window=window,
        on_behalf_of=order.on_behalf_of,
        revocation_secret=order.revocation_secret,
    )
