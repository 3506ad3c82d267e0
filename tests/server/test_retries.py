"""What the retry window is for: a request that is repeated after a lost answer gets its certificate, and any other request another one."""

from collections.abc import AsyncIterator
from dataclasses import fields, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from estcore import cert_template, crmf, csr_builder, full_request, issuer_spec, pkcs10, pki_data, profile, registration
from estcore import cmc_controls as controls
from estcore.certification_request import CertificationRequest, ChangeSubjectName, RequestForm
from estcore.cmc_controls import Control
from estcore.cms_signature import signer_of
from estcore.csr_vocabulary import CHANGE_SUBJECT_NAME
from estcore.der import SEQUENCE, tlv
from estcore.errors import CmcFailInfo
from estcore.issuer_spec import KeyAlgorithm
from estcore.keys import PrivateKey, spki_der
from estcore.requester import AuthenticatedBy, Requester
from estcore.template_modification import build_mod_cert_template
from estcore.usages import Usage
from estserver import retries, revocation
from estserver.issuers import Registry
from tests import pki
from tests.server.app_fixtures import (
    NOW,
    SECRETS,
    SPEC,
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
)
from tests.server.cmc_fixtures import by_certificate, enrolled, extension, make_authority, newcomer_csr, send, ski
from tests.server.test_full_cmc import refused

OWN_KEY = "this issuer renews no certificate with the key that it has: make a new key"


def registry(**policy: Any) -> Registry:
    return registry_of(manifest(spec={**SPEC, "policy": {**SPEC["policy"], **policy}}))


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with running(tmp_path, registry(nameChange="ByRules")) as running_server:
        yield running_server


# another request


def changing(key: PrivateKey, old: x509.Name, new: x509.Name) -> bytes:
    """A CSR with ChangeSubjectName (RFC 6402 section 2.8)."""
    value = tlv(SEQUENCE, new.public_bytes() + tlv(SEQUENCE, pki.tlv(0x82, b"a.devices.example")))
    return csr_builder.build(key, subject=old, sans=pki.dns("a.devices.example"), attributes={CHANGE_SUBJECT_NAME: value})


@pytest.mark.spec("EST-REENR-02", "THREAT-31")
async def test_another_new_subject_is_another_request(server: Server) -> None:
    _, certificate = await enrolled(server)
    new = new_key()
    certificates: list[x509.Certificate] = []
    for csr_der in (
        csr_builder.build(new, subject=certificate.subject, sans=pki.dns("a.devices.example")),
        changing(new, certificate.subject, name("device-2")),
        changing(new, certificate.subject, name("device-3")),
    ):
        answers = [await server.enroll(csr_der, operation="simplereenroll", connection=tls(certificate)) for _ in range(2)]
        assert answers[0].certificate == answers[1].certificate
        certificates.append(answers[0].certificate)
    assert [each.subject for each in certificates] == [name("device-1"), name("device-2"), name("device-3")]


def asking_for(key: PrivateKey, not_before: datetime | None, not_after: datetime | None, *said: Control) -> bytes:
    template = cert_template.build(
        subject=name("device-1"),
        spki_der=spki_der(key.public_key()),
        not_before=not_before,
        not_after=not_after,
        extensions=[extension(ski(key))],
    )
    body = full_request.body([pki_data.tagged_crmf(crmf.build(key, template, cert_req_id=1))], said)
    return full_request.sign_by_key(body, ski(key).digest, signer_of(key))


@pytest.mark.spec("EST-CMC-14", "THREAT-31")
async def test_another_life_is_another_request_and_an_end_stays_the_same_however_late_it_is_asked_for_again(server: Server) -> None:
    key = new_key()

    async def got(not_before: datetime | None, not_after: datetime | None) -> x509.Certificate:
        return (await send(server, asking_for(key, not_before, not_after), authorization=basic())).certificate_for(key)

    asked = ((None, None), (NOW, NOW + timedelta(hours=2)), (NOW, NOW + timedelta(hours=48)), (None, NOW + timedelta(hours=48)))
    first = [await got(*validity) for validity in asked]
    assert len({each.serial_number for each in first}) == len(asked)
    lives = [each.not_valid_after_utc - each.not_valid_before_utc for each in first[1:3]]
    assert lives == [timedelta(hours=2), timedelta(hours=48)]
    server.clock.advance(minutes=4)
    assert [await got(*validity) for validity in asked] == first
    other_end = await got(None, NOW + timedelta(hours=47))
    assert other_end not in first
    moved = timedelta(minutes=4)
    assert await got(NOW + moved, NOW + moved + timedelta(hours=2)) == first[1], "a life is as long whenever it begins"


