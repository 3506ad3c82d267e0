"""The chart's ValidatingAdmissionPolicy and approver role on the tests' API server, for the namespaces of the tests that want them."""

import json
import subprocess

from tests.chart.rendering import render
from tests.integration.apiserver import ApiServer
from tests.integration.operator_system import wait_for
from tests.integration.rights import RBAC

SERVER, OPERATOR = "estserver", "operator"


class Admission:
    """The policy of a release in `namespace`, whose ServiceAccounts are SERVER and OPERATOR. `guard` puts a namespace under it."""

    def __init__(self, api: ApiServer, namespace: str) -> None:
        self.api, self.namespace = api, namespace
        self.label = f"guarded-by-{namespace}"
        accounts = {"server": {"serviceAccount": {"name": SERVER}}, "operator": {"serviceAccount": {"name": OPERATOR}}}
        for manifest in render({**accounts, "fullnameOverride": namespace}, namespace=namespace):
            if manifest["kind"] == "ValidatingAdmissionPolicyBinding":
                # only here: other tests on this API server run under other names
                manifest["spec"]["matchResources"] = {"namespaceSelector": {"matchLabels": {self.label: "true"}}}
            if manifest["metadata"]["name"] in {f"{namespace}-certificaterequests", f"{namespace}-approver"}:
                api.apply(manifest)

    def guard(self, namespace: str) -> None:
        """Make the namespace, and wait until the policy holds in it."""
        self.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": {self.label: "true"}}})

        def refused() -> bool:
            probe = request(namespace, "probe", username="forged")
            done = self.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(probe))
            return done.returncode != 0 and "must be those of the user" in done.stderr

        wait_for(f"the policy in {namespace}", refused)

    def kubectl(self, *arguments: str, user: str = "", stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run kubectl, as a user (`<namespace>/<ServiceAccount>`, or a name) or as the administrator; the caller judges the outcome."""
        as_user = []
        if user:
            namespace, _, account = user.rpartition("/")
            name = f"system:serviceaccount:{namespace}:{account}" if namespace else user
            as_user = [f"--as={name}", "--as-group=system:authenticated"]
        return subprocess.run(
            [str(self.api.kubectl_path), f"--kubeconfig={self.api.kubeconfig}", *as_user, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def bind(self, role: str, user: str, *, namespace: str | None) -> None:
        """Bind a ClusterRole to a user in one namespace, or in the whole cluster."""
        kind = "RoleBinding" if namespace else "ClusterRoleBinding"
        where, _, account = user.rpartition("/")
        subject = {"kind": "ServiceAccount", "name": account, "namespace": where}
        self.api.apply(
            {
                "apiVersion": f"{RBAC}/v1",
                "kind": kind,
                "metadata": {"name": f"{role}-{where}-{account}", **({"namespace": namespace} if namespace else {})},
                "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": role},
                "subjects": [subject if where else {"apiGroup": RBAC, "kind": "User", "name": user}],
            }
        )


def request(namespace: str, name: str, *, kind: str = "EstIssuer", **spec: object) -> dict[str, object]:
    return {
        "apiVersion": "est-issuer.io/v1alpha1",
        "kind": "CertificateRequest",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"request": "Q1NS", "issuerRef": {"group": "est-issuer.io", "kind": kind, "name": "factory"}, **spec},
    }
