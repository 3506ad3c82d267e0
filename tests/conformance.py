"""From the marks of the tests to docs/conformance.md: which requirement rows are shown, by which tests, and which are missing.

Each tier of tests, run with `--conformance FILE`, leaves its marks and results in a file (tests/conftest.py writes it). This program merges
the files of RUNS and judges: `python -m tests.conformance` writes the document, `--check` demands that it is what would be written.
Tests of a tier that left no file stand as the document has them, so that one tier can be run alone.
"""

import argparse
import functools
import json
import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
REQUIREMENTS = Path(__file__).with_name("requirements.toml")
DIVERGENCES = ROOT / "docs" / "rfc7030-divergences.md"
DOCUMENT = ROOT / "docs" / "conformance.md"
RUNS = ROOT / ".cache" / "conformance"

TIERS = ("integration", "interop", "e2e")
"""Folders below tests/ that are tiers of their own; every other test is of the tier `unit`."""

Tests = dict[str, str]
"""Test (path below tests/, `::`, name) → passed or failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """A row: what is asked, of whom, how strongly. `not_yet` is why a threat cannot be met so far."""

    side: str
    level: str
    requirement: str
    not_yet: str | None = None

    @property
    def must_be_shown(self) -> bool:
        """By a test or by a stated reason: what the server does, and the threats."""
        return self.side in {"S", "B", "T"}


class Malformed(ValueError):
    """A file of this machinery does not have its form."""


@functools.cache
def requirements() -> Mapping[str, Requirement]:
    """All rows, in the order of the file."""
    return {row: Requirement(**fields) for row, fields in tomllib.loads(REQUIREMENTS.read_text()).items()}


def unknown(rows: Iterable[str]) -> list[str]:
    """Those that tests/requirements.toml does not have."""
    return sorted({row for row in rows if row not in requirements()})


def divergences(text: str) -> set[str]:
    """Rows in the first column of the table of divergences, as `ROW`, `ROW, ROW` and `ROW to ROW`. Raises Malformed."""
    named: set[str] = set()
    for line in text.splitlines():
        if not line.startswith("|") or re.fullmatch(r"\|(\s*row\s*|-+)\|.*", line):
            continue
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) != 4 or not all(cells):
            raise Malformed(f"a divergence has four cells, row, RFC, what and why: {line}")
        for item in cells[0].split(", "):
            named.update(_range(item))
    return named


def _range(item: str) -> list[str]:
    rows = list(requirements())
    first, to, last = item.partition(" to ")
    if unknown([first, last] if to else [first]):
        raise Malformed(f"not a row, rows divided by ', ', or 'ROW to ROW': {item}")
    found = rows[rows.index(first) : rows.index(last if to else first) + 1]
    if not found or {row.rsplit("-", 1)[0] for row in found} != {first.rsplit("-", 1)[0]}:
        raise Malformed(f"a range goes upwards within one group of rows: {item}")
    return found


def tier_of(test: str) -> str:
    """The tier that runs a test."""
    folder = test.partition("/")[0]
    return folder if folder in TIERS else "unit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What test runs showed: row → tests, and the tiers that ran."""

    rows: Mapping[str, Tests]
    tiers: frozenset[str]


def merge(runs: Sequence[Mapping[str, Mapping[str, object]]], document: str) -> Shown:
    """The marks and results of run files, and of the document for tiers that did not run."""
    rows: dict[str, Tests] = defaultdict(dict)
    tiers = {tier_of(test) for run in runs for test in run}
    for run in runs:
        for test, seen in run.items():
            for row in seen["rows"]:  # type: ignore[attr-defined]  # a list in the file
                rows[row][test] = str(seen["result"])
    for row, tests in read(document).items():
        rows[row].update({test: result for test, result in tests.items() if tier_of(test) not in tiers})
    return Shown(rows={row: tests for row, tests in rows.items() if tests}, tiers=frozenset(tiers))


