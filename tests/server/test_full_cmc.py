"""The operation fullcmc: who may send what, what is issued, and that every refusal is a Full PKI Response (RFC 7030 section 4.3)."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from estcore import cmc_controls as controls
from estcore import cms_signature, crmf, full_exchange, full_request, pki_data, roll_over, signed_data
from estcore.cmc_controls import Control
from estcore.cmc_status import CmcStatus
from estcore.cms_signature import MessageSigner, signer_of
from estcore.errors import CmcFailInfo
from estcore.exchange import HttpResponse
from estcore.issuer_spec import KeyAlgorithm
from estcore.signed_data import SignerIdentifier
from estserver.snapshot import SecretManifest
from tests import pki
from tests.server import app_fixtures
from tests.server.app_fixtures import FACTORY_CA, NOW, OTHER_CA, Server, basic, leaf, make_csr, name, new_key, running, tls
from tests.server.cmc_fixtures import (
    CA_CERTIFICATE,
    REG_INFO,
    Authority,
    Reply,
    by_certificate,
    enrolled,
    extension,
    make_authority,
    newcomer,
    newcomer_csr,
    read,
    send,
    template,
    vouched,
)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with running(tmp_path) as running_server:
        yield running_server


@pytest.fixture
async def ra(server: Server) -> Authority:
    return await make_authority(server)


async def issued(server: Server) -> int:
    """How many certificates the ledger holds."""
    rows = await server.ledger.transact(lambda connection: connection.exec_driver_sql("SELECT count(*) FROM certificates").scalar_one())
    return int(rows)


def refused(reply: Reply, fail_info: CmcFailInfo, *body_parts: tuple[int, ...], http_status: int = 400) -> None:
    assert reply.answer.status == http_status
    (status,) = [value.info for value in reply.values if isinstance(value, controls.Status)]
    assert (status.status, status.fail_info) == (CmcStatus.FAILED, fail_info), status
    assert status.body_parts == body_parts
    assert status.text
    assert not [each for each in reply.certificates if each != CA_CERTIFICATE]


# ---- a registration authority, as the operator is one


@pytest.mark.spec("EST-CMC-03", "EST-CMC-26", "EST-CMC-27", "EST-CLI-03", "EST-POP-16")
async def test_the_operator_gets_what_a_pkcs10_cannot_carry(server: Server, ra: Authority) -> None:
    key = new_key()
    sans = x509.SubjectAlternativeName([x509.DNSName("web-1.shop.svc")])
    usages = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    cert_template_der = template(
        extension(sans), extension(usages), subject=name("web-1"), not_after=NOW + timedelta(hours=2), not_before=NOW
    )
    reply = await send(
        server,
        ra.pass_on(vouched(make_csr("somebody", key=key), cert_template_der=cert_template_der, reg_info=REG_INFO)),
        authorization=ra.bearer,
    )
    assert reply.answer.header("content-type") == "application/pkcs7-mime; smime-type=certs-only"
    certificate = reply.certificate_for(key)
    assert certificate.subject == name("web-1")
    assert certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value == sans
    assert list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert certificate.not_valid_after_utc - NOW <= timedelta(hours=2)


@pytest.mark.spec("EST-CMC-14", "EST-CMC-26", "EST-CLI-03", "EST-POP-16")
@pytest.mark.parametrize("algorithm", [KeyAlgorithm.ECDSA_P256, KeyAlgorithm.RSA_2048, KeyAlgorithm.ED25519])
async def test_the_operator_gets_a_certificate_for_a_bare_key_by_vouching_for_its_possession(
    server: Server, ra: Authority, algorithm: KeyAlgorithm
) -> None:
    """A PodCertificateRequest of a node before Kubernetes 1.36 has no CSR."""
    key = pki.key(algorithm, "pod")
    bare = crmf.for_public_key(pki.spki_der(key.public_key()), cert_req_id=full_request.REQUEST)
    names = x509.SubjectAlternativeName([x509.DNSName("web-1.shop.svc")])
    cert_template_der = template(extension(names, critical=True), subject=x509.Name([]), not_before=NOW, not_after=NOW + timedelta(hours=2))
    said = vouched(bare.csr_der, form=bare.form, cert_template_der=cert_template_der, reg_info=REG_INFO)
    first, second = [await send(server, ra.pass_on(said), authorization=ra.bearer) for _ in range(2)]
    certificate = first.certificate_for(key)
    assert certificate == second.certificate_for(key), "a retry is answered by what was issued"
    assert not certificate.subject.rdns
    assert certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value == names
    before = await issued(server)
    silent = await send(server, ra.pass_on(replace(said, transaction_id=5, possession=False)), authorization=ra.bearer)
    assert not [each for each in silent.certificates if each.public_key() == key.public_key()], (
        "without the RA's word possession is unproven"
    )
    assert await issued(server) == before


async def test_door_and_requester_of_the_operators_object_are_in_the_ledger(server: Server, ra: Authority) -> None:
    await send(server, ra.pass_on(vouched(make_csr("web-1"), reg_info=REG_INFO)), authorization=ra.bearer)
    query = "SELECT door, requester, on_behalf_of, \"transaction\" FROM certificates WHERE operation = 'fullcmc'"
    (row,) = await server.ledger.transact(lambda connection: connection.exec_driver_sql(query).all())
    assert (row[0], row[1]) == ("cert-manager.io", "kubernetes:shop")
    assert json.loads(row[2])["requester"] == "system:serviceaccount:cert-manager:cert-manager"
    assert row[3] == "cmc/1f0c9a52/1"
    said = server.audit_events[-1]
    assert (said["door"], said["requester"], said["transaction"]) == ("cert-manager.io", "kubernetes:shop", row[3])


@pytest.mark.spec("EST-CMC-17", "THREAT-31")
async def test_a_retry_of_a_transaction_gets_the_same_certificate(server: Server, ra: Authority) -> None:
    csr_der = make_csr("web-1")
    first, second = [await send(server, ra.pass_on(vouched(csr_der, reg_info=REG_INFO)), authorization=ra.bearer) for _ in range(2)]
    assert first.certificates == second.certificates
    before = await issued(server)
    third = await send(server, ra.pass_on(vouched(csr_der, transaction_id=7, reg_info=REG_INFO)), authorization=ra.bearer)
    assert third.certificates != first.certificates
    assert await issued(server) == before + 1


@pytest.mark.spec("EST-CMC-17", "THREAT-31")
async def test_a_transaction_has_one_certificate_for_ever_whichever_certificate_signs_it(server: Server, ra: Authority) -> None:
    said = vouched(make_csr("web-1"), reg_info=REG_INFO)
    first = await send(server, ra.pass_on(said), authorization=ra.bearer)
    server.clock.advance(days=30)
    later = await make_authority(server)
    before = await issued(server)
    again = await send(server, later.pass_on(said), authorization=later.bearer)
    assert again.certificates == first.certificates
    assert await issued(server) == before


async def test_a_transaction_is_not_used_again_for_another_key(server: Server, ra: Authority) -> None:
    await send(server, ra.pass_on(vouched(make_csr("web-1"), reg_info=REG_INFO)), authorization=ra.bearer)
    reply = await send(server, ra.pass_on(vouched(make_csr("web-1"), reg_info=REG_INFO)), authorization=ra.bearer)
    assert reply.answer.status == 409
    assert reply.statuses[0].status is CmcStatus.FAILED
    assert "use a new transactionId" in (reply.statuses[0].text or "")


@pytest.mark.parametrize(
    "reg_info",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xff", id="no UTF-8"),
        pytest.param(b"[" * 4000, id="nested deep"),
        pytest.param(b'["cert-manager.io", "shop"]', id="a list"),
        pytest.param(b'{"door":"cert-manager.io","namespace":"shop","uid":"1"}', id="another member"),
        pytest.param(b'{"door":"cert-manager.io","namespace":7}', id="a number"),
        pytest.param(b'{"door":"cert-manager.io","namespace":""}', id="an empty namespace"),
        pytest.param(b'{"door":"cert-manager.io","namespace":"shop\\n"}', id="a line feed"),
        pytest.param(b'{"door":"cert-manager.io","namespace":"%s"}' % (b"x" * 1025), id="a long namespace"),
        pytest.param(b'{"door":"cert-manager.io","namespace":"shop"}' + b" " * 4096, id="long"),
        pytest.param(b'{"door":"cert-manager.io"}', id="no namespace"),
        pytest.param(b'{"door":"cert-manager.io","requester":"alice"}', id="a requester without a namespace"),
        pytest.param(b'{"door":"est","namespace":"shop"}', id="no Kubernetes door"),
        pytest.param(b'{"door":"kubernetes.io","namespace":"shop"}', id="an unknown door"),
        pytest.param(b'{"door":"certificatesigningrequests"}', id="nobody's signing request"),
    ],
)
async def test_an_object_that_is_not_named_as_agreed_is_a_bad_request_and_nothing_is_issued(
    server: Server, ra: Authority, reg_info: bytes
) -> None:
    before = await issued(server)
    reply = await send(server, ra.pass_on(vouched(make_csr("web-1"), reg_info=reg_info)), authorization=ra.bearer)
    refused(reply, CmcFailInfo.BAD_REQUEST, (0,))
    assert "regInfo" in (reply.statuses[0].text or "")
    assert await issued(server) == before


async def test_an_outside_registration_authority_needs_no_token_but_has_no_kubernetes_door(server: Server, ra: Authority) -> None:
    key = new_key()
    reply = await send(server, ra.pass_on(vouched(make_csr("anything", "x.example", key=key))))
    assert reply.certificate_for(key).subject == name("anything")
    refusal = await send(server, ra.pass_on(vouched(make_csr("web-1"), reg_info=REG_INFO)))
    refused(refusal, CmcFailInfo.BAD_IDENTITY, (0,), http_status=403)
    assert "token" in (refusal.statuses[0].text or "")


@pytest.mark.spec("EST-CLI-04")
async def test_the_registration_authority_of_one_issuer_is_nobody_at_another(tmp_path: Path) -> None:
    registry = app_fixtures.registry_of(
        app_fixtures.manifest(),
        app_fixtures.manifest("other", {**app_fixtures.with_est(label="other"), "ca": {"secretName": "other-ca"}}),
    )
    async with running(tmp_path, registry) as server:
        ra = await make_authority(server)
        for authorization in (None, ra.bearer):
            before = await issued(server)
            reply = await send(server, ra.pass_on(vouched(make_csr("web-1"))), label="other", authorization=authorization)
            refused(reply, CmcFailInfo.BAD_IDENTITY, (0,))
            assert await issued(server) == before


@pytest.mark.spec("THREAT-11", "THREAT-17")
async def test_a_registration_authority_whose_certificate_is_revoked_or_expired_is_nobody(server: Server, ra: Authority) -> None:
    other = await make_authority(server)
    revoke = controls.RevokeRequest(CA_CERTIFICATE.subject.public_bytes(), ra.certificate.serial_number, 1)
    await send(server, other.sign(full_request.body([], [revoke])))
    before = await issued(server)
    refused(await send(server, ra.pass_on(vouched(make_csr("web-1"))), authorization=ra.bearer), CmcFailInfo.BAD_IDENTITY, (0,))
    server.clock.advance(hours=25)
    refused(await send(server, other.pass_on(vouched(make_csr("web-1")))), CmcFailInfo.BAD_IDENTITY, (0,))
    assert await issued(server) == before


RA_ONLY: list[tuple[controls.Control, CmcFailInfo]] = [
    (controls.ModCertTemplate(bytes.fromhex("300c30030201003003020101") + b"\x30\x00"), CmcFailInfo.BAD_REQUEST),
    (controls.AddExtensions(bytes.fromhex("300a0201003003020101") + b"\x30\x00"), CmcFailInfo.BAD_REQUEST),
    (controls.LraPopWitness(bytes.fromhex("30080201003003020101")), CmcFailInfo.POP_FAILED),
    (controls.ControlProcessed(((3,),)), CmcFailInfo.BAD_REQUEST),
    (controls.RaIdentityWitness((1,)), CmcFailInfo.BAD_REQUEST),
    (controls.BatchRequests((1,)), CmcFailInfo.BAD_REQUEST),
]


@pytest.mark.parametrize(("control", "fail_info"), RA_ONLY, ids=[type(control).__name__ for control, _ in RA_ONLY])
@pytest.mark.parametrize("signed_by", ["the key to be certified", "an existing certificate"])
@pytest.mark.spec("EST-CLI-05", "EST-CMC-26", "EST-CMC-27", "THREAT-17")
async def test_assertions_of_registration_authorities_are_refused_from_others(
    server: Server, control: controls.Control, fail_info: CmcFailInfo, signed_by: str
) -> None:
    key, certificate = await enrolled(server)
    before = await issued(server)
    if signed_by == "an existing certificate":
        message = by_certificate(key, certificate, [make_csr("device-1", "a.devices.example")], [control])
    else:
        message = newcomer(key, newcomer_csr(key), [control])
    reply = await send(server, message, authorization=basic())
    refused(reply, fail_info, (2,))
    assert await issued(server) == before


# ---- devices


@pytest.mark.spec("EST-CMC-08", "EST-CLI-01")
async def test_a_newcomer_signs_with_its_own_key_and_is_known_by_its_password(server: Server) -> None:
    key = new_key()
    reply = await send(server, newcomer(key, newcomer_csr(key, "device-1", "a.devices.example")), authorization=basic())
    assert reply.certificate_for(key).subject == name("device-1")


@pytest.mark.spec("EST-CLI-01", "EST-CMC-04")
async def test_a_newcomer_without_credentials_is_challenged_with_a_cmc_body(server: Server) -> None:
    key = new_key()
    reply = await send(server, newcomer(key, newcomer_csr(key)))
    refused(reply, CmcFailInfo.BAD_IDENTITY, (0,), http_status=401)
    assert reply.answer.all("www-authenticate")
    assert reply.message is not None
    assert reply.message.signers == ()


async def test_a_wrong_password_is_refused_whatever_the_message_shows(server: Server) -> None:
    key, certificate = await enrolled(server)
    message = by_certificate(key, certificate, [make_csr("device-1", "a.devices.example")])
    refused(await send(server, message, authorization=basic(password="wrong")), CmcFailInfo.BAD_IDENTITY, (0,), http_status=401)


@pytest.mark.spec("EST-CLI-06")
async def test_being_authenticated_is_not_enough_for_any_name(server: Server) -> None:
    key = new_key()
    reply = await send(server, newcomer(key, newcomer_csr(key, "device-2")), authorization=basic())
    refused(reply, CmcFailInfo.BAD_REQUEST, (1,), http_status=403)


@pytest.mark.spec("EST-CMC-10", "EST-CMC-23")
async def test_a_renewal_is_signed_by_the_existing_certificate_and_needs_nothing_else(server: Server) -> None:
    key, certificate = await enrolled(server)
    other_key = new_key()
    reply = await send(server, by_certificate(key, certificate, [make_csr("device-1", "a.devices.example", key=other_key)]))
    renewed = reply.certificate_for(other_key)
    assert renewed.subject == certificate.subject
    assert renewed.serial_number != certificate.serial_number


@pytest.mark.spec("EST-CMC-10")
async def test_a_ca_that_forbids_key_reuse_answers_no_key_reuse(tmp_path: Path) -> None:
    spec = {**app_fixtures.SPEC, "policy": {**app_fixtures.SPEC["policy"], "keyReuse": "Forbidden"}}
    async with running(tmp_path, app_fixtures.registry_of(app_fixtures.manifest(spec=spec))) as server:
        key, certificate = await enrolled(server)
        reply = await send(server, by_certificate(key, certificate, [make_csr("device-1", "a.devices.example", key=key)]))
        refused(reply, CmcFailInfo.NO_KEY_REUSE, (1,), http_status=403)


@pytest.mark.spec("EST-CMC-23")
async def test_a_renewal_under_other_names_is_refused(server: Server) -> None:
    key, certificate = await enrolled(server)
    reply = await send(server, by_certificate(key, certificate, [make_csr("device-1", "x.elsewhere.example")]))
    refused(reply, CmcFailInfo.BAD_REQUEST, (1,), http_status=403)


async def test_a_certificate_of_another_ca_vouches_for_nobody(server: Server) -> None:
    key = new_key()
    message = by_certificate(key, leaf(OTHER_CA, key=key), [make_csr("device-1", "a.devices.example")])
    refused(await send(server, message), CmcFailInfo.BAD_IDENTITY, (0,))


async def test_a_certificate_under_the_issuers_anchors_may_enrol(server: Server) -> None:
    key, device_key = new_key(), new_key()
    certificate = leaf(app_fixtures.MANUFACTURER_CA, "serial-77", key=key)
    reply = await send(server, by_certificate(key, certificate, [make_csr("serial-77", "a.devices.example", key=device_key)]))
    assert reply.certificate_for(device_key).subject == name("serial-77")


# ---- all or nothing


def private_control(body_part_id: int = 9) -> pki_data.TaggedAttribute:
    """As Microsoft's clients send one (trap T-28)."""
    return pki_data.TaggedAttribute(
        body_part_id=body_part_id, attr_type="1.3.6.1.4.1.311.10.10.1", values_der=(pki.sequence(pki.tlv(2, b"\x00")),)
    )


