"""NetworkPolicies: what comes in and what goes out, for each program."""

from typing import Any

import pytest

from tests.chart.rendering import FULL, of_kind, render

EST = [{"port": "est", "protocol": "TCP"}]
METRICS = [{"port": "metrics", "protocol": "TCP"}]
MONITORING = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}


def policies(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: policy["spec"] for name, policy in of_kind(render(values), "NetworkPolicy").items()}


def pods(component: str) -> dict[str, Any]:
    labels = {"name": "est-issuer", "instance": "est-issuer", "component": component}
    return {"podSelector": {"matchLabels": {f"app.kubernetes.io/{name}": value for name, value in labels.items()}}}


def ports(rule: dict[str, Any]) -> set[tuple[int, str]]:
    return {(port["port"], port["protocol"]) for port in rule["ports"]}


def test_there_are_none_until_they_are_wanted(default_objects: list[dict[str, Any]]) -> None:
    assert of_kind(default_objects, "NetworkPolicy") == {}


def test_each_program_has_one_for_each_direction_and_each_direction_is_a_switch() -> None:
    test = {"est-issuer-test": ["Ingress", "Egress"]}
    both = policies({"networkPolicy": {"enabled": True}})
    for direction in ("ingress", "egress"):
        one = policies({"networkPolicy": {"enabled": True, direction: False}})
        other = {"ingress": "egress", "egress": "ingress"}[direction]
        assert {name: policy["policyTypes"] for name, policy in one.items()} == test | {
            f"est-issuer-{program}-{other}": [other.capitalize()] for program in ("server", "operator")
        }
        for program in ("server", "operator"):
            assert both[f"est-issuer-{program}-{direction}"]["podSelector"] == pods(program)["podSelector"]


@pytest.mark.spec("THREAT-37")
def test_est_is_for_everybody_and_metrics_are_for_nobody_by_default() -> None:
    found = policies({"networkPolicy": {"enabled": True}})
    assert found["est-issuer-server-ingress"]["ingress"] == [{"ports": EST}]
    assert found["est-issuer-operator-ingress"]["ingress"] == []


@pytest.mark.spec("THREAT-37")
def test_metrics_are_for_the_peers_of_the_values_and_est_for_those_and_our_own_pods() -> None:
    found = policies(FULL)
    clients = [pods("operator"), pods("test"), {"ipBlock": {"cidr": "192.0.2.0/24"}}]
    assert found["est-issuer-server-ingress"]["ingress"] == [{"ports": EST, "from": clients}, {"ports": METRICS, "from": [MONITORING]}]
    assert found["est-issuer-operator-ingress"]["ingress"] == [{"ports": METRICS, "from": [MONITORING]}]


def test_estserver_reaches_dns_and_the_api_server_and_with_its_ledger_there_postgresql() -> None:
    dns, api = {(53, "UDP"), (53, "TCP")}, {(443, "TCP"), (6443, "TCP")}
    egress = policies({"networkPolicy": {"enabled": True}})["est-issuer-server-egress"]["egress"]
    assert [ports(rule) for rule in egress] == [dns, api]
    egress = policies(FULL)["est-issuer-server-egress"]["egress"]
    assert [ports(rule) for rule in egress] == [dns, api, {(5432, "TCP")}, {(8443, "TCP")}]
    assert egress[1]["to"] == [{"ipBlock": {"cidr": "198.51.100.1/32"}}]
    assert egress[3]["to"] == [{"ipBlock": {"cidr": "203.0.113.7/32"}}]


@pytest.mark.spec("THREAT-26")
def test_the_operator_reaches_dns_the_api_server_and_estserver_alone() -> None:
    egress = policies({"networkPolicy": {"enabled": True, "dnsPorts": [5353], "apiServerPorts": [16443]}})["est-issuer-operator-egress"][
        "egress"
    ]
    assert [ports(rule) for rule in egress] == [{(5353, "UDP"), (5353, "TCP")}, {(16443, "TCP")}, {("est", "TCP")}]
    assert egress[2]["to"] == [pods("server")]


def test_helms_test_reaches_dns_and_estserver_alone() -> None:
    policy = policies(FULL)["est-issuer-test"]
    (pod,) = of_kind(render(FULL), "Pod").values()
    assert policy["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert policy["ingress"] == []
    assert [ports(rule) for rule in policy["egress"]] == [{(53, "UDP"), (53, "TCP")}, {("est", "TCP")}]
    assert policy["egress"][1]["to"] == [pods("server")]
