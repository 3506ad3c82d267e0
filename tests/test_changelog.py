"""What towncrier makes of the fragments."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_an_entry_ends_with_the_numbers_of_its_issues_and_not_with_the_words_of_its_files(tmp_path: Path) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    fragments = tmp_path / "newsfragments"
    fragments.mkdir()
    shutil.copy(ROOT / "newsfragments" / "template.md", fragments)
    for name, text in {
        "5.door": "A door.",
        "4.window": "A window\nof glass.",
        "5.wall": "A wall.",
        "12.wall": "A wall.",
        "12.brick": "A wall.",
        "+roof": "A roof.",
    }.items():
        (fragments / f"{name}.feature.md").write_text(f"{text}\n")
    (fragments / "5.crack.bugfix.md").write_text("No crack.\n")
    command = [sys.executable, "-m", "towncrier", "build", "--draft", "--version", "1.2.3", "--date", "2026-11-26", "--dir", str(tmp_path)]
    draft = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    _, _, changes = draft.partition("## 1.2.3 (2026-11-26)")
    features, _, fixes = changes.partition("### Bugfixes")
    assert features.split("\n\n")[1] == "### Features"
    assert set(features.split("\n\n")[2].removeprefix("- ").split("\n- ")) == {
        "A roof.",
        "A door. (#5)",
        "A window\n  of glass. (#4)",
        "A wall. (#12, #5)",
    }
    assert fixes.strip() == "- No crack. (#5)"
