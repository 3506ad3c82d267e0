"""Whether spec.username of an est-issuer.io request can be believed: only where the chart's admission policy checked it.

Without the policy a tenant writes there whom it likes. So the operator looks every few seconds whether policy and binding are there and
whole, and believes the requests that were made since they have been so without interruption.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Protocol

import structlog

from estoperator.doors import EST_ISSUER
from estoperator.kubernetes_errors import KubernetesError
from estoperator.metrics import Metrics
from estoperator.requester_guards import made_since
from estoperator.resources import CertRequest, Object
from estoperator.uninterrupted import Uninterrupted

log = structlog.get_logger(__name__)

ADMISSION = "/apis/admissionregistration.k8s.io/v1"
USERNAME_RULE = "object.spec.username == variables.user.username"
"""What the validation says that the operator relies on."""


class AdmissionApi(Protocol):
    """What this module needs of Kubernetes; raises kubernetes_errors."""

    async def call(
        self, method: str, path: str, *, query: list[tuple[str, str]] | None = None, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """One JSON request."""
        ...


class AdmissionGuard:
    """Belongs to one event loop. `name` is that of policy and binding; empty where the installation has none."""

    def __init__(self, api: AdmissionApi, *, name: str, metrics: Metrics, now: Callable[[], datetime]) -> None:
        self._api, self._name, self._metrics = api, name, metrics
        self._policy, self._binding = Uninterrupted(now), Uninterrupted(now)
        self._since: datetime | None = None

    def believes(self, request: CertRequest) -> bool:
        """Whether the request was made since the policy holds, which has held ever after."""
        return request.key.door is EST_ISSUER.door and self._since is not None and made_since(request, self._since)

    async def check(self) -> None:
        """Look once. Where it cannot be seen that the policy holds, it does not."""
        since = None
        if self._name:
            try:
                policy = await self._api.call("GET", f"{ADMISSION}/validatingadmissionpolicies/{self._name}")
                binding = await self._api.call("GET", f"{ADMISSION}/validatingadmissionpolicybindings/{self._name}")
                since = self._holds_since(policy, binding)
            except KubernetesError as error:
                if self._since is not None:
                    log.warning("admission_policy_unknown", policy=self._name, error=error.message)
            except Exception:
                log.exception("internal_error", work="admission_policy")  # must not leave a belief behind
        if (since is None) != (self._since is None):
            log.info("admission_policy", policy=self._name, holds=since is not None)
        self._since = since
        self._metrics.admission_policy.set(0 if since is None else 1)

    def _holds_since(self, policy: Object, binding: Object) -> datetime | None:
        if not holds(policy, binding):
            self._policy.interrupted()
            self._binding.interrupted()
            return None
        return max(self._policy.since(policy), self._binding.since(binding))


def holds(policy: Object, binding: Object) -> bool:
    """Whether policy and binding refuse a forged username in every namespace."""
    spec, bound = policy["spec"], binding["spec"]
    constraints = spec.get("matchConstraints") or {}
    return (
        spec.get("failurePolicy", "Fail") == "Fail"
        and any(map(_covers_create, constraints.get("resourceRules") or ()))
        and not constraints.get("excludeResourceRules")
        and not constraints.get("namespaceSelector")
        and not constraints.get("objectSelector")
        and not spec.get("matchConditions")
        and any(USERNAME_RULE in validation["expression"] for validation in spec.get("validations") or ())
        and bound.get("policyName") == policy["metadata"]["name"]
        and "Deny" in bound.get("validationActions", ())
        and not _narrows(bound.get("matchResources") or {})
        and not bound.get("paramRef")
    )


def _covers_create(rule: Object) -> bool:
    return (
        EST_ISSUER.group in rule.get("apiGroups", ())
        and EST_ISSUER.plural in rule.get("resources", ())
        and "CREATE" in rule.get("operations", ())
        and bool({"*", EST_ISSUER.version} & set(rule.get("apiVersions", ())))
        and not rule.get("resourceNames")
    )


def _narrows(resources: Object) -> bool:
    return any(resources.get(part) for part in ("namespaceSelector", "objectSelector", "resourceRules", "excludeResourceRules"))
