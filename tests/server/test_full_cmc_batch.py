"""What a registration authority wraps: batches, its changes to nested requests, what it dealt with (RFC 5272 sections 6.17 to 6.19, 7)."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from cryptography import x509

from estcore import (
    certs_only,
    cmc_control_codec,
    full_request,
    identity_proof,
    pki_data,
    pki_response,
    ra_witness,
    signed_data,
    template_modification,
)
from estcore import cmc_controls as controls
from estcore.cmc_controls import Control
from estcore.cmc_status import CmcStatus
from estcore.cms_signature import signer_of
from estcore.errors import CmcFailInfo
from estcore.keys import PrivateKey
from tests.server.app_fixtures import Server, make_csr, name, new_key, running
from tests.server.cmc_fixtures import (
    CA_CERTIFICATE,
    REG_INFO,
    Authority,
    Reply,
    make_authority,
    newcomer,
    newcomer_csr,
    send,
    ski,
    template,
    vouched,
)
from tests.server.test_full_cmc import issued, private_control, refused


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with running(tmp_path) as running_server:
        yield running_server


@pytest.fixture
async def ra(server: Server) -> Authority:
    return await make_authority(server)


def wrapped(messages: dict[int, bytes], values: Sequence[Control], requests: Sequence[bytes] = ()) -> bytes:
    """A PKIData whose cmsSequence holds these messages by their numbers; the controls are numbered from 100 on."""
    return pki_data.encode(
        controls=[cmc_control_codec.write(number, value) for number, value in enumerate(values, start=100)],
        requests_der=requests,
        contents=[pki_data.TaggedContentInfo(body_part_id=number, content_info_der=der) for number, der in messages.items()],
    )


def members(reply: Reply) -> list[x509.Certificate | pki_response.PkiResponse]:
    """The answers in a batch, in the order of batchResponses."""
    assert reply.response is not None
    (batch,) = [value for value in reply.values if isinstance(value, controls.BatchResponses)]
    contents = {content.body_part_id: content.content_info_der for content in reply.response.contents}
    return [_member(contents[number]) for number in batch.body_part_ids]


def _member(der: bytes) -> x509.Certificate | pki_response.PkiResponse:
    if signed_data.parse(der).content_type == signed_data.DATA:
        (certificate,) = certs_only.decode(der)
        return certificate
    return pki_response.parse_message(der)[1]


async def device(common_name: str, *values: Control) -> tuple[PrivateKey, bytes]:
    key = new_key()
    return key, newcomer(key, newcomer_csr(key, common_name, f"{common_name}.devices.example"), values)


@pytest.mark.spec("EST-CMC-34", "EST-CMC-36", "THREAT-17")
async def test_of_two_requests_in_a_batch_the_bad_one_fails_alone(server: Server, ra: Authority) -> None:
    key, good = await device("device-1")
    _, bad = await device("device-2", controls.LraPopWitness(ra_witness.build_pop_witness(1)))
    before = await issued(server)
    reply = await send(server, ra.sign(wrapped({1: good, 2: bad}, [controls.BatchRequests((1, 2))])))
    assert reply.answer.status == 200
    first, second = members(reply)
    assert isinstance(first, x509.Certificate)
    assert first.public_key() == key.public_key()
    assert isinstance(second, pki_response.PkiResponse)
    (status,) = second.statuses
    assert (status.status, status.fail_info, status.body_parts) == (CmcStatus.FAILED, CmcFailInfo.POP_FAILED, ((2,),))
    assert await issued(server) == before + 1


@pytest.mark.spec("EST-CMC-34")
async def test_each_answer_repeats_the_nonce_and_transaction_of_its_own_request(server: Server, ra: Authority) -> None:
    _, one = await device("device-1", controls.TransactionId(1), controls.SenderNonce(b"one"))
    _, two = await device("device-2", controls.TransactionId(2), controls.SenderNonce(b"two"))
    outer: list[Control] = [controls.BatchRequests((1, 2)), controls.TransactionId(3), controls.SenderNonce(b"three")]
    reply = await send(server, ra.sign(wrapped({1: one, 2: two}, outer)))
    for member, number, nonce in zip(members(reply), (1, 2), (b"one", b"two"), strict=True):
        assert isinstance(member, pki_response.PkiResponse)
        values = [value for _, value in member.controls]
        assert controls.TransactionId(number) in values
        assert controls.RecipientNonce(nonce) in values
    assert controls.TransactionId(3) in reply.values
    assert controls.RecipientNonce(b"three") in reply.values


async def test_a_batch_of_failures_is_refused(server: Server, ra: Authority) -> None:
    reply = await send(server, ra.sign(wrapped({1: make_csr("device-1")}, [controls.BatchRequests((1,))])))
    assert reply.answer.status == 400
    (member,) = members(reply)
    assert isinstance(member, pki_response.PkiResponse)
    assert member.statuses[0].status is CmcStatus.FAILED


@pytest.mark.spec("EST-CMC-13", "EST-CMC-27")
async def test_a_reference_to_a_message_that_is_not_there_is_a_bad_request(server: Server, ra: Authority) -> None:
    refused(await send(server, ra.sign(wrapped({}, [controls.BatchRequests((9,))]))), CmcFailInfo.BAD_REQUEST, (9,))


@pytest.mark.spec("EST-CMC-27", "EST-CMC-36")
async def test_a_registration_authority_changes_the_subject_of_a_request_that_it_wraps(server: Server, ra: Authority) -> None:
    key, message = await device("device-1")
    change = template_modification.build_mod_cert_template(template(subject=name("renamed")), requests=[1], pki_data=[1])
    reply = await send(server, ra.sign(wrapped({1: message}, [controls.BatchRequests((1,)), controls.ModCertTemplate(change)])))
    (certificate,) = members(reply)
    assert isinstance(certificate, x509.Certificate)
    assert (certificate.subject, certificate.public_key()) == (name("renamed"), key.public_key())


@pytest.mark.spec("EST-CMC-27", "EST-CMC-34")
async def test_what_is_said_of_one_member_is_no_fault_of_another(server: Server, ra: Authority) -> None:
    """Of the registration authority's own request and two that it wraps each is changed by its own control; a failed one is passed over."""
    keys = [new_key() for _ in range(2)]
    messages = {number: newcomer(key, newcomer_csr(key, f"device-{number}")) for number, key in enumerate(keys, start=1)}
    messages[3] = make_csr("no Full PKI Request")
    own_key = new_key()
    own = pki_data.tagged_pkcs10(50, make_csr("gateway", key=own_key))

    def change(common_name: str, request: int, pki_data_reference: int) -> Control:
        value = template_modification.build_mod_cert_template(
            template(subject=name(common_name)), requests=[request], pki_data=[pki_data_reference]
        )
        return controls.ModCertTemplate(value)

    values: list[Control] = [
        controls.BatchRequests((1, 2, 3)),
        change("first", 1, 1),
        change("third", 1, 3),
        change("own", 50, 0),
        controls.LraPopWitness(ra_witness.build_pop_witness(1, pki_data=3)),
        controls.LraPopWitness(ra_witness.build_pop_witness(1, pki_data=2)),
    ]
    reply = await send(server, ra.sign(wrapped(messages, values, [own])))
    first, second, third = members(reply)
    assert isinstance(first, x509.Certificate)
    assert isinstance(second, x509.Certificate)
    assert (first.subject, second.subject) == (name("first"), name("device-2"))
    assert isinstance(third, pki_response.PkiResponse)
    assert reply.certificate_for(own_key).subject == name("own")


