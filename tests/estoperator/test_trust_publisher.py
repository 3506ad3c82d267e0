"""When trust is written, swept and given up, with an API server that a test scripts."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest

from estcore.issuer_spec import TrustConfigMap
from estoperator import trust
from estoperator.events import Event, issuer_subject
from estoperator.kubernetes_errors import Gone, KubernetesError, Stale
from estoperator.metrics import Metrics
from estoperator.resources import IssuerRef
from estoperator.trust import UID_LABEL, Trust
from estoperator.trust_kinds import ClusterTrustBundles, ConfigMaps, Kind
from estoperator.trust_publisher import RETRY_SECONDS, SWEEP_SECONDS, Publisher
from tests import pki
from tests.estoperator.builders import FACTORY, NOW
from tests.estoperator.test_workqueue import Clock

BUNDLES = "/apis/certificates.k8s.io/v1/clustertrustbundles"
BETA = "/apis/certificates.k8s.io/v1beta1/clustertrustbundles"
NAME = trust.bundle_name(FACTORY)
FORBIDDEN = KubernetesError("clustertrustbundles is forbidden", http_status=403)
ABSENT = Gone("the server could not find the requested resource", http_status=404)


ca = functools.cache(pki.ca)


def pem(*names: str) -> str:
    return b"".join(ca(name).pem for name in names).decode()


@dataclass
class Api:
    """An API server with bundles and issuers; `errors` are answers to (method, path) instead."""

    bundles: dict[str, dict[str, Any]] = field(default_factory=dict)
    issuers: list[str] = field(default_factory=list)
    errors: dict[tuple[str, str], KubernetesError] = field(default_factory=dict)
    calls: list[tuple[str, str]] = field(default_factory=list)
    namespaces: list[dict[str, Any]] = field(default_factory=list)
    versions: tuple[str, ...] = ("v1", "v1beta1")
    """Of certificates.k8s.io with bundles."""

    async def serves(self, group: str, version: str, plural: str) -> bool:
        assert (group, plural) == ("certificates.k8s.io", "clustertrustbundles")
        return version in self.versions

    async def call(
        self, method: str, path: str, *, query: list[tuple[str, str]] | None = None, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        self.calls.append((method, path))
        if error := self.errors.get((method, path)):
            raise error
        if method == "GET" and path.startswith("/apis/est-issuer.io/v1alpha1/"):
            uids = self.issuers if path.endswith("/estissuers") else []
            return {"metadata": {}, "items": [{"metadata": {"uid": uid}} for uid in uids]}
        if (method, path) == ("GET", "/api/v1/namespaces"):
            assert "labelSelector" not in dict(query or [])
            return {"metadata": {}, "items": self.namespaces}
        if method == "GET":
            assert ("labelSelector", UID_LABEL) in (query or [])
            return {"metadata": {}, "items": list(self.bundles.values())}
        name = path.rpartition("/")[2]
        assert body is not None
        if method == "DELETE":
            assert body["preconditions"] == {key: self.bundles[name]["metadata"][key] for key in ("uid", "resourceVersion")}
            return self.bundles.pop(name)
        stored = {**body, "metadata": {**body["metadata"], "uid": "o1", "resourceVersion": str(len(self.calls))}}
        self.bundles[body["metadata"]["name"]] = stored
        return stored


@dataclass
class Source:
    there: dict[str, Trust] = field(default_factory=dict)
    uids: set[str] = field(default_factory=set)

    def trusts(self) -> dict[str, Trust]:
        return dict(self.there)

    def has_uid(self, uid: str) -> bool:
        return uid in self.uids

    def say(self, *names: str, uid: str = "u1", **fields: Any) -> None:
        """The issuer's trust anchors, by the names of CAs."""
        self.there[uid] = Trust(ref=FACTORY, uid=uid, anchors_pem=pem(*names), **fields)
        self.uids.add(uid)


