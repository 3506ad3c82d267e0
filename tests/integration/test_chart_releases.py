"""The chart by helm on a real API server: it is taken with every value set, and a second release is refused before anything is made."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chart.rendering import CHART, FULL, helm
from tests.chart.test_chart import NUMBERS
from tests.integration.apiserver import ApiServer

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """An API server of its own: what the chart makes for the whole cluster would reach the other tests."""
    server = ApiServer(tmp_path_factory.mktemp("releases"))
    try:
        server.start()
        yield server
    finally:
        server.stop()


def run_helm(cluster: ApiServer, tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run helm as the administrator; the caller judges the outcome."""
    environment = os.environ | {"KUBECONFIG": str(cluster.kubeconfig), "HOME": str(tmp_path), "HELM_NO_PLUGINS": "1"}
    return subprocess.run([helm(), *arguments], env=environment, capture_output=True, text=True, timeout=60)


def install(cluster: ApiServer, tmp_path: Path, release: str, namespace: str, *options: str) -> str:
    """Install or upgrade a release; what helm said against it."""
    arguments = ("upgrade", "--install", release, str(CHART), "--namespace", namespace, "--create-namespace")
    done = run_helm(cluster, tmp_path, *arguments, "--set", "crds.enabled=false", *options)
    return done.stderr if done.returncode else ""


def test_a_second_release_is_refused_by_the_name_of_the_first_and_leaves_nothing_behind(cluster: ApiServer, tmp_path: Path) -> None:
    assert install(cluster, tmp_path, "est-issuer", "pki") == ""
    before = cluster.kubectl("get", "clusterrole,clusterrolebinding,validatingadmissionpolicy", "-o", "name")
    for release, namespace in (("est-issuer", "other"), ("second", "pki"), ("second", "other")):
        refusal = install(cluster, tmp_path, release, namespace)
        assert 'one cluster has one est-issuer, and this one has release "est-issuer" in namespace "pki" already' in refusal
        assert "helm uninstall est-issuer --namespace pki" in refusal
        found = cluster.kubectl("get", "deployment,statefulset,serviceaccount", "--all-namespaces", "-o", "name")
        assert found.splitlines() == [
            "deployment.apps/est-issuer-operator",
            "statefulset.apps/est-issuer-server",
            "serviceaccount/est-issuer-operator",
            "serviceaccount/est-issuer-server",
        ]
    assert cluster.kubectl("get", "clusterrole,clusterrolebinding,validatingadmissionpolicy", "-o", "name") == before
    # the first goes on, under other names of its objects too, and makes room when it goes
    assert install(cluster, tmp_path, "est-issuer", "pki", "--set", "operator.logLevel=debug") == ""
    assert install(cluster, tmp_path, "est-issuer", "pki", "--set", "fullnameOverride=ca") == ""
    assert run_helm(cluster, tmp_path, "uninstall", "est-issuer", "--namespace", "pki").returncode == 0
    assert install(cluster, tmp_path, "second", "other") == ""
    assert run_helm(cluster, tmp_path, "uninstall", "second", "--namespace", "other").returncode == 0


def test_under_another_name_the_crds_that_a_release_left_must_be_taken_over(cluster: ApiServer, tmp_path: Path) -> None:
    """docs/operations.md, "Uninstall and reinstall"; here the CRDs were made by kubectl, which Helm treats alike."""
    refusal = install(cluster, tmp_path, "renamed", "pki", "--set", "crds.enabled=true")
    assert "invalid ownership metadata" in refusal
    assert install(cluster, tmp_path, "renamed", "pki", "--set", "crds.enabled=true", "--take-ownership") == ""
    assert run_helm(cluster, tmp_path, "uninstall", "renamed", "--namespace", "pki").returncode == 0
    assert "customresourcedefinition" in cluster.kubectl("get", "crd", "estissuers.est-issuer.io", "-o", "name")
    assert "invalid ownership metadata" in install(cluster, tmp_path, "again", "pki", "--set", "crds.enabled=true")


