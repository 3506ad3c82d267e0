"""The Kubernetes source on a real API server, with the rights that the chart gives and no others."""

import asyncio
import base64
import itertools
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from estserver import kubernetes_config, source_kubernetes
from estserver.issuers import Registry, RegistrySettings, build
from estserver.kubernetes_api import KubernetesApi
from estserver.snapshot import IssuerManifest, Snapshot
from estserver.source_kubernetes import KubernetesSource
from tests.integration.apiserver import ApiServer
from tests.integration.rights import allow_secrets, estserver_kubeconfig, forbid_secrets
from tests.server.manifest_builders import NOW, ca_pem, next_serial

_numbers = itertools.count(1)
SOON_SECONDS = 40


class Watched:
    """What the source published last, to be waited for."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.snapshot: Snapshot | None = None
        self._news = asyncio.Condition()

    def publish(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        asyncio.get_running_loop().create_task(self._notify())

    async def _notify(self) -> None:
        async with self._news:
            self._news.notify_all()

    async def until(self, holds: Callable[[Snapshot], bool]) -> Snapshot:
        async with asyncio.timeout(SOON_SECONDS), self._news:
            await self._news.wait_for(lambda: self.snapshot is not None and holds(self.snapshot))
        assert self.snapshot is not None
        return self.snapshot

    def registry(self, previous: Registry | None = None) -> Registry:
        assert self.snapshot is not None
        return build(self.snapshot, previous or Registry(), RegistrySettings(cluster_namespace=self.namespace), now=NOW)


@asynccontextmanager
async def watching(
    kubeconfig: Path, namespace: str, *, silence_seconds: float = 75.0, longest_outage: timedelta = timedelta(hours=1)
) -> AsyncIterator[Watched]:
    async with KubernetesApi(kubernetes_config.from_kubeconfig(kubeconfig), silence_seconds=silence_seconds) as api:
        watched = Watched(namespace)
        source = KubernetesSource(api=api, namespace=namespace, clock=lambda: NOW, serial=next_serial, longest_outage=longest_outage)
        task = asyncio.create_task(source.watch(watched.publish))
        try:
            yield watched
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


@pytest.fixture
def namespace() -> str:
    """An install namespace of the test's own."""
    return f"est-system-{next(_numbers)}"


@pytest.fixture
def tenant(namespace: str) -> str:
    return namespace.replace("est-system", "devices")


@pytest.fixture
def kubeconfig(apiserver: ApiServer, namespace: str, tenant: str) -> Path:
    return estserver_kubeconfig(apiserver, namespace, secret_namespaces=(tenant,))


