"""Requests of Kubernetes on the kind cluster that kind/up made: created by 16 connections, timed until the last is done.

Each group has its reference in the same run. est-issuer.io's is reference/apply_alone.py on a kind of its own with the same schema and no
admission policy: kopf, one server-side apply a request, and nothing enrolled. cert-manager.io's is cert-manager's own CA issuer, on as
many requests for it. What the API server needs for the writes is in no program's CPU, and in every load's time.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import quantiles

import cert_manager
import process
from api import APPLY, Api, Ends, is_ready, until
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
REFERENCE_SECONDS = 5.1
"""What apply_alone took on the machine that the bars were measured on: on a slower one the bars grow by what it takes there."""
CERT_MANAGER_SECONDS = 17.8
"""What cert-manager's own CA issuer took for as many requests on that machine."""
CERT_MANAGER_BAR = SECONDS_BAR / CERT_MANAGER_SECONDS
"""Highest ratio of the time for cert-manager.io's requests to what cert-manager's own CA issuer takes in the same run."""

ALONE, CA_ISSUER = "kopf and one apply, nothing enrolled", "cert-manager's own CA issuer"
API_SERVER = "API server"
OURS, THEIRS, POD_REQUESTS = f"CertificateRequests of {GROUP}", f"CertificateRequests of {CERT_MANAGER}", "PodCertificateRequests"


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
    api = cluster(console)
    if api is None:
        return False
    server = {API_SERVER: pid("kube-apiserver")}
    programs = {"operator": pid("/bin/est-operator"), "estserver": pid("/bin/estserver", "serve"), **server}
    with _apply_alone() as alone:
        found = {ALONE: _warm(api, certificate_requests(ALONE_GROUP, VERSION), {"operator": alone, **server})}
    found[OURS] = _warm(api, certificate_requests(GROUP, VERSION), programs)
    compared = _can_run_cert_manager(console)
    if compared:
        found |= _beside_cert_manager(api, programs)
    found[POD_REQUESTS] = run(api, pod_requests(), PODS, programs)
    _show(console, found)
    met = _judge_own(console, found)
    return compared and _judge_beside_cert_manager(console, found) and met


def _beside_cert_manager(api: Api, programs: dict[str, int]) -> dict[str, Took]:
    """cert-manager's own CA issuer, then est-issuer, whose requests cert-manager's approver approves."""
    issuer = cert_manager.install_issuer(api, NAMESPACE)
    load = certificate_requests(CERT_MANAGER, "v1", {"group": CERT_MANAGER, "kind": "Issuer", "name": cert_manager.CA_NAME})
    with cert_manager.running(CONTEXT, NAMESPACE, *cert_manager.CA_CONTROLLERS) as controllers:
        until(lambda: is_ready(api.call("GET", issuer)), f"the Issuer {cert_manager.CA_NAME} is Ready")
        reference = _warm(api, load, {**programs, "cert-manager": controllers})
    with cert_manager.running(CONTEXT, NAMESPACE, cert_manager.APPROVER) as approver:
        ours = _warm(api, certificate_requests(CERT_MANAGER, "v1"), {**programs, "cert-manager": approver})
    return {CA_ISSUER: reference, THEIRS: ours}


def _judge_own(console: Console, found: dict[str, Took]) -> bool:
    """By what apply_alone took: the time of est-issuer.io's requests, CPU, and the pods' requests."""
    alone, pods = found[ALONE].last, found[POD_REQUESTS].p99
    scale = max(1.0, alone / REFERENCE_SECONDS)
    console.print(
        f"This machine takes {alone:.1f} s for {ALONE}, which took {REFERENCE_SECONDS} s where the bars come from; here they are "
        f"{SECONDS_BAR * scale:.1f} s for {OURS}, {OPERATOR_BAR_MS * scale:.1f} ms of the operator, {SERVER_BAR_MS * scale:.1f} ms of "
        f"estserver, {POD_BAR_SECONDS * scale:.1f} s at the 99th percentile of {PODS} {POD_REQUESTS}."
    )
    cheap = [
        found[what].cpu_ms["operator"] <= OPERATOR_BAR_MS * scale and found[what].cpu_ms["estserver"] <= SERVER_BAR_MS * scale
        for what in (OURS, THEIRS)
        if what in found
    ]
    return all(cheap) and found[OURS].last <= SECONDS_BAR * scale and pods <= POD_BAR_SECONDS * scale


def _judge_beside_cert_manager(console: Console, found: dict[str, Took]) -> bool:
    """By what cert-manager's own CA issuer took, less all the CPU that our operator used to let those requests pass."""
    reference = found[CA_ISSUER]
    passed_by = reference.cpu_ms["operator"] * reference.number / 1000
    ratio = found[THEIRS].last / (reference.last - passed_by)
    console.print(
        f"{THEIRS} take {ratio:.2f} of what {CA_ISSUER} takes, {reference.last:.1f} s less {passed_by:.1f} s for the operator that lets "
        f"its requests pass (bar: {CERT_MANAGER_BAR:.2f}, {SECONDS_BAR:.0f} s of {CERT_MANAGER_SECONDS} s)."
    )
    return ratio <= CERT_MANAGER_BAR


def _can_run_cert_manager(console: Console) -> bool:
    """Whether cert-manager's controllers are there; says so where they cannot be had."""
    try:
        cert_manager.build()
    except (OSError, subprocess.CalledProcessError) as error:
        console.print(
            f"{CA_ISSUER} and {THEIRS}: NOT MEASURED, cert-manager's Go module cannot be had or built here: {error}", style="bold red"
        )
        return False
    return True


def cluster(console: Console) -> Api | None:
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
    api.call("PATCH", f"{crds}/{PLURAL}.{CERT_MANAGER}?fieldManager=bench&force=true", theirs, media_type=APPLY)
    issuer = f"/apis/{GROUP}/{VERSION}/estclusterissuers/est-bench"
    until(lambda: is_ready(api.call("GET", issuer)), "the issuer est-bench is Ready")
    for group, version in ((ALONE_GROUP, VERSION), (CERT_MANAGER, "v1")):
        until(partial(api.serves, f"/apis/{group}/{version}"), f"{group} is served")


def _warm(api: Api, load: Load, programs: dict[str, int]) -> Took:
    """What REQUESTS take, after a few that are not counted."""
    run(api, load, CONNECTIONS * 4, programs)
    return run(api, load, REQUESTS, programs)


def run(api: Api, load: Load, number: int, programs: dict[str, int], *, keep: bool = False) -> Took:
    """Create the objects, wait until all are done, and delete them unless they are kept."""
    bodies = {}
    for index in range(number):
        made = load.make(index)
        bodies[made["metadata"]["name"]] = json.dumps(made).encode()
    created: dict[str, float] = {}

    def create(name: str) -> None:
        created[name] = time.monotonic()
        api.call("POST", load.path, bodies[name])

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
    if not keep:
        api.delete_all(load.path)
    return took


def _show(console: Console, found: dict[str, Took]) -> None:
    programs = ("operator", "estserver", "cert-manager", API_SERVER)
    table = Table("on kind", "created in", "last done after", "per second", "p99 of one", *(f"{name}: CPU ms, MB" for name in programs))
    for what, took in found.items():
        cells = [f"{took.cpu_ms[name]:.2f}, {took.memory_mb[name]:.0f}" if name in took.cpu_ms else "" for name in programs]
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


def pid(*words: str) -> int:
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
