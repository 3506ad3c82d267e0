"""Full PKI Requests that wait for a person: pending with a token, and what queryPending gets for it.

RFC 5272 sections 6.1.1 and 6.13; waiting itself is `estserver.approval`'s. The token is what the request waits as. It is no secret: only
whom the request belongs to gets an answer by it. pendTime stays what it was, for a later pendInfo equals the first.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from estcore import cert_template, crmf, pkcs10
from estcore import cmc_controls as controls
from estcore.certification_request import CertificationRequest
from estcore.cmc_controls import Control, Status
from estcore.cmc_status import BodyPartPath, CmcStatus, PendInfo, StatusInfo, failure_of
from estcore.errors import AwaitingApproval, BadCsr, CmcFailed, CmcFailInfo, EstError, MalformedBody, RequestError
from estserver import approval, issuing, revocation
from estserver.approval import SHORTEST_RETRY
from estserver.full_cmc_exchange import Exchange, Part, register
from estserver.held_requests import HeldRequest, State
from estserver.issuing import Order

_MAX_TOKEN_OCTETS: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Polls:
    """What became of the requests that a message asked about: to be signed now, issued before, and still waiting."""

    orders: tuple[tuple[BodyPartPath, Order], ...] = ()
    issued: tuple[bytes, ...] = ()
    waiting: tuple[Control, ...] = ()


async def approved(
    exchange: Exchange, part: Part, orders: Mapping[BodyPartPath, Order]
) -> tuple[list[tuple[BodyPartPath, Order]], list[Control]]:
    """The orders as a callout and a person permit them; or none of them, and a pending status for each that waits.

    Raises CmcFailed for one that is refused, denied or has expired.
    """
    ready: list[tuple[BodyPartPath, Order]] = []
    waiting: list[Control] = []
    for path, order in orders.items():
        try:
            ready.append((path, await issuing.permitted(order, exchange.service)))
        except AwaitingApproval as error:
            waiting.append(_pending(error, path[len(part.layer.path) :]))
        except RequestError as error:
            raise failure_of(error).about(path) from error
    return ([], waiting) if waiting else (ready, [])


async def judge(exchange: Exchange, part: Part) -> Polls:
    """Answer each queryPending of a message. Raises CmcFailed (badRequest) for a token that is not the sender's, or was denied."""
    orders: list[tuple[BodyPartPath, Order]] = []
    issued: list[bytes] = []
    waiting: list[Control] = []
    for number, value in part.layer.instructions.each(controls.QueryPending):
        here = (*part.layer.path, number)
        held = await _find(exchange, part, value.token, here)
        match held.state:
            case State.WAITING:
                waiting.append(_pending(approval.awaiting(held, now=exchange.now), (number,)))
            case State.APPROVED:
                orders.append((here, _order(exchange, part, held, here)))
            case State.ISSUED if held.serial is not None:
                entry = await revocation.find(exchange.service.ledger, exchange.issuer.key, held.serial)
                issued += [entry.der] if entry is not None else []
            case _:
                reason = f": {held.reason}" if held.reason else ""
                raise _failed(f"request {held.id} was {held.state}{reason}", here)
    return Polls(orders=tuple(orders), issued=tuple(issued), waiting=tuple(waiting))


def _pending(error: AwaitingApproval, path: BodyPartPath) -> Status:
    pend_info = PendInfo(token=error.request_id.encode(), time=error.asked_at + SHORTEST_RETRY)
    return Status(StatusInfo(status=CmcStatus.PENDING, body_parts=(path,), text=error.message, pend_info=pend_info))


async def _find(exchange: Exchange, part: Part, token: bytes, here: BodyPartPath) -> HeldRequest:
    requester = part.sender.requester
    held = None
    if token.isalnum() and len(token) <= _MAX_TOKEN_OCTETS and requester is not None:
        held = await exchange.service.approvals.held.find(token.decode("ascii"))
    # What waits at another operation has no token. Nobody proved the key in a CSR at serverkeygen, so it must never be certified.
    there = (exchange.issuer.key, str(requester), exchange.request.operation)
    if held is None or (held.issuer, held.requester, held.operation) != there:
        raise _failed("no request of yours waits under this token", here)
    return held


def _order(exchange: Exchange, part: Part, held: HeldRequest, here: BodyPartPath) -> Order:
    """The order for a request that was approved: as it came first, judged anew by the policy that is in force now."""
    requester = part.sender.requester
    assert requester is not None  # noqa: S101 - it was found by its requester
    try:
        csr = _parse(exchange, held)
        authorized, _ = register(requester, csr, exchange.spec)
    except EstError as error:
        raise failure_of(error).about(here) from error
    return Order(
        issuer=exchange.issuer,
        spec=exchange.spec,
        authority=exchange.authority,
        operation=exchange.request.operation,
        requester=requester,
        csr=csr,
        authorized=authorized,
        source=exchange.request.source,
        approved=held,
    )


def _parse(exchange: Exchange, held: HeldRequest) -> CertificationRequest:
    """A PKCS#10 CSR or a CRMF message: their beginnings are alike. Its possession was proven before it was held."""
    try:
        csr = pkcs10.parse(held.csr_der, accept_no_signature=True, accept_ca=True)
    except (MalformedBody, BadCsr):
        # A notBefore was near the time when it came. A notAfter alone is an end, however long a person took.
        message = crmf.parse(held.csr_der, now=held.created_at)
        csr, validity = message.request, message.template.validity
        if validity is not None and validity[0] is None:
            csr = replace(csr, duration=cert_template.duration(validity, now=exchange.now))
    return replace(csr, proven=True)


def _failed(message: str, here: BodyPartPath) -> CmcFailed:
    return CmcFailed(message, fail_info=CmcFailInfo.BAD_REQUEST, body_parts=(here,), reason="UnknownToken")
