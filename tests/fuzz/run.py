"""One target under atheris: `python tests/fuzz/run.py TARGET FOLDER… [libFuzzer options]`. `make fuzz` runs all (tests/fuzz/all.py)."""

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[2]))
with atheris.instrument_imports(include=["estcore", "estserver.authorization_header", "estserver.http_head", "estserver.tokens"]):
    from tests.fuzz.targets import TARGETS

if __name__ == "__main__":
    target = TARGETS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()
