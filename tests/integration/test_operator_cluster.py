"""The operator's writes on a real API server: what server-side apply keeps, and what it answers."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from estoperator import conditions
from estoperator.cluster import Cluster
from estoperator.conditions import RequestStatus, ready_condition
from estoperator.doors import CERT_MANAGER, EST_ISSUER, SIGNING_REQUESTS
from estoperator.kubernetes_errors import Gone, KubernetesError, Stale
from estoperator.resources import CertRequest, RequestKey
from tests.integration.apiserver import ApiServer
from tests.integration.operator_system import OURS, THEIRS, condition, operator_kubeconfig, request_manifest
from tests.integration.test_signing_requests import manifest as signing_request

NAMESPACE = "operator-cluster"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def api(cert_manager_crd: None, apiserver: ApiServer) -> ApiServer:
    apiserver.ensure_namespace(NAMESPACE)
    return apiserver


@pytest.fixture
async def cluster(api: ApiServer) -> AsyncIterator[Cluster]:
    connected = await Cluster.connect(max_connections=2, kubeconfig=operator_kubeconfig(api, NAMESPACE))
    yield connected
    await connected.close()


async def made(api: ApiServer, cluster: Cluster, plural: str, name: str) -> CertRequest:
    api.apply(request_manifest(plural, NAMESPACE, name))
    request = await cluster.read_request(RequestKey((CERT_MANAGER if plural == THEIRS else EST_ISSUER).door, NAMESPACE, name))
    assert request is not None
    return request


@pytest.mark.parametrize("plural", [OURS, THEIRS])
async def test_a_status_for_a_version_that_is_no_more_is_stale_and_writes_nothing(api: ApiServer, cluster: Cluster, plural: str) -> None:
    old = await made(api, cluster, plural, "stale")
    new = await cluster.apply_status(old, conditions.pending(old, message="first", now=NOW))
    assert new is not None
    with pytest.raises(Stale):
        await cluster.apply_status(old, conditions.denied(old, now=NOW))
    after = await cluster.read_request(old.key)
    assert after is not None
    assert after.ready is not None
    assert after.ready.message == "first"


async def test_a_later_apply_keeps_what_others_wrote_and_drops_what_we_no_longer_say(api: ApiServer, cluster: Cluster) -> None:
    request = await made(api, cluster, THEIRS, "kept")
    approval = '{"status":{"conditions":[{"type":"Approved","status":"True","reason":"x","message":"y"}]}}'
    api.kubectl("patch", THEIRS, "kept", "-n", NAMESPACE, "--subresource=status", "--type=merge", "-p", approval)
    request = await cluster.read_request(request.key) or request
    written = await cluster.apply_status(request, conditions.pending(request, message="wait", now=NOW))
    assert written is not None
    assert written.approved
    final = conditions.failed(written, message="no", reason="BadCsr", invalid="BadCsr", now=NOW)
    assert await cluster.apply_status(written, final) is None

    status = json.loads(api.kubectl("get", THEIRS, "kept", "-n", NAMESPACE, "-o", "json"))["status"]
    assert [found["type"] for found in status["conditions"]].count("Ready") == 1
    assert (condition(status, "Approved")["message"], condition(status, "InvalidRequest")["reason"]) == ("y", "BadCsr")
    assert status["failureTime"] == "2026-01-01T00:00:00Z"


@pytest.mark.parametrize("plural", [OURS, THEIRS])
async def test_a_message_may_hold_any_character(api: ApiServer, cluster: Cluster, plural: str) -> None:
    """It quotes names that a tenant chose: one that the API server cannot read would keep the request open for ever."""
    request = await made(api, cluster, plural, "said")
    said = '\U0001f600 \U0010fffd \\ud83d\\ude00 \\ " ü \x7f \x85 \u2028 \ufffe \uffff : - # |'
    written = await cluster.apply_status(request, conditions.pending(request, message="", now=NOW))
    assert written is not None
    status = RequestStatus(
        conditions=(replace(ready_condition(written.ready, status="False", reason="Pending", message="", now=NOW), message=said),)
    )
    written = await cluster.apply_status(written, status)
    assert written is not None
    assert written.ready is not None
    assert written.ready.message == said


@pytest.mark.parametrize("name", ["Any_Name", "any?", "any?status=no#1", "any a:b", "any-\U0001f600", "l" * 300])
async def test_a_signing_request_may_be_called_anything(api: ApiServer, cluster: Cluster, name: str) -> None:
    """kube-apiserver takes every name without a slash or a percent sign."""
    api.client.create(signing_request(name, "estissuers.est-issuer.io/any.any", "any.svc"))
    request = await cluster.read_request(RequestKey(SIGNING_REQUESTS.door, "", name))
    assert request is not None
    assert request.key.name == name
    await cluster.apply_status(request, conditions.failed(request, message="no", reason="No", invalid=None, now=NOW))
    ended = await cluster.read_request(request.key)
    assert ended is not None
    assert ended.finished


async def test_a_status_for_an_object_that_is_gone_is_gone_and_makes_none(api: ApiServer, cluster: Cluster) -> None:
    request = await made(api, cluster, OURS, "gone")
    api.kubectl("delete", OURS, "gone", "-n", NAMESPACE)
    with pytest.raises(Gone):
        await cluster.apply_status(request, conditions.denied(request, now=NOW))
    with pytest.raises(Gone):
        await cluster.read_request(request.key)


async def test_a_status_for_another_object_of_the_same_name_is_stale(api: ApiServer, cluster: Cluster) -> None:
    old = await made(api, cluster, OURS, "again")
    api.kubectl("delete", OURS, "again", "-n", NAMESPACE)
    await made(api, cluster, OURS, "again")
    with pytest.raises(Stale):
        await cluster.apply_status(old, conditions.denied(old, now=NOW))


async def test_the_list_of_a_door_goes_page_by_page_and_a_door_without_its_crd_is_gone(
    api: ApiServer, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("estoperator.pages.PAGE", 2)
    names = {f"page-{number}" for number in range(5)}
    for name in names:
        await made(api, cluster, OURS, name)
    assert names <= {request.key.name async for request in cluster.requests(EST_ISSUER)}
    with pytest.raises(Gone):
        _ = [request async for request in cluster.requests(replace(CERT_MANAGER, version="v9"))]


async def test_the_operators_rights_are_asked_and_no_more_are_there(api: ApiServer, cluster: Cluster) -> None:
    assert await cluster.may("patch", "est-issuer.io", "certificaterequests", subresource="status")
    assert not await cluster.may("list", "", "secrets")
    with pytest.raises(KubernetesError) as refused:
        await cluster.call("GET", "/api/v1/secrets")
    assert refused.value.http_status == 403
