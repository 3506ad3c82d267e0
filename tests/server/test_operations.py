"""The straight path: from a body to a certificate, and everything that stops it."""

import hashlib
import sqlite3
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from estcore import certs_only, csr_builder, transfer
from estcore.errors import CmcFailInfo
from estcore.usages import Usage
from tests import pki
from tests.collect import collect
from tests.server.app_fixtures import (
    FACTORY_CA,
    RA,
    SECRETS,
    SPEC,
    AppConfiguration,
    Server,
    basic,
    ca_secret,
    leaf,
    make_csr,
    manifest,
    new_key,
    registry_of,
    running,
    tls,
    with_est,
)
from tests.server.cmc_fixtures import by_certificate, newcomer, newcomer_csr, send

ISSUER = "EstIssuer/devices/factory"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with running(tmp_path) as running_server:
        yield running_server


@pytest.mark.spec(
    "EST-CACERTS-01", "EST-CACERTS-02", "EST-CACERTS-03", "EST-CACERTS-04", "EST-CACERTS-07", "EST-CLI-02", "EST-ENC-01", "EST-ENC-05"
)
async def test_cacerts_gives_the_ca_to_anybody(server: Server) -> None:
    answer = await server.request("GET", "/.well-known/est/factory/cacerts")
    assert answer.status == 200
    assert answer.header("content-type") == "application/pkcs7-mime; smime-type=certs-only"
    assert answer.header("content-transfer-encoding") == "base64", "Bouncy Castle decodes no body without it"
    (certificate,) = certs_only.decode(transfer.decode_body(answer.body))
    assert certificate == x509.load_pem_x509_certificate(FACTORY_CA.data["tls.crt"])


@pytest.mark.spec("EST-ENROLL-01", "EST-RESP-01", "EST-RESP-02", "EST-AUTH-08", "THREAT-39")
async def test_enrolment_answers_with_the_one_certificate_and_it_is_in_ledger_and_audit(server: Server) -> None:
    key = new_key()
    csr_der = make_csr("device-1", "a.devices.example", key=key)
    answer = await server.enroll(csr_der, authorization=basic())
    certificate = answer.certificate
    assert answer.header("content-type") == "application/pkcs7-mime; smime-type=certs-only"
    assert certificate.public_key() == key.public_key()
    assert certificate.subject.rfc4514_string() == "CN=device-1"

    before, after = server.audit_events
    assert (before["audit"], after["audit"]) == ("signing", "signed")
    for event in (before, after):
        assert event["issuer"] == ISSUER
        assert event["policy"] == "uid-factory/3"
        assert event["requester"] == "basic:device-1"
        assert event["source"] == "192.0.2.7"
        assert event["csr_sha256"] == hashlib.sha256(csr_der).hexdigest()
        assert event["serial"] == f"{certificate.serial_number:x}"
    assert after["result"] == "issued"
    assert after["sans"] == ["DNS:a.devices.example"]
    assert server.metric(f'est_certificates_issued_total{{door="est",issuer="{ISSUER}",result="issued"}}') == 1


@pytest.mark.spec("THREAT-29")
async def test_serials_are_17_octets_of_which_16_are_random(server: Server) -> None:
    serials = {(await server.enroll(make_csr("device-1"), authorization=basic())).certificate.serial_number for _ in range(20)}
    assert len(serials) == 20
    assert {serial >> 128 for serial in serials} == {1}


@pytest.mark.spec("EST-ENC-04")
async def test_libest_gets_lines_of_64_columns_and_everybody_else_one_line(server: Server) -> None:
    csr_der = make_csr("device-1")
    for agent, wrapped in (("libest 1.0", True), ("curl/8.5", False), ("my-libest", False)):
        for answer in (
            await server.enroll(csr_der, authorization=basic(), headers=[("User-Agent", agent)]),
            await server.request("GET", "/.well-known/est/factory/cacerts", headers=[("User-Agent", agent)]),
        ):
            lines = answer.body.decode().split("\n")
            assert lines[-1] == ""
            assert (max(map(len, lines)) == 64) is wrapped
            assert (len(lines) > 2) is wrapped


