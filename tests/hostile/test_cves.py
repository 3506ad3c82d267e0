"""What went wrong elsewhere, tried here: each test is named after the CVE whose class of failure it shows to be absent."""

import sqlite3
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from estcore import certs_only, pkcs10, transfer, trust
from estcore.errors import BadCsr, EstError, MalformedBody, MalformedResponse
from estserver import logs
from estserver import tls as tls_module
from tests import pki
from tests.hostile.case import EST, PKCS10, site
from tests.hostile.csr_names import DNS, URI, san
from tests.server.app_fixtures import FACTORY_CA, NOW, OTHER_CA, Server, basic, leaf, make_csr, new_key, tls
from tests.server.transport_fixtures import Client, Closed, Recorder, running

DAY = timedelta(days=1)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with site(tmp_path) as running_server:
        yield running_server
        with sqlite3.connect(tmp_path / "ledger.sqlite") as ledger:
            found = ledger.execute("SELECT authenticated_by, subject FROM certificates").fetchall()
        assert {tuple(row) for row in found} <= {("basic", "CN=device-1")}, "nobody else got a certificate"


# ---- authorization that a shape of request went around


@pytest.mark.spec("THREAT-09")
async def test_cve_2025_44005_an_operation_or_method_that_nobody_handles_is_authorized_by_nobody(server: Server) -> None:
    """step-ca, CVSS 10: a provisioner's message type that was parsed and not handled went on to be signed."""
    body = transfer.encode_body(make_csr())
    for method, operation, statuses in [
        ("HEAD", "simpleenroll", {405}),
        ("PUT", "simpleenroll", {405}),
        ("POST", "simplereenroll", {403}),
        ("POST", "simpleenroll/x", {404}),
        ("POST", "nothing", {404}),
    ]:
        answer = await server.request(method, f"{EST}/factory/{operation}", headers=[PKCS10], body=body)
        assert answer.status in statuses, operation


@pytest.mark.spec("THREAT-09", "THREAT-07")
async def test_cve_2026_30836_a_message_of_another_type_is_not_taken_for_a_request(server: Server) -> None:
    """step-ca, CVSS 10: a SCEP message type nobody had thought of was enrolled without authentication."""
    for content_type in ("application/pkcs7-mime; smime-type=CMC-request", "application/x-pki-message", "application/pkixcmp", ""):
        answer = await server.request(
            "POST", f"{EST}/factory/simpleenroll", headers=[("Content-Type", content_type)], body=transfer.encode_body(make_csr())
        )
        assert answer.status == 415


@pytest.mark.spec("THREAT-11")
async def test_cve_2020_28942_the_restriction_to_one_ca_holds_at_every_operation(server: Server) -> None:
    """EJBCA: EST did not apply the restriction to a CA that CMP did."""
    device = tls(leaf())
    assert (await server.enroll(make_csr(), operation="simplereenroll", label="other", connection=device)).status == 403
    assert (await server.enroll(make_csr(), operation="simpleenroll", label="other", connection=device)).status == 401


@pytest.mark.spec("THREAT-03", "EST-CLI-06")
async def test_cve_2022_34831_every_name_of_the_csr_is_judged_and_not_the_subject_alone(server: Server) -> None:
    """EJBCA: names in a CSR that no validator looked at were issued."""
    for name in (pki.tlv(DNS, b"evil.example"), pki.tlv(URI, b"spiffe://evil.example/a"), pki.tlv(0x81, b"root@evil.example")):
        answer = await server.enroll(san(pki.tlv(DNS, b"a.devices.example"), name), authorization=basic())
        assert answer.status == 403


@pytest.mark.spec("THREAT-10", "EST-CLI-06")
async def test_cve_2022_2393_an_authenticated_user_gets_no_certificate_for_another_user(server: Server) -> None:
    """Dogtag: whoever was authenticated could enrol for another user's identity."""
    assert (await server.enroll(make_csr("device-2"), authorization=basic())).status == 403
    assert (await server.enroll(make_csr("device-2"), operation="simplereenroll", connection=tls(leaf()))).status == 403
    assert (await server.enroll(make_csr("device-1"), authorization=basic())).status == 200


@pytest.mark.spec("THREAT-05")
async def test_cve_2021_27098_a_spiffe_id_is_permitted_whole_or_not_at_all(server: Server) -> None:
    """SPIRE: an agent obtained a SPIFFE ID that its registration did not permit."""
    for uri in (b"spiffe://evil.example/device/device-1", b"spiffe://factory.example/device/device-2", b"spiffe://factory.example"):
        assert (await server.enroll(san(pki.tlv(URI, uri)), authorization=basic())).status == 403


