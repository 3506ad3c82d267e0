"""Bouncy Castle's EST client: built once a run."""

import subprocess
from functools import partial
from pathlib import Path

import pytest
from cryptography import x509

from tests.interop.bouncycastle import client
from tests.interop.bouncycastle.client import Run, certificates
from tests.interop.conftest import RunningServer


@pytest.fixture(scope="session")
def class_path() -> str:
    done = subprocess.run([Path(__file__).with_name("build")], stdout=subprocess.PIPE, text=True, timeout=170)
    assert done.returncode == 0, "the Java client was not built"
    return done.stdout.strip()


@pytest.fixture(scope="session")
def bouncy_castle(class_path: str, est_server: RunningServer) -> Run:
    """Run one command of the client at the issuer factory, or the one that `label` names."""
    return partial(client.run, class_path, est_server, label="factory")


@pytest.fixture(scope="session")
def ca(bouncy_castle: Run) -> x509.Certificate:
    (root,) = certificates(bouncy_castle("cacerts"))
    return root