@pytest.mark.spec("EST-CMC-27")
async def test_a_change_of_a_request_that_is_not_there_refuses_all_before_anything_is_signed(server: Server, ra: Authority) -> None:
    _, message = await device("device-1")
    change = template_modification.build_mod_cert_template(template(subject=name("x")), requests=[9], pki_data=[1])
    before = await issued(server)
    reply = await send(server, ra.sign(wrapped({1: message}, [controls.BatchRequests((1,)), controls.ModCertTemplate(change)])))
    refused(reply, CmcFailInfo.BAD_REQUEST, (101,))
    assert await issued(server) == before


@pytest.mark.spec("EST-CMC-12", "EST-CMC-35")
async def test_a_control_that_was_dealt_with_is_no_failure_of_the_nested_message(server: Server, ra: Authority) -> None:
    key = new_key()
    csr_der = newcomer_csr(key)
    body = pki_data.encode(controls=[private_control(9)], requests_der=[pki_data.tagged_pkcs10(1, csr_der)])
    message = full_request.sign_by_key(body, ski(key).digest, signer_of(key))
    outer: list[Control] = [controls.BatchRequests((1,))]
    (refusal,) = members(await send(server, ra.sign(wrapped({1: message}, outer))))
    assert isinstance(refusal, pki_response.PkiResponse)
    assert refusal.statuses[0].body_parts == ((9,),)
    dealt_with = [*outer, controls.ControlProcessed(((1, 9),))]
    (certificate,) = members(await send(server, ra.sign(wrapped({1: message}, dealt_with))))
    assert isinstance(certificate, x509.Certificate)