@pytest.mark.spec("THREAT-05")
async def test_cve_2024_45341_a_uri_with_a_zone_identifier_is_refused(server: Server) -> None:
    """Go: a URI with an IPv6 zone escaped the name constraints."""
    assert (await server.enroll(san(pki.tlv(URI, b"https://[fe80::1%25eth0]/")), authorization=basic())).status == 400


@pytest.mark.spec("THREAT-20", "THREAT-09")
async def test_cve_2026_48710_a_malformed_host_changes_no_path(server: Server) -> None:
    """Starlette, "BadHost": the Host header became part of the path by which authorization decided."""
    for host in ("a/.well-known/est/cacerts?", "a/.well-known/est/cacerts#", "a@b/../cacerts", "", "[::1"):
        answer = await server.enroll(make_csr(), headers=[("Host", host)])
        assert answer.status == 401


@pytest.mark.spec("THREAT-09")
async def test_cve_2026_54282_a_path_is_taken_to_the_octet(server: Server) -> None:
    """Starlette: a path that was not validated reached a route."""
    for path in (f"{EST}/factory/simpleenroll\x00", f"{EST}/factory/\\simpleenroll", f"{EST}/factory/simpleenroll\n", "simpleenroll"):
        assert (await server.request("POST", path, headers=[PKCS10, ("Authorization", basic())])).status == 404


@pytest.mark.spec("THREAT-08")
async def test_cve_2026_54283_no_form_is_parsed(server: Server) -> None:
    """Starlette: the limits of form parsing could be gone around."""
    body = b"".join(b'--b\r\nContent-Disposition: form-data; name="f%d"\r\n\r\n\r\n' % number for number in range(1000)) + b"--b--\r\n"
    for content_type in ("multipart/form-data; boundary=b", "application/x-www-form-urlencoded"):
        answer = await server.request(
            "POST", f"{EST}/factory/simpleenroll", headers=[("Content-Type", content_type), ("Authorization", basic())], body=body[:60_000]
        )
        assert answer.status == 415


@pytest.mark.spec("THREAT-19")
async def test_cve_2025_62727_range_means_nothing(server: Server) -> None:
    """Starlette: a Range header of many parts took quadratic time."""
    answer = await server.request("GET", f"{EST}/cacerts", headers=[("Range", "bytes=" + ",".join("0-1" for _ in range(3000)))])
    assert answer.status == 200
    assert answer.body == (await server.request("GET", f"{EST}/cacerts")).body


# ---- certificates and keys


@pytest.mark.spec("THREAT-12")
async def test_cve_2024_2048_a_certificate_is_not_believed_for_the_name_of_its_issuer(server: Server) -> None:
    """Vault: a certificate that names a trusted one as its issuer was believed though another key had signed it."""
    for forged in (leaf(FACTORY_CA, signed_by=OTHER_CA), pki.leaf(pki.ca("Factory CA"), subject=pki.name("device-1"))):
        assert (await server.enroll(make_csr(), operation="simplereenroll", connection=tls(forged))).status == 403
        assert (await server.enroll(make_csr(), connection=tls(forged))).status == 401


@pytest.mark.spec("THREAT-12")
async def test_cve_2025_6037_a_certificate_that_is_no_ca_makes_nobody_a_client(server: Server) -> None:
    """Vault: a trusted certificate that is no CA let its holder craft further identities."""
    key = new_key()
    device = leaf(key=key)
    signer = pki.Ca(certificate=device, key=key)
    crafted = pki.leaf(signer, subject=pki.name("device-1"), not_before=NOW - DAY, not_after=NOW + DAY)
    connection = tls(crafted, device)
    assert (await server.enroll(make_csr(), operation="simplereenroll", connection=connection)).status == 403
    assert (await server.enroll(make_csr(), connection=connection)).status == 401


@pytest.mark.spec("THREAT-11")
async def test_cve_2022_41316_a_revoked_certificate_authenticates_nobody(server: Server, tmp_path: Path) -> None:
    """Vault: revocation was not looked at until somebody loaded the list."""
    first = (await server.enroll(make_csr(), authorization=basic())).certificate
    with sqlite3.connect(tmp_path / "ledger.sqlite") as ledger:
        ledger.execute("UPDATE certificates SET state = 'revoked'")
    await server.ledger.refresh_revoked()
    assert (await server.enroll(make_csr(), operation="simplereenroll", connection=tls(first))).status == 403


