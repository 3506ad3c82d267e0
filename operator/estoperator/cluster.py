"""The only module that talks to the Kubernetes API (kopf's watching aside), by the official client's asyncio half.

Every status goes out as a server-side apply on /status, forced, under our own field manager, for the resourceVersion that was judged:
so Approved, Denied and everybody else's fields stay, and a changed object answers 409. Errors leave as kubernetes_errors.
"""

import base64
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import structlog
from kubernetes.aio import client, config

from estoperator import conditions, object_reader
from estoperator.conditions import RequestStatus
from estoperator.doors import DOORS, GROUP, ISSUER_PLURALS, VERSION, Form, KubernetesDoor
from estoperator.kubernetes_errors import Gone, KubernetesError, Stale
from estoperator.pages import pages
from estoperator.resources import CertRequest, Issuer, IssuerRef, RequestKey, User

log = structlog.get_logger(__name__)

FIELD_MANAGER = "est-issuer"
FORCED = [("fieldManager", FIELD_MANAGER), ("force", "true")]
APPLY = "application/apply-patch+yaml; charset=utf-8"
"""With the charset, for without it the client encodes the text as JSON once more. The API server's metrics count it as PATCH, not APPLY."""
REQUEST_SECONDS = 15
_SURROGATES = re.compile(r"\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}")

SERVICE_ACCOUNT_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


