"""Measures estserver against bench/reference, both in one run, and prints server CPU per enrolment as a ratio.

Server CPU per request repeats to 5-10 % on a shared machine where requests per second do not; so that, as a ratio to a
reference under the same load in the same minute, is the figure that counts. Vegeta sends the load in a closed loop. A Full PKI Request
is measured against estserver's own simpleenroll.

    bench/run.py [--seconds 8] [--rounds 3] [--json FILE] [--no-kind | --kind | --kind-memory]
"""

import argparse
import json
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import process
import scene
from operator_memory import measure_memory
from requests_on_kind import measure_requests
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parent.parent
CLIENTS = 8
BARS = {"new connection": 2.6, "keep-alive": 2.6}
"""Highest ratio to the reference, by kind of load."""
FULL_CMC = "estserver, fullcmc"
FULL_CMC_BAR = 2.0
"""Highest ratio of a Full PKI Request with modCertTemplate, signed by a registration authority, to simpleenroll on kept connections."""
MEMORY_BAR_MB = 90.0
console = Console(width=None if sys.stdout.isatty() else 160)  # a table is of no use in a file of 80 columns


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One server under one kind of load for one round. Times in milliseconds."""

    cpu_per_request: float
    per_second: float
    p50: float
    p95: float
    p99: float
    memory_mb: float


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_it_answers(port: int, server: subprocess.Popen[bytes]) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # only whether TLS is spoken yet
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as raw, context.wrap_socket(raw):
                return
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"bench: {server.args!r} does not answer on port {port}")


@contextmanager
def _running(command: list[str | Path], port: int, log: Path) -> Iterator[int]:
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as server:
        try:
            _wait_until_it_answers(port, server)
            yield server.pid
        finally:
            server.terminate()
            server.wait(timeout=40)


def _load(vegeta: Path, files: scene.Scene, targets: Path, *, keep: bool, seconds: float, pid: int) -> Measured:
    attack: list[str | Path] = [
        *(
            vegeta,
            "attack",
            "-rate=0",
            f"-max-workers={CLIENTS}",
            f"-workers={CLIENTS}",
            f"-connections={CLIENTS}",
            f"-duration={seconds}s",
        ),
        *(f"-keepalive={'true' if keep else 'false'}", "-http2=false", "-lazy=false", "-format=json", f"-targets={targets}"),
        *(f"-root-certs={files.ca}", f"-cert={files.client}", f"-key={files.client_key}"),
    ]
    before = process.cpu_seconds(pid)
    results = subprocess.run(attack, stdout=subprocess.PIPE, check=True).stdout
    used = process.cpu_seconds(pid) - before
    report = json.loads(subprocess.run([vegeta, "report", "-type=json"], input=results, stdout=subprocess.PIPE, check=True).stdout)
    if report["success"] != 1:
        raise SystemExit(f"bench: not every enrolment succeeded: {report['status_codes']} {report['errors'][:3]}")
    latencies = report["latencies"]
    return Measured(
        cpu_per_request=used * 1000 / report["requests"],
        per_second=report["throughput"],
        p50=latencies["50th"] / 1e6,
        p95=latencies["95th"] / 1e6,
        p99=latencies["99th"] / 1e6,
        memory_mb=process.memory_mb(pid),
    )


def _median(rounds: list[Measured]) -> Measured:
    return Measured(**{field: statistics.median(getattr(measured, field) for measured in rounds) for field in Measured.__slots__})


def measure(seconds: float, rounds: int) -> dict[str, dict[str, Measured]]:
    """Load → server → medians over the rounds; the two servers take turns within each round."""
    tools = Path(subprocess.run([ROOT / "tests" / "tools" / "build"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip())
    with tempfile.TemporaryDirectory(prefix="est-bench-") as temporary, ExitStack() as stack:
        folder = Path(temporary)
        files = scene.build(folder)
        reference = folder / "reference"
        subprocess.run(["go", "build", "-o", reference, "."], cwd=ROOT / "bench" / "reference", check=True)
        ports = {"estserver": _free_port(), "reference": _free_port()}
        commands: dict[str, list[str | Path]] = {
            "reference": [
                *(reference, f"--listen=127.0.0.1:{ports['reference']}", f"--cert={files.server}", f"--key={files.server_key}"),
                *(f"--ca={files.ca}", f"--ca-key={files.ca_key}"),
            ],
            "estserver": [
                *(Path(sys.executable).parent / "estserver", "serve", "--config", files.config, "--state", folder / "state"),
                *(f"--listen=127.0.0.1:{ports['estserver']}", f"--metrics-listen=127.0.0.1:{_free_port()}", "--retry-window=0"),
                *(f"--serving-certificate={files.server}", f"--serving-key={files.server_key}", "--log-format=json"),
            ],
        }
        pids = {name: stack.enter_context(_running(command, ports[name], folder / f"{name}.log")) for name, command in commands.items()}
        for name, port in ports.items():
            scene.write_targets(folder / f"{name}.targets", f"https://127.0.0.1:{port}/.well-known/est/simpleenroll")
        scene.write_full_requests(folder / f"{FULL_CMC}.targets", f"https://127.0.0.1:{ports['estserver']}/.well-known/est/fullcmc", files)
        pids[FULL_CMC] = pids["estserver"]
        found: dict[str, dict[str, list[Measured]]] = {load: {name: [] for name in commands} for load in BARS}
        found["keep-alive"][FULL_CMC] = []
        for number in range(rounds + 1):  # round 0 warms up and is not counted
            for load, by_server in found.items():
                for name, measured in by_server.items():
                    console.print(f"round {number}/{rounds}: {load}, {name}", style="dim")
                    length = seconds if number else min(seconds, 2)
                    once = _load(
                        tools / "vegeta", files, folder / f"{name}.targets", keep=load == "keep-alive", seconds=length, pid=pids[name]
                    )
                    if number:
                        measured.append(once)
    return {load: {name: _median(measured) for name, measured in by_server.items()} for load, by_server in found.items()}


def show(found: dict[str, dict[str, Measured]]) -> bool:
    """Print the table; whether every bar is met."""
    table = Table("load", "server", "CPU ms/enrolment", "ratio", "bar", "p50 ms", "p95 ms", "p99 ms", "per second", "memory MB")
    met = True
    for load, by_server in found.items():
        reference = by_server["reference"].cpu_per_request
        for name, measured in by_server.items():
            ratio = measured.cpu_per_request / (by_server["estserver"].cpu_per_request if name == FULL_CMC else reference)
            bar = {"estserver": BARS[load], FULL_CMC: FULL_CMC_BAR}.get(name)
            within = bar is None or ratio <= bar
            met = met and within
            cells = [f"{measured.cpu_per_request:.3f}", f"{ratio:.2f}", f"{bar:.1f}" if bar is not None else ""]
            cells += [f"{value:.2f}" for value in (measured.p50, measured.p95, measured.p99)]
            table.add_row(load, name, *cells, f"{measured.per_second:.0f}", f"{measured.memory_mb:.0f}", style="" if within else "red")
    console.print(table)
    memory = max(by_server["estserver"].memory_mb for by_server in found.values())
    console.print(f"estserver's memory: {memory:.0f} MB (bar: {MEMORY_BAR_MB:.0f} MB per worker in directory mode)")
    return met and memory <= MEMORY_BAR_MB


def main() -> int:
    """Measure, print, and say by the exit code whether the bars are met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8, help="length of one round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE too")
    parser.add_argument("--no-kind", action="store_true", help="leave out the requests on kind")
    parser.add_argument("--kind", action="store_true", help="only the requests on kind")
    parser.add_argument("--kind-memory", action="store_true", help="only the operator's memory over 20,000 requests on kind")
    arguments = parser.parse_args()
    if arguments.kind_memory:
        return 0 if measure_memory(console) else 1
    if arguments.kind:
        return 0 if measure_requests(console) else 1
    if shutil.which("go") is None:
        raise SystemExit("bench: Go is missing; the reference server and vegeta are built with it")
    found = measure(arguments.seconds, arguments.rounds)
    met = show(found)
    if arguments.json:
        figures = {load: {name: {f: getattr(m, f) for f in Measured.__slots__} for name, m in by.items()} for load, by in found.items()}
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    if not arguments.no_kind:
        met = measure_requests(console) and met
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
