"""A real estserver process for clients that are not ours. A client that is not installed is a failure, never a skip."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from estcore.issuer_spec import KeyAlgorithm
from estcore.keys import PrivateKey
from tests import pki
from tests.collect import collect

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "curl": "curl",
    "openssl": "openssl",
    "pki": "strongswan-pki and libstrongswan-standard-plugins",
    "mvn": "maven and openjdk-17-jdk-headless",
    "gcc": "gcc and libc6-dev",
}
PASSWORD = "replace-this-example-password"
START_SECONDS = 120

RSA_ISSUER = """\
apiVersion: est-issuer.io/v1alpha1
kind: EstIssuer
metadata: {name: rsa, namespace: devices}
spec:
  ca: {secretName: rsa-ca, generate: {commonName: RSA CA, keyAlgorithm: RSA-4096}}
  est:
    authentication: [{certificate: {issuedBy: this}}, {basic: {secretName: device-passwords}}]
  policy:
    rules: [{from: {authentication: basic}, subject: {commonName: "{user}"}, dnsNames: ["{user}.devices.example.com"]}]
"""

BOUND_ISSUER = """\
apiVersion: est-issuer.io/v1alpha1
kind: EstIssuer
metadata: {name: bound, namespace: devices}
spec:
  ca: {secretName: bound-ca, generate: {commonName: Bound CA, keyAlgorithm: ECDSA-P256}}
  est:
    label: bound
    channelBinding: Required
    authentication: [{certificate: {issuedBy: this}}, {basic: {secretName: device-passwords}}]
  policy:
    rules: [{from: {authentication: basic}, subject: {commonName: "{user}"}}]
"""

MANUAL_ISSUER = """\
apiVersion: est-issuer.io/v1alpha1
kind: EstIssuer
metadata: {name: manual, namespace: devices}
spec:
  ca: {secretName: manual-ca, generate: {commonName: Manual CA, keyAlgorithm: ECDSA-P256}}
  est:
    approval: Manual
    authentication: [{basic: {secretName: device-passwords}}]
  policy:
    rules: [{from: {authentication: basic}, subject: {commonName: "{user}"}}]
"""

KEYGEN_ISSUER = """\
apiVersion: est-issuer.io/v1alpha1
kind: EstIssuer
metadata: {name: keygen, namespace: devices}
spec:
  ca: {secretName: keygen-ca, generate: {commonName: Keygen CA, keyAlgorithm: ECDSA-P256}}
  est:
    label: keygen
    authentication: [{basic: {secretName: device-passwords}}]
    serverKeyGeneration: {enabled: true, encryption: Optional, wrappingKeys: {secretName: wrapping-keys}}
  policy:
    rules: [{from: {authentication: basic}, subject: {commonName: "{user}"}}]
"""
DIGEST_ISSUER = """\
apiVersion: est-issuer.io/v1alpha1
kind: EstIssuer
metadata: {name: digest, namespace: devices}
spec:
  ca: {secretName: digest-ca, generate: {commonName: Digest CA, keyAlgorithm: ECDSA-P256}}
  est:
    label: digest
    authentication: [{digest: {secretName: digest-users, md5: true}}]
  policy:
    rules: [{from: {authentication: digest}, subject: {commonName: "{user}"}}]
"""
SECRET_ISSUER = """\
apiVersion: est-issuer.io/v1alpha1
kind: EstIssuer
metadata: {name: secret, namespace: devices}
spec:
  ca: {secretName: secret-ca, generate: {commonName: Secret CA, keyAlgorithm: ECDSA-P256}}
  est:
    label: secret
    authentication: [{cmcSharedSecret: {secretName: cmc-secrets}}]
  policy:
    rules: [{from: {authentication: cmcSharedSecret}, subject: {commonName: "{user}"}}]