def est_issuer(
    namespace: str, name: str = "factory", *, ca: str = "factory-ca", generate: bool = False, **est: object
) -> dict[str, object]:
    spec: dict[str, object] = {"ca": {"secretName": ca} | ({"generate": {"commonName": "Factory CA"}} if generate else {})}
    if est:
        spec["est"] = est
    return {"apiVersion": "est-issuer.io/v1alpha1", "kind": "EstIssuer", "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def ca_manifest(namespace: str, common_name: str = "Factory CA", *, name: str = "factory-ca", **data: bytes) -> dict[str, object]:
    key, certificate = ca_pem(common_name)
    members = data or {"tls.crt": certificate, "tls.key": key}
    return secret_manifest(namespace, name, "kubernetes.io/tls", {"tls.crt": b"", "tls.key": b"", **members})


def secret_manifest(namespace: str, name: str, kind: str, data: dict[str, bytes]) -> dict[str, object]:
    encoded = {member: base64.b64encode(value).decode() for member, value in data.items()}
    return {"apiVersion": "v1", "kind": "Secret", "type": kind, "metadata": {"name": name, "namespace": namespace}, "data": encoded}


def key_of(namespace: str, name: str = "factory") -> str:
    return f"EstIssuer/{namespace}/{name}"


def has_issuer(namespace: str, name: str = "factory") -> Callable[[Snapshot], bool]:
    return lambda snapshot: any(issuer.key == key_of(namespace, name) for issuer in snapshot.issuers)


async def test_an_issuer_and_the_secret_that_it_names_are_read_and_no_other(
    apiserver: ApiServer, kubeconfig: Path, namespace: str, tenant: str
) -> None:
    apiserver.apply(ca_manifest(tenant), secret_manifest(tenant, "bystander", "Opaque", {"auth": b"canary"}), est_issuer(tenant))
    async with watching(kubeconfig, namespace) as watched:
        snapshot = await watched.until(has_issuer(tenant))
        assert (tenant, "factory-ca") in snapshot.secrets, "the first snapshot waits for the Secrets"
        assert (tenant, "bystander") not in snapshot.secrets
        issuer = watched.registry().issuers[key_of(tenant)]
        assert (issuer.ready, issuer.label) == (True, f"{tenant}.factory")
        assert issuer.uid == apiserver.kubectl("get", "estissuer", "factory", "-n", tenant, "-o", "jsonpath={.metadata.uid}")


async def test_changes_of_issuers_and_secrets_arrive(apiserver: ApiServer, kubeconfig: Path, namespace: str, tenant: str) -> None:
    async with watching(kubeconfig, namespace) as watched:
        apiserver.apply(est_issuer(tenant))
        await watched.until(has_issuer(tenant))
        assert watched.registry().issuers[key_of(tenant)].reason == "SecretMissing"
        apiserver.apply(ca_manifest(tenant))
        await watched.until(lambda snapshot: (tenant, "factory-ca") in snapshot.secrets)
        assert watched.registry().issuers[key_of(tenant)].ready
        apiserver.kubectl(
            "patch", "estissuer", "factory", "-n", tenant, "--type=merge", "-p", '{"spec":{"est":{"channelBinding":"Required"}}}'
        )
        await watched.until(lambda snapshot: any(issuer.key == key_of(tenant) and issuer.generation == 2 for issuer in snapshot.issuers))
        apiserver.kubectl("delete", "secret", "factory-ca", "-n", tenant)
        await watched.until(lambda snapshot: (tenant, "factory-ca") not in snapshot.secrets)
        apiserver.kubectl("delete", "estissuer", "factory", "-n", tenant)
        await watched.until(lambda snapshot: not has_issuer(tenant)(snapshot))


async def test_a_cluster_issuer_reads_its_secret_in_the_install_namespace(apiserver: ApiServer, kubeconfig: Path, namespace: str) -> None:
    manifest = est_issuer("", f"all-{namespace}") | {"kind": "EstClusterIssuer", "metadata": {"name": f"all-{namespace}"}}
    apiserver.apply(ca_manifest(namespace), manifest)
    try:
        async with watching(kubeconfig, namespace) as watched:
            await watched.until(lambda snapshot: (namespace, "factory-ca") in snapshot.secrets)
            assert watched.registry().by_label[f"all-{namespace}"].ready
    finally:
        apiserver.kubectl("delete", "estclusterissuer", f"all-{namespace}")


async def test_a_ca_is_generated_once_without_owner_and_outlives_its_issuer(
    apiserver: ApiServer, kubeconfig: Path, namespace: str, tenant: str
) -> None:
    async with watching(kubeconfig, namespace) as one, watching(kubeconfig, namespace) as other:
        apiserver.apply(est_issuer(tenant, generate=True))
        first = await one.until(lambda snapshot: (tenant, "factory-ca") in snapshot.secrets)
        second = await other.until(lambda snapshot: (tenant, "factory-ca") in snapshot.secrets)
        assert first.secrets[tenant, "factory-ca"] == second.secrets[tenant, "factory-ca"]
        assert one.registry().issuers[key_of(tenant)].ready
        made = apiserver.kubectl("get", "secret", "factory-ca", "-n", tenant, "-o", "jsonpath={.metadata.ownerReferences}{.type}")
        assert made == "kubernetes.io/tls"
        apiserver.kubectl("delete", "estissuer", "factory", "-n", tenant)
        await one.until(lambda snapshot: not has_issuer(tenant)(snapshot))
        assert apiserver.kubectl("get", "secret", "factory-ca", "-n", tenant, "-o", "name")
        apiserver.apply(est_issuer(tenant, generate=True))
        again = await one.until(lambda snapshot: (tenant, "factory-ca") in snapshot.secrets)
        assert again.secrets[tenant, "factory-ca"] == first.secrets[tenant, "factory-ca"]


async def test_an_issuer_whose_ca_is_being_generated_says_so_and_not_that_its_secret_is_missing(
    apiserver: ApiServer, kubeconfig: Path, namespace: str, tenant: str
) -> None:
    """Nobody has to do anything then."""
    async with watching(kubeconfig, namespace) as watched:
        apiserver.apply(est_issuer(tenant, generate=True))
        await watched.until(lambda snapshot: (tenant, "factory-ca") in snapshot.secret_problems)
        assert watched.registry().issuers[key_of(tenant)].reason == "CAGenerating"
        await watched.until(lambda snapshot: (tenant, "factory-ca") in snapshot.secrets)
        assert watched.registry().issuers[key_of(tenant)].ready


@pytest.mark.spec("THREAT-27")
async def test_beside_a_spec_that_does_not_parse_a_ca_that_is_deleted_is_heard_of(
    apiserver: ApiServer, kubeconfig: Path, namespace: str, tenant: str
) -> None:
    good = est_issuer(tenant)
    bad = good | {"spec": {"ca": {"secretName": "factory-ca"}, "policy": {"rules": [{"dnsNames": ["x*.example.com"]}]}}}
    apiserver.apply(ca_manifest(tenant), good)
    async with watching(kubeconfig, namespace) as watched:
        await watched.until(lambda snapshot: (tenant, "factory-ca") in snapshot.secrets)
        before = watched.registry()
        apiserver.apply(bad)
        await watched.until(lambda snapshot: any(issuer.generation == 2 for issuer in snapshot.issuers if issuer.namespace == tenant))
        kept = watched.registry(before)
        assert (kept.issuers[key_of(tenant)].reason, kept.issuers[key_of(tenant)].authority is None) == ("InvalidSpec", False)
        apiserver.kubectl("delete", "secret", "factory-ca", "-n", tenant)
        await watched.until(lambda snapshot: (tenant, "factory-ca") not in snapshot.secrets)
        assert watched.registry(kept).issuers[key_of(tenant)].authority is None


async def test_a_secret_that_exists_is_never_touched_by_generate(
    apiserver: ApiServer, kubeconfig: Path, namespace: str, tenant: str
) -> None:
    apiserver.apply(secret_manifest(tenant, "factory-ca", "Opaque", {"mine": b"1"}), est_issuer(tenant, generate=True))
    version = apiserver.kubectl("get", "secret", "factory-ca", "-n", tenant, "-o", "jsonpath={.metadata.resourceVersion}")
    async with watching(kubeconfig, namespace) as watched:
        await watched.until(has_issuer(tenant))
        assert watched.registry().issuers[key_of(tenant)].reason == "SecretInvalidData"
    assert apiserver.kubectl("get", "secret", "factory-ca", "-n", tenant, "-o", "jsonpath={.metadata.resourceVersion}") == version


@pytest.mark.spec("THREAT-26")
async def test_a_namespace_that_was_not_granted_is_forbidden_and_names_the_chart_value(
    apiserver: ApiServer, kubeconfig: Path, namespace: str, tenant: str
) -> None:
    other = f"{tenant}-other"
    apiserver.ensure_namespace(other)
    apiserver.apply(ca_manifest(other), est_issuer(other), est_issuer(tenant), ca_manifest(tenant))
    async with watching(kubeconfig, namespace) as watched:
        await watched.until(lambda snapshot: (other, "factory-ca") in snapshot.secret_problems)
        registry = watched.registry()
        refused = registry.issuers[key_of(other)]
        assert (refused.ready, refused.reason) == (False, "SecretForbidden")
        assert "secretNamespaces" in refused.message
        assert other in refused.message
        assert registry.issuers[key_of(tenant)].ready, "one issuer's missing right is no other's trouble"
        allow_secrets(apiserver, other, {"kind": "ServiceAccount", "name": "estserver", "namespace": namespace})
        await watched.until(lambda snapshot: (other, "factory-ca") in snapshot.secrets)
        assert watched.registry().issuers[key_of(other)].ready


async def test_a_quota_that_permits_no_secret_is_told_as_the_quota_and_not_as_a_missing_right(
    apiserver: ApiServer, kubeconfig: Path, namespace: str, tenant: str
) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "no-more", "namespace": tenant}}
    apiserver.apply({**quota, "spec": {"hard": {"count/secrets": "0"}}})
    counted = json.dumps({"status": {"hard": {"count/secrets": "0"}, "used": {"count/secrets": "0"}}})  # no controller counts here
    apiserver.kubectl("patch", "resourcequota", "no-more", "-n", tenant, "--subresource=status", "--type=merge", "-p", counted)
    apiserver.apply(est_issuer(tenant, generate=True))
    async with watching(kubeconfig, namespace) as watched:
        await watched.until(
            lambda snapshot: (
                (tenant, "factory-ca") in snapshot.secret_problems
                and snapshot.secret_problems[tenant, "factory-ca"].reason != "CAGenerating"
            )
        )
        refused = watched.registry().issuers[key_of(tenant)]
        assert (refused.ready, refused.reason) == (False, "SecretMissing")
        assert "quota" in refused.message
        assert "secretNamespaces" not in refused.message


