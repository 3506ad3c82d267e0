"""The machinery behind docs/conformance.md: a row that loses its test is found, and so is a file that is not in its form."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import conformance
from tests.conformance import Malformed, Shown

HEAD = "| row | RFC | what we do instead | why |\n|---|---|---|---|\n"


def diverging(first_cell: str) -> set[str]:
    return conformance.divergences(f"{HEAD}| {first_cell} | 7030 §3 | nothing | no reason |\n")


def all_shown_by(test: str = "core/test_x.py::test_x", result: str = "passed") -> dict[str, dict[str, str]]:
    return {row: {test: result} for row, requirement in conformance.requirements().items() if not requirement.not_yet}


def test_the_catalogue_and_the_divergences_of_the_project_are_in_their_form() -> None:
    assert len(conformance.requirements()) > 250
    for row, requirement in conformance.requirements().items():
        assert 0 < len(requirement.requirement) <= 120, row
        assert requirement.side in set("SBCTK"), row
        assert set(requirement.level.split(" / ")) <= {"MUST", "SHOULD", "MAY"}, row
        assert not requirement.not_yet or requirement.side == "T", f"{row}: the reason belongs into the divergences"
    assert conformance.divergences(conformance.DIVERGENCES.read_text())


@pytest.mark.parametrize(
    ("cell", "rows"),
    [
        ("EST-TLS-11", {"EST-TLS-11"}),
        ("EST-TLS-11, EST-POP-09", {"EST-TLS-11", "EST-POP-09"}),
        ("EST-TA-05 to EST-TA-07, EST-URI-02", {"EST-TA-05", "EST-TA-06", "EST-TA-07", "EST-URI-02"}),
    ],
)
def test_a_divergence_names_rows_and_ranges_of_rows(cell: str, rows: set[str]) -> None:
    assert diverging(cell) == rows


@pytest.mark.parametrize(
    "cell",
    [
        "EST-TLS-99",
        "EST-TA-05 to -09",
        "EST-TA-05, -06",
        "EST-TLS-11 EST-POP-09",
        "EST-TA-07 to EST-TA-05",
        "EST-TA-05 to EST-CLI-01",
        "TLS",
    ],
)
def test_a_divergence_that_names_no_row_is_an_error(cell: str) -> None:
    with pytest.raises(Malformed):
        diverging(cell)


def test_a_divergence_without_a_reason_is_an_error() -> None:
    with pytest.raises(Malformed):
        conformance.divergences(f"{HEAD}| EST-TLS-11 | 7030 §3.3 | none |  |\n")


def test_where_every_row_is_shown_there_is_no_fault() -> None:
    assert conformance.faults(Shown(rows=all_shown_by(), tiers=frozenset()), set()) == []


@pytest.mark.parametrize("row", ["EST-URI-01", "EST-POP-01", "THREAT-01"])
def test_a_row_that_loses_its_last_test_is_a_fault(row: str) -> None:
    rows = all_shown_by()
    del rows[row]
    (fault,) = conformance.faults(Shown(rows=rows, tiers=frozenset()), set())
    assert fault.startswith(f"{row}: no test shows it")


def test_a_row_without_a_test_is_no_fault_with_a_reason_or_where_it_is_the_clients() -> None:
    rows = all_shown_by()
    del rows["EST-TLS-11"], rows["EST-ATTR-01"], rows["K8S-CONTRACT-10"]
    assert conformance.faults(Shown(rows=rows, tiers=frozenset()), {"EST-TLS-11"}) == []


def test_a_row_whose_test_fails_is_a_fault_that_names_the_test() -> None:
    rows = all_shown_by()
    rows["EST-URI-01"] = {"core/test_x.py::test_x": "passed", "core/test_y.py::test_y": "failed"}
    (fault,) = conformance.faults(Shown(rows=rows, tiers=frozenset()), {"EST-URI-01"})
    assert fault == "EST-URI-01: fails in core/test_y.py::test_y"


def test_a_threat_that_is_met_may_no_longer_say_that_it_is_not() -> None:
    rows = {**all_shown_by(), "THREAT-35": {"core/test_x.py::test_x": "passed"}}
    (fault,) = conformance.faults(Shown(rows=rows, tiers=frozenset()), set())
    assert fault.startswith("THREAT-35")


def test_the_document_says_of_each_row_what_the_run_said() -> None:
    document = conformance.render(Shown(rows=all_shown_by("interop/test_curl.py::test_x"), tiers=frozenset()), {"EST-TLS-11"})
    assert conformance.read(document) == all_shown_by("interop/test_curl.py::test_x") | {"THREAT-35": {}} | _unmet()
    (line,) = [line for line in document.splitlines() if line.startswith("| EST-TLS-11 |")]
    assert line == "| EST-TLS-11 | TLS sessions can be resumed | B | SHOULD | passed; diverges in part | `interop/test_curl.py::test_x` |"


def _unmet() -> dict[str, dict[str, str]]:
    return {row: {} for row, requirement in conformance.requirements().items() if requirement.not_yet}


def test_tests_of_a_tier_that_did_not_run_stand_as_the_document_has_them() -> None:
    before = {
        "EST-URI-01": {"core/test_gone.py::test_gone": "passed", "interop/test_curl.py::test_curl": "passed"},
        "EST-URI-02": {"core/test_gone.py::test_gone": "passed"},
    }
    document = conformance.render(Shown(rows=before, tiers=frozenset()), set())
    run = {"core/test_new.py::test_new": {"rows": ["EST-URI-01"], "result": "passed"}}
    shown = conformance.merge([run], document)
    assert shown.tiers == {"unit"}
    assert shown.rows == {"EST-URI-01": {"core/test_new.py::test_new": "passed", "interop/test_curl.py::test_curl": "passed"}}


TESTS = """
import pytest

@pytest.mark.spec("EST-URI-01")
@pytest.mark.parametrize("number", [1, 2])
def test_shows(number):
    assert number < 2

@pytest.mark.spec("EST-URI-02")
def test_shows_more():
    pass

@pytest.mark.spec("EST-URI-99")
def test_is_about_nothing():
    pass
"""


def test_a_parallel_run_leaves_its_rows_and_results_and_a_mark_that_names_no_row_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "tests" / "core").mkdir(parents=True)
    (tmp_path / "tests" / "core" / "test_made.py").write_text(TESTS)
    plugins = ["-p", "asyncio", "-p", "timeout", "-p", "tests.conftest"]
    options: list[str | Path] = [*plugins, "--rootdir", tmp_path, "-c", conformance.ROOT / "pyproject.toml", "--processes", "2"]
    command: list[str | Path] = [sys.executable, "-m", "pytest", *options, "--conformance", tmp_path / "run.json", tmp_path / "tests"]
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # those that pyproject.toml configures are enough
    ended = subprocess.run(command, cwd=conformance.ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "names rows that tests/requirements.toml does not have: EST-URI-99" in ended.stdout
    assert json.loads((tmp_path / "run.json").read_text()) == {
        "core/test_made.py::test_shows": {"rows": ["EST-URI-01"], "result": "failed"},
        "core/test_made.py::test_shows_more": {"rows": ["EST-URI-02"], "result": "passed"},
        "core/test_made.py::test_is_about_nothing": {"rows": ["EST-URI-99"], "result": "failed"},
    }
