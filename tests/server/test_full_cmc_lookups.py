"""Revoking, getting and accepting certificates by Full PKI Requests (RFC 5272 sections 6.9, 6.11 and 6.14)."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from estcore import cmc_controls as controls
from estcore import full_request, pki_data, signed_data
from estcore.cmc_controls import Control
from estcore.cmc_status import CmcStatus, StatusInfo
from estcore.cms_signature import signer_of
from estcore.errors import CmcFailInfo
from estcore.keys import PrivateKey
from tests import pki
from tests.server import app_fixtures
from tests.server.app_fixtures import MANUFACTURER_CA, NOW, Server, basic, leaf, make_csr, name, new_key, running, tls
from tests.server.cmc_fixtures import (
    CA_CERTIFICATE,
    Authority,
    Reply,
    by_certificate,
    enrolled,
    make_authority,
    newcomer,
    newcomer_csr,
    send,
)
from tests.server.test_full_cmc import refused

CA_NAME = CA_CERTIFICATE.subject.public_bytes()
KEY_COMPROMISE = 1


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with running(tmp_path) as running_server:
        yield running_server


@pytest.fixture
async def ra(server: Server) -> Authority:
    return await make_authority(server)


def revoke(
    certificate: x509.Certificate, *, issuer_der: bytes = CA_NAME, reason: int = KEY_COMPROMISE, **others: object
) -> controls.RevokeRequest:
    return controls.RevokeRequest(issuer_der, certificate.serial_number, reason, **others)  # type: ignore[arg-type]  # its own fields


def succeeded(reply: Reply, *body_parts: tuple[int, ...]) -> None:
    assert reply.answer.status == 200
    assert reply.message is not None
    assert len(reply.message.signers) == 1
    assert [(status.status, status.body_parts) for status in reply.statuses] == [(CmcStatus.SUCCESS, body_parts)]


async def state(server: Server, certificate: x509.Certificate) -> tuple[str, int | None, int | None]:
    query = "SELECT state, revocation_reason, revoked_at FROM certificates WHERE serial = ?"
    serial = (f"{certificate.serial_number:x}",)
    row = await server.ledger.transact(lambda connection: connection.exec_driver_sql(query, serial).one())
    return row[0], row[1], row[2]


@pytest.mark.spec("EST-CMC-28", "THREAT-11")
async def test_a_holder_revokes_its_certificate_and_it_authenticates_nobody_from_then_on(server: Server) -> None:
    key, certificate = await enrolled(server)
    succeeded(await send(server, by_certificate(key, certificate, [], [revoke(certificate)])), (1,))
    assert await state(server, certificate) == ("revoked", KEY_COMPROMISE, int(NOW.timestamp()))
    renewal = make_csr("device-1", "a.devices.example")
    refused(await send(server, by_certificate(key, certificate, [renewal])), CmcFailInfo.BAD_IDENTITY, (0,))
    answer = await server.enroll(renewal, operation="simplereenroll", connection=tls(certificate))
    assert answer.status == 403
    assert "revoked" in answer.text


@pytest.mark.spec("EST-CMC-28")
async def test_a_revocation_is_audited_with_its_reason_and_who_asked(server: Server) -> None:
    key, certificate = await enrolled(server)
    await send(server, by_certificate(key, certificate, [], [revoke(certificate)]))
    event = server.audit_events[-1]
    assert (event["audit"], event["serial"], event["reason"]) == ("revoked", f"{certificate.serial_number:x}", KEY_COMPROMISE)
    assert event["requester"].startswith("certificate:")


async def test_whoever_got_a_certificate_may_revoke_it_without_its_key(server: Server) -> None:
    _, certificate = await enrolled(server)
    key = new_key()
    reply = await send(server, newcomer(key, newcomer_csr(key), [revoke(certificate)]), authorization=basic())
    assert (await state(server, certificate))[0] == "revoked"
    assert (await state(server, reply.certificate_for(key)))[0] == "issued", "what the same message asked for stands"


async def test_a_registration_authority_may_revoke_any_certificate_of_its_issuer(server: Server, ra: Authority) -> None:
    _, certificate = await enrolled(server)
    succeeded(await send(server, ra.sign(full_request.body([], [revoke(certificate)]))), (1,))
    assert (await state(server, certificate))[0] == "revoked"


@pytest.mark.spec("EST-CMC-28")
async def test_a_certificate_that_is_unknown_and_one_of_somebody_else_are_both_bad_cert_id(server: Server) -> None:
    _, certificate = await enrolled(server)
    other_key = new_key()
    other = (await send(server, newcomer(other_key, newcomer_csr(other_key)), authorization=basic())).certificate_for(other_key)
    owner_key = app_fixtures.new_key()
    owner = leaf(MANUFACTURER_CA, "serial-77", key=owner_key)
    for value in (
        revoke(other),
        revoke(leaf()),
        revoke(certificate, issuer_der=name("Another CA").public_bytes()),
        revoke(certificate, issuer_der=b"\x30\x00"),
    ):
        reply = await send(server, by_certificate(owner_key, owner, [], [value]))
        refused(reply, CmcFailInfo.BAD_CERT_ID, (1,))
        assert reply.statuses[0].text == "this issuer has no such certificate of yours"
    assert (await state(server, other))[0] == "issued"
    assert (await state(server, certificate))[0] == "issued"


VENDOR_B = pki.ca("Vendor B root")
IMPOSTOR = pki.ca("Manufacturer CA", issuer=VENDOR_B, private_key=new_key())
"""A CA of another vendor that is called like the manufacturer's."""
IMPOSTOR_CA = app_fixtures.secret("impostor", {"tls.crt": pki.pem(IMPOSTOR.certificate), "tls.key": pki.key_pem(IMPOSTOR.key)})


