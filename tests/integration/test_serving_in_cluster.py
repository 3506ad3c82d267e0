"""The server's own certificate in a Secret and its root in ConfigMaps, with the rights that the chart gives."""

import asyncio
import base64
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from estcore.errors import ConfigurationError
from estserver import kubernetes_config
from estserver.kubernetes_api import KubernetesApi
from estserver.serving_certificate import renewed
from estserver.serving_in_cluster import KubernetesStore
from estserver.serving_keeper import ServingKeeper
from tests.integration.apiserver import ApiServer
from tests.integration.rights import RBAC, estserver_kubeconfig
from tests.server.manifest_builders import NOW, next_serial

_numbers = itertools.count(1)
NAMES = ("est-issuer.est.svc",)


@pytest.fixture
def namespace() -> str:
    return f"est-serving-{next(_numbers)}"


@pytest.fixture
def kubeconfig(apiserver: ApiServer, namespace: str) -> Path:
    return estserver_kubeconfig(apiserver, namespace)


@asynccontextmanager
async def replica(
    kubeconfig: Path, namespace: str, *, given: str | None = None, trust: tuple[str, ...] = ()
) -> AsyncIterator[ServingKeeper]:
    async with KubernetesApi(kubernetes_config.from_kubeconfig(kubeconfig)) as api:
        name = given or "est-issuer-serving"
        store = KubernetesStore(api, namespace=namespace, secret=name, config_map="est-issuer-serving-ca", trust_namespaces=trust)
        yield ServingKeeper(store=store, names=() if given else NAMES, clock=lambda: NOW, serial=next_serial)


def secret(apiserver: ApiServer, namespace: str, name: str = "est-issuer-serving") -> dict[str, bytes]:
    found = json.loads(apiserver.kubectl("get", "secret", name, "-n", namespace, "-o", "json"))
    return {member: base64.b64decode(value) for member, value in found["data"].items()}


def bundle(apiserver: ApiServer, namespace: str) -> str:
    found = json.loads(apiserver.kubectl("get", "configmap", "est-issuer-serving-ca", "-n", namespace, "-o", "json"))
    return str(found["data"]["ca.crt"])


async def test_it_is_made_once_and_its_root_is_published(apiserver: ApiServer, kubeconfig: Path, namespace: str) -> None:
    async with replica(kubeconfig, namespace) as first, replica(kubeconfig, namespace) as second:
        made = await asyncio.gather(first.refresh(), second.refresh())
        assert made[0] == made[1], "of two replicas that start at once one makes it"
        assert first.published == f"ConfigMap {namespace}/est-issuer-serving-ca"
    stored = secret(apiserver, namespace)
    assert stored["tls.crt"] == made[0].chain_pem
    assert bundle(apiserver, namespace).encode() == made[0].bundle_pem
    assert "PRIVATE KEY" not in bundle(apiserver, namespace)


async def test_a_renewal_swaps_and_never_overwrites_what_another_replica_wrote(
    apiserver: ApiServer, kubeconfig: Path, namespace: str
) -> None:
    async with replica(kubeconfig, namespace) as first, replica(kubeconfig, namespace) as second:
        before = await first.refresh()
        later = NOW + timedelta(days=61)
        first.clock = second.clock = lambda: later
        made = await asyncio.gather(first.refresh(), second.refresh())
        assert made[0] == made[1]
        assert made[0].chain_pem != before.chain_pem
        assert made[0].bundle_pem == before.bundle_pem
        assert secret(apiserver, namespace)["tls.key"] == made[0].key_pem


async def test_trust_namespaces_get_a_copy_and_one_that_refuses_stops_nobody(
    apiserver: ApiServer, kubeconfig: Path, namespace: str
) -> None:
    pods, absent = f"{namespace}-pods", f"{namespace}-absent"
    apiserver.ensure_namespace(pods)
    rules = [
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "update"], "resourceNames": ["est-issuer-serving-ca"]},
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create"]},
    ]
    apiserver.apply(
        {"apiVersion": f"{RBAC}/v1", "kind": "Role", "metadata": {"name": "trust", "namespace": pods}, "rules": rules},
        {
            "apiVersion": f"{RBAC}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "trust", "namespace": pods},
            "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": "trust"},
            "subjects": [{"kind": "ServiceAccount", "name": "estserver", "namespace": namespace}],
        },
    )
    async with replica(kubeconfig, namespace, trust=(absent, pods)) as one:
        keys = await one.refresh()
        assert bundle(apiserver, pods).encode() == keys.bundle_pem
        apiserver.kubectl("patch", "configmap", "est-issuer-serving-ca", "-n", pods, "-p", '{"data":{"ca.crt":"forged","mine":"kept"}}')
        await one.refresh()
        assert bundle(apiserver, pods).encode() == keys.bundle_pem, "what somebody wrote over it is mended"


async def test_a_given_secret_is_used_and_its_root_published(apiserver: ApiServer, kubeconfig: Path, namespace: str) -> None:
    async with replica(kubeconfig, namespace, given="given") as one:
        with pytest.raises(ConfigurationError, match=f"Secret {namespace}/given: it does not exist"):
            await one.refresh()
        keys = renewed(None, NAMES, now=NOW, serial=next_serial)
        data = {"tls.crt": keys.chain_pem, "tls.key": keys.key_pem, "ca.crt": keys.bundle_pem}
        encoded = {member: base64.b64encode(value).decode() for member, value in data.items()}
        metadata = {"name": "given", "namespace": namespace}
        apiserver.apply({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": metadata, "data": encoded})
        assert (await one.refresh()).chain_pem == keys.chain_pem
        assert bundle(apiserver, namespace).encode() == keys.bundle_pem


async def test_a_given_secret_of_another_type_is_refused(apiserver: ApiServer, kubeconfig: Path, namespace: str) -> None:
    metadata = {"name": "theirs", "namespace": namespace}
    apiserver.apply({"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": metadata, "data": {}})
    async with replica(kubeconfig, namespace, given="theirs") as one:
        with pytest.raises(ConfigurationError, match=r"its type is not kubernetes\.io/tls"):
            await one.refresh()
