"""A new server certificate in a running estserver, as one that cert-manager or a person keeps in files."""

import signal
import socket
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from tests import pki
from tests.interop.conftest import ROOT
from tests.server.running import estserver
from tests.server.transport_fixtures import ROOT as SERVING_ROOT

QUESTION = b"GET /.well-known/est/factory/cacerts HTTP/1.1\r\nHost: localhost\r\n\r\n"


def put(folder: Path, owner: str) -> x509.Certificate:
    """Certificate and key into the files that the server was told of."""
    private = pki.key(owner=owner)
    now = datetime.now(UTC)
    lifetime = {"not_before": now - timedelta(hours=1), "not_after": now + timedelta(hours=1)}
    names = {"subject": pki.name(owner), "sans": [x509.DNSName("localhost")], "ekus": [pki.SERVER_AUTH]}
    certificate = pki.leaf(SERVING_ROOT, public_key=private.public_key(), **names, **lifetime)  # type: ignore[arg-type]  # by name
    (folder / "tls.crt").write_bytes(pki.pem(certificate))
    (folder / "tls.key").write_bytes(pki.key_pem(private))
    (folder / "tls.key").chmod(0o600)
    return certificate


def connect(port: int) -> ssl.SSLSocket:
    context = ssl.create_default_context(cadata=pki.pem(SERVING_ROOT.certificate).decode())
    return context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=10), server_hostname="localhost")


def ask(connection: ssl.SSLSocket) -> bytes:
    connection.sendall(QUESTION)
    return connection.recv(12)


def shown(connection: ssl.SSLSocket) -> x509.Certificate:
    der = connection.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der)


async def test_the_files_are_read_again_at_sighup_and_open_connections_go_on(tmp_path: Path) -> None:
    former = put(tmp_path, "former")
    files = ("--serving-certificate", tmp_path / "tls.crt", "--serving-key", tmp_path / "tls.key")
    options = ("--config", ROOT / "examples" / "issuer", "--state", tmp_path / "state", *files)
    async with estserver(*map(str, options)) as server:
        port = int((await server.url()).rpartition(":")[2])
        with connect(port) as old:
            assert ask(old) == b"HTTP/1.1 200"
            latter = put(tmp_path, "latter")
            server.process.send_signal(signal.SIGHUP)
            await server.until("using another server certificate")
            with connect(port) as new:
                assert (shown(old), shown(new)) == (former, latter)
                old.recv(100_000)
                assert ask(old) == ask(new) == b"HTTP/1.1 200"
