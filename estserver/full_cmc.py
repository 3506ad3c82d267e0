"""The operation fullcmc: a Full PKI Request in, certificates or a Full PKI Response out (RFC 7030 section 4.3, RFC 5272).

    decode → open → parse requests → who sent it → which controls may it give → batch → prove and change → register every request
    → spend the nonce → sign, record → revoke, look up → answer

Nothing is signed before the whole message was understood and permitted (threats row 9, step-ca CVE-2025-44005): every control, every
request and every registration comes before the first signature. Members of a batch are judged each on its own.
"""

from dataclasses import replace
from typing import Final

from estcore import full_processing, pki_response, transfer
from estcore.cmc_controls import Control, Status
from estcore.cmc_status import StatusInfo, failure_of
from estcore.errors import CmcFailed, CmcFailInfo, EstError, SignerError, UnsupportedMediaType
from estcore.exchange import media_type
from estserver import full_cmc_admission, full_cmc_lookups, full_cmc_requester, full_cmc_response, operations
from estserver.full_cmc_admission import Heard
from estserver.full_cmc_batch import answer_batch
from estserver.full_cmc_exchange import NONCE_OCTETS, Exchange, message_of
from estserver.full_cmc_response import CmcRefused
from estserver.full_cmc_work import Unproven, perform
from estserver.issuers import Issuer
from estserver.issuing import Service
from estserver.messages import EstRequest, EstResponse

MEDIA_PKCS7: Final = "application/pkcs7-mime"


async def full_cmc(request: EstRequest, issuer: Issuer, service: Service) -> EstResponse:
    """Answer a Full PKI Request. Raises CmcRefused, which holds the Full PKI Response that says why."""
    heard = Heard()
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


def _refusal(error: EstError, heard: Heard, request: EstRequest, service: Service) -> bytes:
    failure = failure_of(error)
    if heard.nobody:
        failure = CmcFailed(error.message, fail_info=CmcFailInfo.BAD_IDENTITY)
    values: list[Control] = [Status(StatusInfo.failed(failure))]
    if isinstance(failure, Unproven):
        values += failure.challenges
    values += pki_response.echoes(heard.values, sender_nonce=service.random_octets(NONCE_OCTETS))
    der = full_cmc_response.full(values, signed_by=heard.signed_by, now=service.clock())
    return transfer.encode_body(der, wrap=request.wants_wrapped)


async def _answer(exchange: Exchange, heard: Heard) -> EstResponse:
    message = full_cmc_admission.open_message(exchange, transfer.decode_body(exchange.request.body))
    heard.values = full_cmc_admission.echoable(message.body)
    requests = full_cmc_admission.read_requests(exchange, message)
    connected, why_nobody = await full_cmc_requester.on_connection(exchange.request, message, exchange.issuer, exchange.service, requests)
    part = await full_cmc_admission.admit(exchange, message, requests, connected=connected, heard=heard)
    if part.sender.requester is None:
        heard.nobody = True
        full_cmc_lookups.check_needs_nobody(part.layer, why_nobody)
        heard.nobody = False
    full_cmc_requester.check_claimed(part.sender, message.body, part.layer.instructions)
    nested = part.layer.nested
    if nested:
        return await answer_batch(exchange, part, sorted(nested))
    changed = replace(part, requests=full_processing.changed(part.requests, part.layer, now=exchange.now))
    certificates, said = await perform(exchange, changed)
    der, is_full = message_of(exchange, part, certificates, said)
    return full_cmc_response.success(der, exchange.request, is_full=is_full)
