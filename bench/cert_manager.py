"""cert-manager's own controllers, from its Go module: the reference that requests of cert-manager.io are measured against.

They run on this machine, as many for a load as it needs: for the reference those that a request for a CA issuer meets, for a request
that est-issuer answers only the approver, which in a real cluster approves it too.
"""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from api import APPLY, Api, Object, until
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

FOLDER = Path(__file__).with_name("reference") / "certmanager"
MODULE = "github.com/cert-manager/cert-manager"
PROGRAM = Path(__file__).parents[1] / ".cache" / "bench" / "certmanager"

APPROVER = "certificaterequests-approver"
CA_CONTROLLERS = (APPROVER, "certificaterequests-issuer-ca", "issuers")
CA_NAME = "bench-ca"
"""Of the issuer, of its Secret and in its CA's subject."""


def build() -> None:
    """Raises OSError where Go is missing, subprocess.CalledProcessError where the modules cannot be had or built."""
    subprocess.run(["go", "build", "-o", PROGRAM, "."], cwd=FOLDER, check=True)


def install_issuer(api: Api, namespace: str) -> str:
    """Have an Issuer of cert-manager with a CA of its own, not Ready before its controller runs; the path of the Issuer."""
    listed = ["go", "list", "-m", "-f", "{{.Dir}}", MODULE]
    module = Path(subprocess.run(listed, cwd=FOLDER, stdout=subprocess.PIPE, text=True, check=True).stdout.strip())
    crd = (module / "deploy" / "crds" / "cert-manager.io_issuers.yaml").read_bytes()
    crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    api.call("PATCH", f"{crds}/issuers.cert-manager.io?fieldManager=bench&force=true", crd, media_type=APPLY)
    api.apply(f"/api/v1/namespaces/{namespace}/secrets", _ca_secret())
    path = f"/apis/cert-manager.io/v1/namespaces/{namespace}/issuers"
    until(lambda: api.serves(path), "the Issuers of cert-manager.io are served")
    issuer = {"apiVersion": "cert-manager.io/v1", "kind": "Issuer", "metadata": {"name": CA_NAME}, "spec": {"ca": {"secretName": CA_NAME}}}
    api.apply(path, issuer)
    return f"{path}/{CA_NAME}"


@contextmanager
def running(context: str, namespace: str, *controllers: str) -> Iterator[int]:
    """These controllers for one namespace of the kubeconfig's context; the process id. Raises SystemExit where they end by themselves."""
    with tempfile.TemporaryDirectory(prefix="est-bench-") as temporary:
        kubeconfig, log = Path(temporary) / "kubeconfig", Path(temporary) / "log"
        view = ["kubectl", "config", "view", "--minify", "--flatten", "--context", context]
        with kubeconfig.open("wb") as file:
            subprocess.run(view, stdout=file, check=True)
        command: list[str | Path] = [PROGRAM, f"--kubeconfig={kubeconfig}", f"--namespace={namespace}", *controllers]
        with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as program:
            try:
                yield program.pid
            finally:
                ended = program.poll()
                program.terminate()
                program.wait(timeout=30)
                if ended is not None:
                    raise SystemExit(f"bench: cert-manager's controllers ended with {ended}: {log.read_text()[-2000:]}")


def _ca_secret() -> Object:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, CA_NAME)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=365))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    data = {"tls.crt": certificate.public_bytes(Encoding.PEM).decode(), "tls.key": private.decode()}
    metadata = {"name": CA_NAME, "labels": {"controller.cert-manager.io/fao": "true"}}  # as cert-manager labels what it makes, to cache it
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "kubernetes.io/tls", "stringData": data}
