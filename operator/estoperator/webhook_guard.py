"""Whether spec.username of a cert-manager.io request can be believed: only where cert-manager's webhook checked it (contract 24).

cert-manager's CRDs alone let a tenant write there whom it likes, and its webhook may be absent, or off for a namespace. So the operator
looks every few seconds whether its ValidatingWebhookConfiguration is there and whole, and says once where it is not.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import structlog

from estcore.label_selector import LabelSelector
from estoperator.doors import CERT_MANAGER
from estoperator.kubernetes_errors import Gone, KubernetesError
from estoperator.metrics import Metrics
from estoperator.requester_guards import made_since
from estoperator.resources import CertRequest, Object
from estoperator.uninterrupted import Uninterrupted

log = structlog.get_logger(__name__)

CONFIGURATIONS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"


class WebhookApi(Protocol):
    """What this module needs of Kubernetes; raises kubernetes_errors."""

    async def serves(self, group: str, version: str, plural: str) -> bool:
        """Whether the API server has this kind in this version."""
        ...

    async def call(
        self, method: str, path: str, *, query: list[tuple[str, str]] | None = None, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """One JSON request."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """Since when the webhook is asked about each request, and in which namespaces."""

    since: datetime
    namespaces: LabelSelector


class WebhookGuard:
    """Belongs to one event loop. `name` is that of the ValidatingWebhookConfiguration.

    `labels_of` gives the labels of a namespace, None where they are not known.
    """

    def __init__(
        self,
        api: WebhookApi,
        *,
        name: str,
        metrics: Metrics,
        labels_of: Callable[[str], Mapping[str, str] | None],
        now: Callable[[], datetime],
    ) -> None:
        self._api, self._name, self._metrics, self._labels_of = api, name, metrics, labels_of
        self._configuration = Uninterrupted(now)
        self._coverage: Coverage | None = None
        self._said = ""

    def believes(self, request: CertRequest) -> bool:
        """Whether the request was made since the webhook is asked about its namespace, which it has been ever after."""
        coverage = self._coverage
        if request.key.door is not CERT_MANAGER.door or coverage is None or not made_since(request, coverage.since):
            return False
        selector = coverage.namespaces
        labels = self._labels_of(request.key.namespace)
        return selector == LabelSelector() or (labels is not None and selector.matches(labels))

    async def check(self) -> None:
        """Look once. Where it cannot be seen that requests are checked, they are not; said is what is known, once."""
        found, said = None, self._said
        try:
            if await self._api.serves(CERT_MANAGER.group, CERT_MANAGER.version, CERT_MANAGER.plural):
                found, said = await self._look()
            else:
                said = ""
        except KubernetesError as error:  # it passes; the door itself says so
            log.debug("cert_manager_webhook_unknown", webhook=self._name, error=error.message)
        except Exception:
            log.exception("internal_error", work="cert_manager_webhook")  # must not leave a belief behind
        self._coverage = found  # only now: while it is looked, what was seen last holds
        self._metrics.cert_manager_webhook.set(0 if found is None else 1)
        if said == self._said:
            return
        self._said = said
        if found is not None:
            log.info("cert_manager_webhook", webhook=self._name, holds=True)
        elif said:
            log.warning("cert_manager_webhook", webhook=self._name, holds=False, reason=said)

    async def _look(self) -> tuple[Coverage | None, str]:
        """What is covered, and what there is to say about it."""
        if not self._name:
            return None, f"EST_OPERATOR_CERT_MANAGER_WEBHOOK names none; {_CONSEQUENCE}"
        try:
            configuration = await self._api.call("GET", f"{CONFIGURATIONS}/{self._name}")
        except Gone:
            return None, f"there is no ValidatingWebhookConfiguration of that name; {_CONSEQUENCE}"
        except KubernetesError as error:
            if error.http_status != 403:
                raise
            return None, f"the operator's ServiceAccount may not read it; {_CONSEQUENCE}"
        namespaces = covered_namespaces(configuration)
        if namespaces is None:
            self._configuration.interrupted()
            return None, f"it is not asked about every CertificateRequest, or not being able to ask it refuses none; {_CONSEQUENCE}"
        return Coverage(since=self._configuration.since(configuration, namespaces), namespaces=namespaces), "holds"


_CONSEQUENCE = (
    "whoever may create CertificateRequests of cert-manager.io writes whom they like into spec.username, and whoever may write their "
    "status approves them: such a request stands for its namespace alone, and no requester is recorded"
)


def covered_namespaces(configuration: Object) -> LabelSelector | None:
    """Where a ValidatingWebhookConfiguration is asked about each creation of cert-manager's requests; None where it lets any pass."""
    for webhook in configuration.get("webhooks") or ():
        whole = (
            webhook.get("failurePolicy", "Fail") == "Fail"
            and any(map(_covers_create, webhook.get("rules") or ()))
            and not _selects(webhook.get("objectSelector"))
            and not webhook.get("matchConditions")
        )
        if whole:
            try:
                return LabelSelector.model_validate(webhook.get("namespaceSelector") or {})
            except ValueError:  # more than we read: then it is not known whom it leaves out
                continue
    return None


def _covers_create(rule: Object) -> bool:
    return (
        bool({"*", CERT_MANAGER.group} & set(rule.get("apiGroups", ())))
        and bool({"*", CERT_MANAGER.version} & set(rule.get("apiVersions", ())))
        and bool({"*", "CREATE"} & set(rule.get("operations", ())))
        and bool({"*", "*/*", CERT_MANAGER.plural} & set(rule.get("resources", ())))
        and rule.get("scope", "*") in {"*", "Namespaced"}
    )


def _selects(selector: Object | None) -> bool:
    return bool(selector) and any((selector or {}).values())
