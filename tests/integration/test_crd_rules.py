"""What a real API server refuses of an issuer's manifest, before any program of ours sees it."""

import json
from typing import Any

import pytest

from tests.integration.apiserver import ApiServer

NAMESPACE = "crd-rules"
SECRET = {"secretName": "x"}


def issuer(**spec: Any) -> str:
    metadata = {"name": "made", "namespace": NAMESPACE}
    return json.dumps({"apiVersion": "est-issuer.io/v1alpha1", "kind": "EstIssuer", "metadata": metadata, "spec": {"ca": SECRET, **spec}})


def authentication(**way: Any) -> dict[str, Any]:
    return {"est": {"authentication": [way]}}


@pytest.mark.parametrize(
    "spec",
    [
        {},
        authentication(certificate={"issuedBy": "this", "expiredFor": "168h"}),
        authentication(certificate={"caSecretName": "roots"}, basic=SECRET),
        authentication(certificate={"issuedBy": "this"}, oneTimePassword=SECRET),
        authentication(digest={**SECRET, "md5": True}),
        authentication(cmcSharedSecret=SECRET),
        {"est": {"labels": ["ca:12", "renew"], "csrAttributes": "None", "writtenCsrAttributes": {"oids": ["1.2.840.113549.1.9.7"]}}},
        {"est": {"approval": "Manual", "approvalWithin": "24h", "serverKeyGeneration": {"enabled": True, "wrappingKeys": SECRET}}},
        {"policy": {"isCA": True, "keyReuse": "Forbidden", "nameChange": "ByRules"}},
        {"authorization": {"webhook": {"url": "https://policy.example/est", "caBundle": "pem"}}},
    ],
)
def test_a_manifest_with_the_fields_of_est_is_taken(apiserver: ApiServer, spec: dict[str, Any]) -> None:
    apiserver.ensure_namespace(NAMESPACE)
    apiserver.kubectl("apply", "--dry-run=server", "-f", "-", stdin=issuer(**spec))


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        (authentication(certificate={"caSecretName": "roots", "expiredFor": "1h"}), "expiredFor goes with issuedBy"),
        (authentication(basic=SECRET, digest=SECRET), "set exactly one of certificate"),
        (authentication(certificate={"issuedBy": "this"}, serviceAccountToken={}), "set exactly one of certificate"),
        (authentication(certificate={"issuedBy": "this"}, basic=SECRET, digest=SECRET), "set exactly one of certificate"),
        ({"est": {"labels": ["csrattrs"]}}, "the name of an EST operation"),
        ({"est": {"writtenCsrAttributes": {}}}, "set exactly one of der and oids"),
        ({"authorization": {"exec": {"command": ["/bin/sh"]}}}, "runs for a directory of manifests only"),
        ({"authorization": {}}, "set webhook"),
        ({"signer": {"exec": {"command": ["/bin/sh"]}}}, "runs for a directory of manifests only"),
        ({"authorization": {"webhook": {"url": "http://plain.example", "caBundle": "pem"}}}, "url"),
    ],
)
def test_a_manifest_that_contradicts_itself_or_runs_a_program_is_refused_with_a_sentence(
    apiserver: ApiServer, spec: dict[str, Any], why: str
) -> None:
    apiserver.ensure_namespace(NAMESPACE)
    with pytest.raises(RuntimeError, match=why):
        apiserver.kubectl("apply", "--dry-run=server", "-f", "-", stdin=issuer(**spec))
