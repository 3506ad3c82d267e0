"""Objects as the API server gives them, and issuers as requests see them. Times are relative to the test PKI's EPOCH."""

import base64
import functools
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from estcore import issuer_spec
from estcore.csr_builder import build
from estcore.usages import Usage
from estoperator import chain, object_reader
from estoperator.doors import CERT_MANAGER, EST_ISSUER, POD_CERTIFICATES, SIGNING_REQUESTS, KubernetesDoor
from estoperator.issuer_state import IssuerState
from estoperator.resources import CertRequest, IssuerRef
from tests import pki

NOW = pki.EPOCH + timedelta(minutes=1)
WEB = "web.devices.svc"
APPROVED = {"type": "Approved", "status": "True", "reason": "cert-manager.io"}
DENIED = {"type": "Denied", "status": "True", "reason": "cert-manager.io"}
READY_ISSUED = {"type": "Ready", "status": "True", "reason": "Issued", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}
FACTORY = IssuerRef("EstIssuer", "devices", "factory")
POLICY: dict[str, Any] = {
    "rules": [{"from": {"namespaces": ["devices"]}, "dnsNames": ["*.{namespace}.svc"], "subject": {"commonName": "*"}}],
}


@functools.cache
def csr_pem(*names: str, usages: tuple[Usage, ...] = (), owner: str = "device", ca: bool = False) -> bytes:
    """A CSR for DNS names, PEM."""
    key = pki.key(owner=owner)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    sans = pki.dns(*names)
    if ca:
        der = pki.csr(key, subject=pki.name(None), sans=sans, extensions=[x509.BasicConstraints(ca=True, path_length=None)])
    else:
        der = build(key, subject=x509.Name([]), sans=sans, usages=usages)
    return armour(der)


def armour(csr_der: bytes) -> bytes:
    lines = base64.encodebytes(csr_der)
    return b"-----BEGIN CERTIFICATE REQUEST-----\n" + lines + b"-----END CERTIFICATE REQUEST-----\n"


def body(
    door: KubernetesDoor = EST_ISSUER,
    *,
    name: str = "web",
    namespace: str = "devices",
    request: bytes | None = None,
    issuer: dict[str, Any] | None = None,
    conditions: Sequence[dict[str, Any]] = (),
    status: dict[str, Any] | None = None,
    created: datetime = pki.EPOCH,
    version: int = 7,
    metadata: dict[str, Any] | None = None,
    **spec: Any,
) -> dict[str, Any]:
    """A CertificateRequest as JSON has it."""
    written = {**(status or {}), **({"conditions": list(conditions)} if conditions else {})}
    return {
        "apiVersion": f"{door.group}/{door.version}",
        "kind": door.kind,
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": f"uid-{name}",
            "resourceVersion": str(version),
            "creationTimestamp": created.strftime("%Y-%m-%dT%H:%M:%SZ"),
            **(metadata or {}),
        },
        "spec": {
            "request": base64.b64encode(csr_pem(WEB) if request is None else request).decode(),
            "issuerRef": issuer or {"group": "est-issuer.io", "kind": "EstIssuer", "name": "factory"},
            **spec,
        },
        **({"status": written} if written else {}),
    }


def request_of(door: KubernetesDoor = EST_ISSUER, **fields: Any) -> CertRequest:
    request = object_reader.read_request(door, body(door, **fields))
    assert request is not None
    return request


def approved(**fields: Any) -> CertRequest:
    return request_of(CERT_MANAGER, conditions=[APPROVED], **fields)


def native_body(
    door: KubernetesDoor, *, name: str = "web", namespace: str = "", status: dict[str, Any] | None = None, **spec: Any
) -> dict[str, Any]:
    """An object of certificates.k8s.io as JSON has it."""
    metadata = {"name": name, "uid": f"uid-{name}", "resourceVersion": "7", "creationTimestamp": "2026-01-01T00:00:00Z"}
    if namespace:
        metadata["namespace"] = namespace
    return {"metadata": metadata, "spec": spec, **({"status": status} if status else {})}


def signing_body(*conditions: str, **spec: Any) -> dict[str, Any]:
    """A CertificateSigningRequest of user jane, with these conditions."""
    status = {"conditions": [{"type": condition, "status": "True"} for condition in conditions]}
    fields = {
        "request": base64.b64encode(csr_pem(WEB)).decode(),
        "signerName": "estissuers.est-issuer.io/devices.factory",
        "usages": ["digital signature", "server auth"],
        "username": "jane",
        "groups": ["team"],
        **spec,
    }
    return native_body(SIGNING_REQUESTS, status=status if conditions else None, **fields)


def signing_request(*conditions: str, **spec: Any) -> CertRequest:
    request = object_reader.read_request(SIGNING_REQUESTS, signing_body(*conditions or ("Approved",), **spec))
    assert request is not None
    return request


def pod_body(*, namespace: str = "devices", status: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    """A PodCertificateRequest of pod web-0, whose ServiceAccount is web."""
    der = build(pki.key(owner="pod"), subject=x509.Name([]), sans=(), usages=())
    fields = {
        "signerName": "estissuers.est-issuer.io/devices.factory",
        "podName": "web-0",
        "serviceAccountName": "web",
        "maxExpirationSeconds": 86400,
        "stubPKCS10Request": base64.b64encode(der).decode(),
        **spec,
    }
    return native_body(POD_CERTIFICATES, namespace=namespace, status=status, **fields)


def pod_request(**fields: Any) -> CertRequest:
    request = object_reader.read_request(POD_CERTIFICATES, pod_body(**fields))
    assert request is not None
    return request


@functools.cache
def authority() -> pki.Ca:
    return pki.ca("Factory CA")


def policy(**fields: Any) -> issuer_spec.Policy:
    return issuer_spec.parse({"ca": {"secretName": "factory-ca"}, "policy": {**POLICY, **fields}}, where="test").policy


def ready_issuer(ref: IssuerRef = FACTORY, *, since: datetime = pki.EPOCH, **fields: Any) -> IssuerState:
    return IssuerState(
        ref=ref,
        ready=True,
        message="",
        policy=policy(**fields),
        label="devices.factory",
        chains=chain.chains(authority().pem),
        ready_since=since,
    )


def unready_issuer(message: str = "the Secret is missing", ref: IssuerRef = FACTORY) -> IssuerState:
    return IssuerState(ref=ref, ready=False, message=message)
