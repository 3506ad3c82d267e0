"""Trust out on a real API server: what a CA's certificates are, a ClusterTrustBundle says within seconds (contracts 3c)."""

import base64
import itertools
import json
import time
from collections.abc import Iterator

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from estcore import roll_over
from estoperator.trust import LIVE_LABEL, UID_LABEL
from tests import pki
from tests.integration.api_client import Object
from tests.integration.apiserver import ApiServer
from tests.integration.operator_system import System, operator_kubeconfig, wait_for
from tests.integration.rights import RBAC

pytestmark = pytest.mark.timeout(180)
BUNDLES = "clustertrustbundles.certificates.k8s.io"
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def system(apiserver: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    started = System(apiserver, tmp_path_factory.mktemp("trust"), "trust-system")
    yield started
    started.stop()


@pytest.fixture
def tenant(system: System) -> str:
    return system.tenant(f"trusting-{next(_numbers)}")


def name_of(namespace: str, issuer: str = "factory") -> str:
    return f"estissuers.est-issuer.io:{namespace}.{issuer}:live"


def bundle(system: System, name: str) -> Object | None:
    return system.api.client.get(BUNDLES, name)


def roots(found: Object | None) -> set[bytes]:
    if found is None:
        return set()
    certificates = x509.load_pem_x509_certificates(found["spec"]["trustBundle"].encode())
    return {certificate.public_bytes(Encoding.DER) for certificate in certificates}


def until_roots(system: System, name: str, *expected: x509.Certificate) -> Object:
    due = {certificate.public_bytes(Encoding.DER) for certificate in expected}
    wait_for(f"the roots of {name}", lambda: roots(bundle(system, name)) == due, what=lambda: bundle(system, name))
    found = bundle(system, name)
    assert found is not None
    return found


def ca_secret(system: System, namespace: str, ca: pki.Ca, *others: x509.Certificate) -> None:
    members = {"tls.crt": pki.pem(ca.certificate), "tls.key": pki.key_pem(ca.key)}
    if others:
        members["rollover.crt"] = pki.pem(*others)
    system.api.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/tls",
            "metadata": {"name": "factory-ca", "namespace": namespace},
            "data": {member: base64.b64encode(content).decode() for member, content in members.items()},
        }
    )


def living_ca(owner: str) -> pki.Ca:
    """A CA whose certificate is valid at the machine's time, not only at the test PKI's."""
    return pki.ca("Factory CA", private_key=pki.key(owner=owner))


def test_every_issuer_has_its_bundle_which_goes_with_it(system: System, tenant: str) -> None:
    operator = system.shared_operator()
    system.issuer(tenant)
    issuer = system.until_reason("estissuers", tenant, "factory", "Checked")
    wait_for("the bundle", lambda: bundle(system, name_of(tenant)) is not None)
    found = bundle(system, name_of(tenant))
    assert found is not None
    assert found["spec"] == {
        "signerName": f"estissuers.est-issuer.io/{tenant}.factory",
        "trustBundle": issuer["status"]["ca"]["bundle"],
    }
    assert found["metadata"]["labels"][LIVE_LABEL] == "live"
    assert found["metadata"]["labels"][UID_LABEL] == issuer["metadata"]["uid"]
    wait_for("the metric", lambda: system.metric(operator, 'est_operator_trust_open{kind="ClusterTrustBundle"}') == 1)
    system.api.kubectl("delete", "estissuer", "factory", "-n", tenant)
    wait_for("the bundle to go", lambda: bundle(system, name_of(tenant)) is None)


@pytest.mark.spec("EST-KEYUPD-01")
def test_both_roots_are_out_while_the_key_rolls_over_and_the_old_one_until_it_is_withdrawn(system: System, tenant: str) -> None:
    system.shared_operator()
    old, new = living_ca("old"), living_ca("new")
    assert isinstance(old.key, ec.EllipticCurvePrivateKey)
    assert isinstance(new.key, ec.EllipticCurvePrivateKey)
    links = roll_over.link_certificates(old.certificate, old.key, new.certificate, new.key, serials=(7, 8))
    ca_secret(system, tenant, old)
    system.issuer(tenant)
    until_roots(system, name_of(tenant), old.certificate)
    ca_secret(system, tenant, new, old.certificate, *links)
    until_roots(system, name_of(tenant), new.certificate, old.certificate)
    ca_secret(system, tenant, new)
    until_roots(system, name_of(tenant), new.certificate)


