"""Who may ask, by which credentials, and what those who may not are told."""

import base64
import sqlite3
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from estcore import trust
from estserver.passwords import Passwords
from tests.server.app_fixtures import (
    FACTORY_CA,
    MANUFACTURER_CA,
    NOW,
    OTHER_CA,
    RA,
    SECRETS,
    SPEC,
    AppConfiguration,
    Server,
    basic,
    ca_secret,
    leaf,
    make_csr,
    make_token,
    manifest,
    registry_of,
    running,
    secret,
    tls,
    with_est,
)

ONLY_CERTIFICATES = with_est(authentication=[{"certificate": {"issuedBy": "this"}}, {"certificate": {"caSecretName": "manufacturer"}}])


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with running(tmp_path) as running_server:
        yield running_server


# no credentials


@pytest.mark.spec("EST-AUTH-02", "EST-AUTH-08", "EST-CLI-01", "EST-ENROLL-02")
async def test_without_credentials_each_challenge_is_a_header_in_the_issuers_order_and_bearer_is_last(server: Server) -> None:
    """Old clients read the first header only (interop.md pitfalls 3 and 10); in SPEC the token stands before the password."""
    answer = await server.enroll(make_csr())
    assert answer.status == 401
    assert answer.all("www-authenticate") == ['Basic realm="factory", charset="UTF-8"', 'Bearer realm="est-issuer"']
    assert answer.text == (
        "authenticate by a TLS client certificate of this issuer or a TLS client certificate under the issuer's trust anchors or "
        "a ServiceAccount token of audience devices (Authorization: Bearer) or HTTP Basic"
    )


@pytest.mark.spec("EST-AUTH-02", "EST-RESP-05")
async def test_a_challenge_is_without_a_body_for_bouncy_castle_and_with_one_for_all_others(server: Server) -> None:
    """It sends no User-Agent, and closes an unread body with an error (tests/interop/bouncycastle/test_operations.py)."""
    challenged = await server.enroll(make_csr(), user_agent="")
    assert (challenged.status, challenged.body, challenged.header("content-length")) == (401, b"", "0")
    assert challenged.all("www-authenticate")[0].startswith("Basic ")
    assert (await server.enroll(make_csr(), user_agent="any")).text
    assert (await server.enroll(make_csr(), user_agent="", authorization=basic(password="wrong"))).text


@pytest.mark.spec("EST-AUTH-02", "EST-AUTH-03")
async def test_an_issuer_with_certificates_only_answers_403_and_never_a_401_without_a_challenge(tmp_path: Path) -> None:
    async with running(tmp_path, registry_of(manifest(spec=ONLY_CERTIFICATES))) as server:
        for authorization in (None, basic(), "Digest abc", f"Bearer {make_token('a/b', audience='est-issuer')}"):
            answer = await server.enroll(make_csr(), authorization=authorization)
            assert answer.status == 403
            assert answer.all("www-authenticate") == []
            assert answer.text.startswith("authenticate by a TLS client certificate of this issuer or")


async def test_an_issuer_without_any_way_serves_nobody_but_the_registration_authority(tmp_path: Path) -> None:
    async with running(tmp_path, registry_of(manifest(spec=with_est(authentication=[])))) as server:
        for connection in (tls(), tls(leaf())):
            answer = await server.enroll(make_csr(), authorization=basic(), connection=connection)
            assert answer.status == 403
            assert answer.text.startswith("nobody but the registration authority may enrol at this issuer")
        token = server.reviewer.add(RA, audience="est-issuer")
        assert (await server.enroll(make_csr("web"), authorization=f"Bearer {token}")).status == 200


# TLS client certificates

