"""Who sent a Full PKI Request: what its signature or its shared secret shows, together with what the connection shows.

RFC 5272 sections 3.2 and 6.2, RFC 7030 sections 3.3.2 and 3.7. One of these must hold:

    signed with a certificate of this issuer, or under its anchors     the sender is its holder; with id-kp-cmcRA an RA
    signed with the key to be certified                                the sender is who the connection or an identity proof says
    under a shared secret (AuthenticatedData, identityProof)           the sender is who the secret belongs to
    signed by nobody                                                   only a revocation with a passphrase

Credentials on the connection that are wrong are refused whatever the message shows.
"""

from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Final

from cachetools import LRUCache
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from estcore import cmc_control_codec, identity_proof, pop_link, trust
from estcore import cmc_controls as controls
from estcore.certification_request import CertificationRequest
from estcore.cmc_status import WHOLE_MESSAGE, BodyPartPath
from estcore.errors import BadCsr, CmcFailed, CmcFailInfo, EstError, Forbidden, Unauthenticated
from estcore.full_message import FullMessage
from estcore.full_processing import Requests
from estcore.identity_proof import wrong_identity
from estcore.instructions import Instructions
from estcore.issuer_spec import Authentication
from estcore.pki_data import PkiData
from estcore.requester import AuthenticatedBy, Requester
from estcore.signatory import Signatory, signatory_of
from estcore.signer_certificate import load
from estserver import client_certificates, full_cmc_secret
from estserver.issuers import Issuer
from estserver.issuing import Service
from estserver.messages import EstRequest
from estserver.throttle import Guess


@dataclass(frozen=True, slots=True)
class _Presented:
    """The chain that a message brought, where a TLS connection would have brought one."""

    unverified_client_chain: tuple[x509.Certificate, ...]
    verdicts: dict[str, object] = field(default_factory=dict)


