"""The program as its users run it: a child process, real sockets, real signals."""

import asyncio
import os
import re
import resource
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from estclient import Basic, EstClient
from estcore import csr_builder
from estcore.errors import ConfigurationError, Refused, ServerUnavailable
from estcore.issuer_spec import KeyAlgorithm
from estcore.keys import generate_private_key
from estserver import control
from estserver.issuers import Issuers
from estserver.listening import bind
from estserver.metrics import Metrics
from estserver.origin import utc_now
from estserver.program import RELEASED, check_clock, make_private_directory
from estserver.serving_certificate import from_data, renewed, to_data
from estserver.serving_store import DirectoryStore
from estserver.settings import load
from estserver.snapshot import Snapshot
from estserver.workers import Workers
from tests.collect import collect
from tests.server.manifest_builders import next_serial
from tests.server.running import alive, children, estserver, eventually

ISSUER = """\
apiVersion: est-issuer.io/v1alpha1
kind: EstIssuer
metadata: {name: factory}
spec:
  ca: {secretName: factory-ca, generate: {commonName: Factory CA}}
  est:
    authentication:
      - basic: {secretName: passwords}
      - certificate: {issuedBy: this}
  policy:
    rules: [{from: {authentication: basic}, subject: {commonName: "{user}"}}]
---
apiVersion: v1
kind: Secret
metadata: {name: passwords}
type: kubernetes.io/basic-auth
stringData: {username: device-1, password: correct horse}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    directory = tmp_path / "config"
    directory.mkdir()
    (directory / "issuer.yaml").write_text(ISSUER)
    return directory


def client(url: str, config: Path, label: str | None = "factory") -> EstClient:
    anchors_pem = (config / "state" / "serving" / "ca.crt").read_bytes()
    return EstClient(url=url, label=label, anchors_pem=anchors_pem, credentials=Basic(user="device-1", password="correct horse"))


def csr() -> bytes:
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "device-1")])
    return csr_builder.build(generate_private_key(KeyAlgorithm.ECDSA_P256), subject=subject)


def give_certificate(config: Path, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> tuple[str, ...]:
    """A self-signed certificate of this key, put where the options say."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = utc_now()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(next_serial())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=10))
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = config.parent / "given.crt", config.parent / "given.key"
    key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    certificate_file.write_bytes(certificate.public_bytes(Encoding.PEM))
    return "--serving-certificate", str(certificate_file), "--serving-key", str(key_file)


async def health(port: int, path: str) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\n\r\n".encode())
    answer = (await asyncio.wait_for(reader.read(), 10)).decode()
    writer.close()
    return answer.partition("\r\n\r\n")[2]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


async def test_it_serves_a_directory_and_ends_with_zero_at_sigterm(config: Path) -> None:
    async with estserver("--config", str(config)) as running:
        url = await running.url()
        listening = await running.until("listening")
        assert listening["trust_root"] == str(config / "state" / "serving" / "ca.crt")
        port = url.rpartition(":")[2]
        ready = await running.until("issuer ready", issuer="EstIssuer/default/factory")
        assert ready["url"] == f"https://localhost:{port}/.well-known/est/factory"
        async with client(url, config) as labelled, client(url, config, label=None) as default:
            (ca,) = await labelled.ca_certs()
            assert await default.ca_certs() == (ca,), "the only issuer answers at the path without label"
            issued = await labelled.simple_enroll(csr())
        collect(issued.public_bytes(Encoding.DER), ca.public_bytes(Encoding.DER))
        issued.verify_directly_issued_by(ca)
        assert await running.stop() == 0
        assert running.errors == b""
        assert (await running.until("shut down"))["level"] == "info"


async def test_a_second_start_goes_on_with_the_same_ca_and_certificate(config: Path) -> None:
    seen = []
    for _ in range(2):
        async with estserver("--config", str(config)) as running:
            async with client(await running.url(), config) as est:
                seen.append(((await est.ca_certs())[0], (config / "state" / "serving" / "serving.yaml").read_bytes()))
            assert await running.stop(signal.SIGINT) == 0
    assert seen[0] == seen[1]