@asynccontextmanager
async def two_vendors(tmp_path: Path) -> AsyncIterator[Server]:
    ways = [{"certificate": {"issuedBy": "this"}}, *({"certificate": {"caSecretName": each}} for each in ("manufacturer", "vendor-b"))]
    manifest = app_fixtures.manifest(spec=app_fixtures.with_est(authentication=ways))
    anchors = app_fixtures.secret("vendor-b", {"ca.crt": pki.pem(VENDOR_B.certificate)})
    async with running(tmp_path, app_fixtures.registry_of(manifest, secrets=(*app_fixtures.SECRETS, anchors))) as server:
        yield server


def by_impostors_device(key: PrivateKey, certificate: x509.Certificate, value: Control) -> bytes:
    """A Full PKI Request with the CA between its signer and the anchor."""
    identifier = signed_data.IssuerAndSerialNumber(certificate.issuer.public_bytes(), certificate.serial_number)
    chain = [pki.der(certificate), pki.der(IMPOSTOR.certificate)]
    return signed_data.build(
        pki_data.ID_CCT_PKI_DATA, full_request.body([], [value]), [(identifier, signer_of(key))], certificates_der=chain
    )


@pytest.mark.spec("EST-CMC-28", "THREAT-11", "THREAT-12")
async def test_devices_of_two_vendors_are_two_though_their_cas_have_the_same_name_and_they_the_same_serial_number(tmp_path: Path) -> None:
    async with two_vendors(tmp_path) as server:
        key, other_key = new_key(), new_key()
        device, other = leaf(MANUFACTURER_CA, "device-1", key=key), leaf(IMPOSTOR_CA, "mallory", key=other_key)
        assert (device.issuer, device.serial_number) == (other.issuer, other.serial_number)
        certificate = (await server.enroll(make_csr("device-1", "a.devices.example"), connection=tls(device))).certificate
        whose = server.audit_events[-1]["requester"]
        for value in (revoke(certificate), controls.GetCert(pki.tlv(0xA4, CA_NAME), certificate.serial_number)):
            reply = await send(server, by_impostors_device(other_key, other, value))
            refused(reply, CmcFailInfo.BAD_CERT_ID, (1,))
        reply = await send(server, by_certificate(key, other, [], [revoke(certificate)]))
        refused(reply, CmcFailInfo.BAD_MESSAGE_CHECK, (0,))
        assert (await state(server, certificate))[0] == "issued"
        succeeded(await send(server, by_certificate(key, device, [], [revoke(certificate)])), (1,))
        assert server.audit_events[-1]["requester"] == whose, "by TLS and by a message alike"
        assert whose == f"thirdPartyCertificate:{device.fingerprint(hashes.SHA256()).hex()}"


