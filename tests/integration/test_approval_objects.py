"""EST requests that wait, on a real API server under the chart's policy: kubectl shows them, kubectl decides, the device is served."""

import asyncio
import base64
import itertools
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from estclient import Bearer, EstClient
from estcore import csr_builder
from estcore.errors import Pending, Refused
from estcore.issuer_spec import KeyAlgorithm
from estcore.keys import PrivateKey, generate_private_key
from estserver.approval_objects import manifest
from estserver.held_requests import HeldRequests, State
from estserver.ledger import Ledger
from tests.collect import collect
from tests.integration.admission import Admission
from tests.integration.apiserver import ApiServer
from tests.integration.operator_system import OURS
from tests.integration.rights import allow_secrets, estserver_kubeconfig
from tests.server.running import Running, estserver, eventually, until_served
from tests.server.test_approval_keeper import WAITING as OF_MARCH

pytestmark = pytest.mark.timeout(240)
NAMESPACE = "est-approval"
APPROVER = f"{NAMESPACE}/approver"
DOCS = Path(__file__).parents[2] / "docs" / "kubernetes.md"
_numbers = itertools.count(1)
_now = datetime.now(UTC).replace(microsecond=0)
WAITING = replace(OF_MARCH, created_at=_now, expires_at=_now + timedelta(days=7))


@dataclass(frozen=True)
class Site:
    """A guarded namespace with an issuer that wants approval, and a device's key."""

    admission: Admission
    kubeconfig: Path
    namespace: str
    state: Path
    key: PrivateKey
    token: str

    def server(self, *options: str) -> Any:
        return estserver(
            *("--kubernetes", "--kubeconfig", str(self.kubeconfig), "--namespace", NAMESPACE, "--state", str(self.state)),
            *("--server-name", "localhost", *options),
        )

    @asynccontextmanager
    async def device(self, running: Running) -> AsyncIterator[EstClient]:
        await running.until("issuer ready", issuer=f"EstIssuer/{self.namespace}/factory")
        port = (await running.url()).rpartition(":")[2]  # it listens once the root is published
        found = self.admission.api.client.get("configmaps", "est-issuer-serving-ca", NAMESPACE)
        assert found is not None
        client = EstClient(
            url=f"https://localhost:{port}",
            label=f"{self.namespace}.factory",
            anchors_pem=found["data"]["ca.crt"].encode(),
            credentials=Bearer(token=lambda: self.token),
        )
        async with client:
            await until_served(client)
            yield client

    def csr(self) -> bytes:
        return csr_builder.build(self.key, subject=x509.Name([]), sans=(x509.DNSName(f"web.{self.namespace}.svc"),))

    async def waits(self, client: EstClient) -> str:
        """The device asks and is told to wait: the request's id."""
        with pytest.raises(Pending, match="waits for a person's approval") as pending:
            await client.simple_enroll(self.csr())
        (request_id,) = re.findall(r"as ([0-9a-f]{16})", pending.value.message)
        return str(request_id)

    def objects(self) -> list[dict[str, Any]]:
        return self.admission.api.client.list(OURS, self.namespace)

    async def shown(self, count: int = 1) -> list[dict[str, Any]]:
        """The objects, once there are so many."""
        seen: list[list[dict[str, Any]]] = [[]]

        async def enough() -> bool:
            seen[0] = await asyncio.to_thread(self.objects)
            return len(seen[0]) == count

        await eventually(enough)
        return seen[0]

    def run_as_printed(self, what: str, name: str) -> subprocess.CompletedProcess[str]:
        """The command that docs/kubernetes.md gives, by the approver, for this request."""
        printed = re.findall(r"```\n(kubectl patch estcr est-5f.*?)```", DOCS.read_text(), re.DOTALL)
        (command,) = [block for block in printed if f'"type": "{what}"' in block]
        command = command.replace("-n devices", f"-n {self.namespace}").replace("est-5f0c9a525f5a4c39", name)
        assert name in command
        namespace, _, account = APPROVER.partition("/")
        kubectl = f"{self.admission.api.kubectl_path} --kubeconfig {self.admission.api.kubeconfig}"
        as_approver = f"--as system:serviceaccount:{namespace}:{account} --as-group system:authenticated"
        shell = command.replace("kubectl ", f"{kubectl} {as_approver} ", 1)
        return subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def admission(apiserver: ApiServer) -> Admission:
    apiserver.ensure_namespace(NAMESPACE)
    return Admission(apiserver, NAMESPACE)


