"""Go programs that look at the chart, each a module of its own beside this file, built once into .cache."""

import os
import subprocess
from pathlib import Path

from tests.chart.rendering import ROOT

HERE = Path(__file__).parent
BUILD_SECONDS = 900


def built(name: str) -> Path:
    """The program of the module in the folder `name`, built where it is missing or older than a file of the module."""
    folder, program = HERE / name, ROOT / ".cache" / name / name
    if not program.exists() or program.stat().st_mtime < max(file.stat().st_mtime for file in folder.iterdir()):
        environment = os.environ | {"GOBIN": str(program.parent), "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false"}
        what = "." if (folder / "main.go").exists() else "tool"
        subprocess.run(["go", "install", what], cwd=folder, env=environment, check=True, timeout=BUILD_SECONDS)
        program.touch()
    return program
