"""A certificate and a password together, a certificate beside a password, expired certificates, registration authorities."""

from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from estcore.extension_request import CMC_RA
from estserver import revocation
from estserver.issuers import Registry
from tests.server.app_fixtures import (
    MANUFACTURER_CA,
    NOW,
    OTHER_CA,
    RA,
    SECRETS,
    SPEC,
    USER,
    Server,
    basic,
    leaf,
    make_csr,
    make_token,
    manifest,
    new_key,
    registry_of,
    running,
    secret,
    tls,
    with_est,
)
from tests.server.digest_client import digests, line, offered, respond

CERTIFICATE = {"certificate": {"issuedBy": "this"}}
MANUFACTURERS = {"certificate": {"caSecretName": "manufacturer"}}
BASIC = {"basic": {"secretName": "passwords"}}
OTHER_BASIC = {"basic": {"secretName": "other-passwords"}}
OTHER_PASSWORDS = secret("other-passwords", {"username": b"device-2", "password": b"battery"}, type_="kubernetes.io/basic-auth")
OTHER_ROOTS = secret("other-roots", {"ca.crt": OTHER_CA.data["tls.crt"]})


def registry(*ways: Mapping[str, Any], rules: list[dict[str, Any]] | None = None) -> Registry:
    spec = with_est(authentication=list(ways))
    if rules is not None:
        spec = {**spec, "policy": {"rules": rules}}
    digest = digests(line(USER, "correct horse"))
    return registry_of(manifest(spec=spec), secrets=(*SECRETS, OTHER_PASSWORDS, OTHER_ROOTS, digest))


# both are needed


@pytest.mark.spec("EST-AUTH-01", "EST-AUTH-02")
async def test_certificate_and_password_rejects_either_one_alone_and_says_what_is_missing(tmp_path: Path) -> None:
    async with running(tmp_path, registry({**MANUFACTURERS, **BASIC})) as server:
        device = tls(leaf(MANUFACTURER_CA, "serial 7"))
        both = await server.enroll(make_csr(), authorization=basic(), connection=device)
        assert both.status == 200
        assert server.audit_events[-1]["requester"] == "basic:device-1"
        server.audit_lines.clear()
        alone = await server.enroll(make_csr(), authorization=basic())
        assert alone.status == 401
        assert alone.text == (
            "authenticate by a TLS client certificate under the issuer's trust anchors together with HTTP Basic; the password is right; "
            "a TLS client certificate is needed beside it"
        )
        no_password = await server.enroll(make_csr(), connection=device)
        assert no_password.status == 401
        assert no_password.all("www-authenticate") == ['Basic realm="factory", charset="UTF-8"']
        assert no_password.text.endswith("; the client certificate is accepted; the password is missing beside it")
        wrong = await server.enroll(make_csr(), authorization=basic(password="wrong"), connection=device)
        assert (wrong.status, wrong.text.rpartition("; ")[2]) == (401, "the user or the password is wrong")
        for certificate in (leaf(), leaf(OTHER_CA), leaf(MANUFACTURER_CA, not_after=NOW - timedelta(seconds=1))):
            refused = await server.enroll(make_csr(), authorization=basic(), connection=tls(certificate))
            assert refused.status == 401
            assert "the password is right; the client certificate was not accepted: the certificate" in refused.text
        assert server.audit_lines == []


@pytest.mark.spec("EST-AUTH-01")
async def test_certificate_and_digest_need_both(tmp_path: Path) -> None:
    async with running(tmp_path, registry({**CERTIFICATE, "digest": {"secretName": "digests"}})) as server:
        found = offered((await server.enroll(make_csr(), connection=tls(leaf()))).all("www-authenticate"))
        rules = [{"from": {"authentication": "digest"}, "subject": {"commonName": "{user}"}}]
        server.issuers.current = registry({**CERTIFICATE, "digest": {"secretName": "digests"}}, rules=rules)
        answer = respond(found, USER, "correct horse", nc="00000001")
        assert (await server.enroll(make_csr(), authorization=answer)).status == 401
        answer = respond(found, USER, "correct horse", nc="00000002")
        assert (await server.enroll(make_csr(), authorization=answer, connection=tls(leaf()))).status == 200


