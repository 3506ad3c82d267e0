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
from tests.server.running import Running, estserver, until_served

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
    found = apiserver.client.get("configmaps", "est-issuer-serving-ca", NAMESPACE)
    assert found is not None
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
        await until_served(pod)
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
            await until_served(pod)
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


def canaries(namespace: str) -> list[dict[str, object]]:
    """Secrets of four kinds, each full of words that nobody may read in a log or a status."""
    word = base64.b64encode(b"canary-of-" + namespace.encode()).decode()
    data = {
        "kubernetes.io/tls": {"tls.crt": word, "tls.key": word, "ca.crt": word},
        "Opaque": {"auth": word, "ca.crt": word, "token": word},
        "kubernetes.io/ssh-auth": {"ssh-privatekey": word, "auth": word},
        "bootstrap.kubernetes.io/token": {"token-id": word, "auth": word},
    }
    return [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": kind,
            "metadata": {"name": f"canary-{number}", "namespace": namespace},
            "data": members,
        }
        for number, (kind, members) in enumerate(data.items())
    ]


def probes(kind: str, namespace: str) -> list[dict[str, object]]:
    """Issuers that name each of those Secrets in each place where a Secret can be named."""
    found: list[dict[str, object]] = []
    for number in range(4):
        secret = f"canary-{number}"
        places: dict[str, tuple[str, list[object]]] = {
            "ca": (secret, []),
            "basic": ("factory-ca", [{"basic": {"secretName": secret}}]),
            "anchors": ("factory-ca", [{"certificate": {"caSecretName": secret}}]),
        }
        for place, (ca, ways) in places.items():
            metadata = {"name": f"probe-{place}-{number}-{namespace}"} | ({"namespace": namespace} if kind == "EstIssuer" else {})
            spec = {"ca": {"secretName": ca}, "est": {"authentication": ways}}
            found.append({"apiVersion": "est-issuer.io/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec})
    return found


@pytest.mark.spec("THREAT-21")
async def test_no_issuer_can_be_pointed_at_a_secret_to_learn_of_it(apiserver: ApiServer, kubeconfig: Path, tmp_path: Path) -> None:
    """Two namespaces, two kinds of issuer, four kinds of Secret, three places to name one: not an octet in log or status."""
    other = f"{TENANT}-other"
    apiserver.ensure_namespace(other)
    cluster = probes("EstClusterIssuer", TENANT)
    apiserver.apply(*canaries(TENANT), *canaries(other), *probes("EstIssuer", TENANT), *probes("EstIssuer", other), *cluster)
    try:
        async with estserver(*options(kubeconfig, tmp_path), "--log-level", "debug") as running:
            url = await running.url()
            token = apiserver.token_for(NAMESPACE, "operator", "est-issuer")
            async with client(apiserver, url, token, label=None) as operator:
                listed = await operator.get_json("/est-issuer/v1/issuers")
            assert listed is not None
            probed = [entry for entry in listed.value["issuers"] if entry["name"].startswith("probe-")]
            assert len(probed) == 36
            assert {entry["state"] for entry in probed} == {"NotReady"}
            assert {entry["reason"] for entry in probed if entry["namespace"] == other} == {"SecretForbidden"}
            assert {entry["reason"] for entry in probed if entry["kind"] == "EstClusterIssuer"} == {"SecretMissing"}
            assert await running.stop() == 0
            said = json.dumps([listed.value, running.lines]) + running.errors.decode()
            assert "canary-of" not in said
            assert base64.b64encode(b"canary-of").decode()[:11] not in said
    finally:
        for manifest in cluster:
            apiserver.kubectl("delete", "estclusterissuer", manifest["metadata"]["name"])  # type: ignore[index]