@dataclass
class World:
    api: Api = field(default_factory=Api)
    source: Source = field(default_factory=Source)
    clock: Clock = field(default_factory=Clock)
    metrics: Metrics = field(default_factory=Metrics)
    told: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.publisher = self.publisher_of(ClusterTrustBundles(self.api, now=lambda: NOW))

    def publisher_of(self, kind: Kind) -> Publisher:
        return Publisher(kind=kind, api=self.api, source=self.source, metrics=self.metrics, clock=self.clock, tell=self.told.append)

    @property
    def is_open(self) -> float | None:
        return self.metrics.registry.get_sample_value("est_operator_trust_open", {"kind": "ClusterTrustBundle"})

    async def turn(self) -> list[tuple[str, str]]:
        """What one turn asks of the API server."""
        self.api.calls.clear()
        await self.publisher.turn()
        return list(self.api.calls)


@pytest.fixture
def world() -> World:
    made = World()
    made.source.say("A")
    return made


async def test_a_change_is_written_in_the_next_turn_and_a_turn_without_one_asks_nothing(world: World) -> None:
    assert await world.turn() == [("GET", BUNDLES), ("POST", BUNDLES)]
    assert await world.turn() == []
    world.source.say("A", "B")
    assert await world.turn() == [("GET", BUNDLES), ("PUT", f"{BUNDLES}/{NAME}")]
    assert world.api.bundles[NAME]["spec"]["trustBundle"] == pem("A", "B")


async def test_an_edit_or_a_deletion_by_somebody_is_undone_within_a_minute(world: World) -> None:
    await world.turn()
    world.api.bundles[NAME]["spec"] = {"signerName": "x", "trustBundle": "forged"}
    world.clock.seconds += SWEEP_SECONDS
    await world.turn()
    assert world.api.bundles[NAME]["spec"]["trustBundle"] == pem("A")
    del world.api.bundles[NAME]
    world.clock.seconds += SWEEP_SECONDS
    await world.turn()
    assert NAME in world.api.bundles


async def test_what_is_left_of_an_issuer_that_is_gone_is_swept_at_start(world: World) -> None:
    await world.turn()
    later = World(api=world.api)
    await later.turn()
    assert world.api.bundles == {}


async def test_when_an_issuer_is_deleted_its_bundle_goes_in_the_next_turn(world: World) -> None:
    await world.turn()
    world.source.there.clear()
    world.source.uids.clear()
    await world.turn()
    assert world.api.bundles == {}


@pytest.mark.parametrize("doubt", ["the API server has it", "the API server does not say"])
async def test_nothing_is_swept_while_the_issuer_may_be_there(world: World, doubt: str) -> None:
    await world.turn()
    later = World(api=world.api)
    if doubt == "the API server has it":
        world.api.issuers.append("u1")
    else:
        world.api.errors["GET", "/apis/est-issuer.io/v1alpha1/estissuers"] = ABSENT
    await later.turn()
    assert NAME in world.api.bundles


async def test_what_was_published_stays_while_estserver_has_not_told_of_the_issuer(world: World) -> None:
    await world.turn()
    world.source.there.clear()
    assert not {method for method, _ in await world.turn()} & {"PUT", "DELETE"}
    assert NAME in world.api.bundles


async def test_an_issuer_made_anew_takes_the_name_over(world: World) -> None:
    await world.turn()
    world.source.there.clear()
    world.source.uids.clear()
    world.source.say("B", uid="u2")
    assert await world.turn() == [("GET", BUNDLES), ("PUT", f"{BUNDLES}/{NAME}")]
    assert world.api.bundles[NAME]["metadata"]["labels"][UID_LABEL] == "u2"


async def test_where_only_v1beta1_is_served_that_is_written(world: World) -> None:
    world.api.versions = ("v1beta1",)
    assert await world.turn() == [("GET", BETA), ("POST", BETA)]
    assert world.api.bundles[NAME]["apiVersion"] == "certificates.k8s.io/v1beta1"


async def off_until_the_errors_are_gone(world: World) -> None:
    await world.turn()
    assert world.is_open == 0
    world.source.say("B")
    assert await world.turn() == []
    world.api.errors.clear()
    world.clock.seconds += SWEEP_SECONDS
    await world.turn()
    assert world.is_open == 1


async def test_after_an_upgrade_of_the_api_server_its_newer_version_is_written(world: World) -> None:
    world.api.versions = ("v1beta1",)
    await world.turn()
    world.api.versions = ("v1",)
    world.source.say("B")
    assert await world.turn() == [("GET", BUNDLES), ("PUT", f"{BUNDLES}/{NAME}")]
    assert world.api.bundles[NAME]["apiVersion"] == "certificates.k8s.io/v1"


