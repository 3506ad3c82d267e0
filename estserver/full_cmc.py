"""The operation fullcmc: a Full PKI Request in, certificates or a Full PKI Response out (RFC 7030 section 4.3, RFC 5272).

    decode → open → parse requests → who sent it → which controls may it give → batch → prove and change → register every request
    → spend the nonce → sign, record → revoke, look up → answer

Nothing is signed before the whole message was understood and permitted (threats row 9, step-ca CVE-2025-44005): every control, every
request and every registration comes before the first signature. Members of a batch are judged each on its own.
"""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding

from estcore import cmc_control_codec, enveloped_data, full_processing, pki_response, profile, transfer, trust_publication
from estcore import cmc_controls as controls
from estcore.authority import Authority
from estcore.cmc_controls import Control, Status
from estcore.cmc_status import BodyPartPath, CmcStatus, StatusInfo, failure_of
from estcore.errors import CmcFailed, CmcFailInfo, EstError, Forbidden, RequestError, SignerError, UnsupportedMediaType
from estcore.exchange import media_type
from estcore.full_message import FullMessage, open_message
from estcore.full_processing import Layer, Requests
from estcore.instructions import read_instructions
from estcore.pki_data import PkiData, TaggedContentInfo
from estcore.requester import Requester
from estserver import full_cmc_lookups, full_cmc_pending, full_cmc_requester, full_cmc_response, issuing, operations, reg_info
from estserver.full_cmc_exchange import Exchange, Part, register
from estserver.full_cmc_response import CmcRefused
from estserver.issuers import Issuer
from estserver.issuing import Order, Service
from estserver.messages import EstRequest, EstResponse

MEDIA_PKCS7: Final = "application/pkcs7-mime"
NONCE_OCTETS: Final = 16
NONCE_LIFE: Final = timedelta(hours=24)
"""How long a senderNonce is remembered. A message that is repeated later has its transactionId, which gives the same certificate."""
_CHALLENGE_OCTETS: Final = 48
_POP_KEY: Final = "cmc-pop"


@dataclass(slots=True)
class _Heard:
    """What is known of a request so far, for the answer to it when it fails."""

    values: Sequence[Control] = ()
    signed_by: Authority | None = None
    nobody: bool = False
    """The message was understood, and what is wrong is that nobody is known to have sent it."""


class _Unproven(CmcFailed):
    """Requests proved nothing; `challenges` go with the refusal (RFC 5272 section 6.7)."""

    def __init__(self, paths: Sequence[BodyPartPath], challenges: Sequence[controls.EncryptedPop]) -> None:
        super().__init__(
            "the key's possession is not proven: answer the encryptedPOP, or let a registration authority vouch for it",
            fail_info=CmcFailInfo.POP_REQUIRED,
            body_parts=paths,
            reason="NotProven",
        )
        self.challenges = tuple(challenges)


async def full_cmc(request: EstRequest, issuer: Issuer, service: Service) -> EstResponse:
    """Answer a Full PKI Request. Raises CmcRefused, which holds the Full PKI Response that says why."""
    heard = _Heard()
    try:
        spec, ca = operations.ready(request, issuer, service, media_type=MEDIA_PKCS7)
        _check_smime_type(request)
        exchange = Exchange(request=request, issuer=issuer, spec=spec, authority=ca, service=service, now=service.clock())
        return await _answer(exchange, heard)
    except EstError as error:
        raise CmcRefused(error, _refusal(error, heard, request, service)) from error
    except Exception as error:
        hidden = SignerError("internal error; the server's log says more")
        raise CmcRefused(hidden, _refusal(hidden, heard, request, service)) from error


def _check_smime_type(request: EstRequest) -> None:
    _, parameters = media_type(request.content_type or "")
    if parameters.get("smime-type", "CMC-request").lower() != "cmc-request":
        raise UnsupportedMediaType("fullcmc takes Content-Type: application/pkcs7-mime; smime-type=CMC-request (RFC 7030 section 4.3.1)")


def _refusal(error: EstError, heard: _Heard, request: EstRequest, service: Service) -> bytes:
    failure = failure_of(error)
    if heard.nobody:
        failure = CmcFailed(error.message, fail_info=CmcFailInfo.BAD_IDENTITY)
    values: list[Control] = [Status(StatusInfo.failed(failure))]
    if isinstance(failure, _Unproven):
        values += failure.challenges
    values += pki_response.echoes(heard.values, sender_nonce=service.random_octets(NONCE_OCTETS))
    der = full_cmc_response.full(values, signed_by=heard.signed_by, now=service.clock())
    return transfer.encode_body(der, wrap=request.wants_wrapped)


