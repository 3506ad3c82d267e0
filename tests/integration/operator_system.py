"""estserver and the operator as processes on the real API server, each as the ServiceAccount and with the rights that the chart gives."""

import base64
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from estcore.csr_builder import build
from estcore.usages import Usage
from tests import pki
from tests.estoperator.builders import armour
from tests.integration.api_client import Object
from tests.integration.apiserver import ApiServer, free_port
from tests.integration.rights import RBAC, allow_secrets, chart_rules, estserver_kubeconfig

SOON_SECONDS = 60  # a backoff of half a minute, and what starts again meanwhile
CERT_MANAGER_CRD = Path(__file__).parents[1] / "vectors" / "cert-manager.io_certificaterequests.yaml"
OURS, THEIRS = "certificaterequests.est-issuer.io", "certificaterequests.cert-manager.io"


def install_cert_manager_crd(api: ApiServer) -> None:
    """Have cert-manager's kind of request served."""
    api.kubectl("apply", "--server-side", "-f", str(CERT_MANAGER_CRD))
    api.kubectl("wait", "--for=condition=Established", "--timeout=30s", f"crd/{THEIRS}")


class Process:
    """One of our programs, its log kept."""

    def __init__(self, arguments: list[str], environment: dict[str, str], log: Path) -> None:
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(arguments, env={**os.environ, **environment}, stdout=output, stderr=subprocess.STDOUT)

    def alive(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        if self.alive():
            self.process.kill()
        self.process.wait()

    def terminate(self) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)


