"""`approval: Manual`: who asks by EST waits for a person, whatever way the request comes again, and gets one certificate."""

import asyncio
import hashlib
import json
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import ExtendedKeyUsageOID

from estcore import csr_builder, issuer_spec, pkcs10, registration
from estcore.certification_request import CertificationRequest
from estcore.errors import SignerError
from estcore.issuer_spec import IssuerSpec
from estcore.registration import Authorized
from estcore.requester import AuthenticatedBy, Requester
from estcore.usages import Usage
from estserver import approval
from estserver.approval import requester_from_json
from estserver.held_requests import MAX_WAITING_PER_REQUESTER, HeldRequest, HeldRequests, State, UndecidableRequest
from estserver.messages import Operation
from estserver.snapshot import IssuerManifest
from tests.server.app_fixtures import (
    FACTORY_CA,
    NOW,
    RA,
    SPEC,
    Answer,
    AppConfiguration,
    Server,
    basic,
    leaf,
    make_csr,
    manifest,
    new_key,
    registry_of,
    running,
    tls,
    with_est,
)
from tests.server.test_requests_command import REQUEST

ISSUER = "EstIssuer/devices/factory"
KEY = new_key()
BINDING = b"first connection, 32 octets long"
OTHER_BINDING = b"other connection, 32 octets too."


def manual(**est: Any) -> IssuerManifest:
    return manifest(spec=with_est(approval="Manual", **est))


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with running(tmp_path, registry_of(manual())) as running_server:
        yield running_server


def held(server: Server) -> HeldRequests:
    return HeldRequests(server.ledger)


async def rows(server: Server) -> list[HeldRequest]:
    return await held(server).listed()


async def decide(server: Server, state: State = State.APPROVED, *, reason: str = "seen at the gate") -> HeldRequest:
    """What a person does, to the only request that waits."""
    (waiting,) = await held(server).listed(State.WAITING)
    return await held(server).decide(waiting.id, state, by="alice", reason=reason, now=server.clock.now)


async def ask(server: Server, **more: Any) -> Answer:
    """The device's request: always the same key and names, everything else new."""
    return await server.enroll(make_csr("device-1", "a.devices.example", key=KEY), authorization=basic(), **more)


def certificates(tmp_path: Path) -> int:
    with sqlite3.connect(tmp_path / "ledger.sqlite") as database:
        (count,) = database.execute("SELECT count(*) FROM certificates").fetchone()
        return int(count)


@pytest.mark.spec("EST-RESP-08")
async def test_a_good_request_is_202_with_whole_seconds_to_wait_and_what_happens(server: Server, tmp_path: Path) -> None:
    answer = await ask(server)
    assert answer.status == 202
    assert answer.header("retry-after") == "10"
    (row,) = await rows(server)
    assert row.id in answer.text
    assert "waits for a person's approval" in answer.text
    assert "2026-03-08 12:00 UTC" in answer.text, "the default of approvalWithin is 168 hours"
    assert certificates(tmp_path) == 0


async def test_the_row_says_all_that_a_person_needs_to_judge(server: Server) -> None:
    await ask(server, source="192.0.2.9")
    (row,) = await rows(server)
    assert (row.issuer, row.requester, row.operation, row.source) == (ISSUER, "basic:device-1", "simpleenroll", "192.0.2.9")
    assert (row.subject, row.sans) == ("CN=device-1", ("DNS:a.devices.example",))
    assert row.usages == ("client auth", "digital signature", "key encipherment", "server auth")
    assert (row.state, row.created_at, row.expires_at) == (State.WAITING, NOW, NOW + timedelta(hours=168))
    requester = requester_from_json(row.requested_by)
    assert (str(requester), requester.user) == ("basic:device-1", "device-1")


