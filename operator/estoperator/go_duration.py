"""Durations as Go writes them, and so metav1.Duration."""

import re
from datetime import timedelta
from decimal import Decimal

_GO_DURATION = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)((\d+(\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h))*", re.ASCII)
_GO_DURATION_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_SECONDS = {"ns": "1e-9", "us": "1e-6", "µs": "1e-6", "μs": "1e-6", "ms": "1e-3", "s": "1", "m": "60", "h": "3600"}


def parse_go_duration(text: str) -> timedelta:
    """A Go duration as metav1.Duration writes it (`2160h0m0s`, `1.5h`, `-3ns`); raises ValueError, also beyond 300 years."""
    if len(text) > 64 or not _GO_DURATION.fullmatch(text):
        raise ValueError("not a duration like 2160h or 1h30m")
    seconds = sum((Decimal(number) * Decimal(_SECONDS[unit]) for number, unit in _GO_DURATION_PART.findall(text)), Decimal(0))
    if seconds > 300 * 366 * 86400:
        raise ValueError("longer than 300 years")
    return timedelta(microseconds=int(seconds * 1_000_000)) * (-1 if text.startswith("-") else 1)
