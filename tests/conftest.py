"""What every test has around it: the requirement table, and the collection of what estserver issued.

`pytest --conformance FILE` writes which requirement rows the run showed, by which tests, with what result.
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.collect import collect_ledgers

ROWS = pytest.StashKey[dict[str, dict[str, str]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--conformance", type=Path, metavar="FILE", help="write the table of requirement rows to FILE")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[ROWS] = defaultdict(dict)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report: pytest.TestReport = yield  # type: ignore[misc, assignment]  # pluggy's wrappers receive the report here
    if report.when == "call" or report.failed:
        test = item.nodeid.split("[")[0]
        for mark in item.iter_markers("spec"):
            for row in mark.args:
                tests = item.config.stash[ROWS][row]
                tests[test] = "failed" if report.failed or tests.get(test) == "failed" else "passed"
    return report  # type: ignore[return-value]


def pytest_sessionfinish(session: pytest.Session) -> None:
    file: Path | None = session.config.getoption("--conformance")
    if file is None:
        return
    lines = [
        "# Requirements shown by tests",
        "",
        "Written by `make conformance` from the marks of the tests.",
        "",
        "| row | result | tests |",
        "|---|---|---|",
    ]
    for row, tests in sorted(session.config.stash[ROWS].items()):
        result = "failed" if "failed" in tests.values() else "passed"
        lines.append(f"| {row} | {result} | {'<br>'.join(f'`{test}`' for test in sorted(tests))} |")
    file.write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="session", autouse=True)
def _everything_recorded_is_collected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Whatever the tests did not hand over themselves: each certificate of each ledger that they left behind."""
    yield
    collect_ledgers(tmp_path_factory.getbasetemp())