def test_a_root_that_was_replaced_without_a_roll_over_stays_also_over_a_restart_until_its_bundle_is_deleted(
    system: System, tenant: str
) -> None:
    system.shared_operator()
    old, new = living_ca("old"), living_ca("new")
    ca_secret(system, tenant, old)
    system.issuer(tenant)
    until_roots(system, name_of(tenant), old.certificate)
    ca_secret(system, tenant, new)
    until_roots(system, name_of(tenant), new.certificate, old.certificate)
    system.end_shared_operator()
    ca_secret(system, tenant, newest := living_ca("newest"))
    system.shared_operator()
    until_roots(system, name_of(tenant), newest.certificate, new.certificate, old.certificate)
    system.end_shared_operator()
    system.api.kubectl("delete", BUNDLES, name_of(tenant))
    system.shared_operator()
    until_roots(system, name_of(tenant), newest.certificate)


def test_what_is_left_of_an_issuer_deleted_while_no_operator_ran_is_swept_at_the_next_start(system: System, tenant: str) -> None:
    system.shared_operator()
    system.issuer(tenant)
    wait_for("the bundle", lambda: bundle(system, name_of(tenant)) is not None)
    system.end_shared_operator()
    system.api.kubectl("delete", "estissuer", "factory", "-n", tenant)
    assert bundle(system, name_of(tenant)) is not None
    system.shared_operator()
    wait_for("the bundle to go", lambda: bundle(system, name_of(tenant)) is None)


def test_where_rbac_forbids_bundles_the_operator_says_so_and_serves_the_rest(system: System, tenant: str) -> None:
    system.end_shared_operator()
    kubeconfig = operator_kubeconfig(system.api, system.namespace)
    role = f"operator-{system.namespace}"
    rules = json.loads(system.api.kubectl("get", "clusterrole", role, "-o", "json"))["rules"]
    fewer = [rule for rule in rules if "certificates.k8s.io" not in rule["apiGroups"]]
    metadata = {"name": role}
    system.api.apply({"apiVersion": f"{RBAC}/v1", "kind": "ClusterRole", "metadata": metadata, "rules": fewer})
    operator = system.start_operator("without-bundles", kubeconfig=kubeconfig)
    try:
        system.issuer(tenant)
        system.until_reason("estissuers", tenant, "factory", "Checked")
        wait_for("the line in the log", lambda: "trust_off" in operator.log.read_text())
        assert bundle(system, name_of(tenant)) is None
        assert system.metric(operator, 'est_operator_trust_open{kind="ClusterTrustBundle"}') == 0
    finally:
        assert operator.terminate() == 0
        operator_kubeconfig(system.api, system.namespace)


def test_the_operators_right_to_attest_is_for_our_signers_alone(system: System) -> None:
    def may(signer: str) -> bool:
        subject = f"system:serviceaccount:{system.namespace}:operator"
        resource = {"group": "certificates.k8s.io", "resource": "signers", "verb": "attest", "name": signer}
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview"}
        asked = json.dumps({**review, "spec": {"user": subject, "resourceAttributes": resource}})
        return bool(json.loads(system.api.kubectl("create", "-o", "json", "-f", "-", stdin=asked))["status"]["allowed"])

    assert may("estissuers.est-issuer.io/*")
    assert not may("kubernetes.io/kube-apiserver-serving")
    assert not may("*")


def config_maps(system: System, name: str) -> dict[str, Object]:
    """By namespace."""
    items = system.api.client.list("configmaps", field_selector=f"metadata.name={name}")
    return {item["metadata"]["namespace"]: item for item in items}


def until_config_maps(system: System, name: str, *namespaces: str) -> dict[str, Object]:
    wait_for(f"ConfigMaps {name}", lambda: set(config_maps(system, name)) == set(namespaces), what=lambda: set(config_maps(system, name)))
    return config_maps(system, name)


