"""Reads the collections of the Kubernetes API a page at a time."""

from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol

from estoperator.resources import Object

PAGE = 500
"""Objects read at once."""


class PagesApi(Protocol):
    """What this module needs of Kubernetes; raises kubernetes_errors."""

    async def call(
        self, method: str, path: str, *, query: list[tuple[str, str]] | None = None, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """One JSON request."""
        ...


async def pages(api: PagesApi, path: str, query: list[tuple[str, str]]) -> AsyncIterator[Object]:
    """Each object of a collection."""
    next_page = ""
    while True:
        page = await api.call("GET", path, query=[*query, ("limit", str(PAGE)), *([("continue", next_page)] if next_page else [])])
        for item in page["items"]:
            yield item
        next_page = page["metadata"].get("continue") or ""
        if not next_page:
            return


async def uids(api: PagesApi, path: str) -> frozenset[str]:
    """Of all objects of a collection."""
    return frozenset([item["metadata"]["uid"] async for item in pages(api, path, [])])