FORGED: dict[str, Any] = {
    "unknown CA": (lambda: leaf(OTHER_CA), "the certificate was not issued by this issuer"),
    "forged signature": (lambda: leaf(FACTORY_CA, signed_by=OTHER_CA), "the certificate was not issued by this issuer"),
    "expired": (lambda: leaf(not_after=NOW - timedelta(seconds=1)), "the certificate expired at 2026-03-01T11:59:59Z"),
    "not yet valid": (lambda: leaf(not_before=NOW + timedelta(seconds=1)), "the certificate is not valid before 2026-03-01T12:00:01Z"),
    "wrong purpose": (lambda: leaf(purpose=ExtendedKeyUsageOID.SERVER_AUTH), "the certificate is not for the purpose"),
    "no purpose": (lambda: leaf(purpose=None), "the certificate is not for the purpose"),
}


@pytest.mark.spec("EST-TLS-06", "EST-TLS-08", "THREAT-11", "THREAT-12")
@pytest.mark.parametrize("case", FORGED)
@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
@pytest.mark.parametrize("operation", ["simpleenroll", "simplereenroll"])
async def test_a_forged_certificate_is_nobody_and_the_answer_says_why(server: Server, case: str, version: str, operation: str) -> None:
    make, why = FORGED[case]
    certificate = make()
    answer = await server.enroll(make_csr(), operation=operation, connection=tls(certificate, version=version))
    assert answer.status == (401 if operation == "simpleenroll" else 403)
    assert why in answer.text
    assert server.audit_lines == []
    # an anonymous requester with a reason: the same connection may fetch /cacerts and use a password
    connection = tls(certificate, version=version)
    assert (await server.request("GET", "/.well-known/est/cacerts", connection=connection)).status == 200
    assert (await server.enroll(make_csr(), authorization=basic(), connection=connection)).status == 200


@pytest.mark.spec("THREAT-11")
async def test_a_device_of_one_issuer_is_nobody_at_another(tmp_path: Path) -> None:
    """EJBCA CVE-2020-28942: the restriction to one CA holds at every door."""
    other = {**SPEC, "ca": {"secretName": "other-ca"}, "est": {**SPEC["est"], "label": "other"}}
    async with running(tmp_path, registry_of(manifest(), manifest("other", other))) as server:
        connection = tls(leaf(FACTORY_CA))
        assert (await server.enroll(make_csr(), operation="simplereenroll", connection=connection)).status == 200
        assert (await server.enroll(make_csr(), operation="simplereenroll", label="other", connection=connection)).status == 403
        assert (await server.enroll(make_csr(), label="other", connection=connection)).status == 401


@pytest.mark.spec("EST-TA-04", "EST-REENR-02", "THREAT-11")
async def test_a_third_partys_certificate_may_enrol_and_never_re_enrol(server: Server) -> None:
    connection = tls(leaf(MANUFACTURER_CA, "serial 7"))
    assert (await server.enroll(make_csr("device-9"), connection=connection)).status == 200
    assert server.audit_events[-1]["requester"].startswith("thirdPartyCertificate:")
    answer = await server.enroll(make_csr("serial 7"), operation="simplereenroll", connection=connection)
    assert answer.status == 403
    assert "simplereenroll needs a certificate of this issuer" in answer.text


@pytest.mark.spec("EST-REENR-01")
async def test_re_enrolment_without_certificate_is_403_whatever_passwords_are_sent(server: Server) -> None:
    answer = await server.enroll(make_csr(), operation="simplereenroll", authorization=basic())
    assert answer.status == 403
    assert answer.text == "simplereenroll needs TLS with the client certificate that is to be renewed"


async def test_re_enrolment_is_off_where_the_issuer_does_not_list_its_own_certificates(tmp_path: Path) -> None:
    spec = with_est(authentication=[{"basic": {"secretName": "passwords"}}])
    async with running(tmp_path, registry_of(manifest(spec=spec))) as server:
        answer = await server.enroll(make_csr(), operation="simplereenroll", connection=tls(leaf()))
        assert answer.status == 403
        enrol = await server.enroll(make_csr(), connection=tls(leaf()))
        assert enrol.status == 401
        assert enrol.text.endswith("the client certificate was not accepted: this issuer takes no client certificates")


