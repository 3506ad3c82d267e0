"""What `helm install` prints, and what Artifact Hub shows."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from estcore.issuer_spec import IssuerSpec
from tests.chart.rendering import CHART, FULL, ROOT, project_crds, run


@pytest.fixture(scope="module")
def chart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chart with its notes as an object: `helm template` prints none, and `helm install` wants a cluster."""
    copy = tmp_path_factory.mktemp("notes") / "est-issuer"
    shutil.copytree(CHART, copy)
    text = (copy / "templates" / "NOTES.txt").read_text()
    (copy / "templates" / "notes.yaml").write_text(
        f'{{{{ define "notes" }}}}{text}{{{{ end }}}}notes: {{{{ include "notes" . | toJson }}}}'
    )
    return copy


def notes(values: dict[str, Any], chart: Path) -> str:
    options = ("--namespace", "pki", "--kube-version", "1.37.2", "--show-only", "templates/notes.yaml")
    done = run("template est-issuer", values, *options, chart=chart)
    assert done.returncode == 0, done.stderr
    text: str = yaml.safe_load(done.stdout)["notes"]
    return text


def commands(text: str) -> list[str]:
    """What stands five columns in is run as it is by the e2e test."""
    return [line.strip() for line in text.splitlines() if line.startswith("     ")]


def test_notes_name_this_release_in_every_command_and_none_of_them_deletes(chart: Path) -> None:
    for values in ({}, FULL, {"fullnameOverride": "ca"}):
        found = commands(notes(values, chart))
        assert any(
            "rollout status statefulset/" + ("ca" if "fullnameOverride" in values else "est-issuer") + "-server" in one for one in found
        )
        assert "helm test est-issuer --namespace pki" in found
        assert not [one for one in found if "delete" in one or "uninstall" in one]


def test_notes_say_what_stays_and_how_it_goes(chart: Path) -> None:
    deleted = " ".join(sorted(file.stem.partition("_")[2] + ".est-issuer.io" for file in (ROOT / "crds").glob("*.yaml")))
    printed = notes({}, chart)
    assert "helm uninstall` keeps the CRDs" in printed
    assert sorted(printed.partition("kubectl delete crd ")[2].splitlines()[0].split()) == deleted.split()
    gone = notes({"crds": {"keep": False}}, chart)
    assert "kubectl delete crd" not in gone
    assert "deletes the CRDs, and with them every issuer and request" in gone
    assert "with them every issuer" not in notes({"crds": {"enabled": False, "keep": False}}, chart)


def test_notes_name_the_role_of_those_who_decide_only_where_there_is_one(chart: Path) -> None:
    assert "ClusterRole est-issuer-approver" in notes({}, chart)
    without = notes({"approval": {"approverRole": False}}, chart)
    assert "est-issuer-approver" not in without
    assert "the verb approve on signers of est-issuer.io" in without
    assert "estcr" not in notes({"approval": {"objects": False}}, chart)


def test_notes_say_which_name_a_given_certificate_must_have(chart: Path) -> None:
    given = notes({"server": {"tls": {"secretName": "est-tls"}}}, chart)
    assert "in Secret est-tls. The name est-issuer.pki.svc must be among its DNS names" in given
    assert "DNS names" not in notes({}, chart)


@pytest.mark.parametrize(("values", "warned"), [({}, True), ({"prometheusRule": {"enabled": True}}, False)])
def test_notes_say_when_nobody_is_warned_of_the_end_of_a_ca(chart: Path, values: dict[str, Any], *, warned: bool) -> None:
    assert ("Nobody is warned before a CA ends" in notes(values, chart)) is warned


def test_artifact_hub_is_told_of_every_kind_and_shows_an_issuer_that_can_be_read() -> None:
    annotations = yaml.safe_load((CHART / "Chart.yaml").read_text())["annotations"]
    crds = project_crds()
    assert {(one["kind"], one["version"], one["name"]) for one in yaml.safe_load(annotations["artifacthub.io/crds"])} == {
        (crd["spec"]["names"]["kind"], crd["spec"]["versions"][0]["name"], crd["metadata"]["name"]) for crd in crds
    }
    (example,) = yaml.safe_load(annotations["artifacthub.io/crdsExamples"])
    IssuerSpec.model_validate(example["spec"])