@pytest.fixture
def site(admission: Admission, apiserver: ApiServer, tmp_path: Path) -> Site:
    namespace = f"approval-{next(_numbers)}"
    kubeconfig = estserver_kubeconfig(apiserver, NAMESPACE)
    admission.guard(namespace)
    allow_secrets(apiserver, namespace, {"kind": "ServiceAccount", "name": "estserver", "namespace": NAMESPACE})
    admission.bind(f"{NAMESPACE}-approver", APPROVER, namespace=namespace)
    apiserver.apply(
        {
            "apiVersion": "est-issuer.io/v1alpha1",
            "kind": "EstIssuer",
            "metadata": {"name": "factory", "namespace": namespace},
            "spec": {
                "ca": {"secretName": "factory-ca", "generate": {"commonName": "Factory CA"}},
                "est": {"approval": "Manual", "authentication": [{"serviceAccountToken": {"audience": "est-issuer"}}]},
                "policy": {"rules": [{"from": {"namespaces": ["*"]}, "dnsNames": ["*.{namespace}.svc"]}]},
            },
        }
    )
    return Site(
        admission,
        kubeconfig,
        namespace,
        tmp_path,
        generate_private_key(KeyAlgorithm.ECDSA_P256),
        apiserver.token_for(namespace, "device", "est-issuer"),
    )


async def refused(request: Callable[[], Any]) -> Refused:
    with pytest.raises(Refused) as raised:
        await request()
    return raised.value


@pytest.mark.spec("EST-RESP-10", "THREAT-23")
@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_device_asks_kubectl_approves_and_the_device_is_served(site: Site, workers: str) -> None:
    async with site.server("--workers", workers) as running, site.device(running) as client:
        request_id = await site.waits(client)
        (shown,) = await site.shown()
        assert shown["metadata"]["name"] == f"est-{request_id}"
        spec = shown["spec"]
        assert (spec["origin"], spec["issuerRef"]["kind"], spec["issuerRef"]["name"]) == ("EST", "EstIssuer", "factory")
        assert spec["username"] == f"serviceAccountToken:{site.namespace}/device"
        assert spec["extra"]["est-issuer.io/names"] == [f"DNS:web.{site.namespace}.svc"]
        csr = x509.load_pem_x509_csr(base64.b64decode(spec["request"]))
        assert csr.public_key() == site.key.public_key()
        assert "status" not in shown, "estserver writes none"

        done = site.run_as_printed("Approved", f"est-{request_id}")
        assert done.returncode == 0, done.stderr
        await running.until_audit("approved", request_id)
        issued = await client.simple_enroll(site.csr())
        (ca,) = await client.ca_certs()
        issued.verify_directly_issued_by(ca)
        collect(issued.public_bytes(Encoding.DER), ca.public_bytes(Encoding.DER))
        await site.shown(0)
        assert await client.simple_enroll(site.csr()) == issued, "a lost answer is given again"


@pytest.mark.spec("THREAT-23")
async def test_a_denial_reaches_the_device_with_the_persons_words_and_stays_to_be_seen(site: Site) -> None:
    async with site.server() as running, site.device(running) as client:
        request_id = await site.waits(client)
        await site.shown()
        done = site.run_as_printed("Denied", f"est-{request_id}")
        assert done.returncode == 0, done.stderr
        denied = await running.until_audit("denied", request_id)
        assert denied["by"] == "kubernetes"
        refusal = await refused(lambda: client.simple_enroll(site.csr()))
        assert refusal.http_status == 403
        assert "not on the list" in refusal.message
        (shown,) = site.objects()
        assert [condition["type"] for condition in shown["status"]["conditions"]] == ["Denied"]


@pytest.mark.spec("THREAT-23", "THREAT-24")
async def test_what_kubectl_get_shows_is_enough_to_judge_by(site: Site) -> None:
    async with site.server() as running, site.device(running) as client:
        request_id = await site.waits(client)
        await site.shown()
        header, row = site.admission.api.kubectl("get", "estcr", "-n", site.namespace, "-o", "wide").splitlines()
        assert header.split()[:7] == ["NAME", "APPROVED", "DENIED", "READY", "ISSUER", "REQUESTER", "AGE"]
        for text in (
            f"est-{request_id}",
            "factory",
            f"serviceAccountToken:{site.namespace}/device",
            f"DNS:web.{site.namespace}.svc",
            "EST",
        ):
            assert text in row


