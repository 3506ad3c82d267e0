"""What the benchmark creates on the kind cluster: an issuer, and requests of three kinds, each with a key and names of its own."""

import base64
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from api import Object, is_issued, is_ready
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

NAMESPACE = "est-bench"
GROUP, VERSION, PLURAL = "est-issuer.io", "v1alpha1", "certificaterequests"
CERT_MANAGER = "cert-manager.io"
NATIVE = "certificates.k8s.io"
POD_PLURAL = "podcertificaterequests"

ISSUER: Object = {
    "apiVersion": f"{GROUP}/{VERSION}",
    "kind": "EstClusterIssuer",
    "metadata": {"name": "est-bench"},
    "spec": {
        "allowedNamespaces": {},
        "ca": {"secretName": "est-bench-ca", "generate": {"commonName": "est-bench CA"}},
        "policy": {
            "rules": [
                {"from": {"namespaces": [NAMESPACE], "serviceAccounts": ["default"]}, "dnsNames": ["{pod}.{namespace}.pod"]},
                {"from": {"namespaces": [NAMESPACE]}, "dnsNames": ["*.bench.example"]},
            ]
        },
    },
}

BENCH_ISSUER = {"group": GROUP, "kind": "EstClusterIssuer", "name": "est-bench"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is created, and how one sees that an object is done."""

    what: str
    path: str
    make: Callable[[int], Object]
    done: Callable[[Object], bool]


def certificate_requests(group: str, version: str, issuer: Mapping[str, str] = BENCH_ISSUER) -> Load:
    def make(number: int) -> Object:
        name = f"d{number}.bench.example"
        san = x509.SubjectAlternativeName([x509.DNSName(name)])
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        unsigned = x509.CertificateSigningRequestBuilder().subject_name(subject).add_extension(san, critical=False)
        csr_pem = unsigned.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(Encoding.PEM)
        return {
            "apiVersion": f"{group}/{version}",
            "kind": "CertificateRequest",
            "metadata": {"name": f"bench-{uuid.uuid4()}", "namespace": NAMESPACE},
            "spec": {"request": base64.b64encode(csr_pem).decode(), "issuerRef": issuer},
        }

    path = f"/apis/{group}/{version}/namespaces/{NAMESPACE}/{PLURAL}"
    return Load(what=f"CertificateRequests of {group}", path=path, make=make, done=is_ready)


def pod_requests() -> Load:
    def make(_number: int) -> Object:
        stub = (
            x509.CertificateSigningRequestBuilder()
            .subject_name(x509.Name([]))
            .sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
        )
        name = f"bench-{uuid.uuid4()}"
        return {
            "apiVersion": f"{NATIVE}/v1",
            "kind": "PodCertificateRequest",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {
                "signerName": f"estclusterissuers.{GROUP}/est-bench",
                "podName": name,
                "podUID": str(uuid.uuid4()),
                "serviceAccountName": "default",
                "serviceAccountUID": str(uuid.uuid4()),
                "nodeName": "node",
                "nodeUID": str(uuid.uuid4()),
                "stubPKCS10Request": base64.b64encode(stub.public_bytes(Encoding.DER)).decode(),
            },
        }

    return Load(what="PodCertificateRequests", path=f"/apis/{NATIVE}/v1/namespaces/{NAMESPACE}/{POD_PLURAL}", make=make, done=is_issued)