def with_private_control(csr_der: bytes, *others: controls.Control) -> bytes:
    body = pki_data.parse(full_request.body([pki_data.tagged_pkcs10(1, csr_der)], others))
    return pki_data.encode(controls=(*body.controls, private_control()), requests_der=[pki_data.tagged_pkcs10(1, csr_der)])


@pytest.mark.spec("EST-CMC-12", "THREAT-09", "THREAT-17")
async def test_step_ca_cve_2025_44005_an_unknown_control_refuses_the_whole_before_anything_is_signed(server: Server, ra: Authority) -> None:
    key = new_key()
    before, audited = await issued(server), len(server.audit_lines)
    body = with_private_control(newcomer_csr(key, "device-1", "a.devices.example"))
    message = full_request.sign_by_key(body, x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest, signer_of(key))
    refused(await send(server, message, authorization=basic()), CmcFailInfo.BAD_REQUEST, (9,))
    refused(await send(server, ra.sign(with_private_control(make_csr("web-1")))), CmcFailInfo.BAD_REQUEST, (9,))
    assert await issued(server) == before
    assert len(server.audit_lines) == audited


@pytest.mark.spec("EST-CMC-12", "EST-CMC-35")
async def test_an_unknown_control_that_a_registration_authority_processed_is_no_failure(server: Server, ra: Authority) -> None:
    key = new_key()
    body = with_private_control(make_csr("web-1", key=key), controls.ControlProcessed(((9,),)))
    assert (await send(server, ra.sign(body))).certificate_for(key).subject == name("web-1")


