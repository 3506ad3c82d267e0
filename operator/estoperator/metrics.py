"""The operator's metrics. Label values come from fixed sets only: no names, no namespaces (threats row 36)."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

DOOR_OFF = ("Disabled", "Forbidden", "Absent")
"""Why a door is off."""


class Metrics:
    """One process's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._doors_off: set[tuple[str, str]] = set()
        ProcessCollector(registry=registry)  # its start time shows restarts, by which a silent watch ends
        self.written = Counter(
            "est_operator_request_status_total", "Statuses written, by door and result", ["door", "result"], registry=registry
        )
        self.refused = Counter("est_operator_refused_total", "Requests refused, by door and reason", ["door", "reason"], registry=registry)
        self.retries = Counter(
            "est_operator_retries_total", "Enrolments to be tried again, by door and reason", ["door", "reason"], registry=registry
        )
        self.enrolment_seconds = Histogram(
            "est_operator_enrolment_seconds",
            "Time that estserver took for an enrolment",
            buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
            registry=self.registry,
        )
        self.enrolling = Gauge("est_operator_enrolments_in_progress", "Enrolments that estserver has not answered", registry=registry)
        self.errors = Counter(
            "est_operator_errors_total", "Work that failed, by kind of work and reason", ["work", "reason"], registry=registry
        )
        self.door_off = Gauge(
            "est_operator_door_off",
            "1 for each door that is off: Disabled by the settings, Forbidden by RBAC, or Absent, its CRD not being served",
            ["door", "why"],
            registry=registry,
        )
        self.leader = Gauge("est_operator_leader", "1 while this replica leads", registry=registry)
        self.missed = Counter("est_operator_missed_events_total", "Objects that a re-list found and the watch had not", registry=registry)
        self.watch_checked = Gauge(
            "est_operator_watch_checked_timestamp_seconds",
            "When a list last showed nothing that the watch had missed",
            ["door"],
            registry=registry,
        )
        self.events = Counter(
            "est_operator_events_total",
            "Kubernetes Events by what became of them: posted, known (there already), gone, refused, dropped",
            ["result"],
            registry=registry,
        )
        self.poll_failures = Counter(
            "est_operator_issuer_poll_failures_total", "Failed polls of estserver's issuers", ["reason"], registry=registry
        )
        self.trust_open = Gauge(
            "est_operator_trust_open", "1 where trust can be published in this kind of object, 0 where not", ["kind"], registry=registry
        )
        self.trust_written = Counter(
            "est_operator_trust_written_total",
            "Writes of issuers' trust, by kind and step",
            ["kind", "step"],
            registry=registry,
        )
        self.removed = Counter(
            "est_operator_requests_removed_total", "Finished requests removed when their time was over", registry=registry
        )
        self.admission_policy = Gauge(
            "est_operator_admission_policy", "1 while the admission policy and its binding hold, 0 while not", registry=registry
        )
        self.cert_manager_webhook = Gauge(
            "est_operator_cert_manager_webhook",
            "1 while cert-manager's webhook checks who makes its requests, 0 while not, or without cert-manager",
            registry=registry,
        )

    def door(self, door: str, *, off: str = "") -> None:
        """The door is on, or off and why: one of DOOR_OFF."""
        for why in DOOR_OFF:
            if why == off:
                self.door_off.labels(door, why).set(1)
            elif (door, why) in self._doors_off:
                self.door_off.remove(door, why)
        self._doors_off = {(other, why) for other, why in self._doors_off if other != door} | ({(door, off)} if off else set())

    def render(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self.registry)
