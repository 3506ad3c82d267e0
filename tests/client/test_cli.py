"""The command `est`."""

import base64
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from typer.testing import CliRunner, Result

from estclient import keyfile
from estclient.__main__ import EXIT_CODES, app
from estcore import csrattrs, der
from estcore.attribute import Attribute
from estcore.csr_template import ExtensionTemplate, NameComponent, Template
from estcore.csr_vocabulary import OTP_CHALLENGE
from estcore.errors import ClientError
from estcore.keys import generate_private_key, key_algorithm
from estcore.spec_part import KeyAlgorithm
from tests.client.double import Answer, EstDouble, Identity, Seen, build, certificates, est_double, issue, make_ca, name
from tests.core import vectors

PASSWORD = "correct horse"
EVIL = x509.DNSName("evil.example")


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


@pytest.mark.spec("EST-ATTR-01", "EST-ATTR-02")
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
    assert [seen.target.rpartition("/")[2] for seen in small_ca.seen] == ["csrattrs", "simpleenroll", "cacerts"]
    assert small_ca.seen[1].headers["authorization"] == "Basic ZGV2aWNlLTc6Y29ycmVjdCBob3JzZQ=="
    first = x509.load_pem_x509_certificate((out / "tls.crt").read_bytes())
    assert first.subject.rfc4514_string() == "CN=device-7,O=Factory"
    assert (out / "ca.crt").read_bytes() == ca.pem
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in out.iterdir()} == {"tls.key": 0o600, "tls.crt": 0o644, "ca.crt": 0o644}
    key = load_pem_private_key((out / "tls.key").read_bytes(), password=None)
    assert key.public_key() == first.public_key()

    result = est("renew", *options, "--cert", out / "tls.crt", "--key", out / "tls.key")
    assert result.exit_code == 0, result.stderr
    second = x509.load_pem_x509_certificate((out / "tls.crt").read_bytes())
    assert small_ca.seen[3].target.endswith("/factory/simplereenroll")
    assert "authorization" not in small_ca.seen[3].headers
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


@pytest.mark.spec("EST-RESP-04")
def test_names_that_the_issuer_changed_are_told_and_the_certificate_is_written(
    ca: Identity, server: Identity, options: list[str], password_file: Path, tmp_path: Path
) -> None:
    def behave(seen: Seen) -> Answer:
        if seen.method == "GET":
            return certificates(ca.certificate)
        return certificates(build(name("device-8"), x509.load_der_x509_csr(seen.csr_der).public_key(), signer=ca))

    out = tmp_path / "d"
    with est_double(behave, server, client_ca=ca) as double:
        common = (*options, "--url", double.url)
        enrolled = est("enroll", *common, "--user", "u", "--password-file", password_file, "--out-dir", out, "--subject", "CN=device-7")
        renewed = est("renew", *common, "--cert", out / "tls.crt", "--key", out / "tls.key")
    said = "est: the certificate is not what was asked for: its subject is CN=device-8, and CN=device-7 was asked for\n"
    assert (enrolled.exit_code, enrolled.stderr) == (0, said)
    assert x509.load_pem_x509_certificate((out / "tls.crt").read_bytes()).subject == name("device-8")
    assert (renewed.exit_code, renewed.stderr) == (0, ""), "it was asked for again"


@pytest.mark.spec("EST-RESP-04")
def test_a_renewal_that_changes_names_says_so(ca: Identity, server: Identity, device: "Device") -> None:
    def behave(seen: Seen) -> Answer:
        if seen.method == "GET":
            return certificates(ca.certificate)
        return certificates(build(name("device-7"), x509.load_der_x509_csr(seen.csr_der).public_key(), signer=ca, sans=[EVIL]))

    with est_double(behave, server, client_ca=ca) as double:
        result = est(*device.command, "--url", double.url)
    said = "est: the certificate is not what was asked for: DNS:evil.example is in it and was not asked for\n"
    assert (result.exit_code, result.stderr) == (0, said)


@dataclass
class Device:
    """A folder with a certificate and its key, and the command that renews them with a new key."""

    folder: Path
    command: tuple[object, ...]

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.folder.iterdir()}

    def key(self) -> bytes:
        return public_octets(load_pem_private_key((self.folder / "tls.key").read_bytes(), password=None).public_key())

    def certified(self) -> bytes:
        return public_octets(x509.load_pem_x509_certificate((self.folder / "tls.crt").read_bytes()).public_key())


