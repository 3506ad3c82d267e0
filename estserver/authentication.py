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

from estcore import digest_authentication
from estcore.digest_authentication import DigestAlgorithm
from estcore.errors import BadHeader, EstError, Forbidden, IssuerNotReady, Unauthenticated
from estcore.issuer_spec import Authentication
from estcore.requester import AuthenticatedBy, Requester
from estserver import authorization_header, challenges, client_certificates, registration_authority
from estserver.challenges import BEARER, Challenged
from estserver.client_certificates import IsRevoked
from estserver.digest import DigestVerifier, StaleNonce
from estserver.issuers import Issuer
from estserver.messages import EstRequest
from estserver.passwords import PasswordChecker
from estserver.registration_authority import RegistrationAuthority
from estserver.throttle import Guesses
from estserver.tokens import ServiceAccount, Tokens

_KEY_FORBIDDEN: Final = "Idempotency-Key is for the registration authority only; leave it out"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Proof:
    """What a password or token proved: who it is, and for which ways of the issuer that counts."""

    requester: Requester
    counts_for: Callable[[Authentication], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Certificates:
    """What the TLS client certificate is good for: the ways that accept it, and one sentence why others do not."""

    accepted: tuple[tuple[Authentication, Requester], ...] = ()
    why_not: str = ""

    def accepts(self, way: Authentication) -> bool:
        """Whether a way that names a certificate has it."""
        return any(one is way for one, _ in self.accepted)


class Authenticator:
    """Holds what authentication remembers between requests: failures, and tokens that were reviewed."""

    def __init__(
        self,
        *,
        tokens: Tokens,
        passwords: PasswordChecker,
        digest: DigestVerifier,
        registration_authority: RegistrationAuthority,
        is_revoked: IsRevoked,
        clock: Callable[[], datetime],
        throttle_sources: bool = True,
    ) -> None:
        self._tokens = tokens
        self._passwords = passwords
        self._digest = digest
        self._ra = registration_authority
        self._is_revoked = is_revoked
        self._clock = clock
        self._guesses = Guesses(clock=clock, throttle_sources=throttle_sources)

    async def enroller(self, request: EstRequest, issuer: Issuer) -> Requester:
        """Who asks for simpleenroll. Raises Challenged (401), Forbidden (403) where only certificates are known, or Unavailable."""
        requester = await self._enroller(request, issuer)
        if request.idempotency_key is not None and not requester.registration_authority:
            raise Forbidden(_KEY_FORBIDDEN, reason="IdempotencyKeyForbidden")
        return requester

    def reenroller(self, request: EstRequest, issuer: Issuer) -> Requester:
        """Who asks for simplereenroll: only the holder of a certificate of this issuer. Raises Forbidden: no HTTP challenge would help."""
        if request.idempotency_key is not None:
            raise Forbidden(_KEY_FORBIDDEN, reason="IdempotencyKeyForbidden")
        if not any(_is_own(way) for way in _ways(issuer)):
            raise Forbidden("this issuer does not renew certificates over EST; use simpleenroll", reason="NotRenewable")
        if not request.tls.unverified_client_chain:
            raise Forbidden("simplereenroll needs TLS with the client certificate that is to be renewed", reason="NoClientCertificate")
        try:
            return client_certificates.issued_by_this(request.tls, issuer, is_revoked=self._is_revoked, now=self._clock())
        except Unauthenticated as error:
            raise Forbidden(
                f"simplereenroll needs a certificate of this issuer; the client certificate was not accepted: {error.message}",
                reason=error.reason,
            ) from None

    async def registration_authority(self, authorization: str | None) -> ServiceAccount:
        """The registration authority, and nobody else. Raises Challenged, Forbidden or Unavailable."""
        scheme, credentials = authorization_header.parse(authorization)
        if scheme != "bearer":
            raise Challenged("a ServiceAccount token is needed (Authorization: Bearer)", challenges=[BEARER])
        try:
            account = await self._tokens.identify(credentials, audiences=frozenset({self._ra.audience}))
        except Unauthenticated as error:
            raise Challenged(error.message, challenges=[BEARER], reason=error.reason) from None
        if not self._ra.is_shown_by(account):
            raise Forbidden("this is for the registration authority only", reason="NotRegistrationAuthority")
        return account

    async def _enroller(self, request: EstRequest, issuer: Issuer) -> Requester:
        ways = _ways(issuer)
        try:
            proof, why_not = await self._by_header(request, issuer, ways)
        except Unauthenticated as error:
            raise await self._refused(request, issuer, error.message, reason=error.reason) from None
        certificates = self._by_certificate(request, issuer, ways)
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
            why_not = why_not or "the client certificate is accepted; the password is missing beside it"
        raise await self._refused(request, issuer, why_not or certificates.why_not)

    async def _by_header(self, request: EstRequest, issuer: Issuer, ways: tuple[Authentication, ...]) -> tuple[_Proof | None, str]:
        """What the Authorization header proves; or None, and why it was not taken for credentials. Raises Unauthenticated."""
        if request.authorization is None:
            return None, ""
        scheme, credentials = authorization_header.parse(request.authorization)
        if scheme == "basic":
            if not any(way.basic is not None for way in ways):
                return None, "this issuer takes no passwords by HTTP Basic"
            return await self._by_password(request, issuer, credentials), ""
        if scheme == "digest":
            if not any(way.digest is not None for way in ways):
                return None, "this issuer takes no HTTP Digest"
            return await self._by_digest(request, issuer, ways, credentials), ""
        if scheme == "bearer":
            return await self._by_token(request, ways, credentials), ""
        return None, "this server knows no such Authorization scheme"

    async def _by_password(self, request: EstRequest, issuer: Issuer, credentials: str) -> _Proof:
        user, password = authorization_header.parse_basic(credentials)
        passwords = issuer.passwords
        if passwords is None:
            raise IssuerNotReady("this issuer cannot check passwords now; try again later")
        with self._guesses.of_user(f"{issuer.key} {user}", request.source):
            await self._passwords.check(passwords, user, password)
        secret_name = passwords.secret_of(user)
        return _Proof(
            requester=Requester(authenticated_by=AuthenticatedBy.BASIC, identity=user, user=user),
            counts_for=lambda way: way.basic is not None and way.basic.secret_name == secret_name,
        )

    async def _by_digest(self, request: EstRequest, issuer: Issuer, ways: tuple[Authentication, ...], text: str) -> _Proof:
        credentials = digest_authentication.parse_credentials(text)
        if credentials.uri != request.target:
            raise BadHeader("Authorization: Digest: uri is not the target of this request (RFC 7616 section 3.4.6)")
        digests = issuer.digests
        if digests is None:
            raise IssuerNotReady("this issuer cannot check passwords now; try again later")
        made_at = await self._digest.made_at(credentials, realm=_realm(request, issuer))

        def counts_for(way: Authentication) -> bool:
            return way.digest is not None and (way.digest.md5 or credentials.algorithm is not DigestAlgorithm.MD5)

        secret_names = frozenset(way.digest.secret_name for way in ways if way.digest is not None and counts_for(way))
        with self._guesses.of_user(f"{issuer.key} {credentials.user}", request.source):
            secret_name = self._digest.check_response(credentials, digests, method=request.method, secret_names=secret_names)
        await self._digest.use(credentials, made_at=made_at)
        return _Proof(
            requester=Requester(authenticated_by=AuthenticatedBy.DIGEST, identity=credentials.user, user=credentials.user),
            counts_for=lambda way: way.digest is not None and way.digest.secret_name == secret_name and counts_for(way),
        )

    async def _by_token(self, request: EstRequest, ways: tuple[Authentication, ...], token: str) -> _Proof:
        listed = frozenset(way.service_account_token.audience for way in ways if way.service_account_token is not None)
        with self._guesses.of_source(request.source):
            account = await self._tokens.identify(token, audiences=listed | {self._ra.audience})
        if self._ra.is_shown_by(account):
            return _Proof(requester=registration_authority.vouching(account, request.idempotency_key), counts_for=lambda _: False)
        if not account.audiences & listed:
            raise Unauthenticated("this issuer takes no ServiceAccount tokens of this audience", reason="TokenNotAccepted")
        return _Proof(
            requester=registration_authority.service_account(account),
            counts_for=lambda way: way.service_account_token is not None and way.service_account_token.audience in account.audiences,
        )

    def _by_certificate(self, request: EstRequest, issuer: Issuer, ways: tuple[Authentication, ...]) -> _Certificates:
        """What the TLS client certificate proves at each way that names one."""
        if not request.tls.unverified_client_chain:
            return _Certificates()
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
        reasons = "; ".join(dict.fromkeys(why_not)) or "this issuer takes no client certificates"
        return _Certificates(accepted=tuple(accepted), why_not=f"the client certificate was not accepted: {reasons}")

    async def _refused(self, request: EstRequest, issuer: Issuer, why_not: str, *, reason: str = "Unauthenticated") -> EstError:
        return await challenges.refused(
            _ways(issuer),
            self._digest,
            realm=_realm(request, issuer),
            why_not=why_not,
            reason=reason,
            libest=request.wants_wrapped,
            stale=reason == StaleNonce.reason,
        )


def _ways(issuer: Issuer) -> tuple[Authentication, ...]:
    return issuer.spec.est.authentication if issuer.spec is not None else ()


def _realm(request: EstRequest, issuer: Issuer) -> str:
    """The label that was asked."""
    return request.label or issuer.label or issuer.name


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