MAX_CHAINS: Final = 256
_chains: LRUCache[tuple[bytes, tuple[bytes, ...]], _Presented] = LRUCache(MAX_CHAINS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """Who sent a message. `requester` is None for one that nobody vouches for.

    `registration_authority` says that the signature is one's, which its assertions need; `token` that the connection has the token of the
    registration authority; `secret` is the shared secret that proved the identity.
    """

    requester: Requester | None
    signatory: Signatory
    registration_authority: bool = False
    token: bool = False
    secret: str | None = field(default=None, repr=False)


async def on_connection(
    request: EstRequest, message: FullMessage, issuer: Issuer, service: Service, requests: Requests
) -> tuple[Requester | None, EstError | None]:
    """Who the connection shows, or the one-time password in the first of the message's requests (RFC 7894); or why nobody.

    Raises where credentials were sent on purpose and are wrong, and what `signatory_of` raises.
    """
    try:
        shown = _signed_beside_password(request, message, issuer, requests)
        return await service.authenticator.enroller(shown, issuer, lambda: _first(requests)), None
    except (Unauthenticated, Forbidden) as error:
        if request.authorization is not None:
            raise
        return None, error


def _first(requests: Requests) -> CertificationRequest:
    for csr in requests.values():
        return csr
    raise BadCsr("the message holds no certification request")


def _signed_beside_password(request: EstRequest, message: FullMessage, issuer: Issuer, requests: Requests) -> EstRequest:
    """The request with the certificate that signed its message in the place of a connection's.

    Only where a one-time password is in it, beside which the issuer may want a certificate: the signature covers the password too.
    """
    first = next(iter(requests.values()), None)
    ways = issuer.spec.est.authentication if issuer.spec is not None else ()
    if first is None or first.one_time_password is None or message.signed is None or not any(way.one_time_password for way in ways):
        return request
    signatory = signatory_of(message.signed, requests)
    if signatory.certificate is None:
        return request
    chain = _presented(signatory)
    return replace(request, tls=replace(request.tls, unverified_client_chain=chain.unverified_client_chain, verdicts=chain.verdicts))


def _signed_beside(connected: Requester, signer: x509.Certificate) -> bool:
    """Whether the sender has shown a one-time password beside the signer's certificate. What an RA sends is others', the passwords too."""
    return connected.single_use is not None and connected.certificate == signer and not trust.is_registration_authority(signer)


async def of_message(
    message: FullMessage,
    requests: Requests,
    issuer: Issuer,
    service: Service,
    *,
    connected: Requester | None,
    source: str | None,
    accept_sha1: bool,
) -> Sender:
    """Who sent this message, its signature or MAC verified; `connected` is who the connection shows.

    `source` is the address that guesses at a shared secret count for, None for what a registration authority passes on.
    Raises CmcFailed: badMessageCheck for a signature or a MAC, badIdentity for a certificate that is not accepted here. Busy after too
    many wrong secrets.
    """
    token = (
        connected is not None and connected.registration_authority and connected.authenticated_by is AuthenticatedBy.SERVICE_ACCOUNT_TOKEN
    )
    if message.authenticated is not None:
        name = full_cmc_secret.identification_of(message.body)
        # Who says no name guesses at no secret: that is refused before any key is derived.
        with _guess(service, issuer, name, source) if name is not None else nullcontext():
            requester, secret = await full_cmc_secret.by_authenticated_data(message, issuer, accept_sha1=accept_sha1)
        return Sender(requester=requester, signatory=Signatory(), token=token, secret=secret)
    assert message.signed is not None  # noqa: S101 - a message is the one or the other
    signatory = signatory_of(message.signed, requests)
    if message.outer is not None:
        _check_outer(signatory_of(message.outer, requests), signatory, issuer, service, token=token)
    if signatory.certificate is None:
        return Sender(requester=connected, signatory=signatory, token=token)
    if connected is not None and _signed_beside(connected, signatory.certificate):
        return Sender(requester=connected, signatory=signatory, token=token)
    requester = _holder(signatory, issuer, service, token=token)
    return Sender(requester=requester, signatory=signatory, registration_authority=requester.registration_authority, token=token)


def _guess(service: Service, issuer: Issuer, name: str, source: str | None) -> Guess:
    """Around the check of the shared secret of this name, which is another than the password of a user who is called the same."""
    return service.guesses.of_user(f"{AuthenticatedBy.CMC_SHARED_SECRET} {issuer.key} {name}", source)


async def with_identity_proof(
    sender: Sender,
    body: PkiData,
    instructions: Instructions,
    requests: Requests,
    issuer: Issuer,
    service: Service,
    *,
    source: str | None,
    accept_sha1: bool,
) -> Sender:
    """The sender once the identity proofs in the message are checked, and the linking of its requests to the secret (section 6.3.1).

    A proof says who the sender is where a certificate does not. `source` as for `of_message`. Raises CmcFailed (badIdentity, popFailed,
    badAlg), Busy after too many wrong secrets.
    """
    proofs = [
        *((number, identity_proof.parse_v2(value.value_der)) for number, value in instructions.each(controls.IdentityProofV2)),
        *((number, identity_proof.parse_v1(value.value_der)) for number, value in instructions.each(controls.IdentityProof)),
    ]
    identification = instructions.one(controls.Identification)
    random = instructions.one(controls.PopLinkRandom)
    for number, proof in proofs:
        if identification is None:
            raise wrong_identity().about((number,))
        known = full_cmc_secret.secret_of(issuer, identification.text)
        try:
            with _guess(service, issuer, identification.text, source):
                identity_proof.verify(
                    proof,
                    secret=known if known is not None else full_cmc_secret.decoy(),
                    identification=identification.text,
                    req_sequence_der=body.req_sequence_der,
                    accept_sha1=accept_sha1,
                )
                if known is None:  # nobody finds a random secret
                    raise wrong_identity()
        except CmcFailed as failed:
            raise failed.about((number,)) from failed
        assert known is not None  # noqa: S101 - else wrong_identity was raised
        requester = sender.requester if sender.signatory.certificate is not None else full_cmc_secret.owner(identification.text)
        sender = replace(sender, requester=requester, secret=known)
    if sender.secret is not None:
        pop_link.verify_all(requests, secret=sender.secret, random=random.octets if random else None, accept_sha1=accept_sha1)
    elif random is not None:
        raise CmcFailed(
            "there is a popLinkRandom and no shared secret that it could link to", fail_info=CmcFailInfo.BAD_IDENTITY, reason="NoSecret"
        )
    return sender


def check_claimed(sender: Sender, body: PkiData, instructions: Instructions) -> None:
    """Refuse an identification that nothing proves and that is not what the sender is called here.

    By RFC 5272 section 6.2.3 it says whose secret an identity proof was made with. Without one it is a name that anybody may write, and a
    message that is signed with a certificate has none (section 3.2). Raises CmcFailed (badIdentity).
    """
    if sender.secret is not None or identity_controls(body, ()):  # checked, or dealt with by the registration authority around it
        return
    for number, value in instructions.each(controls.Identification):
        if sender.requester is None or sender.requester.user != value.text:
            raise CmcFailed(
                "the identification is not the name of who sent this message, and no identityProofV2 proves it: leave it out",
                fail_info=CmcFailInfo.BAD_IDENTITY,
                body_parts=((number,),),
                reason="IdentityClaimed",
            )


def identity_controls(body: PkiData, path: BodyPartPath) -> list[BodyPartPath]:
    """The paths of the identity proofs in a message at `path`."""
    proofs = {f"{cmc_control_codec.ID_CMC}{number}" for number in (3, 34)}
    return [(*path, control.body_part_id) for control in body.controls if control.attr_type in proofs]


def _holder(signatory: Signatory, issuer: Issuer, service: Service, *, token: bool) -> Requester:
    """The holder of the signer's certificate, as an owner of a TLS client certificate would be one. Raises CmcFailed (badIdentity)."""
    assert signatory.certificate is not None  # noqa: S101 - asked for by the caller
    presented = _presented(signatory)
    # A way that needs a password too is no way for a message: the connection's password is not in it.
    ways = [way.certificate for way in issuer.spec.est.authentication if way.certificate is not None and _alone(way)] if issuer.spec else []
    why_not: list[str] = []
    try:
        requester = client_certificates.issued_by_this(presented, issuer, is_revoked=service.ledger.is_revoked, now=service.clock())
        # The registration authority that the token shows is believed at every issuer, and so is the certificate that it got here.
        if any(way.issued_by == "this" for way in ways) or (token and requester.registration_authority):
            return requester
        why_not.append("this issuer takes no messages signed with its own certificates")
    except Unauthenticated as error:
        why_not.append(error.message)
    for way in ways:
        if way.ca_secret_name is not None and way.ca_secret_name in issuer.anchors:
            try:
                return client_certificates.under_anchors(presented, issuer, way.ca_secret_name, now=service.clock())
            except Unauthenticated as error:
                why_not.append(error.message)
    raise CmcFailed(
        f"the certificate that signed the message is not accepted: {'; '.join(dict.fromkeys(why_not))}",
        fail_info=CmcFailInfo.BAD_IDENTITY,
        body_parts=(WHOLE_MESSAGE,),
        reason="SignerNotAccepted",
    )


def _alone(way: Authentication) -> bool:
    return way.basic is None and way.digest is None and way.one_time_password is None


def _presented(signatory: Signatory) -> _Presented:
    """The signer's chain, the same object for the same chain, so that its path is not checked for every message of a sender."""
    assert signatory.certificate is not None  # noqa: S101 - asked for by the caller
    # The whole certificate and not its name or number: the bag is not signed, so it may hold another one with the same.
    key = (signatory.certificate.public_bytes(Encoding.DER), signatory.bag_der)
    presented = _chains.get(key)
    if presented is None:
        others = (load(der) for der in signatory.bag_der)
        presented = _chains[key] = _Presented((signatory.certificate, *(each for each in others if each != signatory.certificate)))
    return presented


def _check_outer(outer: Signatory, inner: Signatory, issuer: Issuer, service: Service, *, token: bool) -> None:
    """Around what is encrypted signs whoever signed within it, or a registration authority that passes it on (RFC 5272 section 5)."""
    if outer == inner or (outer.certificate is not None and outer.certificate == inner.certificate):
        return
    if outer.certificate is not None and _holder(outer, issuer, service, token=token).registration_authority:
        return
    raise CmcFailed(
        "the two signatures of the message are of different signers, and the outer one is no registration authority of this CA",
        fail_info=CmcFailInfo.BAD_MESSAGE_CHECK,
        body_parts=(WHOLE_MESSAGE,),
        reason="OuterSigner",
    )