@pytest.mark.spec("EST-AUTH-01", "THREAT-11")
async def test_a_way_takes_the_passwords_and_the_anchors_that_it_names_and_no_others(tmp_path: Path) -> None:
    """The password of the way that asks for both does not open the way that asks for a password alone, nor its anchors the other's."""
    ways = ({"certificate": {"caSecretName": "other-roots"}, **OTHER_BASIC}, MANUFACTURERS, BASIC)
    async with running(tmp_path, registry(*ways)) as server:
        other = tls(leaf(OTHER_CA, "serial 8"))
        assert (await server.enroll(make_csr(), authorization=basic())).status == 200
        assert (await server.enroll(make_csr("x"), connection=tls(leaf(MANUFACTURER_CA)))).status == 200
        assert (await server.enroll(make_csr("device-2"), authorization=basic("device-2", "battery"), connection=other)).status == 200
        assert (await server.enroll(make_csr("device-2"), authorization=basic("device-2", "battery"))).status == 401
        assert (await server.enroll(make_csr("x"), connection=other)).status == 401
        crossed = await server.enroll(
            make_csr("device-2"), authorization=basic("device-2", "battery"), connection=tls(leaf(MANUFACTURER_CA))
        )
        assert crossed.status == 401


@pytest.mark.spec("EST-AUTH-01", "EST-REENR-01")
async def test_renewal_where_both_are_needed_needs_both(tmp_path: Path) -> None:
    async with running(tmp_path, registry({**CERTIFICATE, **BASIC})) as server:
        connection = tls(leaf())
        refused = await server.enroll(make_csr(), operation="simplereenroll", connection=connection)
        assert refused.status == 401
        assert refused.all("www-authenticate") == ['Basic realm="factory", charset="UTF-8"']
        assert refused.text.endswith("the password is missing beside it")
        renewed = await server.enroll(make_csr(), operation="simplereenroll", connection=connection, authorization=basic())
        assert renewed.status == 200
        assert server.audit_events[-1]["requester"].startswith("certificate:")
        without = await server.enroll(make_csr(), operation="simplereenroll", authorization=basic())
        assert without.status == 403


# a certificate beside a password


@pytest.mark.spec("EST-AUTH-01", "EST-CLI-06")
async def test_a_rule_may_ask_for_a_certificate_beside_the_password(tmp_path: Path) -> None:
    rules = [
        {"from": {"authentication": "basic", "withCertificate": "thirdPartyCertificate"}, "dnsNames": ["*.third.example"]},
        {"from": {"authentication": "basic", "withCertificate": "certificate"}, "dnsNames": ["*.own.example"]},
        {"from": {"authentication": "basic"}, "dnsNames": ["*.none.example"]},
    ]
    async with running(tmp_path, registry(CERTIFICATE, MANUFACTURERS, BASIC, rules=rules)) as server:
        connections = {"third": tls(leaf(MANUFACTURER_CA)), "own": tls(leaf()), "none": tls(leaf(OTHER_CA))}
        for kind, connection in connections.items():
            for asked in connections:
                answer = await server.enroll(make_csr(None, f"a.{asked}.example"), authorization=basic(), connection=connection)
                assert answer.status == (200 if asked == kind else 403), (kind, asked)


# expired certificates


def expired(ago: timedelta) -> x509.Certificate:
    return leaf(not_before=NOW - timedelta(days=30), not_after=NOW - ago)


@pytest.fixture
async def forgiving(tmp_path: Path) -> AsyncIterator[Server]:
    async with running(tmp_path, registry({"certificate": {"issuedBy": "this", "expiredFor": "72h"}}, BASIC)) as server:
        yield server


@pytest.mark.spec("THREAT-11", "EST-REENR-01")
async def test_a_certificate_that_expired_within_the_grace_renews_itself_and_does_nothing_else(forgiving: Server) -> None:
    connection = tls(expired(timedelta(hours=72)))
    renewed = await forgiving.enroll(make_csr(), operation="simplereenroll", connection=connection)
    assert renewed.certificate.subject.rfc4514_string() == "CN=device-1"
    enrolled = await forgiving.enroll(make_csr(), connection=connection)
    assert enrolled.status == 401
    assert "the client certificate was not accepted: the certificate expired at" in enrolled.text
    other_names = await forgiving.enroll(make_csr("device-2"), operation="simplereenroll", connection=connection)
    assert other_names.status == 403
    assert (await forgiving.enroll(make_csr(), authorization=basic(), connection=connection)).status == 200


