"""The least that an operator with kopf can do for a request: take its event, and write a status by one server-side apply.

Nothing is enrolled: what est-issuer needs beyond this is its own. Arguments: group, version, plural and the kubeconfig's context.
"""

import sys
from typing import Any

import kopf
from kubernetes.aio import client, config

GROUP, VERSION, PLURAL, CONTEXT = sys.argv[1:5]
PEM_OCTETS = 1400
STATUS = {
    "conditions": [
        {
            "type": "Ready",
            "status": "True",
            "reason": "Issued",
            "message": "Certificate fetched from issuer successfully",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
    ],
    "certificate": "QQ" * (PEM_OCTETS // 2),
    "ca": "QQ" * (PEM_OCTETS // 4),
}


@kopf.on.startup()
async def start(memo: kopf.Memo, settings: kopf.OperatorSettings, **_: Any) -> None:
    configuration = client.Configuration()
    await config.load_kube_config(context=CONTEXT, client_configuration=configuration)  # type: ignore[no-untyped-call]
    configuration.client_session_kwargs = {"trust_env": False}
    memo.api = client.ApiClient(configuration)
    settings.posting.enabled = False


@kopf.on.event(GROUP, VERSION, PLURAL)
async def on_request(event: kopf.RawEvent, memo: kopf.Memo, name: str, namespace: str | None, body: kopf.Body, **_: Any) -> None:
    if event["type"] == "DELETED" or body.get("status"):
        return
    applied = {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": body["kind"],
        "metadata": {"name": name, "namespace": namespace, "resourceVersion": body["metadata"]["resourceVersion"]},
        "status": STATUS,
    }
    request = await memo.api.param_serialize(
        "PATCH",
        f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{PLURAL}/{name}/status",
        query_params=[("fieldManager", "apply-alone"), ("force", "true")],
        header_params={"Content-Type": "application/apply-patch+yaml", "Accept": "application/json"},
        body=applied,
    )
    answer = await memo.api.call_api(*request)
    await answer.read()
    if answer.status != 200:
        raise RuntimeError(f"{name}: {answer.status}")


if __name__ == "__main__":
    kopf.configure(quiet=True)
    kopf.run(clusterwide=True, standalone=True)
