"""Alerts and dashboard: every expression is PromQL, every series and label in it is exported by the programs."""

import json
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

import promql_parser as promql
import pytest
from prometheus_client import CollectorRegistry

import estoperator.metrics
import estserver.metrics
from estoperator.door_metrics import DoorMetrics
from tests.chart.rendering import ROOT, of_kind, render

# What the ServiceMonitors' scrapes add to every series.
SCRAPE = {"namespace", "pod", "instance", "job", "service", "endpoint", "container"}
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
ON = {"prometheusRule": {"enabled": True}, "grafanaDashboard": {"enabled": True}}


def alerts(values: dict[str, Any] | None = None) -> dict[str, dict[str, Any]]:
    (rule,) = of_kind(render(ON | (values or {})), "PrometheusRule").values()
    found = [alert for group in rule["spec"]["groups"] for alert in group["rules"]]
    assert len({alert["alert"] for alert in found}) == len(found)
    return {alert["alert"]: alert for alert in found}


def dashboard() -> dict[str, Any]:
    board: dict[str, Any] = json.loads(of_kind(render(ON), "ConfigMap")["est-issuer-dashboard"]["data"]["est-issuer.json"])
    return board


def expressions() -> Iterator[tuple[str, str]]:
    """Every expression with where it stands; Grafana's variables have a value."""
    for name, alert in alerts().items():
        yield name, alert["expr"]
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], re.sub(r"\$(namespace|issuer)\b", ".*", target["expr"].replace("$__rate_interval", "2m"))


def labels_by_series(registry: CollectorRegistry, collectors: Iterable[object]) -> dict[str, set[str]]:
    """Every series that a registry can export; its label names from its collector, or from a sample where it is made at the scrape."""
    declared = {name: set(getattr(one, "_labelnames", ())) for one in collectors if (name := getattr(one, "_name", ""))}
    found = {}
    for family in registry.collect():
        labels = declared.get(family.name, set()).union(*(sample.labels for sample in family.samples))
        for suffix in SUFFIXES[family.type]:
            found[family.name + suffix] = labels | ({"le"} if suffix == "_bucket" else set())
    return found


@pytest.fixture
def exported() -> dict[str, set[str]]:
    registry = CollectorRegistry()
    server = estserver.metrics.Metrics(
        registry,
        ca_expiries=lambda: [("EstIssuer/pki/factory", datetime(2030, 1, 1, tzinfo=UTC))],
        issuer_states=lambda: [("EstIssuer/pki/factory", True)],
    )
    operator = estoperator.metrics.Metrics()
    operator.registry.register(DoorMetrics(waiting=list, unfinished=()))
    return labels_by_series(registry, vars(server).values()) | labels_by_series(operator.registry, vars(operator).values())


def parts(expression: promql.Expr) -> Iterator[promql.Expr]:
    """The expression and everything in it."""
    yield expression
    for name in ("lhs", "rhs", "expr", "param", "vector_selector"):
        if (inner := getattr(expression, name, None)) is not None:
            yield from parts(inner)
    for inner in getattr(expression, "args", ()):
        yield from parts(inner)


def series_in(expression: promql.Expr) -> set[str]:
    return {part.name for part in parts(expression) if isinstance(part, promql.VectorSelector) and part.name}


def test_every_series_in_alerts_and_dashboard_is_exported_with_the_labels_that_are_used(exported: dict[str, set[str]]) -> None:
    for where, text in expressions():
        expression = promql.parse(text)
        assert series_in(expression), where
        for name in series_in(expression):
            assert name in exported, f"{where}: {name}"
        for part in parts(expression):
            known = SCRAPE.union(*(exported[name] for name in series_in(part)))
            if isinstance(part, promql.VectorSelector):
                assert {matcher.name for matcher in part.matchers.matchers} <= known, f"{where}: {part}"
            elif isinstance(part, promql.AggregateExpr) and part.modifier is not None:
                assert set(part.modifier.labels) <= known, f"{where}: {part}"


def test_the_queue_is_that_of_the_replica_that_leads() -> None:
    """Who waits for the Lease works on nothing: what an issuer that is not ready holds up grows old in its queue."""
    queues = [(where, text) for where, text in expressions() if "est_operator_queue_" in text]
    assert {where for where, _ in queues} >= {"EstRequestsStuck", "Queue", "Oldest request ready for work"}
    for where, text in queues:
        assert "and on (namespace, pod) est_operator_leader == 1" in text, where