@pytest.mark.spec("EST-CMC-17", "THREAT-31")
async def test_a_transaction_gets_its_certificate_for_ever_and_is_no_name_for_another_subject(server: Server) -> None:
    key, transaction = new_key(), controls.TransactionId(0x1F0C9A52)
    message = asking_for(key, None, NOW + timedelta(hours=48), transaction)
    first = (await send(server, message, authorization=basic())).certificate_for(key)
    server.clock.advance(hours=1)
    assert (await send(server, message, authorization=basic())).certificate_for(key) == first, "though an hour less is left"
    old_key, certificate = await enrolled(server)
    new = new_key()
    renamed = by_certificate(old_key, certificate, [changing(new, certificate.subject, name("device-2"))], [transaction])
    assert (await send(server, renamed)).certificate_for(new).subject == name("device-2")
    again = by_certificate(old_key, certificate, [changing(new, certificate.subject, name("device-3"))], [transaction])
    refused(await send(server, again), CmcFailInfo.BAD_REQUEST, (1,), http_status=409)
    assert (await send(server, renamed)).certificate_for(new).subject == name("device-2")


@pytest.mark.spec("EST-CMC-27", "THREAT-31")
async def test_a_registration_authority_that_asks_for_a_ca_or_another_life_asks_for_something_else(tmp_path: Path) -> None:
    big = pki.ca("Big CA", path_length=None)
    ca = secret("factory-ca", {"tls.crt": pki.pem(big.certificate), "tls.key": pki.key_pem(big.key)}, type_="kubernetes.io/tls")
    spec = {**SPEC, "policy": {**SPEC["policy"], "isCA": True}}
    async with running(tmp_path, registry_of(manifest(spec=spec), secrets=(ca, *SECRETS[1:]))) as server:
        ra, key = await make_authority(server), new_key()
        subordinate = pki.csr(key, subject=name("device-1"), extensions=[ski(key), x509.BasicConstraints(ca=True, path_length=None)])
        plain = newcomer_csr(key)
        until = cert_template.build(not_after=NOW + timedelta(hours=3))
        shorter = controls.ModCertTemplate(build_mod_cert_template(until, requests=[1]))

        async def got(csr_der: bytes, *changes: Control) -> x509.Certificate:
            body = full_request.body([pki_data.tagged_pkcs10(1, csr_der)], changes)
            return (await send(server, ra.sign(body))).certificate_for(key)

        certificates = [await got(subordinate), await got(plain), await got(plain, shorter)]
        is_ca = [each.extensions.get_extension_for_class(x509.BasicConstraints).value.ca for each in certificates]
        assert is_ca == [True, False, False]
        assert certificates[2].not_valid_after_utc == NOW - profile.BACKDATE + timedelta(hours=3)
        server.clock.advance(minutes=2)
        assert [await got(subordinate), await got(plain), await got(plain, shorter)] == certificates


# a certificate that is old


@pytest.mark.spec("EST-RESP-11", "THREAT-30", "THREAT-31")
@pytest.mark.parametrize(("life", "operation"), [("5m", "simpleenroll"), ("9m", "simplereenroll"), ("25m", "simpleenroll")])
async def test_a_device_that_renews_at_half_of_a_short_life_or_later_gets_another_certificate(
    tmp_path: Path, life: str, operation: str
) -> None:
    async with running(tmp_path, registry(duration={"default": life, "max": "1h"})) as server:
        key = new_key()
        csr_der = make_csr("device-1", key=key)
        with_what: dict[str, Any] = {"authorization": basic()} if operation == "simpleenroll" else {"connection": tls(leaf())}
        first = (await server.enroll(csr_der, operation=operation, **with_what)).certificate
        server.clock.advance(minutes=1)
        assert (await server.enroll(csr_der, operation=operation, **with_what)).certificate == first, "a lost answer"
        server.clock.now = first.not_valid_before_utc + (first.not_valid_after_utc - first.not_valid_before_utc) / 2
        second = (await server.enroll(csr_der, operation=operation, **with_what)).certificate
        assert second.not_valid_after_utc > first.not_valid_after_utc
        server.clock.now = second.not_valid_after_utc + timedelta(seconds=1)
        third = (await server.enroll(csr_der, operation=operation, **with_what)).certificate
        assert third.not_valid_after_utc > server.clock.now


@pytest.mark.spec("EST-REENR-04", "THREAT-31")
async def test_where_keys_are_not_used_again_what_is_no_retry_by_now_is_none_of_a_registration_authority_either(tmp_path: Path) -> None:
    async with running(tmp_path, registry(duration={"default": "5m", "max": "1h"}, keyReuse="Forbidden")) as server:
        await server.enroll(make_csr("device-1"), authorization=basic())
        ra = await make_authority(server)
        csr_der = make_csr("device-1")
        answers = [await server.enroll(csr_der, operation="simplereenroll", authorization=ra.bearer) for _ in range(2)]
        assert answers[0].certificate == answers[1].certificate
        server.clock.advance(minutes=2)
        late = await server.enroll(csr_der, operation="simplereenroll", authorization=ra.bearer)
        assert (late.status, late.text) == (403, OWN_KEY)


