"""Who may do what: the rights of each ServiceAccount, whole, so that none can slip in."""

import re
from collections import defaultdict
from typing import Any

import pytest
import yaml

import estoperator.object_reader
from tests.chart.rendering import CHART, FULL, NAMESPACE, of_kind, render

READ = ("get", "list", "watch")

SERVER = {
    "": {
        ("est-issuer.io", "estissuers", ""): ("list", "watch"),
        ("est-issuer.io", "estclusterissuers", ""): ("list", "watch"),
        ("authentication.k8s.io", "tokenreviews", ""): ("create",),
        ("est-issuer.io", "certificaterequests", ""): ("list", "watch", "create", "delete"),
    },
    NAMESPACE: {
        ("", "secrets", "est-issuer-serving"): ("get", "update"),
        ("", "secrets", ""): ("create", *READ),
        ("", "configmaps", "est-issuer-serving-ca"): ("get", "update"),
        ("", "configmaps", ""): ("create",),
    },
}
OPERATOR = {
    "": {
        ("est-issuer.io", "estissuers", ""): READ,
        ("est-issuer.io", "estclusterissuers", ""): READ,
        ("est-issuer.io", "estissuers/status", ""): ("patch",),
        ("est-issuer.io", "estclusterissuers/status", ""): ("patch",),
        ("est-issuer.io", "certificaterequests", ""): (*READ, "delete"),
        ("est-issuer.io", "certificaterequests/status", ""): ("patch",),
        ("cert-manager.io", "certificaterequests", ""): READ,
        ("cert-manager.io", "certificaterequests/status", ""): ("patch",),
        ("", "namespaces", ""): ("list", "watch"),
        ("events.k8s.io", "events", ""): ("create",),
        ("apiextensions.k8s.io", "customresourcedefinitions", ""): ("list", "watch"),
        ("admissionregistration.k8s.io", "validatingadmissionpolicies", "est-issuer-certificaterequests"): ("get",),
        ("admissionregistration.k8s.io", "validatingadmissionpolicybindings", "est-issuer-certificaterequests"): ("get",),
        ("admissionregistration.k8s.io", "validatingwebhookconfigurations", "cert-manager-webhook"): ("get",),
        ("certificates.k8s.io", "clustertrustbundles", ""): ("list", "create", "update", "delete"),
        ("certificates.k8s.io", "signers", "estissuers.est-issuer.io/*"): ("attest", "sign"),
        ("certificates.k8s.io", "signers", "estclusterissuers.est-issuer.io/*"): ("attest", "sign"),
        ("certificates.k8s.io", "certificatesigningrequests", ""): READ,
        ("certificates.k8s.io", "certificatesigningrequests/status", ""): ("patch",),
        ("certificates.k8s.io", "podcertificaterequests", ""): READ,
        ("certificates.k8s.io", "podcertificaterequests/status", ""): ("patch",),
        ("authorization.k8s.io", "subjectaccessreviews", ""): ("create",),
    },
    NAMESPACE: {
        ("coordination.k8s.io", "leases", "est-issuer-operator"): (*READ, "update"),
        ("coordination.k8s.io", "leases", ""): ("create",),
    },
}

NO_NATIVE_DOORS = {"signingRequests": False, "podCertificates": False}
Rights = dict[str, dict[tuple[str, str, str], tuple[str, ...]]]


def rights_of(account: str, objects: list[dict[str, Any]]) -> Rights:
    """Verbs by (group, resource, resource name), by namespace ("" is the whole cluster)."""
    found: Rights = defaultdict(dict)
    for kind in ("ClusterRole", "Role"):
        roles = of_kind(objects, kind)
        for name, binding in of_kind(objects, f"{kind}Binding").items():
            if {"kind": "ServiceAccount", "name": account, "namespace": NAMESPACE} not in binding["subjects"]:
                continue
            assert binding["roleRef"]["kind"] == kind
            prefix = name.rpartition("/")[0]
            role = roles[f"{prefix}/{binding['roleRef']['name']}" if prefix else binding["roleRef"]["name"]]
            namespace = binding["metadata"].get("namespace", "")
            for rule in role["rules"]:
                for group in rule["apiGroups"]:
                    for resource in rule["resources"]:
                        for one in rule.get("resourceNames", [""]):
                            assert (group, resource, one) not in found[namespace]
                            found[namespace][(group, resource, one)] = tuple(sorted(rule["verbs"]))
    return found


