"""Bouncy Castle's EST client: built once a run."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from tests.interop.bouncycastle.client import Client, Run, certificates
from tests.interop.conftest import RunningServer


@pytest.fixture(scope="session")
def class_path() -> str:
    done = subprocess.run([Path(__file__).with_name("build")], stdout=subprocess.PIPE, text=True, timeout=170)
    assert done.returncode == 0, "the Java client was not built"
    return done.stdout.strip()


@pytest.fixture(scope="session")
def bouncy_castle(class_path: str, est_server: RunningServer) -> Iterator[Run]:
    """Run one command of the client at the issuer factory, or the one that `label` names."""
    command = ("java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", class_path, "io.estissuer.interop.Main")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        yield Client(process, est_server).run


@pytest.fixture(scope="session")
def ca(bouncy_castle: Run) -> x509.Certificate:
    (root,) = certificates(bouncy_castle("cacerts"))
    return root
