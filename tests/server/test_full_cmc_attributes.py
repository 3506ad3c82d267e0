"""What the attributes of a CSR mean in a Full PKI Request: as in simpleenroll (RFC 7894, RFC 8951 section 4)."""

from pathlib import Path

import pytest

from estcore import cmc_controls as controls
from estcore import full_request, pki_data, signed_data
from estcore.errors import CmcFailInfo
from estcore.usages import Usage
from tests.server import app_fixtures
from tests.server.app_fixtures import basic, make_csr, name, new_key, running
from tests.server.cmc_fixtures import send
from tests.server.test_full_cmc import issued, refused
from tests.server.test_one_time_passwords import otp_csr, registry


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
