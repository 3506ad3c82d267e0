"""What only a cluster with a kubelet shows of the doors of certificates.k8s.io."""

import base64
import re

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from tests.collect import collect
from tests.e2e.cluster import NAME, ROOT, Cluster, run, until

pytestmark = pytest.mark.timeout(480)
IMAGE = "est-issuer-example-pod:dev"


@pytest.fixture(scope="module", autouse=True)
def installed(cluster: Cluster) -> None:
    cluster.up()
    cluster.rolled_out()


def test_a_signing_request_approved_with_kubectl_gets_its_certificate(cluster: Cluster) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName([x509.DNSName("csr.devices.svc")])
    made = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).add_extension(names, critical=True).sign(key, SHA256())
    spec = {
        "request": base64.b64encode(made.public_bytes(Encoding.PEM)).decode(),
        "signerName": "estissuers.est-issuer.io/devices.factory",
        "usages": ["digital signature", "server auth"],
        "expirationSeconds": 3600,
    }
    metadata = {"name": "csr-web"}
    cluster.apply({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": metadata, "spec": spec})
    cluster.kubectl("certificate", "approve", "csr-web")

    def certificate() -> str | None:
        status: dict[str, str] = cluster.get("csr", "csr-web").get("status", {})
        return status.get("certificate")

    [leaf] = x509.load_pem_x509_certificates(base64.b64decode(until("the certificate", certificate, seconds=30)))
    assert leaf.public_key() == key.public_key()
    collect(leaf.public_bytes(Encoding.DER))


def test_two_pods_without_sidecars_know_each_other_by_mtls(cluster: Cluster) -> None:
    """The example as it stands: key and certificate from the kubelet, roots from the ClusterTrustBundle."""
    run("docker", "build", "--quiet", "--tag", IMAGE, "examples/pod", seconds=240)
    run("kind", "load", "docker-image", IMAGE, "--name", NAME, "--quiet", seconds=120)
    cluster.kubectl("apply", "--filename", str(ROOT / "examples" / "pod-certificate"))
    cluster.wait("Ready", "estissuer/mesh", seconds=60)
    cluster.wait("Ready", "pod/mtls-server", seconds=120)
    cluster.kubectl(
        "wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/mtls-client", "--namespace", "devices", "--timeout=120s", seconds=130
    )
    said = cluster.kubectl("logs", "mtls-client", "--namespace", "devices")
    assert "connected" in said
    [leaf] = x509.load_pem_x509_certificates(re.sub(r"\A[^-]*", "", said).encode())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["spiffe://cluster.local/ns/devices/sa/mtls-client"]
    assert names.get_values_for_type(x509.DNSName) == ["mtls-client.devices.svc"]
    collect(leaf.public_bytes(Encoding.DER))


def test_the_server_turns_a_client_without_a_certificate_away(cluster: Cluster) -> None:
    """So that the connection above was mutual."""
    command = "curl --silent --show-error --cacert /identity/roots.pem https://mtls-server.devices.svc:8443/ 2>&1 || echo refused with $?"
    said = cluster.kubectl("exec", "mtls-server", "--namespace", "devices", "--", "sh", "-c", command)
    assert "refused with" in said
    assert "certificate required" in said
