"""/csrattrs from the path to the octets, and CSRs held against it."""

from collections.abc import AsyncIterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from estcore import csr_builder, csr_wishes, csrattrs, issuer_spec, pkcs10, transfer
from estcore.csr_advice import CsrAdvice
from estcore.csr_vocabulary import CHALLENGE_PASSWORD, EST_IDENTITY_LINKING, OTP_CHALLENGE, SUBJECT_ALT_NAME
from estcore.csr_wishes import Wishes
from estcore.errors import BadCsr, CmcFailInfo, ConfigurationError
from estcore.requester import AuthenticatedBy, Requester
from estcore.usages import Usage
from estserver.csr_attributes import AdviceCache
from tests.server.app_fixtures import (
    MANUFACTURER_CA,
    RA,
    SPEC,
    USER,
    Answer,
    Server,
    basic,
    leaf,
    make_csr,
    manifest,
    name,
    new_key,
    registry_of,
    running,
    tls,
    with_est,
)
from tests.server.cmc_fixtures import by_certificate, enrolled, make_authority, send, vouched

PATH = "/.well-known/est/factory/csrattrs"
P256_ONLY = {"keys": ["ECDSA-P256"], "usages": ["digital signature", "client auth"]}
USAGES = (Usage.DIGITAL_SIGNATURE, Usage.CLIENT_AUTH)


def with_policy(spec: dict[str, Any], **policy: Any) -> dict[str, Any]:
    return {**spec, "policy": {**spec["policy"], **policy}}


ENFORCED = with_policy(with_est(csrAttributes="Enforced"), **P256_ONLY)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with running(tmp_path) as started:
        yield started


def use(server: Server, spec: dict[str, Any]) -> None:
    server.issuers.current = registry_of(manifest(spec=spec))


async def ask(server: Server, *, authorization: str | None = None, connection: Any = None, agent: str = "") -> Answer:
    headers = [("Authorization", authorization)] if authorization else []
    if agent:
        headers.append(("User-Agent", agent))
    return await server.request("GET", PATH, headers=headers, connection=connection)


def told(answer: Answer) -> Wishes:
    assert answer.status == 200, answer.body
    return csr_wishes.read(csrattrs.decode(transfer.decode_body(answer.body)))


def common_name(wishes: Wishes) -> bytes | None:
    ((component,),) = wishes.subject or ()
    assert component.type == "2.5.4.3"
    return component.value


@pytest.mark.spec("EST-ATTR-02", "EST-ATTR-03", "EST-CLI-02")
async def test_anybody_is_told_the_issuers_wishes(server: Server) -> None:
    answer = await ask(server)
    assert answer.status == 200
    assert answer.header("content-type") == "application/csrattrs"
    assert answer.body.endswith(b"\n")
    assert answer.body.count(b"\n") == 1
    assert transfer.decode_body(answer.body)[:1] == b"\x30"
    wishes = told(answer)
    assert wishes.subject is None
    assert all(extension.oid != SUBJECT_ALT_NAME for extension in wishes.extensions)


@pytest.mark.spec("EST-CLI-02")
async def test_a_user_is_told_its_own_name(server: Server) -> None:
    wishes = told(await ask(server, authorization=basic()))
    assert common_name(wishes) == b"\x0c\x08device-1"


@pytest.mark.spec("EST-CLI-02")
async def test_the_holder_of_a_certificate_is_told_what_its_rule_says(server: Server) -> None:
    wishes = told(await ask(server, connection=tls(leaf(MANUFACTURER_CA, "serial 7"))))
    assert common_name(wishes) is None


@pytest.mark.spec("EST-CLI-02")
async def test_a_certificate_that_proves_nothing_here_is_as_good_as_none(server: Server) -> None:
    stranger = leaf(signed_by=MANUFACTURER_CA)
    assert (await ask(server, connection=tls(stranger))).body == (await ask(server)).body


async def test_a_wrong_password_is_told(server: Server) -> None:
    answer = await ask(server, authorization=basic(password="wrong"))
    assert answer.status == 401
    assert answer.all("www-authenticate")


async def test_the_registration_authority_is_told_no_names(server: Server) -> None:
    token = server.reviewer.add(RA, audience="est-issuer")
    assert told(await ask(server, authorization=f"Bearer {token}")).subject is None