@pytest.mark.spec("EST-RESP-10")
async def test_a_decision_while_estserver_is_away_counts_and_a_deleted_object_decides_nothing(site: Site) -> None:
    async with site.server() as running, site.device(running) as client:
        request_id = await site.waits(client)
        (first,) = await site.shown()
        site.admission.api.kubectl("delete", "estcr", f"est-{request_id}", "-n", site.namespace)
        (again,) = await site.shown()
        assert again["metadata"]["uid"] != first["metadata"]["uid"]
        assert again["spec"] == first["spec"]
        running.process.kill()
        await running.ended()
    assert site.run_as_printed("Approved", f"est-{request_id}").returncode == 0
    async with site.server() as running, site.device(running) as client:
        await running.until_audit("approved", request_id)
        issued = await client.simple_enroll(site.csr())
        assert issued.public_key() == site.key.public_key()
        await site.shown(0)


async def test_two_replicas_show_one_object_and_either_serves(site: Site) -> None:
    async with site.server() as one, site.server() as two, site.device(one) as first, site.device(two) as second:
        request_id = await site.waits(first)
        assert await site.waits(second) == request_id
        await site.shown()
        assert site.run_as_printed("Approved", f"est-{request_id}").returncode == 0

        async def decided() -> bool:
            return any(line.get("audit") == "approved" for running in (one, two) for line in running.lines)

        await eventually(decided)
        issued = await asyncio.gather(first.simple_enroll(site.csr()), second.simple_enroll(site.csr()))
        assert issued[0] == issued[1]
        assert len([line for running in (one, two) for line in running.lines if line.get("audit") == "approved"]) == 1


@pytest.mark.spec("THREAT-23")
async def test_the_command_of_directory_mode_lists_here_and_decides_nothing(site: Site) -> None:
    async with site.server() as running, site.device(running) as client:
        request_id = await site.waits(client)

        async def command(*arguments: str) -> tuple[int | None, str]:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "estserver", "requests", *arguments, "--state", str(site.state)),
                env={"EST_KUBERNETES": "true", "PATH": "/usr/bin:/bin"},
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            output, _ = await process.communicate()
            return process.returncode, output.decode()

        assert request_id in (await command("list"))[1]
        for decision in (("approve", request_id), ("deny", request_id, "--reason", "x")):
            status, said = await command(*decision)
            assert (status, "kubectl get estcr" in said) == (2, True)
        await site.waits(client)


@pytest.mark.spec("THREAT-23", "THREAT-24")
async def test_an_object_that_estserver_did_not_write_approves_nothing_even_without_the_policy(
    admission: Admission, apiserver: ApiServer, tmp_path: Path
) -> None:
    """Whoever may create and approve could else approve one thing and have another signed."""
    namespace = "est-approval-unguarded"
    apiserver.ensure_namespace(namespace)
    forged, genuine = (replace(WAITING, id=f"{n:016x}", slot=f"s{n}", issuer=f"EstIssuer/{namespace}/factory") for n in (1, 2))
    ledger = await Ledger.open(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    held = HeldRequests(ledger)
    for request in (forged, genuine):
        await held.hold(request, now=WAITING.created_at)
        made = manifest(request if request is genuine else replace(request, sans=("DNS:bank.example",)), NAMESPACE)
        apiserver.apply(made)
        condition = {"type": "Approved", "status": "True", "reason": "Forged", "lastTransitionTime": "2026-11-25T12:00:00Z"}
        patch = json.dumps({"status": {"conditions": [condition]}})
        name = made["metadata"]["name"]
        apiserver.kubectl("patch", "estcr", name, "-n", namespace, "--subresource=status", "--type=merge", "-p", patch)
    options = ("--kubernetes", "--kubeconfig", str(estserver_kubeconfig(apiserver, NAMESPACE)), "--namespace", NAMESPACE)
    async with estserver(*options, "--state", str(tmp_path), "--server-name", "localhost") as running:
        await running.until_audit("approved", genuine.id)
        await running.until("a CertificateRequest is not what estserver wrote, so its conditions do not count", request=forged.id)
    found = await held.find(forged.id)
    await ledger.aclose()
    assert found is not None
    assert found.state is State.WAITING