@pytest.mark.spec("THREAT-11")
async def test_past_the_grace_it_is_refused_and_without_one_at_once(forgiving: Server, tmp_path: Path) -> None:
    late = await forgiving.enroll(make_csr(), operation="simplereenroll", connection=tls(expired(timedelta(hours=72, seconds=1))))
    assert late.status == 403
    assert "the client certificate was not accepted: the certificate expired at" in late.text
    forgiving.issuers.current = registry(CERTIFICATE)
    just = await forgiving.enroll(make_csr(), operation="simplereenroll", connection=tls(leaf(not_after=NOW - timedelta(seconds=1))))
    assert just.status == 403


@pytest.mark.spec("THREAT-11", "THREAT-12")
@pytest.mark.parametrize(
    "certificate",
    [
        lambda: leaf(OTHER_CA, not_after=NOW - timedelta(hours=1)),
        lambda: leaf(MANUFACTURER_CA, not_after=NOW - timedelta(hours=1)),
        lambda: leaf(signed_by=OTHER_CA, not_after=NOW - timedelta(hours=1)),
        lambda: leaf(purpose=ExtendedKeyUsageOID.SERVER_AUTH, not_after=NOW - timedelta(hours=1)),
        lambda: leaf(not_before=NOW + timedelta(hours=1)),
    ],
)
async def test_the_grace_forgives_time_and_nothing_else(forgiving: Server, certificate: Any) -> None:
    answer = await forgiving.enroll(make_csr(), operation="simplereenroll", connection=tls(certificate()))
    assert answer.status == 403
    assert forgiving.audit_lines == []


@pytest.mark.spec("THREAT-11")
async def test_a_revoked_certificate_is_not_forgiven(forgiving: Server) -> None:
    issued = (await forgiving.enroll(make_csr(), authorization=basic())).certificate
    connection = tls(issued)
    forgiving.clock.now = issued.not_valid_after_utc + timedelta(hours=1)
    assert (await forgiving.enroll(make_csr(), operation="simplereenroll", connection=connection)).status == 200
    key = "EstIssuer/devices/factory"
    assert await revocation.revoke(forgiving.ledger, key, issued.serial_number, reason=1, now=forgiving.clock.now)
    answer = await forgiving.enroll(make_csr(), operation="simplereenroll", connection=connection)
    assert answer.status == 403
    assert answer.text.endswith("it is revoked")


# registration authorities


def ra_csr(**more: Any) -> bytes:
    """A CSR for the certificate of a registration authority: EKU clientAuth and cmcRA."""
    key = new_key()
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, CMC_RA])
    builder = x509.CertificateSigningRequestBuilder(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "operator-0")]))
    builder = builder.add_extension(usage, critical=False)
    for extension in more.values():
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


@pytest.mark.spec("EST-CLI-03", "EST-REENR-02")
async def test_the_registration_authoritys_token_gets_the_cmcra_certificate_which_then_renews_for_others(tmp_path: Path) -> None:
    async with running(tmp_path) as server:
        token = f"Bearer {server.reviewer.add(RA, audience='est-issuer')}"
        certificate = (await server.enroll(ra_csr(), authorization=token)).certificate
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert set(usage) == {ExtendedKeyUsageOID.CLIENT_AUTH, CMC_RA}
        assert certificate.not_valid_after_utc - NOW <= timedelta(hours=24)
        assert not any(isinstance(extension.value, x509.SubjectAlternativeName) for extension in certificate.extensions)
        named = await server.enroll(ra_csr(san=x509.SubjectAlternativeName([x509.DNSName("a.devices.example")])), authorization=token)
        assert named.status == 400
        ra = tls(certificate)
        # RFC 7030 section 3.7: what an RA sends on was bound to another connection
        foreign = make_csr("device-9", channel_binding=b"another connection")
        for operation in ("simpleenroll", "simplereenroll"):
            assert (await server.enroll(foreign, operation=operation, connection=ra)).status == 200
        assert (await server.enroll(foreign, connection=tls(leaf(common_name="device-9")))).status == 400


