"""Whom an issuer asks before it signs: an answer takes away or refuses, and without one nothing is issued."""

import asyncio
import json
import os
import select
import ssl
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from estcore import authority, certs_only, full_request, issuer_spec, pki_data, transfer
from estcore.cms_signature import signer_of
from estcore.errors import Busy, ConfigurationError, EstError, SignerError
from estserver import issuers as issuers_module
from estserver import revocation
from estserver.issuers import Registry, RegistrySettings
from estserver.program_call import ProgramCalls
from estserver.serving_certificate import renewed
from estserver.snapshot import Snapshot
from tests import pki
from tests.server.app_fixtures import NOW, SECRETS, SPEC, Answer, Server, basic, make_csr, manifest, new_key, registry_of, running, secret
from tests.server.cmc_fixtures import crmf_request, send, ski


def asking(authorization: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {**SPEC, "authorization": authorization, **more}


def program(tmp_path: Path, script: str) -> list[str]:
    file = tmp_path / "program"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return [str(file)]


async def enrolled(tmp_path: Path, spec: Mapping[str, Any], *dns_names: str) -> tuple[Answer, Server]:
    async with running(tmp_path, registry_of(manifest(spec=dict(spec)))) as server:
        return await server.enroll(make_csr("device-1", *dns_names), authorization=basic()), server


def ends(pid: int) -> bool:
    """At once, or as soon as a busy machine gets to it."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([process], [], [], 10)[0])
    finally:
        os.close(process)


def sans(certificate: x509.Certificate) -> list[str]:
    return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)


async def test_a_program_that_ends_with_0_allows_and_is_told_everything(tmp_path: Path) -> None:
    script = f"cat > {tmp_path}/question.json; env > {tmp_path}/environment; exit 0"
    answer, _ = await enrolled(tmp_path, asking({"exec": {"command": program(tmp_path, script)}}), "a.devices.example")
    assert answer.certificate.subject.rfc4514_string() == "CN=device-1"
    question = json.loads((tmp_path / "question.json").read_text())
    assert question["kind"] == "AuthorizationQuestion"
    assert question["issuer"] == "EstIssuer/devices/factory"
    assert question["operation"] == "simpleenroll"
    assert question["source"] == "192.0.2.7"
    assert question["requester"]["authenticatedBy"] == "basic"
    assert question["requester"]["user"] == "device-1"
    assert question["clientCertificate"] is None
    assert question["channelBinding"] == "absent"
    assert question["template"]["sans"] == ["DNS:a.devices.example"]
    assert question["template"]["durationSeconds"] == 2160 * 3600
    environment = (tmp_path / "environment").read_text().splitlines()
    assert "EST_USER=device-1" in environment
    assert "EST_SANS=DNS:a.devices.example" in environment
    assert not [line for line in environment if not line.startswith(("EST_", "PATH=", "PWD=", "OLDPWD=", "SHLVL=", "_="))]


async def test_a_program_that_ends_with_1_denies_with_its_first_line_and_nothing_is_recorded(tmp_path: Path) -> None:
    script = 'printf "not on the list \\033[31m\\nmore\\n"; exit 1'
    async with running(tmp_path, registry_of(manifest(spec=asking({"exec": {"command": program(tmp_path, script)}})))) as server:
        answer = await server.enroll(make_csr("device-1"), authorization=basic())
        assert (answer.status, answer.text) == (403, "not on the list [31m")
        assert server.audit_events == []


@pytest.mark.parametrize(
    "script",
    [
        pytest.param("exit 2", id="another exit status"),
        pytest.param("kill -9 $$", id="a signal"),
        pytest.param("sleep 60", id="too late"),
        pytest.param("yes", id="too much output"),
        pytest.param("echo yes", id="no JSON"),
        pytest.param('echo \'{"decision": "allow", "templates": {}}\'', id="a misspelled member"),
        pytest.param('echo \'{"decision": "allow", "template": {"sans": ["DNS:evil.example"]}}\'', id="a name that was not asked for"),
        pytest.param('echo \'{"decision": "allow", "template": {"usages": ["code signing"]}}\'', id="a usage that was not asked for"),
        pytest.param('echo \'{"decision": "allow", "template": {"durationSeconds": 99999999}}\'', id="a longer life"),
        pytest.param('echo \'{"decision": "allow", "template": {"durationSeconds": true}}\'', id="a life of true"),
    ],
)
async def test_without_an_answer_that_can_be_used_nothing_is_issued(tmp_path: Path, script: str) -> None:
    spec = asking({"exec": {"command": program(tmp_path, script), "timeout": "1s"}})
    answer, server = await enrolled(tmp_path, spec)
    assert (answer.status, answer.header("retry-after")) == (503, "5")
    assert "authorization service" in answer.text
    assert server.audit_events == []


async def test_a_program_that_is_not_there_fails_closed(tmp_path: Path) -> None:
    answer, _ = await enrolled(tmp_path, asking({"exec": {"command": ["/nowhere/at/all"]}}))
    assert answer.status == 503
    assert "/nowhere" not in answer.text


async def test_an_answer_may_take_away_names_usages_and_life(tmp_path: Path) -> None:
    template = {"sans": ["DNS:b.devices.example"], "usages": ["digital signature", "client auth"], "durationSeconds": 3600}
    script = f"echo '{json.dumps({'decision': 'allow', 'template': template})}'"
    answer, _ = await enrolled(tmp_path, asking({"exec": {"command": program(tmp_path, script)}}), "a.devices.example", "b.devices.example")
    certificate = answer.certificate
    assert sans(certificate) == ["b.devices.example"]
    assert certificate.not_valid_after_utc - certificate.not_valid_before_utc == timedelta(hours=1)
    assert [oid.dotted_string for oid in certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value] == [
        "1.3.6.1.5.5.7.3.2"
    ]


@pytest.mark.spec("THREAT-09")
@pytest.mark.parametrize("rule", [{}, {"subject": {"commonName": "*.devices.example"}}], ids=["as one of the names", "by its own pattern"])
async def test_a_name_that_an_answer_takes_away_does_not_stay_as_common_name(tmp_path: Path, rule: dict[str, Any]) -> None:
    """As policy alone answers whoever asks for the rest with that commonName."""
    script = f"""echo '{json.dumps({"decision": "allow", "template": {"sans": ["DNS:a.devices.example"]}})}'"""
    policy = {"rules": [{"dnsNames": ["*.devices.example"], **rule}]}
    spec = asking({"exec": {"command": program(tmp_path, script)}}, policy=policy)
    names = ("a.devices.example", "b.devices.example")
    async with running(tmp_path, registry_of(manifest(spec=spec))) as server:
        refused = await server.enroll(make_csr("b.devices.example", *names), authorization=basic())
        assert (refused.status, refused.header("retry-after")) == (403, None)
        assert "DNS:b.devices.example" in refused.text
        assert "commonName" in refused.text
        assert server.audit_events == []
        served = await server.enroll(make_csr("a.devices.example", *names), authorization=basic())
        assert served.certificate.subject.rfc4514_string() == "CN=a.devices.example"
        assert sans(served.certificate) == ["a.devices.example"]


async def test_a_requester_that_policy_refuses_is_never_asked_about(tmp_path: Path) -> None:
    answer, _ = await enrolled(
        tmp_path, asking({"exec": {"command": program(tmp_path, f"touch {tmp_path}/asked; exit 0")}}), "evil.example"
    )
    assert answer.status == 403
    assert not (tmp_path / "asked").exists()


async def test_what_a_program_left_running_ends_with_it(tmp_path: Path) -> None:
    script = f"sleep 300 & echo $! > {tmp_path}/child; exit 0"
    answer, _ = await enrolled(tmp_path, asking({"exec": {"command": program(tmp_path, script), "timeout": "2s"}}))
    assert answer.status == 503
    assert ends(int((tmp_path / "child").read_text()))


async def test_programs_run_a_few_at_once_and_a_full_line_is_told_to_come_back(tmp_path: Path) -> None:
    calls = ProgramCalls(running=1, waiting=1)
    command = program(tmp_path, "read line; exit 0")

    async def call() -> object:
        try:
            return await calls.run(command, standard_input=b"x\n", environment={}, within=timedelta(seconds=10))
        except EstError as error:
            return error

    results = await asyncio.gather(*(call() for _ in range(5)))
    assert len([result for result in results if isinstance(result, Busy)]) == 3
    with pytest.raises(SignerError):
        await calls.run(["/bin/sleep", "9"], standard_input=b"", environment={}, within=timedelta(milliseconds=50))


# ---- webhook


@dataclass
class Webhook:
    """An HTTPS server that answers every request alike, and keeps what it was asked."""

    url: str = ""
    ca_bundle: str = ""
    answer: bytes = b""
    status: str = "200 OK"
    asked: list[dict[str, Any]] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        (length,) = (line.partition(b":")[2] for line in head.lower().splitlines() if line.startswith(b"content-length"))
        self.asked.append(json.loads(await reader.readexactly(int(length))))
        writer.write(f"HTTP/1.1 {self.status}\r\nContent-Length: {len(self.answer)}\r\nConnection: close\r\n\r\n".encode() + self.answer)
        await writer.drain()
        writer.close()


@asynccontextmanager
async def webhook(tmp_path: Path, answer: object, *, status: str = "200 OK") -> AsyncIterator[Webhook]:
    # the TLS clients of the test look at the real clock
    keys = renewed(None, ["127.0.0.1"], now=datetime.now(UTC), serial=lambda: authority.serial_number(os.urandom(16)))
    for name, pem in (("chain.pem", keys.chain_pem), ("key.pem", keys.key_pem)):
        (tmp_path / name).write_bytes(pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "chain.pem", tmp_path / "key.pem")
    served = Webhook(ca_bundle=keys.bundle_pem.decode(), answer=json.dumps(answer).encode(), status=status)
    server = await asyncio.start_server(served.serve, "127.0.0.1", 0, ssl=context)
    served.url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/authorize"
    try:
        yield served
    finally:
        server.close()


async def test_a_webhook_that_its_bundle_vouches_for_allows_denies_and_narrows(tmp_path: Path) -> None:
    for document, status in (
        ({"decision": "allow"}, 200),
        ({"decision": "allow", "template": {"sans": ["DNS:a.devices.example"]}}, 200),
        ({"decision": "deny", "message": "not today"}, 403),
        ({"decision": "maybe"}, 503),
        ([], 503),
    ):
        async with webhook(tmp_path, document) as hook:
            spec = asking({"webhook": {"url": hook.url, "caBundle": hook.ca_bundle}})
            answer, _ = await enrolled(tmp_path, spec, "a.devices.example", "b.devices.example")
            assert answer.status == status, document
            assert hook.asked[0]["requester"]["user"] == "device-1"
            if "template" in document:
                assert sans(answer.certificate) == ["a.devices.example"]
            if status == 403:
                assert answer.text == "not today"


async def test_a_webhook_that_fails_or_is_not_trusted_fails_closed(tmp_path: Path) -> None:
    allow = {"decision": "allow"}
    async with webhook(tmp_path, allow, status="500 No") as hook:
        answer, _ = await enrolled(tmp_path, asking({"webhook": {"url": hook.url, "caBundle": hook.ca_bundle}}))
        assert answer.status == 503
    async with webhook(tmp_path, allow, status="302 Found\r\nLocation: https://elsewhere.example") as hook:
        answer, _ = await enrolled(tmp_path, asking({"webhook": {"url": hook.url, "caBundle": hook.ca_bundle}}))
        assert answer.status == 503
    other_root = SECRETS[0].data["tls.crt"].decode()
    for bundle in (other_root, "nonsense"):
        async with webhook(tmp_path, allow) as hook:
            answer, _ = await enrolled(tmp_path, asking({"webhook": {"url": hook.url, "caBundle": bundle}}))
            assert (answer.status, hook.asked) == (503, [])
    answer, _ = await enrolled(tmp_path, asking({"webhook": {"url": "https://127.0.0.1:1/", "caBundle": other_root}}))
    assert answer.status == 503


@pytest.mark.parametrize(
    "wrong", [{}, {"exec": {"command": ["x"]}, "webhook": {"url": "https://x", "caBundle": "y"}}, {"exec": {"command": []}}]
)
def test_a_spec_names_one_callout_that_can_be_asked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="authorization"):
        issuer_spec.parse({"ca": {"secretName": "x"}, "authorization": wrong}, where="test")


@pytest.mark.parametrize("field", ["authorization", "signer"])
def test_in_a_cluster_no_manifest_runs_a_program(field: str) -> None:
    """A tenant who may write an EstIssuer must not execute anything in estserver's place."""
    made = manifest(spec={**SPEC, field: {"exec": {"command": ["/bin/true"]}}})
    snapshot = Snapshot(issuers=(made,), secrets={(item.namespace, item.name): item for item in SECRETS})
    judged = issuers_module.build(snapshot, Registry(), RegistrySettings(directory=False), now=NOW).issuers[made.key]
    assert (judged.ready, judged.reason, judged.authority) == (False, "InvalidSpec", None)
    assert f"spec.{field}.exec" in judged.message


# ---- signer


SIGN = Path(__file__).parents[2] / "examples" / "openssl-ca"


@pytest.fixture
def openssl_ca(tmp_path: Path) -> Path:
    """The example's CA; its certificate begins now by the real clock, as its tests do."""
    subprocess.run([SIGN / "setup", tmp_path / "ca", tmp_path / "manifests"], check=True, timeout=30)
    return tmp_path / "ca"


def signing_spec(*command: str) -> dict[str, Any]:
    return {**SPEC, "ca": {"secretName": "outside-ca"}, "signer": {"exec": {"command": list(command), "timeout": "10s"}}}


@asynccontextmanager
async def signing(tmp_path: Path, ca: Path, *command: str) -> AsyncIterator[Server]:
    outside = secret("outside-ca", {"tls.crt": (ca / "ca.pem").read_bytes()}, type_="kubernetes.io/tls")
    now = datetime.now(UTC)
    registry = registry_of(manifest(spec=signing_spec(*command)), secrets=(*SECRETS, outside), now=now)
    async with running(tmp_path, registry) as server:
        server.clock.now = now
        yield server


async def test_openssl_ca_signs_what_policy_permitted_and_the_ledger_has_its_serial(tmp_path: Path, openssl_ca: Path) -> None:
    async with signing(tmp_path, openssl_ca, str(SIGN / "sign"), str(openssl_ca)) as server:
        answer = await server.enroll(make_csr("device-1", "a.devices.example"), authorization=basic())
        assert answer.status == 200, answer.body
        (certificate,) = certs_only.decode(transfer.decode_body(answer.body))
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate((openssl_ca / "ca.pem").read_bytes()))
        assert sans(certificate) == ["a.devices.example"]
        assert f"{certificate.serial_number:X}" in (openssl_ca / "index.txt").read_text()
        found = await revocation.find(server.ledger, "EstIssuer/devices/factory", certificate.serial_number)
        assert found is not None
        assert server.audit_events[1]["standing_serial"] == f"{certificate.serial_number:x}"
        refused = await server.enroll(make_csr("device-1", "evil.example"), authorization=basic())
        assert refused.status == 403