@pytest.mark.spec("EST-CMC-35")
async def test_an_identity_proof_that_the_registration_authority_witnessed_is_not_asked_for_again(server: Server, ra: Authority) -> None:
    _, message = await device("device-1", controls.Identification("device-1"), controls.IdentityProofV2(_proof()))
    outer: list[Control] = [controls.BatchRequests((1,))]
    (refusal,) = members(await send(server, ra.sign(wrapped({1: message}, outer))))
    assert isinstance(refusal, pki_response.PkiResponse)
    assert refusal.statuses[0].fail_info is CmcFailInfo.BAD_IDENTITY
    for path in ((1,), (1, 3)):
        (certificate,) = members(await send(server, ra.sign(wrapped({1: message}, [*outer, controls.RaIdentityWitness(path)]))))
        assert isinstance(certificate, x509.Certificate)


@pytest.mark.spec("EST-CMC-20", "EST-CMC-35")
async def test_a_name_that_nobody_proved_is_refused_in_a_member_unless_the_registration_authority_dealt_with_it(
    server: Server, ra: Authority
) -> None:
    _, message = await device("device-1", controls.Identification("device-1"))
    outer: list[Control] = [controls.BatchRequests((1,))]
    (refusal,) = members(await send(server, ra.sign(wrapped({1: message}, outer))))
    assert isinstance(refusal, pki_response.PkiResponse)
    assert (refusal.statuses[0].fail_info, refusal.statuses[0].body_parts) == (CmcFailInfo.BAD_IDENTITY, ((2,),))
    (certificate,) = members(await send(server, ra.sign(wrapped({1: message}, [*outer, controls.ControlProcessed(((1, 2),))]))))
    assert isinstance(certificate, x509.Certificate)


def _proof() -> bytes:
    return identity_proof.build_v2(secret="known to the registration authority", identification=None, req_sequence_der=b"")


async def test_a_batch_within_a_batch_is_refused(server: Server, ra: Authority) -> None:
    _, message = await device("device-1")
    inner = ra.sign(wrapped({1: message}, [controls.BatchRequests((1,))]))
    (refusal,) = members(await send(server, ra.sign(wrapped({5: inner}, [controls.BatchRequests((5,))]))))
    assert isinstance(refusal, pki_response.PkiResponse)
    assert refusal.statuses[0].fail_info is CmcFailInfo.BAD_REQUEST


@pytest.mark.spec("EST-CLI-05", "EST-CMC-36", "THREAT-17")
async def test_what_a_wrapped_message_says_of_itself_is_not_the_registration_authoritys_word(server: Server, ra: Authority) -> None:
    """The RA vouches for the request. A device's regInfo opens no Kubernetes door, and its revocations are its own."""
    victim_key = new_key()
    victim = (await send(server, ra.pass_on(vouched(make_csr("victim", key=victim_key))))).certificate_for(victim_key)
    _, claims = await device("device-1", controls.RegInfo(REG_INFO))
    revoke = controls.RevokeRequest(CA_CERTIFICATE.subject.public_bytes(), victim.serial_number, 1)
    _, revokes = await device("device-2", revoke)
    reply = await send(server, ra.sign(wrapped({1: claims, 2: revokes}, [controls.BatchRequests((1, 2))])), authorization=ra.bearer)
    first, second = members(reply)
    assert isinstance(first, x509.Certificate)
    assert isinstance(second, pki_response.PkiResponse)
    assert second.statuses[0].fail_info is CmcFailInfo.BAD_CERT_ID
    query = "SELECT door, on_behalf_of, state FROM certificates WHERE operation = 'fullcmc'"
    rows = await server.ledger.transact(lambda connection: connection.exec_driver_sql(query).all())
    assert [tuple(row) for row in rows] == [("est", None, "issued")] * 2


async def test_the_registration_authoritys_own_word_goes_with_what_it_wraps(server: Server, ra: Authority) -> None:
    _, message = await device("device-1")
    outer = wrapped({1: message}, [controls.BatchRequests((1,)), controls.RegInfo(REG_INFO)])
    await send(server, ra.sign(outer), authorization=ra.bearer)
    query = "SELECT door, requester FROM certificates WHERE operation = 'fullcmc'"
    rows = await server.ledger.transact(lambda connection: connection.exec_driver_sql(query).all())
    assert [tuple(row) for row in rows] == [("cert-manager.io", "kubernetes:shop")]


@pytest.mark.spec("EST-CMC-36")
async def test_a_registration_authority_may_ask_for_itself_beside_what_it_wraps(server: Server, ra: Authority) -> None:
    own_key = new_key()
    _, message = await device("device-1")
    own = pki_data.tagged_pkcs10(2, make_csr("gateway", key=own_key))
    reply = await send(server, ra.sign(wrapped({1: message}, [controls.BatchRequests((1,))], [own])))
    assert reply.certificate_for(own_key).subject == name("gateway")
    assert isinstance(members(reply)[0], x509.Certificate)