@pytest.mark.spec("EST-CLI-03", "EST-REENR-02")
async def test_the_registration_authoritys_token_renews_for_others_and_nobody_elses_token_does(tmp_path: Path) -> None:
    async with running(tmp_path) as server:
        ra = server.reviewer.add(RA, audience="est-issuer")
        pod = server.reviewer.add("team-a/web", audience="devices")
        csr = make_csr("device-9", "x.devices.example")
        for operation in ("simpleenroll", "simplereenroll"):
            assert (await server.enroll(csr, operation=operation, authorization=f"Bearer {ra}")).status == 200
        for token in (pod, "nonsense"):
            assert (await server.enroll(csr, operation="simplereenroll", authorization=f"Bearer {token}")).status == 403
        # a pod that has a certificate renews by it, whatever its token is, also where nobody can say what that is
        server.reviewer.away = True
        for connection, status in ((tls(leaf()), 200), (tls(), 503)):
            unknown = f"Bearer {make_token('team-b/web', audience='devices')}"
            renewal = await server.enroll(make_csr(), operation="simplereenroll", authorization=unknown, connection=connection)
            assert renewal.status == status
        server.reviewer.away = False
        assert (
            await server.enroll(make_csr(), operation="simplereenroll", authorization=f"Bearer {pod}", connection=tls(leaf()))
        ).status == 200


@pytest.mark.spec("EST-CLI-03", "EST-CLI-04", "THREAT-11")
async def test_cmcra_of_another_issuer_or_of_a_third_party_confers_nothing(tmp_path: Path) -> None:
    other = {**SPEC, "ca": {"secretName": "other-ca"}, "est": {**SPEC["est"], "label": "other"}}
    async with running(tmp_path, registry_of(manifest(), manifest("other", other))) as server:
        token = f"Bearer {server.reviewer.add(RA, audience='est-issuer')}"
        ra = tls((await server.enroll(ra_csr(), authorization=token)).certificate)
        assert (await server.enroll(make_csr("device-9"), label="other", connection=ra)).status == 401
        assert (await server.enroll(make_csr("device-9"), label="other", operation="simplereenroll", connection=ra)).status == 403
        third = tls(leaf(MANUFACTURER_CA, "manufacturer's RA", purposes=(ExtendedKeyUsageOID.CLIENT_AUTH, CMC_RA)))
        foreign = make_csr("device-9", channel_binding=b"another connection")
        assert (await server.enroll(foreign, connection=third)).status == 400, "a binding that does not match is no RA's to send on"
        assert (await server.enroll(make_csr("device-9", "a.elsewhere.example"), connection=third)).status == 403
        assert (await server.enroll(make_csr("device-9"), operation="simplereenroll", connection=third)).status == 403


@pytest.mark.spec("EST-CLI-04", "THREAT-11")
async def test_nobody_but_the_token_gets_a_cmcra_certificate(tmp_path: Path) -> None:
    async with running(tmp_path) as server:
        token = f"Bearer {server.reviewer.add(RA, audience='est-issuer')}"
        ra = tls((await server.enroll(ra_csr(), authorization=token)).certificate)
        server.audit_lines.clear()
        pod = f"Bearer {server.reviewer.add('team-a/web', audience='devices')}"
        tries = ((basic(), tls()), (pod, tls()), (None, tls(leaf())), (None, ra), (basic(), ra))
        for authorization, connection in tries:
            for operation in ("simpleenroll", "simplereenroll"):
                answer = await server.enroll(ra_csr(), operation=operation, authorization=authorization, connection=connection)
                assert answer.status in {401, 403}
        assert server.audit_lines == []


async def test_an_expired_registration_authority_is_none(forgiving: Server) -> None:
    token = f"Bearer {forgiving.reviewer.add(RA, audience='est-issuer', expires=NOW + timedelta(days=30))}"
    ra = (await forgiving.enroll(ra_csr(), authorization=token)).certificate
    forgiving.clock.now = ra.not_valid_after_utc + timedelta(hours=1)
    answer = await forgiving.enroll(make_csr("device-9"), operation="simplereenroll", connection=tls(ra))
    assert answer.status == 403
