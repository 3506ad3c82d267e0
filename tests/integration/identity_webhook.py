"""What of cert-manager's webhook the operator relies on: a CertificateRequest says of nobody but who makes it that they ask.

The check is as cert-manager's own (internal/apis/certmanager/validation/certificaterequest.go), the ValidatingWebhookConfiguration as
that of its chart, but for where it is asked.
"""

import base64
import json
from types import TracebackType
from typing import Any, Self

from tests.integration.apiserver import ApiServer
from tests.integration.https_server import Handler, HttpsServer

NAME = "cert-manager-webhook"


class _Review(Handler):
    """AdmissionReview of admission.k8s.io/v1."""

    def do_POST(self) -> None:  # noqa: N802  # the library's name
        request = json.loads(self.body())["request"]
        spec, user = request["object"]["spec"], request["userInfo"]
        allowed = spec.get("username") == user["username"] and sorted(spec.get("groups", [])) == sorted(user.get("groups", []))
        answer = {"uid": request["uid"], "allowed": allowed, "status": {"message": "spec.username and spec.groups must be the user's own"}}
        body = json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": answer}).encode()
        self.answer(200, "application/json", body)


class IdentityWebhook(HttpsServer):
    """In force while the context lasts, for the creation of requests in namespaces that do not switch it off."""

    def __init__(self, api: ApiServer) -> None:
        super().__init__(api, _Review)
        self._api = api

    def __enter__(self) -> Self:
        entered = super().__enter__()
        self._api.apply(self._configuration())
        return entered

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._api.kubectl("delete", "validatingwebhookconfiguration", NAME)
        super().__exit__(kind, error, trace)

    def _configuration(self) -> dict[str, Any]:
        off = {"key": "cert-manager.io/disable-validation", "operator": "NotIn", "values": ["true"]}
        rule = {
            "apiGroups": ["cert-manager.io", "acme.cert-manager.io"],
            "apiVersions": ["v1"],
            "operations": ["CREATE"],
            "resources": ["certificaterequests"],
        }
        client = {
            "url": f"https://127.0.0.1:{self.port}/validate",
            "caBundle": base64.b64encode(self._api.ca_pem).decode(),
        }
        webhook = {
            "name": "webhook.cert-manager.io",
            "namespaceSelector": {"matchExpressions": [off]},
            "rules": [rule],
            "admissionReviewVersions": ["v1"],
            "failurePolicy": "Fail",
            "sideEffects": "None",
            "clientConfig": client,
        }
        metadata = {"name": NAME}
        kind = "ValidatingWebhookConfiguration"
        return {"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": metadata, "webhooks": [webhook]}