@pytest.mark.parametrize(
    ("change", "what"),
    [
        pytest.param("EST_SANS=DNS:evil.example", "subjectAltName", id="another name"),
        pytest.param("EST_NOT_AFTER=2036-01-01T00:00:00Z", "lives longer", id="a longer life"),
        pytest.param("EST_USAGES='digital signature,code signing'", "usage", id="another usage"),
    ],
)
async def test_a_certificate_that_was_not_ordered_goes_nowhere(tmp_path: Path, openssl_ca: Path, change: str, what: str) -> None:
    stubborn = program(tmp_path, f"export {change}; exec {SIGN}/sign {openssl_ca}")
    with structlog.testing.capture_logs() as logged:
        async with signing(tmp_path, openssl_ca, *stubborn) as server:
            answer = await server.enroll(make_csr("device-1", "a.devices.example"), authorization=basic())
            assert (answer.status, answer.header("retry-after")) == (503, "5")
            assert server.audit_events[-1]["result"] == "CalloutFailed"
    (refusal,) = (line for line in logged if line.get("reason") == "CalloutFailed")
    assert what in refusal["cause"]


@pytest.mark.parametrize("script", ["exit 1", "echo nothing", f"cat {SIGN}/issuer.yaml.in", "exit 0"])
async def test_a_signer_that_returns_no_certificate_issues_nothing(tmp_path: Path, openssl_ca: Path, script: str) -> None:
    async with signing(tmp_path, openssl_ca, *program(tmp_path, script)) as server:
        answer = await server.enroll(make_csr("device-1"), authorization=basic())
        assert answer.status == 503