@pytest.mark.spec("EST-ENC-04")
async def test_libest_gets_short_lines(server: Server) -> None:
    answer = await ask(server, agent="libest 1.0")
    assert max(map(len, answer.body.splitlines())) <= 64
    assert transfer.decode_body(answer.body) == transfer.decode_body((await ask(server)).body)


@pytest.mark.spec("EST-ATTR-02")
async def test_an_issuer_without_csr_attributes_says_204_and_no_more(server: Server) -> None:
    use(server, with_est(csrAttributes="None"))
    answer = await ask(server)
    assert (answer.status, answer.body, answer.header("content-type")) == (204, b"", None)


@pytest.mark.spec("EST-ATTR-02")
async def test_an_empty_csrattrs_by_hand_says_204(server: Server) -> None:
    use(server, with_est(writtenCsrAttributes={"der": "MAA="}))
    assert (await ask(server)).status == 204


async def test_csrattrs_is_asked_for_by_get(server: Server) -> None:
    answer = await server.request("POST", PATH)
    assert answer.status == 405
    assert answer.header("allow") == "GET"


async def test_an_issuer_that_is_not_ready_tells_nothing(server: Server) -> None:
    server.issuers.current = registry_of(manifest(), secrets=())
    answer = await ask(server)
    assert answer.status == 503
    assert answer.header("retry-after") is not None


@pytest.mark.spec("EST-ATTR-06", "EST-POP-17")
async def test_required_binding_is_listed_for_everybody(server: Server) -> None:
    use(server, with_est(channelBinding="Required"))
    for authorization in (None, basic()):
        items = csrattrs.decode(transfer.decode_body((await ask(server, authorization=authorization)).body))
        assert items[:2] == (CHALLENGE_PASSWORD, EST_IDENTITY_LINKING)


@pytest.mark.spec("EST-ATTR-06")
async def test_binding_that_a_rule_requires_is_listed_for_whom_the_rule_is(server: Server) -> None:
    rules = [
        {"from": {"authentication": "basic"}, "subject": {"commonName": "{user}"}, "channelBinding": "Required"},
        *SPEC["policy"]["rules"],
    ]
    use(server, with_policy(SPEC, rules=rules))
    assert CHALLENGE_PASSWORD in told(await ask(server, authorization=basic())).supplied
    assert CHALLENGE_PASSWORD not in told(await ask(server)).supplied


@pytest.mark.spec("EST-ATTR-06")
async def test_binding_that_every_rule_requires_is_listed_for_everybody(server: Server) -> None:
    use(server, with_policy(SPEC, rules=[{**rule, "channelBinding": "Required"} for rule in SPEC["policy"]["rules"]]))
    assert CHALLENGE_PASSWORD in told(await ask(server)).supplied


@pytest.mark.spec("EST-ATTR-05")
async def test_the_one_key_that_is_permitted_is_announced(server: Server) -> None:
    use(server, with_policy(SPEC, keys=["ECDSA-P384"]))
    answer = await ask(server)
    assert "1.2.840.10045.4.3.3" in csrattrs.decode(transfer.decode_body(answer.body))
    assert str(told(answer).key) == "EC P-384"


@pytest.mark.spec("EST-POP-18")
def test_an_issuer_that_takes_one_time_passwords_lists_their_oid() -> None:
    spec = with_est(authentication=[{"oneTimePassword": {"secretName": "otp"}}])
    (issuer,) = registry_of(manifest(spec=spec)).issuers.values()
    assert issuer.spec is not None
    assert OTP_CHALLENGE in csrattrs.decode(AdviceCache().advice(issuer, issuer.spec, None).csrattrs_der)


async def test_what_was_written_by_hand_is_told_as_it_was_written(server: Server) -> None:
    published = "MDIGCSqGSIb3DQEJBzASBgcqhkjOPQIBMQcGBSuBBAAiBgcrBgEBAQEWBggqhkjOPQQDAw=="
    use(server, with_est(writtenCsrAttributes={"der": published}))
    assert (await ask(server)).body.strip() == published.encode()
    use(server, with_est(writtenCsrAttributes={"oids": ["2.5.4.5", "1.2.840.113549.1.9.20"]}))
    assert csrattrs.decode(transfer.decode_body((await ask(server)).body)) == ("2.5.4.5", "1.2.840.113549.1.9.20")


