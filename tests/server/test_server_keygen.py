"""RFC 7030 section 4.4: keys that the server makes. Who gets one, what the answer is, and that no key is anywhere else."""

import asyncio
import base64
import io
import json
import logging
import sqlite3
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from estcore import auth_enveloped_data, csr_builder, der, enveloped_data, key_package, multipart, server_key, transfer
from estcore.csr_vocabulary import DECRYPT_KEY_ID, SMIME_CAPABILITIES
from estcore.errors import Busy
from estcore.exchange import HttpResponse
from estcore.issuer_spec import KeyAlgorithm
from estcore.keys import PrivateKey
from estcore.recipient_info import DecryptionKey, KeyEncryptionKey, RecipientKey, identifiers_of
from estcore.server_key import ServerGeneratedKey
from estcore.usages import Usage
from estserver.held_requests import HeldRequests, State
from estserver.key_generator import THREADS, WAITING, KeyGenerator
from estserver.snapshot import SecretManifest
from tests import pki
from tests.collect import collect
from tests.core import vectors
from tests.server.app_fixtures import (
    FACTORY_CA,
    NOW,
    SECRETS,
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

ISSUER = "EstIssuer/devices/factory"
DNS = "a.devices.example"
CA = x509.load_pem_x509_certificate(FACTORY_CA.data["tls.crt"])
RECIPIENTS_CA = pki.ca("Recipients' CA")

KEK = KeyEncryptionKey(key=bytes(range(32)), key_identifier=b"device-1")


def recipient(private_key: PrivateKey, *usage: str) -> tuple[RecipientKey, bytes]:
    """A private key that keys are encrypted for, and its certificate in PEM."""
    assert isinstance(private_key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey)
    certificate = pki.leaf(RECIPIENTS_CA, public_key=private_key.public_key(), usage=pki.key_usage(*usage), ekus=())
    return RecipientKey(private_key=private_key, identifiers=identifiers_of(certificate)), pki.pem(certificate)


RSA_KEY, RSA_PEM = recipient(pki.key(KeyAlgorithm.RSA_2048, "recipient"), "key_encipherment")
EC_KEY, EC_PEM = recipient(pki.key(KeyAlgorithm.ECDSA_P256, "recipient"), "key_agreement")
P384_KEY, P384_PEM = recipient(pki.key(KeyAlgorithm.ECDSA_P384, "recipient"), "key_agreement")
SIGNER_KEY, SIGNER_PEM = recipient(pki.key(KeyAlgorithm.ECDSA_P256, "signer"), "digital_signature")
DECRYPTION_KEYS: dict[str, DecryptionKey] = {"kekri": KEK, "ktri": RSA_KEY, "kari": EC_KEY, "kari P-384": P384_KEY}

WRAPPING = secret(
    "wrapping",
    {"device-1.key": KEK.key.hex().encode(), "rsa.pem": RSA_PEM, "ec.pem": EC_PEM, "p384.pem": P384_PEM, "signer.pem": SIGNER_PEM},
)


def keygen_spec(encryption: str = "Optional", **more: Any) -> dict[str, Any]:
    return with_est(serverKeyGeneration={"enabled": True, "encryption": encryption, "wrappingKeys": {"secretName": "wrapping"}, **more})


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    """`factory` sends plain keys too, `strict` encrypted ones only, `off` none."""
    manifests = (
        manifest(spec=keygen_spec()),
        manifest("strict", {**keygen_spec("Required"), "est": {**keygen_spec("Required")["est"], "label": "strict"}}),
        manifest("off", with_est(label="off")),
    )
    registry = registry_of(*manifests, secrets=(*SECRETS, WRAPPING))
    async with running(tmp_path, registry) as running_server:
        yield running_server


def csr_for(key: DecryptionKey | None, common_name: str = "device-1", *dns_names: str) -> bytes:
    return csr_with(server_key.attributes_for(key) if key is not None else {}, common_name, *dns_names)


def csr_with(attributes: Mapping[str, bytes], common_name: str = "device-1", *dns_names: str) -> bytes:
    sans = [x509.DNSName(dns_name) for dns_name in dns_names or (DNS,)]
    return csr_builder.build(new_key(), subject=name(common_name), sans=sans, attributes=attributes)


async def ask(server: Server, csr_der: bytes, *, label: str = "factory", **options: Any) -> Answer:
    options = {"authorization": basic()} | options
    return await server.enroll(csr_der, operation="serverkeygen", label=label, **options)


def read(answer: Answer, key: DecryptionKey | None = None) -> ServerGeneratedKey:
    """As a client reads it."""
    response = HttpResponse(status=answer.status, headers=dict(answer.headers), body=answer.body)
    generated = server_key.read_answer(response, decryption_key=key, ca_certificates=[CA], now=NOW)
    collect(pki.der(generated.certificate), pki.der(CA))
    return generated


def refused(server: Server, answer: Answer, status: int = 400) -> str:
    """The text of a refusal: nothing was issued, and there is no multipart."""
    assert answer.status == status
    assert "multipart" not in (answer.header("content-type") or "")
    assert server.audit_lines == []
    return answer.text


# ---- who is served


@pytest.mark.spec("EST-SKG-01", "EST-SKG-17", "EST-URI-02")
async def test_it_is_off_by_default_and_says_so(server: Server) -> None:
    text = refused(server, await ask(server, csr_for(None), label="off"), 404)
    assert "makes no keys" in text


@pytest.mark.spec("EST-SKG-01", "EST-URI-03")
async def test_it_takes_the_same_body_and_media_type_as_simpleenroll(server: Server) -> None:
    path = "/.well-known/est/factory/serverkeygen"
    body = transfer.encode_body(csr_for(None))
    answer = await server.request("POST", path, headers=[("Authorization", basic()), ("Content-Type", "text/plain")], body=body)
    refused(server, answer, 415)
    answer = await server.request("GET", path, headers=[("Authorization", basic())])
    assert answer.header("allow") == "POST"
    refused(server, answer, 405)
    for garbage in (b"", b"!!!", body[:-9], transfer.encode_body(b"\x30\x00")):
        headers = [("Authorization", basic()), ("Content-Type", "application/pkcs10")]
        refused(server, await server.request("POST", path, headers=headers, body=garbage))


@pytest.mark.spec("EST-SKG-02", "EST-CLI-01")
async def test_nobody_gets_a_key_without_authentication(server: Server) -> None:
    refused(server, await ask(server, csr_for(None), authorization=None), 401)
    refused(server, await ask(server, csr_for(None), authorization=basic(password="wrong")), 401)


@pytest.mark.spec("EST-SKG-02", "EST-SKG-03")
async def test_policy_and_channel_binding_hold_as_for_simpleenroll(server: Server) -> None:
    assert "elsewhere.example" in refused(server, await ask(server, make_csr("device-1", "elsewhere.example")), 403)
    refused(server, await ask(server, make_csr("another")), 403)
    foreign = make_csr("device-1", DNS, channel_binding=b"x" * 32)
    assert "challengePassword" in refused(server, await ask(server, foreign, connection=tls(binding=b"y" * 32)))
    bound = make_csr("device-1", DNS, channel_binding=b"x" * 32)
    assert (await ask(server, bound, connection=tls(binding=b"x" * 32))).status == 200


@pytest.mark.spec("EST-SKG-02")
async def test_required_channel_binding_is_required_here_too(tmp_path: Path) -> None:
    spec = keygen_spec()
    registry = registry_of(manifest(spec={**spec, "est": {**spec["est"], "channelBinding": "Required"}}), secrets=(*SECRETS, WRAPPING))
    async with running(tmp_path, registry) as server:
        assert "required" in refused(server, await ask(server, csr_for(None)))


# ---- what the answer is


@pytest.mark.spec("EST-SKG-01", "EST-SKG-03", "EST-SKG-09", "EST-SKG-10", "EST-SKG-15", "THREAT-18")
async def test_a_plain_key_is_pkcs8_beside_its_certificate(server: Server) -> None:
    own = new_key()
    answer = await ask(server, make_csr("device-1", DNS, key=own))
    assert answer.status == 200
    assert answer.header("cache-control") == "no-store"
    content_type = answer.header("content-type")
    assert content_type is not None
    key_part, certificate_part = multipart.decode(content_type, answer.body)
    assert key_part.content_type == "application/pkcs8"
    assert key_part.der[:4] == b"\x30\x81" + key_part.der[2:4]
    assert certificate_part.content_type == "application/pkcs7-mime; smime-type=certs-only"
    generated = read(answer)
    assert generated.certificate.public_key() == generated.private_key.public_key() != own.public_key()
    assert generated.certificate.subject == name("device-1")
    sans = generated.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert sans.get_values_for_type(x509.DNSName) == [DNS]
    before, after = server.audit_events
    assert (before["operation"], after["result"]) == ("serverkeygen", "issued")


@pytest.mark.spec("EST-SKG-03")
async def test_the_key_and_the_signature_of_the_csr_mean_nothing(server: Server) -> None:
    csr_der = bytearray(csr_for(None))
    csr_der[-1] ^= 1
    generated = read(await ask(server, bytes(csr_der)))
    assert generated.certificate.subject == name("device-1")
    simple = await server.enroll(bytes(csr_der), authorization=basic())
    assert simple.status == 400


@pytest.mark.spec("EST-SKG-03", "EST-SKG-01")
async def test_the_published_request_gets_a_key_though_it_is_signed_with_sha_1(tmp_path: Path) -> None:
    spec = keygen_spec()
    rules = [{"from": {"authentication": "basic"}, "subject": {"commonName": "*", "serialNumber": "*"}}]
    registry = registry_of(manifest(spec={**spec, "policy": {"rules": rules}}), secrets=(*SECRETS, WRAPPING))
    async with running(tmp_path, registry) as server:
        # Its challengePassword is the tls-unique of the connection that it went over in 2013.
        binding = base64.b64decode("dFsAXmJnjokBtDvr")
        csr_der = transfer.decode_body(vectors.body("rfc7030-a4-serverkeygen-request"))
        generated = read(await ask(server, csr_der, connection=tls(binding=binding, version="TLSv1.2")))
        assert generated.certificate.subject.rfc4514_string() == (
            "2.5.4.5=PID:Widget SN:10,CN=serverKeyGen req by client in demo step 12 1368141955"
        )


@pytest.mark.spec("EST-SKG-08", "EST-SKG-11", "EST-SKG-12", "EST-SKG-13", "EST-SKG-14", "EST-SKG-15")
@pytest.mark.parametrize("label", ["factory", "strict"])
@pytest.mark.parametrize("key", DECRYPTION_KEYS.values(), ids=DECRYPTION_KEYS)
async def test_an_encrypted_key_is_for_the_key_that_the_csr_names(server: Server, key: DecryptionKey, label: str) -> None:
    for ciphers, decrypt in ((CBC_FIRST, enveloped_data.decrypt), (GCM_FIRST, auth_enveloped_data.decrypt)):
        attributes = server_key.attributes_for(key)
        attributes = {**attributes, SMIME_CAPABILITIES: with_ciphers(attributes[SMIME_CAPABILITIES], ciphers)}
        answer = await ask(server, csr_with(attributes), label=label)
        content_type = answer.header("content-type")
        assert content_type is not None
        key_part, _ = multipart.decode(content_type, answer.body)
        assert key_part.content_type == "application/pkcs7-mime; smime-type=server-generated-key"
        content_type, content = decrypt(key_part.der, [key])
        assert content_type == "1.2.840.113549.1.7.2", "a bare SignedData"
        (private_key,) = key_package.open_signed(content_type, content, ca_certificates=[CA], now=NOW)
        generated = read(answer, key)
        assert generated.certificate.public_key() == private_key.public_key()


GCM_FIRST = (auth_enveloped_data.AES_GCM_OIDS[32], enveloped_data.AES_CBC_OIDS[32])
CBC_FIRST = GCM_FIRST[::-1]
ALL_CIPHERS = {*auth_enveloped_data.AES_GCM_OIDS.values(), *enveloped_data.AES_CBC_OIDS.values()}


def with_ciphers(capabilities_der: bytes, ciphers: Sequence[str]) -> bytes:
    """The SMIMECapabilities of the client with these content ciphers instead of its own."""
    other = [
        each for each in der.children(capabilities_der, der.SEQUENCE, what="it") if not any(pki.oid(oid) in each for oid in ALL_CIPHERS)
    ]
    return pki.sequence(*other, *(pki.sequence(pki.oid(oid)) for oid in ciphers))


@pytest.mark.spec("EST-SKG-08", "THREAT-18")
async def test_no_two_keys_and_no_two_content_keys_are_alike(server: Server) -> None:
    parts = set()
    for number in range(5):
        answer = await ask(server, csr_for(KEK, "device-1", f"{number}.devices.example"))
        parts.add(multipart.decode(str(answer.header("content-type")), answer.body)[0].der)
    assert len(parts) == 5
    assert len({der[-16:] for der in parts}) == 5


# ---- encryption or nothing


@pytest.mark.spec("EST-SKG-07", "EST-SKG-17")
async def test_a_plain_request_is_refused_where_encryption_is_required(server: Server) -> None:
    assert "encrypted only" in refused(server, await ask(server, csr_for(None), label="strict"))


@pytest.mark.spec("EST-SKG-05", "EST-SKG-06", "EST-SKG-17")
@pytest.mark.parametrize("label", ["factory", "strict"])
@pytest.mark.parametrize(
    "key",
    [
        KeyEncryptionKey(key=bytes(32), key_identifier=b"device-2"),
        recipient(pki.key(KeyAlgorithm.ECDSA_P256, "nobody knows"), "key_agreement")[0],
    ],
    ids=["symmetric", "asymmetric"],
)
async def test_an_unknown_key_is_an_error_and_never_a_plain_key(server: Server, key: DecryptionKey, label: str) -> None:
    assert "has no key by the identifier" in refused(server, await ask(server, csr_for(key), label=label))


@pytest.mark.spec("EST-SKG-06")
async def test_a_certificate_that_may_only_sign_is_refused(server: Server) -> None:
    assert "keyUsage" in refused(server, await ask(server, csr_for(SIGNER_KEY)))


@pytest.mark.spec("EST-SKG-08")
async def test_capabilities_without_the_fitting_algorithm_are_refused(server: Server) -> None:
    attributes: Mapping[str, bytes] = {
        DECRYPT_KEY_ID: pki.tlv(0x04, b"device-1"),
        SMIME_CAPABILITIES: pki.sequence(pki.sequence(pki.oid("2.16.840.1.101.3.4.1.5"))),
    }
    assert "do not list it" in refused(server, await ask(server, csr_with(attributes)))


async def test_an_issuer_without_wrapping_keys_encrypts_for_nobody(tmp_path: Path) -> None:
    spec = with_est(serverKeyGeneration={"enabled": True, "encryption": "Optional"})
    async with running(tmp_path, registry_of(manifest(spec=spec))) as server:
        assert "has no key by the identifier" in refused(server, await ask(server, csr_for(KEK)))
        assert read(await ask(server, csr_for(None))).certificate.subject == name("device-1")


# ---- the key


@pytest.mark.parametrize("algorithm", pki.ONE_OF_EACH_KIND)
async def test_the_key_is_of_the_algorithm_that_the_issuer_names(tmp_path: Path, algorithm: KeyAlgorithm) -> None:
    spec = keygen_spec(keyAlgorithm=algorithm.value)
    spec = {**spec, "policy": {**spec["policy"], "keys": [algorithm.value]}}
    registry = registry_of(manifest(spec=spec), secrets=(*SECRETS, WRAPPING))
    async with running(tmp_path, registry) as server:
        generated = read(await ask(server, csr_for(KEK)), KEK)
        assert generated.certificate.public_key() == generated.private_key.public_key()
        size = {"ECDSA-P256": 256, "ECDSA-P384": 384, "ECDSA-P521": 521, "RSA-2048": 2048}.get(algorithm.value)
        assert getattr(generated.private_key, "key_size", None) == size


async def test_an_rsa_key_is_made_off_the_event_loop() -> None:
    generator = KeyGenerator()
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    turning = asyncio.create_task(turn())
    key = await generator.generate(KeyAlgorithm.RSA_2048)
    turning.cancel()
    generator.close()
    assert isinstance(key, rsa.RSAPrivateKey)
    assert turns > 10


async def test_a_full_line_of_rsa_keys_is_busy_and_its_place_comes_free_again_though_a_client_goes_away() -> None:
    generator = KeyGenerator(threads=1, waiting=1)
    first, second = (asyncio.create_task(generator.generate(KeyAlgorithm.RSA_2048)) for _ in range(2))
    await asyncio.sleep(0)
    with pytest.raises(Busy):
        await generator.generate(KeyAlgorithm.RSA_2048)
    with pytest.raises(Busy):
        generator.check_room(KeyAlgorithm.RSA_3072)
    assert isinstance(await generator.generate(KeyAlgorithm.ECDSA_P256), ec.EllipticCurvePrivateKey), "an EC key needs no thread"
    second.cancel()
    await first
    while True:  # the second one's place comes free as soon as its thread is done, if it began
        try:
            generator.check_room(KeyAlgorithm.RSA_2048)
            break
        except Busy:
            await asyncio.sleep(0)
    generator.close()


async def test_a_busy_generator_is_503_before_anything_is_signed(tmp_path: Path) -> None:
    registry = registry_of(manifest(spec=keygen_spec(keyAlgorithm="RSA-2048")), secrets=(*SECRETS, WRAPPING))
    async with running(tmp_path, registry) as server:
        generator = server.app.router.routes[0]._service.key_generator  # type: ignore[attr-defined]  # the one route
        others = [asyncio.create_task(generator.generate(KeyAlgorithm.RSA_2048)) for _ in range(THREADS + WAITING)]
        await asyncio.sleep(0)
        answer = await ask(server, csr_for(KEK))
        assert answer.header("retry-after")
        assert "too many keys" in refused(server, answer, 503)
        for other in others:
            other.cancel()
        await asyncio.wait(others)


# ---- repeats


async def revoked(server: Server, *generated: ServerGeneratedKey) -> list[bool]:
    await server.ledger.refresh_revoked()
    return [server.ledger.is_revoked(ISSUER, each.certificate.serial_number) for each in generated]


async def test_a_retry_gets_another_key_and_the_first_certificate_is_revoked(server: Server) -> None:
    csr_der = csr_for(None)
    first = read(await ask(server, csr_der))
    second = read(await ask(server, csr_der))
    third = read(await ask(server, csr_for(KEK)), KEK)
    assert len({each.certificate.serial_number for each in (first, second, third)}) == 3
    assert first.private_key.public_key() != second.private_key.public_key()
    assert await revoked(server, first, second, third) == [True, True, False]
    events = [event for event in server.audit_events if event["audit"] == "revoked"]
    assert [(event["serial"], event["reason"]) for event in events] == [
        (f"{first.certificate.serial_number:x}", 4),
        (f"{second.certificate.serial_number:x}", 4),
    ]


async def test_what_is_no_retry_revokes_nothing(server: Server) -> None:
    first = read(await ask(server, csr_for(None)))
    other_names = read(await ask(server, csr_for(None, "device-1", "b.devices.example")))
    own = make_csr("device-1", DNS)
    enrolled = (await server.enroll(own, authorization=basic())).certificate
    other_client = leaf(common_name="device-1")
    elsewhere = read(await ask(server, csr_for(None), authorization=None, connection=tls(other_client)))
    server.clock.advance(minutes=11)
    later = read(await ask(server, csr_for(None)))
    assert await revoked(server, first, other_names, elsewhere, later) == [False] * 4
    assert not server.ledger.is_revoked(ISSUER, enrolled.serial_number)


async def test_without_a_retry_window_nothing_is_taken_for_a_retry(tmp_path: Path) -> None:
    registry = registry_of(manifest(spec=keygen_spec()), secrets=(*SECRETS, WRAPPING))
    async with running(tmp_path, registry, configuration=AppConfiguration(retry_window=timedelta(0))) as server:
        first, second = [read(await ask(server, csr_for(None))) for _ in range(2)]
        assert await revoked(server, first, second) == [False, False]


async def test_of_retries_at_once_exactly_one_certificate_stands(server: Server) -> None:
    csr_der = csr_for(None)
    answers = await asyncio.gather(*(ask(server, csr_der) for _ in range(8)))
    states = await revoked(server, *map(read, answers))
    assert states.count(False) == 1


# ---- approval by a person


@pytest.mark.spec("EST-RESP-08", "EST-RESP-11")
async def test_a_key_is_made_when_a_person_has_approved_and_a_retry_afterwards_gets_another(tmp_path: Path) -> None:
    registry = registry_of(
        manifest(spec={**keygen_spec(), "est": {**keygen_spec()["est"], "approval": "Manual"}}), secrets=(*SECRETS, WRAPPING)
    )
    async with running(tmp_path, registry) as server:
        for _ in range(2):
            answer = await ask(server, csr_for(KEK))
            assert answer.status == 202
            assert answer.header("retry-after")
        held = HeldRequests(server.ledger)
        (waiting,) = await held.listed(State.WAITING)
        assert (waiting.operation, waiting.spki_sha256) == ("serverkeygen", ""), "the key that the CSR has is nobody's"
        await held.decide(waiting.id, State.APPROVED, by="alice", reason="", now=server.clock.now)
        first, second = [read(await ask(server, csr_for(KEK)), KEK) for _ in range(2)]
        assert first.certificate != second.certificate
        assert await revoked(server, first, second) == [True, False]


# ---- renewal


@pytest.mark.spec("EST-SKG-03", "EST-REENR-01")
async def test_the_holder_of_a_certificate_gets_a_key_for_its_names_as_at_renewal(tmp_path: Path) -> None:
    spec = keygen_spec()
    rules = [{"from": {"authentication": "basic"}, "subject": {"commonName": "{user}"}}]
    registry = registry_of(manifest(spec={**spec, "policy": {"rules": rules}}), secrets=(*SECRETS, WRAPPING))
    async with running(tmp_path, registry) as server:
        holder = leaf(common_name="device-7")
        generated = read(await ask(server, make_csr("device-7"), authorization=None, connection=tls(holder)))
        assert generated.certificate.subject == holder.subject
        other = await ask(server, make_csr("device-8"), authorization=None, connection=tls(holder))
        assert other.status == 403


@pytest.mark.spec("EST-SKG-03")
async def test_enforced_csr_attributes_hold_but_for_key_and_signature(tmp_path: Path) -> None:
    spec = keygen_spec(keyAlgorithm="ECDSA-P384")
    spec = {**spec, "est": {**spec["est"], "csrAttributes": "Enforced"}, "policy": {**spec["policy"], "keys": ["ECDSA-P384"]}}
    async with running(tmp_path, registry_of(manifest(spec=spec), secrets=(*SECRETS, WRAPPING))) as server:
        wanted = [Usage.DIGITAL_SIGNATURE, Usage.SERVER_AUTH, Usage.CLIENT_AUTH]
        p256 = csr_builder.build(new_key(), subject=name("device-1"), sans=[x509.DNSName(DNS)], usages=wanted)
        generated = read(await ask(server, p256))
        assert getattr(generated.private_key, "key_size", None) == 384
        nameless = csr_builder.build(new_key(), subject=name(None), sans=[x509.DNSName(DNS)], usages=wanted)
        assert (await ask(server, nameless)).status == 400


# ---- no key anywhere else


@dataclass(frozen=True)
class Canaries:
    """Every form in which a private key may be written down."""

    private_key: PrivateKey

    def forms(self) -> list[bytes]:
        pkcs8 = key_package.private_key_info(self.private_key)
        assert isinstance(self.private_key, ec.EllipticCurvePrivateKey)
        secret_octets = self.private_key.private_numbers().private_value.to_bytes(32)
        forms = [pkcs8, secret_octets, self.private_key.private_numbers().private_value.__repr__().encode(), pki.key_pem(self.private_key)]
        for octets in (pkcs8, secret_octets):
            forms += [octets.hex().encode(), base64.b64encode(octets)[4:-4], repr(octets).encode()[2:-1]]
        return forms


def files_in(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.iterdir()]


@pytest.mark.spec("THREAT-18", "THREAT-36")
async def test_no_key_is_in_log_audit_or_ledger(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    before = structlog.get_config()
    structlog.configure(processors=[structlog.processors.JSONRenderer(default=repr)], logger_factory=structlog.PrintLoggerFactory(log))
    monkeypatch.setattr("estserver.routes._log", structlog.get_logger("estserver"))  # another test's configuration may be kept in it
    handler = logging.StreamHandler(log)
    root = logging.getLogger()
    root.addHandler(handler)
    level = root.level
    root.setLevel(logging.DEBUG)
    try:
        registry = registry_of(manifest(spec=keygen_spec()), secrets=(*SECRETS, WRAPPING))
        async with running(tmp_path, registry) as server:
            made = [read(await ask(server, csr_for(None))).private_key, read(await ask(server, csr_for(KEK)), KEK).private_key]
            await ask(server, csr_for(KeyEncryptionKey(key=KEK.key, key_identifier=b"unknown")))
            audit = b"".join(server.audit_lines)
            shown = repr(server.issuers.current).encode()
            rendered = server.metrics.render()[0]
        out, err = capfd.readouterr()
        written = [log.getvalue().encode(), audit, shown, rendered, out.encode(), err.encode()]
        written += files_in(tmp_path)
    finally:
        structlog.configure(**before)
        root.removeHandler(handler)
        root.setLevel(level)
    assert "UnknownDecryptKey" in log.getvalue(), "the log is the one that the server writes"
    forms = [form for private_key in made for form in Canaries(private_key).forms()]
    forms += [KEK.key, KEK.key.hex().encode(), base64.b64encode(KEK.key), repr(KEK.key).encode()[2:-1]]
    for where in written:
        for form in forms:
            assert form not in where


@pytest.mark.spec("THREAT-18")
async def test_a_key_whose_certificate_cannot_be_recorded_goes_nowhere(tmp_path: Path) -> None:
    registry = registry_of(manifest(spec=keygen_spec()), secrets=(*SECRETS, WRAPPING))
    async with running(tmp_path, registry) as server:
        with sqlite3.connect(tmp_path / "ledger.sqlite") as other:
            other.execute("DROP TABLE certificates")
        answer = await ask(server, csr_for(None))
        assert answer.status == 503
        assert "recorded" in answer.text
        assert json.loads(server.audit_lines[-1])["result"] == "LedgerUnavailable"


# ---- the Secret of wrapping keys


def state_of(*secrets: SecretManifest) -> tuple[bool, str, str]:
    issuer = registry_of(manifest(spec=keygen_spec()), secrets=(*SECRETS, *secrets)).issuers[ISSUER]
    return issuer.ready, issuer.reason, issuer.message


async def test_an_issuer_whose_wrapping_keys_are_missing_or_wrong_says_so() -> None:
    assert state_of(WRAPPING)[0]
    ready, reason, message = state_of()
    assert (ready, reason) == (False, "SecretMissing")
    assert "wrapping keys" in message
    ready, reason, message = state_of(secret("wrapping", {"device-1.key": b"secret"}))
    assert (ready, reason) == (False, "SecretInvalidData")
    assert "Secret devices/wrapping: device-1.key" in message
    assert "openssl rand -hex 32" in message
    ready, reason, message = state_of(secret("wrapping", dict(WRAPPING.data), type_="kubernetes.io/basic-auth"))
    assert (ready, reason) == (False, "SecretInvalidData")
    assert "Opaque" in message