@pytest.mark.spec("EST-HTTP-02", "EST-ENC-02")
@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "Application/PKCS10; charset=utf-8"},
        {"Content-Type": "application/pkcs10 ;x=y"},
        {"Content-Type": "application/pkcs10", "Content-Transfer-Encoding": "binary"},
        {"Content-Type": "application/pkcs10", "Content-Transfer-Encoding": "garbage"},
        {"Content-Type": "application/pkcs10", "Accept": "text/html", "Accept-Encoding": "gzip", "Content-Encoding": "identity"},
    ],
)
async def test_media_type_is_compared_as_such_and_content_transfer_encoding_is_ignored(server: Server, headers: dict[str, str]) -> None:
    body = transfer.encode_body(make_csr("device-1"), wrap=True)
    answer = await server.request(
        "POST", "/.well-known/est/simpleenroll", headers=[*headers.items(), ("Authorization", basic())], body=b" \r\n" + body + b"\t\r\n"
    )
    assert answer.status == 200


async def test_every_check_before_authentication_tells_nothing_of_policy(server: Server) -> None:
    """An unauthenticated requester gets the same answer for a good CSR, a forbidden name and junk."""
    bodies = [transfer.encode_body(make_csr("device-1")), transfer.encode_body(make_csr("root", "evil.example")), b"junk", b""]
    answers = {
        (answer.status, answer.body)
        for body in bodies
        for answer in [
            await server.request(
                "POST", "/.well-known/est/factory/simpleenroll", headers=[("Content-Type", "application/pkcs10")], body=body
            )
        ]
    }
    assert len(answers) == 1
    assert answers.pop()[0] == 401


# proof of possession


@pytest.mark.spec("EST-POP-02", "EST-POP-07", "EST-POP-12", "EST-POP-14")
@pytest.mark.parametrize(("version", "binding"), [("TLSv1.2", b"u" * 12), ("TLSv1.3", b"e" * 32)])
async def test_a_csr_bound_to_its_connection_is_granted(server: Server, version: str, binding: bytes) -> None:
    csr_der = make_csr("device-1", channel_binding=binding)
    answer = await server.enroll(csr_der, authorization=basic(), connection=tls(binding=binding, version=version))
    assert answer.status == 200


@pytest.mark.spec("EST-POP-03", "EST-POP-04", "EST-POP-10", "THREAT-16")
@pytest.mark.parametrize("binding", [b"other connection", b"b" * 31, b"b" * 33, b"secret", b"B" * 32])
async def test_a_csr_bound_to_anything_else_is_refused_though_binding_is_optional(server: Server, binding: bytes) -> None:
    answer = await server.enroll(make_csr("device-1", channel_binding=binding), authorization=basic(), connection=tls(binding=b"b" * 32))
    assert answer.status == 400
    assert "challengePassword is not the channel binding" in answer.text
    assert server.audit_lines == []


@pytest.mark.spec("EST-POP-05", "EST-POP-15")
async def test_where_binding_is_required_a_csr_without_it_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path, registry_of(manifest(spec=with_est(channelBinding="Required")))) as server:
        answer = await server.enroll(make_csr("device-1"), authorization=basic())
        assert answer.status == 400
        assert "linking of identity and proof of possession is required" in answer.text
        bound = await server.enroll(
            make_csr("device-1", channel_binding=b"b" * 32), authorization=basic(), connection=tls(binding=b"b" * 32)
        )
        assert bound.status == 200
        # the registration authority's CSRs come from Kubernetes objects
        token = server.reviewer.add(RA, audience="est-issuer")
        vouched = await server.enroll(make_csr("web"), authorization=f"Bearer {token}")
        assert vouched.status == 200


@pytest.mark.spec("EST-POP-05")
async def test_a_rule_may_require_binding_for_those_it_is_for(tmp_path: Path) -> None:
    spec = with_est()
    rules = [{**rule, "channelBinding": "Required"} for rule in spec["policy"]["rules"][:1]] + spec["policy"]["rules"][1:]
    async with running(tmp_path, registry_of(manifest(spec={**spec, "policy": {"rules": rules}}))) as server:
        assert (await server.enroll(make_csr("device-1"), authorization=basic())).status == 400
        assert (await server.enroll(make_csr("device-2"), connection=tls(leaf()))).status == 200


# re-enrolment


