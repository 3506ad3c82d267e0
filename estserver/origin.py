"""Where issuers and our own certificate come from: a directory or a cluster. This layer has the clock and the randomness."""

import secrets
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from estcore.authority import serial_number
from estcore.errors import ConfigurationError
from estserver import kubernetes_config
from estserver.kubernetes_config import ClusterConfig
from estserver.metrics import Metrics
from estserver.serving_keeper import ServingKeeper
from estserver.serving_store import DirectoryStore, FilesStore, ServingStore
from estserver.settings import Settings
from estserver.snapshot import Snapshot

if TYPE_CHECKING:
    from estserver.kubernetes_api import KubernetesApi

log = structlog.get_logger("estserver")


def utc_now() -> datetime:
    """The clock of this program."""
    return datetime.now(UTC)


def random_serial() -> int:
    """A serial number of 128 random bits."""
    return serial_number(secrets.token_bytes(16))


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where issuers and our own certificate come from. `watch` runs until cancelled and hands out snapshots."""

    watch: Callable[[Callable[[Snapshot], None], Metrics], Coroutine[Any, Any, None]]
    certificate: ServingKeeper


@asynccontextmanager
async def open_origin(settings: Settings) -> AsyncIterator[Origin]:
    """The origin that the settings name. Raises ConfigurationError for manifests that do not fit. httpx is loaded for a cluster only."""
    if settings.config is not None:
        yield _directory(settings, settings.config)
        return
    from estserver.kubernetes_api import KubernetesApi

    async with KubernetesApi(cluster(settings)) as api:
        yield _cluster(settings, api)


def _directory(settings: Settings, config: Path) -> Origin:
    from estserver.source_directory import DirectorySource

    source = DirectorySource(config=config, state=settings.state_directory, clock=utc_now, serial=random_serial)
    first = source.load()

    async def _watch(publish: Callable[[Snapshot], None], metrics: Metrics) -> None:
        def _fits(snapshot: Snapshot) -> None:
            metrics.configuration_current(current=True)
            log.info("manifests read again", issuers=len(snapshot.issuers))
            publish(snapshot)

        def _does_not_fit(error: ConfigurationError) -> None:
            metrics.configuration_current(current=False)
            log.error("the manifests do not fit; going on with the ones before", error=str(error))

        publish(first)
        await source.watch(_fits, _does_not_fit)

    return Origin(watch=_watch, certificate=_certificate(settings, DirectoryStore(settings.state_directory / "serving")))


def _cluster(settings: Settings, api: "KubernetesApi") -> Origin:
    from estserver.serving_in_cluster import KubernetesStore
    from estserver.source_kubernetes import KubernetesSource

    namespace = install_namespace(settings)
    source = KubernetesSource(api=api, namespace=namespace, clock=utc_now, serial=random_serial, longest_outage=settings.longest_outage)
    store = KubernetesStore(
        api,
        namespace=namespace,
        secret=settings.serving_secret or f"{settings.release}-serving",
        config_map=f"{settings.release}-serving-ca",
        trust_namespaces=settings.trust_namespaces,
    )

    async def _watch(publish: Callable[[Snapshot], None], _: Metrics) -> None:
        await source.watch(publish)

    return Origin(watch=_watch, certificate=_certificate(settings, store))


def _certificate(settings: Settings, own: ServingStore) -> ServingKeeper:
    given = settings.serving_secret is not None or settings.serving_certificate is not None
    store = own
    if settings.serving_certificate is not None and settings.serving_key is not None:
        store = FilesStore(settings.serving_certificate, settings.serving_key)
    return ServingKeeper(
        store=store,
        names=() if given else settings.serving_names,
        waits=settings.serving_secret is not None,
        clock=utc_now,
        serial=random_serial,
    )


def cluster(settings: Settings) -> ClusterConfig:
    """How to reach the Kubernetes API."""
    return kubernetes_config.from_kubeconfig(settings.kubeconfig) if settings.kubeconfig is not None else kubernetes_config.in_cluster()


def install_namespace(settings: Settings) -> str:
    """Where we are installed; "default" for a directory."""
    return settings.namespace or (kubernetes_config.install_namespace() if settings.kubernetes else None) or "default"