class Cluster:
    """A connection pool to the API server. Belongs to one event loop."""

    def __init__(self, api: client.ApiClient) -> None:
        self._api = api
        self._doors = dict(DOORS)

    def use(self, doors: Iterable[KubernetesDoor]) -> None:
        """Take these doors for those of their name: in the version that the API server serves."""
        self._doors.update({door.door: door for door in doors})

    @classmethod
    async def connect(cls, *, max_connections: int, kubeconfig: Path | None = None) -> "Cluster":
        """By the given kubeconfig, else the pod's ServiceAccount, else KUBECONFIG. Raises KubernetesError where none is usable."""
        configuration = client.Configuration()
        try:
            if kubeconfig is None and SERVICE_ACCOUNT_TOKEN.exists():  # noqa: ASYNC240  # once, at start
                config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]  # the library's
            else:
                file = None if kubeconfig is None else str(kubeconfig)
                await config.load_kube_config(config_file=file, client_configuration=configuration)  # type: ignore[no-untyped-call]  # as above
        except config.ConfigException as error:
            raise KubernetesError(f"no way to the Kubernetes API: {error}") from error
        configuration.connection_pool_maxsize = max_connections
        # Or aiohttp would look for a netrc file, in a thread, at each request.
        configuration.client_session_kwargs = {"trust_env": False}
        return cls(client.ApiClient(configuration))

    async def close(self) -> None:
        """Close the connections."""
        await self._api.close()  # type: ignore[no-untyped-call]  # the library's

    async def may(self, verb: str, group: str, resource: str, *, subresource: str = "", name: str = "") -> bool:
        """Whether we may do this in every namespace, to the object of that name or to all (SelfSubjectAccessReview)."""
        attributes = {"verb": verb, "group": group, "resource": resource, "subresource": subresource, "name": name}
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": {"resourceAttributes": attributes}}
        answer = await self.call("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body=review)
        return bool(answer["status"].get("allowed"))

    async def serves(self, group: str, version: str, plural: str) -> bool:
        """Whether the API server has this kind in this version."""
        try:
            listed = await self.call("GET", f"/apis/{group}/{version}")
        except Gone:
            return False
        return any(resource["name"] == plural for resource in listed["resources"])

    async def may_reference(self, user: User, issuer: IssuerRef) -> bool:
        """Whether the user may use a namespaced issuer: verb `reference` on signers of est-issuer.io there (SubjectAccessReview).

        As cert-manager takes it: for its name, or for the name `*`, which RBAC does not read as every name (contract 3a, point 3).
        """
        return await self._may_reference(user, issuer.namespace, issuer.name) or await self._may_reference(user, issuer.namespace, "*")

    async def _may_reference(self, user: User, namespace: str, name: str) -> bool:
        attributes = {"verb": "reference", "group": GROUP, "resource": "signers", "namespace": namespace, "name": name}
        spec = {"user": user.username, "uid": user.uid, "groups": user.groups, "extra": user.extra, "resourceAttributes": attributes}
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        answer = await self.call("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", body=review)
        return bool(answer["status"].get("allowed"))

    async def read_request(self, key: RequestKey) -> CertRequest | None:
        """The request as it is now, None where it has become somebody else's; raises Gone."""
        door = self._doors[key.door]
        path = _path(door.group, door.version, door.plural, key.namespace, key.name)
        return object_reader.read_request(door, await self.call("GET", path))

    async def requests(self, door: KubernetesDoor) -> AsyncIterator[CertRequest]:
        """Every request of a door that names one of our issuers, page by page; raises Gone where the CRD is absent.

        One that cannot be read is told in the log and left out: it may not keep the others from being seen.
        """
        async for body in pages(self, f"/apis/{door.group}/{door.version}/{door.plural}", []):
            try:
                request = object_reader.read_request(door, body)
            except Exception:
                name, namespace = body["metadata"]["name"], body["metadata"].get("namespace", "")
                log.exception("internal_error", work="relist", request=f"{door.door}/{namespace}/{name}")
                continue
            if request is not None:
                yield request

    async def apply_status(self, request: CertRequest, status: RequestStatus) -> CertRequest | None:
        """Write a request's status; the object as it then is, unless it is finished. Raises Stale and Gone."""
        door = self._doors[request.key.door]
        body: dict[str, Any] = {
            "apiVersion": f"{door.group}/{door.version}",
            "kind": door.kind,
            "metadata": {"name": request.key.name, "namespace": request.key.namespace, "resourceVersion": request.resource_version},
            "status": _STATUSES[door.form](status),
        }
        if not request.key.namespace:
            del body["metadata"]["namespace"]
        answer = await self._apply(door.group, door.version, door.plural, request.key.namespace, request.key.name, body)
        # A finished request is forgotten at once, so its 5 KiB are not even parsed.
        return None if status.finished else object_reader.read_request(door, json.loads(answer))

    async def apply_issuer_status(self, issuer: Issuer, status: Mapping[str, Any]) -> None:
        """Write an issuer's status. Raises Stale and Gone."""
        metadata = {"name": issuer.ref.name, "resourceVersion": issuer.resource_version}
        if issuer.ref.namespace:
            metadata["namespace"] = issuer.ref.namespace
        body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": issuer.ref.kind, "metadata": metadata, "status": status}
        await self._apply(GROUP, VERSION, ISSUER_PLURALS[issuer.ref.kind], issuer.ref.namespace, issuer.ref.name, body)

    async def create_event(self, namespace: str, body: Mapping[str, Any]) -> None:
        """Create an Event; raises Stale where one of that name is there."""
        await self._read(await self._send("POST", f"/apis/events.k8s.io/v1/namespaces/{namespace}/events", body=body))

    async def call(
        self, method: str, path: str, *, query: list[tuple[str, str]] | None = None, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """One JSON request."""
        return dict(json.loads(await self._read(await self._send(method, path, query=query, body=body))))

    async def watch(self, path: str, *, field_selector: str, resource_version: str, seconds: int) -> AsyncGenerator[dict[str, Any], None]:
        """Watch events of one collection, for at most `seconds`."""
        query = [
            ("watch", "true"),
            ("fieldSelector", field_selector),
            ("resourceVersion", resource_version),
            ("timeoutSeconds", str(seconds)),
        ]
        response = await self._send("GET", path, query=query, seconds=seconds + REQUEST_SECONDS)
        try:
            if response.status != 200:
                await self._read(response)
            async for line in response.response.content:
                yield json.loads(line)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise KubernetesError(f"the watch of {path} broke: {_said(error)}") from error
        finally:
            response.response.close()

    async def _apply(self, group: str, version: str, plural: str, namespace: str, name: str, body: Mapping[str, Any]) -> bytes:
        path = f"{_path(group, version, plural, namespace, name)}/status"
        return await self._read(await self._send("PATCH", path, query=FORCED, body=_yaml(body), content_type=APPLY))

    async def _send(
        self,
        method: str,
        path: str,
        *,
        query: list[tuple[str, str]] | None = None,
        body: Mapping[str, Any] | str | None = None,
        content_type: str = "application/json",
        seconds: float = REQUEST_SECONDS,
    ) -> Any:
        headers = {"Accept": "application/json", "Content-Type": content_type}
        serialized = await self._api.param_serialize(
            method, path, query_params=query or [], header_params=headers, body=body, auth_settings=["BearerToken"]
        )
        try:
            return await self._api.call_api(*serialized, _request_timeout=aiohttp.ClientTimeout(total=seconds))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise KubernetesError(f"the Kubernetes API cannot be reached: {_said(error)}") from error

    async def _read(self, response: Any) -> bytes:
        """The body of a 2xx answer; anything else is raised."""
        try:
            body: bytes = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise KubernetesError(f"the Kubernetes API broke off: {_said(error)}") from error
        if 200 <= response.status < 300:
            return body
        message = _message(body) or f"the Kubernetes API answered {response.status}"
        if response.status == 409:
            raise Stale(message, http_status=409)
        if response.status in {404, 410}:
            raise Gone(message, http_status=response.status)
        raise KubernetesError(message, http_status=response.status)


def _path(group: str, version: str, plural: str, namespace: str, name: str) -> str:
    """Of one object. A CertificateSigningRequest may be called anything without a slash or a percent sign: `a?b` is no query."""
    scope = f"namespaces/{namespace}/" if namespace else ""
    return f"/apis/{group}/{version}/{scope}{plural}/{quote(name, safe='')}"


def _yaml(body: Mapping[str, Any]) -> str:
    """JSON that is YAML too. It is, but for a character beyond U+FFFF: what JSON escapes as two surrogates, YAML refuses."""
    return _SURROGATES.sub(lambda pair: str(json.loads(f'"{pair[0]}"')), json.dumps(body))


def _request_status(status: RequestStatus) -> dict[str, Any]:
    """The status as the API has it: certificates are base64 of PEM."""
    return conditions.without_none(
        {
            "conditions": [conditions.as_json(condition) for condition in status.conditions],
            "certificate": _b64(status.certificate_pem),
            "ca": _b64(status.ca_pem),
            "failureTime": status.failure_time,
        }
    )


def _signing_request_status(status: RequestStatus) -> dict[str, Any]:
    """Either the certificate or Failed; by server-side apply, which leaves Approved where it is."""
    conditions_ = [conditions.as_json(condition) for condition in status.conditions]
    return conditions.without_none({"conditions": conditions_ or None, "certificate": _b64(status.certificate_pem)})


def _pod_certificate_status(status: RequestStatus) -> dict[str, Any]:
    """Everything in one write, after which the object is frozen."""
    written: dict[str, Any] = {"conditions": [conditions.as_json(condition) for condition in status.conditions]}
    if status.certificate_pem is not None and status.times is not None:
        written |= {
            "certificateChain": status.certificate_pem.decode("ascii"),
            "notBefore": conditions.timestamp(status.times.not_before),
            "beginRefreshAt": conditions.timestamp(status.times.begin_refresh_at),
            "notAfter": conditions.timestamp(status.times.not_after),
        }
    return written


_STATUSES: Mapping[Form, Callable[[RequestStatus], dict[str, Any]]] = {
    Form.CERTIFICATE_REQUEST: _request_status,
    Form.SIGNING_REQUEST: _signing_request_status,
    Form.POD_CERTIFICATE: _pod_certificate_status,
}


def _b64(pem: bytes | None) -> str | None:
    return None if pem is None else base64.b64encode(pem).decode("ascii")


def _message(body: bytes) -> str:
    """The sentence of a metav1.Status."""
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return ""


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__
