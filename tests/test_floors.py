"""The oldest versions that may be installed, with the fault of the version before: a lower bound in pyproject.toml is a control."""

import platform
import re
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FLOORS = {
    "starlette": ((1, 3, 1), "CVE-2026-48710 (Host), CVE-2026-54282 (path), CVE-2026-54283 (forms), CVE-2025-62727 (Range)"),
    "h11": ((0, 16), "CVE-2025-43859 (chunk terminators)"),
    "cryptography": ((50,), "46.0.7 hangs on a chain of equal names; CVE-2026-34073, CVE-2026-26007, CVE-2023-49083"),
    "pyopenssl": ((26, 4), "CVE-2026-27448 (SNI callback), CVE-2026-27459, CVE-2026-40475 (NUL); 26.2 pins an old cryptography"),
    "uvicorn": ((0, 54), "CVE-2020-7694, CVE-2020-7695"),
    "fastapi": ((0, 160), "the first that is tested"),
}
PYTHON = (3, 11, 5)
"""CVE-2023-40217: before, data that came unencrypted was taken for data of the TLS connection."""


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text)[:3])


def _declared(requirement: str) -> tuple[str, tuple[int, ...]]:
    name, _, floor = re.sub(r"\[.*?\]", "", requirement).partition(">=")
    return name.strip().lower(), _numbers(floor)


def _requirements() -> dict[str, tuple[int, ...]]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = [*project["dependencies"], *(each for extra in project["optional-dependencies"].values() for each in extra)]
    return dict(map(_declared, listed))


def _locked(lock: str) -> dict[str, tuple[int, ...]]:
    pins = re.findall(r"^([A-Za-z0-9._-]+)==([0-9.]+)", (ROOT / lock).read_text(), re.MULTILINE)
    return {name.lower(): _numbers(found) for name, found in pins}


@pytest.mark.spec("THREAT-38")
@pytest.mark.parametrize("package", FLOORS)
def test_nothing_older_than_the_floor_is_declared_locked_or_installed(package: str) -> None:
    floor, why = FLOORS[package]
    assert _requirements()[package] >= floor, why
    for lock in ("requirements.lock", "requirements-dev.lock"):
        assert _locked(lock)[package] >= floor, f"{lock}: {why}"
    assert _numbers(version(package)) >= floor, why


@pytest.mark.spec("THREAT-38")
def test_no_older_python_than_the_floor_is_declared_or_runs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert _numbers(project["requires-python"]) >= PYTHON
    assert sys.version_info[:3] >= PYTHON, platform.python_version()
