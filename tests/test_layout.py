import re
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.version import Version

ROOT = Path(__file__).parent.parent
PACKAGES = [ROOT / "estcore", ROOT / "estclient", ROOT / "estserver", ROOT / "operator" / "estoperator"]


@pytest.mark.parametrize("folder", ["operator", "tests/operator"])
def test_no_package_shadows_the_standard_librarys_operator(folder: str) -> None:
    assert not (ROOT / folder / "__init__.py").exists()


def test_no_module_has_a_name_that_says_nothing() -> None:
    names = {file.stem for package in PACKAGES for file in package.rglob("*.py")}
    assert not names & {"utils", "util", "helpers", "helper", "manager", "managers", "common", "misc"}


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_every_package_is_typed(package: Path) -> None:
    assert (package / "py.typed").exists()


def test_the_core_never_asks_for_the_time() -> None:
    """import-linter sees imports only; `datetime` is imported for its types, so its clock is looked for here."""
    for file in (ROOT / "estcore").rglob("*.py"):
        assert not re.search(r"\.(now|utcnow|today)\(", file.read_text()), f"{file.name} reads the clock"


@pytest.mark.spec("THREAT-38")
@pytest.mark.parametrize(
    ("distribution", "floor"),
    [
        ("cryptography", "50"),
        ("h11", "0.16"),
        ("pyopenssl", "26.4"),
        ("starlette", "1.3.1"),
        ("uvicorn", "0.54"),
    ],
)
def test_no_library_is_older_than_its_known_fault(distribution: str, floor: str) -> None:
    assert Version(version(distribution)) >= Version(floor)


@pytest.mark.spec("THREAT-38")
@pytest.mark.parametrize(
    "lock",
    [
        "requirements.lock",
        "requirements-dev.lock",
        "requirements-build.lock",
        "requirements-uv.lock",
        "tests/tools/requirements-pkilint.lock",
        "tests/tools/requirements-checkov.lock",
    ],
)
def test_every_line_of_a_lock_has_a_hash(lock: str) -> None:
    requirements = re.split(r"\n(?=[A-Za-z0-9])", (ROOT / lock).read_text())
    pinned = [requirement for requirement in requirements if not requirement.startswith("#")]
    assert pinned
    for requirement in pinned:
        assert "==" in requirement, requirement
        assert "--hash=sha256:" in requirement, requirement


def test_the_repository_names_no_path_of_one_machine() -> None:
    found = subprocess.run(
        ["git", "grep", "-nE", r"/opt/cluster|\.\./shared|/work/", "--", ".", ":!.ci", ":!tests/test_layout.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert found.stdout == ""
