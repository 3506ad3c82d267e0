"""The periodic re-list: finds what the watch missed, that a kind is to be watched in another version, or that it may not be any more.

kopf reconnects and lists again by itself; this is the second pair of eyes. An open request that a list shows and the watch has not
brought some seconds later was missed. One such miss means that the watch cannot be trusted, so the process is restarted, which
lists everything; nothing is lost either way. So is the version looked for anew, for an API server that was upgraded may have another.
A right that was taken away is found here before kopf, which would try for a quarter of an hour and then end over it with every watch:
after the restart that door is off (`access.open_doors`) and the others work on.

Where a watch may not be resumed kopf lists anew, and says nothing of what ended meanwhile. A request that is over is forgotten here. What
kopf's own indices hold of an issuer or a namespace that is gone, only a restart takes out.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import structlog

from estoperator.access import Reviewer
from estoperator.doors import KubernetesDoor
from estoperator.kubernetes_errors import Gone, KubernetesError
from estoperator.metrics import Metrics
from estoperator.open_requests import OpenRequests
from estoperator.pages import PagesApi, uids
from estoperator.resources import CertRequest, RequestKey
from estoperator.served import Discovery, served_version

log = structlog.get_logger(__name__)

GRACE_SECONDS = 30.0
"""How far the watch may lag behind a list; and for how long an API server that has just started may forbid what it then permits."""

FORBIDDEN = 403


class MustRestart(Exception):
    """The process must be started anew; the message says why."""


class WatchMissed(MustRestart):
    """The watch did not bring what a list shows."""


class VersionChanged(MustRestart):
    """The API server serves the kind in a version that is wanted before the one that is watched, or instead of it."""


class RightGone(MustRestart):
    """RBAC permits no more what the door needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Indexed:
    """A kind of object that kopf indexes."""

    plural: str
    path: str
    """Of the collection."""

    known: Callable[[], frozenset[str]]
    """The uids that the watch has told of; none where it is not watched."""


class RequestLister(Reviewer, PagesApi, Protocol):
    """What this module needs of Kubernetes; raises kubernetes_errors."""

    def requests(self, door: KubernetesDoor) -> AsyncIterator[CertRequest]:
        """Every request of the door that names one of our issuers."""
        ...

    async def read_request(self, key: RequestKey) -> CertRequest | None:
        """The request as it is now; raises Gone."""
        ...


async def watch_for_misses(
    api: RequestLister,
    open_requests: OpenRequests,
    doors: Iterable[KubernetesDoor],
    *,
    indexed: Iterable[Indexed] = (),
    metrics: Metrics,
    sleep: Callable[[float], Awaitable[None]],
    interval: float,
) -> None:
    """Re-list until cancelled; raises MustRestart. An API server that cannot be asked is asked again at the next turn."""
    watched, indices = tuple(doors), tuple(indexed)
    for door in watched:  # from here on it is known how long no check has succeeded
        metrics.watch_checked.labels(door.door).set_to_current_time()
    while True:
        await sleep(interval)
        for door in watched:
            try:
                await _check_version(api, door)
                missed = await count_missed(api, open_requests, door, sleep=sleep)
            except Gone:
                missed = 0
                metrics.door(door.door, off="Absent")
            except KubernetesError as error:
                log.warning("relist", door=door.door, error=error.message)
                if error.http_status == FORBIDDEN and await _may_list_no_more(api, door, sleep=sleep):
                    raise RightGone(
                        f"the operator's ServiceAccount may not list {door.plural}.{door.group} any more; restarting without this door"
                    ) from error
                continue
            except MustRestart:
                raise
            except Exception:  # what somebody wrote, or answered in place of the API server, may not end all watches
                log.exception("internal_error", work="relist", door=door.door)
                continue
            else:
                metrics.door(door.door)
            if missed:
                metrics.missed.inc(missed)
                raise WatchMissed(f"the watch of {door.group} {door.plural} missed {missed} objects; restarting")
            metrics.watch_checked.labels(door.door).set_to_current_time()
        for kind in indices:
            await _check_index(api, kind, metrics=metrics, sleep=sleep)


