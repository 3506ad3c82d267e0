"""`make chart-check`: what it lets pass and what it does not."""

import re
from pathlib import Path

import pytest

from tests.chart.check import VALUES, Finding, ToolException, exceptions, judge

FINDING = Finding(check="kube-score pod-probes", object="Pod/a", values="default", text="no probe")
KNOWN = ToolException(
    checks=("kube-score pod-probes",), objects=re.compile("Pod/.*"), values=frozenset({"default"}), reason="it ends by itself"
)


def test_a_finding_passes_only_by_an_exception_for_its_check_its_object_and_its_values() -> None:
    assert judge([FINDING], [KNOWN]) == []
    assert judge([FINDING], []) == ["kube-score pod-probes Pod/a (default values): no probe"]
    for other in (
        Finding(check="checkov CKV_K8S_8", object="Pod/a", values="default", text="no probe"),
        Finding(check="kube-score pod-probes", object="Deployment/a", values="default", text="no probe"),
        Finding(check="kube-score pod-probes", object="Pod/a", values="full", text="no probe"),
    ):
        assert len(judge([FINDING, other], [KNOWN])) == 1


def test_an_exception_that_excepts_nothing_is_wrong() -> None:
    (said,) = judge([], [KNOWN])
    assert said.startswith("kube-score pod-probes with default values: the exception excepts nothing")


def test_every_exception_of_the_chart_has_its_reason_and_names_sets_of_values_that_exist() -> None:
    text = (Path(__file__).parent / "exceptions.toml").read_text()
    for exception in exceptions(text):
        assert len(exception.reason) > 20
        assert exception.values <= VALUES.keys()
    with pytest.raises(ValueError, match="needs its reason"):
        exceptions('[[exception]]\nchecks = ["a"]\nobjects = ".*"\nvalues = ["default"]\nreason = " "\n')
