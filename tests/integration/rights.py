"""The rights that the chart gives to the programs' ServiceAccounts, given to others here: what the chart lacks fails these tests."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.chart.rendering import of_kind, render
from tests.integration.api_client import Object
from tests.integration.apiserver import ApiServer

RBAC = "rbac.authorization.k8s.io"


def chart_rules(
    kind: str, name: str, values: dict[str, Any] | None = None, *, renamed: Mapping[str, str] | None = None
) -> list[dict[str, list[str]]]:
    """The rules of one of the chart's roles; `renamed` is for names of objects that a test calls otherwise."""
    text = json.dumps(of_kind(render(values), kind)[name]["rules"])
    for there, here in (renamed or {}).items():
        text = text.replace(json.dumps(there), json.dumps(here))
    rules: list[dict[str, list[str]]] = json.loads(text)
    return rules


def estserver_kubeconfig(
    server: ApiServer, namespace: str, *, release: str = "est-issuer", secret_namespaces: tuple[str, ...] = ()
) -> Path:
    """A kubeconfig of ServiceAccount `estserver` in `namespace`, with the rules of the chart and no other."""
    kubeconfig = server.kubeconfig_for(namespace, "estserver")
    subject = {"kind": "ServiceAccount", "name": "estserver", "namespace": namespace}
    renamed = {"est-issuer-serving": f"{release}-serving", "est-issuer-serving-ca": f"{release}-serving-ca"}
    cluster_rules = chart_rules("ClusterRole", "est-issuer-server")
    own_rules = chart_rules("Role", "est-issuer-server", renamed=renamed)
    server.apply(
        {"apiVersion": f"{RBAC}/v1", "kind": "ClusterRole", "metadata": {"name": f"estserver-{namespace}"}, "rules": cluster_rules},
        {
            "apiVersion": f"{RBAC}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": f"estserver-{namespace}"},
            "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": f"estserver-{namespace}"},
            "subjects": [subject],
        },
        *_role("estserver", namespace, own_rules, subject),
    )
    for secret_namespace in (namespace, *secret_namespaces):
        allow_secrets(server, secret_namespace, subject)
    return kubeconfig


def allow_secrets(server: ApiServer, namespace: str, subject: dict[str, str]) -> None:
    """What the chart value `secretNamespaces` does for one namespace; when this returns the API server goes by it."""
    server.ensure_namespace(namespace)
    server.apply(*_role("estserver-secrets", namespace, chart_rules("Role", "est-issuer-server-secrets"), subject))
    asked = {
        "user": f"system:serviceaccount:{subject['namespace']}:{subject['name']}",
        "resourceAttributes": {"namespace": namespace, "verb": "list", "resource": "secrets"},
    }
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": asked}
    deadline = time.monotonic() + 20
    while not server.client.call("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", review)["status"]["allowed"]:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{asked['user']} may not list Secrets in {namespace} after 20 s")
        time.sleep(0.02)


def forbid_secrets(server: ApiServer, namespace: str) -> None:
    server.kubectl("delete", "rolebinding", "estserver-secrets", "-n", namespace)


def _role(name: str, namespace: str, rules: list[dict[str, list[str]]], subject: dict[str, str]) -> tuple[Object, Object]:
    return (
        {"apiVersion": f"{RBAC}/v1", "kind": "Role", "metadata": {"name": name, "namespace": namespace}, "rules": rules},
        {
            "apiVersion": f"{RBAC}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": name, "namespace": namespace},
            "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": name},
            "subjects": [subject],
        },
    )