@pytest.mark.spec("EST-CMC-28", "THREAT-11", "THREAT-12")
async def test_a_third_partys_certificate_with_the_serial_number_of_one_of_ours_is_another_certificate(tmp_path: Path) -> None:
    async with two_vendors(tmp_path) as server:
        device = leaf(MANUFACTURER_CA, "device-1")
        certificate = (await server.enroll(make_csr("device-1", "a.devices.example"), connection=tls(device))).certificate
        key = new_key()
        alike = leaf(MANUFACTURER_CA, "mallory", key=key, serial=certificate.serial_number)
        refused(await send(server, by_certificate(key, alike, [], [revoke(certificate)])), CmcFailInfo.BAD_CERT_ID, (1,))
        assert (await state(server, certificate))[0] == "issued"


@pytest.mark.parametrize("reason", [6, 8, 7, 11])
async def test_a_reason_that_is_not_for_ever_or_does_not_exist_is_refused(server: Server, reason: int) -> None:
    key, certificate = await enrolled(server)
    refused(await send(server, by_certificate(key, certificate, [], [revoke(certificate, reason=reason)])), CmcFailInfo.BAD_REQUEST, (1,))
    assert (await state(server, certificate))[0] == "issued"


async def test_a_revocation_is_not_done_where_a_request_beside_it_is_refused(server: Server) -> None:
    key, certificate = await enrolled(server)
    message = by_certificate(key, certificate, [make_csr("device-1", "x.elsewhere.example")], [revoke(certificate)])
    refused(await send(server, message), CmcFailInfo.BAD_REQUEST, (1,), http_status=403)
    assert (await state(server, certificate))[0] == "issued"


async def test_revoking_twice_succeeds_and_keeps_the_first_time_and_reason(server: Server, ra: Authority) -> None:
    key, certificate = await enrolled(server)
    await send(server, by_certificate(key, certificate, [], [revoke(certificate)]))
    server.clock.advance(hours=1)
    succeeded(await send(server, ra.sign(full_request.body([], [revoke(certificate, reason=4)]))), (1,))
    assert await state(server, certificate) == ("revoked", KEY_COMPROMISE, int(NOW.timestamp()))


# ---- with a passphrase, without a signature


def unsigned(*values: controls.Control) -> bytes:
    """A SignedData with no signatures (RFC 5272 section 6.11)."""
    return signed_data.build(pki_data.ID_CCT_PKI_DATA, full_request.body([], values), [])


async def with_passphrase(server: Server, passphrase: str) -> x509.Certificate:
    """A certificate whose CSR had the attribute revocationChallenge (RFC 7894 section 3.2)."""
    key = new_key()
    builder = x509.CertificateSigningRequestBuilder().subject_name(name("device-1"))
    builder = builder.add_attribute(x509.ObjectIdentifier("1.2.840.113549.1.9.16.2.57"), passphrase.encode())
    csr_der = builder.sign(key, pki.hash_for(key)).public_bytes(Encoding.DER)
    return (await server.enroll(csr_der, authorization=basic())).certificate


@pytest.mark.spec("EST-CMC-28", "EST-POP-18")
async def test_the_passphrase_of_the_csr_revokes_without_a_signature(server: Server) -> None:
    certificate = await with_passphrase(server, "lost my keys")
    succeeded(await send(server, unsigned(revoke(certificate, passphrase=b"lost my keys"))), (1,))
    assert (await state(server, certificate))[0] == "revoked"


@pytest.mark.spec("EST-CMC-28")
async def test_a_wrong_passphrase_revokes_nothing_and_guessing_is_slowed_down(server: Server) -> None:
    certificate = await with_passphrase(server, "lost my keys")
    for _ in range(5):
        refused(await send(server, unsigned(revoke(certificate, passphrase=b"lost"))), CmcFailInfo.BAD_IDENTITY, (1,))
    reply = await send(server, unsigned(revoke(certificate, passphrase=b"lost my keys")))
    refused(reply, CmcFailInfo.TRY_LATER, (0,), http_status=503)
    assert (await state(server, certificate))[0] == "issued"
    server.clock.advance(minutes=2)
    succeeded(await send(server, unsigned(revoke(certificate, passphrase=b"lost my keys"))), (1,))


async def test_a_certificate_without_a_passphrase_is_revoked_by_none(server: Server) -> None:
    _, certificate = await enrolled(server)
    for passphrase in (b"", b"x"):
        refused(await send(server, unsigned(revoke(certificate, passphrase=passphrase))), CmcFailInfo.BAD_IDENTITY, (1,))
    assert (await state(server, certificate))[0] == "issued"


