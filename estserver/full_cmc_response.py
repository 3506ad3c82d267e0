"""Answers to Full PKI Requests: certs-only where certificates are all there is to say, else a Full PKI Response, with every error too.

RFC 7030 section 4.3.2, RFC 5272 sections 4 and 6.1. The CA signs what it says to those it knows; a stranger's refusal is signed by nobody,
so that strangers cannot keep the CA's key busy. It says nothing that a client would act on but by giving up.
"""

from collections.abc import Sequence
from datetime import datetime

from cryptography.hazmat.primitives.serialization import Encoding

from estcore import authority, certs_only, pki_response, transfer
from estcore.authority import Authority
from estcore.cmc_controls import Control, Status
from estcore.cmc_status import StatusInfo
from estcore.errors import CmcFailed, CmcFailInfo, EstError
from estcore.pki_data import TaggedContentInfo
from estserver.messages import MEDIA_CERTS_ONLY, EstRequest, EstResponse

MEDIA_CMC_RESPONSE = b"application/pkcs7-mime; smime-type=CMC-response"
_NO_FAULT_OF_THE_REQUEST = {503: CmcFailInfo.TRY_LATER, 429: CmcFailInfo.TRY_LATER}


class CmcRefused(EstError):
    """A Full PKI Request fails because of `cause`; `body` is the Full PKI Response that says so, as it goes over the wire."""

    def __init__(self, cause: EstError, body: bytes) -> None:
        super().__init__(cause.message, reason=cause.reason)
        self.cause = cause
        self.body = body
        self.http_status = cause.http_status


def simple(certificates_der: Sequence[bytes]) -> bytes:
    """The DER certs-only with these certificates."""
    return certs_only.encode(certificates_der)


def full(
    values: Sequence[Control],
    *,
    signed_by: Authority | None,
    now: datetime,
    certificates_der: Sequence[bytes] = (),
    contents: Sequence[TaggedContentInfo] = (),
) -> bytes:
    """The DER Full PKI Response with these controls, signed by the CA where it is given and holds its key."""
    signer = authority.message_signer(signed_by) if signed_by is not None else None
    if signer is None or signed_by is None:
        return pki_response.build(pki_response.encode(values, contents), [], certificates_der=certificates_der)
    own = signed_by.certificate.public_bytes(Encoding.DER)
    return pki_response.build(
        pki_response.encode(values, contents),
        [signer],
        certificates_der=tuple(dict.fromkeys((*certificates_der, own))),
        signing_time=now,
    )


def to_response(der: bytes, request: EstRequest, *, media_type: bytes, status: int = 200) -> EstResponse:
    """The answer that carries a DER message."""
    return EstResponse(status=status, body=transfer.encode_body(der, wrap=request.wants_wrapped), headers=((b"content-type", media_type),))


def success(der: bytes, request: EstRequest, *, is_full: bool) -> EstResponse:
    """200 with certs-only, or with a Full PKI Response."""
    return to_response(der, request, media_type=MEDIA_CMC_RESPONSE if is_full else MEDIA_CERTS_ONLY)


def refused(response: EstResponse, error: EstError | None) -> EstResponse:
    """The answer to a refused Full PKI Request, from what the other operations would answer in text (RFC 7030 section 4.3.2).

    Status and headers stay, the body is a Full PKI Response: what `error` brought, or what the text and the status say.
    """
    if not response.body:  # for a client that cannot bear one
        return response
    headers = tuple((name, MEDIA_CMC_RESPONSE if name == b"content-type" else value) for name, value in response.headers)
    if isinstance(error, CmcRefused):
        return EstResponse(status=response.status, body=error.body, headers=headers)
    default = CmcFailInfo.BAD_REQUEST if response.status < 500 else CmcFailInfo.INTERNAL_CA_ERROR
    failure = CmcFailed(response.body.decode().strip(), fail_info=_NO_FAULT_OF_THE_REQUEST.get(response.status, default))
    der = pki_response.build(pki_response.encode([Status(StatusInfo.failed(failure))]), [])
    return EstResponse(status=response.status, body=transfer.encode_body(der, wrap=True), headers=headers)
