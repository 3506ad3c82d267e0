"""Full PKI Requests that wait for a person (RFC 5272 sections 6.1.1 and 6.13, RFC 7030 section 4.3.2)."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from estcore import cert_template, crmf, csr_builder, full_request, pki_data, signed_data
from estcore import cmc_controls as controls
from estcore.cmc_status import CmcStatus, PendInfo
from estcore.cms_signature import signer_of
from estcore.errors import CmcFailInfo
from estcore.keys import spki_der
from estserver.held_requests import HeldRequests, State
from tests.server import app_fixtures
from tests.server.app_fixtures import NOW, Server, basic, name, new_key, running
from tests.server.cmc_fixtures import Reply, extension, make_authority, newcomer, newcomer_csr, send, ski, vouched
from tests.server.test_full_cmc import issued, refused


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    registry = app_fixtures.registry_of(app_fixtures.manifest(spec=app_fixtures.with_est(approval="Manual")))
    async with running(tmp_path, registry) as running_server:
        yield running_server


def waiting(reply: Reply, body_part: int = 1) -> PendInfo:
    assert reply.answer.status == 200
    (status,) = reply.statuses
    assert (status.status, status.body_parts) == (CmcStatus.PENDING, ((body_part,),))
    assert status.pend_info is not None
    assert reply.message is not None
    assert len(reply.message.signers) == 1
    return status.pend_info


async def decide(server: Server, token: bytes, state: State) -> None:
    await HeldRequests(server.ledger).decide(token.decode(), state, by="kubernetes-admin", reason="because", now=server.clock())


@pytest.mark.spec("EST-CMC-03", "EST-CMC-30")
async def test_a_request_waits_with_a_token_and_polling_with_it_gives_the_certificate_after_approval(server: Server) -> None:
    key = new_key()
    first = waiting(await send(server, newcomer(key, newcomer_csr(key)), authorization=basic()))
    assert NOW < first.time <= NOW + timedelta(minutes=1)
    server.clock.advance(minutes=5)
    other_key = new_key()
    poll = newcomer(other_key, newcomer_csr(other_key), [controls.QueryPending(first.token)])
    both = await send(server, poll, authorization=basic())
    tokens = {status.body_parts: status.pend_info for status in both.statuses}
    assert tokens[((2,),)] == first, "a later pendInfo equals the first"
    assert await issued(server) == 0
    await decide(server, first.token, State.APPROVED)
    certificate = (await send(server, poll_alone(first.token), authorization=basic())).certificate_for(key)
    assert certificate.subject == name("device-1")
    again = await send(server, poll_alone(first.token), authorization=basic())
    assert again.certificates == (certificate,)
    assert await issued(server) == 1


def poll_alone(token: bytes) -> bytes:
    """A message without a request, signed by nobody: the password on the connection says whose it is."""
    return signed_data.build(pki_data.ID_CCT_PKI_DATA, full_request.body([], [controls.QueryPending(token)]), [])


@pytest.mark.spec("EST-CMC-30")
async def test_sending_the_same_request_again_is_a_poll_too(server: Server) -> None:
    key = new_key()
    csr_der = newcomer_csr(key)
    first = waiting(await send(server, newcomer(key, csr_der), authorization=basic()))
    assert waiting(await send(server, newcomer(key, csr_der), authorization=basic())) == first
    await decide(server, first.token, State.APPROVED)
    issued_at_last = await send(server, newcomer(key, csr_der), authorization=basic())
    assert issued_at_last.certificate_for(key).subject == name("device-1")
    assert await issued(server) == 1


@pytest.mark.spec("EST-CMC-14", "EST-CMC-30")
@pytest.mark.parametrize("begins", [NOW, None])
async def test_a_crmf_validity_counts_after_any_wait(server: Server, begins: datetime | None) -> None:
    """A life asked for by its two ends is that long; an end asked for alone stays where it is."""
    key = new_key()
    template = cert_template.build(
        subject=name("device-1"),
        spki_der=spki_der(key.public_key()),
        not_before=begins,
        not_after=NOW + timedelta(hours=12),
        extensions=[extension(ski(key))],
    )
    body = full_request.body([pki_data.tagged_crmf(crmf.build(key, template, cert_req_id=1))], [])
    message = full_request.sign_by_key(body, ski(key).digest, signer_of(key))
    first = waiting(await send(server, message, authorization=basic()))
    server.clock.advance(hours=2)
    await decide(server, first.token, State.APPROVED)
    certificate = (await send(server, poll_alone(first.token), authorization=basic())).certificate_for(key)
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert life == timedelta(hours=12 if begins else 10)


async def test_what_was_denied_is_refused_with_the_reason(server: Server) -> None:
    key = new_key()
    first = waiting(await send(server, newcomer(key, newcomer_csr(key)), authorization=basic()))
    await decide(server, first.token, State.DENIED)
    polled = await send(server, poll_alone(first.token), authorization=basic())
    refused(polled, CmcFailInfo.BAD_REQUEST, (1,))
    assert "because" in (polled.statuses[0].text or "")
    refused(await send(server, newcomer(key, newcomer_csr(key)), authorization=basic()), CmcFailInfo.BAD_REQUEST, (1,), http_status=403)
    assert await issued(server) == 0


@pytest.mark.spec("EST-CMC-30", "THREAT-17")
async def test_the_token_of_somebody_elses_request_is_that_of_none(server: Server) -> None:
    key = new_key()
    first = waiting(await send(server, newcomer(key, newcomer_csr(key)), authorization=basic()))
    await decide(server, first.token, State.APPROVED)
    token = server.reviewer.add("shop/web", audience="devices")
    polled = await send(server, poll_alone(first.token), authorization=f"Bearer {token}")
    refused(polled, CmcFailInfo.BAD_REQUEST, (1,))
    for nonsense in (b"", b"\xff", b"x" * 65, b"none"):
        reply = await send(server, poll_alone(nonsense), authorization=basic())
        refused(reply, CmcFailInfo.BAD_REQUEST, (1,))
    assert await issued(server) == 0


@pytest.mark.spec("EST-CMC-30", "EST-SKG-01", "THREAT-07", "THREAT-09", "THREAT-23")
@pytest.mark.parametrize("operation", ["serverkeygen", "simpleenroll"])
async def test_what_waits_at_another_operation_is_polled_by_none(tmp_path: Path, operation: str) -> None:
    """A person approved a key from the server, and nobody proved the one in that CSR: queryPending never certifies it."""
    spec = app_fixtures.with_est(approval="Manual", serverKeyGeneration={"enabled": True, "encryption": "Optional"})
    async with running(tmp_path, app_fixtures.registry_of(app_fixtures.manifest(spec=spec))) as server:
        csr_der = app_fixtures.make_csr("device-1", "a.devices.example")
        if operation == "serverkeygen":
            csr_der = csr_builder.without_signature(csr_der)
        assert (await server.enroll(csr_der, operation=operation, authorization=basic())).status == 202
        (held,) = await HeldRequests(server.ledger).listed()

        async def polled() -> Reply:
            reply = await send(server, poll_alone(held.id.encode()), authorization=basic())
            refused(reply, CmcFailInfo.BAD_REQUEST, (1,))
            return reply

        absent = await send(server, poll_alone(b"0" * 16), authorization=basic())
        assert (await polled()).statuses == absent.statuses, "waiting: no difference to a token that there is not"
        await decide(server, held.id.encode(), State.APPROVED)
        assert (await polled()).statuses == absent.statuses
        assert await issued(server) == 0
        assert (await server.enroll(csr_der, operation=operation, authorization=basic())).status == 200
        assert (await polled()).statuses == absent.statuses
        assert await issued(server) == 1


async def test_what_a_registration_authority_asks_for_does_not_wait(server: Server) -> None:
    ra = await make_authority(server)
    key = new_key()
    assert (await send(server, ra.pass_on(vouched(newcomer_csr(key))))).certificate_for(key).subject == name("device-1")
