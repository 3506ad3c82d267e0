"""What a newcomer with a shared secret sends is what the checks of the server take, whichever envelope is around it."""

from collections.abc import Collection, Sequence
from typing import TypedDict, Unpack

import pytest
from cryptography import x509

from estcore import (
    authenticated_data,
    cert_template,
    cmc_control_codec,
    crmf,
    csr_builder,
    full_request,
    identity_proof,
    pkcs10,
    pki_data,
    pop_link,
    secret_request,
    signed_data,
)
from estcore.cmc_controls import Identification, PopLinkRandom, TransactionId
from estcore.errors import BadCsr, CmcFailed, CmcFailInfo
from estcore.issuer_spec import KeyAlgorithm
from estcore.pki_data import CrmfRequest, Pkcs10Request, PkiData
from estcore.secret_request import Newcomer
from estcore.signed_data import SubjectKeyIdentifier
from estcore.usages import Usage
from tests import pki

NEWCOMER = Newcomer(identification="gerät-17", secret="correct horse battery", random=bytes(range(64)))
SALT, MAC_KEY = bytes(range(16)), bytes(range(100, 132))


class Wished(TypedDict, total=False):
    """What a request may hold beside its subject."""

    sans: Sequence[x509.GeneralName]
    usages: Collection[Usage]
    channel_binding: bytes


def tagged(algorithm: KeyAlgorithm = KeyAlgorithm.ECDSA_P256, **wished: Unpack[Wished]) -> bytes:
    return secret_request.tagged_request(pki.key(algorithm), NEWCOMER, subject=pki.name(), **wished)


def values(body: PkiData) -> dict[str, bytes]:
    return {control.attr_type.removeprefix("1.3.6.1.5.5.7.7."): control.values_der[0] for control in body.controls}


@pytest.mark.spec("EST-CMC-08", "EST-CMC-20", "EST-CMC-21", "EST-CMC-22")
@pytest.mark.parametrize("algorithm", pki.ALL_ALGORITHMS)
def test_a_signed_message_proves_identity_possession_and_that_both_are_one(algorithm: KeyAlgorithm) -> None:
    sans = pki.dns("a.example")
    request_der = tagged(algorithm, sans=sans, usages=[Usage.DIGITAL_SIGNATURE, Usage.CLIENT_AUTH], channel_binding=b"binding")
    message = signed_data.parse(secret_request.sign(secret_request.body(NEWCOMER, [request_der]), pki.key(algorithm)))
    assert message.content is not None
    body = pki_data.parse(message.content)
    [tagged_request] = body.requests
    assert isinstance(tagged_request, Pkcs10Request)
    csr = pkcs10.parse(tagged_request.csr_der)
    assert (csr.sans, csr.usages) == (sans, frozenset({Usage.DIGITAL_SIGNATURE, Usage.CLIENT_AUTH}))
    assert csr.challenge_password == csr_builder.challenge_password(b"binding")
    [signer] = message.signers
    assert signer.identifier == SubjectKeyIdentifier(csr.subject_key_identifier or b"")
    signed_data.verify(signer, csr.public_key)
    proof = identity_proof.parse_v2(values(body)["34"])
    identity_proof.verify(proof, secret=NEWCOMER.secret, identification=NEWCOMER.identification, req_sequence_der=body.req_sequence_der)
    pop_link.verify(csr, secret=NEWCOMER.secret, random=NEWCOMER.random)
    assert [cmc_control_codec.read(control) for control in body.controls[:2]] == [
        Identification(NEWCOMER.identification),
        PopLinkRandom(NEWCOMER.random),
    ]


@pytest.mark.spec("EST-CMC-09", "EST-CMC-22")
def test_an_authenticated_message_needs_no_identity_proof_and_no_signature() -> None:
    body_der = secret_request.body(NEWCOMER, [tagged()], further=[TransactionId(7)], proof=False)
    parsed = authenticated_data.parse(secret_request.authenticate(body_der, NEWCOMER, salt=SALT, mac_key=MAC_KEY))
    password = authenticated_data.key_derivation_input(NEWCOMER.identification, NEWCOMER.secret)
    assert authenticated_data.verify(parsed, password) == body_der
    assert parsed.content_type == pki_data.ID_CCT_PKI_DATA
    assert list(values(pki_data.parse(body_der))) == ["2", "22", "5"]


@pytest.mark.spec("EST-CMC-14", "EST-CMC-22")
def test_a_crmf_request_is_linked_by_a_control() -> None:
    key = pki.key()
    template = cert_template.build(subject=pki.name(), spki_der=pki.spki_der(key.public_key()))
    message = crmf.build(key, template, cert_req_id=full_request.REQUEST, controls=NEWCOMER.link)
    body = pki_data.parse(secret_request.body(NEWCOMER, [pki_data.tagged_crmf(message)]))
    [tagged_request] = body.requests
    assert isinstance(tagged_request, CrmfRequest)
    pop_link.verify(crmf.parse(tagged_request.cert_req_msg_der, now=pki.EPOCH).request, secret=NEWCOMER.secret, random=NEWCOMER.random)


@pytest.mark.spec("EST-CMC-20", "EST-CMC-22", "THREAT-17")
def test_a_request_carried_into_another_message_is_noticed() -> None:
    """Neither the identity proof of one message nor the POP link of one request fits another."""
    other = Newcomer(identification=NEWCOMER.identification, secret=NEWCOMER.secret, random=bytes(64))
    body = pki_data.parse(secret_request.body(other, [tagged()]))
    [tagged_request] = body.requests
    assert isinstance(tagged_request, Pkcs10Request)
    with pytest.raises(CmcFailed) as raised:
        pop_link.verify(pkcs10.parse(tagged_request.csr_der), secret=other.secret, random=other.random)
    assert raised.value.fail_info is CmcFailInfo.POP_FAILED
    proof = identity_proof.parse_v2(values(body)["34"])
    with pytest.raises(CmcFailed) as raised:
        identity_proof.verify(
            proof,
            secret=other.secret,
            identification=other.identification,
            req_sequence_der=pki_data.req_sequence([tagged(KeyAlgorithm.ED25519)]),
        )
    assert raised.value.fail_info is CmcFailInfo.BAD_IDENTITY


@pytest.mark.spec("EST-CMC-25", "EST-ENROLL-04")
def test_a_csr_without_signature_is_for_a_full_request_only() -> None:
    csr_der = csr_builder.without_signature(pki.csr())
    request = pkcs10.parse(csr_der, accept_no_signature=True)
    assert not request.proven
    assert request.subject == pki.name()
    with pytest.raises(BadCsr):
        pkcs10.parse(csr_der)


def test_attributes_are_added_to_those_that_the_csr_has_anyway() -> None:
    csr_der = csr_builder.build(
        pki.key(), subject=pki.name(), sans=pki.dns("a.example"), channel_binding=b"binding", attributes={"1.2.3.4": b"\x05\x00"}
    )
    loaded = x509.load_der_x509_csr(csr_der)
    assert loaded.is_signature_valid
    assert {attribute.oid.dotted_string for attribute in loaded.attributes} == {
        "1.2.3.4",
        pki.CHALLENGE_PASSWORD,
        pki.EXTENSION_REQUEST,
    }


def test_a_newcomer_shows_no_secret() -> None:
    assert NEWCOMER.secret not in repr(NEWCOMER)
