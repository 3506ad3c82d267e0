"""`make demo`, and the commands that it prints."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.collect import collect
from tests.interop.conftest import ROOT


@pytest.fixture(scope="module")
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        found: int = sock.getsockname()[1]
        return found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def printed(port: int, home: Path) -> str:
    environment = {**os.environ, "EST_DEMO_PORT": str(port), "TMPDIR": str(home)}
    command = [sys.executable, str(ROOT / "examples" / "demo.py")]
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_demo_shows_both_certificates_and_who_asked(printed: str) -> None:
    table = printed.partition("┏")[2].partition("└")[0]
    for fact in ("CN=device-7", "DNS:device-7.devices.example.com", "CN=Factory CA", "HTTP Basic", "TLS client certificate", "UTC"):
        assert fact in table


def test_the_demo_leaves_nothing_behind(printed: str, home: Path) -> None:
    assert list(home.iterdir()) == []
    assert "estserver has stopped" in printed


def test_the_commands_that_the_demo_prints_work_as_they_are(printed: str, home: Path) -> None:
    server, _, rest = printed.partition("the rest in another.\n\n")[2].partition("\n\n")
    environment = {**os.environ, "HOME": str(home), "EST_METRICS_LISTEN": "127.0.0.1:0"}
    with subprocess.Popen(["bash", "-c", f"exec {server}"], env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any("listening" in line for line in process.stdout)
        try:
            done = subprocess.run(["bash", "-euo", "pipefail", "-c", rest], env=environment, capture_output=True, text=True, timeout=60)
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "first.pem: OK\nsecond.pem: OK\n" in done.stdout
    ca = x509.load_pem_x509_certificate((home / "est-by-hand" / "ca.pem").read_bytes())
    for name in ("first.pem", "second.pem"):
        issued = x509.load_pem_x509_certificate((home / "est-by-hand" / name).read_bytes())
        collect(issued.public_bytes(Encoding.DER), ca.public_bytes(Encoding.DER))