@pytest.mark.spec("EST-RESP-10", "EST-RESP-11")
async def test_a_repeat_with_a_rebuilt_csr_on_a_new_connection_is_the_same_request(server: Server, tmp_path: Path) -> None:
    for binding in (BINDING, OTHER_BINDING):
        csr_der = make_csr("device-1", "a.devices.example", key=KEY, channel_binding=binding)
        assert (await server.enroll(csr_der, authorization=basic(), connection=tls(binding=binding))).status == 202
    assert len(await rows(server)) == 1

    await decide(server)
    csr_der = make_csr("device-1", "a.devices.example", key=KEY, channel_binding=b"third")
    answer = await server.enroll(csr_der, authorization=basic(), connection=tls(binding=b"third"))
    assert answer.certificate.public_key() == KEY.public_key()
    again = await ask(server)
    assert again.certificate == answer.certificate
    assert certificates(tmp_path) == 1
    (row,) = await rows(server)
    assert (row.state, row.serial) == (State.ISSUED, answer.certificate.serial_number)


@pytest.mark.spec("EST-RESP-11")
async def test_every_poll_passes_every_check_again(server: Server) -> None:
    bound = make_csr("device-1", "a.devices.example", key=KEY, channel_binding=BINDING)
    assert (await server.enroll(bound, authorization=basic(), connection=tls(binding=BINDING))).status == 202
    await decide(server)
    replayed = await server.enroll(bound, authorization=basic(), connection=tls(binding=OTHER_BINDING))
    assert (replayed.status, "channel binding" in replayed.text) == (400, True)
    assert (await server.enroll(bound, authorization=basic(password="wrong"), connection=tls(binding=BINDING))).status == 401
    forbidding = {**SPEC["policy"], "rules": []}
    server.issuers.current = registry_of(manifest(spec={**with_est(approval="Manual"), "policy": forbidding}))
    assert (await ask(server)).status == 403
    server.issuers.current = registry_of(manual())
    assert (await ask(server)).status == 200


