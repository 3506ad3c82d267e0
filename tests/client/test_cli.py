"""The command `est`."""

import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from typer.testing import CliRunner, Result

from estclient.__main__ import EXIT_CODES, app
from estcore.errors import ClientError
from tests.client.double import Answer, EstDouble, Identity, Seen, certificates, est_double, issue, make_ca

PASSWORD = "correct horse"


def est(*arguments: object, environment: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "160", **(environment or {})})


def assert_fails(result: Result, code: int, says: str) -> None:
    assert result.exit_code == code, result.stderr
    assert says in result.stderr
    assert result.stderr.startswith("est: ")
    assert result.stderr.count("\n") == 1, "one sentence"
    assert PASSWORD not in result.output


@pytest.fixture(scope="module")
def small_ca(ca: Identity, server: Identity) -> Iterator[EstDouble]:
    def behave(seen: Seen) -> Answer:
        if seen.target.endswith("/cacerts"):
            return certificates(ca.certificate)
        if seen.client_certificate is None and "authorization" not in seen.headers:
            return Answer(status=401, headers={"WWW-Authenticate": 'Basic realm="est"'}, body=b"log in")
        return certificates(issue(ca, seen.csr_der))

    with est_double(behave, server, client_ca=ca) as double:
        yield double


@pytest.fixture
def options(small_ca: EstDouble, ca: Identity, tmp_path: Path) -> list[str]:
    anchors = tmp_path / "anchors.pem"
    anchors.write_bytes(ca.pem)
    small_ca.seen.clear()
    return ["--url", small_ca.url, "--anchors", str(anchors), "--label", "factory"]


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text(PASSWORD + "\n")
    return path


def test_cacerts_writes_the_bag_and_shows_it(options: list[str], ca: Identity, tmp_path: Path) -> None:
    result = est("cacerts", *options, "--out", tmp_path / "ca.crt")
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "ca.crt").read_bytes() == ca.pem
    assert "CN=est-issuer test CA" in result.stdout


def test_enroll_then_renew_then_rekey(options: list[str], small_ca: EstDouble, ca: Identity, password_file: Path, tmp_path: Path) -> None:
    """The path that a device goes: a password once, then its own certificate."""
    out = tmp_path / "device"
    result = est(
        *("enroll", *options, "--user", "device-7", "--password-file", password_file, "--out-dir", out),
        *("--subject", "CN=device-7,O=Factory", "--dns", "device-7.example", "--ip", "192.0.2.7", "--uri", "urn:x:7"),
        *("--usage", "client auth", "--key-algorithm", "RSA-2048"),
    )
    assert result.exit_code == 0, result.stderr
    assert "device-7.example" in result.stdout
    assert small_ca.seen[0].headers["authorization"] == "Basic ZGV2aWNlLTc6Y29ycmVjdCBob3JzZQ=="
    first = x509.load_pem_x509_certificate((out / "tls.crt").read_bytes())
    assert first.subject.rfc4514_string() == "CN=device-7,O=Factory"
    assert (out / "ca.crt").read_bytes() == ca.pem
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in out.iterdir()} == {"tls.key": 0o600, "tls.crt": 0o644, "ca.crt": 0o644}
    key = load_pem_private_key((out / "tls.key").read_bytes(), password=None)
    assert key.public_key() == first.public_key()

    result = est("renew", *options, "--cert", out / "tls.crt", "--key", out / "tls.key")
    assert result.exit_code == 0, result.stderr
    second = x509.load_pem_x509_certificate((out / "tls.crt").read_bytes())
    assert small_ca.seen[2].target.endswith("/factory/simplereenroll")
    assert "authorization" not in small_ca.seen[2].headers
    assert second.serial_number != first.serial_number
    assert (second.subject, second.public_key()) == (first.subject, first.public_key())

    result = est("renew", *options, "--cert", out / "tls.crt", "--key", out / "tls.key", "--new-key", "ECDSA-P384")
    assert result.exit_code == 0, result.stderr
    third = x509.load_pem_x509_certificate((out / "tls.crt").read_bytes())
    assert load_pem_private_key((out / "tls.key").read_bytes(), password=None).public_key() == third.public_key() != second.public_key()
    assert stat.S_IMODE((out / "tls.key").stat().st_mode) == 0o600


def test_a_password_may_come_from_the_environment_and_a_token_from_a_file(options: list[str], small_ca: EstDouble, tmp_path: Path) -> None:
    result = est("enroll", *options, "--user", "device-7", "--out-dir", tmp_path / "a", environment={"EST_PASSWORD": PASSWORD})
    assert result.exit_code == 0, result.stderr
    (tmp_path / "token").write_text("abc.def\n")
    result = est("enroll", *options, "--token-file", tmp_path / "token", "--out-dir", tmp_path / "b")
    assert result.exit_code == 0, result.stderr
    assert [seen.headers["authorization"] for seen in small_ca.seen if seen.method == "POST"] == [
        "Basic ZGV2aWNlLTc6Y29ycmVjdCBob3JzZQ==",
        "Bearer abc.def",
    ]


