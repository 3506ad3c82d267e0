"""What every test has around it: the requirement rows it shows, and the collection of what estserver issued.

`pytest --conformance FILE` leaves in FILE which requirement rows each test of the run showed, with what result (tests/conformance.py).
"""

import gc
import json
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests import conformance
from tests.collect import collect_ledgers
from tests.processes import Processes


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--processes", type=int, metavar="N", help="run the tests in N forks of the process that collects them")
    parser.addoption("--conformance", type=Path, metavar="FILE", help="write the requirement rows that this run shows to FILE")


def pytest_configure(config: pytest.Config) -> None:
    file: Path | None = config.getoption("--conformance")
    if file is not None and not hasattr(config, "workerinput"):  # the processes of xdist report to the one that has it
        config.pluginmanager.register(Recorder(file))
    processes: int | None = config.getoption("--processes")
    if processes is not None:
        config.pluginmanager.register(Processes(processes))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Modules and tests stay as long as the process, so garbage is not looked for among them: neither now nor in each full pass later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if unknown := conformance.unknown(row for mark in item.iter_markers("spec") for row in mark.args):
        pytest.fail(f"the mark names rows that tests/requirements.toml does not have: {', '.join(unknown)}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call" or report.failed:
        rows = sorted({row for mark in item.iter_markers("spec") for row in mark.args})
        report.user_properties.append(("spec", rows))
    return report


class Recorder:
    """Gathers the reports of a run, parallel or not."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._tests: dict[str, dict[str, object]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and not report.failed:
            return
        test = report.nodeid.split("[")[0].removeprefix("tests/")
        seen = self._tests.setdefault(test, {"rows": [], "result": "passed"})
        seen["rows"] = sorted({*seen["rows"], *dict(report.user_properties).get("spec", ())})  # type: ignore[misc]  # a list of rows
        if not report.passed:  # a skipped test shows nothing either
            seen["result"] = "failed"

    def pytest_sessionfinish(self) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text(json.dumps(self._tests, indent=1, sort_keys=True) + "\n")


@pytest.fixture(scope="session", autouse=True)
def _everything_recorded_is_collected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Whatever the tests did not hand over themselves: each certificate of each ledger that they left behind."""
    yield
    collect_ledgers(tmp_path_factory.getbasetemp())