def test_the_check_finds_a_series_and_a_label_that_do_not_exist(exported: dict[str, set[str]]) -> None:
    expression = promql.parse('sum by (reason) (rate(est_refused_total{door="EST"}[5m])) / on (pod) est_operator_leader')
    assert series_in(expression) == {"est_refused_total", "est_operator_leader"}
    assert "est_refused_total" not in exported
    assert exported["est_refusals_total"] == {"issuer", "reason"}
    assert exported["est_ca_not_after_timestamp_seconds"] == {"issuer"}
    assert exported["est_operator_enrolment_seconds_bucket"] == {"le"}
    assert exported["est_operator_queue_keys"] == {"door"}
    assert exported["est_operator_leader"] == set()
    with pytest.raises(ValueError, match="unclosed left parenthesis"):
        promql.parse("sum by (reason (est_refusals_total)")


def test_every_alert_says_what_is_amiss_with_labels_that_it_has_and_stands_in_the_documentation() -> None:
    manual = (ROOT / "docs" / "operations.md").read_text()
    documented = set(re.findall(r"^\| (Est[A-Za-z]+) \|", manual, re.MULTILINE))
    assert documented == alerts().keys()
    for name, alert in alerts().items():
        assert alert["labels"]["severity"] in {"info", "warning", "critical"}, name
        assert alert["annotations"].keys() == {"summary", "description"}, name
        said = " ".join(alert["annotations"].values())
        aggregations = [part for part in parts(promql.parse(alert["expr"])) if isinstance(part, promql.AggregateExpr)]
        kept = set(aggregations[0].modifier.labels) if aggregations and aggregations[0].modifier else SCRAPE
        assert set(re.findall(r"\$labels\.(\w+)", said)) <= kept, name


def test_the_limits_of_the_alerts_are_values() -> None:
    changed = alerts({"prometheusRule": {"enabled": True, "caEndsWithinDays": 90, "stuckMinutes": 2, "approvalWithinHours": 48}})
    assert changed["EstCaEndsSoon"]["expr"].endswith("< 90 * 86400")
    assert changed["EstCaEndsNow"]["expr"].endswith("< 90 * 8640")
    assert "> 2 * 60 " in changed["EstRequestsStuck"]["expr"]
    assert changed["EstRequestsWaitForApproval"]["expr"].endswith("> 48 * 3600")


def test_alerts_and_dashboard_are_off_until_they_are_wanted(default_objects: list[dict[str, Any]]) -> None:
    assert (
        of_kind(default_objects, "PrometheusRule")
        == of_kind(default_objects, "ServiceMonitor")
        == of_kind(default_objects, "ConfigMap")
        == {}
    )


def test_own_rules_and_labels_are_added() -> None:
    own = {"name": "own", "rules": [{"alert": "Own", "expr": "est_ledger_writable == 0"}]}
    values = {"prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}, "additionalGroups": [own]}}
    (rule,) = of_kind(render(values), "PrometheusRule").values()
    assert rule["metadata"]["labels"]["release"] == "prometheus"
    assert [group["name"] for group in rule["spec"]["groups"]] == ["est-issuer.server", "est-issuer.operator", "own"]


def test_the_dashboard_is_where_grafana_looks_and_its_panels_do_not_overlap() -> None:
    values = {"grafanaDashboard": {"enabled": True, "namespace": "monitoring", "annotations": {"grafana_folder": "pki"}}}
    config_map = of_kind(render(values), "ConfigMap")["monitoring/est-issuer-dashboard"]
    assert config_map["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert config_map["metadata"]["annotations"] == {"grafana_folder": "pki"}
    board = dashboard()
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    taken = [
        (x, y)
        for place in (panel["gridPos"] for panel in board["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(taken)) == len(taken)
    assert max(x for x, _ in taken) == 23
    variables = {variable["name"] for variable in board["templating"]["list"]}
    assert set(re.findall(r"\$\{?(\w+)", json.dumps(board))) - {"__rate_interval", "__all"} == variables