async def test_a_right_that_is_taken_away_leaves_the_last_good_ca(
    apiserver: ApiServer, kubeconfig: Path, namespace: str, tenant: str
) -> None:
    apiserver.apply(ca_manifest(tenant), est_issuer(tenant))
    async with watching(kubeconfig, namespace) as watched:
        await watched.until(lambda snapshot: (tenant, "factory-ca") in snapshot.secrets)
        forbid_secrets(apiserver, tenant)
        apiserver.stop_apiserver()  # ends the watch, which RBAC alone does not
        await asyncio.to_thread(apiserver.start_apiserver)
        await watched.until(lambda snapshot: (tenant, "factory-ca") in snapshot.secret_problems)
        issuer = watched.registry().issuers[key_of(tenant)]
        assert (issuer.ready, issuer.reason) == (True, "SecretForbidden")


@pytest.mark.spec("THREAT-21")
@pytest.mark.parametrize("kind", ["kubernetes.io/dockercfg", "bootstrap.kubernetes.io/token", "kubernetes.io/ssh-auth"])
async def test_of_a_secret_of_an_unfit_type_nothing_is_kept(
    apiserver: ApiServer, kubeconfig: Path, namespace: str, tenant: str, kind: str
) -> None:
    data = {"auth": b"canary", "token": b"canary", ".dockercfg": b'{"x":"canary"}', "ssh-privatekey": b"canary"}
    apiserver.apply(
        ca_manifest(tenant),
        secret_manifest(tenant, "theirs", kind, data),
        est_issuer(tenant, authentication=[{"basic": {"secretName": "theirs"}}]),
    )
    async with watching(kubeconfig, namespace) as watched:
        snapshot = await watched.until(lambda snapshot: (tenant, "theirs") in snapshot.secrets)
        assert snapshot.secrets[tenant, "theirs"].data == {}
        issuer = watched.registry().issuers[key_of(tenant)]
        assert (issuer.ready, issuer.passwords) == (False, None)
        assert "canary" not in issuer.message