def test_a_real_api_server_takes_the_chart_with_every_value_set(cluster: ApiServer, tmp_path: Path) -> None:
    without_kinds_of_others = {"serviceMonitor": {"enabled": False}, "prometheusRule": {"enabled": False}}
    values = tmp_path / "values.yaml"
    values.write_text(
        json.dumps(FULL | without_kinds_of_others | {"approval": FULL["approval"] | {"approvers": [{"kind": "Group", "name": "pki"}]}})
    )
    for namespace in ("devices", "lab", "apps"):
        cluster.ensure_namespace(namespace)
    assert install(cluster, tmp_path, "full", "pki", "--values", str(values)) == ""
    assert run_helm(cluster, tmp_path, "upgrade", "full", str(CHART), "--namespace", "pki", "--reuse-values").returncode == 0
    kinds = "networkpolicy,poddisruptionbudget,configmap,rolebinding"
    made = cluster.kubectl("get", kinds, "--all-namespaces", "-o", "name", "--selector", "app.kubernetes.io/instance=full")
    assert {line.partition(".")[0] for line in made.splitlines()} >= {"networkpolicy", "poddisruptionbudget", "rolebinding"}
    assert run_helm(cluster, tmp_path, "uninstall", "full", "--namespace", "pki").returncode == 0
    assert cluster.kubectl("get", kinds, "--all-namespaces", "-o", "name", "--selector", "app.kubernetes.io/instance=full") == ""


def test_a_real_api_server_takes_names_that_yaml_reads_as_numbers_and_booleans(cluster: ApiServer, tmp_path: Path) -> None:
    without_kinds_of_others = {"serviceMonitor": {"enabled": False}, "prometheusRule": {"enabled": False}, "extraObjects": []}
    values = tmp_path / "values.yaml"
    values.write_text(json.dumps(NUMBERS | without_kinds_of_others))
    for namespace in ("2", "0o7", "3", "20"):
        cluster.ensure_namespace(namespace)
    assert install(cluster, tmp_path, "007", "2024", "--values", str(values)) == ""
    found = cluster.kubectl("-n", "2024", "get", "service,serviceaccount", "-o", "name")
    assert {"service/y", "serviceaccount/on", "serviceaccount/off"} <= set(found.split())
    assert run_helm(cluster, tmp_path, "uninstall", "007", "--namespace", "2024").returncode == 0


def test_another_size_of_the_ledgers_volume_is_refused_with_the_commands_that_help(cluster: ApiServer, tmp_path: Path) -> None:
    """docs/operations.md, "The ledger's volume"."""
    assert install(cluster, tmp_path, "growing", "pki", "--set", "ledger.volume.size=1.5Gi") == ""
    same_size = ("--set", "ledger.volume.size=1536Mi")
    assert install(cluster, tmp_path, "growing", "pki", *same_size) == ""
    bigger = ("--set", "ledger.volume.size=5Gi")
    refusal = install(cluster, tmp_path, "growing", "pki", *bigger)
    command = "kubectl -n pki delete statefulset growing-est-issuer-server --cascade=orphan"
    assert "ledger.volume.size: a StatefulSet never changes its volume claims (1536Mi); for 5Gi" in refusal
    patch = """kubectl -n pki patch persistentvolumeclaim ledger-growing-est-issuer-server-0 --patch '{"spec": {"resources": {"requests":"""
    assert f"""{patch} {{"storage": "5Gi"}}}}}}}}'; {command}; then upgrade again""" in refusal
    # without a controller-manager nobody would orphan the Pods, of which there are none
    cluster.kubectl(*command.removeprefix("kubectl ").replace("orphan", "background").split())
    assert install(cluster, tmp_path, "growing", "pki", *bigger) == ""
    assert install(cluster, tmp_path, "growing", "pki", *bigger) == ""
    assert run_helm(cluster, tmp_path, "uninstall", "growing", "--namespace", "pki").returncode == 0


def test_a_ledger_that_a_statefulset_cannot_change_to_is_refused_with_the_command_that_helps(cluster: ApiServer, tmp_path: Path) -> None:
    to_postgresql = ("--set", "ledger.urlSecret.name=ledger-url")
    assert install(cluster, tmp_path, "moving", "pki") == ""
    refusal = install(cluster, tmp_path, "moving", "pki", *to_postgresql)
    command = "kubectl -n pki delete statefulset moving-est-issuer-server --cascade=orphan"
    assert f"ledger.urlSecret: a StatefulSet never changes its volume claims, so the ledger moves with a new one: {command}" in refusal
    # without a controller-manager nobody would orphan the Pods, of which there are none
    cluster.kubectl(*command.removeprefix("kubectl ").replace("orphan", "background").split())
    assert install(cluster, tmp_path, "moving", "pki", *to_postgresql) == ""
    assert install(cluster, tmp_path, "moving", "pki", *to_postgresql) == ""
    assert command in install(cluster, tmp_path, "moving", "pki", "--set", "ledger.urlSecret.name=")
    assert run_helm(cluster, tmp_path, "uninstall", "moving", "--namespace", "pki").returncode == 0