class System:
    """An install namespace with an estserver and any number of operators. `namespace` is its own; tests use namespaces beside it."""

    def __init__(self, api: ApiServer, directory: Path, namespace: str) -> None:
        self.api, self.directory, self.namespace = api, directory, namespace
        self.port, self.state = free_port(), directory / "state"
        self._health: dict[int, int] = {}
        self._shared: Process | None = None
        self._server_kubeconfig = estserver_kubeconfig(api, namespace)
        self._operator_kubeconfig = operator_kubeconfig(api, namespace)
        self.server = self.start_server()
        self._anchors = directory / "ca.crt"
        wait_for("the serving root", self._publish_anchors)

    def start_server(self, *, registration_authority: str = "") -> Process:
        """Start estserver, which knows the operator by its ServiceAccount, or another one, and nobody else."""
        arguments = [sys.executable, "-m", "estserver", "serve", "--kubernetes"]
        environment = {
            "EST_KUBECONFIG": str(self._server_kubeconfig),
            "EST_NAMESPACE": self.namespace,
            "EST_STATE": str(self.state),
            "EST_LISTEN": f"127.0.0.1:{self.port}",
            "EST_METRICS_LISTEN": f"127.0.0.1:{free_port()}",
            "EST_SERVER_NAME": "localhost,127.0.0.1",
            "EST_RA_SERVICE_ACCOUNTS": registration_authority or f"{self.namespace}/operator",
        }
        self.server = Process(arguments, environment, self.directory / "estserver.log")
        return self.server

    def start_operator(self, name: str = "operator", *, kubeconfig: Path | None = None, **settings: str) -> Process:
        """Start an operator and wait until it is ready."""
        token = self.directory / "token"
        token.write_text(self.api.token_for(self.namespace, "operator", "est-issuer"))
        port = free_port()
        environment = {
            "KUBECONFIG": str(kubeconfig or self._operator_kubeconfig),
            "EST_OPERATOR_SERVER_URL": f"https://127.0.0.1:{self.port}",
            "EST_OPERATOR_SERVER_ANCHORS_FILE": str(self._anchors),
            "EST_OPERATOR_TOKEN_FILE": str(token),
            "EST_OPERATOR_NAMESPACE": self.namespace,
            "EST_OPERATOR_IDENTITY": name,
            "EST_OPERATOR_HTTP_HOST": "127.0.0.1",
            "EST_OPERATOR_HTTP_PORT": str(port),
            "EST_OPERATOR_LOG_FORMAT": "console",
            **{f"EST_OPERATOR_{key.upper()}": value for key, value in settings.items()},
        }
        started = Process([sys.executable, "-m", "estoperator"], environment, self.directory / f"{name}.log")
        self._health[started.process.pid] = port
        wait_for(f"{name} to be ready", lambda: self.http(started, "readyz")[0] == 200, log=started.log)
        return started

    def shared_operator(self) -> Process:
        """The operator of the tests that do nothing to it."""
        if self._shared is None or not self._shared.alive():
            self._shared = self.start_operator("shared")
        return self._shared

    def end_shared_operator(self) -> None:
        """SIGTERM: its Lease is released, so the next one leads at once."""
        if self._shared is not None and self._shared.alive():
            assert self._shared.terminate() == 0
        self._shared = None

    def http(self, operator: Process, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._health[operator.process.pid]}/{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def metric(self, operator: Process, line: str) -> float:
        _, text = self.http(operator, "metrics")
        (value,) = [found.rpartition(" ")[2] for found in text.splitlines() if found.startswith(line + " ")] or ["0"]
        return float(value)

    def tenant(self, namespace: str) -> str:
        """A namespace whose CA Secrets estserver may read."""
        subject = {"kind": "ServiceAccount", "name": "estserver", "namespace": self.namespace}
        allow_secrets(self.api, namespace, subject)
        return namespace

    def issuer(self, namespace: str, name: str = "factory", **policy: Any) -> None:
        rules = [{"from": {"namespaces": [namespace]}, "dnsNames": ["*.{namespace}.svc"]}]
        spec = {"ca": {"secretName": f"{name}-ca", "generate": {"commonName": f"{name} CA"}}, "policy": {"rules": rules, **policy}}
        self.api.apply(
            {
                "apiVersion": "est-issuer.io/v1alpha1",
                "kind": "EstIssuer",
                "metadata": {"name": name, "namespace": namespace},
                "spec": spec,
            }
        )

    def request(self, plural: str, namespace: str, name: str, *, dns_name: str | None = None, issuer: str = "factory", **spec: Any) -> None:
        self.api.apply(request_manifest(plural, namespace, name, dns_name=dns_name, issuer=issuer, **spec))

    def decide(self, namespace: str, name: str, *types: str) -> None:
        """Set Approved or Denied as cert-manager's approver does: on /status, beside what is there."""
        conditions = [
            {
                "type": type_,
                "status": "True",
                "reason": "cert-manager.io",
                "message": "by a test",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }
            for type_ in types
        ]
        body = {
            "apiVersion": "cert-manager.io/v1",
            "kind": "CertificateRequest",
            "metadata": {"name": name, "namespace": namespace},
            "status": {"conditions": conditions},
        }
        self.api.client.apply(body, part="status", field_manager="approver")

    def get(self, plural: str, namespace: str, name: str) -> Object:
        found = self.api.client.get(plural, name, namespace)
        if found is None:
            raise RuntimeError(f"there is no {plural} {namespace}/{name}")
        return found

    def until(self, plural: str, namespace: str, name: str, holds: Callable[[Object], bool]) -> Object:
        """The object once its status fulfils `holds`."""
        seen: list[Object] = []

        def check() -> bool:
            seen.append(self.get(plural, namespace, name))
            return holds(seen[-1].get("status") or {})

        wait_for(f"{plural} {namespace}/{name}", check, what=lambda: seen[-1:])
        return seen[-1]

    def events(self, namespace: str, name: str, *, group: str = "") -> list[str]:
        """The reasons of the Events about objects of that name, of any API group or of one; cluster-scoped ones' are in `default`."""
        found = self.api.client.list("events.events.k8s.io", namespace, field_selector=f"regarding.name={name}")
        return [event["reason"] for event in found if event["regarding"]["apiVersion"].startswith(f"{group}/" if group else "")]

    def until_reason(self, plural: str, namespace: str, name: str, reason: str) -> Object:
        return self.until(plural, namespace, name, lambda status: condition(status, "Ready").get("reason") == reason)

    def until_issuer_ready(self, namespace: str, *, generation: int) -> None:
        """Until EstIssuer `factory` is ready by this generation of its spec; its CA may still be on its way when the spec is read."""

        def holds(status: Object) -> bool:
            ready = condition(status, "Ready")
            return (ready.get("status"), ready.get("observedGeneration")) == ("True", generation)

        self.until("estissuers", namespace, "factory", holds)

    def transactions(self, namespace: str) -> list[str]:
        """Those of every certificate that the operator asked for on behalf of a namespace."""
        return [transaction for transaction, told in self._told() if told.get("namespace") == namespace]

    def transactions_named(self, name: str) -> list[str]:
        """Those of every certificate that the operator asked for on behalf of an object of this name."""
        return [transaction for transaction, told in self._told() if told["name"] == name]

    def told_of(self, namespace: str, name: str) -> list[Object]:
        """What the operator told of whom it asked for, of each certificate for an object of that name."""
        return [told for _, told in self._told() if (told.get("namespace"), told["name"]) == (namespace, name)]

    def _told(self) -> list[tuple[str, Object]]:
        with sqlite3.connect(self.state / "ledger.sqlite") as connection:
            rows = connection.execute('SELECT "transaction", on_behalf_of FROM certificates WHERE on_behalf_of IS NOT NULL').fetchall()
        return [(transaction, json.loads(told)) for transaction, told in rows]

    def stop(self) -> None:
        if self._shared is not None:
            self._shared.kill()
        self.server.kill()
        # What is left would be told to every other module's programs, which look for its Secrets as long as they run.
        ours = "estissuers,estclusterissuers,certificaterequests.est-issuer.io"
        self.api.kubectl("delete", ours, "--all", "--all-namespaces", "--wait=false")

    def _publish_anchors(self) -> bool:
        found = self.api.client.get("configmaps", "est-issuer-serving-ca", self.namespace)
        if found is None:
            return False
        self._anchors.write_text(found["data"]["ca.crt"])
        return True


def condition(status: Object, type_: str) -> Object:
    return next((found for found in status.get("conditions", []) if found["type"] == type_), {})


def request_manifest(
    plural: str, namespace: str, name: str, *, dns_name: str | None = None, issuer: str = "factory", **spec: Any
) -> Object:
    key = pki.key(owner=name)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    sans = pki.dns(dns_name or f"{name}.{namespace}.svc")
    csr = build(key, subject=x509.Name([]), sans=sans, usages=(Usage.DIGITAL_SIGNATURE, Usage.SERVER_AUTH))
    version = "cert-manager.io/v1" if plural == THEIRS else "est-issuer.io/v1alpha1"
    return {
        "apiVersion": version,
        "kind": "CertificateRequest",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "request": base64.b64encode(armour(csr)).decode(),
            "issuerRef": {"group": "est-issuer.io", "kind": "EstIssuer", "name": issuer},
            **spec,
        },
    }


