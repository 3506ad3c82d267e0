"""What Prometheus is told. Label values come from configuration and from fixed sets, never from a requester.

With PROMETHEUS_MULTIPROC_DIR set (before this module is imported) the processes of `--workers N` write to shared files and any
one of them renders the sum.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from estserver.deadline import Phase

LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Seconds: an enrolment takes about 5 ms, a slow hash 50 to 1,000."""

CaExpiries = Callable[[], Iterable[tuple[str, datetime]]]
"""Key and CA notAfter of each issuer that has a CA, asked at every scrape."""


IssuerStates = Callable[[], Iterable[tuple[str, bool]]]
"""Key of each issuer and whether it is ready, asked at every scrape."""


class Metrics:
    """All metrics of one process; also what the transport tells about connections (a TrafficObserver)."""

    def __init__(
        self, registry: CollectorRegistry | None = None, *, ca_expiries: CaExpiries = tuple, issuer_states: IssuerStates = tuple
    ) -> None:
        self._registry = registry if registry is not None else CollectorRegistry()
        self._issued = Counter(
            "est_certificates_issued",
            "Certificates handed out; result repeated is a retry that got the same one",
            ["issuer", "door", "result"],
            registry=self._registry,
        )
        self._refusals = Counter("est_refusals", "Requests not granted, by reason", ["issuer", "reason"], registry=self._registry)
        self._latency = Histogram(
            "est_request_duration_seconds",
            "From the request's head to its answer",
            ["operation"],
            buckets=LATENCY_BUCKETS,
            registry=self._registry,
        )
        self._open = Gauge("est_connections_open", "Connections now", registry=self._registry, multiprocess_mode="livesum")
        self._connections = Counter(
            "est_connections", "Connections by what became of them at their start", ["result"], registry=self._registry
        )
        self._timeouts = Counter(
            "est_timeouts", "Connections closed because what was awaited did not come", ["phase"], registry=self._registry
        )
        self._transport_refusals = Counter(
            "est_transport_refusals", "Requests that the transport answered itself", ["status"], registry=self._registry
        )
        self._ledger_writable = Gauge(
            "est_ledger_writable", "1 where the last write succeeded", registry=self._registry, multiprocess_mode="livemin"
        )
        self._configuration_current = Gauge(
            "est_configuration_current",
            "1 where the manifests in use are the newest, 0 where those do not fit and earlier ones are used",
            registry=self._registry,
            multiprocess_mode="livemin",
        )
        self._configuration_current.set(1)
        self._decisions = Counter(
            "est_request_decisions",
            "Requests that waited for a person, by what became of them: approved, denied or expired",
            ["issuer", "decision"],
            registry=self._registry,
        )
        self._waiting = Gauge(
            "est_requests_waiting", "Requests that wait for a person", ["issuer"], registry=self._registry, multiprocess_mode="livemax"
        )
        self._oldest_waiting = Gauge(
            "est_requests_oldest_waiting_seconds",
            "How long the oldest of them has waited",
            ["issuer"],
            registry=self._registry,
            multiprocess_mode="livemax",
        )
        self._issuers_with_waiting: frozenset[str] = frozenset()
        self._ca_expiries = _IssuerCollector(ca_expiries, issuer_states)
        self._registry.register(self._ca_expiries)
        self._ledger_writable.set(1)
        self._issued_children: dict[tuple[str, str, str], Counter] = {}
        self._latency_children: dict[str, Histogram] = {}

    def issued(self, issuer: str, door: str, result: str) -> None:
        """A certificate left: `result` is issued or repeated."""
        key = (issuer, door, result)
        child = self._issued_children.get(key)
        if child is None:  # labels() costs more than counting
            child = self._issued_children[key] = self._issued.labels(*key)
        child.inc()

    def refused(self, issuer: str, reason: str) -> None:
        """A request was not granted; `issuer` is empty where none was found."""
        self._refusals.labels(issuer, reason).inc()

    def answered(self, operation: str, seconds: float) -> None:
        """An answer left; `operation` is empty for a path that is none."""
        child = self._latency_children.get(operation)
        if child is None:
            child = self._latency_children[operation] = self._latency.labels(operation)
        child.observe(seconds)

    def ledger_writable(self, writable: bool) -> None:  # noqa: FBT001 - the ledger's callback
        """Whether the last write to the ledger succeeded."""
        self._ledger_writable.set(1 if writable else 0)

    def configuration_current(self, *, current: bool) -> None:
        """Whether the newest manifests are in use."""
        self._configuration_current.set(1 if current else 0)

    def decided(self, issuer: str, decision: str) -> None:
        """A request waits no more: approved, denied or expired."""
        self._decisions.labels(issuer, decision).inc()

    def waiting(self, now_waiting: Mapping[str, tuple[int, float]]) -> None:
        """How many requests of each issuer wait for a person, and for how many seconds the oldest of them has."""
        for issuer in self._issuers_with_waiting | now_waiting.keys():
            count, oldest_seconds = now_waiting.get(issuer, (0, 0.0))
            self._waiting.labels(issuer).set(count)
            self._oldest_waiting.labels(issuer).set(oldest_seconds)
        self._issuers_with_waiting = frozenset(now_waiting)

    def connection_opened(self) -> None:
        """A connection was let in."""
        self._connections.labels("accepted").inc()
        self._open.inc()

    def connection_closed(self) -> None:
        """A connection that was let in is gone."""
        self._open.dec()

    def connection_refused(self, reason: str) -> None:
        """A connection was dropped at once."""
        self._connections.labels(f"refused_{reason}").inc()

    def handshake_failed(self, reason: str) -> None:
        """A TLS handshake failed."""
        self._connections.labels(f"handshake_{reason}").inc()

    def timed_out(self, phase: Phase) -> None:
        """What was awaited did not come in time."""
        self._timeouts.labels(str(phase)).inc()

    def request_refused(self, http_status: int) -> None:
        """The transport answered a request itself."""
        self._transport_refusals.labels(str(http_status)).inc()

    def render(self) -> tuple[bytes, str]:
        """The exposition text and its content type, over all processes where there are several."""
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self._registry), CONTENT_TYPE_LATEST
        everyone = CollectorRegistry()
        MultiProcessCollector(everyone)  # type: ignore[no-untyped-call]  # the library's own constructor has no types
        everyone.register(self._ca_expiries)
        return generate_latest(everyone), CONTENT_TYPE_LATEST


def forget_process(pid: int) -> None:
    """Leave out the gauges of a worker that ended; its counters stay in the sums."""
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        mark_process_dead(pid)  # type: ignore[no-untyped-call]  # the library has no types


class _IssuerCollector:
    """What is known of issuers at scrape time: one that is gone has no series left behind."""

    def __init__(self, ca_expiries: CaExpiries, issuer_states: IssuerStates) -> None:
        self._ca_expiries = ca_expiries
        self._issuer_states = issuer_states

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily(
            "est_ca_not_after_timestamp_seconds", "When the issuer's CA certificate or one above it expires", labels=["issuer"]
        )
        for issuer, not_after in self._ca_expiries():
            family.add_metric([issuer], not_after.timestamp())
        yield family
        ready = GaugeMetricFamily("est_issuer_ready", "1 where the issuer is ready", labels=["issuer"])
        for issuer, is_ready in self._issuer_states():
            ready.add_metric([issuer], 1 if is_ready else 0)
        yield ready