@pytest.mark.spec("EST-REENR-04", "THREAT-11")
async def test_nor_is_the_key_of_a_certificate_that_was_revoked_just_now(tmp_path: Path) -> None:
    async with running(tmp_path, registry(keyReuse="Forbidden")) as server:
        await server.enroll(make_csr("device-1"), authorization=basic())
        ra = await make_authority(server)
        csr_der = make_csr("device-1")
        first = (await server.enroll(csr_der, operation="simplereenroll", authorization=ra.bearer)).certificate
        assert await revocation.revoke(server.ledger, "EstIssuer/devices/factory", first.serial_number, reason=1, now=server.clock())
        again = await server.enroll(csr_der, operation="simplereenroll", authorization=ra.bearer)
        assert (again.status, again.text) == (403, OWN_KEY)


# the same digest means the same certificate

CSR = pkcs10.parse(make_csr("device-1", "a.devices.example", usages=[Usage.DIGITAL_SIGNATURE, Usage.CLIENT_AUTH]))
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
CHANGED = ChangeSubjectName(subject=name("device-2"), sans=CSR.sans)

CERTIFIED: dict[str, dict[str, object]] = {
    "the key": {"public_key": RSA_KEY, "spki_der": spki_der(RSA_KEY), "key_algorithm": KeyAlgorithm.RSA_2048},
    "the subject": {"subject": name("device-2"), "subject_der": name("device-2").public_bytes()},
    "the names": {"sans": tuple(pki.dns("b.devices.example"))},
    "the usages": {"usages": frozenset({Usage.DIGITAL_SIGNATURE})},
    "the policy's usages": {"usages": None},
    "a new subject": {"name_change": CHANGED},
    "new names": {"name_change": replace(CHANGED, sans=tuple(pki.dns("b.devices.example")))},
    "a life": {"duration": timedelta(hours=2)},
    "an end": {"duration": timedelta(hours=2), "ends_at": NOW + timedelta(hours=2)},
    "a CA": {"ca": True},
    "a registration authority": {"cmc_ra": True, "sans": ()},
}
"""What changes the certificate, each by another value of the fields that say it together."""

NOT_CERTIFIED: dict[str, object] = {
    "csr_der": b"\x30\x00",
    "subject_key_identifier": b"12345",
    "challenge_password": "YWJj",
    "identity_linking": "YWJj",
    "revocation_challenge": "secret",
    "smime_capabilities_der": b"\x30\x00",
    "decrypt_key_id": b"device-1",
    "asymmetric_decrypt_key_id": b"device-1",
    "pop_link_witness": b"12345",
    "pop_link_witness_v2_der": b"\x30\x00",
    "attribute_types": frozenset({b"\x06\x01\x00"}),
    "signature_algorithm_der": b"\x30\x00",
    "form": RequestForm.CRMF,
}


def planned(csr: CertificationRequest) -> tuple[profile.Plan, str]:
    """All that the signer sees of a request, and the digest by which a repeat of it is known."""
    policy = issuer_spec.parse({**SPEC, "policy": {**SPEC["policy"], "isCA": True, "nameChange": "ByRules"}}, where="factory").policy
    ra = Requester(authenticated_by=AuthenticatedBy.SERVICE_ACCOUNT_TOKEN, identity=RA, registration_authority=True)
    authorized = registration.authorize(ra, csr, policy)
    return profile.plan(authorized, policy, now=NOW, ca_certificate=BIG_CA), retries.asked_for(csr, authorized)


RA = "est-issuer/operator"
BIG_CA = pki.ca("Factory CA", path_length=None).certificate


@pytest.mark.spec("THREAT-31")
@pytest.mark.parametrize("what", CERTIFIED)
def test_what_changes_the_certificate_makes_another_request(what: str) -> None:
    (plan, asked), (other_plan, other_asked) = planned(CSR), planned(replace(CSR, **CERTIFIED[what]))  # type: ignore[arg-type]
    assert plan != other_plan, "or it is not certified"
    assert asked != other_asked


@pytest.mark.parametrize("field", NOT_CERTIFIED)
def test_what_does_not_change_the_certificate_may_be_another_in_a_retry(field: str) -> None:
    """A rebuilt CSR has another signature and another channel binding."""
    assert planned(CSR) == planned(replace(CSR, **{field: NOT_CERTIFIED[field]}))  # type: ignore[arg-type]


def test_each_field_of_a_request_is_known_to_be_certified_or_not() -> None:
    """A new one that is certified is to be in `retries.asked_for`, and here."""
    no_certificate_at_all = {"proven", "one_time_password"}  # where the one is false, or nobody took the other
    known = no_certificate_at_all.union(NOT_CERTIFIED, *CERTIFIED.values())
    assert known == {each.name for each in fields(CertificationRequest)}
