"""A Kubernetes door as a test stands before it: one way to ask, to look and to judge, whatever the kind of the object."""

import base64
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from tests import pki
from tests.collect import collect
from tests.integration.api_client import Object
from tests.integration.operator_system import OURS, THEIRS, System, condition, request_manifest, wait_for

CSR, PCR = "certificatesigningrequests.certificates.k8s.io", "podcertificaterequests.certificates.k8s.io"
POD_NAMES = {"dnsNames": ["{serviceAccount}.{namespace}.svc"]}
NATIVE_METADATA = "certificates.k8s.io/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Doorway:
    """One kind of request. `manifest` takes namespace, name, issuer and whose key it is to be for."""

    door: str
    plural: str
    manifest: Callable[[str, str, str, str], Object]
    approve: Callable[[System, str, str], object] = lambda _system, _namespace, _name: None
    namespaced: bool = True

    def ask(self, system: System, namespace: str, name: str, *, issuer: str = "factory", owner: str = "", **spec: Any) -> None:
        """Make a request and approve it where the door wants that."""
        made = self.manifest(namespace, name, issuer, owner or name)
        made["spec"] |= spec
        system.api.client.create(made)
        self.approve(system, namespace, name)

    def scope(self, namespace: str) -> list[str]:
        return ["-n", namespace] if self.namespaced else []

    def get(self, system: System, namespace: str, name: str) -> Object | None:
        """The object, None where there is none."""
        return system.api.client.get(self.plural, name, namespace)

    def patch(self, system: System, namespace: str, name: str, body: Object) -> None:
        """By a merge patch."""
        system.api.client.patch(self.plural, name, namespace, body)

    def delete(self, system: System, namespace: str, name: str) -> None:
        system.api.client.delete(self.plural, name, namespace)

    def events(self, system: System, namespace: str, name: str) -> list[str]:
        """The reasons of the Events about it."""
        _, _, group = self.plural.partition(".")
        return system.events(namespace if self.namespaced else "default", name, group=group)

    def until_told(self, system: System, namespace: str, name: str, reason: str) -> None:
        wait_for(
            f"{self.door} {name}: the Event {reason}",
            lambda: reason in self.events(system, namespace, name),
            what=lambda: (self.events(system, namespace, name), self.get(system, namespace, name)),
        )

    def until_ended(self, system: System, namespace: str, name: str) -> Object:
        """The object once it is issued, failed or denied."""
        seen: list[Object | None] = []

        def ended() -> bool:
            seen.append(self.get(system, namespace, name))
            return bool(outcome((seen[-1] or {}).get("status") or {}))

        wait_for(f"{self.door} {name} to end", ended, what=lambda: (seen[-1:], self.events(system, namespace, name)))
        assert seen[-1] is not None
        return seen[-1]

    def until_issued(self, system: System, namespace: str, name: str) -> x509.Certificate:
        """The certificate, which is for the object's own key."""
        found = self.until_ended(system, namespace, name)
        status = found["status"]
        assert outcome(status) == "Issued", status
        pem = status["certificateChain"].encode() if "certificateChain" in status else base64.b64decode(status["certificate"])
        leaf = x509.load_pem_x509_certificates(pem)[0]
        collect(leaf.public_bytes(Encoding.DER))
        assert leaf.public_key() == csr_of(found).public_key()
        return leaf


def outcome(status: Object) -> str:
    """How a request ended: Issued, or the reason of its refusal; empty while it is open."""
    if status.get("certificate") or status.get("certificateChain"):
        return "Issued"
    for type_ in ("InvalidRequest", "Failed", "Denied"):
        if found := condition(status, type_):
            return str(found["reason"])
    ready = condition(status, "Ready")
    return "Failed" if ready.get("reason") == "Failed" else ""


def csr_of(found: Object) -> x509.CertificateSigningRequest:
    spec = found["spec"]
    if "stubPKCS10Request" in spec:
        return x509.load_der_x509_csr(base64.b64decode(spec["stubPKCS10Request"]))
    return x509.load_pem_x509_csr(base64.b64decode(spec["request"]))


def native_csr(*names: str, owner: str, extensions: tuple[x509.ExtensionType, ...] = ()) -> x509.CertificateSigningRequest:
    key = pki.key(owner=owner)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(pki.dns(*names)), critical=True)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(key, hashes.SHA256())


def b64(octets: bytes) -> str:
    return base64.b64encode(octets).decode()


def _certificate_request(plural: str) -> Callable[[str, str, str, str], Object]:
    def manifest(namespace: str, name: str, issuer: str, owner: str) -> Object:
        made = request_manifest(plural, namespace, owner, dns_name=f"web.{namespace}.svc", issuer=issuer)
        made["metadata"]["name"] = name
        return made

    return manifest


def _signing_request(namespace: str, name: str, issuer: str, owner: str) -> Object:
    csr = native_csr(f"web.{namespace}.svc", owner=owner)
    spec = {
        "request": b64(csr.public_bytes(Encoding.PEM)),
        "signerName": f"estissuers.est-issuer.io/{namespace}.{issuer}",
        "usages": ["digital signature", "server auth"],
    }
    return {"apiVersion": NATIVE_METADATA, "kind": "CertificateSigningRequest", "metadata": {"name": name}, "spec": spec}


def _approve(system: System, _namespace: str, name: str) -> None:
    """As `kubectl certificate approve`, which takes a second to start where the machine is busy."""
    path = f"/apis/{NATIVE_METADATA}/certificatesigningrequests/{name}"
    body = system.api.client.call("GET", path)
    approved = {"type": "Approved", "status": "True", "reason": "Seen", "message": "by a test"}
    system.api.client.call("PUT", f"{path}/approval", body | {"status": {"conditions": [approved]}})


def _pod_certificate(namespace: str, name: str, issuer: str, owner: str) -> Object:
    spec = {
        "signerName": f"estissuers.est-issuer.io/{namespace}.{issuer}",
        "podName": name,
        "podUID": str(uuid.uuid4()),
        "serviceAccountName": "web",
        "serviceAccountUID": str(uuid.uuid4()),
        "nodeName": "node",
        "nodeUID": str(uuid.uuid4()),
        "stubPKCS10Request": b64(native_csr(owner=owner).public_bytes(Encoding.DER)),
    }
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": NATIVE_METADATA, "kind": "PodCertificateRequest", "metadata": metadata, "spec": spec}


def rules(namespace: str) -> list[Object]:
    """Of an issuer that serves every door."""
    pods = {"from": {"namespaces": [namespace], "doors": ["podcertificaterequests"]}, **POD_NAMES}
    return [pods, {"from": {"namespaces": [namespace]}, "dnsNames": ["*.{namespace}.svc"]}]


EST_ISSUER = Doorway(door="est-issuer.io", plural=OURS, manifest=_certificate_request(OURS))
CERT_MANAGER = Doorway(
    door="cert-manager.io",
    plural=THEIRS,
    manifest=_certificate_request(THEIRS),
    approve=lambda system, namespace, name: system.decide(namespace, name, "Approved"),
)
SIGNING_REQUESTS = Doorway(
    door="certificatesigningrequests",
    plural=CSR,
    manifest=_signing_request,
    approve=_approve,
    namespaced=False,
)
POD_CERTIFICATES = Doorway(door="podcertificaterequests", plural=PCR, manifest=_pod_certificate)
DOORWAYS = (EST_ISSUER, CERT_MANAGER, SIGNING_REQUESTS, POD_CERTIFICATES)