@pytest.mark.spec("EST-CMC-15", "THREAT-09")
async def test_step_ca_cve_2025_44005_an_unknown_form_of_request_refuses_the_whole_before_anything_is_signed(
    server: Server, ra: Authority
) -> None:
    before = await issued(server)
    unknown = pki.tlv(0xA2, pki.tlv(2, b"\x07"), pki.oid("2.999.7"), pki.tlv(4, b"?"))
    body = full_request.body([pki_data.tagged_pkcs10(1, make_csr("web-1")), unknown], [])
    reply = await send(server, ra.sign(body))
    assert reply.answer.status == 400
    (status,) = reply.statuses
    assert (status.status, status.fail_info, status.body_parts) == (CmcStatus.NO_SUPPORT, None, ((7,),))
    assert await issued(server) == before


@pytest.mark.spec("THREAT-17")
async def test_several_requests_are_authorized_each_and_none_is_signed_where_one_is_not(server: Server) -> None:
    key, certificate = await enrolled(server)
    good, bad = make_csr("device-1", "b.devices.example"), make_csr("device-1", "b.elsewhere.example")
    before = await issued(server)
    refused(await send(server, by_certificate(key, certificate, [good, bad])), CmcFailInfo.BAD_REQUEST, (2,), http_status=403)
    assert await issued(server) == before
    not_permitted = make_csr("device-1", "b.devices.example", key=pki.key(KeyAlgorithm.RSA_2048))
    registry = server.issuers.current
    only_p256 = {**app_fixtures.SPEC, "policy": {**app_fixtures.SPEC["policy"], "keys": ["ECDSA-P256"]}}
    server.issuers.current = app_fixtures.registry_of(app_fixtures.manifest(spec=only_p256))
    refused(await send(server, by_certificate(key, certificate, [good, not_permitted])), CmcFailInfo.BAD_ALG, (2,), http_status=403)
    assert await issued(server) == before
    server.issuers.current = registry
    other = make_csr("device-1", "c.devices.example")
    reply = await send(server, by_certificate(key, certificate, [good, other]))
    assert len(reply.certificates) == 2