def public_octets(key: Any) -> bytes:
    return bytes(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


@pytest.fixture
def device(options: list[str], password_file: Path, tmp_path: Path) -> Device:
    out = tmp_path / "device"
    enroll = ("enroll", *options, "--user", "u", "--password-file", password_file, "--out-dir", out, "--subject", "CN=device-7")
    assert est(*enroll).exit_code == 0
    return Device(out, ("renew", *options, "--cert", out / "tls.crt", "--key", out / "tls.key", "--new-key", "ECDSA-P256"))


@pytest.mark.spec("EST-RESP-09", "EST-RESP-11")
@pytest.mark.parametrize(
    ("first", "code"), [(Answer(status=202, headers={"Retry-After": "30"}), 4), (Answer(cut=True), 7)], ids=["a wait", "no answer"]
)
def test_a_rekey_that_is_repeated_asks_for_the_same_key_and_leaves_the_old_one_alone_until_then(
    ca: Identity, server: Identity, device: Device, first: Answer, code: int
) -> None:
    answers = iter([first, None, None])

    def behave(seen: Seen) -> Answer:
        if seen.method == "GET":
            return certificates(ca.certificate)
        return next(answers) or certificates(issue(ca, seen.csr_der))

    before = device.files()
    with est_double(behave, server, client_ca=ca) as double:
        command = (*device.command, "--url", double.url)
        assert est(*command).exit_code == code
        assert {name: device.files()[name] for name in before} == before
        assert stat.S_IMODE((device.folder / "tls.key.new").stat().st_mode) == 0o600
        assert est(*command).exit_code == 0
        assert device.files().keys() == before.keys(), "no other copy of the key stays"
        assert est(*command).exit_code == 0
        asked = [public_octets(x509.load_der_x509_csr(seen.csr_der).public_key()) for seen in double.seen if seen.method == "POST"]
    assert asked[0] == asked[1] != asked[2]
    assert device.key() == device.certified() == asked[2]
    assert stat.S_IMODE((device.folder / "tls.key").stat().st_mode) == 0o600


def test_a_rekey_that_ended_between_its_certificate_and_its_key_is_finished_by_the_next_renewal(
    device: Device, small_ca: EstDouble
) -> None:
    old = device.files()
    assert est(*device.command).exit_code == 0
    done = device.key()
    (device.folder / "tls.key").rename(device.folder / "tls.key.new")
    (device.folder / "tls.key").write_bytes(old["tls.key"])
    result = est(*device.command[:-2])
    assert result.exit_code == 0, result.stderr
    assert device.key() == device.certified() == done
    assert device.files().keys() == old.keys()


def test_a_rekey_that_ended_before_it_tidied_up_makes_another_key_the_next_time(device: Device) -> None:
    assert est(*device.command).exit_code == 0
    done = device.key()
    (device.folder / "tls.key.new").write_bytes(device.files()["tls.key"])
    assert est(*device.command).exit_code == 0
    assert device.key() == device.certified() != done
    assert "tls.key.new" not in device.files()


def test_a_rekey_into_another_folder_writes_the_key_after_its_certificate(device: Device, small_ca: EstDouble, tmp_path: Path) -> None:
    out = tmp_path / "next"
    (out / "tls.crt").mkdir(parents=True)
    before = device.files()
    command = (*device.command, "--out-dir", out)
    assert_fails(est(*command), 2, "cannot be written")
    assert not (out / "tls.key").exists()
    (out / "tls.crt").rmdir()
    assert est(*command).exit_code == 0
    assert device.files() == before
    renewed = Device(out, ())
    assert renewed.files().keys() == {"tls.key", "tls.crt", "ca.crt"}
    assert renewed.key() == renewed.certified()
    first, second = (
        public_octets(x509.load_der_x509_csr(seen.csr_der).public_key()) for seen in small_ca.seen if "reenroll" in seen.target
    )
    assert first == second == renewed.key()


def test_a_next_key_of_another_algorithm_than_the_one_demanded_is_told(device: Device) -> None:
    (device.folder / "tls.key.new").write_bytes(keyfile.to_pem(generate_private_key(KeyAlgorithm.ECDSA_P384)))
    before = device.files()
    assert_fails(est(*device.command), 2, "not of ECDSA-P256")
    assert device.files() == before


@pytest.mark.parametrize("rekey", [(), ("--new-key", "ECDSA-P256")], ids=["same key", "new key"])
def test_a_certificate_and_its_key_in_one_file_are_renewed_into_another_folder_only(
    device: Device, small_ca: EstDouble, rekey: tuple[str, ...], tmp_path: Path
) -> None:
    """In place, the one would be written over the other."""
    both = tmp_path / "both.pem"
    both.write_bytes(device.files()["tls.crt"] + device.files()["tls.key"])
    linked = tmp_path / "linked.pem"
    linked.symlink_to(both)
    before = both.read_bytes()
    small_ca.seen.clear()
    command = (*device.command[:-6], "--cert", both, *rekey)
    for key in (both, linked):
        assert_fails(est(*command, "--key", key), 2, "use --out-dir")
    assert (both.read_bytes(), small_ca.seen) == (before, [])
    assert est(*command, "--key", both, "--out-dir", tmp_path / "next").exit_code == 0
    assert both.read_bytes() == before


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


@pytest.mark.spec("EST-AUTH-01")
def test_a_renewal_shows_certificate_and_password_where_both_are_given(
    options: list[str], small_ca: EstDouble, password_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "d"
    user = ("--user", "device-7", "--password-file", password_file)
    assert est("enroll", *options, *user, "--subject", "CN=device-7", "--out-dir", out).exit_code == 0
    small_ca.seen.clear()
    result = est("renew", *options, *user, "--cert", out / "tls.crt", "--key", out / "tls.key")
    assert result.exit_code == 0, result.stderr
    renewal = next(seen for seen in small_ca.seen if seen.target.endswith("/simplereenroll"))
    assert renewal.client_certificate is not None
    assert renewal.headers["authorization"].startswith("Basic ")


@pytest.mark.spec("EST-AUTH-03")
def test_a_password_by_digest_waits_for_the_challenge(
    options: list[str], ca: Identity, server: Identity, password_file: Path, tmp_path: Path
) -> None:
    def behave(seen: Seen) -> Answer:
        if seen.target.endswith("/cacerts"):
            return certificates(ca.certificate)
        if "authorization" not in seen.headers:
            return Answer(status=401, headers={"WWW-Authenticate": 'Digest realm="factory", qop="auth", algorithm=SHA-256, nonce="n"'})
        return certificates(issue(ca, seen.csr_der))

    with est_double(behave, server) as double:
        command = ("enroll", *options, "--url", double.url, "--user", "u", "--password-file", password_file, "--auth", "digest")
        result = est(*command, "--subject", "CN=device-7", "--out-dir", tmp_path / "d")
        assert result.exit_code == 0, result.stderr
        sent = [seen.headers.get("authorization", "").partition(" ")[0] for seen in double.seen if seen.method == "POST"]
    assert sent == ["", "Digest"]


@pytest.mark.parametrize(("option", "value"), [("--subject", "device 7"), ("--ip", "1.2.3"), ("--dns", "bücher.example")])
def test_names_that_cannot_be_are_told(options: list[str], password_file: Path, tmp_path: Path, option: str, value: str) -> None:
    command = ("enroll", *options, "--user", "u", "--password-file", password_file, "--out-dir", tmp_path / "d", option, value)
    assert_fails(est(*command), 2, option)


TEMPLATE = vectors.body("derived-rfc9908-3.4-template-csrattrs")


def csr_attrs(body: bytes) -> Answer:
    return Answer(headers={"Content-Type": "application/csrattrs"}, body=body)


@pytest.fixture
def wishing_ca(small_ca: EstDouble) -> Iterator[EstDouble]:
    told_before = small_ca.csr_attrs
    yield small_ca
    small_ca.csr_attrs = told_before


@pytest.mark.spec("EST-ATTR-01", "EST-ATTR-07", "EST-ATTR-16", "EST-ATTR-17")
def test_what_the_options_leave_unsaid_is_taken_from_the_template(
    options: list[str], wishing_ca: EstDouble, password_file: Path, tmp_path: Path
) -> None:
    wishing_ca.csr_attrs = csr_attrs(TEMPLATE)
    command = ("enroll", *options, "--user", "device-7", "--password-file", password_file, "--out-dir", tmp_path / "d")
    result = est(*command, "--subject", "CN=device-7", "--ip", "192.0.2.7")
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    csr = x509.load_der_x509_csr(wishing_ca.seen[1].csr_der)
    assert csr.subject.rfc4514_string() == "OU=myGroup,OU=myDept,CN=device-7"
    names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in names] == ["www.myServer.com", "192.0.2.7"]


@pytest.mark.spec("EST-ATTR-07")
@pytest.mark.parametrize(
    ("vector", "algorithm", "digest"),
    [("rfc9908-5.5-csrattrs", KeyAlgorithm.ECDSA_P384, "sha384"), ("rfc9908-5.4-csrattrs", KeyAlgorithm.RSA_4096, "sha256")],
)
def test_the_new_key_is_the_one_that_the_issuer_wants(
    options: list[str], wishing_ca: EstDouble, password_file: Path, tmp_path: Path, vector: str, algorithm: KeyAlgorithm, digest: str
) -> None:
    wishing_ca.csr_attrs = csr_attrs(vectors.body(vector))
    command = ("enroll", *options, "--user", "device-7", "--password-file", password_file, "--out-dir", tmp_path / "d")
    assert est(*command, "--subject", "CN=device-7,2.5.4.5=4711").exit_code == 0
    csr = x509.load_der_x509_csr(wishing_ca.seen[1].csr_der)
    assert key_algorithm(csr.public_key()) is algorithm
    assert csr.signature_hash_algorithm is not None
    assert csr.signature_hash_algorithm.name == digest


def test_a_key_algorithm_that_was_demanded_is_made(options: list[str], wishing_ca: EstDouble, password_file: Path, tmp_path: Path) -> None:
    wishing_ca.csr_attrs = csr_attrs(vectors.body("rfc9908-5.4-csrattrs"))
    command = ("enroll", *options, "--user", "device-7", "--password-file", password_file, "--out-dir", tmp_path / "d")
    assert est(*command, "--key-algorithm", "Ed25519").exit_code == 0
    assert key_algorithm(x509.load_der_x509_csr(wishing_ca.seen[1].csr_der).public_key()) is KeyAlgorithm.ED25519


@pytest.mark.spec("EST-ATTR-04")
@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (csr_attrs(TEMPLATE), "the subject's commonName\n"),
        (csr_attrs(vectors.body("rfc7030-a2-csrattrs-response")), "the attribute macAddress\n"),
        (csr_attrs(vectors.body("rfc7030-452-csrattrs")), "the extensionRequest"),
        (csr_attrs(b"not base64!"), "CSR attributes, but the server's answer is no CSR attributes"),
        (Answer(status=403, body=b"not for you"), "CSR attributes, but the server refused (403): not for you"),
        (Answer(headers={"Content-Type": "text/html"}), "CSR attributes, but the server answered with text/html instead"),
    ],
)
def test_what_the_issuer_wants_and_nobody_can_give_is_told_and_no_obstacle(
    options: list[str], wishing_ca: EstDouble, password_file: Path, tmp_path: Path, answer: Answer, says: str
) -> None:
    wishing_ca.csr_attrs = answer
    command = ("enroll", *options, "--user", "device-7", "--password-file", password_file, "--out-dir", tmp_path / "d")
    result = est(*command)
    assert result.exit_code == 0, result.stderr
    assert f"est: not in the certificate request, though the issuer may want it: {says}" in result.stderr


