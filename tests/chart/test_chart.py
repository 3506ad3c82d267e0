"""The chart as a whole: it lints, its objects fit Kubernetes' schemas, its CRDs are the project's."""

import functools
import itertools
from typing import Any

import kubernetes_validate.utils
import pytest

from tests.chart.rendering import CHART, FULL, ROOT, of_kind, project_crds, render, run

# Kinds that no Kubernetes schema describes.
FOREIGN = {"CustomResourceDefinition", "ServiceMonitor", "PrometheusRule", "EstIssuer"}
# kubernetes_validate reads all definitions of a version anew for every object; nothing changes them.
SCHEMA_CONTENTS = functools.cache(kubernetes_validate.utils.schema_contents)
VERSIONS = functools.cache(kubernetes_validate.utils.all_versions)
SCALED = {"server": {"autoscaling": {"enabled": True}}, "ledger": {"urlSecret": {"name": "ledger-url"}}}
# Names that YAML takes for numbers and booleans unless they stand in quotes.
NUMBERS: dict[str, Any] = FULL | {
    "nameOverride": "1",
    "fullnameOverride": "y",
    "secretNamespaces": ["2", "0o7"],
    "trust": {"namespaces": ["3"], "configMaps": {"enabled": True}},
    "certManager": {
        "serviceAccount": {"name": "4", "namespace": "no"},
        "webhookName": "6",
        "approver": {"serviceAccounts": ["7/8"]},
    },
    "server": FULL["server"]
    | {"serviceAccount": {"name": "on"}, "tls": {"secretName": "10"}, "priorityClassName": "11", "runtimeClassName": "12"},
    "operator": FULL["operator"] | {"serviceAccount": {"name": "off"}, "priorityClassName": "14", "runtimeClassName": "15"},
    "imagePullSecrets": [{"name": "16"}],
    "image": {"repository": "est-issuer", "tag": "17"},
    "ledger": {"urlSecret": {"name": "18", "key": "19"}},
    "grafanaDashboard": {"enabled": True, "namespace": "20"},
    "approval": FULL["approval"]
    | {"approvers": [{"kind": "Group", "name": "21"}, {"kind": "ServiceAccount", "name": "22", "namespace": "23"}]},
}


@pytest.mark.parametrize("values", [{}, FULL], ids=["default", "full"])
def test_the_chart_lints_strictly(values: dict[str, Any]) -> None:
    done = run("lint --strict", values)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("values", "kubernetes"),
    [*itertools.product([{}, FULL], ["1.31.0", "1.34.1", "1.37.2"]), (SCALED, "1.31.0")],
    ids=lambda one: one if isinstance(one, str) else None,
)
def test_every_object_fits_the_schema_of_kubernetes(values: dict[str, Any], kubernetes: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes_validate.utils, "schema_contents", SCHEMA_CONTENTS)
    monkeypatch.setattr(kubernetes_validate.utils, "all_versions", VERSIONS)
    for manifest in render(values, kubernetes=kubernetes):
        if manifest["kind"] not in FOREIGN:
            kubernetes_validate.utils.validate(manifest, ".".join(kubernetes.split(".")[:2]), strict=True)


def test_names_that_yaml_would_read_as_something_else_stay_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes_validate.utils, "schema_contents", SCHEMA_CONTENTS)
    monkeypatch.setattr(kubernetes_validate.utils, "all_versions", VERSIONS)
    objects = render(NUMBERS, release="007", namespace="2024")
    for manifest in objects:
        metadata = manifest["metadata"]
        names = [metadata["name"], metadata.get("namespace", ""), *metadata.get("labels", {}).values()]
        assert all(isinstance(name, str) for name in names), metadata
        if manifest["kind"] not in FOREIGN:
            kubernetes_validate.utils.validate(manifest, "1.37", strict=True)
    (issuer,) = of_kind(objects, "EstIssuer").values()
    assert issuer["spec"]["policy"]["rules"][0]["from"]["namespaces"] == ["2024"]


@pytest.mark.parametrize("release", ["2024", "pki.example"])
def test_a_release_after_which_no_service_can_be_named_is_refused_with_what_to_set(release: str) -> None:
    done = run(f"template {release}", {}, "--kube-version", "1.37.2")
    assert done.returncode != 0
    assert f'fullnameOverride: a Service cannot be named "{release}-est-issuer"' in done.stderr
    assert run(f"template {release}", {"fullnameOverride": "pki"}, "--kube-version", "1.37.2").returncode == 0


def test_an_older_kubernetes_is_refused() -> None:
    done = run("template est-issuer", {}, "--kube-version", "1.30.9")
    assert done.returncode != 0
    assert "which is incompatible with Kubernetes v1.30.9" in done.stderr


