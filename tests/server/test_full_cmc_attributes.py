"""What the attributes of a CSR mean in a Full PKI Request: as in simpleenroll (RFC 7894, RFC 8951 section 4)."""

import asyncio
from pathlib import Path

import pytest

from estcore import cert_template, crmf, der, full_request, pki_data, signed_data
from estcore import cmc_controls as controls
from estcore.csr_vocabulary import OTP_CHALLENGE
from estcore.errors import CmcFailInfo
from estcore.usages import Usage
from estserver import revocation
from estserver.held_requests import State
from tests import pki
from tests.server import app_fixtures
from tests.server.app_fixtures import NOW, OTHER_CA, basic, leaf, make_csr, name, new_key, running
from tests.server.cmc_fixtures import by_certificate, make_authority, send, vouched
from tests.server.test_full_cmc import issued, refused
from tests.server.test_full_cmc_pending import decide, poll_alone, waiting
from tests.server.test_one_time_passwords import OTP_WAY, RANDOM, otp_csr, registry


def unsigned(*csrs: bytes) -> bytes:
    """Signed by nobody: its sender is known by what is in it, or by the connection."""
    requests = [pki_data.tagged_pkcs10(number, csr_der) for number, csr_der in enumerate(csrs, start=1)]
    return signed_data.build(pki_data.ID_CCT_PKI_DATA, full_request.body(requests, [controls.TransactionId(5)]), [])


@pytest.mark.spec("EST-POP-18")
async def test_a_one_time_password_enrols_once_by_a_full_pki_request_too(tmp_path: Path) -> None:
    async with running(tmp_path, registry()) as server:
        key = new_key()
        first = await send(server, unsigned(otp_csr(key=key)))
        assert first.certificate_for(key).subject == name("device-1")
        again = await send(server, unsigned(otp_csr()))
        refused(again, CmcFailInfo.BAD_REQUEST, (1,), http_status=403)
        assert (await server.enroll(otp_csr())).status == 403
        assert await issued(server) == 1


@pytest.mark.spec("EST-POP-18")
async def test_a_one_time_password_is_good_for_one_request_of_a_message(tmp_path: Path) -> None:
    async with running(tmp_path, registry()) as server:
        refused(await send(server, unsigned(otp_csr(), otp_csr())), CmcFailInfo.BAD_REQUEST, (1,), (2,))
        assert await issued(server) == 0


@pytest.mark.spec("EST-CMC-14", "EST-POP-18")
async def test_a_one_time_password_may_be_a_control_of_a_crmf_request(tmp_path: Path) -> None:
    async with running(tmp_path, registry()) as server:
        key = new_key()
        template = cert_template.build(subject=name("device-1"), spki_der=pki.spki_der(key.public_key()))
        password = {OTP_CHALLENGE: der.tlv(der.UTF8_STRING, RANDOM.encode())}
        tagged = pki_data.tagged_crmf(crmf.build(key, template, cert_req_id=1, controls=password))
        message = signed_data.build(pki_data.ID_CCT_PKI_DATA, full_request.body([tagged], []), [])
        assert (await send(server, message)).certificate_for(key).subject == name("device-1")
        refused(await send(server, unsigned(otp_csr())), CmcFailInfo.BAD_REQUEST, (1,), http_status=403)


@pytest.mark.spec("EST-POP-18", "THREAT-14")
async def test_of_full_and_simple_requests_that_race_with_one_password_one_is_served(tmp_path: Path) -> None:
    async with running(tmp_path, registry()) as server, running(tmp_path, registry()) as replica:
        full = [send(one, unsigned(otp_csr())) for one in (server, replica) for _ in range(4)]
        simple = [one.enroll(otp_csr()) for one in (server, replica) for _ in range(4)]
        replies, answers = await asyncio.gather(asyncio.gather(*full), asyncio.gather(*simple))
        statuses = [*(reply.answer.status for reply in replies), *(answer.status for answer in answers)]
        assert sorted(statuses) == [200] + [403] * 15
        assert await issued(server) == 1


@pytest.mark.spec("EST-CMC-30", "EST-POP-18")
async def test_a_request_that_waits_for_a_person_is_sent_again_with_its_password(tmp_path: Path) -> None:
    """A queryPending shows nobody who has only this password: it is in the request (RFC 7894 section 3.1)."""
    async with running(tmp_path, registry(approval="Manual")) as server:
        key = new_key()
        token = waiting(await send(server, unsigned(otp_csr(key=key)))).token
        assert (await send(server, poll_alone(token))).answer.status == 403
        await decide(server, token, State.APPROVED)
        assert (await send(server, unsigned(otp_csr(key=key)))).certificate_for(key).subject == name("device-1")
        other = otp_csr()
        await decide(server, waiting(await send(server, unsigned(other))).token, State.APPROVED)
        refused(await send(server, unsigned(other)), CmcFailInfo.BAD_REQUEST, (1,), http_status=403)


BOTH = {"certificate": {"issuedBy": "this"}, **OTP_WAY}