@pytest.mark.spec("EST-ATTR-02")
@pytest.mark.parametrize("answer", [Answer(status=204), Answer(status=404), Answer(status=501), csr_attrs(b"MAA=")])
def test_no_wishes_are_all_the_same(options: list[str], wishing_ca: EstDouble, password_file: Path, tmp_path: Path, answer: Answer) -> None:
    wishing_ca.csr_attrs = answer
    command = ("enroll", *options, "--user", "device-7", "--password-file", password_file, "--out-dir", tmp_path / "d")
    result = est(*command, "--subject", "CN=device-7")
    assert (result.exit_code, result.stderr) == (0, "")
    assert not x509.load_der_x509_csr(wishing_ca.seen[1].csr_der).extensions
    shown = est("csrattrs", *options)
    assert (shown.exit_code, shown.stdout) == (0, "the issuer wants nothing in particular\n")


@pytest.mark.spec("EST-POP-18")
def test_a_one_time_password_goes_into_the_csr_where_the_issuer_takes_one(
    options: list[str], wishing_ca: EstDouble, tmp_path: Path
) -> None:
    (tmp_path / "otp").write_text("42-otp\n")
    command = ("enroll", *options, "--one-time-password-file", tmp_path / "otp", "--subject", "CN=device-7", "--out-dir", tmp_path / "d")
    assert_fails(est(*command), 2, "ask for no one-time password (otpChallenge), so it was not sent")
    wishing_ca.csr_attrs = csr_attrs(base64.b64encode(csrattrs.encode((OTP_CHALLENGE,))))
    assert_fails(est(*command), 3, "log in")  # this one takes passwords only
    csr = x509.load_der_x509_csr(wishing_ca.seen[-1].csr_der)
    assert csr.attributes.get_attribute_for_oid(x509.ObjectIdentifier(OTP_CHALLENGE)).value == b"42-otp"