async def _answer(exchange: Exchange, heard: _Heard) -> EstResponse:
    message = open_message(transfer.decode_body(exchange.request.body), decrypt=lambda der: _decrypt(exchange, der))
    heard.values = _echoable(message.body)
    requests = _read_requests(exchange, message, ())
    connected, why_nobody = await full_cmc_requester.on_connection(exchange.request, exchange.issuer, exchange.service, requests)
    part = await _admit(exchange, message, requests, connected=connected, heard=heard)
    if part.sender.requester is None:
        heard.nobody = True
        full_cmc_lookups.check_needs_nobody(part.layer, why_nobody)
        heard.nobody = False
    nested = part.layer.nested
    if nested:
        return await _answer_batch(exchange, part, sorted(nested))
    certificates, said = await _perform(exchange, part, [part.layer])
    return _success(exchange, part, certificates, said)


def _success(exchange: Exchange, part: Part, certificates: Sequence[bytes], said: Sequence[Control]) -> EstResponse:
    """Certs-only where that says it all; a nonce to return, data or a status need a Full PKI Response."""
    der, is_full = _message_of(exchange, part, certificates, said)
    return full_cmc_response.success(der, exchange.request, is_full=is_full)


def _message_of(exchange: Exchange, part: Part, certificates: Sequence[bytes], said: Sequence[Control]) -> tuple[bytes, bool]:
    values = part.values()
    needs_full = bool(said) or not certificates or any(isinstance(value, controls.SenderNonce | controls.DataReturn) for value in values)
    if not needs_full:
        return full_cmc_response.simple(certificates), False
    requested = tuple((each.body_part_id,) for each in part.layer.body.requests)
    statuses: list[Control] = [Status(StatusInfo(status=CmcStatus.SUCCESS, body_parts=requested))] if requested else []
    if any(isinstance(value, Status) and value.info.status is CmcStatus.PENDING for value in said):
        statuses = []  # what waits is said, and nothing was issued
    echoes = pki_response.echoes(values, sender_nonce=exchange.service.random_octets(NONCE_OCTETS))
    anchors, anchors_der = _published(exchange)
    der = full_cmc_response.full(
        [*statuses, *said, *echoes, *anchors],
        signed_by=exchange.authority,
        now=exchange.now,
        certificates_der=[*certificates, *anchors_der],
    )
    return der, True


def _echoable(body: PkiData) -> list[Control]:
    """The controls that an answer repeats, whatever else is wrong with the message."""
    values: list[Control] = []
    for control in body.controls:
        if control.attr_type in _ECHOED:
            with suppress(CmcFailed):
                values.append(cmc_control_codec.read(control))
    return values if len({type(value) for value in values}) == len(values) else []


_ECHOED: Final = frozenset(f"{cmc_control_codec.ID_CMC}{number}" for number in (4, 5, 6))


def _published(exchange: Exchange) -> tuple[list[Control], list[bytes]]:
    """The roots, old and new, while the CA's key rolls over (RFC 5272 section 6.15)."""
    if not exchange.authority.rollover:
        return [], []
    certificates = exchange.authority.certificates
    return [trust_publication.publish(certificates, now=exchange.now)], [each.public_bytes(Encoding.DER) for each in certificates]


def _read_requests(exchange: Exchange, message: FullMessage, path: BodyPartPath) -> Requests:
    return full_processing.read_requests(message.body, path=path, ca_name=exchange.authority.certificate.subject, now=exchange.now)


async def _admit(
    exchange: Exchange,
    message: FullMessage,
    requests: Requests,
    *,
    heard: _Heard,
    connected: Requester | None,
    path: BodyPartPath = (),
    around: Part | None = None,
) -> Part:
    """Find out who sent a message, and read its controls as instructions of that sender."""
    sender = await full_cmc_requester.of_message(
        message,
        requests,
        exchange.issuer,
        exchange.service,
        connected=connected,
        source=exchange.request.source,
        accept_sha1=exchange.accept_sha1,
    )
    if sender.requester is not None:
        heard.signed_by = exchange.authority
    processed = _processed(message, path, around) if around is not None else ()
    instructions = read_instructions(message.body, registration_authority=sender.registration_authority, path=path, processed=processed)
    sender = await full_cmc_requester.with_identity_proof(
        sender, message.body, instructions, requests, exchange.issuer, accept_sha1=exchange.accept_sha1
    )
    return Part(layer=Layer(path=path, body=message.body, instructions=instructions), requests=requests, sender=sender)


def _processed(message: FullMessage, path: BodyPartPath, around: Part) -> list[BodyPartPath]:
    """The controls of a nested message that the registration authority around it says it dealt with (RFC 5272 section 6.19)."""
    outer = around.layer.instructions
    done = [reference for _, value in outer.each(controls.ControlProcessed) for reference in value.references]
    for _, witness in outer.each(controls.RaIdentityWitness):
        done += full_cmc_requester.identity_controls(message.body, path) if witness.path == path else [witness.path]
    return done