@pytest.mark.spec("THREAT-11")
async def test_time_is_asked_at_each_request_of_a_kept_connection(server: Server) -> None:
    connection = tls(leaf(not_after=NOW + timedelta(seconds=30)))
    assert (await server.enroll(make_csr(), operation="simplereenroll", connection=connection)).status == 200
    server.clock.advance(seconds=31)
    answer = await server.enroll(make_csr(), operation="simplereenroll", connection=connection)
    assert answer.status == 403
    assert "expired" in answer.text


@pytest.mark.spec("THREAT-11")
async def test_revocation_is_asked_at_each_request_of_a_kept_connection(server: Server, tmp_path: Path) -> None:
    first = (await server.enroll(make_csr(), authorization=basic())).certificate
    connection = tls(first)
    assert (await server.enroll(make_csr(), operation="simplereenroll", connection=connection)).status == 200
    with sqlite3.connect(tmp_path / "ledger.sqlite") as database:
        database.execute("UPDATE certificates SET state = 'revoked' WHERE serial = ?", (f"{first.serial_number:x}",))
    await server.ledger.refresh_revoked()
    answer = await server.enroll(make_csr(), operation="simplereenroll", connection=connection)
    assert answer.status == 403
    assert answer.text.endswith("it is revoked")
    assert (await server.enroll(make_csr(), connection=connection)).status == 401


async def test_a_ca_that_was_replaced_judges_a_kept_connection_anew(server: Server) -> None:
    connection = tls(leaf())
    assert (await server.enroll(make_csr(), operation="simplereenroll", connection=connection)).status == 200
    new_ca = ca_secret("factory-ca", "New Factory CA")
    server.issuers.current = registry_of(manifest(), secrets=(new_ca, *SECRETS[1:]))
    assert (await server.enroll(make_csr(), operation="simplereenroll", connection=connection)).status == 403


