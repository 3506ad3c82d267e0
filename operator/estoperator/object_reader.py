"""Reads Kubernetes objects into the views of `resources`: the only place that knows where a field is.

Status is never taken as truth, but for Approved and Denied (whose writers admission controls) and for what we wrote
ourselves: the Ready condition and whether the request is finished. No IO, no clock.
"""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from estcore import issuer_spec
from estcore.errors import ConfigurationError
from estoperator.doors import EST_ISSUER, GROUP, ISSUER_KINDS, ISSUER_PLURALS, ORIGIN_EST, Form, KubernetesDoor
from estoperator.resources import MAX_REQUEST_CHARACTERS, CertRequest, Condition, Issuer, IssuerRef, Object, Pod, RequestKey, User

DURATION_ANNOTATION = "experimental.cert-manager.io/request-duration"
IS_CA_ANNOTATION = "experimental.cert-manager.io/request-is-ca"


def read_request(door: KubernetesDoor, body: Object) -> CertRequest | None:
    """The request, or None where it names no issuer of ours (contract 1) or is being deleted."""
    return None if "deletionTimestamp" in body["metadata"] else _READERS[door.form](door, body)


def _read_certificate_request(door: KubernetesDoor, body: Object) -> CertRequest | None:
    """A CertificateRequest of either group.

    One that came by EST is estserver's: it shows people what waits, and nothing is ever enrolled by it.

    The namespaced issuer is the one of the request's own namespace (contract 2).
    """
    metadata, spec = body["metadata"], body.get("spec") or {}  # cert-manager's CRD does not require it
    ref = spec.get("issuerRef") or {}
    # cert-manager's own default for an absent kind is its Issuer: such a request is never for us.
    if ref.get("group") != GROUP or ref.get("kind") not in ISSUER_KINDS:
        return None
    if door.door is EST_ISSUER.door and spec.get("origin") == ORIGIN_EST:
        return None
    namespace = metadata["namespace"]
    status = body.get("status") or {}
    conditions = {condition["type"]: condition for condition in status.get("conditions") or ()}
    ready = _condition(conditions.get("Ready"))
    return CertRequest(
        key=RequestKey(door.door, namespace, metadata["name"]),
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
        created=datetime.fromisoformat(metadata["creationTimestamp"]),
        issuer=IssuerRef(ref["kind"], namespace if ref["kind"] == "EstIssuer" else "", ref["name"]),
        csr_b64=_bounded(spec["request"]),
        duration=spec.get("duration"),
        usages=tuple(spec.get("usages") or ()),
        is_ca=bool(spec.get("isCA")),
        username=spec.get("username"),
        approved=not door.approval_required or _is_true(conditions.get("Approved")),
        approved_by_condition=_is_true(conditions.get("Approved")),
        denied=_is_true(conditions.get("Denied")),
        finished=_finished(status, ready) or _is_true(conditions.get("InvalidRequest")),
        ready=ready,
        failure_time=status.get("failureTime"),
    )


def _read_signing_request(door: KubernetesDoor, body: Object) -> CertRequest | None:
    """A CertificateSigningRequest (certificates.k8s.io/v1). cert-manager's annotations say what its spec has no room for."""
    metadata, spec = body["metadata"], body["spec"]
    issuer = read_signer_name(spec["signerName"])
    if issuer is None:
        return None
    status, annotations = body.get("status") or {}, metadata.get("annotations") or {}
    conditions = {condition["type"]: condition for condition in status.get("conditions") or ()}
    seconds = spec.get("expirationSeconds")
    user = User(
        username=spec.get("username") or "",
        uid=spec.get("uid") or "",
        groups=tuple(spec.get("groups") or ()),
        extra=spec.get("extra") or {},
    )
    return CertRequest(
        key=RequestKey(door.door, "", metadata["name"]),
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
        created=datetime.fromisoformat(metadata["creationTimestamp"]),
        issuer=issuer,
        csr_b64=_bounded(spec["request"]),
        duration=annotations.get(DURATION_ANNOTATION) or (None if seconds is None else f"{seconds}s"),
        usages=tuple(spec.get("usages") or ()),
        is_ca=annotations.get(IS_CA_ANNOTATION) == "true",
        username=user.username,
        approved=_is_true(conditions.get("Approved")),
        approved_by_condition=_is_true(conditions.get("Approved")),
        denied=_is_true(conditions.get("Denied")),
        finished=bool(status.get("certificate")) or not conditions.keys().isdisjoint({"Failed", "Denied"}),
        ready=None,
        failure_time=None,
        user=user,
    )


