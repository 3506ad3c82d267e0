"""The EST server: the only program that reads a CA key.

structlog is imported here, as if rich were not installed: its console renderer, which a server never uses, would load 3 MB of it.
"""

import sys

_rich = sys.modules.get("rich")
sys.modules["rich"] = None  # type: ignore[assignment]  # makes `import rich` raise ImportError
import structlog as structlog  # noqa: E402 - only now

if _rich is None:
    del sys.modules["rich"]
else:
    sys.modules["rich"] = _rich
