"""The rights that the chart gives to estserver's ServiceAccount, given to one here."""

from pathlib import Path

from tests.integration.apiserver import ApiServer

RBAC = "rbac.authorization.k8s.io"


def estserver_kubeconfig(
    server: ApiServer, namespace: str, *, release: str = "est-issuer", secret_namespaces: tuple[str, ...] = ()
) -> Path:
    """A kubeconfig of ServiceAccount `estserver` in `namespace`, with the rules of the chart and no other."""
    kubeconfig = server.kubeconfig_for(namespace, "estserver")
    subject = {"kind": "ServiceAccount", "name": "estserver", "namespace": namespace}
    cluster_rules = [
        {"apiGroups": ["est-issuer.io"], "resources": ["estissuers", "estclusterissuers"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
        {"apiGroups": ["est-issuer.io"], "resources": ["certificaterequests"], "verbs": ["list", "watch", "create", "delete"]},
    ]
    own_rules = [
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "update"], "resourceNames": [f"{release}-serving"]},
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "update"], "resourceNames": [f"{release}-serving-ca"]},
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create"]},
    ]
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
    """What the chart value `secretNamespaces` does for one namespace."""
    server.ensure_namespace(namespace)
    rules = [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list", "watch", "create"]}]
    server.apply(*_role("estserver-secrets", namespace, rules, subject))


def forbid_secrets(server: ApiServer, namespace: str) -> None:
    server.kubectl("delete", "rolebinding", "estserver-secrets", "-n", namespace)


def _role(name: str, namespace: str, rules: list[dict[str, list[str]]], subject: dict[str, str]) -> tuple[object, object]:
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
