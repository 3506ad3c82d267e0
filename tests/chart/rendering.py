"""The chart as objects: `helm template`, nothing else."""

import copy
import functools
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "est-issuer"
NAMESPACE = "pki"

# Every switch on, every list filled: what a big installation sets.
FULL: dict[str, Any] = {
    "image": {"digest": "sha256:" + "0" * 64},
    "doors": {"estIssuer": True, "certManager": True, "signingRequests": True, "podCertificates": True},
    "approval": {"objects": True, "admissionPolicy": True, "approverRole": True},
    "defaultIssuer": "devices/factory",
    "labels": {"factory": "devices/factory", "lab": "lab/bench"},
    "secretNamespaces": ["devices", "lab", NAMESPACE],
    "trust": {"namespaces": ["apps", "lab", NAMESPACE]},
    "ra": {"serviceAccounts": ["other/registrar"]},
    "ledger": {"urlSecret": {"name": "ledger-url", "key": "url"}},
    "imagePullSecrets": [{"name": "registry"}],
    "server": {
        "replicas": 3,
        "workers": 2,
        "publicUrl": "https://est.example.com",
        "service": {
            "type": "LoadBalancer",
            "nodePort": 30443,
            "loadBalancerClass": "example.com/internal",
            "loadBalancerSourceRanges": ["192.0.2.0/24"],
            "annotations": {"example.com/pool": "devices"},
        },
        "tls": {"names": ["est.example.com", "192.0.2.1"]},
        "podAnnotations": {"example.com/team": "pki"},
        "podLabels": {"example.com/tier": "security"},
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "dedicated", "operator": "Equal", "value": "pki", "effect": "NoSchedule"}],
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "topology.kubernetes.io/zone",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": {"app.kubernetes.io/component": "server"}},
            }
        ],
        "priorityClassName": "system-cluster-critical",
        "extraEnv": [{"name": "EST_LIMIT_CONNECTIONS", "value": "500"}],
        "extraVolumes": [{"name": "postgresql-ca", "configMap": {"name": "postgresql-ca"}}],
        "extraVolumeMounts": [{"name": "postgresql-ca", "mountPath": "/etc/postgresql-ca", "readOnly": True}],
        "podDisruptionBudget": {"enabled": True},
        "runtimeClassName": "gvisor",
        "hostUsers": False,
        "revisionHistoryLimit": 2,
    },
    "operator": {"replicas": 2, "podDisruptionBudget": {"enabled": True, "minAvailable": 1, "maxUnavailable": None}},
    "networkPolicy": {
        "enabled": True,
        "clientsFrom": [{"ipBlock": {"cidr": "192.0.2.0/24"}}],
        "metricsFrom": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
        "apiServerTo": [{"ipBlock": {"cidr": "198.51.100.1/32"}}],
        "serverEgress": [{"ports": [{"port": 8443, "protocol": "TCP"}], "to": [{"ipBlock": {"cidr": "203.0.113.7/32"}}]}],
    },
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}, "endpoint": {"scrapeTimeout": "10s"}},
    "prometheusRule": {
        "enabled": True,
        "labels": {"release": "prometheus"},
        "additionalGroups": [{"name": "own", "rules": [{"alert": "Own", "expr": "est_ledger_writable == 0"}]}],
    },
    "grafanaDashboard": {"enabled": True, "annotations": {"grafana_folder": "pki"}},
    "extraObjects": [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-own", "namespace": NAMESPACE}}],
}


@functools.cache
def helm() -> str:
    """The helm on PATH, or one built from its Go module (a minute, once)."""
    if installed := shutil.which("helm"):
        return installed
    folder = ROOT / ".cache" / "helm"
    if not (folder / "helm").exists():
        environment = os.environ | {"GOBIN": str(folder), "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false"}
        subprocess.run(["go", "install", "tool"], cwd=Path(__file__).parent / "helm", env=environment, check=True, timeout=900)
    return str(folder / "helm")


def run(command: str, values: dict[str, Any] | None = None, *arguments: str, chart: Path = CHART) -> subprocess.CompletedProcess[str]:
    """Run `helm COMMAND … CHART` with the values given; the caller judges the exit code."""
    return subprocess.run(
        [helm(), *command.split(), str(chart), "--values", "-", *arguments],
        input=json.dumps(values or {}),  # Helm takes more words for booleans and numbers than Python's YAML would put into quotes
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"GOGC": "off", "GOMAXPROCS": "1"},  # it ends long before its garbage would matter, and has work for one thread
    )


def render(
    values: dict[str, Any] | None = None, *, release: str = "est-issuer", kubernetes: str = "1.37.2", namespace: str = NAMESPACE
) -> list[dict[str, Any]]:
    """Every object of the chart, hooks included; the caller's own copy."""
    return copy.deepcopy(_rendered(yaml.safe_dump(values or {}), release, kubernetes, namespace))


@functools.cache
def _rendered(values_yaml: str, release: str, kubernetes: str, namespace: str) -> list[dict[str, Any]]:
    done = run(f"template {release}", yaml.safe_load(values_yaml), "--namespace", namespace, "--kube-version", kubernetes)
    assert done.returncode == 0, done.stderr
    return [manifest for document in done.stdout.split("\n---\n") if (manifest := _parsed(document))]


@functools.cache
def _parsed(document: str) -> dict[str, Any] | None:
    """Most are the same in every rendering. libyaml's parser takes a twentieth of the time of Python's own."""
    manifest: dict[str, Any] | None = yaml.load(document, Loader=yaml.CSafeLoader)
    return manifest


def project_crds() -> list[dict[str, Any]]:
    """The CRDs of crds/."""
    return [yaml.load(file.read_text(), Loader=yaml.CSafeLoader) for file in (ROOT / "crds").glob("*.yaml")]


def of_kind(objects: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    """The objects of one kind by name; by namespace/name where the namespace is not the release's."""
    found = {}
    for manifest in objects:
        if manifest["kind"] == kind:
            namespace = manifest["metadata"].get("namespace", NAMESPACE)
            prefix = "" if namespace == NAMESPACE else f"{namespace}/"
            found[prefix + manifest["metadata"]["name"]] = manifest
    return found
