"""The Kubernetes doors, as data: one code path serves them all."""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from estcore.requester import Door

GROUP = "est-issuer.io"
"""Our API group: what an issuerRef must name."""

VERSION = "v1alpha1"
ORIGIN_EST = "EST"
"""spec.origin of what estserver shows."""
ISSUER_KINDS = ("EstIssuer", "EstClusterIssuer")
ISSUER_PLURALS = {"EstIssuer": "estissuers", "EstClusterIssuer": "estclusterissuers"}
CERTIFICATES_GROUP = "certificates.k8s.io"
SIGNERS = tuple(f"{plural}.{GROUP}/*" for plural in ISSUER_PLURALS.values())
"""All our signer names: `estissuers.est-issuer.io/<namespace>.<name>`, `estclusterissuers.est-issuer.io/<name>`."""


class Form(StrEnum):
    """How a request object is read and its status written."""

    CERTIFICATE_REQUEST = "CertificateRequest"
    """spec.issuerRef; Ready says how it stands."""

    SIGNING_REQUEST = "CertificateSigningRequest"
    """spec.signerName; a certificate or Failed ends it, and nothing says that it waits."""

    POD_CERTIFICATE = "PodCertificateRequest"
    """spec.signerName and a bare key; one of Issued, Denied and Failed ends it, and nothing says that it waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Permission:
    """What a door needs to be allowed, as a SubjectAccessReview asks."""

    verb: str
    group: str
    resource: str
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class KubernetesDoor:
    """One kind of request object."""

    door: Door
    group: str
    version: str
    approval_required: bool
    """Whether somebody must set Approved first; the other door approves by itself."""

    form: Form = Form.CERTIFICATE_REQUEST
    plural: str = "certificaterequests"
    kind: str = "CertificateRequest"
    versions: tuple[str, ...] = ()
    """Where there are several: the first that the API server serves is watched, and becomes `version`."""

    built_in: bool = False
    """The API server's own kind: there when it starts, or never."""

    shortest_life: timedelta = timedelta(hours=1)
    """The least that a request may ask for; of cert-manager's kind its MinimumCertificateDuration."""

    gives_up: bool = True
    """Whether what keeps failing ends as Failed. It never does where a pod waits for it."""

    permissions: tuple[Permission, ...] = ()
    """Beyond get, list and watch, and patch of /status."""

    @property
    def looked_for(self) -> tuple[str, ...]:
        """The versions to look for, the wanted one first."""
        return self.versions or (self.version,)

    @property
    def says_ready(self) -> bool:
        """Whether the status has a place for what is not finished."""
        return self.form is Form.CERTIFICATE_REQUEST


CERT_MANAGER = KubernetesDoor(door=Door.CERT_MANAGER, group="cert-manager.io", version="v1", approval_required=True)
EST_ISSUER = KubernetesDoor(door=Door.EST_ISSUER, group=GROUP, version=VERSION, approval_required=False)

_SIGN = tuple(Permission(verb="sign", group=CERTIFICATES_GROUP, resource="signers", name=name) for name in SIGNERS)

SIGNING_REQUESTS = KubernetesDoor(
    door=Door.SIGNING_REQUEST,
    group=CERTIFICATES_GROUP,
    version="v1",
    approval_required=True,
    form=Form.SIGNING_REQUEST,
    plural="certificatesigningrequests",
    kind="CertificateSigningRequest",
    built_in=True,
    shortest_life=timedelta(seconds=600),
    permissions=(*_SIGN, Permission(verb="create", group="authorization.k8s.io", resource="subjectaccessreviews")),
)
POD_CERTIFICATES = KubernetesDoor(
    door=Door.POD_CERTIFICATE,
    group=CERTIFICATES_GROUP,
    version="v1",
    versions=("v1beta1", "v1"),  # v1 does not show the key of a node before 1.36 (docs/adr/0010)
    approval_required=False,
    form=Form.POD_CERTIFICATE,
    plural="podcertificaterequests",
    kind="PodCertificateRequest",
    built_in=True,
    gives_up=False,
    permissions=_SIGN,
)

DOORS: dict[Door, KubernetesDoor] = {door.door: door for door in (EST_ISSUER, CERT_MANAGER, SIGNING_REQUESTS, POD_CERTIFICATES)}
