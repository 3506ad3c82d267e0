"""The Kubernetes API as far as estserver needs it, over httpx: list, watch, get, create, replace, delete. The only module with httpx.

The official client costs 20 MB a process; what is needed of it is below. Objects are plain mappings, as the API sends them.
Every failure leaves as an ApiError; nothing here retries, the callers know what a failure means to them.
"""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx

from estserver.kubernetes_config import ClusterConfig

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 15.0
WATCH_SECONDS = 290  # the server then ends the watch; a new one may reach another API server behind a balancer
SILENCE_SECONDS = 75.0  # the API server sends a bookmark each minute: longer silence is a dead connection
LIST_PAGE = 500

Object = Mapping[str, Any]


class ApiError(Exception):
    """The Kubernetes API did not do what was asked: `status` is its HTTP status, 0 where there was no answer. The text is for a log."""

    def __init__(self, message: str, *, status: int = 0, retry_after_seconds: float = 0) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_seconds = retry_after_seconds

    @property
    def forbidden(self) -> bool:
        """RBAC says no (403), or our token does not count (401)."""
        return self.status in {401, 403}

    @property
    def lacks_right(self) -> bool:
        """An authorizer says no, in the words of the API server's k8s.io/apiserver/pkg/endpoints/handlers/responsewriters/errors.go.

        A quota and admission answer 403 too, and no grant helps against them.
        """
        return self.status == 403 and ' is forbidden: User "' in str(self) and '" cannot ' in str(self)

    @property
    def gone(self) -> bool:
        """The resource version is too old: list again."""
        return self.status == 410

    @property
    def conflict(self) -> bool:
        """It exists already, or somebody else wrote it since we read it."""
        return self.status == 409

    @property
    def not_found(self) -> bool:
        """There is no such object, or no such kind."""
        return self.status == 404


@dataclass(frozen=True, slots=True)
class Listed:
    """A consistent list, and the resource version to watch from."""

    items: tuple[Object, ...]
    resource_version: str


class KubernetesApi:
    """One client for one API server; close it with `async with`."""

    def __init__(self, config: ClusterConfig, *, silence_seconds: float = SILENCE_SECONDS) -> None:
        self._token = config.token
        self._silence_seconds = silence_seconds
        self._client = httpx.AsyncClient(
            base_url=config.url,
            verify=config.ssl_context,
            timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=4),  # each watch holds a connection
            headers={"Accept": "application/json", "User-Agent": "estserver"},
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._client.aclose()

    async def get(self, path: str) -> Object:
        """GET one object."""
        return await self._call("GET", path)

    async def create(self, path: str, body: Object) -> Object:
        """POST to a collection; `conflict` when the name is taken."""
        return await self._call("POST", path, body=body)

    async def replace(self, path: str, body: Object) -> Object:
        """PUT one object: compare-and-swap on the metadata.resourceVersion in `body`, else `conflict`."""
        return await self._call("PUT", path, body=body)

    async def delete(self, path: str, *, uid: str) -> None:
        """DELETE the one object of this uid; `conflict` where the name is another one's by now."""
        await self._call("DELETE", path, body={"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}})

    async def list(self, path: str, *, field_selector: str = "") -> Listed:
        """The whole collection, page by page."""
        items: list[Object] = []
        parameters = {"limit": str(LIST_PAGE)} | ({"fieldSelector": field_selector} if field_selector else {})
        while True:
            page = await self._call("GET", path, parameters=parameters)
            items += page.get("items") or []
            metadata = page.get("metadata") or {}
            if not metadata.get("continue"):
                return Listed(tuple(items), str(metadata.get("resourceVersion", "")))
            parameters["continue"] = metadata["continue"]

    async def watch(self, path: str, resource_version: str, *, field_selector: str = "") -> AsyncGenerator[tuple[str, Object], None]:
        """Events (type, object) after `resource_version`, bookmarks included, until the server ends the watch.

        Raises ApiError: `gone` when the version is too old, status 0 when the connection broke or fell silent.
        """
        parameters = {
            "watch": "true",
            "resourceVersion": resource_version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        if field_selector:
            parameters["fieldSelector"] = field_selector
        timeout = httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS, read=self._silence_seconds)
        streaming = self._client.stream("GET", path, params=parameters, headers=self._headers(), timeout=timeout)
        async with _mapped(path), streaming as response:
            if response.status_code != httpx.codes.OK:
                await response.aread()
                _check(response, path)
            async for line in response.aiter_lines():
                event = json.loads(line)
                if event["type"] == "ERROR":
                    status = event["object"]
                    raise ApiError(f"{path}: {status.get('message', 'watch failed')}", status=int(status.get("code", 0)))
                yield event["type"], event["object"]

    async def _call(self, method: str, path: str, *, parameters: Mapping[str, str] | None = None, body: Object | None = None) -> Object:
        async with _mapped(path):
            response = await self._client.request(method, path, params=parameters, json=body, headers=self._headers())
            _check(response, path)
            answer: Object = response.json()
            return answer

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token()}"} if self._token is not None else {}


@asynccontextmanager
async def _mapped(path: str) -> AsyncIterator[None]:
    """The one place where httpx's errors become ours. Their texts hold no credentials: headers are not in them."""
    try:
        yield
    except httpx.ReadTimeout as error:
        raise ApiError(f"{path}: no answer in time") from error
    except httpx.HTTPError as error:
        raise ApiError(f"{path}: {type(error).__name__}: {error}") from error
    except (ValueError, LookupError) as error:
        raise ApiError(f"{path}: the answer is not what the Kubernetes API sends") from error
    except OSError as error:  # the token file, while the kubelet replaces it
        raise ApiError(f"{path}: {error}") from error


def _check(response: httpx.Response, path: str) -> None:
    if response.is_success:
        return
    try:
        message = str(response.json()["message"])
    except (ValueError, LookupError, TypeError):
        message = response.reason_phrase
    wait = response.headers.get("Retry-After", "")
    seconds = float(wait) if wait.isdigit() else 0.0
    raise ApiError(f"{path}: {response.status_code} {message[:500]}", status=response.status_code, retry_after_seconds=seconds)
