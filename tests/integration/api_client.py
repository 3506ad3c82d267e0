"""The API server over kept connections, as the tests ask it thousands of times: a process of kubectl for each was most of their work."""

import json
import ssl
import time
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx

Object = dict[str, Any]

DISCOVERY = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
APPLY = "application/apply-patch+yaml"
DISCOVERY_SECONDS = 10.0
"""How long after it is ready an API server that was started may lack a kind of a CustomResourceDefinition."""

FIELD_MANAGER = "kubectl"
ATTEMPTS = 10
"""As many as client-go makes."""


class Resource(NamedTuple):
    """Where objects of a kind are."""

    root: str
    plural: str
    namespaced: bool

    def collection(self, namespace: str) -> str:
        """Of one namespace, of all where it is empty or the kind has none."""
        return f"{self.root}/namespaces/{namespace}/{self.plural}" if self.namespaced and namespace else f"{self.root}/{self.plural}"


class ApiClient:
    """As whoever has the token. Raises RuntimeError with what the API server said, as does `ApiServer.kubectl`.

    A resource is named as kubectl takes it: `secrets`, `certificaterequests.est-issuer.io`, `clustertrustbundles.v1.certificates.k8s.io`.
    """

    def __init__(self, url: str, *, ca_pem: bytes, token: str) -> None:
        context = ssl.create_default_context(cadata=ca_pem.decode())
        self._http = httpx.Client(base_url=url, verify=context, headers={"Authorization": f"Bearer {token}"}, timeout=60, trust_env=False)
        self._resources: dict[str, Resource] = {}

    def get(self, resource: str, name: str, namespace: str = "") -> Object | None:
        """The object, None where there is none."""
        answer = self._send("GET", f"{self._resource(resource).collection(namespace)}/{quote(name, safe='')}")
        return None if answer.status_code == httpx.codes.NOT_FOUND else _read(answer)

    def list(self, resource: str, namespace: str = "", *, field_selector: str = "") -> list[Object]:
        """Those of a namespace, of all where it is empty."""
        query = {"fieldSelector": field_selector} if field_selector else {}
        found: list[Object] = _read(self._send("GET", self._resource(resource).collection(namespace), query=query))["items"]
        return found

    def create(self, manifest: Mapping[str, Any]) -> Object:
        """The object as it was made."""
        resource, _, namespace = self._named(manifest)
        return _read(self._send("POST", resource.collection(namespace), body=manifest, query={"fieldValidation": "Strict"}))

    def apply(self, manifest: Mapping[str, Any], *, part: str = "", field_manager: str = FIELD_MANAGER) -> Object:
        """The object as it then is; by server-side apply, forced. `part` is a subresource."""
        resource, name, namespace = self._named(manifest)
        query = {"fieldManager": field_manager, "force": "true", "fieldValidation": "Strict"}
        path = f"{resource.collection(namespace)}/{quote(name, safe='')}{f'/{part}' if part else ''}"
        return _read(self._send("PATCH", path, body=manifest, query=query, content_type=APPLY))

    def patch(self, resource: str, name: str, namespace: str, body: Mapping[str, Any]) -> Object:
        """The object as it then is; by a merge patch."""
        path = f"{self._resource(resource).collection(namespace)}/{quote(name, safe='')}"
        return _read(self._send("PATCH", path, body=body, content_type="application/merge-patch+json"))

    def delete(self, resource: str, name: str, namespace: str = "") -> None:
        """Delete it; what has finalizers may still be there."""
        _read(self._send("DELETE", f"{self._resource(resource).collection(namespace)}/{quote(name, safe='')}"))

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Object:
        """Whatever else the API has."""
        return _read(self._send(method, path, body=body))

    def forget(self) -> None:
        """Look anew for what there is: the API server is about to be another one."""
        self._resources = {}

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _named(self, manifest: Mapping[str, Any]) -> tuple[Resource, str, str]:
        metadata = manifest["metadata"]
        resource = self._resource(f"{manifest['apiVersion']}/{manifest['kind']}")
        return resource, metadata.get("name", ""), metadata.get("namespace", "default")

    def _resource(self, named: str) -> Resource:
        deadline = time.monotonic() + DISCOVERY_SECONDS
        while named not in self._resources:
            if time.monotonic() > deadline:
                raise RuntimeError(f"the API server has no {named}")
            self._resources = _served(_read(self._send("GET", "/api", accept=DISCOVERY)), core=True)
            for key, resource in _served(_read(self._send("GET", "/apis", accept=DISCOVERY)), core=False).items():
                self._resources.setdefault(key, resource)
            if named not in self._resources:
                time.sleep(0.2)
        return self._resources[named]

    def _send(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> httpx.Response:
        headers = {"Accept": accept, "Content-Type": content_type}
        # An apply is read as YAML, which knows no pairs of surrogates.
        octets = None if body is None else json.dumps(body, ensure_ascii=False).encode()
        for _ in range(ATTEMPTS):
            try:
                answer = self._http.request(method, path, content=octets, params=query, headers=headers)
            except httpx.HTTPError as error:
                raise RuntimeError(f"{method} {path}: {error!r}") from error
            if answer.status_code != httpx.codes.TOO_MANY_REQUESTS:
                break
            time.sleep(float(answer.headers.get("Retry-After", "1")))  # as kubectl does: one that is starting has no storage yet
        return answer


def _served(found: Object, *, core: bool) -> dict[str, Resource]:
    """By the names that kubectl takes, and by apiVersion and kind; in the preferred version where none is named."""
    served: dict[str, Resource] = {}
    for item in found["items"]:
        group = item["metadata"].get("name", "")
        for version in item["versions"]:
            api_version = version["version"] if core else f"{group}/{version['version']}"
            for kind in version.get("resources", ()):
                plural = kind["resource"]
                resource = Resource(f"/{'api' if core else 'apis'}/{api_version}", plural, kind["scope"] == "Namespaced")
                names = [f"{api_version}/{kind['responseKind']['kind']}", plural]
                names += [] if core else [f"{plural}.{group}", f"{plural}.{version['version']}.{group}"]
                for name in names:
                    served.setdefault(name, resource)
    return served


def _read(answer: httpx.Response) -> Object:
    if answer.is_success:
        found: Object = answer.json()
        return found
    try:
        told = answer.json()
        said = f"{told['reason']}: {told['message']}"
    except (ValueError, KeyError):
        said = answer.text
    raise RuntimeError(f"{answer.request.method} {answer.request.url.path}: {answer.status_code} {said}")
