"""The kinds of object that trust is published in: what there is of each, and what there should be."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from types import MappingProxyType
from typing import Protocol

from estoperator import kept_roots, trust
from estoperator.kept_roots import Anchors
from estoperator.kubernetes_errors import Gone, KubernetesError
from estoperator.pages import PagesApi, pages
from estoperator.resources import Object
from estoperator.served import Discovery, served_version
from estoperator.trust import Place, Trust
from estoperator.trust_news import Missing

NOT_PERMITTED = "the chart's value trust.configMaps.enabled is false"


class TrustApi(PagesApi, Protocol):
    """What this module needs of Kubernetes; raises kubernetes_errors."""


class BundleApi(TrustApi, Discovery, Protocol):
    """The same, and in which versions it serves a kind."""


class Kind(Protocol):
    """One kind of object that trust is published in."""

    name: str
    """As logs and metrics say it."""

    @property
    def missing(self) -> Mapping[Missing, str]:
        """What the last `wanted` left out, although an issuer asks for it, and why."""
        ...

    @property
    def collection(self) -> str:
        """Path of all of them."""
        ...

    async def listed(self) -> list[Object]:
        """All with our label; raises Gone where the API server has no such kind, KubernetesError 403 where we may not."""
        ...

    async def wanted(self, trusts: Iterable[Trust], listed: Iterable[Object]) -> list[Object]:
        """What there should be of it, by what is there."""
        ...


class ClusterTrustBundles:
    """certificates.k8s.io ClusterTrustBundles, in the first of `VERSIONS` that the API server serves."""

    name = "ClusterTrustBundle"
    missing: Mapping[Missing, str] = MappingProxyType({})
    VERSIONS = ("v1", "v1beta1")

    def __init__(self, api: BundleApi, *, now: Callable[[], datetime]) -> None:
        self._api, self._now = api, now
        self._version = self.VERSIONS[0]
        self.published: dict[str, tuple[str, Anchors]] = {}
        """What the issuer has, PEM, and what its bundle has for that, with what is kept; by the issuer's uid."""

        self.looked = False
        """Whether it is known what they keep, or that there are none."""

    @property
    def collection(self) -> str:
        """In the version that was served last."""
        return f"/apis/{trust.CERTIFICATES_GROUP}/{self._version}/clustertrustbundles"

    async def listed(self) -> list[Object]:
        """All with our label."""
        try:
            version = await served_version(self._api, trust.CERTIFICATES_GROUP, "clustertrustbundles", self.VERSIONS)
            if version is None:
                raise Gone("the API server does not serve clustertrustbundles", http_status=404)
            self._version = version
            found = await list_ours(self._api, self.collection)
        except KubernetesError as error:
            self.looked |= error.http_status in {403, 404}
            raise
        self.looked = True
        return found

    async def wanted(self, trusts: Iterable[Trust], listed: Iterable[Object]) -> list[Object]:
        """One for each issuer."""
        now = self._now()
        before = {body["metadata"]["labels"][trust.UID_LABEL]: trust.anchors_of_bundle(body) for body in listed}
        bundles: list[Object] = []
        published: dict[str, tuple[str, Anchors]] = {}
        for one in trusts:
            anchors = kept_roots.keep(one.anchors_pem, before.get(one.uid), max_life=one.max_life, now=now)
            published[one.uid] = one.anchors_pem, anchors
            kept = replace(one, anchors_pem=anchors.pem)
            bundles.append(trust.cluster_trust_bundle(kept, version=self._version, annotations=anchors.annotations))
        self.published = published
        return bundles


class ConfigMaps:
    """ConfigMaps in the namespaces that issuers say; `permitted` is what the installation says of it.

    Where there are no bundles, one in the operator's own `namespace` remembers what to keep: in another, tenants might have a say.
    """

    name = "ConfigMap"
    collection = "/api/v1/configmaps"

    def __init__(
        self, api: TrustApi, *, permitted: bool, bundles: ClusterTrustBundles | None, namespace: str, now: Callable[[], datetime]
    ) -> None:
        self._api, self._permitted, self._bundles = api, permitted, bundles
        self._namespace, self._now = namespace, now
        self.missing: dict[Missing, str] = {}

    async def listed(self) -> list[Object]:
        """All with our label."""
        return await list_ours(self._api, self.collection) if self._permitted else []

    async def wanted(self, trusts: Iterable[Trust], listed: Iterable[Object]) -> list[Object]:
        """One for each issuer that asks, in each of its namespaces that is not about to go; with what its bundle or our memory keeps."""
        asking = [one for one in trusts if one.config_map is not None]
        self.missing = {}
        if asking and not self._permitted:
            self.missing = {Missing(one.uid, one.config_map.name): NOT_PERMITTED for one in asking if one.config_map is not None}
            raise KubernetesError(f"{asking[0].ref} asks for one, and {NOT_PERMITTED}", http_status=403)
        if asking and self._bundles is not None and not self._bundles.looked:
            raise KubernetesError("it is not known yet what the ClusterTrustBundles keep")
        there = {trust.place(body): body for body in listed}
        published: list[Trust] = []
        memories: list[Object] = []
        for one in asking:
            anchors, memory = self._kept(one, there)
            published.append(replace(one, anchors_pem=anchors.pem))
            memories += memory
        made, disputed = trust.config_maps(published, await self._selected(published))
        self.missing = {Missing(one.uid, str(at)): "another issuer has one of this name there" for at, one in disputed.items()}
        return [*made.values(), *memories]

    def _kept(self, one: Trust, there: Mapping[Place, Object]) -> tuple[Anchors, list[Object]]:
        """The anchors of one issuer, and what must remember them where its bundle does not."""
        present_pem, anchors = (self._bundles.published if self._bundles is not None else {}).get(one.uid, ("", None))
        if anchors is not None and present_pem == one.anchors_pem:
            return anchors, []
        at = Place(self._namespace, trust.memory_name(one.uid))
        # Without a memory what the bundle has is before, where it could not be brought up to date.
        before = trust.anchors_of_config_map(there[at]) if at in there else anchors
        anchors = kept_roots.keep(one.anchors_pem, before, max_life=one.max_life, now=self._now())
        return anchors, [trust.config_map(replace(one, anchors_pem=anchors.pem), at, anchors.annotations)]

    async def _selected(self, asking: Iterable[Trust]) -> dict[str, list[str]]:
        """The namespaces of each selector, by its query. We select by ourselves: one that the API server refuses would stop all others."""
        asked = [one.config_map.namespace_selector for one in asking if one.config_map is not None and not one.ref.namespace]
        selectors = {selector.query: selector for selector in asked if selector is not None}
        if not selectors:
            return {}
        listed = [item["metadata"] async for item in pages(self._api, "/api/v1/namespaces", [])]
        living = {one["name"]: one.get("labels") or {} for one in listed if "deletionTimestamp" not in one}
        return {query: [name for name, labels in living.items() if selector.matches(labels)] for query, selector in selectors.items()}


async def list_ours(api: TrustApi, path: str) -> list[Object]:
    """All objects of a collection that have our label."""
    return [item async for item in pages(api, path, [("labelSelector", trust.UID_LABEL)])]