async def test_where_no_version_is_served_it_is_off_and_opens_later(world: World) -> None:
    world.api.versions = ()
    assert await world.turn() == []
    assert world.is_open == 0
    world.api.versions = ("v1",)
    world.clock.seconds += SWEEP_SECONDS
    await world.turn()
    assert world.is_open == 1
    assert world.api.bundles[NAME]["spec"]["trustBundle"] == pem("A")


@pytest.mark.parametrize("error", [FORBIDDEN, ABSENT], ids=["forbidden", "gone between the question and the list"])
async def test_where_it_is_forbidden_or_absent_it_is_off_and_opens_later(world: World, error: KubernetesError) -> None:
    world.api.errors["GET", BUNDLES] = error
    await off_until_the_errors_are_gone(world)
    assert world.api.bundles[NAME]["spec"]["trustBundle"] == pem("B")


async def test_where_only_writing_is_forbidden_it_is_off_too(world: World) -> None:
    world.api.errors["POST", BUNDLES] = FORBIDDEN
    await off_until_the_errors_are_gone(world)


@pytest.mark.parametrize("call", [("GET", BUNDLES), ("POST", BUNDLES)])
async def test_what_fails_is_tried_again_soon_but_not_at_once(world: World, call: tuple[str, str]) -> None:
    world.api.errors[call] = KubernetesError("etcdserver: request timed out", http_status=500)
    await world.turn()
    world.api.errors.clear()
    assert await world.turn() == []
    world.clock.seconds += RETRY_SECONDS
    await world.turn()
    assert NAME in world.api.bundles


async def test_an_object_of_that_name_that_is_not_ours_is_left(world: World) -> None:
    world.api.errors["POST", BUNDLES] = Stale("already exists", http_status=409)
    assert await world.turn() == [("GET", BUNDLES), ("POST", BUNDLES)]
    assert world.api.bundles == {}
    assert world.metrics.registry.get_sample_value("est_operator_errors_total", {"work": "trust", "reason": "Stale"}) == 1


async def test_what_is_not_out_is_told_on_its_issuer_once_until_it_changes(world: World) -> None:
    """A condition of the issuer is about its CA; without this only the operator's log would say so."""
    world.api.errors["POST", BUNDLES] = Stale("already exists", http_status=409)
    for fault in (None, None, KubernetesError("away", http_status=500), None):
        world.api.errors.pop(("GET", BUNDLES), None)
        if fault is not None:
            world.api.errors["GET", BUNDLES] = fault
        await world.turn()
        world.clock.seconds += SWEEP_SECONDS
    (event,) = world.told
    assert event.subject == issuer_subject(FACTORY, "u1")
    assert (event.reason, event.warning) == ("TrustNotPublished", True)
    assert event.note == f"ClusterTrustBundle {NAME}: an object of this name is there, and not ours; it is left as it is"
    world.api.errors["POST", BUNDLES] = KubernetesError("no room", http_status=422)
    await world.turn()
    assert world.told.pop().note == f"ClusterTrustBundle {NAME}: no room"
    world.api.errors.clear()
    world.clock.seconds += SWEEP_SECONDS
    await world.turn()
    assert NAME in world.api.bundles
    world.api.bundles.clear()
    world.api.errors["POST", BUNDLES] = KubernetesError("no room", http_status=422)
    world.clock.seconds += SWEEP_SECONDS
    await world.turn()
    assert len(world.told) == 2


