"""`approval: Manual`: a request that came by EST and passed every check waits until a person says yes (RFC 7030 section 4.2.3).

The client keeps no state. It sends its request again, perhaps on a new connection, with a rebuilt CSR and a new channel binding, and
each time every check runs anew; the row is found by issuer, requester, operation, public key and what would be certified. What a
registration authority sends was judged where it came from: the operator's Kubernetes doors have their own approval, and an RA vouches
for whom it asks. Its requests do not wait.
"""

import base64
import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

import orjson
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from estcore.certification_request import CertificationRequest
from estcore.errors import AwaitingApproval, Forbidden, SignerError
from estcore.issuer_spec import Approval, IssuerSpec
from estcore.names import describe_general_name, describe_name
from estcore.registration import Authorized
from estcore.requester import AuthenticatedBy, Door, Requester
from estserver.audit import AuditLog
from estserver.held_requests import HeldRequest, HeldRequests, State
from estserver.ledger_entry import digest
from estserver.messages import Operation
from estserver.metrics import Metrics

SHORTEST_RETRY: Final = timedelta(seconds=10)
LONGEST_RETRY: Final = timedelta(minutes=10)
RETRY_SHARE: Final = 8
"""A client is told to wait an eighth of the time that it has waited: soon served while somebody is at it, cheap over a weekend."""
ID_OCTETS: Final = 8