async def _check_index(api: PagesApi, kind: Indexed, *, metrics: Metrics, sleep: Callable[[float], Awaitable[None]]) -> None:
    """Raises WatchMissed, and nothing where the kind cannot be listed."""
    try:
        ended = await count_ended(api, kind, sleep=sleep)
    except KubernetesError as error:
        log.warning("relist", kind=kind.plural, error=error.message)
        return
    except Exception:
        log.exception("internal_error", work="relist", kind=kind.plural)
        return
    if ended:
        metrics.missed.inc(ended)
        raise WatchMissed(f"the watch of {kind.plural} missed the end of {ended} objects; restarting")


async def _may_list_no_more(api: RequestLister, door: KubernetesDoor, *, sleep: Callable[[float], Awaitable[None]]) -> bool:
    """Whether a list is still forbidden after a grace, and RBAC says so too: one 403 may be that of an API server which is starting."""
    await sleep(GRACE_SECONDS)
    try:
        async for _ in api.requests(door):
            pass
    except KubernetesError as error:
        if error.http_status != FORBIDDEN:
            return False
    else:
        return False
    try:
        return not await api.may("list", door.group, door.plural)
    except KubernetesError as error:
        log.warning("relist", door=door.door, error=error.message)
        return False


async def _check_version(api: Discovery, door: KubernetesDoor) -> None:
    if len(door.looked_for) == 1:
        return
    version = await served_version(api, door.group, door.plural, door.looked_for)
    if version is not None and version != door.version:
        raise VersionChanged(f"{door.plural}.{door.group} is to be watched in {version} now, and was in {door.version}; restarting")


async def count_missed(
    api: RequestLister, open_requests: OpenRequests, door: KubernetesDoor, *, sleep: Callable[[float], Awaitable[None]]
) -> int:
    """How many open requests the list shows that the watch has not brought, not even after a grace. Forgets those whose end it has not.

    That alone is no reason to restart: it may be that we wrote while somebody deleted, and took in what we had written.
    """
    gone = {request.uid: request for request in open_requests.of_door(door.door)}
    unseen: list[CertRequest] = []
    async for request in api.requests(door):
        if not request.finished:
            gone.pop(request.uid, None)
            if not open_requests.knows(request):
                unseen.append(request)
    if not unseen and not gone:
        return 0
    await sleep(GRACE_SECONDS)
    for request in gone.values():
        if await _is_over(api, open_requests, request):
            log.info("request_over", request=str(request.key), uid=request.uid)
            open_requests.forget(request.key)
    return sum([await _is_missed(api, open_requests, request) for request in unseen])


async def count_ended(api: PagesApi, kind: Indexed, *, sleep: Callable[[float], Awaitable[None]]) -> int:
    """How many objects the index holds that are not there, neither before nor after a grace. Raises kubernetes_errors."""
    before = kind.known()
    gone = before - await uids(api, kind.path) if before else before
    if not gone:
        return 0
    await sleep(GRACE_SECONDS)
    return len(gone & kind.known() - await uids(api, kind.path))


async def _is_missed(api: RequestLister, open_requests: OpenRequests, listed: CertRequest) -> bool:
    if open_requests.knows(listed):
        return False
    try:
        request = await api.read_request(listed.key)
    except Gone:
        return False
    return request is not None and request.uid == listed.uid and not request.finished and not open_requests.knows(listed)


async def _is_over(api: RequestLister, open_requests: OpenRequests, known: CertRequest) -> bool:
    """Whether what we take for open is not. What is somebody else's by now, or another object of its name, is over too."""
    try:
        request = await api.read_request(known.key)
    except Gone:
        request = None
    over = request is None or request.uid != known.uid or request.finished
    seen = open_requests.get(known.key)
    return over and seen is not None and seen.uid == known.uid
