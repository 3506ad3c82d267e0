"""RFC 5272 sections 3.2 and 4.2, RFC 7030 section 4.3: what a client sends to /fullcmc, and which answers it believes."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from asn1crypto import cms
from cryptography import x509
from cryptography.x509.oid import ObjectIdentifier

from estcore import (
    certs_only,
    cmc_control_codec,
    full_exchange,
    full_request,
    pki_data,
    pki_response,
    ra_witness,
    signed_data,
    template_modification,
    transfer,
)
from estcore.cmc_controls import Control, LraPopWitness, ModCertTemplate, RecipientNonce, RegInfo, SenderNonce, Status, TransactionId
from estcore.cmc_status import CmcStatus, PendInfo, StatusInfo
from estcore.cms_signature import signer_of
from estcore.errors import CmcFailInfo, EstError, MalformedResponse, Pending, Refused, ServerUnavailable
from estcore.exchange import HttpResponse
from estcore.full_request import Vouched
from estcore.signed_data import IssuerAndSerialNumber, SubjectKeyIdentifier
from tests import pki

CA = pki.ca("Factory CA")
OTHER = pki.ca("Another CA")
CMC_RA = ObjectIdentifier("1.3.6.1.5.5.7.3.28")
CMC_CA = ObjectIdentifier("1.3.6.1.5.5.7.3.27")
RA_KEY = pki.key(owner="registration authority")
RA = pki.leaf(CA, subject=pki.name("operator"), public_key=RA_KEY.public_key(), ekus=(pki.CLIENT_AUTH, CMC_RA))
TEMPLATE = pki.sequence(pki.tlv(0xA5, pki.name("other").public_bytes()))
NONCE = b"our nonce, 16 oc"


# ---- requests


@pytest.mark.spec("EST-CMC-05", "EST-CMC-26", "EST-CMC-27", "EST-CMC-36", "EST-POP-16")
def test_a_registration_authority_passes_a_csr_on_unchanged_and_says_what_it_adds() -> None:
    csr = pki.csr()
    vouched = Vouched(
        csr_der=csr, transaction_id=1 << 127, sender_nonce=NONCE, cert_template_der=TEMPLATE, reg_info=b'{"door":"cert-manager.io"}'
    )
    der = full_request.sign_by_certificate(full_request.vouched_body(vouched), RA, signer_of(RA_KEY), signing_time=pki.EPOCH)
    message = signed_data.parse(der)
    assert message.content_type == "1.3.6.1.5.5.7.12.2"
    assert message.certificates_der == (pki.der(RA),)
    [signer] = message.signers
    assert signer.identifier == IssuerAndSerialNumber(CA.certificate.subject.public_bytes(), RA.serial_number)
    signed_data.verify(signer, RA_KEY.public_key())
    assert message.content is not None
    body = pki_data.parse(message.content)
    [request] = body.requests
    assert isinstance(request, pki_data.Pkcs10Request)
    assert (request.body_part_id, request.csr_der) == (1, csr)
    assert [cmc_control_codec.read(control) for control in body.controls] == [
        TransactionId(1 << 127),
        SenderNonce(NONCE),
        LraPopWitness(ra_witness.build_pop_witness(1)),
        ModCertTemplate(template_modification.build_mod_cert_template(TEMPLATE, requests=[1])),
        RegInfo(b'{"door":"cert-manager.io"}'),
    ]


def test_a_registration_authority_that_did_not_look_vouches_for_no_possession() -> None:
    vouched = Vouched(csr_der=pki.csr(), transaction_id=1, sender_nonce=NONCE, possession=False)
    controls = pki_data.parse(full_request.vouched_body(vouched)).controls
    assert [cmc_control_codec.read(control) for control in controls] == [TransactionId(1), SenderNonce(NONCE)]


@pytest.mark.spec("EST-CMC-08")
def test_a_newcomer_signs_with_the_key_to_be_certified_by_its_key_identifier() -> None:
    key = pki.key(owner="newcomer")
    ski = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    csr = pki.csr(key, extensions=[ski])
    body = full_request.body([pki_data.tagged_pkcs10(1, csr)], [SenderNonce(NONCE)])
    message = signed_data.parse(full_request.sign_by_key(body, ski.digest, signer_of(key)))
    [signer] = message.signers
    assert signer.identifier == SubjectKeyIdentifier(ski.digest)
    assert message.certificates_der == ()
    signed_data.verify(signer, key.public_key())
    info = cms.ContentInfo.load(full_request.sign_by_key(body, ski.digest, signer_of(key)), strict=True)["content"]["signer_infos"][0]
    assert info["version"].native == "v3"


@pytest.mark.spec("EST-CMC-01", "EST-ENC-01")
def test_the_request_goes_out_as_base64_of_the_cmc_request_type() -> None:
    request = full_exchange.post_full_request("factory", b"\x30\x00")
    assert (request.method, request.target) == ("POST", "/.well-known/est/factory/fullcmc")
    assert dict(request.headers)["Content-Type"] == "application/pkcs7-mime; smime-type=CMC-request"
    assert transfer.decode_body(request.body) == b"\x30\x00"


# ---- answers


def answer(content_type: str, der: bytes, status: int = 200, **headers: str) -> HttpResponse:
    return HttpResponse(
        status=status,
        headers={"content-type": f"application/pkcs7-mime; smime-type={content_type}", **headers},
        body=transfer.encode_body(der),
    )


def full(
    *values: Control,
    status: int = 200,
    signed_by: tuple[x509.Certificate, pki.SigningKey] | None = (CA.certificate, CA.key),
    bag: Sequence[x509.Certificate] = (),
    retry_after: str | None = None,
) -> HttpResponse:
    signers = []
    if signed_by is not None:
        certificate, key = signed_by
        identifier = IssuerAndSerialNumber(certificate.issuer.public_bytes(), certificate.serial_number)
        signers.append((identifier, signer_of(key)))  # type: ignore[arg-type]  # ECDSA here
    der = pki_response.build(pki_response.encode(values), signers, certificates_der=[pki.der(each) for each in bag])
    headers = {} if retry_after is None else {"retry-after": retry_after}
    return answer("CMC-response", der, status, **headers)


def read(response: HttpResponse, *, nonce: bytes | None = NONCE, transaction: int | None = 7) -> full_exchange.FullAnswer:
    return full_exchange.read_full_response(
        response, ca_certificates=[CA.certificate], sender_nonce=nonce, transaction_id=transaction, now=pki.EPOCH
    )


def status(status: CmcStatus, **others: object) -> Status:
    return Status(replace(StatusInfo(status=status, body_parts=((1,),)), **others))  # type: ignore[arg-type]  # fields of StatusInfo


ECHOES = (TransactionId(7), RecipientNonce(NONCE), SenderNonce(b"theirs"))
SUCCESS = status(CmcStatus.SUCCESS)
LEAF = pki.leaf(CA)


@pytest.mark.spec("EST-CMC-03")
def test_a_simple_response_is_success_and_the_certificate_is_found_by_its_key() -> None:
    response = answer("certs-only", certs_only.encode([pki.der(CA.certificate), pki.der(LEAF)]))
    found = read(response)
    assert found.response is None
    assert found.certificate_for(pki.key().public_key()) == LEAF
    with pytest.raises(MalformedResponse, match="no certificate for the key"):
        found.certificate_for(pki.key(owner="another").public_key())


@pytest.mark.spec("EST-CMC-03", "EST-CMC-05", "EST-CMC-17", "EST-CMC-18")
def test_a_full_response_of_the_ca_is_success() -> None:
    found = read(full(*ECHOES, SUCCESS, bag=[LEAF]))
    assert found.certificates == (LEAF,)
    assert found.response is not None
    assert found.response.statuses == (SUCCESS.info,)


@pytest.mark.spec("EST-SRVID-09")
@pytest.mark.parametrize("purpose", [CMC_CA, CMC_RA])
def test_a_full_response_of_a_cmc_signer_under_the_ca_is_success(purpose: ObjectIdentifier) -> None:
    signer = pki.leaf(CA, subject=pki.name("cmc signer"), public_key=RA_KEY.public_key(), ekus=(purpose,))
    assert read(full(*ECHOES, SUCCESS, signed_by=(signer, RA_KEY), bag=[signer])).response is not None


@pytest.mark.parametrize(
    ("signed_by", "bag"),
    [
        (None, ()),
        ((LEAF, pki.key()), (LEAF,)),
        ((OTHER.certificate, OTHER.key), (OTHER.certificate,)),
        ((CA.certificate, RA_KEY), ()),
        *[
            ((each, RA_KEY), (each,))
            for each in (
                pki.leaf(OTHER, public_key=RA_KEY.public_key(), ekus=(CMC_CA,)),
                pki.leaf(CA, public_key=RA_KEY.public_key(), ekus=(CMC_CA,), signed_by=OTHER.key),
                pki.leaf(CA, public_key=RA_KEY.public_key(), ekus=(CMC_CA,), not_after=pki.EPOCH - timedelta(seconds=1)),
            )
        ],
        ((pki.leaf(CA, public_key=RA_KEY.public_key(), ekus=(CMC_CA,)), RA_KEY), ()),
    ],
    ids=["nobody", "another purpose", "another CA", "the CA's name, another key", "another CA's", "forged", "expired", "not in the bag"],
)
@pytest.mark.spec("EST-SRVID-09", "EST-CMC-07")
def test_a_full_response_that_nobody_vouches_for_is_no_success(
    signed_by: tuple[x509.Certificate, pki.SigningKey] | None, bag: tuple[x509.Certificate, ...]
) -> None:
    with pytest.raises(MalformedResponse, match=r"vouches|not valid"):
        read(full(*ECHOES, SUCCESS, signed_by=signed_by, bag=bag))


@pytest.mark.parametrize(
    "echoes",
    [(TransactionId(7),), (TransactionId(7), RecipientNonce(b"another")), (TransactionId(8), RecipientNonce(NONCE))],
    ids=["no recipientNonce", "another recipientNonce", "another transactionId"],
)
@pytest.mark.spec("EST-CMC-17", "EST-CMC-18")
def test_an_answer_to_another_request_is_rejected(echoes: tuple[Control, ...]) -> None:
    with pytest.raises(MalformedResponse):
        read(full(*echoes, SUCCESS))


@pytest.mark.spec("EST-CMC-04", "EST-CMC-16")
@pytest.mark.parametrize("signed_by", [None, (CA.certificate, CA.key)])
@pytest.mark.parametrize("http_status", [200, 400, 403])
def test_a_refusal_says_what_failed_and_why(http_status: int, signed_by: tuple[x509.Certificate, pki.SigningKey] | None) -> None:
    failed = status(CmcStatus.FAILED, fail_info=CmcFailInfo.BAD_IDENTITY, text="who\x1b[2J are you")
    with pytest.raises(full_exchange.FullRefused) as raised:
        read(full(failed, status=http_status, signed_by=signed_by))
    assert raised.value.http_status == max(http_status, 400)
    assert raised.value.statuses == (failed.info,)
    assert raised.value.message == "the CA refused: bad_identity (who [2J are you)"
    assert isinstance(raised.value, Refused)


@pytest.mark.parametrize("verdict", [CmcStatus.NO_SUPPORT, CmcStatus.POP_REQUIRED])
def test_no_support_and_pop_required_are_refusals(verdict: CmcStatus) -> None:
    with pytest.raises(full_exchange.FullRefused):
        read(full(*ECHOES, status(verdict)))


def test_a_refusal_with_a_5xx_is_worth_another_try() -> None:
    failed = status(CmcStatus.FAILED, fail_info=CmcFailInfo.TRY_LATER, text="the ledger is away")
    with pytest.raises(ServerUnavailable, match="the ledger is away") as raised:
        read(full(failed, status=503, retry_after="9"))
    assert raised.value.retry_after == timedelta(seconds=9)


@pytest.mark.spec("EST-CMC-03", "EST-CMC-30")
def test_pending_says_when_to_ask_again_and_with_which_token() -> None:
    info = PendInfo(token=b"token", time=pki.EPOCH + timedelta(minutes=3))
    with pytest.raises(full_exchange.FullPending) as raised:
        read(full(*ECHOES, status(CmcStatus.PENDING, pend_info=info)))
    assert (raised.value.retry_after, raised.value.pend_info) == (timedelta(minutes=3), info)


@pytest.mark.spec("EST-CMC-03")
def test_http_202_is_pending_too() -> None:
    response = HttpResponse(status=202, headers={"retry-after": "30", "content-type": "text/plain"}, body=b"wait")
    with pytest.raises(Pending) as raised:
        read(response)
    assert raised.value.retry_after == timedelta(seconds=30)


@pytest.mark.parametrize(
    "response",
    [
        answer("CMC-response", b"\x30\x00"),
        answer("CMC-response", certs_only.encode([pki.der(LEAF)])),
        answer("certs-only", b"\x30\x00"),
        answer("CMC-request", b"\x30\x00"),
        HttpResponse(status=200, headers={"content-type": "text/plain"}, body=b"ok"),
    ],
)
@pytest.mark.spec("EST-HTTP-01")
def test_an_answer_of_another_kind_is_malformed(response: HttpResponse) -> None:
    with pytest.raises(MalformedResponse):
        read(response)


def test_a_refusal_in_text_is_read_as_of_the_other_operations() -> None:
    with pytest.raises(EstError, match="refused"):
        read(HttpResponse(status=404, headers={"content-type": "text/plain"}, body=b"no fullcmc here"))