class Asked(Protocol):
    """What approval looks at of an order for a certificate, all of which was checked and authorized before."""

    @property
    def issuer_key(self) -> str:
        """kind/namespace/name."""

    @property
    def spec(self) -> IssuerSpec:
        """The issuer's."""

    @property
    def operation(self) -> Operation:
        """Which one it came by."""

    @property
    def requester(self) -> Requester:
        """Who was authenticated."""

    @property
    def csr(self) -> CertificationRequest:
        """As it came this time."""

    @property
    def authorized(self) -> Authorized:
        """What would be certified."""

    @property
    def source(self) -> str:
        """The peer's address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Approvals:
    """The gate before the signer. `retry_window`: how long a repeat gets the certificate again after it was issued."""

    held: HeldRequests
    audit: AuditLog
    metrics: Metrics
    retry_window: timedelta
    random_octets: Callable[[int], bytes] = secrets.token_bytes

    async def require(self, asked: Asked, *, now: datetime) -> HeldRequest | None:
        """The approved request that `asked` repeats, or None where nobody has to approve it.

        For server-side key generation it is called before the key is made, with the CSR as the client sent it. Raises AwaitingApproval
        while it waits, Forbidden where it was denied or has expired, Busy where too many of this requester wait, LedgerUnavailable.
        """
        if asked.spec.est.approval is not Approval.MANUAL or asked.requester.registration_authority:
            return None
        wanted = _request(asked, self.random_octets(ID_OCTETS).hex(), now=now)
        standing = await self.held.hold(wanted, now=now)
        if standing is wanted:
            self.audit.request("waiting", standing, now=now)
        elif await self.held.announce(standing):
            self.tell(standing, now=now)
        match standing.state:
            case State.WAITING:
                raise awaiting(standing, now=now)
            case State.DENIED:
                reason = f": {standing.reason}" if standing.reason else ""
                raise Forbidden(f"request {standing.id} was denied{reason}", reason="Denied")
            case State.EXPIRED:
                raise Forbidden(
                    f"request {standing.id} has expired: nobody approved it in time, or its certificate was not fetched; "
                    "send it again to make a new request",
                    reason="ApprovalExpired",
                )
            case _:
                return standing

    async def issued(self, request: HeldRequest, serial: int, *, now: datetime) -> None:
        """The certificate of an approved request is in the ledger. Raises LedgerUnavailable."""
        if request.state is State.APPROVED:
            await self.held.issued(request, serial, now=now, retry_window=self.retry_window)

    def tell(self, request: HeldRequest, *, now: datetime) -> None:
        """Write a decision, or that none came, into the audit log and the metrics."""
        self.audit.request(request.state, request, now=now)
        self.metrics.decided(request.issuer, request.state)


def check_is_for(request: HeldRequest, asked: Asked) -> None:
    """That it is this request which a person approved: of this issuer, requester and operation, and for this key.

    Whoever brings an approval found it by these already, so nothing else ever comes here. Raises SignerError.
    """
    approved = (request.issuer, request.requester, request.operation, request.spki_sha256)
    if approved != (asked.issuer_key, str(asked.requester), asked.operation, _approved_key(asked)):
        raise SignerError(f"request {request.id} was approved for something else than what is to be signed", reason="ApprovalOfAnother")


def awaiting(request: HeldRequest, *, now: datetime) -> AwaitingApproval:
    """What a client is told whose request waits."""
    return AwaitingApproval(
        _waits(request), retry_after=retry_after(now - request.created_at), request_id=request.id, asked_at=request.created_at
    )


def retry_after(waited: timedelta) -> timedelta:
    """How long a client waits that has waited so long already."""
    return min(max(waited / RETRY_SHARE, SHORTEST_RETRY), LONGEST_RETRY)


def transaction(request: HeldRequest) -> str:
    """What the ledger knows the certificate of a request by: one request never has two."""
    return f"approval/{request.id}"


def _waits(request: HeldRequest) -> str:
    return (
        f"this request waits for a person's approval as {request.id}; send it again, with the same key, "
        f"until {request.expires_at:%Y-%m-%d %H:%M} UTC"
    )


def _approved_key(asked: Asked) -> str:
    """Its SHA-256; empty at /serverkeygen, where a CSR has a key that is not certified, and may be another each time (section 4.4.1)."""
    return "" if asked.operation is Operation.SERVER_KEYGEN else hashlib.sha256(asked.csr.spki_der).hexdigest()


def _request(asked: Asked, request_id: str, *, now: datetime) -> HeldRequest:
    csr, authorized = asked.csr, asked.authorized
    spki_sha256 = _approved_key(asked)
    names = sorted(x509.SubjectAlternativeName([name]).public_bytes().hex() for name in authorized.sans)
    usages = tuple(sorted(authorized.usages))
    slot = digest(asked.operation, spki_sha256, authorized.subject.public_bytes().hex(), *names, *usages)
    return HeldRequest(
        id=request_id,
        issuer=asked.issuer_key,
        requester=str(asked.requester),
        requested_by=requester_to_json(asked.requester),
        operation=asked.operation,
        slot=slot,
        spki_sha256=spki_sha256,
        subject=describe_name(authorized.subject),
        sans=tuple(map(describe_general_name, authorized.sans)),
        usages=usages,
        csr_der=csr.csr_der,
        source=asked.source,
        created_at=now,
        expires_at=now + asked.spec.est.approval_within,
    )


def requester_to_json(requester: Requester) -> str:
    """A Requester as the ledger keeps it."""
    certificate = requester.certificate
    return orjson.dumps(
        {
            "authenticatedBy": requester.authenticated_by,
            "identity": requester.identity,
            "door": requester.door,
            "user": requester.user,
            "groups": sorted(requester.groups),
            "namespace": requester.namespace,
            "serviceAccount": requester.service_account,
            "certificate": base64.b64encode(certificate.public_bytes(Encoding.DER)).decode() if certificate is not None else None,
            "withCertificate": requester.with_certificate,
        }
    ).decode()


def requester_from_json(text: str) -> Requester:
    """What `requester_to_json` was given."""
    kept = orjson.loads(text)
    certificate, beside = kept["certificate"], kept["withCertificate"]
    return Requester(
        authenticated_by=AuthenticatedBy(kept["authenticatedBy"]),
        identity=kept["identity"],
        door=Door(kept["door"]),
        user=kept["user"],
        groups=frozenset(kept["groups"]),
        namespace=kept["namespace"],
        service_account=kept["serviceAccount"],
        certificate=x509.load_der_x509_certificate(base64.b64decode(certificate)) if certificate is not None else None,
        with_certificate=AuthenticatedBy(beside) if beside is not None else None,
    )