@pytest.mark.parametrize(
    ("options", "file", "says"),
    [
        ((), ISSUER.replace("generate:", "generated:"), r"issuer\.yaml: EstIssuer factory: spec\.ca\.generated: this field is unknown"),
        ((), ISSUER.replace("kind: EstIssuer", "kind: Issuer"), r"issuer\.yaml: document 1: kind: Issuer is none of"),
        ((), "a: [", r"issuer\.yaml: .*not YAML"),
        (("--config", "/proc/nowhere"), ISSUER, "--config /proc/nowhere: no such directory"),
        (("--kubernetes",), ISSUER, "exactly one of --config DIR and --kubernetes"),
        (("--workers", "0"), ISSUER, r"--workers \(EST_WORKERS\)"),
        (("--listen", "192.0.2.1:1"), ISSUER, r"--listen 192\.0\.2\.1:1: cannot listen"),
        (("--ledger", "mysql://x"), ISSUER, "ledger"),
        (("--ledger", "sqlite:////proc/x.sqlite"), ISSUER, "ledger"),
        (("--state", "/proc/x"), ISSUER, "--state /proc/x"),
        (("--serving-certificate", "/proc/nowhere", "--serving-key", "/proc/nowhere"), ISSUER, "/proc/nowhere: cannot be read"),
    ],
)
async def test_what_a_person_must_mend_is_one_line_and_exit_2(config: Path, options: tuple[str, ...], file: str, says: str) -> None:
    (config / "issuer.yaml").write_text(file)
    async with estserver("--config", str(config), *options) as running:
        assert await running.ended() == 2
        error = running.errors.decode()
        assert error.startswith("estserver: ")
        assert error.count("\n") == 1, error
        assert re.search(says, error)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("bits", [1024, None], ids=["a certificate that TLS refuses", "a ledger that cannot be opened"])
async def test_what_keeps_one_process_from_serving_keeps_workers_from_it(config: Path, workers: int, bits: int | None) -> None:
    options: tuple[str, ...] = ("--ledger", "sqlite:////proc/x.sqlite")
    if bits is not None:
        options = give_certificate(config, rsa.generate_private_key(65537, bits))
    async with estserver("--config", str(config), "--workers", str(workers), *options) as running:
        assert await running.ended() == 2
        error = running.errors.decode()
        assert error.startswith("estserver: ")
        assert error.count("\n") == 1, error
        assert ("a PEM pair that TLS can use" if bits is not None else "ledger sqlite:////proc/x.sqlite: it cannot be opened") in error


@pytest.mark.spec("THREAT-30")
def test_a_clock_before_this_version_was_made_is_refused() -> None:
    check_clock(RELEASED)
    with pytest.raises(ConfigurationError, match="set the clock"):
        check_clock(RELEASED - timedelta(seconds=1))


async def test_a_changed_directory_is_used_without_restart_and_a_mistake_is_not(config: Path) -> None:
    async with estserver("--config", str(config)) as running:
        url = await running.url()
        (config / "second.yaml").write_text(
            "apiVersion: est-issuer.io/v1alpha1\nkind: EstIssuer\nmetadata: {name: second}\n"
            "spec: {ca: {secretName: second-ca, generate: {commonName: Second CA}}}\n"
        )
        await running.until("issuer ready", issuer="EstIssuer/default/second")
        async with client(url, config, label="second") as second, client(url, config) as first:
            before = await first.ca_certs()
            assert await second.ca_certs() != before
            (config / "issuer.yaml").write_text("apiVersion: v1\nkind: Nonsense\n")
            said = await running.until("the manifests do not fit; going on with the ones before")
            assert "issuer.yaml" in said["error"]
            assert await first.ca_certs() == before


@pytest.mark.spec("THREAT-37")
async def test_health_and_metrics_are_on_a_port_of_their_own(config: Path) -> None:
    port = free_port()
    async with estserver("--config", str(config), "--metrics-listen", f"127.0.0.1:{port}") as running:
        url = await running.url()
        assert await health(port, "/healthz") == "ok\n"
        assert await health(port, "/readyz") == "ok\n"
        async with client(url, config) as est:
            await est.simple_enroll(csr())
        metrics = await health(port, "/metrics")
        assert 'est_issuer_ready{issuer="EstIssuer/default/factory"} 1.0' in metrics
        assert 'est_certificates_issued_total{door="est",issuer="EstIssuer/default/factory",result="issued"} 1.0' in metrics
        assert "est_configuration_current 1.0" in metrics


@pytest.mark.spec("THREAT-32")
async def test_at_sigterm_readiness_goes_off_while_connections_are_still_taken(config: Path) -> None:
    port = free_port()
    async with estserver("--config", str(config), "--metrics-listen", f"127.0.0.1:{port}", "--drain-delay", "60s") as running:
        url = await running.url()
        running.process.send_signal(signal.SIGTERM)
        await running.until("shutting down")
        assert await health(port, "/readyz") == "shutting down\n"
        async with client(url, config) as est:
            assert await est.ca_certs()
        assert await running.stop() == 0, "a second signal skips the wait"


