"""CertificateRequests per second on the kind cluster that kind/up made: created by 16 connections, timed until all are Ready."""

import base64
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import process
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from kubernetes import client, config
from rich.console import Console
from rich.table import Table

CONTEXT = "kind-est-issuer"
NAMESPACE = "est-bench"
REQUESTS = 1000
CONNECTIONS = 16
LONGEST_SECONDS = 120
GROUP, VERSION = "est-issuer.io", "v1alpha1"

ISSUER = {
    "apiVersion": f"{GROUP}/{VERSION}",
    "kind": "EstClusterIssuer",
    "metadata": {"name": "est-bench"},
    "spec": {
        "allowedNamespaces": {},
        "ca": {"secretName": "est-bench-ca", "generate": {"commonName": "est-bench CA"}},
        "policy": {"rules": [{"from": {"namespaces": [NAMESPACE]}, "dnsNames": ["*.bench.example"]}]},
    },
}


def _request(number: int, run: str) -> dict[str, Any]:
    name = f"d{number}.bench.example"
    csr = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    )
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "CertificateRequest",
        "metadata": {"name": f"bench-{run}-{number}", "namespace": NAMESPACE},
        "spec": {
            "request": base64.b64encode(csr.public_bytes(serialization.Encoding.PEM)).decode(),
            "issuerRef": {"group": GROUP, "kind": "EstClusterIssuer", "name": "est-bench"},
        },
    }


def _create_unless_there(create: Any, *arguments: Any) -> None:
    try:
        create(*arguments)
    except client.ApiException as error:
        if error.status != 409:
            raise


def _is_ready(item: dict[str, Any]) -> bool:
    conditions = item.get("status", {}).get("conditions", [])
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def _pid(*words: str) -> int | None:
    """The process of a kind node (they are processes of this machine) whose command line holds all the words."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it ended while we looked
            continue
        if all(word in line for word in words) and "bench/run.py" not in line:
            return int(file.parent.name)
    return None


def _wait(custom: client.CustomObjectsApi, run: str, began: float) -> float:
    while time.monotonic() - began < LONGEST_SECONDS:
        items = custom.list_namespaced_custom_object(GROUP, VERSION, NAMESPACE, "certificaterequests")["items"]
        mine = [item for item in items if item["metadata"]["name"].startswith(f"bench-{run}-")]
        if len(mine) == REQUESTS and all(map(_is_ready, mine)):
            return time.monotonic() - began
        time.sleep(0.1)
    raise SystemExit(f"bench: not all of {REQUESTS} CertificateRequests were Ready after {LONGEST_SECONDS} s")


def measure_requests(console: Console) -> None:
    """Print how long 1,000 CertificateRequests take, and the CPU that each costs; say so where there is no cluster."""
    contexts = subprocess.run(["kubectl", "config", "get-contexts", "-o", "name"], check=False, capture_output=True, text=True)
    if CONTEXT not in contexts.stdout.split():
        console.print(
            f"CertificateRequests on kind: NOT MEASURED, there is no context {CONTEXT}; make the cluster with kind/up", style="bold red"
        )
        return
    api = config.new_client_from_config(context=CONTEXT)
    api.configuration.connection_pool_maxsize = CONNECTIONS
    custom = client.CustomObjectsApi(api)
    _create_unless_there(client.CoreV1Api(api).create_namespace, {"metadata": {"name": NAMESPACE}})
    _create_unless_there(custom.create_cluster_custom_object, GROUP, VERSION, "estclusterissuers", ISSUER)
    run = datetime.now(UTC).strftime("%H%M%S")
    requests = [_request(number, run) for number in range(REQUESTS)]
    programs = {"operator": _pid("est-operator"), "estserver": _pid("estserver", "serve")}
    before = {name: process.cpu_seconds(pid) for name, pid in programs.items() if pid}
    began = time.monotonic()
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        list(
            pool.map(lambda body: custom.create_namespaced_custom_object(GROUP, VERSION, NAMESPACE, "certificaterequests", body), requests)
        )
    created = time.monotonic() - began
    took = _wait(custom, run, began)
    table = Table(
        "CertificateRequests on kind",
        "created in",
        "all Ready after",
        "per second",
        *(f"{name}: CPU ms each, memory MB" for name in before),
    )
    cells = [
        f"{(process.cpu_seconds(programs[n] or 0) - cpu) * 1000 / REQUESTS:.2f}, {process.memory_mb(programs[n] or 0):.0f}"
        for n, cpu in before.items()
    ]
    table.add_row(str(REQUESTS), f"{created:.1f} s", f"{took:.1f} s", f"{REQUESTS / took:.0f}", *cells)
    console.print(table)
    custom.delete_collection_namespaced_custom_object(GROUP, VERSION, NAMESPACE, "certificaterequests")
