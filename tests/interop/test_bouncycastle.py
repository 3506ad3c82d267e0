"""Bouncy Castle's EST client (Java): base64 only where a header says so, a 401 only without a body, tls-unique on TLS 1.2."""

import base64
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.collect import collect
from tests.interop.conftest import PASSWORD, ROOT, RunningServer, Workshop, documented

Answer = dict[str, list[str]]
Run = Callable[..., Answer]
NAMES = {"subject": "CN=device-7", "dns": "device-7.devices.example.com"}
LOGIN = {"user": "device-7", "password": PASSWORD}
JAVA = ("java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:+IgnoreUnrecognizedVMOptions")


@pytest.fixture(scope="session")
def class_path() -> str:
    done = subprocess.run([ROOT / "tests" / "interop" / "bouncycastle" / "build"], stdout=subprocess.PIPE, text=True, timeout=170)
    assert done.returncode == 0, "the Java client was not built"
    return done.stdout.strip()


@pytest.fixture(scope="module")
def bouncy_castle(class_path: str, est_server: RunningServer) -> Run:
    """Run one command of the client, tests/interop/bouncycastle; options are its options."""

    def run(command: str, *, label: str = "factory", **options: object) -> Answer:
        given = {"server": f"localhost:{est_server.port}", "label": label, "anchors": est_server.anchors, **options}
        arguments = [part for name, value in given.items() for part in (f"--{name.replace('_', '-')}", str(value))]
        client = [*JAVA, "-cp", class_path, "io.estissuer.interop.Main", command, *arguments]
        done = subprocess.run(client, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        answer: Answer = {}
        for line in done.stdout.splitlines():
            name, _, value = line.partition("=")
            answer.setdefault(name, []).append(value)
        return answer

    return run


def certificates(answer: Answer) -> list[x509.Certificate]:
    return [x509.load_der_x509_certificate(base64.b64decode(each)) for each in answer["certificate"]]


@pytest.fixture(scope="module")
def ca(bouncy_castle: Run) -> x509.Certificate:
    (root,) = certificates(bouncy_castle("cacerts"))
    return root


def issued(answer: Answer, ca: x509.Certificate) -> x509.Certificate:
    """The one certificate of an answer, by this CA, kept for the linters."""
    assert answer["status"] == ["200"], answer
    (certificate,) = certificates(answer)
    certificate.verify_directly_issued_by(ca)
    collect(certificate.public_bytes(Encoding.DER), ca.public_bytes(Encoding.DER))
    return certificate


@pytest.mark.spec("EST-ENROLL-01", "EST-REENR-01", "EST-CACERTS-03", "EST-POP-09")
def test_the_documented_program_works_as_it_is(workshop: Workshop, class_path: str) -> None:
    (workshop.folder / "Enrol.java").write_text(documented("Bouncy Castle", "java"))
    variables = {"BOUNCY_CASTLE": class_path, "SERVER": f"localhost:{workshop.server.port}", "PASSWORD": PASSWORD}
    done = workshop.run("bash", "-euc", documented("Bouncy Castle"), environment=variables)
    assert done.returncode == 0, done.stderr.decode()
    authority, first, second = done.stdout.decode().splitlines()
    assert authority == "CN=Factory CA"
    assert {first.split()[0], second.split()[0]} == {"CN=device-7"}
    assert first != second


@pytest.mark.spec("EST-CACERTS-03", "EST-TLS-05", "EST-ENC-05")
def test_the_ca_certificates_come_over_a_connection_that_it_trusts(bouncy_castle: Run) -> None:
    answer = bouncy_castle("cacerts")
    (root,) = certificates(answer)
    root.verify_directly_issued_by(root)
    assert answer["trusted"] == ["true"]


@pytest.mark.spec("EST-ENROLL-01", "EST-REENR-01", "EST-AUTH-03", "EST-AUTH-08", "EST-TLS-03", "EST-TLS-06", "EST-TLS-15")
@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_it_enrols_by_password_after_a_challenge_and_renews_by_certificate(
    bouncy_castle: Run, ca: x509.Certificate, tmp_path: Path, version: str
) -> None:
    device = tmp_path / "device"
    first = issued(bouncy_castle("enroll", tls=version, save=device, **NAMES, **LOGIN), ca)
    second = issued(bouncy_castle("enroll", tls=version, identity=device, reenroll="yes", **NAMES), ca)
    assert first.subject == second.subject
    assert first.public_key() != second.public_key()


@pytest.mark.spec("EST-POP-02", "EST-POP-07", "EST-POP-08", "EST-POP-09")
def test_its_tls_unique_is_the_servers_on_the_connection_after_the_challenge_and_on_one_with_a_certificate(
    bouncy_castle: Run, ca: x509.Certificate, tmp_path: Path
) -> None:
    """It makes the CSR anew for the second connection: a value of the first would be refused (tests/interop/test_channel_binding.py)."""
    device = tmp_path / "device"
    issued(bouncy_castle("enroll", tls="TLSv1.2", bind="yes", save=device, **NAMES, **LOGIN), ca)
    issued(bouncy_castle("enroll", tls="TLSv1.2", bind="yes", identity=device, reenroll="yes", **NAMES), ca)


@pytest.mark.spec("EST-ENROLL-01", "EST-POP-01")
@pytest.mark.parametrize("algorithm", ["EC-P384", "RSA-2048", "Ed25519"])
def test_it_enrols_keys_of_every_kind(bouncy_castle: Run, ca: x509.Certificate, algorithm: str) -> None:
    issued(bouncy_castle("enroll", key_algorithm=algorithm, **NAMES, **LOGIN), ca)


CHALLENGE_PASSWORD, EXTENSION_REQUEST, TEMPLATE = "1.2.840.113549.1.9.7", "1.2.840.113549.1.9.14", "1.2.840.113549.1.9.16.2.61"


@pytest.mark.spec("EST-ATTR-03", "EST-ATTR-06", "EST-ATTR-08")
def test_it_reads_what_the_issuer_wants_of_a_csr(bouncy_castle: Run) -> None:
    """Old form and template (RFC 9908 section 3) beside each other, and challengePassword where binding is required."""
    wanted = bouncy_castle("csrattrs")
    assert {EXTENSION_REQUEST, TEMPLATE} <= set(wanted["attribute"])
    assert CHALLENGE_PASSWORD not in wanted.get("oid", [])
    assert CHALLENGE_PASSWORD in bouncy_castle("csrattrs", label="bound")["oid"]


@pytest.mark.spec("EST-RESP-05", "EST-AUTH-02")
def test_a_refusal_reaches_its_user_with_its_status(bouncy_castle: Run) -> None:
    assert bouncy_castle("enroll", **NAMES)["status"] == ["401"]
    assert bouncy_castle("enroll", **NAMES, user="device-7", password="wrong")["status"] == ["401"]
    foreign = {"subject": "CN=device-7", "dns": "www.example.com"}
    assert bouncy_castle("enroll", **foreign, **LOGIN)["status"] == ["403"]