@pytest.mark.spec("THREAT-26", "THREAT-09")
async def test_cve_2023_0665_issuers_cannot_be_changed_over_http(server: Server) -> None:
    """Vault: whoever was authenticated could remove or change a PKI issuer."""
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        for path in ("/est-issuer/v1/issuers", f"{EST}/factory/cacerts"):
            assert (await server.request(method, path, headers=[("Authorization", basic())])).status == 405


@pytest.mark.spec("THREAT-02", "THREAT-08")
async def test_cve_2026_40097_an_empty_extended_key_usage_is_refused(server: Server) -> None:
    """step-ca: it panicked."""
    empty = pki.raw_csr(pki.extension_request(pki.extension("2.5.29.37", pki.sequence())))
    assert (await server.enroll(empty, authorization=basic())).status == 400
    client = pki.leaf(
        pki.ca(),
        ekus=(),
        extensions=[(x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.37"), b"\x30\x00"), False)],
    )
    assert (await server.enroll(make_csr(), connection=tls(client))).status == 401


@pytest.mark.spec("THREAT-06")
def test_cve_2026_26007_a_curve_of_the_sect_family_never_becomes_a_key() -> None:
    """pyca: points of small subgroups were accepted on SECT curves."""
    spki = pki.sequence(pki.sequence(pki.oid("1.2.840.10045.2.1"), pki.oid("1.3.132.0.1")), pki.tlv(0x03, b"\x00\x04", bytes(42)))
    with pytest.raises(BadCsr) as refused:
        pkcs10.parse(pki.raw_csr(spki=spki))
    assert refused.value.reason == "KeyNotAllowed"


@pytest.mark.spec("THREAT-06")
def test_cve_2020_0601_explicit_curve_parameters_never_become_a_key() -> None:
    """Windows, "Curveball": a curve with a generator of the attacker's choice had the CA's own public key."""
    parameters = pki.sequence(b"\x02\x01\x01", pki.sequence(pki.oid("1.2.840.10045.1.1"), pki.tlv(0x02, b"\x00" + b"\xff" * 32)))
    spki = pki.sequence(pki.sequence(pki.oid("1.2.840.10045.2.1"), parameters), pki.tlv(0x03, b"\x00\x04", bytes(64)))
    with pytest.raises(BadCsr) as refused:
        pkcs10.parse(pki.raw_csr(spki=spki))
    assert refused.value.reason == "KeyNotAllowed"


@pytest.mark.spec("THREAT-07")
def test_cve_2022_21449_a_signature_of_zeros_proves_nothing() -> None:
    """Java, "psychic signatures": r = s = 0 verified for every key."""
    with pytest.raises(BadCsr) as refused:
        pkcs10.parse(pki.raw_csr(signature=pki.sequence(b"\x02\x01\x00", b"\x02\x01\x00")))
    assert refused.value.reason == "BadSignature"


@pytest.mark.spec("THREAT-12")
def test_cve_2026_34073_name_constraints_of_an_intermediate_are_kept() -> None:
    """pyca: names escaped the constraints of the path."""
    root = pki.ca("Root")
    constraints = x509.NameConstraints(permitted_subtrees=[x509.DNSName("inside.example")], excluded_subtrees=None)
    intermediate = pki.ca("Constrained", issuer=root, extensions=[(constraints, True)])
    inside, outside, wildcard = (
        pki.leaf(intermediate, sans=pki.dns(name)) for name in ("a.inside.example", "a.outside.example", "*.outside.example")
    )
    trust.verify_under_anchors(inside, [intermediate.certificate], [root.certificate], now=pki.EPOCH)
    for certificate in (outside, wildcard):
        with pytest.raises(trust.Untrusted):
            trust.verify_under_anchors(certificate, [intermediate.certificate], [root.certificate], now=pki.EPOCH)


@pytest.mark.spec("THREAT-08")
def test_cve_2023_49083_a_certs_only_message_without_certificates_is_an_error() -> None:
    """pyca: a PKCS#7 without a certificate dereferenced a null pointer."""
    for inner in (b"", pki.tlv(0xA0), pki.tlv(0xA0, b"\x05\x00")):
        signed = pki.sequence(b"\x02\x01\x01", b"\x31\x00", pki.sequence(pki.oid("1.2.840.113549.1.7.1")), inner, b"\x31\x00")
        message = pki.sequence(pki.oid("1.2.840.113549.1.7.2"), pki.tlv(0xA0, signed))
        with pytest.raises((MalformedBody, MalformedResponse)):
            certs_only.decode(message)


# ---- passwords


@pytest.mark.spec("THREAT-14")
async def test_cve_2025_54999_who_exists_is_told_by_nothing_in_the_answer(server: Server) -> None:
    """OpenBao: the time that an answer took told which users exist. (Times: tests/server/test_passwords.py.)"""
    known = await server.enroll(make_csr(), authorization=basic("device-1", "wrong"))
    unknown = await server.enroll(make_csr(), authorization=basic("device-9", "wrong"))
    assert known == unknown


@pytest.mark.spec("THREAT-14")
async def test_cve_2025_54998_another_spelling_of_a_user_is_another_user_and_no_way_around_the_brake(server: Server) -> None:
    """OpenBao: the lock-out was gone around by the case of the user's name."""
    for _ in range(10):
        await server.enroll(make_csr(), authorization=basic(password="wrong"), source="198.51.100.1")
    for spelling in ("DEVICE-1", "Device-1", "device-1 ", " device-1", "device\u20101"):
        answer = await server.enroll(make_csr(), authorization=basic(spelling), source="198.51.100.2")
        assert answer.status == 401, "not this user, whatever the password"
    assert (await server.enroll(make_csr(), authorization=basic(), source="198.51.100.3")).status == 503


# ---- transport, logs


@pytest.mark.spec("THREAT-36")
@pytest.mark.parametrize("hostile", ["\x1b]0;owned\x07", "\x1b[2J\x1b[31m", "a\r\nb: c"])
def test_cve_2020_7694_no_control_character_reaches_a_log_line(hostile: str) -> None:
    """uvicorn: ANSI sequences of a request path were written to the terminal."""
    for log_format in ("json", "keyvalue"):
        assert logs.renderer(log_format)({"event": "refused", "path": logs.clean(hostile)}).decode().isprintable()


@pytest.mark.spec("THREAT-20")
async def test_cve_2020_7695_nothing_of_a_request_becomes_a_header(server: Server) -> None:
    """uvicorn: CR and LF of a request could end up in the answer's headers."""
    for path in (f"{EST}/fac\r\nSet-Cookie: a=b/cacerts", f"{EST}/%0d%0aSet-Cookie:%20a=b/cacerts"):
        answer = await server.request("GET", path, headers=[("X-Request-Id", "a\r\nSet-Cookie: a=b")])
        assert {name for name, _ in answer.headers} == {"content-type", "content-length"}
        assert all(value.isprintable() for _, value in answer.headers)


@pytest.mark.spec("THREAT-16")
def test_cve_2026_27448_a_callback_of_the_handshake_that_fails_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """pyOpenSSL: an exception in the SNI callback let the handshake go on, without what the callback was to set."""

    def _fail(connection: object) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(tls_module, "_send_no_tickets", _fail)
    with running(Recorder()) as transport, Client(transport) as client, pytest.raises(Closed):
        client.handshake().get()


@pytest.mark.spec("THREAT-04")
async def test_cve_2026_40475_a_nul_ends_no_name(server: Server) -> None:
    """pyOpenSSL: names were cut at a NUL."""
    hidden = [
        pki.raw_csr(subject_der=pki.sequence(pki.rdn("2.5.4.3", b"device-1\x00.evil.example"))),
        san(pki.tlv(DNS, b"a.devices.example\x00.evil.example")),
        san(pki.tlv(DNS, b"evil.example\x00.devices.example")),
    ]
    for csr_der in hidden:
        assert (await server.enroll(csr_der, authorization=basic())).status == 400


@pytest.mark.spec("THREAT-08")
def test_the_csr_on_which_cryptography_46_raised_a_key_error_is_an_est_error() -> None:
    """A subject attribute with string type 13 (RELATIVE-OID): `csr.subject` raised KeyError."""
    for string_type in (0x0D, 0x0E, 0x23, 0x24, 0x1D, 0x1F):
        with pytest.raises(EstError):
            pkcs10.parse(pki.raw_csr(subject_der=pki.sequence(pki.rdn("2.5.4.3", b"a", string_type))))