def test_wrong_credentials_are_tried_once(options: list[str], wishing_ca: EstDouble, password_file: Path, tmp_path: Path) -> None:
    wishing_ca.csr_attrs = Answer(status=401, headers={"WWW-Authenticate": 'Basic realm="est"'}, body=b"wrong password")
    command = ("enroll", *options, "--user", "device-7", "--password-file", password_file, "--out-dir", tmp_path / "d")
    assert_fails(est(*command), 3, "wrong password")
    assert len(wishing_ca.seen) == 1
    assert not (tmp_path / "d").exists()


def test_csrattrs_shows_what_the_issuer_wants_as_a_table(options: list[str], wishing_ca: EstDouble) -> None:
    wishing_ca.csr_attrs = csr_attrs(TEMPLATE)
    result = est("csrattrs", *options)
    assert result.exit_code == 0, result.stderr
    shown = [[cell.strip() for cell in line.split("│")[1:-1]] for line in result.stdout.splitlines() if "│" in line]
    assert shown == [
        ["key", "EC P-256"],
        ["subject: commonName", "yours to fill in"],
        ["subject: organizationalUnitName", "myDept"],
        ["subject: organizationalUnitName", "myGroup"],
        ["extension: subjectAltName", "DNS:www.myServer.com"],
        ["", "IP: yours to fill in"],
        ["extension: keyUsage (critical)", "digital signature"],
        ["", "key agreement"],
        ["extension: extendedKeyUsage", "yours to fill in"],
    ]


