"""One-time passwords in the CSR's otpChallenge (RFC 7894): who is let in, once, whatever races."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import bcrypt
import pytest
from cryptography import x509

from estcore import csr_builder, der
from estcore.csr_vocabulary import OTP_CHALLENGE
from estcore.errors import ConfigurationError
from estcore.keys import PrivateKey
from estserver import revocation
from estserver.issuers import Registry
from estserver.one_time_passwords import load
from estserver.snapshot import SecretManifest
from tests.server.app_fixtures import (
    MANUFACTURER_CA,
    NOW,
    RA,
    SECRETS,
    SPEC,
    Answer,
    AppConfiguration,
    Server,
    basic,
    leaf,
    make_csr,
    manifest,
    name,
    new_key,
    registry_of,
    running,
    secret,
    tls,
    with_est,
)

RANDOM = "c2VjcmV0LXJhbmRvbS1vbmUtdGltZQ"
TYPED = "4711-0815"
OTP_WAY = {"oneTimePassword": {"secretName": "otps"}}
RULES = [{"from": {"authentication": "oneTimePassword"}, "subject": {"commonName": "{user}"}, "dnsNames": ["*.devices.example"]}]


def sha256(password: str) -> str:
    return f"sha256:{hashlib.sha256(password.encode()).hexdigest()}"


def slow(password: str) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()


def otps(*lines: str) -> SecretManifest:
    return secret("otps", {"otp": "\n".join(lines).encode()})


OTPS = otps("# one a device", f"device-1:{sha256(RANDOM)}", f"device-1:{sha256('another' + RANDOM)}", f"device-2:{slow(TYPED)}")


def registry(
    *ways: Mapping[str, Any], secrets: tuple[SecretManifest, ...] = (*SECRETS, OTPS), duration: Mapping[str, str] | None = None, **est: Any
) -> Registry:
    policy = {"rules": [*RULES, *SPEC["policy"]["rules"]], **({"duration": duration} if duration else {})}
    spec = {**with_est(authentication=list(ways or (OTP_WAY,)), **est), "policy": policy}
    return registry_of(manifest(spec=spec), secrets=secrets)


def otp_csr(password: str = RANDOM, common_name: str | None = "device-1", *dns_names: str, key: PrivateKey | None = None) -> bytes:

    return csr_builder.build(
        key or new_key(),
        subject=name(common_name),
        sans=[x509.DNSName(dns) for dns in dns_names],
        attributes={OTP_CHALLENGE: der.tlv(der.UTF8_STRING, password.encode())},
    )


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with running(tmp_path, registry()) as running_server:
        yield running_server


def results(server: Server) -> list[str]:
    return [event["result"] for event in server.audit_events if "result" in event]


@pytest.mark.spec("EST-POP-18")
@pytest.mark.parametrize(("password", "user"), [(RANDOM, "device-1"), (TYPED, "device-2")])
async def test_a_right_one_enrols_as_its_user(server: Server, password: str, user: str) -> None:
    answer = await server.enroll(otp_csr(password, user))
    assert answer.certificate.subject.rfc4514_string() == f"CN={user}"
    assert server.audit_events[-2]["requester"] == f"oneTimePassword:{user}"
    assert password not in "".join(line.decode() for line in server.audit_lines)


@pytest.mark.spec("EST-POP-18")
async def test_a_random_one_is_found_by_itself_and_the_rules_judge_the_names(server: Server) -> None:
    assert (await server.enroll(otp_csr(RANDOM, "device-2"))).status == 403
    assert (await server.enroll(otp_csr(RANDOM, None, "a.devices.example"))).status == 200, "a refusal has not used it up"


@pytest.mark.spec("EST-POP-18")
async def test_a_typed_one_is_good_for_the_name_of_its_user_only(server: Server) -> None:
    for common_name in ("device-1", "device-3", None):
        answer = await server.enroll(otp_csr(TYPED, common_name, "a.devices.example"))
        assert answer.status == 403
        assert answer.text == (
            "authenticate by a one-time password in the CSR (otpChallenge, RFC 7894); "
            "the one-time password is wrong, or is not for this commonName"
        )
    assert (await server.enroll(otp_csr(TYPED, "device-2"))).status == 200


@pytest.mark.spec("EST-POP-18", "EST-CLI-01")
async def test_without_one_nobody_enrols_and_a_body_that_cannot_be_read_is_nobodys(server: Server) -> None:
    for body in (make_csr(), b"", b"\x30\x03\x02\x01\x00", otp_csr(RANDOM)[:-1]):
        answer = await server.enroll(body)
        assert answer.status == 403
        assert answer.text == "authenticate by a one-time password in the CSR (otpChallenge, RFC 7894)"
    assert server.audit_lines == []


# once


@pytest.mark.spec("EST-POP-18", "THREAT-14")
async def test_it_is_good_once_whoever_asks_for_what(server: Server) -> None:
    assert (await server.enroll(otp_csr())).status == 200
    for csr in (otp_csr(), otp_csr(RANDOM, "device-1", "a.devices.example")):
        again = await server.enroll(csr)
        assert again.status == 403
        assert again.text == "this one-time password was used before; ask for another one"
    assert (await server.enroll(otp_csr("another" + RANDOM))).status == 200, "the user's other one is another"
    assert results(server) == ["issued", "OneTimePasswordUsed", "OneTimePasswordUsed", "issued"]


@pytest.mark.spec("EST-POP-18")
async def test_a_retry_after_a_lost_answer_gets_the_same_certificate_within_the_retry_window(server: Server) -> None:
    key = new_key()
    first = (await server.enroll(otp_csr(key=key))).certificate
    server.clock.advance(minutes=9, seconds=59)
    assert (await server.enroll(otp_csr(key=key))).certificate == first
    server.clock.advance(seconds=1)
    late = await server.enroll(otp_csr(key=key))
    assert (late.status, late.text) == (403, "this one-time password was used before; ask for another one")


@pytest.mark.spec("EST-POP-18", "THREAT-30")
async def test_a_certificate_that_ends_within_the_window_answers_a_retry_while_it_is_young(tmp_path: Path) -> None:
    async with running(tmp_path, registry(duration={"default": "5m", "max": "1h"})) as server:
        key = new_key()
        first = (await server.enroll(otp_csr(key=key))).certificate
        server.clock.advance(seconds=79)
        assert (await server.enroll(otp_csr(key=key))).certificate == first, "a third of the four minutes that were left"
        server.clock.advance(seconds=1)
        assert (await server.enroll(otp_csr(key=key))).status == 403


@pytest.mark.spec("EST-POP-18")
async def test_a_retry_gets_nothing_once_the_certificate_is_revoked_or_where_retries_are_off(server: Server, tmp_path: Path) -> None:
    key = new_key()
    first = (await server.enroll(otp_csr(key=key))).certificate
    assert await revocation.revoke(server.ledger, "EstIssuer/devices/factory", first.serial_number, reason=1, now=NOW)
    assert (await server.enroll(otp_csr(key=key))).status == 403
    (tmp_path / "off").mkdir()
    async with running(tmp_path / "off", registry(), configuration=AppConfiguration(retry_window=timedelta(0))) as strict:
        assert (await strict.enroll(otp_csr(key=key))).status == 200
        assert (await strict.enroll(otp_csr(key=key))).status == 403


@pytest.mark.spec("EST-POP-18")
async def test_of_two_replicas_that_race_one_issues(server: Server, tmp_path: Path) -> None:
    """Two applications with one database; eight keys at each at once."""
    async with running(tmp_path, registry()) as replica:
        answers: list[Answer] = await asyncio.gather(*(one.enroll(otp_csr()) for _ in range(8) for one in (server, replica)))
        assert sorted(answer.status for answer in answers) == [200] + [403] * 15
        assert sorted(results(server) + results(replica)) == ["OneTimePasswordUsed"] * 15 + ["issued"]


@pytest.mark.spec("EST-POP-18")
async def test_it_is_spent_for_good_also_when_the_server_starts_anew(tmp_path: Path) -> None:
    async with running(tmp_path, registry()) as first:
        assert (await first.enroll(otp_csr())).status == 200
    async with running(tmp_path, registry()) as second:
        second.clock.advance(days=400)
        assert (await second.enroll(otp_csr())).status == 403
        # a line that is written anew is another password
        second.issuers.current = registry(secrets=(*SECRETS, otps(f"device-1:{sha256('new' + RANDOM)}")))
        second.clock.now = NOW
        assert (await second.enroll(otp_csr("new" + RANDOM))).status == 200


@pytest.mark.spec("EST-POP-18")
async def test_a_key_from_the_server_is_had_once_too_and_by_no_other_operation_afterwards(tmp_path: Path) -> None:
    keygen = {"enabled": True, "encryption": "Optional"}
    async with running(tmp_path, registry(serverKeyGeneration=keygen)) as server:
        csr = otp_csr()
        assert (await server.enroll(csr, operation="serverkeygen")).status == 200
        for operation in ("serverkeygen", "simpleenroll"):
            answer = await server.enroll(csr, operation=operation)
            assert (answer.status, answer.text) == (403, "this one-time password was used before; ask for another one")


# guesses


@pytest.mark.spec("THREAT-14")
async def test_wrong_ones_are_throttled_by_user_and_by_source(server: Server) -> None:
    statuses = [(await server.enroll(otp_csr(f"guess {number}", "device-2"))).status for number in range(30)]
    assert statuses == [403] * 10 + [503] * 20
    assert (await server.enroll(otp_csr(TYPED, "device-2"), source="198.51.100.1")).status == 503
    server.clock.advance(seconds=2)
    assert (await server.enroll(otp_csr(TYPED, "device-2"), source="198.51.100.1")).status == 200
    server.clock.advance(hours=1)
    nameless = [(await server.enroll(otp_csr(f"guess {number}", None, "a.devices.example"))).status for number in range(30)]
    assert nameless == [403] * 20 + [503] * 10
    assert (await server.enroll(otp_csr(RANDOM, None, "a.devices.example"), source="198.51.100.1")).status == 200, "nobody else waits"


@pytest.mark.spec("THREAT-14")
async def test_sources_are_not_counted_where_the_service_hides_them(tmp_path: Path) -> None:
    async with running(tmp_path, registry(), configuration=AppConfiguration(throttle_sources=False)) as hidden:
        for names in ((f"user-{number}" for number in range(25)), [None] * 25):
            statuses = [(await hidden.enroll(otp_csr("guess", user, "a.devices.example"))).status for user in names]
            assert statuses == [403] * 25


@pytest.mark.spec("THREAT-14")
async def test_an_unknown_user_costs_what_a_known_one_costs(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    hashes: list[bytes] = []
    checkpw = bcrypt.checkpw

    def _counted(password: bytes, entry: bytes) -> bool:
        hashes.append(entry)
        return checkpw(password, entry)

    monkeypatch.setattr(bcrypt, "checkpw", _counted)
    known = await server.enroll(otp_csr("wrong", "device-2"))
    unknown = await server.enroll(otp_csr("wrong", "device-9"))
    assert (known.status, known.body) == (unknown.status, unknown.body)
    assert len(hashes) == 2
    assert (await server.enroll(otp_csr(TYPED, "device-9"))).status == 403, "the stand-in's password opens nothing"


# beside other ways


@pytest.mark.spec("EST-POP-18")
async def test_where_no_such_way_exists_it_is_refused_by_name(tmp_path: Path) -> None:
    async with running(tmp_path, registry_of(manifest())) as server:
        token = server.reviewer.add(RA, audience="est-issuer")
        for authorization, connection in ((basic(), tls()), (None, tls(leaf())), (f"Bearer {token}", tls())):
            answer = await server.enroll(otp_csr(), authorization=authorization, connection=connection)
            assert answer.status == 400
            assert answer.text.startswith("otpChallenge is taken by issuers that list oneTimePassword")
        renewal = await server.enroll(otp_csr(), operation="simplereenroll", connection=tls(leaf()))
        assert renewal.status == 400
        assert server.audit_lines == []


@pytest.mark.spec("EST-POP-18")
async def test_two_passwords_are_one_too_many_and_neither_is_used_up(tmp_path: Path) -> None:
    async with running(tmp_path, registry(OTP_WAY, {"basic": {"secretName": "passwords"}})) as server:
        assert (await server.enroll(otp_csr(), authorization=basic())).status == 400
        assert (await server.enroll(make_csr(), authorization=basic())).status == 200
        challenged = await server.enroll(otp_csr("wrong"))
        assert challenged.status == 401
        assert challenged.all("www-authenticate") == ['Basic realm="factory", charset="UTF-8"']
        assert (await server.enroll(otp_csr())).status == 200


@pytest.mark.spec("EST-AUTH-01", "EST-POP-18")
async def test_certificate_and_one_time_password_need_both(tmp_path: Path) -> None:
    both = {"certificate": {"caSecretName": "manufacturer"}, **OTP_WAY}
    async with running(tmp_path, registry(both)) as server:
        device = tls(leaf(MANUFACTURER_CA, "serial 7"))
        alone = await server.enroll(otp_csr())
        assert alone.status == 403
        assert alone.text.endswith("the password is right; a TLS client certificate is needed beside it")
        assert (await server.enroll(make_csr(), connection=device)).status == 403
        assert (await server.enroll(otp_csr(), connection=device)).status == 200
        assert (await server.enroll(otp_csr(), connection=device)).status == 403


@pytest.mark.spec("EST-AUTH-01", "EST-POP-18", "EST-REENR-01")
async def test_renewal_where_certificate_and_one_time_password_are_needed_takes_both_once(tmp_path: Path) -> None:
    async with running(tmp_path, registry({"certificate": {"issuedBy": "this"}, **OTP_WAY})) as server:
        holder = tls(leaf())
        assert (await server.enroll(make_csr(), operation="simplereenroll", connection=holder)).status == 403
        assert (await server.enroll(otp_csr("wrong"), operation="simplereenroll", connection=holder)).status == 403
        assert (await server.enroll(otp_csr(), operation="simplereenroll", connection=holder)).status == 200
        assert server.audit_events[-1]["requester"].startswith("certificate:")
        again = await server.enroll(otp_csr(), operation="simplereenroll", connection=holder)
        assert (again.status, again.text) == (403, "this one-time password was used before; ask for another one")


@pytest.mark.spec("EST-POP-18", "EST-REENR-01", "THREAT-14")
async def test_it_is_spent_once_whichever_certificate_comes_beside_it_and_by_whichever_operation(tmp_path: Path) -> None:
    async with running(tmp_path, registry({"certificate": {"issuedBy": "this"}, **OTP_WAY}, OTP_WAY)) as server:
        holders = [tls(leaf()) for _ in range(4)]
        renewals = [server.enroll(otp_csr(), operation="simplereenroll", connection=holder) for holder in holders]
        answers = await asyncio.gather(*renewals, server.enroll(otp_csr()))
        assert sorted(answer.status for answer in answers) == [200] + [403] * 4
        for operation, connection in (("simpleenroll", tls()), ("simplereenroll", holders[0]), ("simplereenroll", tls(leaf()))):
            again = await server.enroll(otp_csr(), operation=operation, connection=connection)
            assert (again.status, again.text) == (403, "this one-time password was used before; ask for another one")
        assert results(server).count("issued") == 1


async def test_a_certificate_by_habit_does_not_keep_a_one_time_password_from_counting(tmp_path: Path) -> None:
    async with running(tmp_path, registry({"certificate": {"issuedBy": "this"}}, OTP_WAY)) as server:
        assert (await server.enroll(otp_csr(), connection=tls(leaf()))).status == 200
        assert server.audit_events[-2]["requester"] == "oneTimePassword:device-1"


async def test_an_issuer_whose_passwords_are_not_loaded_is_503_for_those_who_bring_one(tmp_path: Path) -> None:
    async with running(tmp_path, registry(secrets=SECRETS)) as server:
        assert (await server.enroll(otp_csr())).status == 503


@pytest.mark.spec("EST-POP-18")
async def test_a_request_that_waits_for_a_person_asks_with_the_same_password_until_it_has_its_certificate(tmp_path: Path) -> None:
    async with running(tmp_path, registry(approval="Manual")) as server:
        key = new_key()
        assert [(await server.enroll(otp_csr(key=key))).status for _ in range(2)] == [202, 202]
        assert (await server.enroll(otp_csr())).status == 202, "waiting has used nothing up"


# the Secret

HASH = "0123456789abcdef" * 4
BROKEN = {
    "no member": ({"auth": b"x"}, "otp: it is missing; put lines user:hash there"),
    "nobody": ({"otp": b"\n# nobody"}, "it holds no one-time password"),
    "no colon": ({"otp": b"x"}, "otp line 1: it is not user:hash"),
    "a short hash": ({"otp": b"a:sha256:" + HASH[:-1].encode()}, "otp line 1: behind sha256: stand 64 hexadecimal digits"),
    "plain text": ({"otp": b"\na:secret-password"}, "otp line 2: the hash of user 'a' is not bcrypt"),
    "the same twice": ({"otp": f"a:sha256:{HASH}\nb:sha256:{HASH.upper()}".encode()}, "otp line 2: the same password is there twice"),
    "two typed ones": ({"otp": f"a:{slow('x')}\na:{slow('y')}".encode()}, "otp line 2: the user 'a' has two bcrypt passwords"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_an_unusable_line_is_a_configuration_error_that_names_it_and_no_hash(case: str) -> None:
    data, expected = BROKEN[case]
    with pytest.raises(ConfigurationError) as raised:
        load([secret("otps", data)])
    assert expected in raised.value.message
    assert raised.value.reason == "SecretInvalidData"
    assert not any(told in raised.value.message for told in (HASH[:-1], "secret-password", "$2b$"))