"""
WRAPPING_KEY = bytes(range(32))
"""Under the identifier "symmetric"."""


def _secret(name: str, entries: Mapping[str, str]) -> str:
    manifest = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "devices"}, "type": "Opaque"}
    return json.dumps({**manifest, "stringData": dict(entries)})


def digest_users() -> str:
    """device-7 by both algorithms; an HA1 is the hash of user:realm:password, and the realm is the label (RFC 7616 section 3.4.2)."""
    entered = f"device-7:digest:{PASSWORD}".encode()
    ha1 = {"SHA-256": hashlib.sha256(entered).hexdigest(), "MD5": hashlib.md5(entered, usedforsecurity=False).hexdigest()}
    return _secret("digest-users", {"digest": "".join(f"device-7:digest:{name}:{value}\n" for name, value in ha1.items())})


def wrapping_keys() -> str:
    """The Secret that keygen encrypts for: a symmetric key, and the public keys of `wrapping_identity`."""
    holders = {
        f"{name}.pem": wrapping_identity(name).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        for name in ("rsa", "ec")
    }
    return _secret("wrapping-keys", {"symmetric.key": WRAPPING_KEY.hex(), **holders})


def wrapping_identity(name: str) -> PrivateKey:
    """The private key of whom keys are encrypted for."""
    return pki.key(KeyAlgorithm.RSA_2048 if name == "rsa" else KeyAlgorithm.ECDSA_P256, owner=f"wrapping {name}")


@dataclass(frozen=True, kw_only=True)
class RunningServer:
    """Where the server is, and the folder of its `config` and `state`.

    Issuers, of which one is the default: factory (an ECDSA CA, examples/issuer), rsa (an RSA-4096 CA), bound (channel binding required),
    manual (a person approves), digest (HTTP Digest), keygen (makes keys), secret (fullcmc). Their names are labels but of rsa and manual.
    """

    port: int
    anchors: Path
    folder: Path

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}/.well-known/est"


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """A folder with est-root.pem in it, where foreign programs run."""

    folder: Path
    server: RunningServer

    def run(self, *command: object, stdin: bytes = b"", environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [str(part) for part in command],
            cwd=self.folder,
            input=stdin,
            capture_output=True,
            timeout=60,
            env={"PATH": str(Path("/usr/bin")) + ":/bin", "HOME": str(self.folder), **(environment or {})},
        )

    def bash(self, script: str, **environment: str) -> None:
        """Run a script as a person would paste it; each line must succeed."""
        done = self.run("bash", "-euo", "pipefail", "-c", script, environment=environment)
        assert done.returncode == 0, (done.stdout + done.stderr).decode()

    def certificate(self, name: str) -> x509.Certificate:
        """The first certificate of a PEM file, kept for the linters, with its issuer where ca.pem holds it."""
        found = x509.load_pem_x509_certificate((self.folder / name).read_bytes())
        ca_pem = self.folder / "ca.pem"
        ca = x509.load_pem_x509_certificate(ca_pem.read_bytes()).public_bytes(Encoding.DER) if ca_pem.exists() else None
        collect(found.public_bytes(Encoding.DER), ca)
        return found


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Foreign programs and 4096-bit keys take their time."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(600 if "scan" in item.path.parts else 180))


@pytest.fixture(scope="session", autouse=True)
def _programs() -> None:
    absent = [f"{program} (Debian: {package})" for program, package in PACKAGES.items() if shutil.which(program) is None]
    assert not absent, f"interop tests need {', '.join(absent)}"


@contextmanager
def serving(
    folder: Path, default_issuer: str, *, environment: Mapping[str, str] | None = None, manifests: Path | None = None
) -> Iterator[RunningServer]:
    """A server of its own, with EST_… variables of its own, and manifests beside those of all servers here."""
    shutil.copytree(ROOT / "examples" / "issuer", folder / "config")
    (folder / "config" / "rsa.yaml").write_text(RSA_ISSUER)
    (folder / "config" / "bound.yaml").write_text(BOUND_ISSUER)
    (folder / "config" / "manual.yaml").write_text(MANUAL_ISSUER)
    (folder / "config" / "digest.yaml").write_text(DIGEST_ISSUER + "---\n" + digest_users())
    (folder / "config" / "secret.yaml").write_text(SECRET_ISSUER + "---\n" + _secret("cmc-secrets", {"device-7": PASSWORD}))
    (folder / "config" / "keygen.yaml").write_text(KEYGEN_ISSUER + "---\n" + wrapping_keys())
    if manifests is not None:
        shutil.copytree(manifests, folder / "config", dirs_exist_ok=True)
    options = ("--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--default-issuer", default_issuer, "--log-format", "json")
    command = (Path(sys.executable).with_name("estserver"), "serve", "--config", folder / "config", "--state", folder / "state", *options)
    variables = {**os.environ, **(environment or {})}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=variables) as process:
        stuck = threading.Timer(START_SECONDS, process.kill)
        stuck.start()
        try:
            listening = _announced(process)
            stuck.cancel()
            port, anchors = urlsplit(listening["addresses"][0]).port, Path(listening["trust_root"])
            yield RunningServer(port=port or 0, anchors=anchors, folder=folder)
        finally:
            stuck.cancel()
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)
    assert process.returncode == 0


@pytest.fixture(scope="session")
def est_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with serving(tmp_path_factory.mktemp("factory"), "devices/factory") as server:
        yield server


@pytest.fixture(scope="session")
def rsa_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with serving(tmp_path_factory.mktemp("rsa"), "devices/rsa") as server:
        yield server


@pytest.fixture(scope="session")
def manual_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with serving(tmp_path_factory.mktemp("manual"), "devices/manual") as server:
        yield server


def _workshop(folder: Path, server: RunningServer) -> Workshop:
    shutil.copy(server.anchors, folder / "est-root.pem")
    return Workshop(folder=folder, server=server)


@pytest.fixture
def workshop(tmp_path: Path, est_server: RunningServer) -> Workshop:
    return _workshop(tmp_path, est_server)


@pytest.fixture
def rsa_workshop(tmp_path: Path, rsa_server: RunningServer) -> Workshop:
    return _workshop(tmp_path, rsa_server)


@pytest.fixture
def manual_workshop(tmp_path: Path, manual_server: RunningServer) -> Workshop:
    return _workshop(tmp_path, manual_server)


def documented(heading: str, language: str = "sh") -> str:
    """The shell commands, or the program, that docs/clients.md shows under a heading."""
    section = (ROOT / "docs" / "clients.md").read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return section.split(f"```{language}\n")[1].split("```")[0]


def _announced(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        event: dict[str, Any] = json.loads(line) if line.startswith("{") else {}
        if event.get("event") == "listening":
            threading.Thread(target=process.stdout.read, daemon=True).start()
            return event
    raise AssertionError("estserver did not start: " + "".join(said))