@pytest.mark.spec("EST-RESP-09", "EST-RESP-11")
def test_after_a_wait_for_approval_the_same_command_asks_for_the_same_key(
    ca: Identity, server: Identity, options: list[str], password_file: Path, tmp_path: Path
) -> None:
    answers = iter([Answer(status=202, headers={"Retry-After": "30"}), None])

    def behave(seen: Seen) -> Answer:
        if seen.method == "GET":
            return certificates(ca.certificate)
        return next(answers) or certificates(issue(ca, seen.csr_der))

    with est_double(behave, server) as double:
        command = ("enroll", *options, "--url", double.url, "--user", "u", "--password-file", password_file, "--out-dir", tmp_path / "d")
        assert_fails(est(*command), 4, "again in 30 s")
        assert est(*command).exit_code == 0
        first, second = (x509.load_der_x509_csr(seen.csr_der) for seen in double.seen if seen.method == "POST")
    assert first.public_key() == second.public_key()


def test_a_folder_with_a_certificate_is_left_alone(options: list[str], password_file: Path, tmp_path: Path) -> None:
    (tmp_path / "tls.crt").write_text("mine")
    command = ("enroll", *options, "--user", "u", "--password-file", password_file, "--out-dir", tmp_path)
    assert_fails(est(*command), 2, "use est renew")
    assert (tmp_path / "tls.crt").read_text() == "mine"
    assert not (tmp_path / "tls.key").exists()


@pytest.mark.spec("EST-RESP-04")
def test_a_certificate_of_an_unknown_ca_is_not_written(
    ca: Identity, server: Identity, options: list[str], password_file: Path, tmp_path: Path
) -> None:
    other = make_ca("another CA")
    with est_double(lambda seen: certificates(issue(other, seen.csr_der) if seen.method == "POST" else ca.certificate), server) as double:
        command = ("enroll", *options, "--url", double.url, "--user", "u", "--password-file", password_file, "--out-dir", tmp_path / "d")
        assert_fails(est(*command), 7, "not signed by any")
    assert not (tmp_path / "d" / "tls.crt").exists()


@pytest.mark.spec("EST-TLS-01")
def test_plain_http_is_refused(options: list[str]) -> None:
    assert_fails(est("cacerts", *options, "--url", "http://localhost:1"), 2, "TLS only")


@pytest.mark.spec("THREAT-36")
def test_a_hostile_certificate_does_not_steer_the_terminal(server: Identity, options: list[str]) -> None:
    hostile = make_ca("\x1b[31m[red]CA\nCN=root")
    with est_double(lambda _: certificates(hostile.certificate), server) as double:
        shown = est("cacerts", *options, "--url", double.url).output
    assert "\x1b[31m" not in shown
    assert "[red]CA" in shown


def test_each_kind_of_failure_has_its_exit_code(
    small_ca: EstDouble, options: list[str], ca: Identity, server: Identity, password_file: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.pem"
    other.write_bytes(make_ca("another CA").pem)
    assert_fails(est("cacerts", *options, "--anchors", other), 6, "not trusted")
    assert_fails(est("cacerts", *options, "--anchors", tmp_path / "absent"), 2, "cannot be read")
    assert_fails(est("cacerts", *options, "--url", "https://127.0.0.1:1"), 5, "no connection")
    answers = iter([Answer(status=403, body=b"CN=root is not permitted"), Answer(headers={"Content-Type": "text/html"})])
    with est_double(lambda _: next(answers), server) as double:
        command = ("enroll", *options, "--url", double.url, "--user", "u", "--password-file", password_file, "--out-dir", tmp_path / "d")
        assert_fails(est(*command), 3, "CN=root is not permitted")
        assert_fails(est(*command), 7, "text/html")


@pytest.mark.parametrize(
    "authentication",
    [[], ["--user", "u", "--token-file", "t"], ["--cert", "c"], ["--key", "k"], ["--password-file", "p", "--token-file", "t"]],
)
def test_exactly_one_way_to_authenticate(options: list[str], tmp_path: Path, authentication: list[str]) -> None:
    assert_fails(est("enroll", *options, *authentication, "--out-dir", tmp_path / "d"), 2, "--")
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize(("option", "value"), [("--subject", "device 7"), ("--ip", "1.2.3"), ("--dns", "bücher.example")])
def test_names_that_cannot_be_are_told(options: list[str], password_file: Path, tmp_path: Path, option: str, value: str) -> None:
    command = ("enroll", *options, "--user", "u", "--password-file", password_file, "--out-dir", tmp_path / "d", option, value)
    assert_fails(est(*command), 2, option)


def test_every_client_error_has_an_exit_code() -> None:
    kinds = [kind for kind in ClientError.__subclasses__() if kind.__module__ == "estcore.errors"]
    assert {EXIT_CODES[kind] for kind in kinds} == {3, 4, 5, 6, 7}


def test_est_runs_as_a_process_and_tells_its_exit_codes() -> None:
    process = subprocess.run([sys.executable, "-m", "estclient", "cacerts", "--help"], capture_output=True, text=True, timeout=30)
    assert process.returncode == 0
    assert "--anchors" in process.stdout
    assert "Exit codes: 0 done; 2 wrong option" in " ".join(process.stdout.split())