def operator_kubeconfig(
    api: ApiServer, namespace: str, *, doors: tuple[str, ...] = ("est-issuer.io", "cert-manager.io"), config_maps: bool = False
) -> Path:
    """A kubeconfig of ServiceAccount `operator`, with the rules of the chart for these doors, the native ones, and no other."""
    kubeconfig = api.kubeconfig_for(namespace, "operator")
    subject = {"kind": "ServiceAccount", "name": "operator", "namespace": namespace}
    values = {
        "doors": {"estIssuer": "est-issuer.io" in doors, "certManager": "cert-manager.io" in doors},
        "trust": {"configMaps": {"enabled": config_maps}},
    }
    renamed = {"est-issuer-certificaterequests": f"{namespace}-certificaterequests"}
    rules = chart_rules("ClusterRole", "est-issuer-operator", values, renamed=renamed)
    own = chart_rules("Role", "est-issuer-operator", values)
    for kind, extra, role_rules in (("ClusterRole", {}, rules), ("Role", {"namespace": namespace}, own)):
        metadata = {"name": f"operator-{namespace}", **extra}
        role_ref = {"apiGroup": RBAC, "kind": kind, "name": metadata["name"]}
        api.apply(
            {"apiVersion": f"{RBAC}/v1", "kind": kind, "metadata": metadata, "rules": role_rules},
            {"apiVersion": f"{RBAC}/v1", "kind": f"{kind}Binding", "metadata": metadata, "roleRef": role_ref, "subjects": [subject]},
        )
    return kubeconfig


def wait_for(
    subject: str,
    holds: Callable[[], bool],
    *,
    what: Callable[[], object] = lambda: "",
    log: Path | None = None,
    seconds: float = SOON_SECONDS,
) -> None:
    """Wait for a condition of another process; fails with what was seen last."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"{subject}: not within {seconds} s; {what()} {log.read_text()[-2000:] if log else ''}")
        time.sleep(0.1)