@pytest.mark.parametrize(
    "value",
    [
        controls.GetCrl(CA_CERTIFICATE.subject.public_bytes()),
        controls.AuthData(9),
        controls.PublishCert(pki.sequence()),
    ],
)
@pytest.mark.spec("EST-CMC-29", "EST-CMC-33")
async def test_what_is_not_done_here_is_refused_by_name(server: Server, value: controls.Control) -> None:
    key, certificate = await enrolled(server)
    reply = await send(server, by_certificate(key, certificate, [], [value]))
    (status,) = reply.statuses
    assert (reply.answer.status, status.status, status.body_parts) == (400, CmcStatus.NO_SUPPORT, ((1,),))


@pytest.mark.parametrize(
    "value",
    [
        controls.ResponseInfo(b"x"),
        controls.BatchResponses((1,)),
        controls.ResponseBody((1,)),
        controls.PublishTrustAnchors(1, pki.sequence(), ()),
        controls.EncryptedPop(pki.sequence()),
    ],
)
async def test_controls_of_responses_are_refused_in_requests(server: Server, value: controls.Control) -> None:
    key, certificate = await enrolled(server)
    refused(await send(server, by_certificate(key, certificate, [], [value])), CmcFailInfo.BAD_REQUEST, (1,))


@pytest.mark.spec("THREAT-09")
async def test_a_message_that_asks_for_nothing_gets_nothing(server: Server) -> None:
    key, certificate = await enrolled(server)
    refused(await send(server, by_certificate(key, certificate)), CmcFailInfo.BAD_REQUEST, (0,))


