import pytest

from estcore.errors import ConfigurationError
from estoperator import access
from estoperator.doors import CERT_MANAGER, EST_ISSUER, POD_CERTIFICATES, SIGNING_REQUESTS, KubernetesDoor
from estoperator.metrics import DOOR_OFF, Metrics


class Rights:
    """An API server that refuses what is listed: (verb, group, resource/subresource)."""

    def __init__(self, *refused: tuple[str, str, str], absent: tuple[str, ...] = ()) -> None:
        self.refused, self.absent = set(refused), absent

    async def serves(self, group: str, version: str, plural: str) -> bool:
        return group not in self.absent and f"{plural}/{version}" not in self.absent

    async def may(self, verb: str, group: str, resource: str, *, subresource: str = "", name: str = "") -> bool:
        return (verb, group, "/".join(filter(None, (resource, subresource)))) not in self.refused


def why_off(metrics: Metrics, door: KubernetesDoor) -> set[str]:
    value = metrics.registry.get_sample_value
    return {why for why in DOOR_OFF if value("est_operator_door_off", {"door": door.door, "why": why})}


async def test_every_door_that_rbac_permits_is_on() -> None:
    metrics = Metrics()
    assert await access.open_doors(Rights(), [EST_ISSUER, CERT_MANAGER], metrics) == [EST_ISSUER, CERT_MANAGER]
    assert why_off(metrics, EST_ISSUER) == why_off(metrics, CERT_MANAGER) == set()


@pytest.mark.parametrize(
    "refused",
    [("list", "cert-manager.io", "certificaterequests"), ("patch", "cert-manager.io", "certificaterequests/status")],
)
async def test_a_refused_door_is_off_with_a_metric_and_the_others_are_on(refused: tuple[str, str, str]) -> None:
    metrics = Metrics()
    assert await access.open_doors(Rights(refused), [EST_ISSUER, CERT_MANAGER], metrics) == [EST_ISSUER]
    assert why_off(metrics, CERT_MANAGER) == {"Forbidden"}
    assert why_off(metrics, EST_ISSUER) == set()


async def test_without_a_right_on_the_issuers_the_operator_says_which_and_does_not_run() -> None:
    with pytest.raises(ConfigurationError, match=r"watch estclusterissuers\.est-issuer\.io"):
        await access.open_doors(Rights(("watch", "est-issuer.io", "estclusterissuers")), [EST_ISSUER], Metrics())


async def test_a_door_that_is_off_says_why_and_one_that_is_on_says_nothing() -> None:
    metrics = Metrics()
    await access.open_doors(Rights(("watch", "cert-manager.io", "certificaterequests")), [CERT_MANAGER], metrics)
    assert why_off(metrics, CERT_MANAGER) == {"Forbidden"}
    assert why_off(metrics, EST_ISSUER) == {"Disabled"}
    assert await access.open_doors(Rights(absent=("cert-manager.io",)), [EST_ISSUER, CERT_MANAGER], metrics) == [EST_ISSUER, CERT_MANAGER]
    assert why_off(metrics, CERT_MANAGER) == {"Absent"}
    assert why_off(metrics, EST_ISSUER) == set()


@pytest.mark.parametrize(
    "refused", [("sign", "certificates.k8s.io", "signers"), ("create", "authorization.k8s.io", "subjectaccessreviews")]
)
async def test_a_native_door_needs_its_further_rights_too(refused: tuple[str, str, str]) -> None:
    metrics = Metrics()
    assert await access.open_doors(Rights(refused), [SIGNING_REQUESTS, EST_ISSUER], metrics) == [EST_ISSUER]
    assert why_off(metrics, SIGNING_REQUESTS) == {"Forbidden"}


@pytest.mark.parametrize(("absent", "watched"), [("v1", "v1beta1"), ("v1beta1", "v1"), ("v2", "v1beta1")])
async def test_pod_certificates_are_watched_in_v1beta1_where_that_is_served(absent: str, watched: str) -> None:
    """Contract 3b, "Skew": v1 does not show the key of a node before 1.36."""
    opened = await access.open_doors(Rights(absent=(f"podcertificaterequests/{absent}",)), [POD_CERTIFICATES], Metrics())
    assert [door.version for door in opened] == [watched]


async def test_a_kind_of_the_api_servers_own_that_it_serves_in_no_version_is_off() -> None:
    api, metrics = (
        Rights(absent=("podcertificaterequests/v1", "podcertificaterequests/v1beta1", "certificatesigningrequests/v1")),
        Metrics(),
    )
    assert await access.open_doors(api, [POD_CERTIFICATES, SIGNING_REQUESTS], metrics) == []
    assert why_off(metrics, POD_CERTIFICATES) == why_off(metrics, SIGNING_REQUESTS) == {"Absent"}