async def test_what_cannot_be_removed_is_in_the_log_for_there_is_no_issuer_to_tell(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    await world.turn()
    world.source.there.clear()
    world.source.uids.clear()
    world.api.errors["DELETE", f"{BUNDLES}/{NAME}"] = KubernetesError("no", http_status=500)
    await world.turn()
    assert world.told == []
    assert "trust_not_published" in capsys.readouterr().out


async def test_of_two_issuers_that_want_one_config_map_the_second_is_told() -> None:
    world = World()
    kind = ConfigMaps(world.api, permitted=True, bundles=None, namespace="est", now=lambda: NOW)
    config_map = TrustConfigMap.model_validate({"name": "roots"})
    other = IssuerRef("EstIssuer", "devices", "second")
    for uid, ref in (("u1", FACTORY), ("u2", other)):
        world.source.there[uid] = Trust(ref=ref, uid=uid, anchors_pem=pem("A"), config_map=config_map, max_life=timedelta(days=1))
    await world.publisher_of(kind).turn()
    (event,) = world.told
    assert event.subject == issuer_subject(other, "u2")
    assert event.note == "ConfigMap devices/roots: another issuer has one of this name there"


async def test_a_config_map_that_the_installation_does_not_permit_is_told_with_who_asks(capsys: pytest.CaptureFixture[str]) -> None:
    world = World()
    kind = ConfigMaps(world.api, permitted=False, bundles=None, namespace="est", now=lambda: NOW)
    publisher = world.publisher_of(kind)
    await publisher.turn()
    assert "trust_off" not in capsys.readouterr().out
    config_map = TrustConfigMap.model_validate({"name": "roots"})
    world.source.there["u1"] = Trust(ref=FACTORY, uid="u1", anchors_pem=pem("A"), config_map=config_map)
    await publisher.turn()
    assert world.api.calls == []
    said = capsys.readouterr().out
    assert "EstIssuer devices/factory asks for one" in said
    assert "trust.configMaps.enabled" in said
    (event,) = world.told
    assert event.subject == issuer_subject(FACTORY, "u1")
    assert event.note == "ConfigMap roots: the chart's value trust.configMaps.enabled is false"


async def test_a_root_that_was_replaced_without_a_roll_over_stays_and_config_maps_have_it_too() -> None:
    world = World()
    bundles = ClusterTrustBundles(world.api, now=lambda: NOW)
    config_map = TrustConfigMap.model_validate({"name": "roots"})
    world.source.say("A", max_life=timedelta(days=1), config_map=config_map)
    await bundles_turn(world, bundles)
    world.source.say("B", max_life=timedelta(days=1), config_map=config_map)
    await bundles_turn(world, bundles)
    assert world.api.bundles[NAME]["spec"]["trustBundle"] == pem("B", "A")
    kind = ConfigMaps(world.api, permitted=True, bundles=bundles, namespace="est", now=lambda: NOW)
    (made,) = await kind.wanted(world.source.there.values(), [])
    assert made["data"] == {"ca.crt": pem("B", "A")}


async def test_without_bundles_a_config_map_of_the_operators_own_namespace_remembers_what_to_keep() -> None:
    world = World()
    kind = ConfigMaps(world.api, permitted=True, bundles=None, namespace="est", now=lambda: NOW)
    config_map = TrustConfigMap.model_validate({"name": "roots"})
    world.source.say("A", max_life=timedelta(days=1), config_map=config_map)
    first = await kind.wanted(world.source.there.values(), [])
    assert {trust.place(body): body["data"] for body in first} == {
        ("devices", "roots"): {"ca.crt": pem("A")},
        ("est", "est-issuer-roots-u1"): {"ca.crt": pem("A")},
    }
    world.source.say("B", max_life=timedelta(days=1), config_map=config_map)
    roots, memory = await kind.wanted(world.source.there.values(), first)
    assert roots["data"] == memory["data"] == {"ca.crt": pem("B", "A")}
    # what a tenant writes into its own is no memory
    forged = {**memory, "metadata": {**memory["metadata"], "namespace": "devices", "name": "roots"}, "data": {"ca.crt": pem("B", "C")}}
    roots, _ = await kind.wanted(world.source.there.values(), [forged])
    assert roots["data"] == {"ca.crt": pem("B")}


async def test_while_bundles_cannot_be_written_config_maps_have_the_new_root_and_the_old_one() -> None:
    world = World()
    bundles = ClusterTrustBundles(world.api, now=lambda: NOW)
    kind = ConfigMaps(world.api, permitted=True, bundles=bundles, namespace="est", now=lambda: NOW)
    config_map = TrustConfigMap.model_validate({"name": "roots"})
    world.source.say("A", max_life=timedelta(days=1), config_map=config_map)
    await bundles_turn(world, bundles)
    assert len(await kind.wanted(world.source.there.values(), [])) == 1
    world.api.errors["GET", BUNDLES] = FORBIDDEN
    world.source.say("B", max_life=timedelta(days=1), config_map=config_map)
    await bundles_turn(world, bundles)
    roots, memory = await kind.wanted(world.source.there.values(), [])
    assert roots["data"] == {"ca.crt": pem("B", "A")}
    assert trust.place(memory) == ("est", "est-issuer-roots-u1")


@pytest.mark.parametrize("error", [KubernetesError("exceeded quota: few", http_status=403), KubernetesError("immutable", http_status=422)])
async def test_a_namespace_that_takes_no_config_map_keeps_none_from_another_and_changes_do_not_wait_for_it(error: KubernetesError) -> None:
    world = World()
    kind = ConfigMaps(world.api, permitted=True, bundles=None, namespace="est", now=lambda: NOW)
    world.publisher = world.publisher_of(kind)
    full, other = IssuerRef("EstIssuer", "a-full", "factory"), IssuerRef("EstIssuer", "b-other", "factory")
    for uid, ref in (("u1", full), ("u2", other)):
        config_map = TrustConfigMap.model_validate({"name": f"{ref.namespace}-roots"})
        world.source.there[uid] = Trust(ref=ref, uid=uid, anchors_pem=pem("A"), config_map=config_map, max_life=timedelta(days=1))
    world.api.errors["POST", "/api/v1/namespaces/a-full/configmaps"] = error
    await world.turn()
    assert "a-full-roots" not in world.api.bundles
    assert world.api.bundles["b-other-roots"]["data"] == {"ca.crt": pem("A")}
    assert world.metrics.registry.get_sample_value("est_operator_trust_open", {"kind": "ConfigMap"}) == 1
    assert await world.turn() == [], "not at once"
    world.source.there["u2"] = replace(world.source.there["u2"], anchors_pem=pem("B"))
    await world.turn()
    assert world.api.bundles["b-other-roots"]["data"] == {"ca.crt": pem("B", "A")}
    del world.api.errors["POST", "/api/v1/namespaces/a-full/configmaps"]
    world.clock.seconds += SWEEP_SECONDS
    await world.turn()
    assert world.api.bundles["a-full-roots"]["data"] == {"ca.crt": pem("A")}


async def test_config_maps_wait_at_start_for_what_the_bundles_keep() -> None:
    """A list that failed once would take a root out of every ConfigMap that the bundle keeps."""
    world = World()
    bundles = ClusterTrustBundles(world.api, now=lambda: NOW)
    kind = ConfigMaps(world.api, permitted=True, bundles=bundles, namespace="est", now=lambda: NOW)
    config_map = TrustConfigMap.model_validate({"name": "roots"})
    world.source.say("A", config_map=config_map)
    world.api.errors["GET", BUNDLES] = KubernetesError("etcdserver: request timed out", http_status=500)
    await bundles_turn(world, bundles)
    with pytest.raises(KubernetesError, match="not known yet"):
        await kind.wanted(world.source.there.values(), [])
    world.api.errors["GET", BUNDLES] = FORBIDDEN
    await bundles_turn(world, bundles)
    assert len(await kind.wanted(world.source.there.values(), [])) == 2


async def test_a_selector_that_no_api_server_takes_selects_nothing_and_stops_no_other() -> None:
    """kube-apiserver answers 400 to a label with an empty part, which the CRD's pattern lets through."""
    world = World()
    world.api.namespaces = [
        {"metadata": {"name": "plain"}},
        {"metadata": {"name": "labelled", "labels": {"team": "a"}}},
        {"metadata": {"name": "ending", "labels": {"team": "a"}, "deletionTimestamp": "2026-01-01T00:00:00Z"}},
    ]
    kind = ConfigMaps(world.api, permitted=True, bundles=None, namespace="est", now=lambda: NOW)
    selectors = {"odd": {"matchExpressions": [{"key": "a..b/c", "operator": "Exists"}]}, "good": {"matchLabels": {"team": "a"}}, "all": {}}
    for name, selector in selectors.items():
        config_map = TrustConfigMap.model_validate({"name": name, "namespaceSelector": selector})
        ref = IssuerRef("EstClusterIssuer", "", name)
        world.source.there[name] = Trust(ref=ref, uid=name, anchors_pem=pem("A"), config_map=config_map)
    made = [trust.place(body) for body in await kind.wanted(world.source.there.values(), [])]
    assert [at for at in made if at.namespace != "est"] == [("plain", "all"), ("labelled", "all"), ("labelled", "good")]


async def bundles_turn(world: World, bundles: ClusterTrustBundles) -> None:
    await world.publisher_of(bundles).turn()