def in_order(rights: Any) -> Rights:
    return {namespace: {what: tuple(sorted(verbs)) for what, verbs in rules.items()} for namespace, rules in rights.items()}


@pytest.mark.spec("THREAT-26")
def test_estserver_may_do_this_and_nothing_more(default_objects: list[dict[str, Any]]) -> None:
    assert rights_of("est-issuer-server", default_objects) == in_order(SERVER)


@pytest.mark.spec("THREAT-26")
def test_the_operator_may_do_this_and_nothing_more(objects: list[dict[str, Any]]) -> None:
    assert rights_of("est-issuer-operator", objects) == in_order(OPERATOR)


@pytest.mark.spec("THREAT-26")
def test_config_maps_are_the_operators_only_where_the_value_says_so() -> None:
    configured = rights_of("est-issuer-operator", render({"trust": {"configMaps": {"enabled": True}}}))[""]
    assert set(configured[("", "configmaps", "")]) == {"list", "create", "update", "delete"}
    bare = rights_of("est-issuer-operator", render({"doors": NO_NATIVE_DOORS, "trust": {"clusterTrustBundles": {"enabled": False}}}))[""]
    assert ("", "configmaps", "") not in bare
    assert not {group for group, *_ in bare} & {"certificates.k8s.io"}


@pytest.mark.spec("THREAT-26")
def test_secrets_are_estservers_alone_and_only_in_the_namespaces_of_the_values() -> None:
    objects = render(FULL)
    assert not any(resource == "secrets" for rules in rights_of("est-issuer-operator", objects).values() for _, resource, _ in rules)
    rights = rights_of("est-issuer-server", objects)
    assert {namespace for namespace, rules in rights.items() if ("", "secrets", "") in rules} == {NAMESPACE, "devices", "lab"}
    assert {namespace for namespace, rules in rights.items() if ("", "configmaps", "est-issuer-serving-ca") in rules} == {
        NAMESPACE,
        "apps",
        "lab",
    }
    assert rights["apps"].keys() == {("", "configmaps", "est-issuer-serving-ca"), ("", "configmaps", "")}


@pytest.mark.spec("THREAT-26")
def test_no_role_has_a_wildcard_or_a_verb_that_widens_it(objects: list[dict[str, Any]]) -> None:
    for kind in ("ClusterRole", "Role"):
        for role in of_kind(objects, kind).values():
            for rule in role["rules"]:
                assert "*" not in rule["apiGroups"] + rule["resources"] + rule["verbs"]
                assert not {"escalate", "bind", "impersonate"} & set(rule["verbs"])


@pytest.mark.parametrize(
    ("door", "group", "plural"),
    [
        ("estIssuer", "est-issuer.io", "certificaterequests"),
        ("certManager", "cert-manager.io", "certificaterequests"),
        ("signingRequests", "certificates.k8s.io", "certificatesigningrequests"),
        ("podCertificates", "certificates.k8s.io", "podcertificaterequests"),
    ],
)
def test_a_door_that_is_off_is_not_permitted_either(door: str, group: str, plural: str) -> None:
    rights = rights_of("est-issuer-operator", render({"doors": {door: False}}))
    assert (group, plural, "") not in rights[""]
    assert (group, f"{plural}/status", "") not in rights[""]
    assert (("authorization.k8s.io", "subjectaccessreviews", "") in rights[""]) == (door != "signingRequests")
    webhook = ("admissionregistration.k8s.io", "validatingwebhookconfigurations", "cert-manager-webhook")
    assert rights[""].get(webhook) == (None if door == "certManager" else ("get",))


@pytest.mark.parametrize(("native", "bundles", "verbs"), [(True, False, ("sign",)), (False, True, ("attest",)), (False, False, None)])
def test_the_verbs_on_our_signers_follow_the_values(native: bool, bundles: bool, verbs: tuple[str, ...] | None) -> None:
    values = {
        "doors": {"signingRequests": native, "podCertificates": native},
        "trust": {"clusterTrustBundles": {"enabled": bundles}},
    }
    rights = rights_of("est-issuer-operator", render(values))
    assert rights[""].get(("certificates.k8s.io", "signers", "estissuers.est-issuer.io/*")) == verbs


