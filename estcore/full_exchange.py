"""The client half of /fullcmc without IO: a Full PKI Request out, a Simple or a Full PKI Response in.

RFC 7030 section 4.3, RFC 5272 sections 4 and 6.1. A Full PKI Response counts when the CA signed it, or a certificate under the CA that is
for CMC signatures (id-kp-cmcCA, id-kp-cmcRA); a refusal counts unsigned too, for it grants nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ObjectIdentifier

from estcore import certs_only, pki_response, signed_data, signer_certificate, transfer, trust_publication
from estcore.cmc_controls import RecipientNonce, TransactionId
from estcore.cmc_status import CmcStatus, PendInfo, StatusInfo
from estcore.errors import CmcFailInfo, EstError, MalformedResponse, Pending, Refused
from estcore.exchange import (
    DEFAULT_PENDING,
    MAX_REASON_CHARACTERS,
    MAX_RETRY_AFTER,
    MIN_RETRY_AFTER,
    HttpRequest,
    HttpResponse,
    check_status,
    media_type,
    target,
)
from estcore.extension_request import CMC_RA
from estcore.foreign import foreign
from estcore.keys import PublicKey
from estcore.pki_response import PkiResponse
from estcore.signed_data import SignedData
from estcore.visible_text import printable

MEDIA_CMC_REQUEST = "application/pkcs7-mime; smime-type=CMC-request"
ID_KP_CMC_CA = ObjectIdentifier("1.3.6.1.5.5.7.3.27")
_CMC_SIGNERS = frozenset({ID_KP_CMC_CA, CMC_RA})

_T = TypeVar("_T")


class FullRefused(Refused):
    """The CA refused; `statuses` say which parts of the request and why (CMCFailInfo)."""

    def __init__(self, message: str, *, http_status: int, response: PkiResponse) -> None:
        super().__init__(message, http_status=http_status)
        self.response = response
        """Not vouched for: an encryptedPOP in it may be answered, for its witness is checked."""

    @property
    def statuses(self) -> tuple[StatusInfo, ...]:
        """What the CA says of the parts of the request."""
        return self.response.statuses


class FullPending(Pending):
    """The CA has not decided. Ask again with the control queryPending and the token of `pend_info` after `retry_after`."""

    def __init__(self, message: str, *, retry_after: timedelta, pend_info: PendInfo | None) -> None:
        super().__init__(message, retry_after=retry_after)
        self.pend_info = pend_info


@dataclass(frozen=True, slots=True, kw_only=True)
class FullRequest:
    """A Full PKI Request as DER ContentInfo, with its senderNonce and transactionId (or None), which the answer must repeat."""

    content_info_der: bytes = field(repr=False)
    sender_nonce: bytes | None = None
    transaction_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FullAnswer:
    """What came back: a bag of certificates in no order, and the PKIResponse where it was a Full PKI Response."""

    certificates: tuple[x509.Certificate, ...]
    response: PkiResponse | None
    signer: x509.Certificate | None = None
    """Who signed the Full PKI Response, and when, by their own clock."""
    signing_time: datetime | None = None

    def trust_anchors(
        self, trusted: Sequence[x509.Certificate], *, last_sequence_number: int, now: datetime
    ) -> trust_publication.Published | None:
        """New trust anchors that one of the `trusted` ones vouches for; None where there are none (RFC 5272 section 6.15)."""
        values = [value for _, value in self.response.controls] if self.response is not None else []
        return trust_publication.published(
            values,
            self.certificates,
            signer=self.signer,
            signing_time=self.signing_time,
            trusted=trusted,
            last_sequence_number=last_sequence_number,
            now=now,
        )

    def certificate_for(self, public_key: PublicKey) -> x509.Certificate:
        """The certificate in the bag that is for this key. Raises MalformedResponse where there is none."""
        for certificate in self.certificates:
            if foreign(certificate.public_key, _unreadable) == public_key:
                return certificate
        raise MalformedResponse("the server's answer holds no certificate for the key of the request")


def post_full_request(label: str | None, content_info_der: bytes) -> HttpRequest:
    """Send a Full PKI Request (RFC 7030 section 4.3.1): base64, unlike CMC over plain HTTP (RFC 8951 section 3)."""
    return HttpRequest(
        method="POST",
        target=target(label, "fullcmc"),
        headers=(
            ("Content-Type", MEDIA_CMC_REQUEST),
            ("Content-Transfer-Encoding", "base64"),
            ("Accept", "application/pkcs7-mime"),
        ),
        body=transfer.encode_body(content_info_der, wrap=True),
    )


def read_full_response(
    response: HttpResponse,
    *,
    ca_certificates: Sequence[x509.Certificate],
    sender_nonce: bytes | None,
    transaction_id: int | None,
    now: datetime,
) -> FullAnswer:
    """Read the answer to a Full PKI Request that had this nonce and this transaction.

    `ca_certificates` are those that /cacerts gave: one of them signed a Full PKI Response, or issued the certificate that did. Raises
    FullRefused (ServerUnavailable with a 5xx) and FullPending where a PKIResponse says so, MalformedResponse where the answer is not for
    this request or nobody vouches for it, and as `exchange.check_status` where the answer is no CMC message.
    """
    kind, parameters = media_type(response.headers.get("content-type", ""))
    smime_type = parameters.get("smime-type", "certs-only").lower()
    if kind == "application/pkcs7-mime" and smime_type == "cmc-response":
        return _full(response, ca_certificates, sender_nonce=sender_nonce, transaction_id=transaction_id, now=now)
    check_status(response, now=now)
    if kind != "application/pkcs7-mime" or smime_type != "certs-only":
        raise MalformedResponse("the server's answer to a Full PKI Request is neither certs-only nor CMC-response")
    return FullAnswer(certificates=_decoded(response, certs_only.decode), response=None)


def _full(
    response: HttpResponse,
    ca_certificates: Sequence[x509.Certificate],
    *,
    sender_nonce: bytes | None,
    transaction_id: int | None,
    now: datetime,
) -> FullAnswer:
    message, answer = _decoded(response, partial(pki_response.parse_message, max_octets=certs_only.MAX_OCTETS))
    failed = [info for info in answer.statuses if info.status in (CmcStatus.FAILED, CmcStatus.NO_SUPPORT, CmcStatus.POP_REQUIRED)]
    if failed or response.status >= 400:
        text = "; ".join(dict.fromkeys(map(_describe, failed))) or "the CA refused and did not say why"
        if response.status >= 500:  # not the request's fault: the same sentence, and Retry-After
            check_status(replace(response, headers={**response.headers, "content-type": "text/plain"}, body=text.encode()), now=now)
        raise FullRefused(f"the CA refused: {text}", http_status=max(response.status, 400), response=answer)
    certificates = tuple(foreign(partial(x509.load_der_x509_certificate, der), _unreadable) for der in message.certificates_der)
    signer, signing_time = _check_signed(message, ca_certificates, now=now)
    _check_echoes(answer, sender_nonce=sender_nonce, transaction_id=transaction_id)
    for info in answer.statuses:
        if info.status in (CmcStatus.PENDING, CmcStatus.PARTIAL) and info.pend_info is not None:
            wait = min(max(info.pend_info.time - now, MIN_RETRY_AFTER), MAX_RETRY_AFTER)
            raise FullPending(info.text or "the request waits for approval", retry_after=wait, pend_info=info.pend_info)
        if info.status is CmcStatus.PENDING:
            raise FullPending(info.text or "the request waits for approval", retry_after=DEFAULT_PENDING, pend_info=None)
    return FullAnswer(certificates=certificates, response=answer, signer=signer, signing_time=signing_time)


def _decoded(response: HttpResponse, decode: Callable[[bytes], _T]) -> _T:
    try:
        return decode(transfer.decode_body(response.body))
    except EstError as error:
        raise MalformedResponse(f"the server's answer is no message of CMC: {error.message}") from error


def _describe(info: StatusInfo) -> str:
    """CMCFailInfo in RFC 5272's spelling, and the text, which a server must not steer a terminal with."""
    if isinstance(info.fail_info, CmcFailInfo):
        what = info.fail_info.name.lower()
    else:
        what = info.status.name.lower() if info.fail_info is None else str(info.fail_info)
    said = printable(info.text or "")[:MAX_REASON_CHARACTERS]
    return f"{what} ({said})" if said else what


