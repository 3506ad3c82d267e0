"""What the two programs' Pods are, and what they may not be."""

from typing import Any

import pytest

from tests.chart.rendering import FULL, NAMESPACE, of_kind, render

ALLOWED_VOLUMES = {"configMap", "downwardAPI", "emptyDir", "persistentVolumeClaim", "projected", "secret"}


def pod_specs(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    specs = {name: manifest["spec"] for name, manifest in of_kind(objects, "Pod").items()}
    for kind in ("StatefulSet", "Deployment"):
        specs |= {name: manifest["spec"]["template"]["spec"] for name, manifest in of_kind(objects, kind).items()}
    return specs


def server(objects: list[dict[str, Any]]) -> dict[str, Any]:
    return pod_specs(objects)["est-issuer-server"]


def operator(objects: list[dict[str, Any]]) -> dict[str, Any]:
    return pod_specs(objects)["est-issuer-operator"]


def environment(pod: dict[str, Any]) -> dict[str, str | None]:
    """Value by name; None where it comes from a field or a Secret."""
    variables = pod["containers"][0]["env"]
    assert len({variable["name"] for variable in variables}) == len(variables)
    return {variable["name"]: variable.get("value") for variable in variables}


@pytest.mark.spec("THREAT-38")
def test_every_pod_is_restricted(objects: list[dict[str, Any]]) -> None:
    """Pod Security Standards, profile "restricted", and a read-only root besides."""
    specs = pod_specs(objects)
    assert len(specs) == 3
    for spec in specs.values():
        assert not any(spec.get(shared) for shared in ("hostNetwork", "hostPID", "hostIPC"))
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert all(set(volume) - {"name"} <= ALLOWED_VOLUMES for volume in spec["volumes"])
        for container in spec["containers"] + spec.get("initContainers", []):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert not any("hostPort" in port for port in container.get("ports", []))


def test_a_pod_runs_as_whom_the_cluster_chooses_where_the_values_say_nobody() -> None:
    nobody = {"runAsUser": None, "runAsGroup": None, "fsGroup": None, "fsGroupChangePolicy": None}
    fixed = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    for spec in pod_specs(render({"podSecurityContext": nobody})).values():
        assert spec["securityContext"] == fixed
    for spec in pod_specs(render({"podSecurityContext": nobody | {"runAsUser": 1_000_660_000, "fsGroup": 1_000_660_001}})).values():
        assert spec["securityContext"] == fixed | {"runAsUser": 1_000_660_000, "fsGroup": 1_000_660_001}
    for spec in pod_specs(render()).values():
        everybody = {"runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532, "fsGroupChangePolicy": "OnRootMismatch"}
        assert spec["securityContext"] == fixed | everybody


def test_no_pod_is_given_a_token_that_it_did_not_ask_for(objects: list[dict[str, Any]]) -> None:
    for spec in pod_specs(objects).values():
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
    for account in of_kind(objects, "ServiceAccount").values():
        assert account["automountServiceAccountToken"] is False


@pytest.mark.spec("THREAT-26")
def test_the_operators_pod_mounts_no_secret_and_no_ca(objects: list[dict[str, Any]]) -> None:
    pod = operator(objects)
    assert pod["serviceAccountName"] != server(objects)["serviceAccountName"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes.keys() == {"kubernetes-token", "est-token", "serving-ca"}
    assert volumes["serving-ca"]["configMap"]["name"] == "est-issuer-serving-ca"
    sources = volumes["kubernetes-token"]["projected"]["sources"] + volumes["est-token"]["projected"]["sources"]
    assert not any("secret" in source for source in sources)
    assert not any("secretKeyRef" in variable.get("valueFrom", {}) for variable in pod["containers"][0]["env"])


def test_the_operators_token_for_estserver_has_its_audience(objects: list[dict[str, Any]]) -> None:
    volumes = {volume["name"]: volume for volume in operator(objects)["volumes"]}
    assert [source["serviceAccountToken"]["audience"] for source in volumes["est-token"]["projected"]["sources"]] == ["est-issuer"]


def test_estserver_takes_the_operators_service_account_as_registration_authority(objects: list[dict[str, Any]]) -> None:
    accepted = (environment(server(objects))["EST_RA_SERVICE_ACCOUNTS"] or "").split(",")
    assert accepted[0] == f"{NAMESPACE}/{operator(objects)['serviceAccountName']}"


def test_further_registration_authorities_are_only_those_of_the_value() -> None:
    assert environment(server(render(FULL)))["EST_RA_SERVICE_ACCOUNTS"] == f"{NAMESPACE}/est-issuer-operator,other/registrar"


@pytest.mark.spec("THREAT-37")
def test_health_and_metrics_are_on_a_port_of_their_own(objects: list[dict[str, Any]]) -> None:
    services = of_kind(objects, "Service")
    assert [port["targetPort"] for port in services["est-issuer"]["spec"]["ports"]] == ["est"]
    for program in ("server", "operator"):
        assert [port["targetPort"] for port in services[f"est-issuer-{program}-metrics"]["spec"]["ports"]] == ["metrics"]
        assert services[f"est-issuer-{program}-metrics"]["spec"]["type"] == "ClusterIP"
    for pod in (server(objects), operator(objects)):
        container = pod["containers"][0]
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert container[probe]["httpGet"]["port"] == "metrics"


def test_a_spread_constraint_is_about_the_programs_own_pods_unless_it_says_otherwise(default_objects: list[dict[str, Any]]) -> None:
    for pod, component in ((server(default_objects), "server"), (operator(default_objects), "operator")):
        assert {one["topologyKey"] for one in pod["topologySpreadConstraints"]} == {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}
        for constraint in pod["topologySpreadConstraints"]:
            assert constraint["labelSelector"]["matchLabels"]["app.kubernetes.io/component"] == component
    given = server(render(FULL))["topologySpreadConstraints"]
    assert given == FULL["server"]["topologySpreadConstraints"]
    assert "topologySpreadConstraints" not in operator(render({"operator": {"topologySpreadConstraints": []}}))


def test_pods_run_as_the_values_say(default_objects: list[dict[str, Any]]) -> None:
    full = server(render(FULL))
    assert (full["priorityClassName"], full["runtimeClassName"], full["hostUsers"]) == ("system-cluster-critical", "gvisor", False)
    assert not {"priorityClassName", "runtimeClassName", "hostUsers"} & operator(default_objects).keys()
    assert of_kind(render(FULL), "StatefulSet")["est-issuer-server"]["spec"]["revisionHistoryLimit"] == 2


def test_every_container_says_what_it_needs_and_where_it_ends(objects: list[dict[str, Any]]) -> None:
    for spec in pod_specs(objects).values():
        for container in spec["containers"]:
            assert container["resources"]["requests"].keys() == {"cpu", "memory", "ephemeral-storage"}
            assert container["resources"]["limits"].keys() == {"memory", "ephemeral-storage"}


def test_a_budget_has_one_of_the_two_limits_and_lets_what_is_not_ready_go() -> None:
    budgets = of_kind(render(FULL), "PodDisruptionBudget")
    assert budgets["est-issuer-server"]["spec"]["maxUnavailable"] == 1
    assert budgets["est-issuer-operator"]["spec"]["minAvailable"] == 1
    for budget in budgets.values():
        assert len({"minAvailable", "maxUnavailable"} & budget["spec"].keys()) == 1
        assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    percent = {"operator": {"podDisruptionBudget": {"enabled": True, "minAvailable": "50%", "maxUnavailable": None}}}
    assert of_kind(render(percent), "PodDisruptionBudget")["est-issuer-operator"]["spec"]["minAvailable"] == "50%"


def test_estserver_scales_by_itself_only_where_replicas_share_a_ledger() -> None:
    shared = {"ledger": {"urlSecret": {"name": "ledger-url"}}}
    objects = render(shared | {"server": {"autoscaling": {"enabled": True, "maxReplicas": 4}}})
    (scaler,) = of_kind(objects, "HorizontalPodAutoscaler").values()
    assert scaler["spec"]["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "est-issuer-server"}
    assert (scaler["spec"]["minReplicas"], scaler["spec"]["maxReplicas"]) == (2, 4)
    assert "replicas" not in of_kind(objects, "StatefulSet")["est-issuer-server"]["spec"]
    assert environment(server(objects))["EST_DRAIN_DELAY"] == "5s"
    assert of_kind(render(FULL), "HorizontalPodAutoscaler") == {}
    assert of_kind(render(FULL), "StatefulSet")["est-issuer-server"]["spec"]["replicas"] == 3


def test_scrapes_have_the_properties_of_the_values() -> None:
    for monitor in of_kind(render(FULL), "ServiceMonitor").values():
        assert monitor["spec"]["endpoints"] == [{"port": "metrics", "path": "/metrics", "interval": "30s", "scrapeTimeout": "10s"}]


def test_own_objects_are_added_and_are_templates() -> None:
    assert "est-issuer-own" in of_kind(render(FULL), "ConfigMap")


def test_the_ledger_is_on_a_claim_that_outlives_the_release(default_objects: list[dict[str, Any]]) -> None:
    stateful_set = of_kind(default_objects, "StatefulSet")["est-issuer-server"]["spec"]
    assert [claim["metadata"]["name"] for claim in stateful_set["volumeClaimTemplates"]] == ["ledger"]
    assert stateful_set["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    assert "EST_LEDGER" not in environment(server(default_objects))


def test_with_postgresql_there_is_no_claim_and_the_url_comes_from_its_secret() -> None:
    objects = render(FULL)
    assert "volumeClaimTemplates" not in of_kind(objects, "StatefulSet")["est-issuer-server"]["spec"]
    [ledger] = [variable for variable in server(objects)["containers"][0]["env"] if variable["name"] == "EST_LEDGER"]
    assert ledger["valueFrom"] == {"secretKeyRef": {"name": "ledger-url", "key": "url"}}


def test_estserver_alone_has_the_volumes_of_the_values() -> None:
    pods = pod_specs(render(FULL))
    assert {"name": "postgresql-ca", "configMap": {"name": "postgresql-ca"}} in pods["est-issuer-server"]["volumes"]
    mount = {"name": "postgresql-ca", "mountPath": "/etc/postgresql-ca", "readOnly": True}
    assert mount in pods["est-issuer-server"]["containers"][0]["volumeMounts"]
    for pod in pods.values():
        assert {one["name"] for one in pod["containers"][0].get("volumeMounts", [])} <= {one["name"] for one in pod["volumes"]}
    assert not [name for name, pod in pods.items() if name != "est-issuer-server" and "postgresql-ca" in str(pod["volumes"])]


@pytest.mark.parametrize("kind", ["NodePort", "LoadBalancer"])
def test_a_service_for_the_outside_keeps_the_clients_address(kind: str) -> None:
    service = of_kind(render({"server": {"service": {"type": kind, "nodePort": 30443}}}), "Service")["est-issuer"]["spec"]
    assert service["externalTrafficPolicy"] == "Local"
    assert service["ports"][0]["nodePort"] == 30443


def test_the_operator_reaches_estserver_by_a_name_in_its_certificate(objects: list[dict[str, Any]]) -> None:
    url = environment(operator(objects))["EST_OPERATOR_SERVER_URL"]
    assert url == f"https://est-issuer.{NAMESPACE}.svc"
    assert f"est-issuer.{NAMESPACE}.svc" in (environment(server(objects))["EST_SERVER_NAME"] or "").split(",")


def test_an_odd_service_port_is_in_the_operators_url() -> None:
    objects = render({"server": {"service": {"port": 8443}}})
    assert environment(operator(objects))["EST_OPERATOR_SERVER_URL"] == f"https://est-issuer.{NAMESPACE}.svc:8443"


def test_sources_are_throttled_only_where_the_service_shows_them() -> None:
    hidden = {"server": {"service": {"type": "LoadBalancer", "externalTrafficPolicy": "Cluster"}}}
    assert environment(server(render(hidden)))["EST_THROTTLE_SOURCES"] == "false"
    for shown in ({}, {"server": {"service": {"type": "LoadBalancer"}}}, {"server": {"service": {"externalTrafficPolicy": "Cluster"}}}):
        assert "EST_THROTTLE_SOURCES" not in environment(server(render(shown)))


@pytest.mark.parametrize("policy", ["Local", "Cluster"])
@pytest.mark.parametrize("given", [True, False])
def test_whether_sources_are_throttled_is_what_the_value_says_where_it_says_it(policy: str, *, given: bool) -> None:
    values = {"server": {"throttleSources": given, "service": {"type": "LoadBalancer", "externalTrafficPolicy": policy}}}
    assert environment(server(render(values)))["EST_THROTTLE_SOURCES"] == ("true" if given else "false")


def test_a_replica_among_others_goes_on_accepting_until_they_get_all_connections(objects: list[dict[str, Any]]) -> None:
    replicas = of_kind(objects, "StatefulSet")["est-issuer-server"]["spec"]["replicas"]
    assert environment(server(objects)).get("EST_DRAIN_DELAY") == ("5s" if replicas > 1 else None)
    assert server(objects)["terminationGracePeriodSeconds"] > 30 + 5


def test_a_given_serving_secret_replaces_our_own_certificate() -> None:
    settings = environment(server(render({"server": {"tls": {"secretName": "est-tls"}}})))
    assert settings["EST_SERVING_SECRET"] == "est-tls"
    assert "EST_SERVER_NAME" not in settings


def test_values_become_settings() -> None:
    settings = environment(server(render(FULL)))
    assert settings["EST_LABELS"] == "factory=devices/factory,lab=lab/bench"
    assert settings["EST_DEFAULT_ISSUER"] == "devices/factory"
    assert settings["EST_TRUST_NAMESPACES"] == "apps,lab"
    assert settings["EST_WORKERS"] == "2"
    assert settings["EST_PUBLIC_URL"] == "https://est.example.com"
    assert (settings["EST_SERVER_NAME"] or "").endswith(",est.example.com,192.0.2.1")
    assert settings["EST_LIMIT_CONNECTIONS"] == "500"


@pytest.mark.parametrize(
    ("doors", "setting"),
    [
        ({}, "est-issuer.io,cert-manager.io,certificatesigningrequests,podcertificaterequests"),
        ({"certManager": False, "podCertificates": False}, "est-issuer.io,certificatesigningrequests"),
        ({"estIssuer": False, "signingRequests": False}, "cert-manager.io,podcertificaterequests"),
    ],
)
def test_the_operator_opens_the_doors_of_the_values(doors: dict[str, bool], setting: str) -> None:
    assert environment(operator(render({"doors": doors})))["EST_OPERATOR_DOORS"] == setting


def test_a_digest_pins_the_image_whatever_the_tag() -> None:
    digest = "sha256:" + "0" * 64
    for pod in pod_specs(render({"image": {"repository": "registry.example/est-issuer", "tag": "1", "digest": digest}})).values():
        assert pod["containers"][0]["image"] == f"registry.example/est-issuer@{digest}"