@pytest.mark.spec("THREAT-21")
async def test_each_way_to_authenticate_has_its_secret_watched_and_of_it_what_it_needs(
    apiserver: ApiServer, kubeconfig: Path, namespace: str, tenant: str
) -> None:
    ha1, shared = "0" * 64, b"sixteen octets at least"
    digest = f"device-1:{tenant}.factory:SHA-256:{ha1}".encode()
    apiserver.apply(
        ca_manifest(tenant),
        secret_manifest(tenant, "digests", "Opaque", {"digest": digest, "other": b"canary"}),
        secret_manifest(tenant, "otps", "Opaque", {"otp": f"device-1:sha256:{ha1}".encode(), "other": b"canary"}),
        secret_manifest(tenant, "cmc", "Opaque", {"device-1": shared}),
        est_issuer(
            tenant,
            authentication=[
                {"digest": {"secretName": "digests"}},
                {"certificate": {"issuedBy": "this", "expiredFor": "72h"}, "oneTimePassword": {"secretName": "otps"}},
                {"cmcSharedSecret": {"secretName": "cmc"}},
            ],
        ),
    )
    async with watching(kubeconfig, namespace) as watched:
        snapshot = await watched.until(lambda snapshot: {(tenant, name) for name in ("digests", "otps", "cmc")} <= snapshot.secrets.keys())
        assert {name: set(snapshot.secrets[tenant, name].data) for name in ("digests", "otps", "cmc")} == {
            "digests": {"digest"},
            "otps": {"otp"},
            "cmc": {"device-1"},
        }
        issuer = watched.registry().issuers[key_of(tenant)]
        assert (issuer.ready, issuer.message) == (True, "the CA and every Secret that the issuer names are in order")
        assert issuer.shared_secrets is not None
        assert issuer.shared_secrets.get("device-1") == shared
        apiserver.apply(secret_manifest(tenant, "cmc", "Opaque", {"device-1": shared + b" and more"}))
        await watched.until(lambda snapshot: snapshot.secrets[tenant, "cmc"].data["device-1"] != shared)


