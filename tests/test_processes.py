"""What `make unit` runs in: no test gets lost between the forks."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

USUAL = """
import pytest

@pytest.mark.parametrize("number", range(40))
def test_is_small(number):
    pass

def test_fails(tmp_path):
    assert tmp_path.parent.name == "nowhere"
"""

FATAL = """
import os

def test_ends_its_process():
    os._exit(3)

def test_comes_after_it():
    pass
"""


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "asyncio",
        "-p",
        "timeout",
        "-p",
        "tests.conftest",
        "--rootdir",
        folder,
        *options,
    ]
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    configuration: list[str | Path] = ["-c", ROOT / "pyproject.toml", "-p", "no:cacheprovider"]
    return subprocess.run([*command, *configuration, folder], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_each_test_has_its_result_from_a_fork_and_one_whose_process_ends_has_failed(tmp_path: Path) -> None:
    (tmp_path / "test_usual.py").write_text(USUAL)
    (tmp_path / "test_fatal.py").write_text(FATAL)
    ended = run(tmp_path, "--processes", "2")
    assert ended.returncode == 1, ended.stdout
    assert re.search(r"assert 'process-[01]' == 'nowhere'", ended.stdout)
    for lost in ("test_ends_its_process", "test_comes_after_it"):
        assert f"test_fatal.py::{lost}: no result, for a process ended with status 3" in ended.stdout
    summary = re.search(r"(\d+) failed(?:, (\d+) passed)? in", ended.stdout)
    assert summary
    assert int(summary[1]) + int(summary[2] or 0) == 43


def test_the_first_failure_ends_a_run_that_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "test_usual.py").write_text(USUAL.replace("pass", "assert False"))
    ended = run(tmp_path, "--processes", "1", "-x")
    assert ended.returncode == 1, ended.stdout
    assert "stopping after 1 failures" in ended.stdout
    assert " 1 failed in" in ended.stdout
