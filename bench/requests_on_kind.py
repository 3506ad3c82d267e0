"""Requests of Kubernetes on the kind cluster that kind/up made: created by 16 connections, timed until the last is done.

The reference of the same run is reference/apply_alone.py on a kind of its own with the same schema and no admission policy: kopf, one
server-side apply a request, and nothing enrolled. What the API server needs for the rest of the writes is in neither's CPU, and in both's
time.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

import process
from api import Api, Ends, is_ready
from request_loads import CERT_MANAGER, GROUP, ISSUER, NAMESPACE, PLURAL, VERSION, Load, certificate_requests, pod_requests
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
CONTEXT = "kind-est-issuer"
REQUESTS, PODS = 1000, 200
CONNECTIONS = 16
LONGEST_SECONDS = 90
ALONE_GROUP = "alone.est-issuer.io"

SECONDS_BAR, OPERATOR_BAR_MS, SERVER_BAR_MS, POD_BAR_SECONDS = 9.0, 4.0, 2.0, 1.0
KB_PER_OBJECT_BAR = 6.0
REFERENCE_SECONDS = 5.1
"""What the reference took on the machine that the bars were measured on: on a slower one the bars grow by what it takes there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Took:
    """Of one load of so many requests, in seconds; CPU by program, in milliseconds a request, memory in megabytes."""

    number: int
    created: float
    last: float
    p99: float
    cpu_ms: dict[str, float]
    memory_mb: dict[str, float]


def measure_requests(console: Console) -> bool:
    """Print what each kind of request takes and costs; whether the bars are met."""
    api = _cluster(console)
    if api is None:
        return False
    programs = {"operator": _pid("/bin/est-operator"), "estserver": _pid("/bin/estserver", "serve")}
    with _apply_alone() as pid:
        alone = _run(api, certificate_requests(ALONE_GROUP, VERSION), REQUESTS, {"operator": pid})
    scale = max(1.0, alone.last / REFERENCE_SECONDS)
    found = {"kopf and one apply, nothing enrolled": alone}
    loads = [certificate_requests(GROUP, VERSION), certificate_requests(CERT_MANAGER, "v1")]
    for load in loads:
        console.print(f"{REQUESTS} {load.what}", style="dim")
        _run(api, load, CONNECTIONS * 4, programs)  # warms up
        found[load.what] = _run(api, load, REQUESTS, programs)
    pods = _run(api, pod_requests(), PODS, programs)
    found["PodCertificateRequests"] = pods
    _show(console, found)
    console.print(
        f"This machine takes {alone.last:.1f} s for the reference, which took {REFERENCE_SECONDS} s where the bars come from; here they "
        f"are {SECONDS_BAR * scale:.1f} s, {OPERATOR_BAR_MS * scale:.1f} ms of the operator, {SERVER_BAR_MS * scale:.1f} ms of estserver, "
        f"{POD_BAR_SECONDS * scale:.1f} s at the 99th percentile of {PODS} PodCertificateRequests."
    )
    met = [
        took.last <= SECONDS_BAR * scale
        and took.cpu_ms["operator"] <= OPERATOR_BAR_MS * scale
        and took.cpu_ms["estserver"] <= SERVER_BAR_MS * scale
        for took in (found[load.what] for load in loads)
    ]
    return all(met) and pods.p99 <= POD_BAR_SECONDS * scale


