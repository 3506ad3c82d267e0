"""Asks the API server what the operator may do, before kopf finds out: kopf ends the whole operator when one watch is forbidden."""

from collections.abc import Iterable
from typing import Protocol

import structlog

from estcore.errors import ConfigurationError
from estoperator.doors import DOORS, GROUP, ISSUER_PLURALS, KubernetesDoor
from estoperator.metrics import Metrics

log = structlog.get_logger(__name__)


class Reviewer(Protocol):
    """Answers SelfSubjectAccessReviews and discovery; raises kubernetes_errors."""

    async def serves(self, group: str, version: str, plural: str) -> bool:
        """Whether the API server has this kind."""
        ...

    async def may(self, verb: str, group: str, resource: str, *, subresource: str = "") -> bool:
        """Whether we may do this in every namespace."""
        ...


async def open_doors(api: Reviewer, doors: Iterable[KubernetesDoor], metrics: Metrics) -> list[KubernetesDoor]:
    """The doors that RBAC lets us serve; the others are off, with a log line and a metric.

    Raises ConfigurationError where even the issuers may not be watched, for nothing works then. A door whose CRD is absent is
    open: RBAC does not ask whether a kind exists.
    """
    for plural in ISSUER_PLURALS.values():
        refused = await _refused(api, GROUP, plural)
        if refused:
            raise ConfigurationError(f"the operator's ServiceAccount may not {refused}; its ClusterRole is incomplete", where="RBAC")
    doors = tuple(doors)
    for door in DOORS.values():
        if door not in doors:
            metrics.door(door.door, off="Disabled")
    opened = []
    for door in doors:
        refused = await _refused(api, door.group, door.plural)
        metrics.door_open.labels(door.door).set(0 if refused else 1)
        metrics.door(door.door, off="Forbidden" if refused else "")
        if refused:
            log.warning("door_off", door=door.door, reason=f"the operator's ServiceAccount may not {refused}")
        else:
            served = await api.serves(door.group, door.version, door.plural)
            metrics.door(door.door, off="" if served else "Absent")  # until a re-list finds it
            log.info("door_on", door=door.door, served=served)
            opened.append(door)
    return opened


async def _refused(api: Reviewer, group: str, plural: str) -> str:
    """The first thing that may not be done, in words; empty where all may."""
    for verb, subresource in (("list", ""), ("watch", ""), ("get", ""), ("patch", "status")):
        if not await api.may(verb, group, plural, subresource=subresource):
            return f"{verb} {plural}.{group}{'/' if subresource else ''}{subresource}"
    return ""
