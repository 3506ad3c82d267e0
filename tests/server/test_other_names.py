"""A user principal name on every way to a certificate over EST."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from estcore import csr_builder, csr_wishes, csrattrs, transfer
from estcore.csr_vocabulary import SUBJECT_ALT_NAME
from estcore.other_names import other_name
from estcore.registration import subject_alternative_names
from tests.server.app_fixtures import SPEC, Answer, Server, basic, manifest, name, new_key, registry_of, running, tls, with_est
from tests.server.cmc_fixtures import extension, make_authority, send, template, vouched

UPN, XMPP = "1.3.6.1.4.1.311.20.2.3", "1.3.6.1.5.5.7.8.5"
MINE = other_name(UPN, "device-1@ad.example")
CHAT = other_name(XMPP, "device-1@ad.example")
RULE = {
    "from": {"authentication": "basic"},
    "subject": {"commonName": "{user}"},
    "otherNames": [{"oid": oid, "utf8Value": "{user}@ad.example"} for oid in (UPN, XMPP)],
}


def issuer(rule: dict[str, Any]) -> dict[str, Any]:
    est = with_est(serverKeyGeneration={"enabled": True, "encryption": "Optional"})["est"]
    return {**SPEC, "est": est, "policy": {"rules": [rule, *SPEC["policy"]["rules"]]}}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with running(tmp_path, registry_of(manifest(spec=issuer(RULE)))) as running_server:
        yield running_server


def asking(*sans: x509.GeneralName, key: Any = None) -> bytes:
    return csr_builder.build(key or new_key(), subject=name("device-1"), sans=sans)


def sans_of(answer: Answer) -> tuple[x509.GeneralName, ...]:
    return subject_alternative_names(answer.certificate)


async def test_it_is_issued_recorded_whole_and_renewed_by_its_holder(server: Server) -> None:
    first = await server.enroll(asking(MINE, CHAT), authorization=basic())
    assert sans_of(first) == (MINE, CHAT)
    assert server.audit_events[-1]["sans"] == [f"otherName:{UPN};UTF8:device-1@ad.example", f"otherName:{XMPP};UTF8:device-1@ad.example"]
    again = await server.enroll(asking(CHAT, MINE), operation="simplereenroll", connection=tls(first.certificate))
    assert sans_of(again) == (MINE, CHAT)
    fewer = await server.enroll(asking(MINE), operation="simplereenroll", connection=tls(first.certificate))
    assert (fewer.status, "is not that of the certificate to renew" in fewer.text) == (403, True)


async def test_the_same_text_of_another_type_is_another_request(server: Server) -> None:
    key = new_key()
    answers = [await server.enroll(asking(san, key=key), authorization=basic()) for san in (MINE, CHAT, MINE)]
    assert list(map(sans_of, answers)) == [(MINE,), (CHAT,), (MINE,)]
    assert answers[2].certificate == answers[0].certificate


async def test_a_key_that_the_server_makes_has_it_too(server: Server) -> None:
    answer = await server.enroll(asking(MINE), operation="serverkeygen", authorization=basic())
    assert answer.status == 200, answer.text
    assert server.audit_events[-1]["sans"] == [f"otherName:{UPN};UTF8:device-1@ad.example"]


@pytest.mark.spec("EST-ATTR-13")
async def test_csrattrs_spells_it_out_where_the_rule_fixes_it_and_leaves_it_open_where_not(server: Server) -> None:
    for value, told in (("{user}@ad.example", x509.SubjectAlternativeName([MINE]).public_bytes()), ("*@ad.example", None)):
        rule = RULE | {"otherNames": [{"oid": UPN, "utf8Value": value}]}
        server.issuers.current = registry_of(manifest(spec=issuer(rule)))
        answer = await server.request("GET", "/.well-known/est/factory/csrattrs", headers=[("Authorization", basic())])
        wishes = csr_wishes.read(csrattrs.decode(transfer.decode_body(answer.body)))
        (san,) = (each for each in wishes.extensions if each.oid == SUBJECT_ALT_NAME)
        assert san.value == told


@pytest.mark.spec("EST-CLI-03", "THREAT-05")
async def test_a_registration_authority_has_it_issued_by_template_where_a_rule_has_its_type(server: Server) -> None:
    ra, key = await make_authority(server), new_key()
    sans = x509.SubjectAlternativeName([other_name(UPN, "anybody@else.example")])
    message = vouched(asking(key=key), cert_template_der=template(extension(sans), subject=name("web-1")))
    reply = await send(server, ra.pass_on(message), authorization=ra.bearer)
    assert subject_alternative_names(reply.certificate_for(key)) == tuple(sans)
    server.issuers.current = registry_of(manifest(spec=issuer({})))
    refused = await send(server, ra.pass_on(vouched(asking(*sans, key=key), transaction_id=3)), authorization=ra.bearer)
    (status,) = refused.statuses
    assert f"no rule of this issuer's policy has the type {UPN} in otherNames" in (status.text or "")