def ask(system: System, kind: str, name: str, namespace: str | None, config_map: Object | None) -> None:
    spec = {"ca": {"secretName": f"{name}-ca", "generate": {"commonName": f"{name} CA"}}}
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    trust = {"trust": {"configMap": config_map}} if config_map else {}
    system.api.apply({"apiVersion": "est-issuer.io/v1alpha1", "kind": kind, "metadata": metadata, "spec": {**spec, **trust}})


@pytest.fixture
def config_map_rights(system: System) -> None:
    """Those of an installation with `trust.configMaps.enabled`."""
    operator_kubeconfig(system.api, system.namespace, config_maps=True)


@pytest.fixture
def with_config_maps(system: System, config_map_rights: None) -> Iterator[None]:
    """An operator of an installation with `trust.configMaps.enabled`."""
    system.end_shared_operator()
    operator = system.start_operator("with-config-maps", trust_config_maps="true")
    yield
    assert operator.terminate() == 0


def test_config_maps_are_where_issuers_say_and_go_with_what_they_say(system: System, tenant: str, with_config_maps: None) -> None:
    label = {"metadata": {"labels": {"wants-trust": tenant}}}
    chosen = [f"{tenant}-a", f"{tenant}-b"]
    for namespace in chosen:
        system.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, **label["metadata"]}})
    selector = {"namespaceSelector": {"matchLabels": {"wants-trust": tenant}}}
    ask(system, "EstClusterIssuer", tenant, None, {"name": f"{tenant}-roots", **selector})
    ask(system, "EstIssuer", "factory", tenant, {"name": f"{tenant}-own"})

    made = until_config_maps(system, f"{tenant}-roots", *chosen)
    (pem,) = {item["data"]["ca.crt"] for item in made.values()}
    name = f"estclusterissuers.est-issuer.io:{tenant}:live"
    wait_for(name, lambda: bundle(system, name) is not None)
    cluster_bundle = bundle(system, name)
    assert cluster_bundle is not None
    assert cluster_bundle["spec"]["trustBundle"] == pem
    until_config_maps(system, f"{tenant}-own", tenant)

    ask(system, "EstIssuer", "factory", tenant, None)
    until_config_maps(system, f"{tenant}-own")
    system.api.kubectl("delete", "estclusterissuer", tenant)
    until_config_maps(system, f"{tenant}-roots")


def test_a_config_map_that_is_not_ours_stays_and_the_issuer_that_wants_its_place_is_told(
    system: System, tenant: str, with_config_maps: None
) -> None:
    theirs = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "theirs", "namespace": tenant}, "data": {"ca.crt": "theirs"}}
    system.api.apply(theirs)
    ask(system, "EstIssuer", "factory", tenant, {"name": "theirs"})
    wait_for("the Event", lambda: "TrustNotPublished" in system.events(tenant, "factory"), what=lambda: system.events(tenant, "factory"))
    assert system.api.kubectl("get", "configmap", "theirs", "-n", tenant, "-o", "jsonpath={.data}") == '{"ca.crt":"theirs"}'
    assert "not ours" in system.api.kubectl("describe", "estissuer", "factory", "-n", tenant)


def test_a_namespace_that_ends_and_takes_no_config_map_keeps_no_new_root_from_another(
    system: System, tenant: str, config_map_rights: None
) -> None:
    """The API server answers 403 there, as over a quota or a policy of that namespace."""
    system.end_shared_operator()
    old, new, ending = living_ca("old"), living_ca("new"), system.tenant(f"{tenant}-ending")
    ca_secret(system, tenant, old)
    operator = system.start_operator("beside-ending", trust_config_maps="true")
    ask(system, "EstIssuer", "factory", tenant, {"name": f"{tenant}-own"})
    ask(system, "EstIssuer", "factory", ending, {"name": f"{tenant}-ending"})
    until_config_maps(system, f"{tenant}-own", tenant)
    until_config_maps(system, f"{tenant}-ending", ending)
    system.api.kubectl("delete", "namespace", ending, "--wait=false")  # nobody empties it here
    system.api.kubectl("-n", ending, "delete", "configmap", f"{tenant}-ending")
    assert operator.terminate() == 0
    operator = system.start_operator("beside-ending", trust_config_maps="true")
    wait_for(
        "the refusal", lambda: f"object={ending}/{tenant}-ending" in operator.log.read_text().rpartition("listening")[2], log=operator.log
    )
    ca_secret(system, tenant, new)
    since = time.monotonic()
    due = b"".join(pki.pem(ca.certificate) for ca in (new, old)).decode()
    wait_for("both roots", lambda: config_maps(system, f"{tenant}-own")[tenant]["data"] == {"ca.crt": due}, log=operator.log)
    assert time.monotonic() - since < 20
    assert system.metric(operator, 'est_operator_trust_open{kind="ConfigMap"}') == 1
    assert operator.terminate() == 0


