"""Full PKI Requests over real TLS on a loopback socket: the product's client, the product's server."""

import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from estclient import Basic, Bearer
from estcore import cert_template, cmc_controls, csr_builder, full_request, pki_data
from estcore.cms_signature import signer_of
from estcore.errors import CmcFailInfo, ServerUnavailable
from estcore.full_exchange import FullRefused, FullRequest
from estcore.full_request import Vouched
from estcore.keys import PrivateKey
from estoperator.est_server import EstServer, MountedFile
from tests import pki
from tests.client.double import Identity
from tests.client.test_client_and_server import CA, Served, keep, serving
from tests.server.app_fixtures import NOW, PASSWORD, RA, USER, make_csr, name, new_key, running
from tests.server.cmc_fixtures import CMC_RA, REG_INFO, newcomer, newcomer_csr


@pytest.fixture
async def served(tmp_path: Path, ca: Identity, server: Identity) -> AsyncIterator[Served]:
    async with running(tmp_path) as app, serving(app, ca, server) as behind_a_socket:
        yield behind_a_socket


@pytest.mark.spec("EST-CMC-01", "EST-CMC-03", "EST-CMC-26", "EST-CMC-27", "EST-POP-16")
async def test_an_operator_enrols_itself_as_registration_authority_and_then_asks_for_an_object(served: Served) -> None:
    token = served.app.reviewer.add(RA, audience="est-issuer")
    async with served.client(Bearer(token=lambda: token)) as client:
        ra_key = new_key()
        ra = keep(await client.simple_enroll(pki.csr(ra_key, subject=name("operator"), ekus=(ExtendedKeyUsageOID.CLIENT_AUTH, CMC_RA))))
        template = cert_template.build(subject=name("web-1"), not_before=NOW, not_after=NOW + timedelta(hours=1))

        def request(key: PrivateKey) -> FullRequest:
            vouched = Vouched(csr_der=make_csr("web", key=key), transaction_id=77, cert_template_der=template, reg_info=REG_INFO)
            message = full_request.sign_by_certificate(full_request.vouched_body(vouched), ra, signer_of(ra_key))
            return FullRequest(content_info_der=message, transaction_id=77)

        key = new_key()
        answers = [await client.full_cmc(request(key), ca_certificates=[CA]) for _ in range(2)]
        with pytest.raises(FullRefused, match="this transaction was used before") as refused:
            await client.full_cmc(request(new_key()), ca_certificates=[CA])
        assert refused.value.http_status == 409
    first, second = (keep(answer.certificate_for(key.public_key())) for answer in answers)
    assert first == second
    assert first.subject == name("web-1")
    assert first.not_valid_after_utc - NOW <= timedelta(hours=1)
    assert answers[0].response is None


@pytest.mark.spec("EST-CMC-27")
async def test_the_operator_holds_a_clock_that_is_not_estservers_against_nobody(served: Served, tmp_path: Path) -> None:
    """A request is tried again then, and not failed: the same may pass once the clocks are set."""
    anchors, token = tmp_path / "anchors.pem", tmp_path / "token"
    anchors.write_bytes(served.anchors_pem)
    token.write_text(served.app.reviewer.add(RA, audience="est-issuer"))
    server = EstServer(
        url=f"https://localhost:{served.port}",
        anchors=MountedFile(anchors, what="anchors", clock=time.monotonic),
        token=MountedFile(token, what="token", clock=time.monotonic),
        now=lambda: NOW,
    )
    try:
        await server.authority.register("factory", None)
        key = new_key()
        for skew in (timedelta(minutes=6), -timedelta(minutes=6), timedelta(minutes=4)):
            template = cert_template.build(subject=name("web-1"), not_before=NOW + skew, not_after=NOW + skew + timedelta(hours=1))
            vouched = Vouched(csr_der=make_csr("web", key=key), transaction_id=78, cert_template_der=template, reg_info=REG_INFO)
            if abs(skew) > cert_template.CLOCK_SKEW:
                with pytest.raises(ServerUnavailable, match="set the clocks of their nodes"):
                    await server.enrol("factory", vouched, public_key=key.public_key(), authorities=[CA])
            else:
                keep(await server.enrol("factory", vouched, public_key=key.public_key(), authorities=[CA]))
    finally:
        await server.aclose()


@pytest.mark.spec("EST-CMC-05", "EST-CMC-17", "EST-CMC-18", "EST-SRVID-09", "EST-HTTP-07")
async def test_a_device_binds_its_message_to_the_connection_and_believes_the_cas_signature(served: Served) -> None:
    key = new_key()

    def build(channel_binding: bytes) -> FullRequest:
        csr_der = csr_builder.build(key, subject=name(USER), channel_binding=channel_binding, key_identifier=True)
        message = newcomer(key, csr_der, [cmc_controls.TransactionId(5), cmc_controls.SenderNonce(b"of this message")])
        return FullRequest(content_info_der=message, sender_nonce=b"of this message", transaction_id=5)

    async with served.client(Basic(user=USER, password=PASSWORD)) as client:
        answer = await client.full_cmc(build, ca_certificates=await client.ca_certs())
    assert answer.response is not None
    assert keep(answer.certificate_for(key.public_key())).subject == name(USER)


@pytest.mark.spec("EST-CMC-04", "EST-CLI-06")
async def test_a_refusal_reaches_the_user_with_the_fail_info_and_the_reason(served: Served) -> None:
    key = new_key()
    message = newcomer(key, newcomer_csr(key, "device-2"))
    async with served.client(Basic(user=USER, password=PASSWORD)) as client:
        with pytest.raises(FullRefused, match="bad_request") as refused:
            await client.full_cmc(FullRequest(content_info_der=message), ca_certificates=[CA])
    assert refused.value.http_status == 403
    assert refused.value.statuses[0].fail_info is CmcFailInfo.BAD_REQUEST
    assert refused.value.statuses[0].body_parts == ((1,),)


@pytest.mark.spec("EST-CMC-28")
async def test_a_device_revokes_its_certificate_and_can_no_longer_renew_it(served: Served) -> None:
    key = new_key()
    async with served.client(Basic(user=USER, password=PASSWORD)) as client:
        certificate = keep(await client.simple_enroll(make_csr(USER, key=key)))
        revoke = cmc_controls.RevokeRequest(certificate.issuer.public_bytes(), certificate.serial_number, 1)
        message = full_request.sign_by_certificate(full_request.body([], [revoke]), certificate, signer_of(key))
        answer = await client.full_cmc(FullRequest(content_info_der=message), ca_certificates=[CA])
        assert answer.response is not None
        body = full_request.body([pki_data.tagged_pkcs10(1, make_csr(USER))], [])
        renewal = full_request.sign_by_certificate(body, certificate, signer_of(key))
        with pytest.raises(FullRefused, match="revoked"):
            await client.full_cmc(FullRequest(content_info_der=renewal), ca_certificates=[CA])
