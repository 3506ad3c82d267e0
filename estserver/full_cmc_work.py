"""Doing what one message of a Full PKI Request asks: register, sign, record; revoke and look up.

Everything is judged before the first signature (threats row 9), and of several requests none is signed where one is refused.
"""

import hashlib
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from estcore import cmc_controls as controls
from estcore import full_processing, profile
from estcore.cmc_controls import Control
from estcore.cmc_status import BodyPartPath, failure_of
from estcore.errors import CmcFailed, CmcFailInfo, Forbidden, RequestError
from estcore.full_processing import Requests
from estcore.requester import Requester
from estserver import full_cmc_lookups, full_cmc_pending, issuing, operations, reg_info
from estserver.full_cmc_exchange import Exchange, Part, register
from estserver.issuing import Order

NONCE_LIFE: Final = timedelta(hours=24)
"""How long a senderNonce is remembered. A message that is repeated later has its transactionId, which gives the same certificate."""
_CHALLENGE_OCTETS: Final = 48
_POP_KEY: Final = "cmc-pop"


class Unproven(CmcFailed):
    """Requests proved nothing; `challenges` go with the refusal (RFC 5272 section 6.7)."""

    def __init__(self, paths: Sequence[BodyPartPath], challenges: Sequence[controls.EncryptedPop]) -> None:
        super().__init__(
            "the key's possession is not proven: answer the encryptedPOP, or let a registration authority vouch for it",
            fail_info=CmcFailInfo.POP_REQUIRED,
            body_parts=paths,
            reason="NotProven",
        )
        self.challenges = tuple(challenges)


async def perform(exchange: Exchange, part: Part, *, around: Part | None = None) -> tuple[list[bytes], list[Control]]:
    """Do what one message asks: DER of certificates, and what is to be said beside them.

    Everything is judged first, then the nonce is spent, and only then is anything signed, recorded or revoked. A registration authority
    `around` the message vouches for its requests, as it does for a CSR that it sends to simpleenroll; what the message asks about
    certificates that there are is its own sender's.
    """
    orders = await _orders(exchange, part, around or part) if part.requests else {}
    polls = await full_cmc_pending.judge(exchange, part)
    lookups = await full_cmc_lookups.judge(exchange.issuer, exchange.authority, exchange.service, part.layer, part.sender)
    await _spend_nonce(exchange, part)
    approved, waiting = await full_cmc_pending.approved(exchange, part, orders)
    certificates = [await _issue(exchange, path, order) for path, order in (*approved, *polls.orders)]
    found, said = await full_cmc_lookups.perform(lookups, exchange.issuer, exchange.service, now=exchange.now)
    return [*certificates, *polls.issued, *found], [*waiting, *polls.waiting, *said]


async def _issue(exchange: Exchange, path: BodyPartPath, order: Order) -> bytes:
    try:
        return (await issuing.issue(order, exchange.service)).der
    except RequestError as error:
        raise failure_of(error).about(path) from error


async def _orders(exchange: Exchange, part: Part, vouching: Part) -> dict[BodyPartPath, Order]:
    requester = vouching.sender.requester
    if requester is None:
        raise Forbidden("nobody vouches for this message", reason="Unauthenticated")
    requests = await _proven(exchange, part, requester)
    told = reg_info.read(vouching.layer.instructions.one(controls.RegInfo), vouching.sender)
    requester = told.requester(requester)
    transaction = part.layer.instructions.one(controls.TransactionId) or vouching.layer.instructions.one(controls.TransactionId)
    if requester.single_use is not None and len(requests) > 1:
        raise CmcFailed(
            "a one-time password is good for one certification request", fail_info=CmcFailInfo.BAD_REQUEST, body_parts=list(requests)
        )
    orders: dict[BodyPartPath, Order] = {}
    for path, csr in requests.items():
        try:
            operations.check_binding(exchange.request, requester, csr, exchange.spec)
            authorized, renewal = register(requester, csr, exchange.spec)
            exchange.service.csr_advice.check(exchange.issuer, exchange.spec, requester, csr, names=not renewal)
            if len(requests) > 1:  # of several none is signed where the profile refuses one; of one it is asked when that is signed
                profile.plan(authorized, exchange.spec.policy, now=exchange.now, ca_certificate=exchange.authority.certificate)
        except RequestError as error:
            raise failure_of(error).about(path) from error
        orders[path] = Order(
            issuer=exchange.issuer,
            spec=exchange.spec,
            authority=exchange.authority,
            operation=exchange.request.operation,
            requester=requester,
            csr=csr,
            authorized=authorized,
            source=exchange.request.source,
            transaction=_transaction(transaction, path),
            on_behalf_of=told.on_behalf_of,
        )
    return orders


def _transaction(transaction: controls.TransactionId | None, path: BodyPartPath) -> str | None:
    """The ledger's key of one request of a transaction: an answer that was lost is given again, never a second certificate."""
    return None if transaction is None else f"cmc/{transaction.number:x}/{'.'.join(map(str, path))}"


async def _proven(exchange: Exchange, part: Part, requester: Requester) -> Requests:
    """The requests, each proven. Raises Unproven with a challenge for those that are not."""
    requests = part.requests
    answers = any(True for _ in part.layer.instructions.each(controls.DecryptedPop))
    if all(request.proven for request in requests.values()) and not answers:
        return requests
    server_key = await exchange.service.spent.shared_key(_POP_KEY)
    recipient = f"{exchange.issuer.key} {requester}".encode()
    if answers:
        requests = full_processing.answered(requests, part.layer, server_key=server_key, recipient=recipient)
    unproven = [path for path, request in requests.items() if not request.proven]
    if unproven:
        random = [exchange.service.random_octets(_CHALLENGE_OCTETS) for _ in part.layer.body.requests]
        challenges = full_processing.challenges(requests, part.layer, server_key=server_key, recipient=recipient, random=random)
        raise Unproven(unproven, challenges)
    return requests


async def _spend_nonce(exchange: Exchange, part: Part) -> None:
    """A senderNonce is good for one message of its sender (threats row 17)."""
    nonce = part.layer.instructions.one(controls.SenderNonce)
    if nonce is None:
        return
    scope = f"cmc {exchange.issuer.key} {part.sender.requester or 'nobody'}"
    value = hashlib.sha256(nonce.octets).hexdigest()
    if not await exchange.service.spent.spend(scope, value, now=exchange.now, expires_at=exchange.now + NONCE_LIFE):
        raise CmcFailed(
            "this senderNonce was used before: make the message anew with another one; the same transactionId gives the same certificate",
            fail_info=CmcFailInfo.BAD_REQUEST,
            body_parts=[(*part.layer.path, number) for number, _ in part.layer.instructions.each(controls.SenderNonce)],
            reason="NonceUsed",
        )
