"""values.schema.json, by a validator of JSON Schema: what is no value of ours is refused, and what is one is not."""

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import yaml

from tests.chart.rendering import CHART, FULL

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
OF_TYPE: dict[str, Any] = {"string": "seven", "integer": 7, "boolean": True, "array": [], "object": {}}
Path = tuple[str, ...]


def merged(base: Any, over: Any) -> Any:
    """What Helm makes of defaults and values."""
    if not isinstance(base, dict) or not isinstance(over, dict):
        return over
    return base | {key: merged(base.get(key), value) for key, value in over.items()}


def at(path: Path, value: Any) -> dict[str, Any]:
    for key in reversed(path):
        value = {key: value}
    assert isinstance(value, dict)
    return value


def complaints(values: dict[str, Any]) -> list[Path]:
    return [tuple(map(str, error.absolute_path)) for error in VALIDATOR.iter_errors(values)]


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref", "").removeprefix("#/$defs/")
    return SCHEMA["$defs"][reference] if reference else schema


def properties(schema: dict[str, Any] = SCHEMA, path: Path = ()) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Every property by its path."""
    for name, inner in schema.get("properties", {}).items():
        found = resolved(inner)
        yield (*path, name), found
        yield from properties(found, (*path, name))


def types_of(schema: dict[str, Any]) -> set[str]:
    if "enum" in schema:
        return {"string"}
    declared = schema["type"]
    return {declared} if isinstance(declared, str) else set(declared)


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("values", [{}, FULL], ids=["default", "full"])
def test_the_values_that_we_render_with_are_good(values: dict[str, Any]) -> None:
    assert complaints(merged(DEFAULTS, values)) == []


def test_schema_and_values_know_the_same_names() -> None:
    def names(values: dict[str, Any], path: Path = ()) -> set[Path]:
        found = set()
        for key, value in values.items():
            found |= {(*path, key)} | (names(value, (*path, key)) if isinstance(value, dict) else set())
        return found

    free = {path for path, schema in properties() if schema.get("type") == "object" and "properties" not in schema}
    declared = {path for path, _ in properties()} - {("global",)}  # Helm's own
    assert declared == {name for name in names(DEFAULTS) if not any(name[: len(one)] == one and name != one for one in free)}


def test_a_value_of_another_type_is_refused_everywhere() -> None:
    for path, schema in properties():
        for wrong in (value for kind, value in OF_TYPE.items() if kind not in types_of(schema)):
            assert complaints(at(path, wrong)), f"{'.'.join(path)}: {wrong!r}"


def test_an_unknown_name_is_refused_in_every_section() -> None:
    sections = [path for path, schema in properties() if "properties" in schema]
    assert len(sections) > 20
    for path in [(), *sections]:
        assert complaints(at((*path, "unknown"), 1)), path


GOOD_AND_BAD: list[tuple[str, list[Any], list[Any]]] = [
    ("nameOverride", ["", "ca", "1"], ["a" * 46, "Ca", "a.b", "a-"]),
    ("fullnameOverride", ["", "ca", "a" * 45], ["a" * 46, "a.b", "1a", "a-", "CA"]),
    ("imagePullSecrets", [[{"name": "registry"}]], [[{}], [{"name": ""}], ["registry"]]),
    ("podSecurityContext.runAsUser", [None, 1, 1_000_660_000], [0, -1, "65532", 2**31]),
    ("podSecurityContext.fsGroup", [None, 0, 1_000_660_000], [-1, "0", 2**31]),
    ("podSecurityContext.fsGroupChangePolicy", [None, "Always"], ["Never", ""]),
    ("image.repository", ["registry.example:5000/pki/est-issuer"], [""]),
    ("image.tag", ["", "1.2.3-rc.1", "17"], ["a b", "a:b", "-a", "a" * 129]),
    ("image.digest", ["", "sha256:" + "a" * 64], ["sha256:" + "a" * 63, "sha512:" + "a" * 64, "sha256:" + "A" * 64]),
    ("image.pullPolicy", ["Always", "Never"], ["always", ""]),
    ("certManager.serviceAccount.name", ["cm"], ["", "CM"]),
    ("certManager.serviceAccount.namespace", ["cm"], ["", "a.b", "-a"]),
    ("certManager.webhookName", ["cm-webhook"], ["", "CM"]),
    ("certManager.approver.serviceAccounts", [["cert-manager/approver-policy"]], [["approver-policy"], ["a/b", "a/b"]]),
    (
        "approval.approvers",
        [[{"kind": "Group", "name": "oidc:pki"}, {"kind": "ServiceAccount", "name": "a", "namespace": "b"}]],
        [
            [{"kind": "Group"}],
            [{"kind": "Role", "name": "a"}],
            [{"kind": "ServiceAccount", "name": "a"}],
            [{"kind": "User", "name": "a", "namespace": "b"}],
            ["pki"],
        ],
    ),
    ("defaultIssuer", ["", "devices/factory", "EstClusterIssuer/fleet"], ["factory", "EstIssuer/a", "a/b/c", "/a"]),
    ("labels", [{}, {"a.b:c": "devices/factory"}], [{"a/b": "devices/factory"}, {"a": "factory"}, {"-a": "b/c"}, {"": "b/c"}]),
    ("secretNamespaces", [[], ["a", "b"]], [["a", "a"], ["*"], ["A"], [""], ["a" * 64]]),
    ("trust.namespaces", [["a"]], [["a", "a"], ["a b"]]),
    ("ra.serviceAccounts", [["a/b"]], [["b"], ["a/b", "a/b"], ["a/"]]),
    ("ledger.urlSecret.name", ["", "ledger-url"], ["Ledger"]),
    ("ledger.urlSecret.key", ["url"], [""]),
    ("ledger.volume.size", ["1Gi", "500M", "1.5Ti"], ["", "1 GiB", "-1Gi"]),
    ("ledger.volume.accessModes", [["ReadWriteOncePod"]], [[], ["ReadWriteMany"]]),
    ("approval.retention", ["0", "2160h"], ["90d", "", 90]),
    ("retryWindow", ["0", "10m", "1h30m"], ["10", "", "-1m", "ten"]),
    ("listenAddress", ["[::]"], [""]),
    ("server.replicas", [0, 3], [-1, 1.5]),
    ("server.autoscaling.minReplicas", [1, 100], [0, 101]),
    ("server.autoscaling.targetCPUUtilizationPercentage", [50, 200], [0, "80%"]),
    ("server.workers", [1, 64], [0, 65]),
    ("server.throttleSources", [None, True, False], ["auto", "false", 0]),
    ("server.publicUrl", ["", "https://est.example:8443"], ["http://est.example", "https://est.example/", "https://"]),
    ("server.service.type", ["NodePort"], ["ExternalName"]),
    ("server.service.port", [1, 65535], [0, 65536]),
    ("server.service.nodePort", [None, 30443], [0, 65536]),
    ("server.service.externalTrafficPolicy", ["Cluster"], ["local"]),
    ("server.service.loadBalancerClass", ["", "internal", "example.com/internal"], ["a b", "/a", "a/b/c"]),
    ("server.service.loadBalancerSourceRanges", [["192.0.2.0/24", "2001:db8::/32"]], [["192.0.2.1"], ["any"], [""]]),
    ("server.nodeSelector", [{"kubernetes.io/os": "linux", "a": ""}], [{"a b": "c"}, {"a": "b c"}, {"a": True}]),
    ("server.tls.names", [["est.example", "192.0.2.1", "2001:db8::1"]], [["a b"], [""], ["a", "a"], ["a,b"]]),
    ("server.logLevel", ["debug"], ["trace", "INFO"]),
    ("server.podLabels", [{"a": "b"}], [{"a": 1}, {"a": "b c"}, {"app.kubernetes.io/component": "ca"}]),
    ("operator.podLabels", [{"app.kubernetes.io/managed-by": "b"}], [{"app.kubernetes.io/name": "ca"}]),
    ("operator.priorityClassName", ["", "system-cluster-critical"], ["Critical"]),
    (
        "server.extraEnv",
        [[{"name": "EST_X", "value": "1"}]],
        [[{"value": "1"}], [{"name": "est-x"}], [{"name": "EST_X", "value": 1}], ["EST_X=1"]],
    ),
    (
        "server.extraVolumes",
        [[{"name": "ca", "configMap": {"name": "ca"}}]],
        [[{"configMap": {"name": "ca"}}], [{"name": "ca"}], [{"name": "a.b", "emptyDir": {}}], ["ca"]],
    ),
    (
        "server.extraVolumeMounts",
        [[{"name": "ca", "mountPath": "/etc/ca", "readOnly": True}]],
        [[{"name": "ca"}], [{"mountPath": "/etc/ca"}], [{"name": "ca", "mountPath": "etc/ca"}], ["/etc/ca"]],
    ),
    (
        "operator.topologySpreadConstraints",
        [[], [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]],
        [
            [{"maxSkew": 1, "topologyKey": "zone"}],
            [{"maxSkew": 0, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}],
            [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "Never"}],
            ["zone"],
        ],
    ),
    ("operator.hostUsers", [None, False], ["false"]),
    ("operator.runtimeClassName", ["", "gvisor"], ["gVisor"]),
    ("operator.revisionHistoryLimit", [0], [-1]),
    ("operator.replicas", [0, 5], [6, -1]),
    ("operator.podDisruptionBudget.minAvailable", [None, 0, "50%"], ["half", -1, "50"]),
    ("networkPolicy.clientsFrom", [[{"ipBlock": {"cidr": "192.0.2.0/24"}}]], [["192.0.2.0/24"], [{}]]),
    ("networkPolicy.apiServerPorts", [[16443]], [[], [0], [65536], ["https"], [443, 443]]),
    ("serviceMonitor.interval", ["30s", "1m30s"], ["30", "", "fast"]),
    ("prometheusRule.caEndsWithinDays", [1, 3650], [0, 0.5]),
    ("prometheusRule.additionalGroups", [[{"name": "a", "rules": []}]], [[{"name": "a"}], [{"rules": []}], ["a"]]),
    ("grafanaDashboard.namespace", ["", "monitoring"], ["a.b"]),
    ("grafanaDashboard.labels", [{"grafana_dashboard": "1"}], [{"grafana_dashboard": 1}, {"grafana_dashboard": "a b"}]),
    ("extraObjects", [[{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}}]], [[{"kind": "ConfigMap"}], ["kind: ConfigMap"]]),
]


@pytest.mark.parametrize(("path", "good", "bad"), GOOD_AND_BAD, ids=[path for path, _, _ in GOOD_AND_BAD])
def test_good_values_pass_and_bad_ones_are_refused_where_they_stand(path: str, good: list[Any], bad: list[Any]) -> None:
    keys = tuple(path.split("."))
    for value in good:
        assert complaints(at(keys, value)) == [], value
    for value in bad:
        where = complaints(at(keys, value))
        assert where, value
        assert all(one[: len(keys)] == keys for one in where), value