@pytest.mark.spec("EST-CMC-13")
async def test_controls_in_another_order_and_members_that_nobody_refers_to_change_nothing(server: Server, ra: Authority) -> None:
    key = new_key()
    body = pki_data.parse(full_request.vouched_body(vouched(make_csr("web-1", key=key))))
    stray = pki_data.TaggedContentInfo(body_part_id=77, content_info_der=signed_data.content_info("1.2.840.113549.1.7.1", b"\x04\x00"))
    shuffled = pki_data.encode(
        controls=tuple(reversed(body.controls)), requests_der=[each.tagged_der for each in body.requests], contents=[stray]
    )
    assert (await send(server, ra.sign(shuffled))).certificate_for(key).subject == name("web-1")


# ---- signatures


@pytest.mark.spec("EST-CMC-07")
async def test_a_flipped_bit_is_bad_message_check_of_the_whole(server: Server) -> None:
    key, certificate = await enrolled(server)
    message = bytearray(by_certificate(key, certificate, [make_csr("device-1", "a.devices.example")]))
    message[-1] ^= 1
    refused(await send(server, bytes(message)), CmcFailInfo.BAD_MESSAGE_CHECK, (0,))


@pytest.mark.spec("EST-CMC-08")
async def test_several_signers_are_refused(server: Server) -> None:
    key, certificate = await enrolled(server)
    body = full_request.body([pki_data.tagged_pkcs10(1, make_csr("device-1", "a.devices.example"))], [])
    identifier = signed_data.IssuerAndSerialNumber(certificate.issuer.public_bytes(), certificate.serial_number)
    other = signed_data.SubjectKeyIdentifier(b"x" * 20)
    signers: list[tuple[SignerIdentifier, MessageSigner]] = [(identifier, signer_of(key)), (other, signer_of(new_key()))]
    message = signed_data.build(pki_data.ID_CCT_PKI_DATA, body, signers, certificates_der=[certificate.public_bytes(Encoding.DER)])
    refused(await send(server, message), CmcFailInfo.BAD_REQUEST, (0,))


