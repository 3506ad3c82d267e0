"""simplereenroll by a registration authority: what it renews for others is looked up in the ledger (RFC 7030 sections 3.7 and 4.2.2)."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from cryptography import x509

from estcore import pkcs10
from estcore.keys import PrivateKey
from estserver import renewals, revocation
from estserver.issuers import Registry
from estserver.ledger_schema import certificates
from tests import pki
from tests.server.app_fixtures import (
    RA,
    SPEC,
    Answer,
    AppConfiguration,
    Server,
    basic,
    make_csr,
    manifest,
    name,
    new_key,
    registry_of,
    running,
    tls,
    with_est,
)
from tests.server.cmc_fixtures import make_authority

Names = tuple[str | None, *tuple[str, ...]]
NAMES: Names = ("device-1", "a.devices.example", "b.devices.example")
OWN_KEY = "this issuer renews no certificate with the key that it has: make a new key"


def registry(key_reuse: str = "Allowed", **est: Any) -> Registry:
    spec = with_est(**est)
    return registry_of(manifest(spec={**spec, "policy": {**spec["policy"], "keyReuse": key_reuse}}))


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with running(tmp_path, registry()) as running_server:
        yield running_server


@pytest.fixture
async def strict(tmp_path: Path) -> AsyncIterator[Server]:
    async with running(tmp_path, registry("Forbidden")) as running_server:
        yield running_server


async def device(server: Server, key: PrivateKey | None = None) -> x509.Certificate:
    """What the device itself got, by its password."""
    return (await server.enroll(make_csr(*NAMES, key=key), authorization=basic())).certificate


async def renew(server: Server, names: Names = NAMES, *, key: PrivateKey | None = None, **others: Any) -> Answer:
    """By the token of the registration authority."""
    token = server.reviewer.add(RA, audience="est-issuer", expires=server.clock.now + timedelta(hours=1))
    csr_der = make_csr(*names, key=key)
    return await server.enroll(csr_der, operation="simplereenroll", authorization=f"Bearer {token}", **others)


def not_renewable(answer: Answer) -> None:
    assert answer.status == 403
    assert answer.text.startswith("this issuer has no certificate to renew with this subject and subjectAltName")
    assert answer.text.endswith("use simpleenroll")


@pytest.mark.spec("EST-CLI-03", "EST-REENR-02", "EST-REENR-04")
async def test_what_somebody_else_got_is_renewed_with_its_key_and_rekeyed(server: Server) -> None:
    key = new_key()
    first = await device(server, key)
    for another in (key, new_key()):
        renewed = (await renew(server, key=another)).certificate
        assert renewed.subject == first.subject
        assert renewed.public_key() == another.public_key()
    ra = await make_authority(server)
    answer = await server.enroll(make_csr(*NAMES), operation="simplereenroll", connection=tls(ra.certificate))
    assert answer.status == 200, "by its certificate, as by its token"


@pytest.mark.spec("EST-CLI-03", "EST-REENR-02")
@pytest.mark.parametrize(
    "names",
    [
        pytest.param(("device-2", *NAMES[1:]), id="another subject"),
        pytest.param((None, *NAMES[1:]), id="no subject"),
        pytest.param(NAMES[:1], id="no subjectAltName"),
        pytest.param(("device-1", "a.devices.example"), id="a name less"),
        pytest.param((*NAMES, "c.devices.example"), id="a name more"),
    ],
)
async def test_names_that_no_certificate_has_are_renewed_for_nobody(server: Server, names: Names) -> None:
    await device(server)
    server.audit_lines.clear()
    not_renewable(await renew(server, names))
    assert server.audit_lines == []


@pytest.mark.spec("EST-CLI-03", "EST-REENR-02")
async def test_another_issuers_certificate_is_none_of_this_ones(tmp_path: Path) -> None:
    other = {**SPEC, "ca": {"secretName": "other-ca"}, "est": {**SPEC["est"], "label": "other"}}
    async with running(tmp_path, registry_of(manifest(), manifest("other", other))) as server:
        await device(server)
        not_renewable(await renew(server, label="other"))


@pytest.mark.spec("EST-CLI-03", "EST-REENR-02", "THREAT-11")
async def test_what_is_revoked_is_not_renewed(server: Server) -> None:
    first = await device(server)
    assert await revocation.revoke(server.ledger, "EstIssuer/devices/factory", first.serial_number, reason=1, now=server.clock())
    not_renewable(await renew(server))
    await device(server)
    assert (await renew(server)).status == 200, "another one with these names stands"


@pytest.mark.spec("EST-CLI-03", "EST-REENR-02")
async def test_what_expired_is_renewed_for_as_long_as_its_holder_could(tmp_path: Path) -> None:
    ways = [{"certificate": {"issuedBy": "this", "expiredFor": "72h"}}, {"basic": {"secretName": "passwords"}}]
    for allowed, way in ((timedelta(hours=72), ways[:1]), (timedelta(0), [{"certificate": {"issuedBy": "this"}}])):
        folder = tmp_path / str(allowed)
        folder.mkdir()
        async with running(folder, registry(authentication=[*way, ways[1]])) as server:
            server.clock.now = (await device(server)).not_valid_after_utc + allowed + timedelta(seconds=1)
            not_renewable(await renew(server))
            server.clock.advance(seconds=-1)
            assert (await renew(server)).status == 200


@pytest.mark.spec("EST-REENR-04")
async def test_where_policy_forbids_it_no_key_of_any_certificate_of_these_names_is_used_again(strict: Server) -> None:
    key, next_key = new_key(), new_key()
    first = await device(strict, key)
    assert (await renew(strict, key=key)).text == OWN_KEY
    assert (await renew(strict, key=next_key)).status == 200
    assert await revocation.revoke(strict.ledger, "EstIssuer/devices/factory", first.serial_number, reason=1, now=strict.clock())
    assert (await renew(strict, key=key)).text == OWN_KEY, "the first one's, which is revoked"
    strict.clock.advance(hours=1)
    answer = await renew(strict, key=next_key)
    assert (answer.status, answer.text) == (403, OWN_KEY)


@pytest.mark.spec("EST-REENR-04")
async def test_a_lost_answer_is_given_again_though_its_key_has_a_certificate_by_now(strict: Server, tmp_path: Path) -> None:
    await device(strict)
    key = new_key()
    first = (await renew(strict, key=key)).certificate
    assert (await renew(strict, key=key)).certificate == first
    strict.clock.advance(minutes=10)
    assert (await renew(strict, key=key)).text == OWN_KEY, "by now it is no retry"
    (tmp_path / "off").mkdir()
    async with running(tmp_path / "off", registry("Forbidden"), configuration=AppConfiguration(retry_window=timedelta(0))) as server:
        await device(server)
        assert [(await renew(server, key=key)).status for _ in range(2)] == [200, 403]


@pytest.mark.spec("EST-REENR-02")
async def test_names_that_look_alike_where_they_are_shortened_are_not_the_same(server: Server) -> None:
    """The ledger keeps names as people read them, 256 characters at most."""
    token = f"Bearer {server.reviewer.add(RA, audience='est-issuer')}"
    alike = [pki.csr(new_key(), subject=name("a"), sans=[x509.UniformResourceIdentifier(f"urn:{'x' * 300}:{end}")]) for end in "ab"]
    assert (await server.enroll(alike[0], authorization=token)).status == 200
    not_renewable(await server.enroll(alike[1], operation="simplereenroll", authorization=token))
    assert (await server.enroll(alike[0], operation="simplereenroll", authorization=token)).status == 200


async def test_the_look_up_goes_by_an_index_that_nobody_has_who_renews_for_nobody(server: Server) -> None:
    def plan(connection: sa.Connection) -> str:
        csr = renewals._named("EstIssuer/devices/factory", pkcs10.parse(make_csr(*NAMES)))
        query = sa.select(certificates.c.der).where(csr).compile(connection, compile_kwargs={"literal_binds": True})
        return " ".join(str(row[-1]) for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}"))

    await device(server)
    assert "certificates_names" not in await server.ledger.transact(plan)
    assert (await renew(server)).status == 200
    assert "certificates_names" in await server.ledger.transact(plan)