def test_csrattrs_asks_as_whoever_it_is_told(options: list[str], wishing_ca: EstDouble, password_file: Path) -> None:
    wishing_ca.csr_attrs = csr_attrs(vectors.body("rfc9908-5.2-csrattrs"))
    shown = est("csrattrs", *options, "--user", "device-7", "--password-file", password_file).stdout
    assert wishing_ca.seen[0].headers["authorization"] == "Basic ZGV2aWNlLTc6Y29ycmVjdCBob3JzZQ=="
    for cell in ("EC P-384", "ECDSA with SHA-384", "attribute: challengePassword", "the channel binding", "attribute: macAddress"):
        assert cell in shown


@pytest.mark.spec("THREAT-36")
def test_hostile_csr_attributes_do_not_steer_the_terminal(options: list[str], wishing_ca: EstDouble) -> None:
    value = der.tlv(0x0C, b"\x1b[31m[red]x\n")
    subject = ((NameComponent(type="2.5.4.3", value=value),),)
    extensions = (ExtensionTemplate(oid="2.5.29.17", value=der.tlv(0x30, der.tlv(0x86, b"urn:\x1b[31m"))),)
    template = Template(subject=subject, extensions=extensions)
    items = (Attribute(type="1.2.840.113549.1.9.16.2.61", values=(template.encode(),)),)
    wishing_ca.csr_attrs = csr_attrs(base64.b64encode(csrattrs.encode(items)))
    result = est("csrattrs", *options)
    assert result.exit_code == 0, result.stderr
    assert "\x1b[31m" not in result.output
    assert "[red]x" in result.output


def test_every_client_error_has_an_exit_code() -> None:
    kinds = [kind for kind in ClientError.__subclasses__() if kind.__module__ == "estcore.errors"]
    assert {EXIT_CODES[kind] for kind in kinds} == {3, 4, 5, 6, 7}


def test_est_runs_as_a_process_and_tells_its_exit_codes() -> None:
    process = subprocess.run([sys.executable, "-m", "estclient", "cacerts", "--help"], capture_output=True, text=True, timeout=30)
    assert process.returncode == 0
    assert "--anchors" in process.stdout
    assert "Exit codes: 0 done; 2 wrong option" in " ".join(process.stdout.split())