def measure_memory(console: Console, *, total: int = 20_000, alive: int = 1000) -> bool:
    """Print the operator's memory over many requests of which few are alive; whether it stays flat and small."""
    api = _cluster(console)
    if api is None:
        return False
    operator = {"operator": _pid("/bin/est-operator")}
    load = certificate_requests(GROUP, VERSION)
    _run(api, load, CONNECTIONS * 4, operator)  # warms up: what it needs once is not an object's
    table = Table("requests so far", "alive", "operator's memory MB", "after they are deleted")
    before, figures = process.memory_mb(operator["operator"]), []
    for number in range(total // alive):
        took = _run(api, load, alive, operator)
        figures.append((took.memory_mb["operator"], process.memory_mb(operator["operator"])))
        console.print(f"{(number + 1) * alive}/{total} requests, {figures[-1][0]:.1f} MB", style="dim")
        table.add_row(str((number + 1) * alive), str(alive), *(f"{figure:.1f}" for figure in figures[-1]))
    console.print(table)
    half = len(figures) // 2
    grown = max(with_all for with_all, _ in figures[half:]) - max(with_all for with_all, _ in figures[:half])
    each = (max(with_all for with_all, _ in figures) - before) * 1000 / alive
    console.print(f"grown over the second half: {grown:.1f} MB; at most {each:.1f} kB a live object (bar: {KB_PER_OBJECT_BAR})")
    return grown < 1 and each <= KB_PER_OBJECT_BAR


def _cluster(console: Console) -> Api | None:
    """The kind cluster with all that the loads need; says so where there is none."""
    known = subprocess.run(["kubectl", "config", "get-contexts", "-o", "name"], check=False, capture_output=True, text=True)
    if CONTEXT not in known.stdout.split():
        console.print(
            f"requests on kind: NOT MEASURED, there is no context {CONTEXT}; make the cluster with kind/up, and run this again",
            style="bold red",
        )
        return None
    api = Api(CONTEXT, connections=CONNECTIONS)
    _prepare(api)
    return api


def _prepare(api: Api) -> None:
    api.apply("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    api.apply(f"/apis/{GROUP}/{VERSION}/estclusterissuers", ISSUER)
    crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    ours = api.call("GET", f"{crds}/{PLURAL}.{GROUP}")["spec"]
    names = {**ours["names"], "shortNames": []}
    alone = {"group": ALONE_GROUP, "names": names, "scope": ours["scope"], "versions": ours["versions"]}
    kind = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
    api.apply(crds, {**kind, "metadata": {"name": f"{PLURAL}.{ALONE_GROUP}"}, "spec": alone})
    theirs = (ROOT / "tests" / "vectors" / f"cert-manager.io_{PLURAL}.yaml").read_bytes()
    api.call("PATCH", f"{crds}/{PLURAL}.{CERT_MANAGER}?fieldManager=bench&force=true", theirs, media_type="application/apply-patch+yaml")
    issuer = f"/apis/{GROUP}/{VERSION}/estclusterissuers/est-bench"
    _until(lambda: is_ready(api.call("GET", issuer)), "the issuer est-bench is Ready")
    for group, version in ((ALONE_GROUP, VERSION), (CERT_MANAGER, "v1")):
        _until(lambda path=f"/apis/{group}/{version}": api.serves(path), f"{group} is served")


def _run(api: Api, load: Load, number: int, programs: dict[str, int]) -> Took:
    """Create the objects, wait until all are done, and delete them."""
    bodies = {}
    for index in range(number):
        made = load.make(index)
        bodies[made["metadata"]["name"]] = json.dumps(made).encode()
    created: dict[str, float] = {}

    def create(name: str) -> None:
        created[name] = time.monotonic()
        api.call("POST", load.path, bodies[name])
        if load.approve is not None:
            api.call("PATCH", f"{load.path}/{name}/status", load.approve, media_type="application/merge-patch+json")

    ends = Ends(api, load.path, load.done, seconds=LONGEST_SECONDS)
    before = {name: process.cpu_seconds(pid) for name, pid in programs.items()}
    began = time.monotonic()
    api.each(create, list(bodies))
    all_created = time.monotonic() - began
    done = ends.wait(bodies)
    took = Took(
        number=number,
        created=all_created,
        last=max(done.values()) - began,
        p99=quantiles((done[name] - created[name] for name in bodies), n=100)[98],
        cpu_ms={name: (process.cpu_seconds(pid) - before[name]) * 1000 / number for name, pid in programs.items()},
        memory_mb={name: process.memory_mb(pid) for name, pid in programs.items()},
    )
    api.delete_all(load.path)
    return took


def _show(console: Console, found: dict[str, Took]) -> None:
    table = Table("on kind", "created in", "last done after", "per second", "p99 of one", "operator: CPU ms, memory MB", "estserver")
    for what, took in found.items():
        cells = [
            f"{took.cpu_ms[name]:.2f}, {took.memory_mb[name]:.0f}" if name in took.cpu_ms else "" for name in ("operator", "estserver")
        ]
        table.add_row(
            f"{took.number}: {what}",
            f"{took.created:.1f} s",
            f"{took.last:.1f} s",
            f"{took.number / took.last:.0f}",
            f"{took.p99:.2f} s",
            *cells,
        )
    console.print(table)


@contextmanager
def _apply_alone() -> Iterator[int]:
    """The reference, outside the cluster; its process id."""
    program = Path(__file__).with_name("reference") / "apply_alone.py"
    command = [sys.executable, str(program), ALONE_GROUP, VERSION, PLURAL, CONTEXT]
    running = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        yield running.pid
    finally:
        running.terminate()
        running.wait(timeout=30)


def _pid(*words: str) -> int:
    """The process of a kind node (they are processes of this machine, in a cgroup of a pod) whose command line holds all the words."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            in_a_pod = "kubepods" in (file.parent / "cgroup").read_text()
        except OSError:  # it ended while we looked
            continue
        if in_a_pod and all(word in line for word in words):
            return int(file.parent.name)
    raise SystemExit(f"bench: no process {' '.join(words)}; is the chart installed in the kind cluster?")


def _until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not true():
        if time.monotonic() > deadline:
            raise SystemExit(f"bench: after 60 s it is not so that {what}")
        time.sleep(0.2)
