"""estserver on a real API server, as the chart runs it: issuers become reachable, tokens count, an outage is survived."""

import base64
import json
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from estclient import Bearer, EstClient
from estcore import csr_builder
from estcore.errors import Refused
from estcore.issuer_spec import KeyAlgorithm
from estcore.keys import generate_private_key
from tests.collect import collect
from tests.integration.apiserver import ApiServer
from tests.integration.rights import estserver_kubeconfig
from tests.server.running import Running, estserver

NAMESPACE, TENANT = "est-program", "program-devices"
ISSUER = {
    "apiVersion": "est-issuer.io/v1alpha1",
    "kind": "EstIssuer",
    "metadata": {"name": "factory", "namespace": TENANT},
    "spec": {
        "ca": {"secretName": "factory-ca", "generate": {"commonName": "Factory CA"}},
        "est": {"authentication": [{"serviceAccountToken": {"audience": "est-issuer"}}]},
        "policy": {"rules": [{"from": {"namespaces": ["*"]}, "dnsNames": ["*.{namespace}.svc"]}]},
    },
}


@pytest.fixture
def kubeconfig(apiserver: ApiServer) -> Path:
    return estserver_kubeconfig(apiserver, NAMESPACE, secret_namespaces=(TENANT,))


def options(kubeconfig: Path, state: Path) -> tuple[str, ...]:
    return (
        *("--kubernetes", "--kubeconfig", str(kubeconfig), "--namespace", NAMESPACE, "--state", str(state)),
        *("--server-name", "localhost", "--ra-service-account", f"{NAMESPACE}/operator"),
    )


def client(apiserver: ApiServer, url: str, token: str, label: str | None = f"{TENANT}.factory") -> EstClient:
    found = json.loads(apiserver.kubectl("get", "configmap", "est-issuer-serving-ca", "-n", NAMESPACE, "-o", "json"))
    port = url.rpartition(":")[2]
    anchors_pem = found["data"]["ca.crt"].encode()
    return EstClient(url=f"https://localhost:{port}", label=label, anchors_pem=anchors_pem, credentials=Bearer(token=lambda: token))


def csr(name: str) -> bytes:
    return csr_builder.build(generate_private_key(KeyAlgorithm.ECDSA_P256), subject=x509.Name([]), sans=(x509.DNSName(name),))


async def enrol_all(apiserver: ApiServer, running: Running) -> None:
    """What a pod, a stranger and the operator get."""
    url = await running.url()
    await running.until("issuer ready", issuer=f"EstIssuer/{TENANT}/factory")
    async with client(apiserver, url, apiserver.token_for(TENANT, "device", "est-issuer")) as pod:
        (ca,) = await pod.ca_certs()
        issued = await pod.simple_enroll(csr(f"web.{TENANT}.svc"))
        issued.verify_directly_issued_by(ca)
        collect(issued.public_bytes(Encoding.DER), ca.public_bytes(Encoding.DER))
        with pytest.raises(Refused, match=r"web\.other\.svc"):
            await pod.simple_enroll(csr("web.other.svc"))
        with pytest.raises(Refused):
            await pod.get_json("/est-issuer/v1/issuers")
    async with client(apiserver, url, apiserver.token_for(TENANT, "device", "another")) as stranger:
        with pytest.raises(Refused) as refused:
            await stranger.simple_enroll(csr(f"web.{TENANT}.svc"))
        assert refused.value.http_status == 401
    async with client(apiserver, url, apiserver.token_for(NAMESPACE, "operator", "est-issuer"), label=None) as operator:
        listed = await operator.get_json("/est-issuer/v1/issuers")
        assert listed is not None
        (found,) = [entry for entry in listed.value["issuers"] if entry["namespace"] == TENANT]
        uid = apiserver.kubectl("get", "estissuer", "factory", "-n", TENANT, "-o", "jsonpath={.metadata.uid}")
        assert (found["state"], found["uid"], found["generation"], found["label"]) == ("Ready", uid, 1, f"{TENANT}.factory")
        assert x509.load_pem_x509_certificate(found["caBundle"].encode()) == ca


@pytest.mark.parametrize("workers", [1, 2])
async def test_issuers_of_the_cluster_are_served(apiserver: ApiServer, kubeconfig: Path, tmp_path: Path, workers: int) -> None:
    apiserver.apply(ISSUER)
    async with estserver(*options(kubeconfig, tmp_path), "--workers", str(workers)) as running:
        await enrol_all(apiserver, running)
        made = json.loads(apiserver.kubectl("get", "secret", "factory-ca", "-n", TENANT, "-o", "json"))
        assert b"BEGIN CERTIFICATE" in base64.b64decode(made["data"]["tls.crt"])
        assert await running.stop() == 0


@pytest.mark.spec("THREAT-33")
async def test_est_goes_on_while_the_api_is_away(apiserver: ApiServer, kubeconfig: Path, tmp_path: Path) -> None:
    apiserver.apply(ISSUER)
    async with estserver(*options(kubeconfig, tmp_path)) as running:
        url = await running.url()
        token = apiserver.token_for(TENANT, "device", "est-issuer")
        async with client(apiserver, url, token) as pod:
            before = await pod.ca_certs()
            await pod.simple_enroll(csr(f"a.{TENANT}.svc"))
            apiserver.stop_apiserver()
            try:
                assert await pod.ca_certs() == before
                issued = await pod.simple_enroll(csr(f"b.{TENANT}.svc"))
                assert issued.issuer == before[0].subject, "a token that was reviewed a moment ago still counts"
            finally:
                apiserver.start_apiserver()


async def test_it_waits_for_an_api_server_that_is_away_at_its_start(apiserver: ApiServer, kubeconfig: Path, tmp_path: Path) -> None:
    apiserver.stop_apiserver()
    try:
        async with estserver(*options(kubeconfig, tmp_path)) as running:
            await running.until("no server certificate yet")
            apiserver.start_apiserver()
            await running.url()
            assert await running.stop() == 0
    finally:
        if not apiserver.is_ready():
            apiserver.start_apiserver()