@pytest.mark.spec("EST-AUTH-01", "EST-POP-18")
async def test_the_certificate_that_signs_the_message_stands_beside_the_password_in_it(tmp_path: Path) -> None:
    holder_key = new_key()
    holder = leaf(key=holder_key)
    async with running(tmp_path, registry(BOTH)) as server:
        key = new_key()
        without = await send(server, by_certificate(holder_key, holder, [make_csr("device-1", key=key)]))
        refused(without, CmcFailInfo.BAD_IDENTITY, (0,))
        alone = await send(server, unsigned(otp_csr(key=key)))
        assert (alone.answer.status, alone.statuses[0].fail_info) == (403, CmcFailInfo.BAD_IDENTITY)
        first = await send(server, by_certificate(holder_key, holder, [otp_csr(key=key)]))
        assert first.certificate_for(key).subject == name("device-1")
        assert server.audit_events[-1]["requester"] == "oneTimePassword:device-1"
        again = await send(server, by_certificate(holder_key, holder, [otp_csr()]))
        refused(again, CmcFailInfo.BAD_REQUEST, (1,), http_status=403)
        assert await issued(server) == 1


@pytest.mark.spec("EST-AUTH-01", "EST-POP-18", "THREAT-11")
async def test_a_certificate_that_is_nobodys_or_revoked_does_not_stand_beside_a_password(tmp_path: Path) -> None:
    revoked_key, stranger_key = new_key(), new_key()
    async with running(tmp_path, registry(BOTH, OTP_WAY)) as server:
        first = (await send(server, unsigned(otp_csr("another" + RANDOM, key=revoked_key)))).certificate_for(revoked_key)
        assert await revocation.revoke(server.ledger, "EstIssuer/devices/factory", first.serial_number, reason=1, now=NOW)
        for key, certificate in ((revoked_key, first), (stranger_key, leaf(OTHER_CA, key=stranger_key))):
            refused(await send(server, by_certificate(key, certificate, [otp_csr()])), CmcFailInfo.BAD_IDENTITY, (0,))
        assert (await send(server, unsigned(otp_csr()))).answer.status == 200, "it was not used up"


@pytest.mark.spec("EST-POP-18")
async def test_who_may_sign_with_a_certificate_alone_may_use_a_password_too_as_on_a_connection(tmp_path: Path) -> None:
    holder_key = new_key()
    holder = leaf(key=holder_key)
    async with running(tmp_path, registry({"certificate": {"issuedBy": "this"}}, OTP_WAY)) as server:
        reply = await send(server, by_certificate(holder_key, holder, [otp_csr()]))
        assert reply.answer.status == 200
        assert server.audit_events[-1]["requester"] == "oneTimePassword:device-1"
        wrong = await send(server, by_certificate(holder_key, holder, [otp_csr("wrong")]))
        refused(wrong, CmcFailInfo.BAD_REQUEST, (1,))
        assert await issued(server) == 1


@pytest.mark.spec("EST-POP-18")
async def test_a_password_beside_another_or_in_what_a_registration_authority_vouches_for_is_refused_and_not_used_up(tmp_path: Path) -> None:
    async with running(tmp_path, registry(OTP_WAY, {"basic": {"secretName": "passwords"}})) as server:
        authority = await make_authority(server)
        before = await issued(server)
        refused(await send(server, unsigned(otp_csr()), authorization=basic()), CmcFailInfo.BAD_REQUEST, (1,))
        passed_on = await send(server, authority.pass_on(vouched(otp_csr())), authorization=authority.bearer)
        refused(passed_on, CmcFailInfo.BAD_REQUEST, (1,))
        assert await issued(server) == before
        assert (await send(server, unsigned(otp_csr()))).answer.status == 200


@pytest.mark.spec("EST-CLI-01", "EST-POP-18")
async def test_a_wrong_one_is_challenged(tmp_path: Path) -> None:
    async with running(tmp_path, registry()) as server:
        reply = await send(server, unsigned(otp_csr("wrong")))
        assert reply.answer.status in {401, 403}
        assert reply.statuses[0].fail_info is CmcFailInfo.BAD_IDENTITY
        assert await issued(server) == 0


@pytest.mark.spec("EST-ATTR-07")
async def test_an_issuer_that_insists_on_its_csr_attributes_does_so_for_every_request(tmp_path: Path) -> None:
    spec = {**app_fixtures.with_est(csrAttributes="Enforced"), "policy": {**app_fixtures.SPEC["policy"], "keys": ["ECDSA-P256"]}}
    async with running(tmp_path, app_fixtures.registry_of(app_fixtures.manifest(spec=spec))) as server:
        follows = make_csr("device-1", "a.devices.example", usages=USAGES)
        assert len((await send(server, unsigned(follows), authorization=basic())).certificates) == 1
        ignores = make_csr("device-1", "b.devices.example")
        refused(await send(server, unsigned(ignores), authorization=basic()), CmcFailInfo.BAD_REQUEST, (1,))


USAGES = [Usage.DIGITAL_SIGNATURE, Usage.KEY_ENCIPHERMENT, Usage.SERVER_AUTH, Usage.CLIENT_AUTH]