async def test_a_signature_by_a_key_that_is_not_in_the_message_is_of_nobody(server: Server) -> None:
    key = new_key()
    body = full_request.body([pki_data.tagged_pkcs10(1, newcomer_csr(new_key()))], [])
    message = full_request.sign_by_key(body, x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest, signer_of(key))
    refused(await send(server, message, authorization=basic()), CmcFailInfo.BAD_MESSAGE_CHECK, (0,))


@pytest.mark.spec("EST-CMC-25")
async def test_a_message_signed_by_nobody_needs_a_request_that_is_proven_and_a_sender_who_is_known(server: Server) -> None:
    body = full_request.body([pki_data.tagged_pkcs10(1, make_csr("device-1", "a.devices.example"))], [])
    nobody = signed_data.build(pki_data.ID_CCT_PKI_DATA, body, [])
    refused(await send(server, nobody), CmcFailInfo.BAD_IDENTITY, (0,), http_status=401)
    nothing = cms_signature.MessageSigner(
        digest=cms_signature.Digest.SHA256, algorithm=cms_signature.NO_SIGNATURE, sign=cms_signature.Digest.SHA256.of
    )
    stand_in = signed_data.build(pki_data.ID_CCT_PKI_DATA, body, [(signed_data.SubjectKeyIdentifier(b"x"), nothing)])
    refused(await send(server, stand_in, authorization=basic()), CmcFailInfo.BAD_MESSAGE_CHECK, (0,))


