"""The Kubernetes doors, as data: one code path serves them all."""

from dataclasses import dataclass

from estcore.requester import Door

GROUP = "est-issuer.io"
"""Our API group: what an issuerRef must name."""

VERSION = "v1alpha1"
ORIGIN_EST = "EST"
"""spec.origin of what estserver shows."""
ISSUER_KINDS = ("EstIssuer", "EstClusterIssuer")
ISSUER_PLURALS = {"EstIssuer": "estissuers", "EstClusterIssuer": "estclusterissuers"}


@dataclass(frozen=True, slots=True, kw_only=True)
class KubernetesDoor:
    """One kind of request object."""

    door: Door
    group: str
    version: str
    approval_required: bool
    """Whether somebody must set Approved first; the other door approves by itself."""

    plural: str = "certificaterequests"
    kind: str = "CertificateRequest"


CERT_MANAGER = KubernetesDoor(door=Door.CERT_MANAGER, group="cert-manager.io", version="v1", approval_required=True)
EST_ISSUER = KubernetesDoor(door=Door.EST_ISSUER, group=GROUP, version=VERSION, approval_required=False)

DOORS: dict[Door, KubernetesDoor] = {door.door: door for door in (EST_ISSUER, CERT_MANAGER)}