def test_without_bundles_config_maps_keep_the_root_that_was_replaced_also_over_a_restart(
    system: System, tenant: str, config_map_rights: None
) -> None:
    """As where the API server has no ClusterTrustBundles, for which ConfigMaps are."""
    system.end_shared_operator()

    def pem_of(*cas: pki.Ca) -> str:
        return b"".join(pki.pem(ca.certificate) for ca in cas).decode()

    def until_config_map(content: str) -> None:
        wait_for(
            "the ConfigMap",
            lambda: config_maps(system, f"{tenant}-own").get(tenant, {}).get("data") == {"ca.crt": content},
            what=lambda: config_maps(system, f"{tenant}-own"),
            log=system.directory / "without-bundles.log",
        )

    old, new = living_ca("old"), living_ca("new")
    ca_secret(system, tenant, old)
    operator = system.start_operator("without-bundles", trust_config_maps="true", cluster_trust_bundles="false")
    ask(system, "EstIssuer", "factory", tenant, {"name": f"{tenant}-own"})
    until_config_map(pem_of(old))
    uid = system.api.kubectl("-n", tenant, "get", "estissuer", "factory", "-o", "jsonpath={.metadata.uid}")
    memory = f"est-issuer-roots-{uid}"
    until_config_maps(system, memory, system.namespace)
    assert operator.terminate() == 0
    ca_secret(system, tenant, new)
    operator = system.start_operator("without-bundles", trust_config_maps="true", cluster_trust_bundles="false")
    until_config_map(pem_of(new, old))
    assert operator.terminate() == 0
    system.api.kubectl("-n", system.namespace, "delete", "configmap", memory)
    operator = system.start_operator("without-bundles", trust_config_maps="true", cluster_trust_bundles="false")
    until_config_map(pem_of(new))
    system.api.kubectl("-n", tenant, "delete", "estissuer", "factory")
    until_config_maps(system, memory)
    until_config_maps(system, f"{tenant}-own")
    assert operator.terminate() == 0


def test_a_config_map_that_is_somebody_elses_is_left(system: System, tenant: str, with_config_maps: None) -> None:
    system.api.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "kube-root-ca.crt", "namespace": tenant},
            "data": {"ca.crt": "theirs"},
        }
    )
    ask(system, "EstIssuer", "factory", tenant, {"name": "kube-root-ca.crt"})
    log = system.directory / "with-config-maps.log"
    wait_for("the line in the log", lambda: f"{tenant}/kube-root-ca.crt" in log.read_text())
    assert config_maps(system, "kube-root-ca.crt")[tenant]["data"] == {"ca.crt": "theirs"}


@pytest.mark.parametrize(
    ("kind", "config_map", "said"),
    [
        ("EstIssuer", {"name": "roots", "namespaceSelector": {}}, "an EstIssuer gives its trust to its own namespace"),
        ("EstClusterIssuer", {"name": "roots"}, "say by namespaceSelector which namespaces get the ConfigMap"),
        (
            "EstClusterIssuer",
            {"name": "roots", "namespaceSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}},
            "values goes with In and NotIn",
        ),
    ],
)
def test_the_api_server_refuses_a_selector_where_it_means_nothing(
    system: System, tenant: str, kind: str, config_map: Object, said: str
) -> None:
    with pytest.raises(RuntimeError, match=said):
        ask(system, kind, "refused", tenant if kind == "EstIssuer" else None, config_map)
