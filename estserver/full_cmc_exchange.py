"""One Full PKI Request under way: what it meets at the server, its parts, who gets a certificate by which rule, and how success is said."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding

from estcore import cmc_controls as controls
from estcore import pki_response, registration, trust_publication
from estcore.authority import Authority
from estcore.certification_request import CertificationRequest
from estcore.cmc_controls import Control, Status
from estcore.cmc_status import CmcStatus, StatusInfo
from estcore.errors import Forbidden
from estcore.full_processing import Layer, Requests
from estcore.issuer_spec import IssuerSpec
from estcore.registration import Authorized
from estcore.requester import AuthenticatedBy, Requester
from estserver import full_cmc_response
from estserver.full_cmc_requester import Sender
from estserver.issuers import Issuer
from estserver.issuing import Service
from estserver.messages import EstRequest

NONCE_OCTETS: Final = 16


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


def message_of(exchange: Exchange, part: Part, certificates: Sequence[bytes], said: Sequence[Control]) -> tuple[bytes, bool]:
    """The DER message that says all this, and whether it is a Full PKI Response.

    Certs-only where that is all there is to say; a nonce to repeat, data to return or a status need more (RFC 7030 section 4.3.2).
    """
    values = part.values()
    needs_full = bool(said) or not certificates or any(isinstance(value, controls.SenderNonce | controls.DataReturn) for value in values)
    if not needs_full:
        return full_cmc_response.simple(certificates), False
    requested = tuple((each.body_part_id,) for each in part.layer.body.requests)
    statuses: list[Control] = [Status(StatusInfo(status=CmcStatus.SUCCESS, body_parts=requested))] if requested else []
    if any(isinstance(value, Status) and value.info.status is CmcStatus.PENDING for value in said):
        statuses = []  # what waits is said, and nothing was issued
    echoes = pki_response.echoes(values, sender_nonce=exchange.service.random_octets(NONCE_OCTETS))
    anchors, anchors_der = _published(exchange)
    der = full_cmc_response.full(
        [*statuses, *said, *echoes, *anchors],
        signed_by=exchange.authority,
        now=exchange.now,
        certificates_der=[*certificates, *anchors_der],
    )
    return der, True


def _published(exchange: Exchange) -> tuple[list[Control], list[bytes]]:
    """The roots, old and new, while the CA's key rolls over (RFC 5272 section 6.15)."""
    if not exchange.authority.rollover:
        return [], []
    certificates = exchange.authority.certificates
    return [trust_publication.publish(certificates, now=exchange.now)], [each.public_bytes(Encoding.DER) for each in certificates]


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