async def test_a_path_is_checked_once_for_a_kept_connection(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    checks: list[x509.Certificate] = []
    check = trust.verify_issued_by

    def _counted(certificate: x509.Certificate, *args: Any, **kwargs: Any) -> None:
        checks.append(certificate)
        check(certificate, *args, **kwargs)

    monkeypatch.setattr(trust, "verify_issued_by", _counted)
    connection = tls(leaf())
    for _ in range(3):
        assert (await server.enroll(make_csr(), connection=connection)).status == 200
    assert len(checks) == 1
    server.clock.advance(seconds=61)
    assert (await server.enroll(make_csr(), connection=connection)).status == 200
    assert len(checks) == 2


# HTTP Basic


@pytest.mark.spec("EST-AUTH-01", "EST-AUTH-08")
@pytest.mark.parametrize(
    "authorization",
    [
        basic(password="wrong"),
        basic("unknown"),
        basic("", "correct horse"),
        basic("device-1 "),
        basic("DEVICE-1"),
        basic("device-1", "correct horse\n"),
        "Basic",
        "Basic !!!!",
        "Basic ZGV2aWNlLTE=",
        "Basic " + base64.b64encode(b"device-1:\xff").decode(),
        "Basic " + base64.b64encode(b"device-1:" + b"x" * 2000).decode(),
        "Digest username=device-1",
        "Negotiate abc",
        "",
    ],
)
async def test_whatever_is_not_the_right_password_is_401_with_challenges(server: Server, authorization: str) -> None:
    answer = await server.enroll(make_csr(), headers=[("Authorization", authorization)])
    assert answer.status == 401
    assert answer.all("www-authenticate")[0].startswith("Basic realm=")
    assert server.audit_lines == []


@pytest.mark.spec("THREAT-14")
async def test_unknown_user_and_wrong_password_get_the_same_octets(server: Server) -> None:
    wrong = await server.enroll(make_csr(), authorization=basic(password="wrong"))
    unknown = await server.enroll(make_csr(), authorization=basic("nobody", "wrong"))
    assert wrong == unknown


@pytest.mark.spec("EST-AUTH-07")
async def test_the_user_may_be_empty_where_it_is_configured_so(tmp_path: Path) -> None:
    empty = secret("passwords", {"username": b"", "password": b"shared"}, type_="kubernetes.io/basic-auth")
    async with running(tmp_path, registry_of(manifest(), secrets=(*SECRETS[:3], empty))) as server:
        answer = await server.enroll(make_csr(None, "a.devices.example"), authorization=basic("", "shared"))
    assert answer.status in {200, 403}, "authenticated: what is left is the policy's word"
    assert answer.all("www-authenticate") == []


@pytest.mark.parametrize("scheme", ["basic", "BASIC", "Basic"])
async def test_the_scheme_is_compared_without_case(server: Server, scheme: str) -> None:
    assert (await server.enroll(make_csr(), authorization=basic().replace("Basic", scheme))).status == 200


async def test_what_was_said_on_purpose_comes_before_the_certificate(server: Server) -> None:
    connection = tls(leaf(common_name="device-5"))
    assert (await server.enroll(make_csr(), authorization=basic(), connection=connection)).status == 200
    assert server.audit_events[-1]["requester"] == "basic:device-1"
    assert (await server.enroll(make_csr(), authorization=basic(password="wrong"), connection=connection)).status == 401
    assert (await server.enroll(make_csr(), authorization="Digest abc", connection=connection)).status == 200
    assert server.audit_events[-1]["requester"].startswith("certificate:")


@pytest.mark.spec("THREAT-14")
async def test_of_a_thousand_guesses_only_the_free_ones_are_checked(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[str] = []
    check = Passwords.check

    def _counted(self: Passwords, user: str, password: str) -> None:
        checked.append(user)
        check(self, user, password)

    monkeypatch.setattr(Passwords, "check", _counted)
    statuses = [(await server.enroll(b"", authorization=basic(password=f"guess {number}"))).status for number in range(1_000)]
    assert len(checked) == 10
    assert statuses.count(401) == 10
    assert statuses.count(503) == 990


@pytest.mark.spec("THREAT-14")
async def test_a_throttled_user_is_503_with_retry_after_even_with_the_right_password_and_gets_in_after_the_wait(server: Server) -> None:
    for _ in range(10):
        await server.enroll(make_csr(), authorization=basic(password="wrong"))
    answer = await server.enroll(make_csr(), authorization=basic(), source="198.51.100.1")
    assert answer.status == 503
    assert answer.header("retry-after") == "1"
    assert answer.text == "too many failed attempts; wait and try again"
    server.clock.advance(seconds=1)
    assert (await server.enroll(make_csr(), authorization=basic(), source="198.51.100.1")).status == 200


@pytest.mark.spec("THREAT-14")
async def test_a_source_that_tries_many_users_is_throttled_and_others_are_not(server: Server) -> None:
    statuses = [
        (await server.enroll(make_csr(), authorization=basic(f"user-{number}"), source="2001:db8::1")).status for number in range(30)
    ]
    assert statuses == [401] * 20 + [503] * 10
    assert (await server.enroll(make_csr(), authorization=basic(), source="2001:db8::2")).status == 503, "one site has a /64"
    assert (await server.enroll(make_csr(), authorization=basic(), source="2001:db8:0:1::1")).status == 200


@pytest.mark.spec("THREAT-14")
async def test_one_device_with_an_old_password_does_not_keep_its_site_out(server: Server) -> None:
    """A fleet behind one address, with one user in common: the others get in, at once or after the two seconds they are told."""
    for _ in range(30):
        await server.enroll(make_csr(), authorization=basic(password="old"))
        for _ in range(2):
            answer = await server.enroll(make_csr(), authorization=basic())
            if answer.status == 503:
                assert int(answer.header("retry-after") or 0) <= 2
                server.clock.advance(seconds=2)
        assert (await server.enroll(make_csr(), authorization=basic())).status == 200


async def test_sources_are_not_counted_where_the_service_hides_them(tmp_path: Path) -> None:
    async with running(tmp_path, configuration=AppConfiguration(throttle_sources=False)) as server:
        for guess in (basic, lambda user: f"Bearer {make_token(user, audience='devices')}"):
            statuses = {(await server.enroll(make_csr(), authorization=guess(f"user-{number}"))).status for number in range(40)}
            assert statuses == {401}


async def test_an_issuer_whose_passwords_are_not_loaded_is_503_for_those_who_bring_one(tmp_path: Path) -> None:
    async with running(tmp_path, registry_of(manifest(), secrets=SECRETS[:3])) as server:
        assert (await server.enroll(make_csr(), authorization=basic())).status == 503
        assert (await server.enroll(make_csr(), connection=tls(leaf()))).status == 200


# ServiceAccount tokens


@pytest.mark.spec("THREAT-25")
async def test_a_pods_token_of_the_issuers_audience_enrols_for_the_names_of_its_namespace(server: Server) -> None:
    token = server.reviewer.add("team-a/web", audience="devices")
    assert (await server.enroll(make_csr(None, "web.team-a.svc"), authorization=f"Bearer {token}")).status == 200
    assert server.audit_events[-1]["requester"] == "serviceAccountToken:team-a/web"
    other = await server.enroll(make_csr(None, "web.team-b.svc"), authorization=f"Bearer {token}")
    assert other.status == 403
    assert "web.team-b.svc" in other.text


@pytest.mark.spec("THREAT-25")
async def test_a_token_of_the_operators_audience_is_nothing_at_an_issuer_that_wants_another(server: Server) -> None:
    token = server.reviewer.add("team-a/web", audience="est-issuer")
    answer = await server.enroll(make_csr(None, "web.team-a.svc"), authorization=f"Bearer {token}")
    assert answer.status == 401
    assert answer.text.endswith("this issuer takes no ServiceAccount tokens of this audience")


async def test_an_api_server_that_is_away_is_503(server: Server) -> None:
    token = server.reviewer.add("team-a/web", audience="devices")
    server.reviewer.away = True
    assert (await server.enroll(make_csr(), authorization=f"Bearer {token}")).status == 503


# the registration authority


async def test_the_registration_authority_vouches_for_names_at_every_issuer(tmp_path: Path) -> None:
    async with running(tmp_path, registry_of(manifest(spec=ONLY_CERTIFICATES))) as server:
        token = server.reviewer.add(RA, audience="est-issuer")
        answer = await server.enroll(make_csr("anything", "any.where.example"), authorization=f"Bearer {token}")
        assert answer.status == 200
        assert (server.audit_events[-1]["door"], server.audit_events[-1]["requester"]) == ("est", f"serviceAccountToken:{RA}")
        wrong_audience = server.reviewer.add(RA, audience="devices")
        assert (await server.enroll(make_csr(), authorization=f"Bearer {wrong_audience}")).status == 403


async def test_whom_an_idempotency_key_names_is_nobody(server: Server) -> None:
    """A header that means nothing here: neither the registration authority nor a device is taken for what it says, or refused for it."""
    header = [("Idempotency-Key", "est-issuer.io/team-a/web-1/1f0c9a52-5f5a-4c39-9b8e-0d6f4f1f9a01")]
    csr_der = make_csr()
    for authorization, requester in (
        (basic(), "basic:device-1"),
        (f"Bearer {server.reviewer.add(RA, audience='est-issuer')}", f"serviceAccountToken:{RA}"),
    ):
        with_it = await server.enroll(csr_der, authorization=authorization, headers=header)
        assert (server.audit_events[-1]["door"], server.audit_events[-1]["requester"]) == ("est", requester)
        without = await server.enroll(csr_der, authorization=authorization)
        assert with_it.certificate == without.certificate, "a retry is known by what is asked for, and by whom"
    assert (await server.enroll(csr_der, headers=header)).status == 401
