"""The command `est-operator`: puts the parts together and runs them beside kopf, until SIGTERM or until one of them fails."""

import asyncio
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime
from functools import partial

import kopf
import structlog

from estcore.errors import EstError
from estcore.requester import Door
from estoperator import access, handlers, logs, relist, settings
from estoperator.admission_guard import AdmissionGuard
from estoperator.cluster import Cluster
from estoperator.door_metrics import DoorMetrics
from estoperator.doors import DOORS, GROUP, ISSUER_PLURALS, VERSION, KubernetesDoor
from estoperator.est_server import EstServer, MountedFile
from estoperator.events import Events
from estoperator.health import Health
from estoperator.issuers import Issuers
from estoperator.issuing import Issuing
from estoperator.kubernetes_errors import KubernetesError
from estoperator.leadership import Leadership
from estoperator.metrics import Metrics
from estoperator.namespaces import Namespaces
from estoperator.open_requests import OpenRequests
from estoperator.program import Program, request_queue
from estoperator.registrations import Registrations
from estoperator.relist import Indexed, MustRestart
from estoperator.requester_guards import RequesterGuard, keep_checking
from estoperator.resources import IssuerRef, RequestKey
from estoperator.retention import Retention
from estoperator.settings import Settings
from estoperator.trust_kinds import ClusterTrustBundles, ConfigMaps, Kind
from estoperator.trust_publisher import IssuerTrusts, Publisher, publish
from estoperator.watching import watch
from estoperator.webhook_guard import WebhookGuard
from estoperator.workqueue import WorkQueue

log = structlog.get_logger(__name__)

API_RETRY_SECONDS = 2.0
SPARE_CONNECTIONS = 4
"""To the API server, beside one for each worker: the Lease, its watch, a re-list, the issuers."""


def main() -> None:
    """Run the operator; exits 1 where it cannot run or wants to be started anew."""
    try:
        loaded = settings.load()
    except EstError as error:
        sys.exit(error.message)
    logs.configure(log_format=loaded.log_format, level=loaded.log_level)
    try:
        # Not uvloop: when the API server goes away, its sockets and aiohttp's clash now and then ("File descriptor … is used by
        # transport"), and kopf ends over it (seen).
        asyncio.run(run(loaded))
    except (EstError, MustRestart) as error:
        log.error("stopping", error=str(error))  # noqa: TRY400  # the sentence says what to do; a trace would not help
        sys.exit(1)


async def run(loaded: Settings) -> None:
    """Run until SIGTERM (returns) or a failure (raises)."""
    metrics = Metrics()
    cluster = await Cluster.connect(max_connections=loaded.workers + SPARE_CONNECTIONS)
    server = EstServer(
        url=loaded.server_url,
        anchors=MountedFile(loaded.server_anchors_file, what="estserver's trust anchors", clock=time.monotonic),
        token=MountedFile(loaded.token_file, what="the ServiceAccount token", clock=time.monotonic),
        now=_now,
    )
    open_requests = OpenRequests()
    namespaces = Namespaces()
    guards = _guards(loaded, cluster, namespaces, metrics)
    program = _program(loaded, cluster, server, open_requests, metrics, namespaces, guards)
    started = asyncio.Event()
    heartbeat = program.leadership.heartbeat
    guarding = [asyncio.create_task(keep_checking(guard, asyncio.sleep)) for guard in guards]
    health = Health(collected=metrics, silent_seconds=lambda: heartbeat.silent_seconds(time.monotonic()), ready=started.is_set)
    try:
        port = await health.start(loaded.http_host, loaded.http_port)
        log.info("listening", http_port=port)
        doors, labels_seen = await _permitted_doors(cluster, loaded, metrics)
        program.issuing.doors.update({door.door: door for door in doors})
        registry = _registry(program, doors, open_requests, labels_seen=labels_seen)
        await _run_until_stopped(loaded, cluster, program, registry, doors, open_requests, started, metrics)
    finally:
        for task in guarding:
            task.cancel()
        await health.stop()
        await server.aclose()
        await cluster.close()


def _guards(loaded: Settings, cluster: Cluster, namespaces: Namespaces, metrics: Metrics) -> list[RequesterGuard]:
    """Who knows of which requests that admission checked who makes them."""
    guards: list[RequesterGuard] = [AdmissionGuard(cluster, name=loaded.admission_policy, metrics=metrics, now=_now)]
    if Door.CERT_MANAGER in loaded.doors:
        webhook = loaded.cert_manager_webhook
        guards.append(WebhookGuard(cluster, name=webhook, metrics=metrics, labels_of=namespaces.known_labels, now=_now))
    return guards


