"""A Lease as the API server keeps it: in memory, with resourceVersions, conflicts and a watch."""

import asyncio
import copy
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from estoperator.kubernetes_errors import Gone, KubernetesError, Stale


class LeaseServer:
    """One collection of Leases. `down` refuses every call, `deaf` brings no watch events."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.down = False
        self.deaf = False
        self.brought = asyncio.Event()
        """Set once a watcher has taken an event and come back for the next."""
        self._version = 10
        self._changed = asyncio.Event()

    async def call(
        self, method: str, path: str, *, query: list[tuple[str, str]] | None = None, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        await asyncio.sleep(0)
        if self.down:
            raise KubernetesError("connection refused")
        if method == "GET":
            if self.lease is None:
                raise Gone("not found", http_status=404)
            return copy.deepcopy(self.lease)
        assert body is not None
        if method == "POST":
            if self.lease is not None:
                raise Stale("already exists", http_status=409)
        elif self.lease is None:
            raise Gone("not found", http_status=404)
        elif body["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            raise Stale("the object has been modified", http_status=409)
        self._version += 1
        self.lease = copy.deepcopy(dict(body))
        self.lease["metadata"]["resourceVersion"] = str(self._version)
        self._changed.set()
        self._changed = asyncio.Event()
        return copy.deepcopy(self.lease)

    async def watch(self, path: str, *, field_selector: str, resource_version: str, seconds: int) -> AsyncGenerator[dict[str, Any], None]:
        while True:
            if self.down:
                raise KubernetesError("connection refused")
            if self.lease is not None and not self.deaf and int(self.lease["metadata"]["resourceVersion"]) > int(resource_version):
                resource_version = self.lease["metadata"]["resourceVersion"]
                yield {"type": "MODIFIED", "object": copy.deepcopy(self.lease)}
                self.brought.set()
            else:
                await self._changed.wait()

    @property
    def holder(self) -> str:
        assert self.lease is not None
        return str(self.lease["spec"]["holderIdentity"])