def read(document: str) -> dict[str, Tests]:
    """Row → tests with the row's result, of a document that `render` wrote; rows that are no longer known are left out."""
    rows: dict[str, Tests] = {}
    for line in document.splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) == 6 and cells[0] in requirements():
            result = "failed" if cells[4].startswith("failed") else "passed"
            rows[cells[0]] = dict.fromkeys(re.findall(r"`([^`]+)`", cells[5]), result)
    return rows


def result_of(row: str, shown: Shown, diverging: set[str]) -> str:
    """One or two words for a row: the tests' result, or why there is none."""
    tests = shown.rows.get(row)
    if tests:
        result = "failed" if "failed" in tests.values() else "passed"
        return f"{result}; diverges in part" if row in diverging else result
    if row in diverging:
        return "diverges"
    requirement = requirements()[row]
    return f"not yet: {requirement.not_yet}" if requirement.not_yet else "not shown"


def faults(shown: Shown, diverging: set[str]) -> list[str]:
    """One sentence for each row that is not as it must be."""
    found = []
    for row, requirement in requirements().items():
        result = result_of(row, shown, diverging)
        if result.startswith("failed"):
            failed = ", ".join(test for test, seen in sorted(shown.rows[row].items()) if seen == "failed")
            found.append(f"{row}: fails in {failed}")
        elif result == "not shown" and requirement.must_be_shown:
            found.append(f"{row}: no test shows it and docs/rfc7030-divergences.md has no reason ({requirement.requirement})")
        elif row in shown.rows and requirement.not_yet:
            found.append(f"{row}: is shown, so tests/requirements.toml must no longer say not_yet")
    return found


INTRODUCTION = """# Conformance

Written by `make conformance` from the marks of the tests; tests/requirements.toml has the rows, and
[rfc7030-divergences.md](rfc7030-divergences.md) what is done otherwise and why. Side: S server, C client, B both, T a threat,
K the contract of a Kubernetes door. Every row of side S, B or T is shown by a test or has its reason; the run fails when one loses its
test. Tests are paths below tests/.
"""


def render(shown: Shown, diverging: set[str]) -> str:
    """The document."""
    results = {row: result_of(row, shown, diverging) for row in requirements()}
    lines = [INTRODUCTION, "| side | rows | shown by tests | by a reason | not shown |", "|---|---|---|---|---|"]
    for side in "SBCTK":
        of_side = [results[row] for row, requirement in requirements().items() if requirement.side == side]
        shown_rows = sum(result.startswith(("passed", "failed")) for result in of_side)
        missing = of_side.count("not shown")
        lines.append(f"| {side} | {len(of_side)} | {shown_rows} | {len(of_side) - shown_rows - missing} | {missing} |")
    lines += ["", "| row | requirement in short | side | level | result | tests |", "|---|---|---|---|---|---|"]
    for row, requirement in requirements().items():
        tests = "<br>".join(f"`{test}`" for test in sorted(shown.rows.get(row, ())))
        lines.append(f"| {row} | {requirement.requirement} | {requirement.side} | {requirement.level} | {results[row]} | {tests} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Merge, write or compare, judge. Exit status 1 where a row is not as it must be or the document is not what the runs say."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--check", action="store_true", help="write nothing; demand that the document is what would be written")
    check: bool = arguments.parse_args().check
    document = DOCUMENT.read_text() if DOCUMENT.exists() else ""
    shown = merge([json.loads(file.read_text()) for file in sorted(RUNS.glob("*.json"))], document)
    diverging = divergences(DIVERGENCES.read_text())
    rendered = render(shown, diverging)
    found = faults(shown, diverging)
    if not check:
        DOCUMENT.write_text(rendered)
    elif rendered != document:
        found.append(f"{DOCUMENT.relative_to(ROOT)} is not what the tests say: run `make conformance` and commit it")
    sys.stderr.writelines(f"{fault}\n" for fault in found)
    sys.stderr.write(f"{len(requirements())} rows, tiers that ran: {', '.join(sorted(shown.tiers)) or 'none'}; {len(found)} faults\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
