"""The CPU time and the memory of a server under load, from /proc: the process and all its descendants."""

import os
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> list[int]:
    """A process and its descendants."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it ended while we looked
            continue
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found = [pid]
    for parent in found:
        found += children.get(parent, [])
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time so far, in seconds."""
    ticks = 0
    for process in tree(pid):
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICKS


def memory_mb(pid: int) -> float:
    """Proportional set size, in megabytes of 10^6 octets."""
    return _summed_mb(pid, "Pss:")


def anonymous_mb(pid: int) -> float:
    """Resident memory that no file stands behind, where objects live, in megabytes of 10^6 octets.

    The proportional set size changes by megabytes when another process that maps the same files comes or goes.
    """
    return _summed_mb(pid, "Anonymous:")


def _summed_mb(pid: int, name: str) -> float:
    kilobytes = 0
    for process in tree(pid):
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        kilobytes += next(int(line.split()[1]) for line in lines if line.startswith(name))
    return kilobytes * 1024 / 1e6