@pytest.mark.spec("EST-ATTR-06")
async def test_what_must_be_listed_is_added_to_what_was_written_by_hand(server: Server) -> None:
    use(server, with_est(writtenCsrAttributes={"oids": ["2.5.4.5"]}, channelBinding="Required"))
    items = csrattrs.decode(transfer.decode_body((await ask(server)).body))
    assert items == (CHALLENGE_PASSWORD, EST_IDENTITY_LINKING, "2.5.4.5")


@pytest.mark.spec("EST-ATTR-08", "EST-ATTR-11")
@pytest.mark.parametrize(
    ("written", "others", "said"),
    [
        ({}, {}, "exactly one of der and oids"),
        ({"der": "MAA=", "oids": ["2.5.4.5"]}, {}, "exactly one of der and oids"),
        ({"oids": ["commonName"]}, {}, "write one like 1.2.840.113549.1.9.7"),
        ({"oids": ["3.1"]}, {}, "no object identifier"),
        ({"oids": ["1.40"]}, {}, "no object identifier"),
        ({"oids": ["2.5.4.5", "2.5.4.5"]}, {}, "once is enough"),
        ({"oids": ["1.2.840.113549.1.9.14"]}, {}, "never a bare OID"),
        ({"der": "not base64"}, {}, "write the base64 of one DER CsrAttrs"),
        ({"der": "MAAA"}, {}, "do not belong to it"),
        ({"der": "MEEGCSqGSIb3DQEJBzASBgcqhkjOPQIBMQcGBSuBBAAiMBYGCSqGSIb3DQEJDjEJBgcrBgEBAQEWBggqhkjOPQQDAw=="}, {}, "extensionRequest"),
        ({"oids": ["2.5.4.5"]}, {"csrAttributes": "None"}, "leave one of the two out"),
        ({"oids": ["1.3.101.113"]}, {"csrAttributes": "Enforced"}, "Ed448 keys are never certified here"),
        ({"oids": [f"2.999.{number}" for number in range(65)]}, {}, "at most 64"),
    ],
)
def test_bad_attributes_by_hand_are_an_error_of_the_spec_that_says_what_to_write(
    written: dict[str, Any], others: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigurationError) as raised:
        issuer_spec.parse(with_est(writtenCsrAttributes=written, **others), where="EstIssuer factory")
    assert said in raised.value.message
    assert raised.value.field.startswith("spec.est")


@pytest.mark.spec("EST-ATTR-18")
async def test_an_issuer_that_enforces_refuses_a_csr_that_ignores_its_attributes(server: Server) -> None:
    use(server, ENFORCED)
    answer = await server.enroll(make_csr(None, "a.devices.example"), authorization=basic())
    assert answer.status == 400
    assert answer.text.endswith(
        "it lacks the subject's commonName (CN=device-1), the extension keyUsage with the given value,"
        " the extension extendedKeyUsage with the given value"
    )
    assert server.metric('est_refusals_total{issuer="EstIssuer/devices/factory",reason="CsrAttributesIgnored"}') == 1


@pytest.mark.spec("EST-ATTR-18")
async def test_an_issuer_that_advises_issues_all_the_same(server: Server) -> None:
    use(server, with_policy(SPEC, **P256_ONLY))
    certificate = (await server.enroll(make_csr(None, "a.devices.example"), authorization=basic())).certificate
    assert certificate.subject == name(None), "as the CSR has it, not as was advised"


@pytest.mark.spec("EST-ATTR-18")
async def test_a_csr_that_follows_is_issued(server: Server) -> None:
    use(server, ENFORCED)
    certificate = (await server.enroll(make_csr(USER, "a.devices.example", usages=USAGES), authorization=basic())).certificate
    assert certificate.subject == name(USER)


async def test_policy_has_the_first_word(server: Server) -> None:
    use(server, ENFORCED)
    answer = await server.enroll(make_csr("somebody", "a.devices.example"), authorization=basic())
    assert answer.status == 403


async def test_a_registration_authority_answers_for_what_it_sends(server: Server) -> None:
    use(server, ENFORCED)
    token = server.reviewer.add(RA, audience="est-issuer")
    certificate = (await server.enroll(make_csr(None, "a.example.com"), authorization=f"Bearer {token}")).certificate
    assert certificate.subject == name(None)


