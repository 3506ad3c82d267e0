"""TokenReview on a real API server: tokens that count and those that must not."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from estcore.errors import EstError, Unauthenticated, Unavailable
from estserver import kubernetes_config
from estserver.kubernetes_api import KubernetesApi
from estserver.token_review import KubernetesTokenReviewer
from estserver.tokens import Tokens
from tests.integration.apiserver import ApiServer
from tests.integration.rights import estserver_kubeconfig
from tests.server.running import eventually

NAMESPACE, TENANT, AUDIENCE = "est-tokens", "token-owners", "est-issuer"
OURS = frozenset({AUDIENCE})


@pytest.fixture(scope="module")
def kubeconfig(apiserver: ApiServer) -> Path:
    return estserver_kubeconfig(apiserver, NAMESPACE)


@pytest.fixture
async def reviewer(kubeconfig: Path) -> AsyncIterator[KubernetesTokenReviewer]:
    async with KubernetesApi(kubernetes_config.from_kubeconfig(kubeconfig)) as api:
        yield KubernetesTokenReviewer(api)


def pod(name: str) -> dict[str, object]:
    spec = {"containers": [{"name": "main", "image": "none"}], "serviceAccountName": "device"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": TENANT}, "spec": spec}


@pytest.mark.spec("THREAT-25")
async def test_a_token_for_our_audience_names_its_service_account(apiserver: ApiServer, reviewer: KubernetesTokenReviewer) -> None:
    token = apiserver.token_for(TENANT, "device", AUDIENCE)
    reviewed = await reviewer.review(token, audiences=OURS)
    assert reviewed is not None
    assert reviewed.username == f"system:serviceaccount:{TENANT}:device"
    assert reviewed.audiences == OURS
    account = await Tokens(reviewer, clock=lambda: datetime.now(UTC)).identify(token, audiences=OURS)
    assert account.full_name == f"{TENANT}/device"


@pytest.mark.spec("THREAT-25")
@pytest.mark.parametrize("audience", [None, "another", "https://kubernetes.default.svc"])
async def test_a_token_for_another_audience_is_nobody(
    apiserver: ApiServer, reviewer: KubernetesTokenReviewer, audience: str | None
) -> None:
    assert await reviewer.review(apiserver.token_for(TENANT, "device", audience), audiences=OURS) is None


@pytest.mark.spec("THREAT-25")
async def test_of_several_audiences_only_those_of_the_token_are_confirmed(apiserver: ApiServer, reviewer: KubernetesTokenReviewer) -> None:
    reviewed = await reviewer.review(apiserver.token_for(TENANT, "device", AUDIENCE), audiences=frozenset({AUDIENCE, "devices"}))
    assert reviewed is not None
    assert reviewed.audiences == OURS


@pytest.mark.spec("THREAT-25")
async def test_a_token_that_was_altered_is_nobody(apiserver: ApiServer, reviewer: KubernetesTokenReviewer) -> None:
    head, claims, signature = apiserver.token_for(TENANT, "device", AUDIENCE).split(".")
    altered = signature[:10] + ("A" if signature[10] != "A" else "B") + signature[11:]
    for token in (f"{head}.{claims}.{altered}", f"{head}.{claims}.", "x.y.z", "nonsense"):
        assert await reviewer.review(token, audiences=OURS) is None


@pytest.mark.spec("THREAT-25")
async def test_a_token_of_a_deleted_pod_is_nobody(apiserver: ApiServer, reviewer: KubernetesTokenReviewer) -> None:
    apiserver.token_for(TENANT, "device", AUDIENCE)
    apiserver.apply(pod("gone"))
    token = apiserver.token_for(TENANT, "device", AUDIENCE, bound_pod="gone")
    assert await reviewer.review(token, audiences=OURS) is not None
    apiserver.kubectl("delete", "pod", "gone", "-n", TENANT, "--grace-period=0", "--force")

    await until_nobody(reviewer, token)


@pytest.mark.spec("THREAT-25")
async def test_a_token_of_a_deleted_service_account_is_nobody(apiserver: ApiServer, reviewer: KubernetesTokenReviewer) -> None:
    token = apiserver.token_for(TENANT, "leaver", AUDIENCE)
    apiserver.kubectl("delete", "serviceaccount", "leaver", "-n", TENANT)
    await until_nobody(reviewer, token)


async def until_nobody(reviewer: KubernetesTokenReviewer, token: str) -> None:
    """The API server hears of what is deleted by a watch, and remembers a good token for 10 s."""

    async def is_nobody() -> bool:
        return await reviewer.review(token, audiences=OURS) is None

    await eventually(is_nobody)


@pytest.mark.spec("THREAT-33")
async def test_while_the_api_is_away_nobody_is_judged(apiserver: ApiServer, reviewer: KubernetesTokenReviewer) -> None:
    token = apiserver.token_for(TENANT, "device", AUDIENCE)
    apiserver.stop_apiserver()
    try:
        with pytest.raises(EstError) as refused:
            await reviewer.review(token, audiences=OURS)
        assert isinstance(refused.value, Unavailable)
        assert not isinstance(refused.value, Unauthenticated)
    finally:
        apiserver.start_apiserver()
    assert await reviewer.review(token, audiences=OURS) is not None


async def test_without_the_right_to_ask_nobody_is_judged(apiserver: ApiServer) -> None:
    powerless = apiserver.kubeconfig_for(NAMESPACE, "powerless")
    async with KubernetesApi(kubernetes_config.from_kubeconfig(powerless)) as api:
        with pytest.raises(Unavailable):
            await KubernetesTokenReviewer(api).review(apiserver.token_for(TENANT, "device", AUDIENCE), audiences=OURS)