@pytest.mark.parametrize("beside", [controls.GetCert(pki.tlv(0xA4, CA_NAME), 7), controls.QueryPending(b"token")])
@pytest.mark.spec("EST-CLI-01")
async def test_nothing_but_a_revocation_comes_with_a_passphrase_alone(server: Server, beside: controls.Control) -> None:
    certificate = await with_passphrase(server, "lost my keys")
    message = unsigned(revoke(certificate, passphrase=b"lost my keys"), beside)
    refused(await send(server, message), CmcFailInfo.BAD_IDENTITY, (0,), http_status=401)
    refused(await send(server, unsigned(revoke(certificate))), CmcFailInfo.BAD_IDENTITY, (0,), http_status=401)
    assert (await state(server, certificate))[0] == "issued"


async def test_the_ledger_holds_no_passphrase(server: Server, tmp_path: Path) -> None:
    await with_passphrase(server, "lost my keys entirely")
    stored = b"".join(map(Path.read_bytes, sorted(tmp_path.glob("*"))))  # noqa: ASYNC240 - a test has the thread for itself
    # the CSR itself is not in the ledger, only its digest
    assert b"lost my keys entirely" not in stored


# ---- getCert, confirmCertAcceptance


@pytest.mark.spec("EST-CMC-29")
async def test_get_cert_alone_is_answered_by_a_simple_response_with_the_certificate(server: Server) -> None:
    key, certificate = await enrolled(server)
    reply = await send(server, by_certificate(key, certificate, [], [controls.GetCert(pki.tlv(0xA4, CA_NAME), certificate.serial_number)]))
    assert reply.response is None
    assert reply.certificates == (certificate,)


@pytest.mark.spec("EST-CMC-29")
async def test_get_cert_hands_out_nothing_of_others(server: Server, ra: Authority) -> None:
    _, certificate = await enrolled(server)
    key = new_key()
    other = leaf(MANUFACTURER_CA, "serial-77", key=key)
    value = controls.GetCert(pki.tlv(0xA4, CA_NAME), certificate.serial_number)
    refused(await send(server, by_certificate(key, other, [], [value])), CmcFailInfo.BAD_CERT_ID, (1,))
    assert (await send(server, ra.sign(full_request.body([], [value])))).certificates == (certificate,)
    by_dns = controls.GetCert(pki.tlv(0x82, b"factory.example"), certificate.serial_number)
    refused(await send(server, ra.sign(full_request.body([], [by_dns]))), CmcFailInfo.BAD_CERT_ID, (1,))


@pytest.mark.spec("EST-CMC-31")
async def test_accepting_a_certificate_is_answered_by_a_full_response(server: Server) -> None:
    key, certificate = await enrolled(server)
    accepts = controls.ConfirmCertAcceptance(CA_NAME, certificate.serial_number)
    succeeded(await send(server, by_certificate(key, certificate, [], [accepts])), (1,))
    status = controls.Status(StatusInfo(status=CmcStatus.SUCCESS, body_parts=((1,),)))
    succeeded(await send(server, by_certificate(key, certificate, [], [accepts, status])), (1,))


@pytest.mark.spec("EST-CMC-31")
async def test_a_status_that_accepts_nothing_is_refused(server: Server) -> None:
    key, certificate = await enrolled(server)
    rejects = controls.Status(StatusInfo(status=CmcStatus.FAILED, body_parts=((1,),), fail_info=CmcFailInfo.BAD_REQUEST))
    refused(await send(server, by_certificate(key, certificate, [], [rejects])), CmcFailInfo.BAD_REQUEST, (1,))


@pytest.mark.spec("EST-CMC-30")
async def test_a_token_that_nobody_gave_out_is_refused(server: Server) -> None:
    key, certificate = await enrolled(server)
    reply = await send(server, by_certificate(key, certificate, [], [controls.QueryPending(b"token")]))
    refused(reply, CmcFailInfo.BAD_REQUEST, (1,))


async def test_what_was_fetched_and_what_was_issued_come_together(server: Server, ra: Authority) -> None:
    _, certificate = await enrolled(server)
    key = new_key()
    body = full_request.body(
        [pki_data.tagged_pkcs10(1, make_csr("web-1", key=key))],
        [controls.GetCert(pki.tlv(0xA4, CA_NAME), certificate.serial_number)],
    )
    reply = await send(server, ra.sign(body))
    assert {certificate, reply.certificate_for(key)} == set(reply.certificates)