async def test_a_renewal_is_held_against_all_but_the_names(server: Server) -> None:
    key = new_key()
    use(server, SPEC)
    old = (await server.enroll(make_csr(USER, "a.devices.example", key=key, usages=USAGES), authorization=basic())).certificate
    use(server, with_policy(with_est(csrAttributes="Enforced"), **P256_ONLY, rules=[{"subject": {"commonName": "another"}}]))
    next_key = new_key()
    follows = csr_builder.build_renewal(next_key, old)
    renewed = (await server.enroll(follows, operation="simplereenroll", connection=tls(old))).certificate
    assert (renewed.subject, renewed.public_key()) == (old.subject, next_key.public_key())
    ignores = csr_builder.build(ec.generate_private_key(ec.SECP384R1()), subject=name(USER), sans=[x509.DNSName("a.devices.example")])
    answer = await server.enroll(ignores, operation="simplereenroll", connection=tls(old))
    assert answer.status == 400
    assert "it lacks a key of EC P-256, the extension keyUsage" in answer.text


@pytest.mark.spec("EST-ATTR-18")
async def test_a_full_pki_request_is_held_against_them_too(server: Server) -> None:
    key, certificate = await enrolled(server)
    use(server, ENFORCED)
    ignores = [make_csr(USER, "a.devices.example")]
    refused = await send(server, by_certificate(key, certificate, ignores))
    assert refused.answer.status == 400
    (status,) = refused.statuses
    assert (status.fail_info, status.body_parts) == (CmcFailInfo.BAD_REQUEST, ((1,),))
    assert "it lacks the extension keyUsage" in (status.text or "")
    next_key = new_key()
    follows = [make_csr(USER, "a.devices.example", key=next_key, usages=USAGES)]
    assert (await send(server, by_certificate(key, certificate, follows))).certificate_for(next_key).subject == name(USER)


@pytest.mark.spec("EST-ATTR-18")
async def test_a_registration_authority_answers_for_full_pki_requests_too(server: Server) -> None:
    authority = await make_authority(server)
    use(server, ENFORCED)
    key = new_key()
    message = authority.pass_on(vouched(make_csr(None, "a.example.com", key=key)))
    assert (await send(server, message, authorization=authority.bearer)).certificate_for(key).subject == name(None)


@pytest.mark.parametrize(("by", "refused"), [("basic", True), ("oneTimePassword", False), ("cmcSharedSecret", False)])
def test_who_is_known_by_its_request_only_is_held_against_what_anybody_is_told(by: str, refused: bool) -> None:
    spec = with_policy(with_est(csrAttributes="Enforced"), **P256_ONLY, rules=[{"subject": {"commonName": "{user}"}}, {}])
    (issuer,) = registry_of(manifest(spec=spec)).issuers.values()
    assert issuer.spec is not None
    requester = Requester(authenticated_by=AuthenticatedBy(by), identity=USER, user=USER)
    nameless = pkcs10.parse(make_csr(None, "a.devices.example", usages=USAGES))
    with pytest.raises(BadCsr, match="commonName") if refused else nullcontext():
        AdviceCache().check(issuer, issuer.spec, requester, nameless, names=True)


def test_advice_is_derived_once_for_each_that_is_told_something_else() -> None:
    advices = AdviceCache()
    rules = [{"from": {"users": ["a*"]}, "subject": {"commonName": "{user}"}}, {"dnsNames": ["*.devices.example"]}]
    spec = with_policy(SPEC, rules=rules)
    (issuer,) = registry_of(manifest(spec=spec)).issuers.values()
    (anew,) = registry_of(manifest(spec=with_policy(spec, keys=["ECDSA-P384"]))).issuers.values()
    assert issuer.spec is not None
    assert anew.spec is not None

    def of(user: str) -> CsrAdvice:
        assert issuer.spec is not None
        return advices.advice(issuer, issuer.spec, Requester(authenticated_by=AuthenticatedBy.BASIC, identity=user, user=user))

    general = advices.advice(issuer, issuer.spec, None)
    assert of("a1") is of("a1")
    assert of("a1") is not of("a2")
    assert of("b1") is of("b2")
    assert advices.advice(issuer, issuer.spec, None) is general
    assert str(advices.advice(anew, anew.spec, None).enforced.key) == "EC P-384"
    assert advices.advice(issuer, issuer.spec, None) is not general