async def open_tls(url: str, config: Path, *, verifies: bool = True) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    context = ssl.create_default_context(cafile=str(config / "state" / "serving" / "ca.crt") if verifies else None)
    if not verifies:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    host, port = url.removeprefix("https://").split(":")
    return await asyncio.open_connection(host, int(port), ssl=context)


def served_certificate(writer: asyncio.StreamWriter) -> bytes:
    found: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    return found


@pytest.mark.spec("THREAT-32")
@pytest.mark.parametrize("workers", [1, 2])
async def test_a_renewed_certificate_is_used_without_restart_and_no_connection_is_dropped(config: Path, workers: int) -> None:
    """Another process renews (as another replica would), and SIGHUP says that it did: without, it is seen within a minute or so."""
    async with estserver("--config", str(config), "--workers", str(workers)) as running:
        url = await running.url()
        reader, writer = await open_tls(url, config)
        before = served_certificate(writer)
        store = DirectoryStore(config / "state" / "serving")
        stored = await store.load()
        assert stored.data is not None
        leaf = x509.load_der_x509_certificate(before)
        later = leaf.not_valid_before_utc.replace(microsecond=0)
        names = ("localhost", "127.0.0.1", "other.example")
        keys = renewed(from_data(stored.data), names, now=later, serial=next_serial)
        assert await store.save(to_data(keys), stored.version)
        running.process.send_signal(signal.SIGHUP)
        await running.until("using another server certificate")
        writer.write(b"GET /.well-known/est/cacerts HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()

        async def _renewed() -> bool:  # a worker hears of it a moment later
            _, fresh = await open_tls(url, config)
            fresh.close()
            return served_certificate(fresh) != before

        await eventually(_renewed)


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_renewed_certificate_that_tls_refuses_is_not_used_and_leaves_nobody_deaf(config: Path, workers: int) -> None:
    given = give_certificate(config, ec.generate_private_key(ec.SECP256R1()))
    async with estserver("--config", str(config), "--workers", str(workers), *given) as running:
        url = await running.url()
        _, writer = await open_tls(url, config, verifies=False)
        before = served_certificate(writer)
        writer.close()
        give_certificate(config, rsa.generate_private_key(65537, 1024))  # noqa: S505 - TLS refuses it, as we must
        running.process.send_signal(signal.SIGHUP)
        refused = await running.until("the server's certificate was not refreshed")
        assert "a PEM pair that TLS can use" in refused["error"]
        (config / "issuer.yaml").write_text(ISSUER.replace("name: factory}", "name: renamed}"))
        await running.until("issuer removed", issuer="EstIssuer/default/factory")

        async def _all_know() -> bool:  # each connection is some worker's
            answers = []
            for _ in range(8):
                reader, asking = await open_tls(url, config, verifies=False)
                assert served_certificate(asking) == before
                asking.write(b"GET /.well-known/est/factory/cacerts HTTP/1.1\r\nHost: localhost\r\n\r\n")
                answers.append((await reader.readline()).startswith(b"HTTP/1.1 404"))
                asking.close()
            return all(answers)

        await eventually(_all_know)
        assert await running.stop() == 0
        assert running.errors == b""


async def test_workers_share_the_work_and_one_that_dies_is_replaced(config: Path) -> None:
    port = free_port()
    async with estserver("--config", str(config), "--workers", "2", "--metrics-listen", f"127.0.0.1:{port}") as running:
        url = await running.url()
        assert running.process.pid is not None
        await running.until("worker ready", worker=0)
        await running.until("worker ready", worker=1)
        first = children(running.process.pid)
        assert len(first) == 2
        async with client(url, config) as est:
            ca = await est.ca_certs()
            await est.simple_enroll(csr())
        issued = 'est_certificates_issued_total{door="est",issuer="EstIssuer/default/factory",result="issued"} 1.0'
        assert issued in await health(port, "/metrics"), "counted by a worker, told by the process that watches"
        os.kill(first[0], signal.SIGKILL)
        await running.until("a worker ended and is started again")
        async with client(url, config) as est:
            assert await est.ca_certs() == ca
        await running.until("worker ready", times=3)
        assert await health(port, "/readyz") == "ok\n"
        (config / "issuer.yaml").write_text(ISSUER.replace("name: factory}", "name: renamed}"))
        await running.until("issuer removed", issuer="EstIssuer/default/factory")
        async with client(url, config, label="renamed") as est:

            async def _workers_know() -> bool:
                try:
                    return await est.ca_certs() == ca
                except Refused:
                    return False

            await eventually(_workers_know)
        workers = children(running.process.pid)
        assert await running.stop() == 0
        assert not alive(workers)


@pytest.mark.spec("THREAT-27", "THREAT-32")
async def test_workers_that_are_replaced_while_a_secret_is_broken_go_on_with_the_last_good_ca(config: Path) -> None:
    async with estserver("--config", str(config), "--workers", "2") as running:
        url = await running.url()
        await running.until("worker ready", times=2)
        async with client(url, config) as est:
            ca = await est.ca_certs()
        half = "apiVersion: v1\nkind: Secret\nmetadata: {name: factory-ca}\ntype: kubernetes.io/tls\nstringData: {tls.crt: half}\n"
        (config / "ca.yaml").write_text(half)
        await running.until("issuer ready", reason="SecretInvalidData")
        assert running.process.pid is not None
        for worker in children(running.process.pid):
            os.kill(worker, signal.SIGKILL)
        await running.until("worker ready", times=4)
        async with client(url, config) as est:
            assert await est.ca_certs() == ca
            collect((await est.simple_enroll(csr())).public_bytes(Encoding.DER), ca[0].public_bytes(Encoding.DER))
        assert await running.stop() == 0


@asynccontextmanager
async def one_worker(config: Path) -> AsyncIterator[tuple[Workers, int]]:
    """A front with one worker that serves, and the worker's process id."""
    options = {"config": str(config), "workers": 1, "listen": "127.0.0.1:0"}
    settings, _ = load(options)
    make_private_directory(settings.state_directory)
    front = Workers(settings, options, [bind("127.0.0.1:0")])
    shutdown, started = asyncio.Event(), asyncio.Event()
    keys = renewed(None, ("localhost",), now=utc_now(), serial=next_serial)
    others = set(children(os.getpid()))  # an API server and a database of other tests
    serving = asyncio.create_task(front.serve(Issuers(), keys, Metrics(), shutdown=shutdown, started=started.set))
    try:
        front.feed(Snapshot())
        await asyncio.wait_for(started.wait(), 60)
        (worker,) = set(children(os.getpid())) - others
        yield front, worker
    finally:
        shutdown.set()
        await asyncio.wait_for(serving, 60)


async def test_a_worker_that_falls_silent_is_replaced(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "SILENT_SECONDS", control.ALIVE_SECONDS + 20)  # it counts from the start of the process
    async with one_worker(config) as (front, silent):
        os.kill(silent, signal.SIGSTOP)

        async def _replaced() -> bool:
            return not alive([silent]) and front.not_ready() == ""

        await eventually(_replaced)


async def test_a_worker_that_cannot_hear_what_changed_is_replaced(config: Path) -> None:
    async with one_worker(config) as (front, deaf):
        front._tell(control.encode("snapshot", snapshot="{}"))

        async def _replaced() -> bool:
            return not alive([deaf]) and front.not_ready() == ""

        await eventually(_replaced)


async def test_workers_end_when_the_process_that_watches_them_is_killed(config: Path) -> None:
    async with estserver("--config", str(config), "--workers", "2") as running:
        await running.url()
        assert running.process.pid is not None
        workers = children(running.process.pid)
        running.process.kill()

        async def _all_gone() -> bool:
            return not alive(workers)

        await eventually(_all_gone)


@pytest.mark.spec("THREAT-18")
async def test_no_core_is_ever_dumped(config: Path) -> None:
    async with estserver("--config", str(config), "--workers", "2") as running:
        await running.url()
        assert running.process.pid is not None
        for pid in (running.process.pid, *children(running.process.pid)):
            assert resource.prlimit(pid, resource.RLIMIT_CORE) == (0, 0)


def test_help_names_every_option_and_no_password_is_asked_for_in_arguments() -> None:
    shown = subprocess.run([sys.executable, "-m", "estserver", "serve", "--help"], capture_output=True, text=True, check=True).stdout
    for option in ("--config", "--kubernetes", "--state", "--listen", "--workers", "--ledger", "--retry-window"):
        assert option in shown


async def test_a_port_in_use_is_told_at_once(config: Path) -> None:
    async with estserver("--config", str(config)) as first:
        address = (await first.url()).removeprefix("https://")
        async with estserver("--config", str(config), "--listen", address) as second:
            assert await second.ended() == 2
            assert b"cannot listen" in second.errors


async def test_connections_are_refused_after_the_end(config: Path) -> None:
    async with estserver("--config", str(config)) as running:
        url = await running.url()
        await running.stop()
        with pytest.raises(ServerUnavailable):
            async with client(url, config) as est:
                await est.ca_certs()
