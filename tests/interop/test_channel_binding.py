"""Channel binding between estserver and clients that know their own connection's value from another TLS library (RFC 7030 section 3.5)."""

import base64
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from tests import pki
from tests.interop.conftest import PASSWORD, RunningServer
from tests.interop.tls_clients import Connection, python_connection, python_context, s_client_connection

LOGIN = base64.b64encode(f"device-7:{PASSWORD}".encode())
SUBJECT = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "device-7")]).public_bytes()
DIRECTORY_STRINGS = {
    "printable": (0x13, "ascii"),
    "utf8": (0x0C, "utf-8"),
    "t61": (0x14, "latin-1"),
    "universal": (0x1C, "utf-32-be"),
    "bmp": (0x1E, "utf-16-be"),
}

EST_IDENTITY_LINKING = "1.2.840.113549.1.9.16.2.58"

Connect = Callable[[RunningServer], AbstractContextManager[Connection]]


def _tls_unique(server: RunningServer) -> AbstractContextManager[Connection]:
    return python_connection(server.port, python_context(server))


def _tls_exporter(server: RunningServer) -> AbstractContextManager[Connection]:
    return s_client_connection(server, "-tls1_3")


CLIENTS = {"TLS 1.2 tls-unique": (_tls_unique, 12), "TLS 1.3 tls-exporter": (_tls_exporter, 32)}
each_client = pytest.mark.parametrize(("connect", "octets"), CLIENTS.values(), ids=CLIENTS)


def enrol(
    connection: Connection, password: str | None, *, linking: str | None = None, kind: str = "printable", label: str = "factory"
) -> tuple[int, str]:
    """Post a CSR with this challengePassword and this estIdentityLinking, of a key of its own."""
    identifier, encoding = DIRECTORY_STRINGS[kind]
    values = {pki.CHALLENGE_PASSWORD: password, EST_IDENTITY_LINKING: linking}
    attributes = [pki.attribute(oid, pki.tlv(identifier, each.encode(encoding))) for oid, each in values.items() if each is not None]
    key = pki.key(owner=f"{values} {kind} {label}")
    csr_der = pki.raw_csr(*attributes, subject_der=SUBJECT, private_key=key)
    body = base64.b64encode(csr_der)
    head = f"POST /.well-known/est/{label}/simpleenroll HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/pkcs10\r\n"
    return connection.ask(head.encode() + b"Authorization: Basic %b\r\nContent-Length: %d\r\n\r\n%b" % (LOGIN, len(body), body))


def text(binding: bytes) -> str:
    return base64.b64encode(binding).decode()


def refused(answer: tuple[int, str]) -> bool:
    status, reason = answer
    return status == 400 and "channel binding" in reason


@pytest.mark.spec("EST-POP-02", "EST-POP-07", "EST-POP-08", "EST-POP-09", "EST-POP-12")
@each_client
@pytest.mark.parametrize("kind", DIRECTORY_STRINGS)
def test_the_value_of_this_connection_is_accepted_in_every_string_type(
    est_server: RunningServer, connect: Connect, octets: int, kind: str
) -> None:
    with connect(est_server) as connection:
        assert len(connection.binding) == octets
        assert enrol(connection, text(connection.binding), kind=kind)[0] == 200


@pytest.mark.spec("EST-POP-03", "EST-POP-04", "EST-POP-07", "THREAT-16")
@each_client
def test_no_other_value_is_accepted_and_the_connection_goes_on(est_server: RunningServer, connect: Connect, octets: int) -> None:
    with connect(est_server) as connection:
        value = text(connection.binding)
        truncated = [text(connection.binding[:length]) for length in (0, 1, 4, 8, octets - 1)] + [value[:-1], value[:-4], value[1:]]
        flipped = text(bytes((connection.binding[0] ^ 1, *connection.binding[1:])))
        others = [value.lower(), value.upper(), value.swapcase(), value + " ", value + "\n", value + value, flipped]
        others += [connection.binding.hex(), base64.urlsafe_b64encode(connection.binding).decode() + "=", text(bytes(octets)), "secret"]
        for other in {*truncated, *others} - {value}:
            status, reason = enrol(connection, other)
            assert status == 400, (other, value)
            assert "challengePassword" in reason or "channel binding" in reason
        assert enrol(connection, value)[0] == 200
        assert enrol(connection, None)[0] == 200, "absence offers no binding, and this issuer requires none"