def _read_pod_certificate(door: KubernetesDoor, body: Object) -> CertRequest | None:
    """A PodCertificateRequest (KEP-4317). Only the key is the kubelet's: in `stubPKCS10Request`, before 1.36 in `pkixPublicKey`."""
    metadata, spec = body["metadata"], body["spec"]
    issuer = read_signer_name(spec["signerName"])
    if issuer is None:
        return None
    conditions = (body.get("status") or {}).get("conditions") or ()
    stub_b64 = spec.get("stubPKCS10Request") or ""
    return CertRequest(
        key=RequestKey(door.door, metadata["namespace"], metadata["name"]),
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
        created=datetime.fromisoformat(metadata["creationTimestamp"]),
        issuer=issuer,
        csr_b64=_bounded(stub_b64),
        duration=None,
        usages=(),
        is_ca=False,
        username=None,
        approved=True,
        approved_by_condition=False,
        denied=False,
        finished=any(condition["type"] in {"Issued", "Denied", "Failed"} for condition in conditions),
        ready=None,
        failure_time=None,
        pod=Pod(
            name=spec["podName"],
            service_account=spec["serviceAccountName"],
            longest_life=timedelta(seconds=spec["maxExpirationSeconds"]),
            annotation_keys=tuple(sorted(spec.get("unverifiedUserAnnotations") or ())),
            public_key_b64="" if stub_b64 else _bounded(spec.get("pkixPublicKey") or ""),
        ),
    )


_READERS: Mapping[Form, Callable[[KubernetesDoor, Object], CertRequest | None]] = {
    Form.CERTIFICATE_REQUEST: _read_certificate_request,
    Form.SIGNING_REQUEST: _read_signing_request,
    Form.POD_CERTIFICATE: _read_pod_certificate,
}


def read_signer_name(signer_name: str) -> IssuerRef | None:
    """The issuer that a signerName names, None where its domain is not one of ours.

    A namespace holds no dot, an issuer's name may: `estissuers.est-issuer.io/<namespace>.<name>` splits at the first. Without a dot
    it names no issuer that could ever be: one of no namespace (`CertRequest.names_no_issuer`).
    """
    domain, _, path = signer_name.partition("/")
    if domain == f"{ISSUER_PLURALS['EstClusterIssuer']}.{GROUP}" and path:
        return IssuerRef("EstClusterIssuer", "", path)
    namespace, _, name = path.partition(".")
    if domain == f"{ISSUER_PLURALS['EstIssuer']}.{GROUP}" and path:
        return IssuerRef("EstIssuer", namespace, name) if namespace and name else IssuerRef("EstIssuer", "", path)
    return None


def read_issuer(kind: str, body: Object) -> Issuer:
    """The issuer, with a spec that may not parse."""
    metadata = body["metadata"]
    ref = IssuerRef(kind, metadata.get("namespace", ""), metadata["name"])
    spec, problem = None, ""
    try:
        spec = issuer_spec.parse(body.get("spec") or {}, where="")
    except ConfigurationError as error:
        problem = error.message
    status = body.get("status") or {}
    conditions = [condition for condition in status.get("conditions") or () if condition["type"] == "Ready"]
    return Issuer(
        ref=ref,
        uid=metadata["uid"],
        generation=metadata["generation"],
        resource_version=metadata["resourceVersion"],
        spec=spec,
        problem=problem,
        ready=_condition(conditions[0] if conditions else None),
        status=status,
    )


def _bounded(text: str) -> str | None:
    return text if len(text) <= MAX_REQUEST_CHARACTERS else None


def _finished(status: Object, ready: Condition | None) -> bool:
    if status.get("certificate"):
        return True
    return ready is not None and (ready.status == "True" or ready.reason in {"Failed", "Denied"})


def _is_true(condition: Object | None) -> bool:
    return condition is not None and condition["status"] == "True"


def _condition(condition: Object | None) -> Condition | None:
    if condition is None:
        return None
    return Condition(
        type=condition["type"],
        status=condition["status"],
        reason=condition.get("reason") or "",
        message=condition.get("message") or "",
        last_transition_time=condition.get("lastTransitionTime") or "",
        observed_generation=condition.get("observedGeneration"),
    )
