"""kubectl, helm and the kind cluster of the end-to-end tests: waits for conditions, each with its own deadline."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[2]
NAME = "est-issuer-e2e"
RELEASE = NAMESPACE = "est-issuer"
T = TypeVar("T")


class Failed(AssertionError):
    """A command ended with another exit code than 0, or a condition was not met in its time."""


def run(*command: str, stdin: str | None = None, seconds: float = 60, cwd: Path = ROOT, environment: dict[str, str] | None = None) -> str:
    """Run a command to its end and return its standard output; raises Failed with what it said."""
    try:
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, timeout=seconds, cwd=cwd, env=os.environ | (environment or {})
        )
    except subprocess.TimeoutExpired as error:
        raise Failed(f"{' '.join(command)}: not done after {seconds:g} s: {error.stdout!r} {error.stderr!r}") from error
    if done.returncode != 0:
        raise Failed(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def until(what: str, ask: Callable[[], T | None], *, seconds: float) -> T:
    """Ask until the answer is true; raises Failed after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (answer := ask()):
        if time.monotonic() > deadline:
            raise Failed(f"{what}: not within {seconds:g} s")
        time.sleep(0.2)
    return answer


class Cluster:
    """One kind cluster with est-issuer on it. `directory` holds its kubeconfig, so the user's own is never touched."""

    def __init__(self, directory: Path, *, port: int) -> None:
        self.directory = directory
        self.port = port
        self.environment = {"KUBECONFIG": str(directory / "kubeconfig"), "EST_CLUSTER": NAME, "EST_PORT": str(port)}

    def up(self) -> str:
        """Run kind/up; what it printed."""
        return run(str(ROOT / "kind" / "up"), seconds=400, environment=self.environment)

    def down(self) -> None:
        run(str(ROOT / "kind" / "down"), seconds=120, environment=self.environment)

    def shell(self, script: str, *, seconds: float = 90, cwd: Path = ROOT) -> str:
        """Run what a person would paste into a shell."""
        return run("bash", "-euo", "pipefail", "-c", script, seconds=seconds, cwd=cwd, environment=self.environment)

    def kubectl(self, *arguments: str, stdin: str | None = None, seconds: float = 60) -> str:
        return run("kubectl", *arguments, stdin=stdin, seconds=seconds, environment=self.environment)

    def helm(self, *arguments: str, seconds: float = 120) -> str:
        return run("helm", *arguments, "--namespace", NAMESPACE, seconds=seconds, environment=self.environment)

    def apply(self, *manifests: dict[str, Any]) -> None:
        self.kubectl("apply", "-f", "-", stdin="\n---\n".join(json.dumps(manifest) for manifest in manifests))

    def get(self, kind: str, name: str, *, namespace: str = "devices") -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.kubectl("get", kind, name, "--namespace", namespace, "--output", "json"))
        return found

    def items(self, kind: str, *, namespace: str = "devices", selector: str = "") -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(
            self.kubectl("get", kind, "--namespace", namespace, "--selector", selector, "--output", "json")
        )["items"]
        return found

    def wait(self, condition: str, *what: str, namespace: str = "devices", seconds: int = 60) -> None:
        """`kubectl wait` for a condition such as `Ready` or `Ready=False`."""
        self.kubectl("wait", f"--for=condition={condition}", *what, "--namespace", namespace, f"--timeout={seconds}s", seconds=seconds + 10)

    def rolled_out(self, *, seconds: int = 120) -> None:
        for workload in ("statefulset/est-issuer-server", "deployment/est-issuer-operator"):
            self.kubectl("rollout", "status", workload, "--namespace", NAMESPACE, f"--timeout={seconds}s", seconds=seconds + 10)

    def ledger(self, query: str) -> list[Sequence[Any]]:
        """Ask the SQLite ledger in estserver's Pod, read only."""
        script = (
            "import json, sqlite3, sys; "
            "ledger = sqlite3.connect('file:/var/lib/est-issuer/ledger.sqlite?mode=ro', uri=True); "
            "print(json.dumps(ledger.execute(sys.argv[1]).fetchall()))"
        )
        rows: list[Sequence[Any]] = json.loads(
            self.kubectl("exec", "est-issuer-server-0", "--namespace", NAMESPACE, "--", "python", "-c", script, query)
        )
        return rows

    def containers(self, program: str) -> list[dict[str, Any]]:
        """The status of each Pod's container; `program` is server or operator."""
        pods = self.items("pods", namespace=NAMESPACE, selector=f"app.kubernetes.io/component={program}")
        return [status for pod in pods for status in pod["status"]["containerStatuses"]]

    def kill(self, program: str) -> int:
        """SIGKILL to the program's one container; how often it had been started again before."""
        [status] = self.containers(program)
        container = status["containerID"].removeprefix("containerd://")
        run("docker", "exec", f"{NAME}-control-plane", "ctr", "--namespace", "k8s.io", "tasks", "kill", "--signal", "SIGKILL", container)
        restarts: int = status["restartCount"]
        return restarts

    def started_again(self, program: str, *, restarts: int) -> float:
        """Wait until the kubelet has started a killed container again; the time of that start, in whole seconds."""

        def started() -> str | None:
            [status] = self.containers(program)
            at: str | None = status["state"].get("running", {}).get("startedAt")
            return at if status["restartCount"] > restarts else None

        return datetime.fromisoformat(until("a restart", started, seconds=30)).timestamp()

    def what_happened(self) -> str:
        """For a failed step: the state of the programs and the end of their logs."""
        parts = []
        for command in (
            ("get", "pods,pvc,estissuers,estclusterissuers", "--all-namespaces", "--output", "wide"),
            ("get", "events", "--all-namespaces", "--sort-by=.lastTimestamp"),
            ("logs", "statefulset/est-issuer-server", "--namespace", NAMESPACE, "--tail=40"),
            ("logs", "deployment/est-issuer-operator", "--namespace", NAMESPACE, "--tail=40"),
        ):
            try:
                parts.append(f"$ kubectl {' '.join(command)}\n{self.kubectl(*command)[-6000:]}")
            except Failed as error:
                parts.append(str(error))
        return "\n".join(parts)
