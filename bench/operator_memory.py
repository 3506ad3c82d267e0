"""The operator's memory on the kind cluster: whether it stays flat over many requests of which few are alive, and what a live one holds.

What a live object holds is a slope, not a peak: a new operator process gets a thousand after another, none is deleted, and its memory
is read when it has come to rest. A thousand in work need room that the next thousand use again; what each thousand adds is what they
hold. The first are left out of the fit, for what the process needs once comes with them. Both are measured on a new process each: one that
had more objects alive before has room in which growth does not show.
"""

import subprocess
import time
from statistics import linear_regression

import process
from api import Api
from request_loads import GROUP, VERSION, certificate_requests
from requests_on_kind import CONNECTIONS, CONTEXT, cluster, pid, run
from rich.console import Console
from rich.table import Table

KB_PER_OBJECT_BAR, GROWN_BAR_MB = 6.0, 1.0
STEP, STEPS, LEFT_OUT = 1000, 6, 1
"""Live objects a step, steps, and how many of them the fit leaves out."""
CHART_NAMESPACE, OPERATOR = "est-issuer", "app.kubernetes.io/component=operator"
REST_SECONDS = 5.0
"""kopf keeps a task for an object for a second after its last event."""


def measure_memory(console: Console) -> bool:
    """Print both; whether the bars are met."""
    api = cluster(console)
    if api is None:
        return False
    flat = _grown_mb(console, api) < GROWN_BAR_MB
    return _held_kb(console, api) <= KB_PER_OBJECT_BAR and flat


def _grown_mb(console: Console, api: Api, *, total: int = 20_000, alive: int = 1000) -> float:
    """How much the operator's memory grew over the second half of so many requests."""
    operator = _new_operator()
    load = certificate_requests(GROUP, VERSION)
    table = Table("requests so far", "alive", "operator's anonymous memory, MB", "after they are deleted")
    figures = []
    for number in range(total // alive):
        run(api, load, alive, {}, keep=True)
        figures.append(process.anonymous_mb(operator))
        api.delete_all(load.path)
        console.print(f"{(number + 1) * alive}/{total} requests, {figures[-1]:.1f} MB", style="dim")
        table.add_row(str((number + 1) * alive), str(alive), f"{figures[-1]:.1f}", f"{process.anonymous_mb(operator):.1f}")
    half = len(figures) // 2
    grown = max(figures[half:]) - max(figures[:half])
    console.print(table, f"grown over the second half: {grown:.1f} MB (bar: {GROWN_BAR_MB} MB)")
    return grown


def _held_kb(console: Console, api: Api) -> float:
    """What the operator holds for a live request, in kilobytes of 1000 octets."""
    operator = _new_operator()
    load = certificate_requests(GROUP, VERSION)
    run(api, load, CONNECTIONS * 4, {})
    table = Table("alive", "operator's anonymous memory, MB")
    alive, memory_mb = [], []
    for number in range(STEPS):
        run(api, load, STEP, {}, keep=True)
        time.sleep(REST_SECONDS)
        alive.append((number + 1) * STEP)
        memory_mb.append(process.anonymous_mb(operator))
        console.print(f"{alive[-1]} alive, {memory_mb[-1]:.1f} MB", style="dim")
        table.add_row(str(alive[-1]), f"{memory_mb[-1]:.1f}")
    api.delete_all(load.path)
    slope_mb, _ = linear_regression(alive[LEFT_OUT:], memory_mb[LEFT_OUT:])
    console.print(
        table,
        f"held for a live request: {slope_mb * 1000:.1f} kB (bar: {KB_PER_OBJECT_BAR} kB), the slope of a new operator's memory at rest "
        f"over the requests alive, from {alive[LEFT_OUT]} to {alive[-1]}",
    )
    return slope_mb * 1000


def _new_operator() -> int:
    """Its process id, once it runs in place of the one before."""
    kubectl = ["kubectl", "--context", CONTEXT, "--namespace", CHART_NAMESPACE]
    subprocess.run([*kubectl, "delete", "pod", "--selector", OPERATOR], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([*kubectl, "rollout", "status", "deployment", "--selector", OPERATOR], check=True, stdout=subprocess.DEVNULL)
    return pid("/bin/est-operator")
