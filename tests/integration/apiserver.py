"""A real etcd and kube-apiserver on loopback: what the integration tests talk to.

The binaries come from the directory in KUBEBUILDER_ASSETS (`make integration` sets it, building them where nothing is set). There is
no controller-manager: namespaces are never emptied and no ServiceAccount is made by itself, so the admission plugin that would
wait for one is off.
"""

import datetime as dt
import ipaddress
import json
import os
import secrets
import signal
import socket
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

from tests.integration.api_client import ApiClient

START_SECONDS = 60
CRDS = Path(__file__).resolve().parents[2] / "crds"


def assets() -> Path:
    """The directory of etcd, kube-apiserver and kubectl; fails loudly where there is none, for a skipped test shows nothing."""
    directory = os.environ.get("KUBEBUILDER_ASSETS")
    if not directory:
        raise RuntimeError("KUBEBUILDER_ASSETS is not set: run `make integration`, or set it to where etcd, kube-apiserver and kubectl are")
    absent = [name for name in ("etcd", "kube-apiserver", "kubectl") if not os.access(Path(directory) / name, os.X_OK)]
    if absent:
        raise RuntimeError(f"KUBEBUILDER_ASSETS={directory} has no {', '.join(absent)}")
    return Path(directory)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


class ApiServer:
    """etcd, kube-apiserver with RBAC, and an administrator's kubeconfig. `directory` is its own; `options` go to kube-apiserver."""

    def __init__(self, directory: Path, *, options: Sequence[str] = ()) -> None:
        self.assets = assets()
        self.directory = directory
        self.options = tuple(options)
        self.kubectl_path = self.assets / "kubectl"
        self.port = free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self.admin_token = secrets.token_hex(16)
        self.ca_pem = self._write_keys()
        self.kubeconfig = self.kubeconfig_with(self.admin_token, name="admin")
        self.client = ApiClient(self.url, ca_pem=self.ca_pem, token=self.admin_token)
        self._etcd: subprocess.Popen[bytes] | None = None
        self._apiserver: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        client, peer = free_port(), free_port()
        self._etcd_url = f"http://127.0.0.1:{client}"
        self._etcd = self._run(
            "etcd",
            f"--data-dir={self.directory / 'etcd'}",
            f"--listen-client-urls={self._etcd_url}",
            f"--advertise-client-urls={self._etcd_url}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
            "--unsafe-no-fsync",
            "--log-level=error",
        )
        self.start_apiserver()
        self.kubectl("apply", "--server-side", "-f", str(CRDS))
        self.kubectl("wait", "--for=condition=Established", "--timeout=30s", "-f", str(CRDS))

    def start_apiserver(self) -> None:
        """Start kube-apiserver and wait until it is ready; also after `stop_apiserver`, on the same port with the same data."""
        self.client.forget()
        keys = self.directory
        self._apiserver = self._run(
            "kube-apiserver",
            f"--etcd-servers={self._etcd_url}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self.port}",
            f"--tls-cert-file={keys / 'apiserver.crt'}",
            f"--tls-private-key-file={keys / 'apiserver.key'}",
            f"--token-auth-file={keys / 'tokens.csv'}",
            f"--service-account-key-file={keys / 'sa.pub'}",
            f"--service-account-signing-key-file={keys / 'sa.key'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--api-audiences=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--authorization-mode=RBAC",
            "--disable-admission-plugins=ServiceAccount",
            *self.options,
        )
        deadline = time.monotonic() + START_SECONDS
        while not self.is_ready():
            if self._apiserver.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"kube-apiserver did not become ready: {(self.directory / 'kube-apiserver.log').read_text()[-3000:]}")
            time.sleep(0.1)

    def stop_apiserver(self) -> None:
        """End kube-apiserver, connections and all, as an outage does; etcd keeps the data."""
        assert self._apiserver is not None
        self._apiserver.kill()
        self._apiserver.wait()

    def freeze(self) -> None:
        """Stop kube-apiserver from running without closing a connection: watches go silent."""
        assert self._apiserver is not None
        self._apiserver.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._apiserver is not None
        self._apiserver.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        self.client.close()
        for process in (self._apiserver, self._etcd):
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
                process.wait()

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl as the administrator; its standard output. A failure raises with what kubectl said."""
        done = subprocess.run(
            [str(self.kubectl_path), f"--kubeconfig={self.kubeconfig}", *arguments], input=stdin, capture_output=True, text=True, timeout=60
        )
        if done.returncode != 0:
            raise RuntimeError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def apply(self, *manifests: Mapping[str, Any]) -> None:
        """As `kubectl apply --server-side --force-conflicts` of manifests given as dicts."""
        for manifest in manifests:
            self.client.apply(manifest)

    def ensure_namespace(self, namespace: str) -> None:
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})

    def token_for(
        self, namespace: str, service_account: str, audience: str | None = None, *, seconds: int = 3600, bound_pod: str | None = None
    ) -> str:
        """A TokenRequest token of the ServiceAccount, which is made where it is absent; without `audience` one for the API itself."""
        self.ensure_namespace(namespace)
        self.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": service_account, "namespace": namespace}})
        spec: dict[str, Any] = {"expirationSeconds": seconds, "audiences": [] if audience is None else [audience]}
        if bound_pod is not None:
            spec["boundObjectRef"] = {"apiVersion": "v1", "kind": "Pod", "name": bound_pod}
        asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        answer = self.client.call("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts/{service_account}/token", asked)
        return str(answer["status"]["token"])

    def kubeconfig_for(self, namespace: str, service_account: str) -> Path:
        """A kubeconfig that acts as the ServiceAccount (with whatever rights a test bound to it)."""
        return self.kubeconfig_with(self.token_for(namespace, service_account), name=f"{namespace}-{service_account}", namespace=namespace)

    def kubeconfig_with(self, token: str, *, name: str, namespace: str = "default") -> Path:
        path = self.directory / f"{name}.kubeconfig"
        path.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [
                        {"name": "test", "cluster": {"server": self.url, "certificate-authority": str(self.directory / "apiserver.crt")}}
                    ],
                    "users": [{"name": name, "user": {"token": token}}],
                    "contexts": [{"name": "test", "context": {"cluster": "test", "user": name, "namespace": namespace}}],
                    "current-context": "test",
                }
            )
        )
        path.chmod(0o600)
        return path

    def _run(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.directory / f"{program}.log").open("ab") as log:
            return subprocess.Popen([str(self.assets / program), *arguments], stdout=log, stderr=subprocess.STDOUT, cwd=self.directory)

    def is_ready(self) -> bool:
        context = ssl.create_default_context(cadata=self.ca_pem.decode())
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", context=context, timeout=5) as answer:  # noqa: S310 - our own https address
                return bool(answer.read() == b"ok")
        except OSError:
            return False

    def _write_keys(self) -> bytes:
        """The API server's self-signed certificate, the key of ServiceAccount tokens, the administrator's token."""
        service_account_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        (self.directory / "sa.key").write_bytes(_private_pem(service_account_key))
        (self.directory / "sa.pub").write_bytes(
            service_account_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        )
        (self.directory / "tokens.csv").write_text(f'{self.admin_token},admin,admin,"system:masters"\n')
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kube-apiserver of the tests")])
        now = dt.datetime.now(dt.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(days=2))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
            )
            .sign(key, hashes.SHA256())
        )
        pem = certificate.public_bytes(Encoding.PEM)
        (self.directory / "apiserver.crt").write_bytes(pem)
        (self.directory / "apiserver.key").write_bytes(_private_pem(key))
        return pem


def _private_pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