# ---- what is no Full PKI Request


@pytest.mark.parametrize(
    "body",
    [
        make_csr("device-1"),
        b"\x30\x00",
        b"",
        signed_data.build(signed_data.DATA, b"x", []),
        signed_data.content_info("1.2.840.113549.1.7.6", b"\x30\x00"),
    ],
    ids=["a PKCS#10", "an empty SEQUENCE", "nothing", "signed data", "encrypted data"],
)
@pytest.mark.spec("EST-CMC-02", "EST-CMC-04")
async def test_what_is_no_full_pki_request_is_refused_with_a_cmc_body(server: Server, body: bytes) -> None:
    refused(await send(server, body, authorization=basic()), CmcFailInfo.BAD_REQUEST, (0,))


@pytest.mark.parametrize("content_type", ["application/pkcs10", "application/pkcs7-mime; smime-type=certs-only", "text/plain"])
@pytest.mark.spec("EST-CMC-01", "EST-HTTP-03")
async def test_another_media_type_is_refused_with_a_cmc_body(server: Server, content_type: str) -> None:
    refused(await send(server, b"\x30\x00", content_type=content_type), CmcFailInfo.BAD_REQUEST, (0,), http_status=415)


@pytest.mark.spec("EST-CMC-04")
async def test_a_wrong_method_and_a_body_too_large_have_a_cmc_body_too(server: Server) -> None:
    answer = await server.request("GET", "/.well-known/est/factory/fullcmc")
    assert answer.header("allow") == "POST"
    refused(read(answer), CmcFailInfo.BAD_REQUEST, (0,), http_status=405)
    refused(await send(server, bytes(70_000)), CmcFailInfo.BAD_REQUEST, (0,), http_status=413)


# ---- nonces and data to return


@pytest.mark.spec("EST-CMC-05", "EST-CMC-17", "EST-CMC-18", "EST-CMC-19")
async def test_a_nonce_and_data_come_back_in_a_full_response_signed_by_the_ca(server: Server) -> None:
    key = new_key()
    sent: list[Control] = [controls.TransactionId(7), controls.SenderNonce(b"my nonce"), controls.DataReturn(b"\x00\xff")]
    reply = await send(server, newcomer(key, newcomer_csr(key, "device-1", "a.devices.example"), sent), authorization=basic())
    assert reply.answer.status == 200
    assert reply.certificate_for(key).subject == name("device-1")
    values = reply.values
    assert controls.TransactionId(7) in values
    assert controls.RecipientNonce(b"my nonce") in values
    assert controls.DataReturn(b"\x00\xff") in values
    (ours,) = [value for value in values if isinstance(value, controls.SenderNonce)]
    assert len(ours.octets) == 16
    assert [(status.status, status.body_parts) for status in reply.statuses] == [(CmcStatus.SUCCESS, ((1,),))]
    assert reply.message is not None
    (signer,) = reply.message.signers
    assert signer.identifier == signed_data.IssuerAndSerialNumber(CA_CERTIFICATE.subject.public_bytes(), CA_CERTIFICATE.serial_number)
    signed_data.verify(signer, CA_CERTIFICATE.public_key())  # type: ignore[arg-type]  # an EC key


@pytest.mark.spec("EST-CMC-17", "EST-CMC-18", "EST-CMC-19", "EST-CMC-04")
async def test_a_refusal_repeats_them_too_and_is_signed_where_the_sender_is_known(server: Server) -> None:
    key = new_key()
    sent: list[Control] = [controls.TransactionId(7), controls.SenderNonce(b"my nonce"), controls.DataReturn(b"\x00\xff")]
    reply = await send(server, newcomer(key, newcomer_csr(key, "device-2"), sent), authorization=basic())
    refused(reply, CmcFailInfo.BAD_REQUEST, (1,), http_status=403)
    assert {controls.TransactionId(7), controls.RecipientNonce(b"my nonce"), controls.DataReturn(b"\x00\xff")} <= set(reply.values)
    assert reply.message is not None
    assert len(reply.message.signers) == 1