@pytest.mark.spec("THREAT-23")
def test_cert_managers_approver_and_nobody_else_may_approve_for_both_kinds_of_issuer(objects: list[dict[str, Any]]) -> None:
    approving = approving_for("cert-manager.io", objects)
    assert [role["rules"] for role in approving] == [
        [
            {
                "apiGroups": ["cert-manager.io"],
                "resources": ["signers"],
                "verbs": ["approve"],
                "resourceNames": ["estissuers.est-issuer.io/*", "estclusterissuers.est-issuer.io/*"],
            }
        ]
    ]
    bindings = [
        binding
        for binding in of_kind(objects, "ClusterRoleBinding").values()
        if binding["roleRef"]["name"] == approving[0]["metadata"]["name"]
    ]
    assert [binding["subjects"] for binding in bindings] == [
        [{"kind": "ServiceAccount", "name": "cert-manager", "namespace": "cert-manager"}]
    ]


def test_other_approvers_of_cert_managers_requests_are_those_of_the_values() -> None:
    objects = render({"certManager": {"approver": {"serviceAccounts": ["cert-manager/approver-policy"]}}})
    subjects = of_kind(objects, "ClusterRoleBinding")["est-issuer-cert-manager-approver"]["subjects"]
    assert [subject["name"] for subject in subjects] == ["cert-manager", "approver-policy"]
    assert subjects[1] == {"kind": "ServiceAccount", "name": "approver-policy", "namespace": "cert-manager"}


def test_who_decides_at_every_issuer_is_in_the_values() -> None:
    approvers = [{"kind": "Group", "name": "pki-team"}, {"kind": "ServiceAccount", "name": "checker", "namespace": "pki"}]
    binding = of_kind(render({"approval": {"approvers": approvers}}), "ClusterRoleBinding")["est-issuer-approver"]
    assert binding["roleRef"]["name"] == "est-issuer-approver"
    assert binding["subjects"] == [approvers[0] | {"apiGroup": "rbac.authorization.k8s.io"}, approvers[1]]


@pytest.mark.parametrize("values", [{"doors": {"certManager": False}}, {"certManager": {"approver": {"enabled": False}}}])
def test_without_the_door_or_by_choice_nobody_may_approve(values: dict[str, Any]) -> None:
    assert approving_for("cert-manager.io", render(values)) == []


