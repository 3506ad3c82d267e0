"""PodCertificateRequests and ClusterTrustBundles of Kubernetes 1.36, in v1beta1 only: an API server that emulates it."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519

from tests.integration.apiserver import ApiServer
from tests.integration.doorway import POD_CERTIFICATES, rules
from tests.integration.operator_system import System, condition, wait_for
from tests.integration.test_pod_certificates import stub

pytestmark = pytest.mark.timeout(180)

TENANT = "beta"
BETA = "certificates.k8s.io/v1beta1"
BUNDLE = f"estissuers.est-issuer.io:{TENANT}.factory:live"
OPTIONS = [
    "--emulated-version=kube=1.36",
    "--feature-gates=kube:PodCertificateRequest=true,kube:ClusterTrustBundle=true",
    f"--runtime-config={BETA}/podcertificaterequests=true,{BETA}/clustertrustbundles=true",
]


@pytest.fixture(scope="module")
def beta(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    server = ApiServer(tmp_path_factory.mktemp("beta-apiserver"), options=OPTIONS)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def system(beta: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    directory: Path = tmp_path_factory.mktemp("beta")
    started = System(beta, directory, "est-beta-system")
    started.tenant(TENANT)
    started.issuer(TENANT, rules=rules(TENANT), duration={"default": "12h", "max": "24h"}, keys=["ECDSA-P256"])
    started.shared_operator()
    started.until_reason("estissuers", TENANT, "factory", "Checked")
    yield started
    started.stop()


def test_this_api_server_has_both_kinds_in_v1beta1_alone(system: System) -> None:
    """Or the other tests here would show nothing."""
    served = system.api.kubectl("api-resources", "--api-group=certificates.k8s.io", "--no-headers").splitlines()
    versions = {line.split()[0]: next(field for field in line.split() if "/" in field) for line in served}
    assert versions == {
        "certificatesigningrequests": "certificates.k8s.io/v1",
        "clustertrustbundles": BETA,
        "podcertificaterequests": BETA,
    }


def ask(system: System, name: str, **spec: object) -> None:
    made = POD_CERTIFICATES.manifest(TENANT, name, "factory", name) | {"apiVersion": BETA}
    made["spec"] |= spec
    system.api.apply(made)


def test_a_pod_gets_its_certificate_in_v1beta1(system: System) -> None:
    """Contract 3b, points 2 and 4, as the API server checks them in that version too."""
    ask(system, "web-0")
    leaf = POD_CERTIFICATES.until_issued(system, TENANT, "web-0")
    found = POD_CERTIFICATES.until_ended(system, TENANT, "web-0")
    status = found["status"]
    assert found["apiVersion"] == BETA
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)
    assert names == [f"web.{TENANT}.svc"]
    begin, refresh, end = (datetime.fromisoformat(status[name]) for name in ("notBefore", "beginRefreshAt", "notAfter"))
    assert (begin, end) == (leaf.not_valid_before_utc, leaf.not_valid_after_utc)
    assert (refresh - begin, end - begin) == (timedelta(hours=8), timedelta(hours=12))
    assert abs(datetime.now(UTC) - begin) < timedelta(minutes=5)


def test_what_no_pod_may_have_is_denied_in_v1beta1(system: System) -> None:
    """Contract 3b, points 3 and 5."""
    ask(system, "key", stubPKCS10Request=stub(ed25519.Ed25519PrivateKey.generate()))
    ask(system, "annotated", unverifiedUserAnnotations={"example.com/names": "admin"})
    for name, reason in (("key", "UnsupportedKeyType"), ("annotated", "InvalidUnverifiedUserAnnotations")):
        status = POD_CERTIFICATES.until_ended(system, TENANT, name)["status"]
        assert status.keys() == {"conditions"}
        assert condition(status, "Denied")["reason"] == reason


def test_a_passing_fault_writes_nothing_in_v1beta1_either(system: System) -> None:
    """Contract 3b, point 5."""
    ask(system, "early", signerName=f"estissuers.est-issuer.io/{TENANT}.later")
    POD_CERTIFICATES.until_told(system, TENANT, "early", "IssuerNotFound")
    assert not (POD_CERTIFICATES.get(system, TENANT, "early") or {}).get("status")
    system.issuer(TENANT, "later", rules=rules(TENANT))
    POD_CERTIFICATES.until_issued(system, TENANT, "early")


def test_the_issuers_trust_is_published_in_v1beta1(system: System) -> None:
    """Contract 3c."""
    wait_for("the bundle", lambda: BUNDLE in system.api.kubectl("get", "clustertrustbundles.v1beta1.certificates.k8s.io", "-o", "name"))
