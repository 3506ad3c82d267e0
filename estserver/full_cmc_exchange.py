"""One Full PKI Request under way: what it meets at the server, its parts, and the rule by which a certificate is granted to its sender."""

from dataclasses import dataclass
from datetime import datetime

from estcore import registration
from estcore.authority import Authority
from estcore.certification_request import CertificationRequest
from estcore.cmc_controls import Control
from estcore.errors import Forbidden
from estcore.full_processing import Layer, Requests
from estcore.issuer_spec import IssuerSpec
from estcore.registration import Authorized
from estcore.requester import AuthenticatedBy, Requester
from estserver.full_cmc_requester import Sender
from estserver.issuers import Issuer
from estserver.issuing import Service
from estserver.messages import EstRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One request and what it meets."""

    request: EstRequest
    issuer: Issuer
    spec: IssuerSpec
    authority: Authority
    service: Service
    now: datetime

    @property
    def accept_sha1(self) -> bool:
        """Whether this issuer accepts proofs with SHA-1."""
        return self.spec.est.accept_sha1_proofs


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One PKIData whose sender is known: its layer, its requests by path, and who sent it."""

    layer: Layer
    requests: Requests
    sender: Sender

    def values(self) -> list[Control]:
        """Its controls."""
        return [value for _, value in self.layer.instructions.values]


def register(requester: Requester, csr: CertificationRequest, spec: IssuerSpec) -> tuple[Authorized, bool]:
    """Renewal where the requester's certificate has the names already, else by the rules; the second says whether it is a renewal."""
    if requester.authenticated_by is not AuthenticatedBy.CERTIFICATE or requester.registration_authority:
        return registration.authorize(requester, csr, spec.policy), False
    try:
        return registration.authorize_renewal(requester, csr, spec.policy), True
    except Forbidden as error:
        if error.reason != "RenewalNamesDiffer":
            raise
    return registration.authorize(requester, csr, spec.policy), False
