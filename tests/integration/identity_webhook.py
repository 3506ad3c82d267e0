"""What of cert-manager's webhook the operator relies on: a CertificateRequest says of nobody but who makes it that they ask.

The check is as cert-manager's own (internal/apis/certmanager/validation/certificaterequest.go), the ValidatingWebhookConfiguration as
that of its chart, but for where it is asked.
"""

import base64
import http.server
import json
import ssl
import threading
from types import TracebackType
from typing import Any, Self

from tests.integration.apiserver import ApiServer

NAME = "cert-manager-webhook"


class _Review(http.server.BaseHTTPRequestHandler):
    """AdmissionReview of admission.k8s.io/v1."""

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["request"]
        spec, user = request["object"]["spec"], request["userInfo"]
        allowed = spec.get("username") == user["username"] and sorted(spec.get("groups", [])) == sorted(user.get("groups", []))
        answer = {"uid": request["uid"], "allowed": allowed, "status": {"message": "spec.username and spec.groups must be the user's own"}}
        body = json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": answer}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002  # the library's name
        """Nothing to say."""


class IdentityWebhook:
    """In force while the context lasts, for the creation of requests in namespaces that do not switch it off."""

    def __init__(self, api: ApiServer) -> None:
        self._api = api
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(api.directory / "apiserver.crt", api.directory / "apiserver.key")
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Review)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
        self._api.apply(self._configuration())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._api.kubectl("delete", "validatingwebhookconfiguration", NAME)
        self._server.shutdown()
        self._server.server_close()

    def _configuration(self) -> dict[str, Any]:
        off = {"key": "cert-manager.io/disable-validation", "operator": "NotIn", "values": ["true"]}
        rule = {
            "apiGroups": ["cert-manager.io", "acme.cert-manager.io"],
            "apiVersions": ["v1"],
            "operations": ["CREATE"],
            "resources": ["certificaterequests"],
        }
        client = {
            "url": f"https://127.0.0.1:{self._server.server_address[1]}/validate",
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
