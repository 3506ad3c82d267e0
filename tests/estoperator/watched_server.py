"""An API server whose watches may not be resumed after a gap: what kopf needs of one, on loopback, without a cluster."""

import asyncio
import json
from pathlib import Path
from typing import Any

from aiohttp import web

GROUP_PATH = "/apis/est-issuer.io/v1alpha1"
ISSUERS, CLUSTER_ISSUERS, REQUESTS = (f"{GROUP_PATH}/{plural}" for plural in ("estissuers", "estclusterissuers", "certificaterequests"))
NAMESPACES = "/api/v1/namespaces"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
KINDS = {
    ISSUERS: ("EstIssuer", True),
    CLUSTER_ISSUERS: ("EstClusterIssuer", False),
    REQUESTS: ("CertificateRequest", True),
    NAMESPACES: ("Namespace", False),
    DEFINITIONS: ("CustomResourceDefinition", False),
}
EXPIRED = {"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": "too old resource version"}


class WatchedServer:
    """`objects` is what each collection lists. Belongs to one event loop."""

    def __init__(self) -> None:
        self.objects: dict[str, list[dict[str, Any]]] = {path: [] for path in KINDS}
        self.watched: set[str] = set()
        """The collections that are watched since the last gap."""

        self._version = 20
        self._gap = asyncio.Event()
        self._ended = False

    async def start(self, kubeconfig: Path) -> web.AppRunner:
        """Serve on loopback, and write how to get there."""
        app = web.Application()
        app.router.add_get("/{path:.*}", self._answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        cluster = {"name": "test", "cluster": {"server": f"http://127.0.0.1:{runner.addresses[0][1]}"}}
        context = {"name": "test", "context": {"cluster": "test", "user": "test"}}
        users = [{"name": "test", "user": {"token": "token"}}]
        config = {"kind": "Config", "clusters": [cluster], "contexts": [context], "users": users, "current-context": "test"}
        kubeconfig.write_text(json.dumps(config))  # noqa: ASYNC240 - a test has the thread for itself
        return runner

    def gap(self, objects: dict[str, list[dict[str, Any]]]) -> None:
        """Break every watch off, let this come to be, and have no watch resumed from before."""
        self.objects |= objects
        self.watched.clear()
        self._version += 20
        broken, self._gap = self._gap, asyncio.Event()
        broken.set()

    def end(self) -> None:
        """Let go of every watch, or kopf, which waits for all tasks that began after it, waits seconds for those that serve them."""
        self._ended = True
        self._gap.set()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        if path in self.objects:
            return await self._watch(request) if "watch" in request.query else self._list(path)
        collection, _, name = path.rpartition("/")
        for one in self.objects.get(collection.replace("/namespaces/devices", ""), []):
            if one["metadata"]["name"] == name:
                return web.json_response(one)
        found = self._discovery(path)
        return web.json_response(found) if found else web.json_response({"kind": "Status", "code": 404, "message": "not found"}, status=404)

    def _list(self, path: str) -> web.Response:
        return web.json_response({"metadata": {"resourceVersion": str(self._version)}, "items": self.objects[path]})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        stream = web.StreamResponse()
        stream.content_type = "application/json"
        await stream.prepare(request)
        if int(request.query["resourceVersion"]) < self._version:
            await stream.write(json.dumps({"type": "ERROR", "object": EXPIRED}).encode() + b"\n")
            return stream
        self.watched.add(request.path)
        if not self._ended:
            await self._gap.wait()
        return stream

    def _discovery(self, path: str) -> dict[str, Any] | None:
        if path == "/api":
            return {"versions": ["v1"]}
        if path == "/apis":
            versions = [("est-issuer.io", {"version": "v1alpha1"}), ("apiextensions.k8s.io", {"version": "v1"})]
            return {"groups": [{"name": name, "preferredVersion": version, "versions": [version]} for name, version in versions]}
        kinds = {at.rpartition("/"): kind for at, kind in KINDS.items()}
        verbs = ["get", "list", "watch", "patch"]
        resources = [
            {"name": plural, "singularName": "", "kind": kind, "namespaced": namespaced, "verbs": verbs, "shortNames": [], "categories": []}
            for (parent, _, plural), (kind, namespaced) in kinds.items()
            if parent == path
        ]
        return {"resources": resources} if resources else None
