"""Asks the API server what the operator may do, before kopf finds out: kopf ends the whole operator when one watch is forbidden."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Protocol

import structlog

from estcore.errors import ConfigurationError
from estoperator.doors import DOORS, GROUP, ISSUER_PLURALS, KubernetesDoor
from estoperator.metrics import Metrics
from estoperator.served import Discovery, served_version

log = structlog.get_logger(__name__)


class Reviewer(Discovery, Protocol):
    """Answers SelfSubjectAccessReviews and discovery; raises kubernetes_errors."""

    async def may(self, verb: str, group: str, resource: str, *, subresource: str = "", name: str = "") -> bool:
        """Whether we may do this in every namespace, to the object of that name or to all."""
        ...


async def open_doors(api: Reviewer, doors: Iterable[KubernetesDoor], metrics: Metrics) -> list[KubernetesDoor]:
    """The doors that RBAC lets us serve, in the version that is served; the others are off, with a log line and a metric.

    Raises ConfigurationError where even the issuers may not be watched, for nothing works then. A door whose CRD is absent is
    open, for it may come; one of a kind of the API server's own that is not served is off.
    """
    for plural in ISSUER_PLURALS.values():
        refused = await _refused(api, GROUP, plural)
        if refused:
            raise ConfigurationError(f"the operator's ServiceAccount may not {refused}; its ClusterRole is incomplete", where="RBAC")
    doors = tuple(doors)
    for known in DOORS.values():
        if known not in doors:
            metrics.door(known.door, off="Disabled")
    opened = []
    for wanted in doors:
        version = await served_version(api, wanted.group, wanted.plural, wanted.looked_for)
        refused = await _forbidden(api, wanted)
        absent = version is None and wanted.built_in
        metrics.door(wanted.door, off="Forbidden" if refused else "Absent" if version is None else "")  # a CRD's until a re-list finds it
        if refused:
            log.warning("door_off", door=wanted.door, reason=f"the operator's ServiceAccount may not {refused}")
        elif absent:
            log.warning("door_off", door=wanted.door, reason=f"the API server does not serve {wanted.plural}.{wanted.group}")
        else:
            door = replace(wanted, version=version or wanted.version)
            log.info("door_on", door=door.door, served=version is not None, version=door.version)
            opened.append(door)
    return opened


async def _forbidden(api: Reviewer, door: KubernetesDoor) -> str:
    """The first thing that RBAC lacks for the door, in words; empty where it lacks nothing."""
    refused = await _refused(api, door.group, door.plural)
    if refused:
        return refused
    for need in door.permissions:
        if not await api.may(need.verb, need.group, need.resource, name=need.name):
            return f"{need.verb} {need.resource}.{need.group}{f' {need.name}' if need.name else ''}"
    return ""


async def sees_namespaces(api: Reviewer) -> bool:
    """Whether the labels of namespaces may be watched; where not, selectors select by the name alone."""
    may = [await api.may(verb, "", "namespaces") for verb in ("list", "watch")]
    if not all(may):
        log.warning(
            "namespaces_off",
            reason="the operator's ServiceAccount may not list and watch namespaces; allowedNamespaces and namespaceSelector know no label "
            "but kubernetes.io/metadata.name",
        )
    return all(may)


async def _refused(api: Reviewer, group: str, plural: str) -> str:
    """The first thing that may not be done, in words; empty where all may."""
    for verb, subresource in (("list", ""), ("watch", ""), ("get", ""), ("patch", "status")):
        if not await api.may(verb, group, plural, subresource=subresource):
            return f"{verb} {plural}.{group}{'/' if subresource else ''}{subresource}"
    return ""