@pytest.mark.spec("THREAT-17")
async def test_a_nonce_is_good_once_for_each_sender(server: Server) -> None:
    key, certificate = await enrolled(server)
    message = by_certificate(key, certificate, [make_csr("device-1", "a.devices.example")], [controls.SenderNonce(b"once")])
    assert (await send(server, message)).answer.status == 200
    before = await issued(server)
    refused(await send(server, message), CmcFailInfo.BAD_REQUEST, (2,))
    assert await issued(server) == before
    other_key = new_key()
    other = newcomer(other_key, newcomer_csr(other_key), [controls.SenderNonce(b"once")])
    assert (await send(server, other, authorization=basic())).answer.status == 200


@pytest.mark.spec("EST-CMC-03")
async def test_as_many_requests_as_a_message_may_hold_are_all_answered(server: Server, ra: Authority) -> None:
    requests = [pki_data.tagged_pkcs10(number, make_csr(f"web-{number}")) for number in range(1, pki_data.MAX_REQUESTS + 1)]
    reply = await send(server, ra.sign(full_request.body(requests, [controls.SenderNonce(b"many")])))
    names = {each.subject for each in reply.certificates if each != CA_CERTIFICATE}
    assert names == {name(f"web-{number}") for number in range(1, 17)}


# ---- linking to the connection


@pytest.mark.spec("EST-POP-15")
async def test_another_connections_binding_is_pop_failed_and_the_text_speaks_of_linking(server: Server) -> None:
    key, certificate = await enrolled(server)
    csr_der = make_csr("device-1", "a.devices.example", channel_binding=b"another connection's")
    refused(await send(server, by_certificate(key, certificate, [csr_der])), CmcFailInfo.POP_FAILED, (1,))
    own = make_csr("device-1", "a.devices.example", channel_binding=b"b" * 32)
    assert (await send(server, by_certificate(key, certificate, [own]), connection=tls())).answer.status == 200


@pytest.mark.spec("EST-CLI-03")
async def test_what_a_registration_authority_passes_on_is_bound_to_another_connection(server: Server, ra: Authority) -> None:
    csr_der = make_csr("web-1", channel_binding=b"the device's connection")
    assert (await send(server, ra.pass_on(vouched(csr_der)))).answer.status == 200


# ---- trust anchors


@pytest.mark.spec("EST-CMC-32", "EST-KEYUPD-01")
async def test_while_the_cas_key_rolls_over_a_full_response_publishes_both_roots(tmp_path: Path) -> None:
    old, new = FACTORY_CA, app_fixtures.ca_secret("new", "Factory CA")
    certificates = [x509.load_pem_x509_certificate(secret.data["tls.crt"]) for secret in (old, new)]
    rolling = app_fixtures.secret(
        "factory-ca", {**old.data, "rollover.crt": new.data["tls.crt"] + links(old, new)}, type_="kubernetes.io/tls"
    )
    secrets = (rolling, *app_fixtures.SECRETS[1:])
    async with running(tmp_path, app_fixtures.registry_of(app_fixtures.manifest(), secrets=secrets)) as server:
        key = new_key()
        message = newcomer(key, newcomer_csr(key), [controls.SenderNonce(b"nonce")])
        answer = (await send(server, message, authorization=basic())).answer
    found = full_exchange.read_full_response(
        HttpResponse(status=200, headers=dict(answer.headers), body=answer.body),
        ca_certificates=[certificates[0]],
        sender_nonce=b"nonce",
        transaction_id=None,
        now=NOW,
    )
    published = found.trust_anchors([certificates[0]], last_sequence_number=0, now=NOW)
    assert published is not None
    assert set(published.anchors) == set(certificates)
    assert found.trust_anchors([certificates[0]], last_sequence_number=published.sequence_number, now=NOW) is None


def links(old: SecretManifest, new: SecretManifest) -> bytes:
    """OldWithNew and NewWithOld in PEM."""
    (old_certificate, old_key), (new_certificate, new_key) = map(loaded, (old, new))
    both = roll_over.link_certificates(old_certificate, old_key, new_certificate, new_key, serials=(1 << 64, (1 << 64) + 1))  # type: ignore[arg-type]  # P-256 keys
    return b"".join(link.public_bytes(Encoding.PEM) for link in both)


def loaded(secret: SecretManifest) -> tuple[x509.Certificate, object]:
    return x509.load_pem_x509_certificate(secret.data["tls.crt"]), load_pem_private_key(secret.data["tls.key"], None)
