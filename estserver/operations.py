"""The EST operations: an EstRequest for one issuer in, an EstResponse out, every fault an EstError.

The straight path of an enrolment, each step where its facts are known:

    authenticate → transfer.decode_body → pkcs10.parse → registration → issuing.issue → certs_only.encode

Authentication and registration are called in one function, and the signer takes only what registration made.
Source: RFC 7030 sections 4.1, 4.2 and 4.5, RFC 8951 section 3.
"""

from collections.abc import Callable

from estcore import certs_only, pkcs10, registration, transfer
from estcore.authority import Authority
from estcore.certification_request import CertificationRequest
from estcore.errors import IssuerNotReady, UnsupportedMediaType
from estcore.issuer_spec import ChannelBinding, IssuerSpec, Policy, RaChannelBinding
from estcore.registration import Authorized
from estcore.requester import Requester
from estserver import csr_attributes, issuing, renewals
from estserver.issuers import Issuer
from estserver.issuing import Order, Service
from estserver.messages import MEDIA_CERTS_ONLY, MEDIA_PEM, MEDIA_PKCS10, EstRequest, EstResponse, Operation
from estserver.proofs import ReadCsr

Register = Callable[[Requester, CertificationRequest, Policy], Authorized]


async def cacerts(request: EstRequest, issuer: Issuer, service: Service) -> EstResponse:
    """The CA certificate, its chain and the root, to anybody (RFC 7030 section 4.1). Raises IssuerNotReady."""
    issuer.usable_authority(now=service.clock())
    return certs_only_response(issuer.cacerts_body_wrapped if request.wants_wrapped else issuer.cacerts_body)


async def csrattrs(request: EstRequest, issuer: Issuer, service: Service) -> EstResponse:
    """What the issuer wants in a CSR, to anybody (RFC 7030 section 4.5)."""
    return await csr_attributes.answer(request, issuer, service.csr_advice, service.authenticator, now=service.clock())


async def enroll(request: EstRequest, issuer: Issuer, service: Service) -> EstResponse:
    """A certificate for the key of a PKCS#10 CSR, for names that a rule permits (RFC 7030 section 4.2.1)."""
    spec, ca = ready(request, issuer, service, media_type=MEDIA_PKCS10)
    read_csr = csr_reader(request, spec)
    requester = await service.authenticator.enroller(request, issuer, read_csr)
    return await _issue(request, issuer, spec, ca, requester, registration.authorize, read_csr, service)


async def reenroll(request: EstRequest, issuer: Issuer, service: Service) -> EstResponse:
    """A new certificate for the names of one that this issuer signed: the client's own, or whose an RA vouches for (section 4.2.2)."""
    spec, ca = ready(request, issuer, service, media_type=MEDIA_PKCS10)
    read_csr = csr_reader(request, spec)
    requester = await service.authenticator.reenroller(request, issuer, read_csr)
    if requester.registration_authority:
        await renewals.check_vouched(
            requester,
            read_csr(),
            service.ledger,
            issuer=issuer.key,
            spec=spec,
            retry_window=service.retry_window,
            now=service.clock(),
        )
    return await _issue(request, issuer, spec, ca, requester, registration.authorize_renewal, read_csr, service)


def csr_reader(request: EstRequest, spec: IssuerSpec) -> ReadCsr:
    """Parses the body when it is first asked for, and once: authentication looks into it for a one-time password only."""
    parsed: CertificationRequest | None = None

    def _read() -> CertificationRequest:
        nonlocal parsed
        if parsed is None:
            parsed = pkcs10.parse(decode_csr(request, spec))
        return parsed

    return _read


def ready(request: EstRequest, issuer: Issuer, service: Service, *, media_type: str) -> tuple[IssuerSpec, Authority]:
    """The facts without which nobody can be served. The media type first: it is the sender's own, whatever state we are in.

    Raises UnsupportedMediaType, IssuerNotReady.
    """
    sent_type = request.content_type.partition(";")[0].strip().lower() if request.content_type is not None else None
    pem_accepted = issuer.spec is not None and issuer.spec.est.accept_pem and media_type == MEDIA_PKCS10
    if sent_type != media_type and not (sent_type == MEDIA_PEM and pem_accepted):
        raise UnsupportedMediaType(
            f"this operation takes Content-Type: {media_type}, the body being the base64 of DER (RFC 8951 section 3)"
        )
    if request.content_encoding is not None and request.content_encoding.strip().lower() != "identity":
        raise UnsupportedMediaType("send the body without Content-Encoding")
    if issuer.spec is None:
        raise IssuerNotReady("this issuer is not ready; try again later")
    return issuer.spec, issuer.usable_authority(now=service.clock())


def decode_csr(request: EstRequest, spec: IssuerSpec) -> bytes:
    """The DER of the CSR in the body; PEM too, where the issuer accepts it. Raises MalformedBody."""
    return transfer.decode_pem_body(request.body) if spec.est.accept_pem else transfer.decode_body(request.body)


def check_binding(request: EstRequest, requester: Requester, csr: CertificationRequest, spec: IssuerSpec) -> None:
    """Check that the CSR was made for the connection that it came on (RFC 7030 section 3.5). Raises BindingMismatch.

    The CSRs of a registration authority come from elsewhere, bound to no connection of ours (section 3.7), unless the issuer says they
    are.
    """
    if requester.registration_authority and spec.est.ra_channel_binding is RaChannelBinding.EXEMPT:
        return
    required = spec.est.channel_binding is ChannelBinding.REQUIRED or registration.binding_required(requester, spec.policy)
    registration.check_binding(csr, channel_binding=request.tls.channel_binding, required=required and not requester.registration_authority)


async def _issue(
    request: EstRequest,
    issuer: Issuer,
    spec: IssuerSpec,
    ca: Authority,
    requester: Requester,
    register: Register,
    read_csr: ReadCsr,
    service: Service,
) -> EstResponse:
    csr = read_csr()
    check_binding(request, requester, csr, spec)
    authorized = register(requester, csr, spec.policy)
    renewal = request.operation is Operation.SIMPLE_REENROLL
    service.csr_advice.check(issuer, spec, requester, csr, names=not renewal)
    order = Order(
        issuer=issuer,
        spec=spec,
        authority=ca,
        operation=request.operation,
        requester=requester,
        csr=csr,
        authorized=authorized,
        source=request.source,
    )
    standing = await issuing.issue(order, service)
    return certs_only_response(transfer.encode_body(certs_only.encode([standing.der]), wrap=request.wants_wrapped))


def certs_only_response(body: bytes) -> EstResponse:
    """200 with a body that is the base64 of a certs-only message."""
    return EstResponse(status=200, body=body, headers=((b"content-type", MEDIA_CERTS_ONLY),))
