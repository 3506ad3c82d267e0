"""What the operator reads of an API server, here one on loopback that gives what no CRD would."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from estoperator.cluster import Cluster
from estoperator.doors import CERT_MANAGER
from tests.estoperator.builders import body


class Lists:
    """An API server that answers each list with `pages`, one after the other."""

    def __init__(self) -> None:
        self.pages: list[list[dict[str, Any]]] = []

    async def answer(self, request: web.Request) -> web.Response:
        at = int(request.query.get("continue", "0"))
        more = str(at + 1) if at + 1 < len(self.pages) else ""
        return web.json_response({"items": self.pages[at], "metadata": {"continue": more}})


@pytest.fixture
def lists() -> Lists:
    return Lists()


@pytest.fixture
async def cluster(lists: Lists, tmp_path: Path) -> AsyncIterator[Cluster]:
    app = web.Application()
    app.router.add_get("/{path:.*}", lists.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    kubeconfig = tmp_path / "kubeconfig"
    named = {"name": "test", "cluster": {"server": f"http://127.0.0.1:{runner.addresses[0][1]}"}}
    context = {"name": "test", "context": {"cluster": "test", "user": "test"}}
    users = [{"name": "test", "user": {"token": "token"}}]
    kubeconfig.write_text(json.dumps({"clusters": [named], "contexts": [context], "users": users, "current-context": "test"}))
    connected = await Cluster.connect(max_connections=2, kubeconfig=kubeconfig)
    yield connected
    await connected.close()
    await runner.cleanup()


@pytest.mark.spec("THREAT-34")
async def test_an_object_that_cannot_be_read_keeps_no_other_from_being_seen(cluster: Cluster, lists: Lists) -> None:
    odd = body(CERT_MANAGER, name="odd", conditions=[{"status": "True"}])
    without_spec = {name: value for name, value in body(CERT_MANAGER, name="without-spec").items() if name != "spec"}
    lists.pages = [[body(CERT_MANAGER, name="one"), odd, without_spec], [odd, body(CERT_MANAGER, name="other")]]
    assert [request.key.name async for request in cluster.requests(CERT_MANAGER)] == ["one", "other"]
