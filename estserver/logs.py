"""Log lines: one event a line, JSON in a cluster and key=value on a terminal, nothing in them that a stranger can forge.

Every value is cut at 256 characters and escaped before it is rendered, so no CSR, header or name starts a line, colours a
terminal or fills a disk. Secrets, tokens, passwords and bodies are never given to a logger; this module is no filter for them.
"""

import logging
import os
import sys
from collections.abc import Callable, Mapping, MutableMapping
from datetime import datetime
from traceback import format_tb
from typing import Any, Final, Literal

import orjson
import structlog
from structlog.typing import EventDict

from estcore.visible_text import escaped

LogFormat = Literal["json", "keyvalue"]
Render = Callable[[Mapping[str, object]], bytes]
Write = Callable[[bytes], object]

MAX_VALUE: Final = 256
"""Characters of one value; the traceback of an internal error is the one longer field."""
MAX_TRACEBACK: Final = 16_384
MAX_ITEMS: Final = 16

_keyvalue = structlog.processors.LogfmtRenderer(bool_as_flag=False)


def fault(error: Exception) -> dict[str, str]:
    """The fields that tell a fault of ours over something secret: what it was and where, and not what it says, which may hold that."""
    return {"error": type(error).__name__, "exception": "".join(format_tb(error.__traceback__))}


def clean(value: object) -> object:
    """The value as a log line may show it: numbers as they are, text escaped and cut, of a list the first items."""
    if isinstance(value, str) and len(value) <= MAX_VALUE and value.isprintable():  # nearly all
        return value
    if value is None or isinstance(value, int | float):
        return value
    if isinstance(value, tuple | list):
        shown = [clean(item) for item in value[:MAX_ITEMS]]
        return shown if len(value) <= MAX_ITEMS else [*shown, f"and {len(value) - MAX_ITEMS} more"]
    return _escape(str(value), MAX_VALUE)


def _escape(text: str, longest: int) -> str:
    if len(text) > longest:
        text = text[: longest - 1] + "…"
    # printable leaves out control characters, line and paragraph separators and the bidirectional controls
    return escaped(text)


def renderer(log_format: LogFormat) -> Render:
    """How an event becomes one line, UTF-8, without its line end. Values must be clean; a time is written as ISO 8601."""
    if log_format == "json":
        return orjson.dumps
    return lambda event: str(_keyvalue(None, "", {key: _flat(value) for key, value in event.items()})).encode()


def _flat(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    return ",".join(str(item) for item in value) if isinstance(value, list) else value


def write_to_stdout(line: bytes) -> None:
    """One write a line: lines of several processes on one pipe do not mix (pipes keep writes up to 4 KiB whole)."""
    os.write(sys.__stdout__.fileno() if sys.__stdout__ is not None else 1, line)


def configure(log_format: LogFormat, *, level: str = "info", write: Write = write_to_stdout) -> None:
    """Send structlog's events, and warnings of the standard library's loggers, to `write`. Called once, by the program."""
    render = renderer(log_format)

    def _render(_: Any, method: str, event: EventDict) -> bytes:
        return render(_clean_event(method, event)) + b"\n"

    class _Writer:
        def __getattr__(self, _: str) -> Callable[[bytes], object]:
            return write

    structlog.configure(
        processors=[structlog.processors.TimeStamper(fmt="iso", utc=True), structlog.processors.format_exc_info, _render],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=lambda *_: _Writer(),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, handlers=[_ToStructlog()], force=True)


def _clean_event(method: str, event: MutableMapping[str, Any]) -> dict[str, object]:
    line: dict[str, object] = {"timestamp": event.pop("timestamp", None), "level": method, "event": clean(event.pop("event", ""))}
    traceback = event.pop("exception", None)
    line.update({key: clean(value) for key, value in event.items()})
    if traceback is not None:
        line["exception"] = _escape(str(traceback), MAX_TRACEBACK)
    return line


class _ToStructlog(logging.Handler):
    """Lines of libraries that use the standard library's logging."""

    def emit(self, record: logging.LogRecord) -> None:
        logger = structlog.get_logger()
        logger.log(record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info)