def test_the_charts_crds_are_byte_for_byte_those_of_the_project() -> None:
    """Helm cannot read outside the chart, so it holds copies: cp crds/*.yaml charts/est-issuer/files/crds/."""
    ours = {file.name: file.read_bytes() for file in (ROOT / "crds").glob("*.yaml")}
    copies = {file.name: file.read_bytes() for file in (CHART / "files" / "crds").glob("*.yaml")}
    assert ours
    assert copies == ours


def test_rendering_adds_only_the_annotation_to_a_crd(default_objects: list[dict[str, Any]]) -> None:
    rendered = of_kind(default_objects, "CustomResourceDefinition")
    source = {crd["metadata"]["name"]: crd for crd in project_crds()}
    for crd in rendered.values():
        assert crd["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    assert rendered == source


def test_crds_go_with_the_release_when_they_are_not_to_be_kept() -> None:
    for crd in of_kind(render({"crds": {"keep": False}}), "CustomResourceDefinition").values():
        assert "annotations" not in crd["metadata"]


def test_crds_can_be_left_out() -> None:
    assert of_kind(render({"crds": {"enabled": False}}), "CustomResourceDefinition") == {}


@pytest.mark.parametrize("release", ["a", "est-issuer", "a-release-name-of-fifty-three-characters-which-is-max"])
def test_every_name_and_label_is_short_enough(release: str) -> None:
    for manifest in render({"trust": {"namespaces": ["apps"]}, "networkPolicy": {"enabled": True}}, release=release):
        metadata = manifest["metadata"]
        # Names of Services, and of what Pods are named after, are DNS labels.
        assert len(metadata["name"]) <= (63 if manifest["kind"] in {"Service", "Pod", "StatefulSet", "Deployment"} else 253)
        assert all(len(value) <= 63 for value in metadata.get("labels", {}).values())
        if manifest["kind"] == "StatefulSet":
            # The controller labels each Pod with its name and with a revision of eleven characters.
            assert len(metadata["name"]) + 11 <= 63


def test_an_unknown_value_is_refused_by_its_name() -> None:
    done = run("template est-issuer", {"server": {"replica": 2}})
    assert done.returncode != 0
    assert "replica" in done.stderr


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"server": {"replicas": 2}}, "ledger.urlSecret.name"),
        ({"server": {"autoscaling": {"enabled": True}}}, "ledger.urlSecret.name"),
        (
            {"server": {"autoscaling": {"enabled": True, "minReplicas": 6}}, "ledger": {"urlSecret": {"name": "a"}}},
            "minReplicas is more than maxReplicas",
        ),
        ({"server": {"service": {"nodePort": 30443}}}, "server.service.type"),
        ({"server": {"service": {"loadBalancerClass": "x"}}}, "server.service.type"),
        ({"server": {"service": {"loadBalancerSourceRanges": ["192.0.2.0/24"]}}}, "server.service.type"),
        ({"server": {"tls": {"secretName": "own", "names": ["est.example"]}}}, "server.tls.names"),
        ({"server": {"extraVolumes": [{"name": "ledger", "emptyDir": {}}]}}, 'a volume named "ledger" is there already'),
        ({"server": {"extraVolumeMounts": [{"name": "ca", "mountPath": "/etc/ca"}]}}, 'no volume is named "ca"'),
        ({"labels": {"cacerts": "devices/factory"}}, "EST operation"),
        ({"labels": {"factory": "factory"}}, "labels"),
        ({"operator": {"serviceAccount": {"name": "est-issuer-server"}}}, "CA keys"),
        ({"server": {"podDisruptionBudget": {"enabled": True, "minAvailable": 1}}}, "exactly one of"),
        ({"operator": {"podDisruptionBudget": {"enabled": True, "maxUnavailable": None}}}, "exactly one of"),
        ({"approval": {"approverRole": False, "approvers": [{"kind": "Group", "name": "pki"}]}}, "approval.approverRole"),
        ({"secretNamespaces": ["*"]}, "secretNamespaces"),
        ({"defaultIssuer": "factory"}, "defaultIssuer"),
        ({"retryWindow": "ten minutes"}, "retryWindow"),
        ({"server": {"publicUrl": "http://est.example"}}, "publicUrl"),
        ({"server": {"replicas": "2"}}, "replicas"),
    ],
)
def test_a_bad_mix_of_values_is_refused_with_what_to_set(values: dict[str, Any], said: str) -> None:
    done = run("template est-issuer", values, "--kube-version", "1.37.2")
    assert done.returncode != 0
    assert said in done.stderr