async def _answer_batch(exchange: Exchange, part: Part, numbers: Sequence[int]) -> EstResponse:
    """Answer each nested message by itself, and the registration authority's own requests (RFC 5272 section 6.17)."""
    contents = {each.body_part_id: each for each in part.layer.body.contents}
    unknown = [number for number in numbers if number not in contents]
    if unknown:
        raise CmcFailed(
            "a control refers to members of cmsSequence that are not there",
            fail_info=CmcFailInfo.BAD_REQUEST,
            body_parts=[(number,) for number in unknown],
            reason="UnknownReference",
        )
    members: dict[int, Part | EstError] = {}
    for number in numbers:
        try:
            members[number] = await _admit_member(exchange, contents[number], part)
        except EstError as error:
            members[number] = error
    answers: list[TaggedContentInfo] = []
    failures = 0
    certificates, said = await _perform(exchange, part, [part.layer])
    for number, member in members.items():
        der, failed = await _answer_member(exchange, part, member)
        failures += failed
        answers.append(TaggedContentInfo(body_part_id=_ANSWERS_FROM + number, content_info_der=der))
    if failures == len(members) and not certificates:
        status, http_status = CmcStatus.FAILED, 400
    else:
        status, http_status = CmcStatus.SUCCESS, 200
    told = StatusInfo(
        status=status,
        body_parts=tuple((number,) for number in numbers),
        fail_info=CmcFailInfo.BAD_REQUEST if status is CmcStatus.FAILED else None,
        text="each answer is in its own message",
    )
    batch = controls.BatchResponses(tuple(answer.body_part_id for answer in answers))
    echoes = pki_response.echoes(part.values(), sender_nonce=exchange.service.random_octets(NONCE_OCTETS))
    der = full_cmc_response.full(
        [Status(told), batch, *said, *echoes],
        signed_by=exchange.authority,
        now=exchange.now,
        certificates_der=certificates,
        contents=answers,
    )
    return full_cmc_response.to_response(der, exchange.request, media_type=full_cmc_response.MEDIA_CMC_RESPONSE, status=http_status)


_ANSWERS_FROM: Final = 1000
"""The number of the answer to member n of a batch is this and n, above those of the response's own controls."""


async def _admit_member(exchange: Exchange, content: TaggedContentInfo, around: Part) -> Part:
    message = open_message(content.content_info_der, decrypt=lambda der: _decrypt(exchange, der))
    path = (content.body_part_id,)
    requests = _read_requests(exchange, message, path)
    part = await _admit(exchange, message, requests, heard=_Heard(), connected=None, path=path, around=around)
    if part.layer.nested:
        raise CmcFailed("a message is nested deeper than two layers", fail_info=CmcFailInfo.BAD_REQUEST, reason="TooDeep")
    return part


async def _answer_member(exchange: Exchange, around: Part, member: Part | EstError) -> tuple[bytes, bool]:
    """The message that answers one member of a batch, and whether it failed."""
    heard = _Heard()
    try:
        if isinstance(member, EstError):
            raise member
        heard.values = member.values()
        certificates, said = await _perform(exchange, member, [around.layer, member.layer], around=around)
        return _message_of(exchange, member, certificates, said)[0], False
    except EstError as error:
        failure = failure_of(error)
        inner = CmcFailed(
            failure.message,
            fail_info=failure.fail_info,
            body_parts=[path[1:] or path for path in failure.body_parts],
            reason=failure.reason,
        )
        values: list[Control] = [Status(StatusInfo.failed(inner))]
        values += pki_response.echoes(heard.values, sender_nonce=exchange.service.random_octets(NONCE_OCTETS))
        return full_cmc_response.full(values, signed_by=exchange.authority, now=exchange.now), True


async def _perform(
    exchange: Exchange, part: Part, layers: Sequence[Layer], *, around: Part | None = None
) -> tuple[list[bytes], list[Control]]:
    """Do what one message asks: DER of certificates, and what is to be said beside them.

    Everything is judged first, then the nonce is spent, and only then is anything signed, recorded or revoked. A registration authority
    `around` the message vouches for its requests, as it does for a CSR that it sends to simpleenroll; what the message asks about
    certificates that there are is its own sender's.
    """
    orders = await _orders(exchange, part, layers, around or part) if part.requests else {}
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


async def _orders(exchange: Exchange, part: Part, layers: Sequence[Layer], vouching: Part) -> dict[BodyPartPath, Order]:
    requester = vouching.sender.requester
    if requester is None:
        raise Forbidden("nobody vouches for this message", reason="Unauthenticated")
    requests = await _proven(exchange, part, layers, requester)
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


async def _proven(exchange: Exchange, part: Part, layers: Sequence[Layer], requester: Requester) -> Requests:
    """The requests as changed by registration authorities, each proven; raises _Unproven with a challenge for those that are not."""
    requests = full_processing.changed(part.requests, layers, now=exchange.now)
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
        raise _Unproven(unproven, challenges)
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


def _decrypt(exchange: Exchange, der: bytes) -> tuple[str, bytes]:
    return enveloped_data.decrypt(der, exchange.issuer.decryption_keys)
