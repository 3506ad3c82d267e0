"""The server's own certificate in a Secret, its root in ConfigMaps: the ServingStore of a cluster."""

import base64
import binascii
from collections.abc import Coroutine
from typing import Any

import structlog

from estcore.errors import ConfigurationError
from estserver.kubernetes_api import ApiError, KubernetesApi, Object
from estserver.serving_store import Data, Stored, encoded
from estserver.snapshot import TYPE_TLS

log = structlog.get_logger(__name__)


class KubernetesStore:
    """Secret `<release>-serving` (or a given one) and ConfigMap `<release>-serving-ca`, the latter also in `trust_namespaces`."""

    def __init__(self, api: KubernetesApi, *, namespace: str, secret: str, config_map: str, trust_namespaces: tuple[str, ...]) -> None:
        self._api = api
        self._namespace = namespace
        self._secret = secret
        self._config_map = config_map
        self._namespaces = tuple(dict.fromkeys((namespace, *trust_namespaces)))
        self.where = f"Secret {namespace}/{secret}"

    async def load(self) -> Stored:
        """The Secret as it is now; a Secret of another type is refused, lest a mistyped name publish something."""
        try:
            secret = await self._api.get(self._path("secrets", self._namespace, self._secret))
        except ApiError as error:
            if error.not_found:
                return Stored(None, "")
            raise
        if secret.get("type") != TYPE_TLS:
            raise ConfigurationError(f"its type is not {TYPE_TLS}", where=self.where, field="type")
        return Stored(_decoded(secret, self.where), secret["metadata"]["resourceVersion"])

    async def save(self, data: Data, version: str) -> bool:
        """POST, or PUT on the version that was loaded."""
        metadata = {"name": self._secret, "namespace": self._namespace, "labels": {"app.kubernetes.io/managed-by": "est-issuer"}}
        body = {"apiVersion": "v1", "kind": "Secret", "type": TYPE_TLS, "metadata": metadata, "data": encoded(data)}
        try:
            if version:
                swap = {**body, "metadata": {**metadata, "resourceVersion": version}}
                await self._api.replace(self._path("secrets", self._namespace, self._secret), swap)
            else:
                await self._api.create(self._path("secrets", self._namespace), body)
        except ApiError as error:
            if error.conflict or error.not_found:
                return False
            raise
        return True

    async def publish(self, bundle_pem: bytes) -> str:
        """Write the ConfigMaps that differ. A trust namespace that refuses or does not exist is logged and does not stop the server."""
        for namespace in self._namespaces:
            try:
                await self._publish_in(namespace, bundle_pem.decode())
            except ApiError as error:
                if namespace == self._namespace:
                    raise
                log.warning("the trust root was not published", namespace=namespace, error=str(error))
        return f"ConfigMap {self._namespace}/{self._config_map}"

    async def _publish_in(self, namespace: str, bundle: str) -> None:
        path = self._path("configmaps", namespace, self._config_map)
        try:
            current = await self._api.get(path)
        except ApiError as error:
            if not error.not_found:
                raise
            metadata = {"name": self._config_map, "namespace": namespace, "labels": {"app.kubernetes.io/managed-by": "est-issuer"}}
            body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"ca.crt": bundle}}
            await self._ignoring_conflict(self._api.create(self._path("configmaps", namespace), body))
            return
        if (current.get("data") or {}).get("ca.crt") != bundle:
            await self._ignoring_conflict(self._api.replace(path, {**current, "data": {**(current.get("data") or {}), "ca.crt": bundle}}))

    @staticmethod
    async def _ignoring_conflict(call: Coroutine[Any, Any, Object]) -> None:
        """Another replica publishes the same; the next turn sees whether it did."""
        try:
            await call
        except ApiError as error:
            if not error.conflict:
                raise

    @staticmethod
    def _path(kind: str, namespace: str, name: str = "") -> str:
        return f"/api/v1/namespaces/{namespace}/{kind}" + (f"/{name}" if name else "")


def _decoded(secret: Object, where: str) -> dict[str, bytes]:
    try:
        return {member: base64.b64decode(value or "") for member, value in (secret.get("data") or {}).items()}
    except (binascii.Error, ValueError) as error:
        raise ConfigurationError("its data is not base64", where=where) from error
