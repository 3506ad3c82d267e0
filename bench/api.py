"""The API server of the kind cluster, for load: bodies ready to send, keep-alive connections, and watches instead of lists."""

import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Thread
from typing import Any

from kubernetes import client, config
from urllib3 import BaseHTTPResponse

Object = dict[str, Any]
APPLY = "application/apply-patch+yaml"


class Api:
    """By the given context of the kubeconfig, with as many connections as `connections`."""

    def __init__(self, context: str, *, connections: int) -> None:
        configuration = client.Configuration()
        config.load_kube_config(context=context, client_configuration=configuration)  # type: ignore[no-untyped-call]  # kubernetes has no types
        configuration.connection_pool_maxsize = connections + 1
        self._server = configuration.host
        self._pool = client.ApiClient(configuration).rest_client.pool_manager
        self._connections = connections

    def call(self, method: str, path: str, body: Object | bytes | None = None, *, media_type: str = "application/json") -> Object:
        """The answer's object. Raises RuntimeError on an answer that is no success."""
        octets = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        answer = self._pool.request(method, self._server + path, body=octets, headers={"Content-Type": media_type})
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {answer.data[:500].decode(errors='replace')}")
        return dict(json.loads(answer.data))

    def apply(self, path: str, body: Object) -> None:
        """Make the object be so."""
        self.call("PATCH", f"{path}/{body['metadata']['name']}?fieldManager=bench&force=true", body, media_type=APPLY)

    def each(self, work: Callable[[str], None], names: Sequence[str]) -> None:
        """Do the work for every name, over all connections."""
        with ThreadPoolExecutor(self._connections) as pool:
            for _ in pool.map(work, names):
                pass

    def serves(self, path: str) -> bool:
        """Whether a group is there in a version."""
        return bool(self._pool.request("GET", self._server + path).status == 200)

    def delete_all(self, path: str) -> None:
        """Delete what a path lists, and return when it is gone."""
        while self.call("GET", f"{path}?limit=1")["items"]:
            answer = self._pool.request("DELETE", self._server + path)
            if answer.status not in {200, 504}:  # where they are too many for one call's time, the next goes on
                raise RuntimeError(f"DELETE {path}: {answer.status} {answer.data[:500].decode(errors='replace')}")

    def version(self, path: str) -> str:
        """From where to watch what a path lists."""
        return str(self.call("GET", f"{path}?limit=1")["metadata"]["resourceVersion"])

    def watch(self, path: str, *, version: str, seconds: int) -> BaseHTTPResponse:
        """A watch of what a path lists, from a version on."""
        url = f"{self._server}{path}?watch=true&timeoutSeconds={seconds}&resourceVersion={version}"
        return self._pool.request("GET", url, preload_content=False, timeout=seconds + 10)


class Ends:
    """When each object of a path first was as `ended` says, seen by a watch that begins here."""

    def __init__(self, api: Api, path: str, ended: Callable[[Object], bool], *, seconds: int) -> None:
        self._api, self._path, self._ended, self._seconds = api, path, ended, seconds
        self._version = api.version(path)
        self._over = Event()
        self.at: dict[str, float] = {}
        Thread(target=self._read, daemon=True).start()

    def wait(self, names: Collection[str]) -> Mapping[str, float]:
        """When each of the names ended, in monotonic seconds. Raises SystemExit where some did not in time."""
        began = time.monotonic()
        while missing := [name for name in names if name not in self.at]:
            if time.monotonic() - began > self._seconds:
                raise SystemExit(f"bench: {len(missing)} of {len(names)} requests were not done after {self._seconds} s")
            time.sleep(0.02)
        self._over.set()
        return {name: self.at[name] for name in names}

    def _read(self) -> None:
        while not self._over.is_set():  # the API server ends a watch that it finds too slow: go on from where it was
            watch = self._api.watch(self._path, version=self._version, seconds=self._seconds)
            for line in _lines(watch):
                event = json.loads(line)
                if event["type"] == "ERROR":  # that version is gone, as after a change of the CRD: go on from what is there now
                    self._relist()
                    break
                self._version = event["object"]["metadata"]["resourceVersion"]
                self._see(event["object"])
                if self._over.is_set():
                    break
            watch.close()

    def _relist(self) -> None:
        listed = self._api.call("GET", self._path)
        self._version = listed["metadata"]["resourceVersion"]
        for item in listed["items"]:
            self._see(item)

    def _see(self, item: Object) -> None:
        if self._ended(item):
            self.at.setdefault(item["metadata"]["name"], time.monotonic())


def until(true: Callable[[], bool], what: str) -> None:
    """Raises SystemExit where it is not so within a minute."""
    deadline = time.monotonic() + 60
    while not true():
        if time.monotonic() > deadline:
            raise SystemExit(f"bench: after 60 s it is not so that {what}")
        time.sleep(0.2)


def _lines(answer: BaseHTTPResponse) -> Iterator[bytes]:
    rest = b""
    for chunk in answer.stream(65536):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines


def is_ready(item: Object) -> bool:
    """Of a CertificateRequest."""
    return any(c["type"] == "Ready" and c["status"] == "True" for c in item.get("status", {}).get("conditions", ()))


def is_issued(item: Object) -> bool:
    """Of a PodCertificateRequest."""
    return any(c["type"] == "Issued" for c in item.get("status", {}).get("conditions", ()))
