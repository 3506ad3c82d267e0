"""fullcmc by a shared secret: who knows it is its owner, for the requests that are linked to it and no others (RFC 5272 section 6)."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from time import process_time
from typing import Any

import pytest

from estcore import authenticated_data, cert_template, crmf, full_request, pki_data, pop_challenge, secret_request, signed_data
from estcore import cmc_controls as controls
from estcore.cmc_controls import Identification, PopLinkRandom, SenderNonce
from estcore.errors import CmcFailInfo
from estcore.issuer_spec import KeyAlgorithm
from estcore.keys import PrivateKey
from estcore.secret_request import Newcomer
from estserver.issuers import Registry
from tests import pki
from tests.server import app_fixtures
from tests.server.app_fixtures import SPEC, Server, basic, name, new_key, running
from tests.server.cmc_fixtures import (
    by_certificate,
    enrolled,
    extension,
    send,
    ski,
)
from tests.server.test_full_cmc import issued, refused

SECRET = "correct horse battery"
NEWCOMER = Newcomer(identification="device-17", secret=SECRET, random=bytes(range(64)))
OTHER = Newcomer(identification="device-18", secret="another horse, another battery", random=bytes(range(64)))
SALT, MAC_KEY = bytes(range(16)), bytes(range(100, 132))


def registry() -> Registry:
    """The factory with the secrets of two newcomers."""
    ways = [*SPEC["est"]["authentication"], {"cmcSharedSecret": {"secretName": "cmc"}}]
    rule = {"from": {"authentication": "cmcSharedSecret", "users": ["device-*"]}, "subject": {"commonName": "{user}"}}
    spec = {**SPEC, "est": {**SPEC["est"], "authentication": ways}, "policy": {"rules": [*SPEC["policy"]["rules"], rule]}}
    known = app_fixtures.secret("cmc", {newcomer.identification: newcomer.secret.encode() for newcomer in (NEWCOMER, OTHER)})
    return app_fixtures.registry_of(app_fixtures.manifest(spec=spec), secrets=(*app_fixtures.SECRETS, known))


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with running(tmp_path, registry()) as running_server:
        yield running_server


def request(key: PrivateKey, newcomer: Newcomer = NEWCOMER, common_name: str | None = None) -> bytes:
    return secret_request.tagged_request(key, newcomer, subject=name(common_name or newcomer.identification))


def signed(key: PrivateKey, newcomer: Newcomer = NEWCOMER, **others: Any) -> bytes:
    return secret_request.sign(secret_request.body(newcomer, [request(key, newcomer)], **others), key)


def authenticated(body_der: bytes, newcomer: Newcomer = NEWCOMER, **others: Any) -> bytes:
    return secret_request.authenticate(body_der, newcomer, salt=SALT, mac_key=MAC_KEY, **others)


def encode(requests_der: list[bytes], *values: controls.Control) -> bytes:
    return full_request.body(requests_der, values)


# ---- what is granted


@pytest.mark.spec("EST-CMC-08", "EST-CMC-20", "EST-CMC-21", "EST-CMC-22")
async def test_a_newcomer_who_knows_its_secret_gets_the_names_that_the_rules_give_its_owner(server: Server) -> None:
    key = new_key()
    reply = await send(server, signed(key))
    certificate = reply.certificate_for(key)
    assert certificate.subject == name(NEWCOMER.identification)
    assert {event["requester"] for event in server.audit_events} == {f"cmcSharedSecret:{NEWCOMER.identification}"}
    assert SECRET not in str(server.audit_events)


@pytest.mark.spec("EST-CMC-09", "EST-CMC-22")
async def test_a_message_under_the_secret_needs_no_signature(server: Server) -> None:
    key = new_key()
    reply = await send(server, authenticated(secret_request.body(NEWCOMER, [request(key)], proof=False)))
    assert reply.certificate_for(key).subject == name(NEWCOMER.identification)


@pytest.mark.spec("EST-CMC-09", "EST-CMC-18", "EST-CMC-20")
async def test_a_message_under_the_secret_may_hold_an_identity_proof_too(server: Server) -> None:
    key = new_key()
    body = secret_request.body(NEWCOMER, [request(key)], further=[SenderNonce(b"nonce-1")])
    reply = await send(server, authenticated(body))
    assert reply.certificate_for(key).subject == name(NEWCOMER.identification)
    assert controls.RecipientNonce(b"nonce-1") in reply.values


@pytest.mark.spec("EST-CMC-14", "EST-CMC-20", "EST-CMC-22")
async def test_a_crmf_request_is_linked_to_the_secret_by_a_control(server: Server) -> None:
    key = new_key()
    template = cert_template.build(
        subject=name(NEWCOMER.identification), spki_der=pki.spki_der(key.public_key()), extensions=[extension(ski(key))]
    )
    tagged = pki_data.tagged_crmf(crmf.build(key, template, cert_req_id=1, controls=NEWCOMER.link))
    reply = await send(server, secret_request.sign(secret_request.body(NEWCOMER, [tagged]), key))
    assert reply.certificate_for(key).subject == name(NEWCOMER.identification)


@pytest.mark.spec("EST-CMC-09", "EST-CMC-24", "EST-ENROLL-04")
async def test_a_newcomer_whose_key_only_decrypts_is_certified_under_its_secret(server: Server) -> None:
    """RFC 5272 section 3.2.1.3.1: AuthenticatedData is for when there is no key that could sign."""
    key = pki.key(KeyAlgorithm.RSA_2048, "decrypts only")
    template = cert_template.build(subject=name(NEWCOMER.identification), spki_der=pki.spki_der(key.public_key()))
    tagged = pki_data.tagged_crmf(crmf.build(None, template, cert_req_id=1, controls=NEWCOMER.link))
    first = await send(server, authenticated(secret_request.body(NEWCOMER, [tagged], proof=False)))
    refused(first, CmcFailInfo.POP_REQUIRED, (1,))
    [challenge] = [value for value in first.values if isinstance(value, controls.EncryptedPop)]
    answer = pop_challenge.answer_challenge(
        pop_challenge.parse_encrypted_pop(challenge.value_der), key, tagged_request_der=tagged, body_part_id=1
    )
    body = secret_request.body(NEWCOMER, [tagged], further=[controls.DecryptedPop(answer)], proof=False)
    assert (await send(server, authenticated(body))).certificate_for(key).subject == name(NEWCOMER.identification)


# ---- who does not know the secret


UNKNOWN = replace(NEWCOMER, identification="device-99")
WRONG = replace(NEWCOMER, secret="wrong horse, wrong battery")


@pytest.mark.spec("EST-CMC-20", "EST-CMC-21", "THREAT-17")
@pytest.mark.parametrize("newcomer", [WRONG, UNKNOWN, replace(NEWCOMER, identification=OTHER.identification)])
async def test_a_wrong_secret_an_unknown_name_and_somebody_elses_name_are_bad_identity(server: Server, newcomer: Newcomer) -> None:
    reply = await send(server, signed(new_key(), newcomer))
    refused(reply, CmcFailInfo.BAD_IDENTITY, (4,))
    assert await issued(server) == 0


@pytest.mark.spec("EST-CMC-09", "THREAT-17")
@pytest.mark.parametrize(
    "password",
    [
        pytest.param((SECRET + NEWCOMER.identification).encode(), id="secret before identifier, as the identity proof has it"),
        pytest.param(SECRET.encode(), id="no identifier"),
        pytest.param(NEWCOMER.identification.encode(), id="no secret"),
        pytest.param((OTHER.identification + OTHER.secret).encode(), id="somebody else's secret"),
        pytest.param(b"", id="nothing"),
    ],
)
async def test_a_message_under_anything_but_identifier_and_secret_is_a_bad_message_check(server: Server, password: bytes) -> None:
    body = secret_request.body(NEWCOMER, [request(new_key())], proof=False)
    message = authenticated_data.build(body, pki_data.ID_CCT_PKI_DATA, password, salt=SALT, mac_key=MAC_KEY, iterations=1000)
    refused(await send(server, message), CmcFailInfo.BAD_MESSAGE_CHECK, (0,))
    assert await issued(server) == 0


@pytest.mark.spec("EST-CMC-20", "EST-CLI-06", "THREAT-09")
async def test_knowing_a_secret_is_not_enough_for_any_name(server: Server) -> None:
    key = new_key()
    body = secret_request.body(NEWCOMER, [request(key, common_name=OTHER.identification)])
    refused(await send(server, secret_request.sign(body, key)), CmcFailInfo.BAD_REQUEST, (1,), http_status=403)
    assert await issued(server) == 0


@pytest.mark.spec("EST-CMC-20")
async def test_an_issuer_without_shared_secrets_believes_none(tmp_path: Path) -> None:
    async with running(tmp_path) as server:
        refused(await send(server, signed(new_key())), CmcFailInfo.BAD_IDENTITY, (4,))
        message = authenticated(secret_request.body(NEWCOMER, [request(new_key())], proof=False))
        refused(await send(server, message), CmcFailInfo.BAD_IDENTITY, (0,))
        assert await issued(server) == 0


@pytest.mark.spec("EST-CMC-20", "EST-CLI-01")
@pytest.mark.parametrize("values", [[], [Identification(NEWCOMER.identification)]])
async def test_a_name_without_a_proof_is_nobody(server: Server, values: list[controls.Control]) -> None:
    key = new_key()
    reply = await send(server, secret_request.sign(encode([request(key)], *values), key))
    assert reply.answer.status in (401, 403)
    assert reply.statuses[0].fail_info is CmcFailInfo.BAD_IDENTITY
    assert await issued(server) == 0


# ---- a name without a proof (RFC 5272 section 6.2.3: it says whose secret a proof was made with)


def says(key: PrivateKey, claimed: str, common_name: str = "device-1") -> bytes:
    """A message by the key that it wants certified, with an identification and no identity proof."""
    csr = pki.csr(key, subject=name(common_name), extensions=[ski(key)])
    return secret_request.sign(encode([pki_data.tagged_pkcs10(1, csr)], Identification(claimed)), key)


@pytest.mark.spec("EST-CMC-20", "EST-CMC-21", "EST-CLI-01", "THREAT-17")
async def test_a_name_without_a_proof_that_is_not_the_user_of_the_connection_is_bad_identity(server: Server) -> None:
    for claimed in ("device-2", "Device-1", "device-1 ", NEWCOMER.identification):
        reply = await send(server, says(new_key(), claimed), authorization=basic())
        refused(reply, CmcFailInfo.BAD_IDENTITY, (2,))
        assert "leave it out" in (reply.statuses[0].text or "")
    assert await issued(server) == 0


@pytest.mark.spec("EST-CMC-21")
async def test_the_name_of_the_user_of_the_connection_may_be_said_again(server: Server) -> None:
    key = new_key()
    assert (await send(server, says(key, "device-1"), authorization=basic())).certificate_for(key).subject == name("device-1")


@pytest.mark.spec("EST-CMC-10")
async def test_a_message_that_a_certificate_signs_has_no_identification(server: Server) -> None:
    key, certificate = await enrolled(server)
    before = await issued(server)
    for claimed in ("device-1", "device-2"):
        message = by_certificate(key, certificate, [pki.csr(new_key(), subject=name("device-1"))], [Identification(claimed)])
        refused(await send(server, message), CmcFailInfo.BAD_IDENTITY, (2,))
    assert await issued(server) == before


@pytest.mark.spec("EST-CMC-20", "EST-CMC-28")
async def test_a_revocation_by_passphrase_is_no_ones_whatever_name_it_says(server: Server) -> None:
    _, certificate = await enrolled(server)
    revoke = controls.RevokeRequest(certificate.issuer.public_bytes(), certificate.serial_number, 1, passphrase=b"x" * 16)
    message = signed_data.build(pki_data.ID_CCT_PKI_DATA, encode([], revoke, Identification("device-1")), [])
    refused(await send(server, message), CmcFailInfo.BAD_IDENTITY, (2,))


# ---- what is not linked to the secret


def unlinked(key: PrivateKey) -> bytes:
    csr = pki.csr(key, subject=name(NEWCOMER.identification), extensions=[ski(key)])
    return secret_request.body(NEWCOMER, [pki_data.tagged_pkcs10(1, csr)])


def linked_to_another_random(key: PrivateKey) -> bytes:
    return secret_request.body(NEWCOMER, [request(key, replace(NEWCOMER, random=bytes(64)))])


def linked_to_another_secret(key: PrivateKey) -> bytes:
    return secret_request.body(NEWCOMER, [request(key, OTHER, NEWCOMER.identification)])


def without_random(key: PrivateKey) -> bytes:
    requests = [request(key)]
    body = secret_request.body(NEWCOMER, requests)
    kept = [control for control in pki_data.parse(body).controls if control.attr_type != "1.3.6.1.5.5.7.7.22"]
    return pki_data.encode(controls=kept, requests_der=requests)


@pytest.mark.spec("EST-CMC-22", "THREAT-17")
@pytest.mark.parametrize("make", [unlinked, linked_to_another_random, linked_to_another_secret, without_random])
async def test_a_request_that_is_not_linked_to_the_secret_around_it_is_pop_failed(
    server: Server, make: Callable[[PrivateKey], bytes]
) -> None:
    refused(await send(server, authenticated(make(new_key()))), CmcFailInfo.POP_FAILED, (1,))
    assert await issued(server) == 0


@pytest.mark.spec("EST-CMC-22", "THREAT-17")
async def test_a_random_value_without_a_secret_is_refused(server: Server) -> None:
    """Who comes by a password and asks for linking is told that there is nothing to link to."""
    key = new_key()
    csr = pki.csr(key, subject=name("device-1"), extensions=[ski(key)])
    message = secret_request.sign(encode([pki_data.tagged_pkcs10(1, csr)], PopLinkRandom(bytes(64))), key)
    reply = await send(server, message, authorization=basic())
    assert reply.statuses[0].fail_info is CmcFailInfo.BAD_IDENTITY
    assert await issued(server) == 0


# ---- hostile


@pytest.mark.spec("EST-CMC-09", "THREAT-17")
async def test_a_message_that_asks_for_too_much_work_is_refused_before_any(server: Server) -> None:
    body = secret_request.body(NEWCOMER, [request(new_key())], proof=False)
    count = 54_321
    message = authenticated(body, iterations=count)
    bomb = message.replace(b"\x02\x03" + count.to_bytes(3), b"\x02\x03" + (0x7FFFFF).to_bytes(3))
    assert bomb != message
    start = process_time()
    refused(await send(server, bomb), CmcFailInfo.BAD_ALG, (0,))
    assert process_time() - start < 0.1


@pytest.mark.spec("THREAT-17")
async def test_a_secret_is_in_no_answer_and_no_log(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    for newcomer in (NEWCOMER, WRONG, OTHER):
        reply = await send(server, signed(new_key(), newcomer))
        assert newcomer.secret.encode() not in reply.answer.body
    assert SECRET not in caplog.text
    assert SECRET not in str(server.audit_events)