@pytest.mark.spec("EST-RESP-11")
async def test_other_keys_names_usages_requesters_and_operations_are_other_requests(server: Server) -> None:
    await ask(server)
    own = leaf(FACTORY_CA)
    for csr_der, more in (
        (make_csr("device-1", "a.devices.example"), {"authorization": basic()}),
        (make_csr("device-1", "b.devices.example", key=KEY), {"authorization": basic()}),
        (make_csr("device-1", "a.devices.example", key=KEY, usages=[Usage.CLIENT_AUTH]), {"authorization": basic()}),
        (make_csr("device-1", "a.devices.example", key=KEY), {"connection": tls(own)}),
        (make_csr("device-1", key=KEY), {"connection": tls(own), "operation": "simplereenroll"}),
    ):
        assert (await server.enroll(csr_der, **more)).status == 202
    assert len(await rows(server)) == 6


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What `approval.check_is_for` looks at of an order."""

    issuer_key: str = ISSUER
    spec: IssuerSpec
    operation: Operation = Operation.FULL_CMC
    requester: Requester
    csr: CertificationRequest
    authorized: Authorized
    source: str = "192.0.2.7"


@pytest.mark.spec("THREAT-09", "THREAT-23")
def test_whatever_way_an_approval_comes_to_the_signer_it_is_of_one_issuer_requester_operation_and_key() -> None:
    spec = issuer_spec.parse(manual().spec, where="factory")
    csr = pkcs10.parse(make_csr("device-1", "a.devices.example", key=KEY))
    device = Requester(authenticated_by=AuthenticatedBy.BASIC, identity="device-1", user="device-1")
    wanted = Wanted(spec=spec, requester=device, csr=csr, authorized=registration.authorize(device, csr, spec.policy))
    request = replace(
        REQUEST, issuer=ISSUER, requester="basic:device-1", operation="fullcmc", spki_sha256=hashlib.sha256(csr.spki_der).hexdigest()
    )
    approval.check_is_for(request, wanted)
    by_the_server = replace(request, operation="serverkeygen", spki_sha256="")
    approval.check_is_for(by_the_server, replace(wanted, operation=Operation.SERVER_KEYGEN))
    for other in (
        by_the_server,
        replace(request, spki_sha256=""),
        replace(request, operation="simpleenroll"),
        replace(request, requester="digest:device-1"),
        replace(request, issuer="EstIssuer/devices/other"),
        replace(request, spki_sha256="0" * 64),
    ):
        with pytest.raises(SignerError) as raised:
            approval.check_is_for(other, wanted)
        assert raised.value.reason == "ApprovalOfAnother"


async def test_approval_of_one_request_is_no_approval_of_another(server: Server) -> None:
    await ask(server)
    await decide(server)
    assert (await server.enroll(make_csr("device-1", "b.devices.example", key=KEY), authorization=basic())).status == 202
    assert (await server.enroll(make_csr("device-1", "a.devices.example"), authorization=basic())).status == 202


async def test_a_renewal_waits_too_and_is_signed_for_the_names_of_the_certificate(server: Server) -> None:
    own = leaf(FACTORY_CA, purpose=ExtendedKeyUsageOID.CLIENT_AUTH)
    connection = tls(own)
    assert (await server.enroll(make_csr("device-1", key=KEY), operation="simplereenroll", connection=connection)).status == 202
    await decide(server)
    answer = await server.enroll(make_csr("device-1", key=KEY), operation="simplereenroll", connection=connection)
    assert answer.certificate.subject == own.subject


@pytest.mark.spec("EST-RESP-10")
async def test_polls_that_race_after_the_approval_yield_one_certificate(server: Server, tmp_path: Path) -> None:
    await ask(server)
    await decide(server)
    answers = await asyncio.gather(*(ask(server) for _ in range(8)))
    assert len({answer.certificate.serial_number for answer in answers}) == 1
    assert certificates(tmp_path) == 1


async def test_two_replicas_make_one_row_and_one_certificate(server: Server, tmp_path: Path) -> None:
    async with running(tmp_path, registry_of(manual())) as other:
        assert {answer.status for answer in await asyncio.gather(*(ask(one) for one in (server, other) * 4))} == {202}
        assert len(await rows(server)) == 1
        await decide(other)
        answers = await asyncio.gather(*(ask(one) for one in (server, other) * 4))
    assert len({answer.certificate.serial_number for answer in answers}) == 1
    assert certificates(tmp_path) == 1


async def test_a_denial_is_403_with_the_persons_reason_as_long_as_it_might_have_waited(server: Server) -> None:
    await ask(server)
    row = await decide(server, State.DENIED, reason="this device was stolen")
    answer = await ask(server)
    assert (answer.status, answer.text) == (403, f"request {row.id} was denied: this device was stolen")
    server.clock.advance(hours=168, seconds=-1)
    assert (await ask(server)).status == 403
    server.clock.advance(seconds=1)
    assert (await ask(server)).status == 202, "afterwards the device may ask anew"
    assert [each.state for each in await rows(server)] == [State.DENIED, State.WAITING]


async def test_what_nobody_decides_expires_and_the_client_hears_it_once(server: Server) -> None:
    server.issuers.current = registry_of(manual(approvalWithin="1h"))
    await ask(server)
    server.clock.advance(hours=1)
    answer = await ask(server)
    assert (answer.status, "has expired" in answer.text) == (403, True)
    assert (await ask(server)).status == 202
    assert [each.state for each in await rows(server)] == [State.EXPIRED, State.WAITING]


async def test_an_approval_that_nobody_comes_for_expires(server: Server, tmp_path: Path) -> None:
    await ask(server)
    await decide(server)
    server.clock.advance(hours=168)
    assert (await ask(server)).status == 403
    assert (await ask(server)).status == 202
    assert certificates(tmp_path) == 0


async def test_after_the_retry_window_the_same_request_is_a_new_one(server: Server, tmp_path: Path) -> None:
    await ask(server)
    await decide(server)
    first = (await ask(server)).certificate
    server.clock.advance(minutes=10)
    assert (await ask(server)).status == 202
    await decide(server)
    assert (await ask(server)).certificate.serial_number != first.serial_number
    assert certificates(tmp_path) == 2


async def test_with_retries_switched_off_an_approval_is_still_good_for_one_certificate(tmp_path: Path) -> None:
    off = AppConfiguration(retry_window=timedelta(0))
    async with running(tmp_path, registry_of(manual()), configuration=off) as server:
        await ask(server)
        await decide(server)
        assert min(answer.status for answer in await asyncio.gather(*(ask(server) for _ in range(4)))) == 200
        assert certificates(tmp_path) == 1
        assert (await ask(server)).status == 202


@pytest.mark.spec("EST-RESP-10")
async def test_requests_and_decisions_outlive_the_server(tmp_path: Path) -> None:
    async with running(tmp_path, registry_of(manual())) as before:
        assert (await ask(before)).status == 202
    async with running(tmp_path, registry_of(manual())) as between:
        assert (await ask(between)).status == 202
        await decide(between)
    async with running(tmp_path, registry_of(manual())) as after:
        assert (await ask(after)).status == 200


async def test_what_a_registration_authority_sends_was_judged_where_it_came_from(server: Server) -> None:
    token = server.reviewer.add(RA, audience="est-issuer")
    answer = await server.enroll(make_csr(None, "web.team-a.svc"), authorization=f"Bearer {token}")
    assert answer.status == 200


async def test_a_bad_request_never_waits(server: Server) -> None:
    assert (await server.enroll(make_csr("device-2"), authorization=basic())).status == 403
    assert (await server.enroll(make_csr("device-1"))).status == 401
    assert (await server.enroll(b"\x30\x00", authorization=basic())).status == 400
    assert await rows(server) == []


async def test_a_requester_may_have_a_hundred_waiting_and_others_are_not_kept_out(server: Server) -> None:
    key = new_key()
    assert (await server.enroll(make_csr("device-1", "n7.devices.example", key=key), authorization=basic())).status == 202
    (row,) = await rows(server)
    for number in range(1, MAX_WAITING_PER_REQUESTER):
        await held(server).hold(replace(row, id=f"{number:016x}", slot=f"{number}"), now=NOW)
    answer = await ask(server)
    assert (answer.status, answer.header("retry-after")) == (503, "600")
    assert "100 requests of yours wait" in answer.text
    assert (await server.enroll(make_csr("device-1", "n7.devices.example", key=key), authorization=basic())).status == 202
    assert (await server.enroll(make_csr("device-1", "a.devices.example"), connection=tls(leaf(FACTORY_CA)))).status == 202


@pytest.mark.parametrize(
    ("waited", "seconds"), [({"seconds": 0}, 10), ({"minutes": 4}, 30), ({"minutes": 40}, 300), ({"hours": 80}, 600), ({"days": 6}, 600)]
)
@pytest.mark.spec("EST-RESP-08")
async def test_the_longer_it_waits_the_less_often_it_is_asked(server: Server, waited: dict[str, float], seconds: int) -> None:
    await ask(server)
    server.clock.advance(**waited)
    assert (await ask(server)).header("retry-after") == str(seconds)


async def test_each_step_is_in_the_audit_log_once_with_who_decided_and_why(server: Server) -> None:
    for _ in range(3):
        await ask(server)
    row = await decide(server)
    for _ in range(2):
        await ask(server)
    events = server.audit_events
    assert [event["audit"] for event in events] == ["waiting", "approved", "signing", "signed", "signing", "signed"]
    waiting, approved, signing = events[:3]
    for event in (waiting, approved):
        assert (event["request"], event["requester"], event["issuer"]) == (row.id, "basic:device-1", ISSUER)
        assert (event["subject"], event["sans"]) == ("CN=device-1", ["DNS:a.devices.example"])
    assert (waiting["by"], approved["by"], approved["reason"]) == (None, "alice", "seen at the gate")
    assert signing["transaction"] == f"approval/{row.id}"
    assert server.metric(f'est_request_decisions_total{{decision="approved",issuer="{ISSUER}"}}') == 1


async def test_a_denial_and_an_expiry_are_in_the_audit_log(server: Server) -> None:
    await ask(server)
    await decide(server, State.DENIED)
    await ask(server)
    server.clock.advance(hours=168)
    await ask(server)
    server.clock.advance(hours=168)
    await ask(server)
    assert [event["audit"] for event in server.audit_events] == ["waiting", "denied", "waiting", "expired"]


async def test_a_decision_is_made_once_and_never_turned(server: Server) -> None:
    await ask(server)
    row = await decide(server)
    for state in (State.APPROVED, State.DENIED):
        with pytest.raises(UndecidableRequest, match=f"request {row.id} is approved by alice; only a waiting one can be decided"):
            await held(server).decide(row.id, state, by="bob", reason="", now=NOW)
    with pytest.raises(UndecidableRequest, match="there is no request 0000"):
        await held(server).decide("0000", State.APPROVED, by="bob", reason="", now=NOW)


async def test_what_has_expired_cannot_be_approved(server: Server) -> None:
    await ask(server)
    (row,) = await rows(server)
    server.clock.advance(hours=168)
    with pytest.raises(UndecidableRequest, match="it expired"):
        await held(server).decide(row.id, State.APPROVED, by="bob", reason="", now=server.clock.now)


async def test_of_two_people_who_decide_at_once_one_does(server: Server) -> None:
    await ask(server)
    (row,) = await rows(server)
    states = [State.APPROVED, State.DENIED] * 4
    results = await asyncio.gather(
        *(held(server).decide(row.id, state, by="x", reason="", now=NOW) for state in states), return_exceptions=True
    )
    assert sum(isinstance(result, HeldRequest) for result in results) == 1


async def test_the_news_are_told_to_one_of_those_who_ask(server: Server) -> None:
    await ask(server)
    await decide(server)
    first, second = await asyncio.gather(held(server).news(now=NOW), held(server).news(now=NOW))
    assert len(first) + len(second) == 1


def test_a_requester_survives_its_row() -> None:
    requester = Requester(
        authenticated_by=AuthenticatedBy.BASIC,
        identity="device-1",
        user="device-1",
        groups=frozenset({"b", "a"}),
        certificate=leaf(FACTORY_CA),
        with_certificate=AuthenticatedBy.THIRD_PARTY_CERTIFICATE,
    )
    text = approval.requester_to_json(requester)
    assert requester_from_json(text) == requester
    assert json.loads(text)["groups"] == ["a", "b"]


def test_the_wait_is_a_whole_number_of_seconds_at_any_age() -> None:
    ages = [timedelta(seconds=seconds) for seconds in range(0, 10_000, 97)]
    waits = [approval.retry_after(age) for age in ages]
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (timedelta(seconds=10), timedelta(minutes=10))


async def test_a_subject_that_is_spelled_otherwise_in_a_repeat_is_the_same_request(server: Server, tmp_path: Path) -> None:
    """A rebuilt CSR may hold the name in another string type."""
    own = tls(leaf(FACTORY_CA))
    printable = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "device-1", _ASN1Type.PrintableString)])
    csrs = [make_csr("device-1", key=KEY), csr_builder.build(KEY, subject=printable, sans=())]
    for csr_der in csrs:
        assert (await server.enroll(csr_der, operation="simplereenroll", connection=own)).status == 202
    await decide(server)
    answers = [await server.enroll(csr_der, operation="simplereenroll", connection=own) for csr_der in csrs]
    assert answers[0].certificate == answers[1].certificate
    assert certificates(tmp_path) == 1