@pytest.mark.spec("EST-REENR-01", "EST-REENR-02", "EST-REENR-04", "EST-TLS-15")
@pytest.mark.parametrize("rekey", [False, True])
async def test_the_holder_of_a_certificate_renews_it_with_the_same_key_or_another(server: Server, rekey: bool) -> None:
    key = new_key()
    first = (await server.enroll(make_csr("device-1", "a.devices.example", key=key), authorization=basic())).certificate
    new = new_key() if rekey else key
    csr_der = csr_builder.build_renewal(new, first)
    answer = await server.enroll(csr_der, operation="simplereenroll", connection=tls(first))
    renewed = answer.certificate
    assert renewed.serial_number != first.serial_number
    assert renewed.subject == first.subject
    assert renewed.public_key() == new.public_key()
    assert server.audit_events[-1]["operation"] == "simplereenroll"
    assert server.audit_events[-1]["requester"].endswith(f":{first.serial_number:x}")


@pytest.mark.spec("THREAT-10", "EST-REENR-02", "EST-CLI-06")
@pytest.mark.parametrize(
    ("common_name", "dns_names"),
    [
        ("device-2", ["a.devices.example"]),
        ("device-1", []),
        ("device-1", ["a.devices.example", "b.devices.example"]),
        ("device-1", ["b.devices.example"]),
        (None, ["a.devices.example"]),
        ("device-1 x", ["a.devices.example"]),
    ],
)
async def test_a_renewal_for_other_names_is_refused(server: Server, common_name: str | None, dns_names: list[str]) -> None:
    first = (await server.enroll(make_csr("device-1", "a.devices.example"), authorization=basic())).certificate
    answer = await server.enroll(make_csr(common_name, *dns_names), operation="simplereenroll", connection=tls(first))
    assert answer.status == 403
    assert "is not that of the certificate to renew" in answer.text


# retries


@pytest.mark.spec("EST-REENR-04", "EST-CMC-10", "THREAT-09")
async def test_a_key_that_is_not_to_be_used_again_is_so_by_no_operation(tmp_path: Path) -> None:
    """Whoever shows a certificate of the issuer: alone or beside a password, by TLS or as the signer, for its names or others."""
    spec = {**SPEC, "policy": {**SPEC["policy"], "keyReuse": "Forbidden"}}
    async with running(tmp_path, registry_of(manifest(spec=spec))) as server:
        key = new_key()
        certificate = (await server.enroll(make_csr("device-1", "a.devices.example", key=key), authorization=basic())).certificate
        server.clock.advance(hours=1)
        for names in (("device-1", "a.devices.example"), ("device-1", "b.devices.example")):
            csr_der = make_csr(*names, key=key)
            for answer in (
                await server.enroll(csr_der, connection=tls(certificate)),
                await server.enroll(csr_der, connection=tls(certificate), authorization=basic()),
                await server.enroll(csr_der, connection=tls(certificate), operation="simplereenroll"),
            ):
                assert (answer.status, answer.text) == (403, "this issuer renews no certificate with the key that it has: make a new key")
            by_its_key = newcomer(key, newcomer_csr(key, *names))
            for reply in (
                await send(server, by_certificate(key, certificate, [csr_der])),
                await send(server, by_its_key, connection=tls(certificate)),
                await send(server, by_its_key, connection=tls(certificate), authorization=basic()),
            ):
                assert (reply.answer.status, reply.statuses[0].fail_info) == (403, CmcFailInfo.NO_KEY_REUSE)
            assert (await server.enroll(make_csr(*names), connection=tls(certificate))).status == 200


@pytest.mark.spec("THREAT-31", "THREAT-32", "EST-RESP-10", "EST-RESP-11")
async def test_a_retry_within_the_window_gets_the_same_certificate_also_with_a_new_signature(server: Server) -> None:
    key = new_key()
    first = await server.enroll(make_csr("device-1", key=key), authorization=basic())
    server.clock.advance(minutes=9)
    again = await server.enroll(
        make_csr("device-1", key=key, channel_binding=b"x" * 32), authorization=basic(), connection=tls(binding=b"x" * 32)
    )
    assert again.certificate == first.certificate
    after = server.audit_events[-1]
    assert after["result"] == "repeated"
    assert after["standing_serial"] == f"{first.certificate.serial_number:x}"
    assert server.metric(f'est_certificates_issued_total{{door="est",issuer="{ISSUER}",result="repeated"}}') == 1


