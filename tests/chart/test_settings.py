"""The chart and the programs speak of the same settings: what is rendered is loaded by the programs' own code."""

import os
from typing import Any

import pytest

import estoperator.settings
import estserver.settings
from tests.chart.rendering import FULL, NAMESPACE, of_kind, render

# What the kubelet fills in.
FROM_ELSEWHERE = {
    "EST_NAMESPACE": NAMESPACE,
    "EST_LEDGER": "postgresql+psycopg://user:password@host/ledger",
    "EST_OPERATOR_NAMESPACE": NAMESPACE,
    "EST_OPERATOR_IDENTITY": "est-issuer-operator-0",
}


def set_environment(monkeypatch: pytest.MonkeyPatch, objects: list[dict[str, Any]], kind: str, name: str) -> set[str]:
    for variable in [variable for variable in os.environ if variable.startswith("EST_")]:
        monkeypatch.delenv(variable)
    container = of_kind(objects, kind)[name]["spec"]["template"]["spec"]["containers"][0]
    for variable in container["env"]:
        monkeypatch.setenv(variable["name"], variable["value"] if "value" in variable else FROM_ELSEWHERE[variable["name"]])
    return {variable["name"] for variable in container["env"]}


def test_estserver_knows_every_variable_and_loads_them(monkeypatch: pytest.MonkeyPatch, objects: list[dict[str, Any]]) -> None:
    names = set_environment(monkeypatch, objects, "StatefulSet", "est-issuer-server")
    limits = {name for name in names if name.startswith(estserver.settings.LIMIT_PREFIX)}
    assert {name.removeprefix("EST_").lower() for name in names - limits} <= estserver.settings.Settings.model_fields.keys()
    settings, _ = estserver.settings.load({})
    assert settings.kubernetes
    assert f"{NAMESPACE}/est-issuer-operator" in settings.ra_service_accounts


def test_labels_of_the_values_are_those_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment(monkeypatch, render(FULL), "StatefulSet", "est-issuer-server")
    settings, limits = estserver.settings.load({})
    assert settings.labels == FULL["labels"]
    assert settings.default_issuer == FULL["defaultIssuer"]
    assert settings.trust_namespaces == ("apps", "lab")
    assert limits.connections == 500


@pytest.mark.parametrize("doors", [{}, {"certManager": False}, {"estIssuer": False, "certManager": False}])
def test_the_operator_knows_every_variable_and_loads_them(monkeypatch: pytest.MonkeyPatch, doors: dict[str, bool]) -> None:
    names = set_environment(monkeypatch, render({"doors": doors}), "Deployment", "est-issuer-operator")
    assert {name.removeprefix("EST_OPERATOR_").lower() for name in names} <= estoperator.settings.Settings.model_fields.keys()
    settings = estoperator.settings.load()
    assert len(settings.doors) == 4 - len(doors)
    assert settings.lease_name == "est-issuer-operator"