def _check_echoes(answer: PkiResponse, *, sender_nonce: bytes | None, transaction_id: int | None) -> None:
    """RFC 5272 section 6.6: the originator compares; what is not there is not compared, what is must be ours."""
    for _, value in answer.controls:
        if isinstance(value, RecipientNonce) and value.octets != sender_nonce:
            raise MalformedResponse("the server's answer has another recipientNonce: it is not for this request")
        if isinstance(value, TransactionId) and value.number != transaction_id:
            raise MalformedResponse("the server's answer has another transactionId: it is not for this request")
    if sender_nonce is not None and not any(isinstance(value, RecipientNonce) for _, value in answer.controls):
        raise MalformedResponse("the server's answer does not repeat our senderNonce")


def _check_signed(
    message: SignedData, ca_certificates: Sequence[x509.Certificate], *, now: datetime
) -> tuple[x509.Certificate, datetime | None]:
    """Who signed the message, and when they say that was. Raises MalformedResponse."""
    known = (*(ca.public_bytes(Encoding.DER) for ca in ca_certificates), *message.certificates_der)
    for signer in message.signers:
        certificate_der = signer_certificate.find(signer.identifier, known)
        if certificate_der is None or not _may_sign(signer_certificate.load(certificate_der), ca_certificates, now=now):
            continue
        try:
            signed_data.verify(signer, signer_certificate.public_key(certificate_der))  # type: ignore[arg-type]  # keys of other kinds do not verify
        except EstError as error:
            raise MalformedResponse("the signature of the server's answer is not valid") from error
        return signer_certificate.load(certificate_der), signer.signing_time
    raise MalformedResponse("nobody vouches for the server's answer: it is not signed by the CA or by a CMC signer under it")


def _may_sign(certificate: x509.Certificate, ca_certificates: Sequence[x509.Certificate], *, now: datetime) -> bool:
    """The CA itself, or whoever it made a CMC signer (RFC 6402 section 2.10)."""
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        return False
    der = certificate.public_bytes(Encoding.DER)
    if any(der == ca.public_bytes(Encoding.DER) for ca in ca_certificates):
        return True
    extensions = foreign(lambda: certificate.extensions, _unreadable)
    purposes = {oid for each in extensions if isinstance(each.value, x509.ExtendedKeyUsage) for oid in each.value}
    return bool(purposes & _CMC_SIGNERS) and any(_issued(certificate, ca) for ca in ca_certificates)


def _issued(certificate: x509.Certificate, ca: x509.Certificate) -> bool:
    try:
        foreign(lambda: certificate.verify_directly_issued_by(ca), _unreadable)
    except MalformedResponse:
        return False
    return True


def _unreadable() -> MalformedResponse:
    return MalformedResponse("the server's answer holds a certificate that cannot be read")
