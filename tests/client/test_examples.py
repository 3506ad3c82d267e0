"""What examples/ and docs/ show fits together; that it works is shown by tests/interop and tests/e2e."""

import base64
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from estcore import issuer_spec, pkcs10
from estcore.issuer_spec import IssuerSpec
from estcore.registration import authorize
from estcore.requester import AuthenticatedBy, Door, Requester
from estserver import manifests

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def issuer() -> IssuerSpec:
    file = EXAMPLES / "issuer" / "estissuer.yaml"
    (manifest,) = manifests.parse(file.read_bytes(), where=str(file)).issuers
    return issuer_spec.parse(manifest.spec, where=str(file))


def test_the_issuer_and_its_secret_belong_together(issuer: IssuerSpec) -> None:
    file = EXAMPLES / "issuer" / "device-passwords.yaml"
    (secret,) = manifests.parse(file.read_bytes(), where=str(file)).secrets
    assert [way.basic.secret_name for way in issuer.est.authentication if way.basic] == [secret.name]
    assert secret.type == "kubernetes.io/basic-auth"


def test_the_issuer_permits_what_the_certificate_request_asks_for(issuer: IssuerSpec) -> None:
    request = yaml.safe_load((EXAMPLES / "kubernetes" / "certificaterequest.yaml").read_text())
    csr = x509.load_pem_x509_csr(base64.b64decode(request["spec"]["request"], validate=True))
    namespace = request["metadata"]["namespace"]
    requester = Requester(authenticated_by=AuthenticatedBy.KUBERNETES, identity=namespace, door=Door.EST_ISSUER, namespace=namespace)
    authorized = authorize(requester, pkcs10.parse(csr.public_bytes(Encoding.DER)), issuer.policy)
    assert [str(san.value) for san in authorized.sans] == ["web.devices.svc"]


@pytest.mark.parametrize("file", sorted(EXAMPLES.rglob("*.yaml")), ids=lambda file: file.name)
def test_every_manifest_is_of_the_namespace_that_the_issuer_is_in(file: Path) -> None:
    for manifest in yaml.safe_load_all(file.read_text()):
        assert manifest["metadata"]["namespace"] == "devices"
