"""Who asks: a request and an issuer in, a Requester out, or an answer that says how to authenticate.

Any one of the ways that the issuer lists suffices; a way that names a certificate and a password asks for both. What the sender says in
the Authorization header comes first, for it was said on purpose; a TLS client certificate may be there by habit. A certificate that is
accepted beside a password is kept with the requester, for rules may ask for it. The registration authority's token is accepted at every
issuer. Source: RFC 7030 sections 3.2.3, 3.3.2 and 4.2; RFC 7617; RFC 7616; RFC 6750.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from estcore.errors import EstError, Forbidden, Unauthenticated, Unavailable
from estcore.issuer_spec import Authentication
from estcore.requester import AuthenticatedBy, Requester
from estserver import authorization_header, challenges, client_certificates, proofs
from estserver.challenges import BEARER, Challenged
from estserver.client_certificates import IsRevoked
from estserver.digest import StaleNonce
from estserver.issuers import Issuer
from estserver.messages import EstRequest
from estserver.proofs import Proof, Proofs, ReadCsr
from estserver.tokens import ServiceAccount

_PASSWORD_MISSING: Final = "the client certificate is accepted; the password is missing beside it"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Certificates:
    """What the TLS client certificate is good for: the ways that accept it, and one sentence why others do not."""

    accepted: tuple[tuple[Authentication, Requester], ...] = ()
    why_not: str = ""

    def accepts(self, way: Authentication) -> bool:
        """Whether a way that names a certificate has it."""
        return any(one is way for one, _ in self.accepted)


_NO_CERTIFICATE: Final = _Certificates()


class Authenticator:
    """Judges the proofs of a request by the ways of its issuer."""

    def __init__(self, proofs: Proofs, *, is_revoked: IsRevoked, clock: Callable[[], datetime]) -> None:
        self._proofs = proofs
        self._is_revoked = is_revoked
        self._clock = clock

    async def enroller(self, request: EstRequest, issuer: Issuer, read_csr: ReadCsr | None = None) -> Requester:
        """Who asks for simpleenroll.

        `read_csr` parses the request's CSR, where it may hold a one-time password; it is called only for an issuer that takes them, and
        for a request that shows no other password. Raises Challenged (401), Forbidden (403) where HTTP authentication would not help, or
        Unavailable.
        """
        ways = _ways(issuer)
        proof, why_not = await self._by_password_or_token(request, issuer, ways, read_csr)
        certificates = self._by_certificate(request, issuer, ways, alone=proof is None)
        if proof is not None:
            requester = _beside(proof.requester, certificates)
            counting = [way for way in ways if proof.counts_for(way)]
            if requester.registration_authority or any(way.certificate is None or certificates.accepts(way) for way in counting):
                return requester
            why_not = certificates.why_not or "a TLS client certificate is needed beside it"
            raise await self._refused(request, issuer, f"the password is right; {why_not}", reason="NoClientCertificate")
        for way, requester in certificates.accepted:
            if not _names_password(way):
                return requester
        if certificates.accepted:
            why_not = why_not or _PASSWORD_MISSING
        raise await self._refused(request, issuer, why_not or certificates.why_not)

    async def reenroller(self, request: EstRequest, issuer: Issuer, read_csr: ReadCsr | None = None) -> Requester:
        """Who asks for simplereenroll: the holder of a certificate of this issuer, or a registration authority (RFC 7030 section 4.2.2).

        A certificate that has expired is accepted as long as the issuer says (`expiredFor`). Raises Forbidden, for no HTTP challenge would
        help, but where the certificate is accepted together with a password only.
        """
        why_not = ""
        if authorization_header.parse(request.authorization)[0] == "bearer":
            try:
                proof, why_not = await self._proofs.by_header(request, issuer, _ways(issuer))
            except (Unauthenticated, Unavailable) as error:
                if isinstance(error, Unavailable) and not request.tls.unverified_client_chain:
                    raise
                proof, why_not = None, error.message  # a certificate renews itself, whatever stands beside it
            if proof is not None and proof.requester.registration_authority:
                return proof.requester
        ways = tuple(way for way in _ways(issuer) if _is_own(way))
        if not ways:
            raise Forbidden("this issuer does not renew certificates over EST; use simpleenroll", reason="NotRenewable")
        if not request.tls.unverified_client_chain:
            also = f"; {why_not}" if why_not else ""
            raise Forbidden(
                f"simplereenroll needs TLS with the client certificate that is to be renewed{also}", reason="NoClientCertificate"
            )
        return await self._reenroller(request, issuer, ways, read_csr)

    async def registration_authority(self, authorization: str | None) -> ServiceAccount:
        """The registration authority, and nobody else. Raises Challenged, Forbidden or Unavailable."""
        authority = self._proofs.registration_authority
        scheme, credentials = authorization_header.parse(authorization)
        if scheme != "bearer":
            raise Challenged("a ServiceAccount token is needed (Authorization: Bearer)", challenges=[BEARER])
        try:
            account = await self._proofs.tokens.identify(credentials, audiences=frozenset({authority.audience}))
        except Unauthenticated as error:
            raise Challenged(error.message, challenges=[BEARER], reason=error.reason) from None
        if not authority.is_shown_by(account):
            raise Forbidden("this is for the registration authority only", reason="NotRegistrationAuthority")
        return account

    async def _reenroller(
        self, request: EstRequest, issuer: Issuer, ways: tuple[Authentication, ...], read_csr: ReadCsr | None
    ) -> Requester:
        now = self._clock()
        accepted: list[tuple[Authentication, Requester]] = []
        for way in ways:
            expired_for = way.certificate.expired_for if way.certificate is not None else None
            try:
                holder = client_certificates.renewable(request.tls, issuer, expired_for=expired_for, is_revoked=self._is_revoked, now=now)
            except Unauthenticated as error:
                refusal = error
            else:
                if not _names_password(way):
                    return holder
                accepted.append((way, holder))
        if not accepted:
            raise Forbidden(
                f"simplereenroll needs a certificate of this issuer; the client certificate was not accepted: {refusal.message}",
                reason=refusal.reason,
            )
        proof, why_not = await self._by_password_or_token(request, issuer, ways, read_csr)
        for way, holder in accepted:
            if proof is not None and proof.counts_for(way):
                return replace(holder, user=proof.requester.user, single_use=proof.requester.single_use)
        raise await self._refused(request, issuer, why_not or _PASSWORD_MISSING)

    async def _by_password_or_token(
        self, request: EstRequest, issuer: Issuer, ways: tuple[Authentication, ...], read_csr: ReadCsr | None
    ) -> tuple[Proof | None, str]:
        """What the Authorization header proves, or the one-time password in the CSR; or None, and why. Raises what `_refused` makes."""
        try:
            proof, why_not = await self._proofs.by_header(request, issuer, ways)
            if proof is None and read_csr is not None and any(way.one_time_password is not None for way in ways):
                proof = await self._proofs.by_one_time_password(request, issuer, read_csr)
        except Unauthenticated as error:
            raise await self._refused(request, issuer, error.message, reason=error.reason) from None
        return proof, why_not

    def _by_certificate(self, request: EstRequest, issuer: Issuer, ways: tuple[Authentication, ...], *, alone: bool) -> _Certificates:
        """What the TLS client certificate proves at each way that names one; `alone`, up to the first that needs no more."""
        if not request.tls.unverified_client_chain:
            return _NO_CERTIFICATE
        now = self._clock()
        accepted: list[tuple[Authentication, Requester]] = []
        why_not: list[str] = []
        for way in ways:
            if way.certificate is None:
                continue
            try:
                if way.certificate.ca_secret_name is None:
                    requester = client_certificates.issued_by_this(request.tls, issuer, is_revoked=self._is_revoked, now=now)
                elif way.certificate.ca_secret_name in issuer.anchors:
                    requester = client_certificates.under_anchors(request.tls, issuer, way.certificate.ca_secret_name, now=now)
                else:
                    continue
            except Unauthenticated as error:
                why_not.append(error.message)
            else:
                accepted.append((way, requester))
                if alone and not _names_password(way):
                    break
        reasons = "; ".join(dict.fromkeys(why_not)) or "this issuer takes no client certificates"
        return _Certificates(accepted=tuple(accepted), why_not=f"the client certificate was not accepted: {reasons}")

    async def _refused(self, request: EstRequest, issuer: Issuer, why_not: str, *, reason: str = "Unauthenticated") -> EstError:
        return await challenges.refused(
            _ways(issuer),
            self._proofs.digest,
            realm=proofs.realm(request, issuer),
            why_not=why_not,
            reason=reason,
            libest=request.wants_wrapped,
            bouncy_castle=request.names_no_agent,
            stale=reason == StaleNonce.reason,
        )


def _ways(issuer: Issuer) -> tuple[Authentication, ...]:
    return issuer.spec.est.authentication if issuer.spec is not None else ()


def _is_own(way: Authentication) -> bool:
    return way.certificate is not None and way.certificate.issued_by == "this"


def _names_password(way: Authentication) -> bool:
    return way.basic is not None or way.digest is not None or way.one_time_password is not None


def _beside(requester: Requester, certificates: _Certificates) -> Requester:
    """The requester with the certificate that came beside its proof: this issuer's own before a third party's."""
    holders = [holder for _, holder in certificates.accepted]
    if not holders:
        return requester
    holder = next((one for one in holders if one.authenticated_by is AuthenticatedBy.CERTIFICATE), holders[0])
    return replace(requester, certificate=holder.certificate, with_certificate=holder.authenticated_by)
