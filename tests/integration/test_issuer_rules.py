"""What the API server itself refuses in the spec of an issuer, before anybody reads it."""

import json
from typing import Any

import pytest

from tests.integration.apiserver import ApiServer

KEYGEN = {"enabled": True, "wrappingKeys": {"secretName": "wrapping-keys"}}


def est_issuer(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "est-issuer.io/v1alpha1",
        "kind": "EstIssuer",
        "metadata": {"name": name, "namespace": "rules"},
        "spec": {"ca": {"secretName": "ca"}, **spec},
    }


@pytest.fixture
def rules(apiserver: ApiServer) -> ApiServer:
    apiserver.ensure_namespace("rules")
    return apiserver


@pytest.mark.spec("EST-SKG-01", "EST-SKG-07")
def test_server_key_generation_is_off_and_encrypted_by_default(rules: ApiServer) -> None:
    rules.apply(est_issuer("plain"), est_issuer("on", est={"serverKeyGeneration": KEYGEN}))
    path = "jsonpath={.spec.est.serverKeyGeneration.enabled} {.spec.est.serverKeyGeneration.encryption}"
    assert rules.kubectl("get", "estissuer", "plain", "-n", "rules", "-o", path) == "false Required"
    assert rules.kubectl("get", "estissuer", "on", "-n", "rules", "-o", path) == "true Required"


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"est": {"serverKeyGeneration": {"enabled": True}}}, "encryption: Required needs wrappingKeys"),
        ({"est": {"serverKeyGeneration": KEYGEN}, "policy": {"keys": ["RSA-2048"]}}, "policy.keys lacks"),
    ],
)
def test_server_key_generation_that_could_never_answer_is_refused(rules: ApiServer, spec: dict[str, Any], why: str) -> None:
    with pytest.raises(RuntimeError, match=why):
        rules.apply(est_issuer("refused", **spec))


UPN = "1.3.6.1.4.1.311.20.2.3"


def test_a_rule_lists_other_names_by_type_and_value(rules: ApiServer) -> None:
    listed = [{"oid": UPN, "utf8Value": "*@domain.test"}] * 64
    rules.apply(est_issuer("named", policy={"rules": [{"otherNames": listed}] * 8}))
    path = "jsonpath={.spec.policy.rules[0].otherNames[0]}"
    assert json.loads(rules.kubectl("get", "estissuer", "named", "-n", "rules", "-o", path)) == listed[0]
    for other_name, why in (
        ({"oid": "1.3.06.1", "utf8Value": "a"}, "oid"),
        ({"oid": "upn", "utf8Value": "a"}, "oid"),
        ({"oid": UPN, "utf8Value": ""}, "utf8Value"),
        ({"oid": UPN}, "utf8Value: Required"),
        ({"utf8Value": "a"}, "oid: Required"),
        ({"oid": UPN, "value": "a"}, "value: field not declared in schema"),
    ):
        with pytest.raises(RuntimeError, match=why):
            rules.apply(est_issuer("refused", policy={"rules": [{"otherNames": [other_name]}]}))


def test_a_subject_has_one_pattern_or_a_list_for_an_attribute(rules: ApiServer) -> None:
    lists = {field: ["a"] * 64 for field in ("organizations", "organizationalUnits", "domainComponents")}
    rules.apply(est_issuer("listed", policy={"rules": [{"subject": {"commonName": "*", **lists}}] * 64}))
    for one in ("organization", "organizationalUnit", "domainComponent"):
        with pytest.raises(RuntimeError, match=f"put all patterns into {one}s, and leave {one} out"):
            rules.apply(est_issuer("refused", policy={"rules": [{"subject": {one: "a", f"{one}s": ["b"]}}]}))
    with pytest.raises(RuntimeError, match="at least 1 items"):
        rules.apply(est_issuer("refused", policy={"rules": [{"subject": {"organizations": []}}]}))


@pytest.mark.spec("THREAT-22")
def test_only_an_est_cluster_issuer_says_which_namespaces_may_name_it(rules: ApiServer) -> None:
    with pytest.raises(RuntimeError, match="an EstIssuer serves its own namespace"):
        rules.apply(est_issuer("refused", allowedNamespaces={}))
    selector = {"matchExpressions": [{"key": "team", "operator": "In", "values": ["a", "b"]}]}
    fleet = {**est_issuer("fleet", allowedNamespaces=selector), "kind": "EstClusterIssuer", "metadata": {"name": "fleet"}}
    rules.apply(fleet)
    try:
        said = rules.kubectl("get", "estclusterissuer", "fleet", "-o", "jsonpath={.spec.allowedNamespaces.matchExpressions[0].key}")
        assert said == "team"
    finally:
        rules.kubectl("delete", "estclusterissuer", "fleet")