def _program(
    loaded: Settings,
    cluster: Cluster,
    server: EstServer,
    open_requests: OpenRequests,
    metrics: Metrics,
    namespaces: Namespaces,
    guards: Iterable[RequesterGuard],
) -> Program:
    requests = request_queue(open_requests, workers=loaded.workers, clock=time.monotonic)
    events = Events(cluster, instance=loaded.identity, now=_now, metrics=metrics, pressed=requests.pressed)
    issuer_queue: WorkQueue[IssuerRef] = WorkQueue(clock=time.monotonic, per_namespace=1)
    issuers = Issuers(
        api=cluster,
        source=server,
        registrations=Registrations(server.authority, clock=time.monotonic),
        open_requests=open_requests,
        requests=requests,
        queue=issuer_queue,
        metrics=metrics,
        events=events,
        unavailable_after=loaded.server_unavailable_after.total_seconds(),
        clock=time.monotonic,
        now=_now,
    )
    issuing = Issuing(
        api=cluster,
        enroller=server,
        issuers=issuers,
        open_requests=open_requests,
        queue=requests,
        metrics=metrics,
        events=events,
        now=_now,
        max_retry=loaded.max_retry_duration,
        labels_of=namespaces.labels,
        seen=namespaces.seen,
        believes=lambda request: any(guard.believes(request) for guard in guards),
    )
    removals: WorkQueue[RequestKey] = WorkQueue(clock=time.monotonic, per_namespace=1)
    leadership = Leadership(
        cluster, namespace=loaded.namespace, name=loaded.lease_name, identity=loaded.identity, clock=time.monotonic, now=_now
    )
    metrics.registry.register(DoorMetrics(waiting=requests.waiting, unfinished=open_requests))
    return Program(
        issuing=issuing,
        issuers=issuers,
        namespaces=namespaces,
        requests=requests,
        issuer_queue=issuer_queue,
        leadership=leadership,
        retention=Retention(api=cluster, queue=removals, metrics=metrics, now=_now),
        metrics=metrics,
        events=events,
        workers=loaded.workers,
        poll_interval=loaded.poll_interval.total_seconds(),
    )


async def _permitted_doors(cluster: Cluster, loaded: Settings, metrics: Metrics) -> tuple[list[KubernetesDoor], bool]:
    """The open doors, and whether namespaces may be watched. Asks until the API server answers."""
    while True:
        try:
            doors = await access.open_doors(cluster, [DOORS[door] for door in loaded.doors], metrics)
            labels_seen = await access.sees_namespaces(cluster)
        except KubernetesError as error:
            log.warning("api_server", error=error.message)
            await asyncio.sleep(API_RETRY_SECONDS)
        else:
            cluster.use(doors)
            return doors, labels_seen


def _registry(
    program: Program, doors: Collection[KubernetesDoor], open_requests: OpenRequests, *, labels_seen: bool
) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()
    handlers.register(
        registry, doors, issuers=program.issuers, open_requests=open_requests, queue=program.requests, retention=program.retention
    )
    if labels_seen:
        handlers.register_namespaces(registry, program.namespaces, open_requests=open_requests, queue=program.requests)
    return registry


async def _run_until_stopped(
    loaded: Settings,
    cluster: Cluster,
    program: Program,
    registry: kopf.OperatorRegistry,
    doors: Iterable[KubernetesDoor],
    open_requests: OpenRequests,
    started: asyncio.Event,
    metrics: Metrics,
) -> None:
    """Run kopf, the program and the re-list; when one ends or a signal comes, stop the others, kopf last."""
    stop, kopf_stop = asyncio.Event(), asyncio.Event()
    interval = loaded.relist_interval.total_seconds()
    indexed = indexed_kinds(program.issuers, program.namespaces)
    misses = relist.watch_for_misses(
        cluster, open_requests, doors, indexed=indexed, metrics=metrics, sleep=asyncio.sleep, interval=interval
    )
    own = [
        asyncio.create_task(program.run()),
        asyncio.create_task(misses),
        asyncio.create_task(_signalled(started, stop)),
        asyncio.create_task(publish(_publishers(loaded, cluster, program), _leads(program), asyncio.sleep)),
    ]
    watching = asyncio.create_task(watch(registry, identity=loaded.identity, ready=started, stop=kopf_stop))
    done, _ = await asyncio.wait([*own, watching], return_when=asyncio.FIRST_COMPLETED)
    for task in own:
        task.cancel()
    ended = await asyncio.gather(*own, return_exceptions=True)
    kopf_stop.set()
    ended += await asyncio.gather(watching, return_exceptions=True)
    for error in ended:
        if isinstance(error, Exception):
            raise error
    if watching in done and not stop.is_set():
        log.info("kopf_ended")


def indexed_kinds(issuers: Issuers, namespaces: Namespaces) -> list[Indexed]:
    """What the re-list looks for the end of, beside the requests."""
    kinds = [
        Indexed(plural=f"{plural}.{GROUP}", path=f"/apis/{GROUP}/{VERSION}/{plural}", known=partial(issuers.uids, kind))
        for kind, plural in ISSUER_PLURALS.items()
    ]
    return [*kinds, Indexed(plural="namespaces", path="/api/v1/namespaces", known=namespaces.uids)]


def _publishers(loaded: Settings, cluster: Cluster, program: Program) -> list[Publisher]:
    source = IssuerTrusts(program.issuers, now=_now)
    bundles = ClusterTrustBundles(cluster, now=_now) if loaded.cluster_trust_bundles else None
    config_maps = ConfigMaps(cluster, permitted=loaded.trust_config_maps, bundles=bundles, namespace=loaded.namespace, now=_now)
    kinds: list[Kind] = [config_maps] if bundles is None else [bundles, config_maps]
    tell = program.events.tell
    return [Publisher(kind=kind, api=cluster, source=source, metrics=program.metrics, clock=time.monotonic, tell=tell) for kind in kinds]


def _leads(program: Program) -> Callable[[], bool]:
    """Whether this replica leads and knows what estserver says."""
    return lambda: program.leadership.leading.is_set() and program.issuers.known


async def _signalled(started: asyncio.Event, stop: asyncio.Event) -> None:
    """Return at SIGTERM or SIGINT. kopf sets its own handlers when it starts; ours replace them, so that our work drains first."""
    await started.wait()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()
    log.info("stopping", reason="signal")


def _now() -> datetime:
    return datetime.now(UTC)


if __name__ == "__main__":
    main()