async def test_a_retry_after_the_ca_was_replaced_gets_a_certificate_of_the_new_one(server: Server) -> None:
    """Within the window, too: the client is to trust what /cacerts gives now."""
    csr_der = make_csr("device-1")
    first = await server.enroll(csr_der, authorization=basic())
    new_ca = ca_secret("factory-ca", "Factory CA")
    server.issuers.current = registry_of(manifest(), secrets=(new_ca, *SECRETS[1:]))
    second = await server.enroll(csr_der, authorization=basic())
    (certificate,) = certs_only.decode(transfer.decode_body(second.body))
    authority = x509.load_pem_x509_certificate(new_ca.data["tls.crt"])
    certificate.verify_directly_issued_by(authority)
    collect(pki.der(certificate), pki.der(authority))
    assert certificate.serial_number != first.certificate.serial_number
    third = await server.enroll(csr_der, authorization=basic())
    assert third.body == second.body


async def test_after_the_window_the_same_request_is_a_new_one(server: Server) -> None:
    csr_der = make_csr("device-1")
    first = await server.enroll(csr_der, authorization=basic())
    server.clock.advance(minutes=10)
    second = await server.enroll(csr_der, authorization=basic())
    assert second.certificate.serial_number != first.certificate.serial_number
    third = await server.enroll(csr_der, authorization=basic())
    assert third.certificate == second.certificate


async def test_a_window_of_zero_makes_every_request_a_new_one(tmp_path: Path) -> None:
    csr_der = make_csr("device-1")
    async with running(tmp_path, configuration=AppConfiguration(retry_window=timedelta(0))) as server:
        serials = {(await server.enroll(csr_der, authorization=basic())).certificate.serial_number for _ in range(3)}
    assert len(serials) == 3


async def test_another_requester_operation_name_or_usage_is_another_request(server: Server) -> None:
    key = new_key()
    answers = [
        await server.enroll(make_csr("device-1", key=key), authorization=basic()),
        await server.enroll(make_csr("device-1", key=key), connection=tls(leaf())),
        await server.enroll(make_csr("device-1", key=key), operation="simplereenroll", connection=tls(leaf())),
        await server.enroll(make_csr("device-1", "a.devices.example", key=key), authorization=basic()),
        await server.enroll(make_csr("device-1", key=key, usages=[Usage.DIGITAL_SIGNATURE, Usage.CLIENT_AUTH]), authorization=basic()),
    ]
    assert len({answer.certificate.serial_number for answer in answers}) == len(answers)


# not ready, not durable


@pytest.mark.spec("THREAT-27")
async def test_an_issuer_without_ca_is_503_with_retry_after_and_tells_no_inner_detail(tmp_path: Path) -> None:
    without = registry_of(manifest(), secrets=())
    async with running(tmp_path, without) as server:
        for answer in (
            await server.request("GET", "/.well-known/est/factory/cacerts"),
            await server.enroll(make_csr("device-1")),
            await server.enroll(make_csr("device-1"), authorization=basic()),
            await server.enroll(make_csr("device-1"), operation="simplereenroll", connection=tls(leaf())),
        ):
            assert answer.status == 503
            assert answer.header("retry-after") == "5"
            assert answer.text == "this issuer is not ready; try again later"


@pytest.mark.spec("THREAT-27")
async def test_an_expired_ca_never_signs(tmp_path: Path) -> None:
    short = ca_secret("factory-ca", "Factory CA", duration=timedelta(days=1))
    async with running(tmp_path, registry_of(manifest(), secrets=(short, *SECRETS[1:]))) as server:
        assert (await server.enroll(make_csr("device-1"), authorization=basic())).status == 200
        server.clock.advance(days=1)
        assert (await server.enroll(make_csr("device-1"), authorization=basic())).status == 503
        assert (await server.request("GET", "/.well-known/est/factory/cacerts")).status == 503


async def test_what_the_ledger_cannot_record_does_not_leave(server: Server, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "ledger.sqlite") as database:
        database.execute("DROP TABLE certificates")
    answer = await server.enroll(make_csr("device-1"), authorization=basic())
    assert answer.status == 503
    assert answer.header("retry-after") == "5"
    assert answer.text == "the certificate cannot be recorded now, so it was not handed out; try again"
    assert server.audit_events[-1]["result"] == "LedgerUnavailable"
    assert server.metric("est_ledger_writable") == 0


async def test_what_the_profile_refuses_is_audited_with_its_reason(server: Server) -> None:
    spec = {**with_est(), "policy": {**with_est()["policy"], "keys": ["ECDSA-P384"]}}
    server.issuers.current = registry_of(manifest(spec=spec))
    answer = await server.enroll(make_csr("device-1"), authorization=basic())
    assert answer.status == 403
    assert [event["audit"] for event in server.audit_events] == ["signing", "signed"]
    assert server.audit_events[-1]["result"] == "KeyNotPermitted"