@pytest.mark.spec("EST-POP-17", "THREAT-16")
@each_client
def test_est_identity_linking_is_verified_alone_and_beside_challenge_password(
    est_server: RunningServer, connect: Connect, octets: int
) -> None:
    """Each that is there must be right (RFC 7894 section 4)."""
    with connect(est_server) as connection:
        right, wrong = text(connection.binding), text(bytes(octets))
        for label in ("factory", "bound"):
            assert enrol(connection, None, linking=right, label=label)[0] == 200
            assert enrol(connection, right, linking=right, label=label)[0] == 200
            for pair in ((None, wrong), (right, wrong), (wrong, right)):
                assert refused(enrol(connection, pair[0], linking=pair[1], label=label)), pair


@pytest.mark.spec("EST-POP-10", "THREAT-16")
@each_client
def test_a_value_of_another_connection_is_refused_though_that_one_is_open(est_server: RunningServer, connect: Connect, octets: int) -> None:
    with connect(est_server) as first, connect(est_server) as second:
        assert first.binding != second.binding
        assert refused(enrol(second, text(first.binding)))
        assert refused(enrol(first, text(second.binding)))
        assert enrol(second, text(second.binding))[0] == 200


@pytest.mark.spec("EST-POP-05")
@each_client
def test_an_issuer_that_requires_binding_refuses_its_absence_and_says_so(est_server: RunningServer, connect: Connect, octets: int) -> None:
    with connect(est_server) as connection:
        status, reason = enrol(connection, None, label="bound")
        assert status == 400
        assert "linking of identity and proof of possession is required" in reason
        assert refused(enrol(connection, text(bytes(octets)), label="bound"))
        assert enrol(connection, text(connection.binding), label="bound")[0] == 200


@pytest.mark.spec("EST-POP-12", "EST-POP-14", "THREAT-16")
def test_tls_unique_means_nothing_on_tls_1_3(est_server: RunningServer) -> None:
    """Python's ssl gives Finished octets there too (RFC 9266 section 1 says why they are no binding)."""
    with python_connection(est_server.port, python_context(est_server, ssl.TLSVersion.TLSv1_3)) as connection:
        assert len(connection.binding) in {32, 48}
        assert refused(enrol(connection, text(connection.binding)))
        assert refused(enrol(connection, text(connection.binding[:32])))
        assert refused(enrol(connection, text(connection.binding[:12])))


@pytest.mark.spec("EST-POP-13", "EST-POP-14")
def test_tls_exporter_means_nothing_on_tls_1_2(est_server: RunningServer) -> None:
    with s_client_connection(est_server, "-tls1_2") as connection:
        assert refused(enrol(connection, text(connection.binding)))


# ---- resumption


@pytest.fixture(scope="module")
def resuming_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """`openssl s_server`, which gives sessions: estserver gives none, so what a client offers must come from elsewhere."""
    folder = tmp_path_factory.mktemp("s_server")
    made = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=localhost")
    subprocess.run([*made, "-keyout", folder / "key.pem", "-out", folder / "cert.pem"], check=True, capture_output=True)
    command = ("openssl", "s_server", "-accept", "127.0.0.1:0", "-www", "-key", folder / "key.pem", "-cert", folder / "cert.pem")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        while not (line := process.stdout.readline()).startswith(b"ACCEPT "):
            assert line, "s_server did not start"
        threading.Thread(target=process.stdout.read, daemon=True).start()
        yield int(line.rpartition(b":")[2])
        process.kill()


@pytest.mark.spec("EST-POP-10", "EST-POP-11", "EST-TLS-11", "THREAT-16")
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_a_session_offered_gets_a_full_handshake(est_server: RunningServer, resuming_port: int, tmp_path: Path, version: str) -> None:
    session = tmp_path / "session.pem"
    with s_client_connection(est_server, version, "-sess_out", str(session), port=resuming_port) as connection:
        assert connection.ask(b"GET / HTTP/1.0\r\n\r\n")[0] == 200
    offered = ("-sess_in", str(session))
    with s_client_connection(est_server, version, *offered, port=resuming_port) as connection:
        assert connection.reused, "the session is good where it came from"
    with s_client_connection(est_server, version, *offered) as connection:
        assert not connection.reused


@pytest.mark.spec("EST-POP-09", "EST-POP-10", "EST-POP-11", "THREAT-16")
def test_after_a_resumption_attempt_the_old_value_is_refused_and_the_new_one_accepted(
    est_server: RunningServer, resuming_port: int
) -> None:
    context = python_context(est_server)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # of the stranger that gave the session
    with python_connection(resuming_port, context) as stranger:
        session = stranger.session
    with python_connection(resuming_port, context, session) as stranger:
        assert stranger.reused
    with python_connection(est_server.port, context) as first, python_connection(est_server.port, context, session) as second:
        assert not second.reused
        assert refused(enrol(second, text(first.binding)))
        assert enrol(second, text(second.binding))[0] == 200