def known_of(tenant: str, snapshot: Snapshot) -> tuple[list[IssuerManifest], object, bool]:
    return (
        [issuer for issuer in snapshot.issuers if issuer.namespace == tenant],
        snapshot.secrets.get((tenant, "factory-ca")),
        snapshot.stale,
    )


@pytest.mark.spec("THREAT-33")
async def test_an_outage_of_the_api_forgets_nothing_and_ends_by_itself(
    apiserver: ApiServer, kubeconfig: Path, namespace: str, tenant: str
) -> None:
    apiserver.apply(ca_manifest(tenant), est_issuer(tenant))
    async with watching(kubeconfig, namespace) as watched:
        before = await watched.until(lambda snapshot: (tenant, "factory-ca") in snapshot.secrets)
        apiserver.stop_apiserver()
        try:
            await asyncio.sleep(2)  # the outage itself; what came of other tests' issuers just before it may still be published
            assert watched.snapshot is not None
            assert known_of(tenant, watched.snapshot) == known_of(tenant, before)
        finally:
            await asyncio.to_thread(apiserver.start_apiserver)
        apiserver.apply(ca_manifest(tenant, "New CA"))
        await watched.until(lambda snapshot: snapshot.secrets[tenant, "factory-ca"] != before.secrets[tenant, "factory-ca"])


@pytest.mark.spec("THREAT-33")
async def test_a_watch_that_falls_silent_is_noticed(apiserver: ApiServer, kubeconfig: Path, namespace: str, tenant: str) -> None:
    apiserver.apply(ca_manifest(tenant), est_issuer(tenant))
    async with watching(kubeconfig, namespace, silence_seconds=1.0) as watched:
        await watched.until(lambda snapshot: (tenant, "factory-ca") in snapshot.secrets)
        apiserver.freeze()
        try:
            await asyncio.sleep(2)  # longer than silence_seconds: the connections look alive, and nothing comes
        finally:
            apiserver.thaw()
        apiserver.apply(est_issuer(tenant, "second"))
        await watched.until(has_issuer(tenant, "second"))


