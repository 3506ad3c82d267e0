"""kind/ and the chart agree, and with the examples."""

import subprocess
from typing import Any

import pytest
import yaml

from tests.chart.rendering import ROOT, render


def load(path: str) -> list[dict[str, Any]]:
    return [manifest for manifest in yaml.safe_load_all((ROOT / path).read_text()) if manifest]


def test_the_node_port_is_the_one_that_the_cluster_maps_to_loopback() -> None:
    [cluster] = load("kind/cluster.yaml")
    [mapping] = cluster["nodes"][0]["extraPortMappings"]
    [values] = load("kind/values.yaml")
    assert mapping["containerPort"] == values["server"]["service"]["nodePort"]
    assert mapping["listenAddress"] == "127.0.0.1"
    assert mapping["listenAddress"] in values["server"]["tls"]["names"]


def test_every_namespace_that_the_values_name_is_made_before_the_chart() -> None:
    [values] = load("kind/values.yaml")
    made = {manifest["metadata"]["name"]: manifest["metadata"]["labels"] for manifest in load("kind/namespaces.yaml")}
    rendered = {manifest["metadata"].get("namespace") for manifest in render(values)} - {None, "pki"}
    assert rendered <= made.keys()
    assert all(labels["pod-security.kubernetes.io/enforce"] == "restricted" for labels in made.values())


@pytest.mark.parametrize("script", ["up", "down"])
def test_the_scripts_can_be_run_and_parsed(script: str) -> None:
    path = ROOT / "kind" / script
    assert path.stat().st_mode & 0o111
    assert subprocess.run(["bash", "-n", str(path)]).returncode == 0
