"""What a registration authority wraps: each member of a batch is answered by itself (RFC 5272 sections 6.17 and 7)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from estcore import cmc_controls as controls
from estcore import full_processing, pki_response
from estcore.cmc_controls import Control, Status
from estcore.cmc_status import CmcStatus, StatusInfo, failure_of
from estcore.errors import CmcFailed, CmcFailInfo, EstError
from estcore.pki_data import TaggedContentInfo
from estserver import full_cmc_admission, full_cmc_requester, full_cmc_response
from estserver.full_cmc_admission import Heard
from estserver.full_cmc_exchange import NONCE_OCTETS, Exchange, Part, message_of
from estserver.full_cmc_work import perform
from estserver.messages import EstResponse

_ANSWERS_FROM: Final = 1000
"""The number of the answer to member n of a batch is this and n, above those of the response's own controls."""


async def answer_batch(exchange: Exchange, part: Part, numbers: Sequence[int]) -> EstResponse:
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
    part, members = _changed(exchange, part, members)
    answers: list[TaggedContentInfo] = []
    failures = 0
    certificates, said = await perform(exchange, part)
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


async def _admit_member(exchange: Exchange, content: TaggedContentInfo, around: Part) -> Part:
    path = (content.body_part_id,)
    message = full_cmc_admission.open_message(exchange, content.content_info_der)
    requests = full_cmc_admission.read_requests(exchange, message, path)
    part = await full_cmc_admission.admit(exchange, message, requests, heard=Heard(), connected=None, path=path, around=around)
    full_cmc_requester.check_claimed(part.sender, message.body, part.layer.instructions)
    if part.layer.nested:
        raise CmcFailed("a message is nested deeper than two layers", fail_info=CmcFailInfo.BAD_REQUEST, reason="TooDeep")
    return replace(part, requests=full_processing.changed(part.requests, part.layer, now=exchange.now))


def _changed(exchange: Exchange, around: Part, members: Mapping[int, Part | EstError]) -> tuple[Part, dict[int, Part | EstError]]:
    """The parts with what the registration authority around them asserts and changes; what it says of members that failed is moot.

    Raises CmcFailed for the whole where one of its controls is at fault: it is that of all its members.
    """
    requests = dict(around.requests)
    for member in members.values():
        requests |= member.requests if isinstance(member, Part) else {}
    moot = [(number,) for number, member in members.items() if not isinstance(member, Part)]
    changed = full_processing.changed(requests, around.layer, now=exchange.now, moot=moot)
    result: dict[int, Part | EstError] = {
        number: replace(member, requests={path: changed[path] for path in member.requests}) if isinstance(member, Part) else member
        for number, member in members.items()
    }
    return replace(around, requests={path: changed[path] for path in around.requests}), result


async def _answer_member(exchange: Exchange, around: Part, member: Part | EstError) -> tuple[bytes, bool]:
    """The message that answers one member of a batch, and whether it failed."""
    heard = Heard()
    try:
        if isinstance(member, EstError):
            raise member
        heard.values = member.values()
        certificates, said = await perform(exchange, member, around=around)
        return message_of(exchange, member, certificates, said)[0], False
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