@pytest.mark.spec("THREAT-33")
async def test_an_outage_that_lasts_too_long_makes_the_snapshot_stale_until_the_api_answers(
    apiserver: ApiServer, kubeconfig: Path, namespace: str, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_kubernetes, "LOOK_SECONDS", 0.2)
    apiserver.apply(ca_manifest(tenant), est_issuer(tenant))
    async with watching(kubeconfig, namespace, longest_outage=timedelta(seconds=4)) as watched:
        async with speaking(apiserver, tenant):
            await watched.until(lambda snapshot: (tenant, "factory-ca") in snapshot.secrets and not snapshot.stale)
        apiserver.stop_apiserver()
        try:
            stale = await watched.until(lambda snapshot: snapshot.stale)
            assert (tenant, "factory-ca") in stale.secrets
            assert watched.registry().issuers[key_of(tenant)].reason == "SourceStale"
        finally:
            await asyncio.to_thread(apiserver.start_apiserver)
        async with speaking(apiserver, tenant):
            await watched.until(lambda snapshot: not snapshot.stale)


@asynccontextmanager
async def speaking(apiserver: ApiServer, tenant: str) -> AsyncIterator[None]:
    """News of both kinds of issuer every half second: with none, the API speaks once a minute, which four seconds take for an outage."""
    task = asyncio.create_task(_speak(apiserver, tenant))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        apiserver.kubectl("delete", "estclusterissuer", f"all-{tenant}", "--ignore-not-found")


async def _speak(apiserver: ApiServer, tenant: str) -> None:
    for number in itertools.count():
        changed = {"annotations": {"example.com/number": str(number)}}
        cluster = est_issuer("") | {"kind": "EstClusterIssuer", "metadata": {"name": f"all-{tenant}", **changed}}
        mine = est_issuer(tenant)
        for manifest in (cluster, mine | {"metadata": {"name": "factory", "namespace": tenant, **changed}}):
            await asyncio.to_thread(apiserver.apply, manifest)
        await asyncio.sleep(0.5)


def forbid_making(apiserver: ApiServer, tenant: str) -> None:
    rules = '[{"apiGroups":[""],"resources":["secrets"],"verbs":["get","list","watch"]}]'
    apiserver.kubectl("patch", "role", "estserver-secrets", "-n", tenant, "--type=merge", "-p", f'{{"rules":{rules}}}')


async def test_a_ca_that_may_not_be_made_says_which_right_is_missing(
    apiserver: ApiServer, kubeconfig: Path, namespace: str, tenant: str
) -> None:
    forbid_making(apiserver, tenant)
    apiserver.apply(est_issuer(tenant, generate=True))
    async with watching(kubeconfig, namespace) as watched:
        await watched.until(lambda snapshot: watched.registry().issuers[key_of(tenant)].reason == "SecretForbidden")
        issuer = watched.registry().issuers[key_of(tenant)]
        assert not issuer.ready
        assert "may not create" in issuer.message


async def test_a_ca_that_could_not_be_made_is_made_by_the_spec_as_it_is_now(
    apiserver: ApiServer, kubeconfig: Path, namespace: str, tenant: str
) -> None:
    def generating(common_name: str) -> dict[str, object]:
        return est_issuer(tenant) | {"spec": {"ca": {"secretName": "factory-ca", "generate": {"commonName": common_name}}}}

    forbid_making(apiserver, tenant)
    apiserver.apply(generating("Facotry CA"))
    async with watching(kubeconfig, namespace) as watched:
        await watched.until(lambda snapshot: watched.registry().issuers[key_of(tenant)].reason == "SecretForbidden")
        apiserver.apply(est_issuer(tenant))
        await watched.until(lambda snapshot: watched.registry().issuers[key_of(tenant)].reason == "SecretMissing")
        allow_secrets(apiserver, tenant, {"kind": "ServiceAccount", "name": "estserver", "namespace": namespace})
        apiserver.apply(generating("Factory CA"))
        made = await watched.until(lambda snapshot: (tenant, "factory-ca") in snapshot.secrets)
        certificate = x509.load_pem_x509_certificate(made.secrets[tenant, "factory-ca"].data["tls.crt"])
        assert certificate.subject.rfc4514_string() == "CN=Factory CA"