@pytest.mark.spec("EST-CMC-14")
async def test_a_signer_gets_the_public_key_of_a_request_in_crmf(tmp_path: Path, openssl_ca: Path) -> None:
    """By `openssl x509 -force_pubkey`, which certifies a key without a CSR."""
    certify = (
        f'cat > {tmp_path}/request.pem; echo "$EST_REQUEST_FORM" > {tmp_path}/form; '
        'printf "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=clientAuth\n'
        'subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid:always\n" > ' + f"{tmp_path}/extensions; "
        f"openssl x509 -new -subj /CN=device-1 -force_pubkey {tmp_path}/request.pem -days 1 -extfile {tmp_path}/extensions "
        f"-CA {openssl_ca}/ca.pem -CAkey {openssl_ca}/ca.key"
    )
    key = new_key()
    body = full_request.body([pki_data.tagged_crmf(crmf_request(key))], [])
    message = full_request.sign_by_key(body, ski(key).digest, signer_of(key))
    async with signing(tmp_path, openssl_ca, *program(tmp_path, certify)) as server:
        certificate = (await send(server, message, authorization=basic())).certificate_for(key)
    assert certificate.subject == pki.name("device-1")
    assert (tmp_path / "form").read_text() == "CRMF\n"
    assert load_pem_public_key((tmp_path / "request.pem").read_bytes()) == key.public_key()


def test_a_signer_goes_with_no_generated_ca_and_no_server_generated_keys() -> None:
    signer = {"exec": {"command": ["x"]}}
    for spec in (
        {"ca": {"secretName": "x", "generate": {"commonName": "y"}}, "signer": signer},
        {"ca": {"secretName": "x"}, "signer": signer, "est": {"serverKeyGeneration": {"enabled": True, "encryption": "Optional"}}},
    ):
        with pytest.raises(ConfigurationError, match="signer"):
            issuer_spec.parse(spec, where="test")