def approving_for(group: str, objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The ClusterRoles that give the verb approve on signers of an API group."""
    roles = [*of_kind(objects, "ClusterRole").values(), *of_kind(objects, "Role").values()]
    return [role for role in roles for rule in role["rules"] if "approve" in rule["verbs"] and group in rule["apiGroups"]]


@pytest.mark.spec("THREAT-23")
def test_the_approver_role_is_for_requests_of_est_issuer_alone_and_bound_to_nobody(objects: list[dict[str, Any]]) -> None:
    (role,) = approving_for("est-issuer.io", objects)
    assert role["metadata"]["name"] == "est-issuer-approver"
    assert {(rule["resources"][0], *rule["verbs"]) for rule in role["rules"]} == {
        ("certificaterequests", "get", "list", "watch"),
        ("certificaterequests/status", "get", "patch"),
        ("signers", "approve"),
    }
    assert {group for rule in role["rules"] for group in rule["apiGroups"]} == {"est-issuer.io"}
    bindings = [*of_kind(objects, "ClusterRoleBinding").values(), *of_kind(objects, "RoleBinding").values()]
    assert not [binding for binding in bindings if binding["roleRef"]["name"] == "est-issuer-approver"]
    assert approving_for("est-issuer.io", render({"approval": {"approverRole": False}})) == []


@pytest.mark.spec("THREAT-24")
def test_the_policy_refuses_when_it_cannot_be_evaluated_and_holds_in_every_namespace(objects: list[dict[str, Any]]) -> None:
    policy = of_kind(objects, "ValidatingAdmissionPolicy")["est-issuer-certificaterequests"]
    binding = of_kind(objects, "ValidatingAdmissionPolicyBinding")["est-issuer-certificaterequests"]
    assert policy["spec"]["failurePolicy"] == "Fail"
    assert policy["spec"]["matchConstraints"]["resourceRules"] == [
        {
            "apiGroups": ["est-issuer.io"],
            "apiVersions": ["*"],
            "resources": ["certificaterequests", "certificaterequests/status"],
            "operations": ["CREATE", "UPDATE", "DELETE"],
        }
    ]
    assert binding["spec"] == {"policyName": policy["metadata"]["name"], "validationActions": ["Deny"]}


@pytest.mark.spec("THREAT-01", "THREAT-23")
def test_every_annotation_that_the_operator_honours_is_held_to_what_it_was_at_creation() -> None:
    template = (CHART / "templates" / "signingrequests-admissionpolicy.yaml").read_text()
    (honoured,) = re.findall(r"- name: honoured\n +expression: \"(.*)\"\n", template)
    assert set(yaml.safe_load(honoured)) == {key for name, key in vars(estoperator.object_reader).items() if name.endswith("_ANNOTATION")}


@pytest.mark.spec("THREAT-23")
def test_the_policy_of_signing_requests_refuses_when_it_cannot_be_evaluated_and_sees_every_update(objects: list[dict[str, Any]]) -> None:
    policy = of_kind(objects, "ValidatingAdmissionPolicy")["est-issuer-signingrequests"]["spec"]
    binding = of_kind(objects, "ValidatingAdmissionPolicyBinding")["est-issuer-signingrequests"]["spec"]
    assert policy["failurePolicy"] == "Fail"
    assert policy["matchConstraints"]["resourceRules"] == [
        {
            "apiGroups": ["certificates.k8s.io"],
            "apiVersions": ["*"],
            "resources": [f"certificatesigningrequests{part}" for part in ("", "/approval", "/status")],
            "operations": ["UPDATE"],
        }
    ]
    assert binding == {"policyName": "est-issuer-signingrequests", "validationActions": ["Deny"]}


@pytest.mark.parametrize(
    "values", [{"doors": {"signingRequests": False}}, {"approval": {"admissionPolicy": False}}], ids=["door", "policy"]
)
def test_signing_requests_are_held_by_a_policy_only_where_their_door_and_policies_are_on(values: dict[str, Any]) -> None:
    objects = render(values)
    for kind in ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"):
        assert "est-issuer-signingrequests" not in of_kind(objects, kind)
        assert ("est-issuer-certificaterequests" in of_kind(objects, kind)) is ("doors" in values)


def test_people_who_read_a_namespace_see_its_issuers_and_who_reads_the_cluster_sees_its_own(objects: list[dict[str, Any]]) -> None:
    roles = of_kind(objects, "ClusterRole")
    for name, label, resources in (
        ("est-issuer-view", "view", ["estissuers", "certificaterequests"]),
        ("est-issuer-cluster-view", "cluster-reader", ["estclusterissuers"]),
    ):
        assert roles[name]["metadata"]["labels"][f"rbac.authorization.k8s.io/aggregate-to-{label}"] == "true"
        assert roles[name]["rules"] == [{"apiGroups": ["est-issuer.io"], "resources": resources, "verbs": list(READ)}]
    assert (
        not {"est-issuer-view", "est-issuer-edit", "est-issuer-cluster-view"}
        & of_kind(render({"rbac": {"aggregate": False}}), "ClusterRole").keys()
    )


def test_what_the_policy_says_to_another_releases_operator_names_the_one_that_may() -> None:
    objects = render({"operator": {"serviceAccount": {"name": "asker"}}})
    policy = of_kind(objects, "ValidatingAdmissionPolicy")["est-issuer-certificaterequests"]
    (said,) = [rule["message"] for rule in policy["spec"]["validations"] if "only est-issuer's operator writes" in rule["message"]]
    assert f"here it is system:serviceaccount:{NAMESPACE}:asker" in said


def test_without_objects_estserver_has_no_right_on_requests_and_is_told_so() -> None:
    objects = render({"approval": {"objects": False, "admissionPolicy": False}})
    assert ("est-issuer.io", "certificaterequests", "") not in rights_of("est-issuer-server", objects)[""]
    (container,) = of_kind(objects, "StatefulSet")["est-issuer-server"]["spec"]["template"]["spec"]["containers"]
    assert {"name": "EST_APPROVAL_OBJECTS", "value": "false"} in container["env"]
    assert of_kind(objects, "ValidatingAdmissionPolicy") == of_kind(objects, "ValidatingAdmissionPolicyBinding") == {}
