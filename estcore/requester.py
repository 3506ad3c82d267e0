"""Who asks: the one value that authentication hands to registration, ledger and audit."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from cryptography import x509


class Door(StrEnum):
    """How a request came in."""

    EST = "est"
    CERT_MANAGER = "cert-manager.io"
    EST_ISSUER = "est-issuer.io"
    SIGNING_REQUEST = "certificatesigningrequests"
    """certificates.k8s.io CertificateSigningRequest."""
    POD_CERTIFICATE = "podcertificaterequests"
    """certificates.k8s.io PodCertificateRequest."""


class AuthenticatedBy(StrEnum):
    """What proved the requester's identity."""

    CERTIFICATE = "certificate"
    """A TLS client certificate that this issuer signed."""
    THIRD_PARTY_CERTIFICATE = "thirdPartyCertificate"
    """A TLS client certificate under configured anchors: may enrol, never re-enrol (RFC 7030 section 3.3.2)."""
    BASIC = "basic"
    DIGEST = "digest"
    ONE_TIME_PASSWORD = "oneTimePassword"
    CMC_SHARED_SECRET = "cmcSharedSecret"
    SERVICE_ACCOUNT_TOKEN = "serviceAccountToken"
    KUBERNETES = "kubernetes"
    """A Kubernetes object that the operator read; the operator is the registration authority for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requester:
    """An authenticated requester.

    `identity` names it in ledger and audit, unique within the method: a user name, `<namespace>/<service account>`, for this issuer's
    certificate `<issuer name's SHA-256>:<serial hex>`, for a third party's the SHA-256 of its DER, or for a Kubernetes door the namespace.
    `user` feeds `{user}` and `from.users`; `namespace` and `service_account` are set for ServiceAccounts and Kubernetes doors only,
    `pod` for a pod's own request.
    `certificate` is the TLS client certificate, where one was accepted; `with_certificate` says whose it is when it came beside another
    proof. `registration_authority` is true for the operator's ServiceAccount and for the holder of a certificate of this issuer with
    id-kp-cmcRA: it vouches for names, so no rule is looked for.
    `single_use` is set where the proof is good for one certificate: what the ledger calls that certificate's transaction.
    """

    authenticated_by: AuthenticatedBy
    identity: str
    door: Door = Door.EST
    user: str | None = None
    groups: frozenset[str] = frozenset()
    namespace: str | None = None
    namespace_labels: Mapping[str, str] | None = field(default=None, hash=False)
    """None where they are not known: to all but the operator."""
    service_account: str | None = None
    pod: str | None = None
    certificate: x509.Certificate | None = None
    with_certificate: AuthenticatedBy | None = None
    registration_authority: bool = False
    single_use: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        """As the ledger and the audit log write it."""
        return f"{self.authenticated_by}:{self.identity}"
