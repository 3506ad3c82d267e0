"""What a password or a token proves: who asks, and for which ways of the issuer that counts.

The Authorization header (Basic, Digest, a ServiceAccount token) and the one-time password in a CSR (RFC 7894). Every check of a guess is
throttled per user and per source. Source: RFC 7617; RFC 7616; RFC 6750.
"""

from collections.abc import Callable
from dataclasses import dataclass

from cryptography.x509.oid import NameOID

from estcore import digest_authentication
from estcore.certification_request import CertificationRequest
from estcore.digest_authentication import DigestAlgorithm
from estcore.errors import BadCsr, BadHeader, IssuerNotReady, MalformedBody, Unauthenticated
from estcore.issuer_spec import Authentication
from estcore.requester import AuthenticatedBy, Requester
from estserver import authorization_header, registration_authority
from estserver.digest import DigestVerifier
from estserver.issuers import Issuer
from estserver.messages import EstRequest
from estserver.passwords import PasswordChecker
from estserver.registration_authority import RegistrationAuthority
from estserver.throttle import Guesses
from estserver.tokens import Tokens

ReadCsr = Callable[[], CertificationRequest]
"""Parses a request's body; raises MalformedBody or BadCsr."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """Who it is, and for which ways that counts: those that name the Secret, or the audience, by which it was checked."""

    requester: Requester
    counts_for: Callable[[Authentication], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Proofs:
    """What checks passwords and tokens, and remembers between requests: failures, tokens that were reviewed, passwords that were right."""

    tokens: Tokens
    passwords: PasswordChecker
    digest: DigestVerifier
    registration_authority: RegistrationAuthority
    guesses: Guesses

    async def by_header(self, request: EstRequest, issuer: Issuer, ways: tuple[Authentication, ...]) -> tuple[Proof | None, str]:
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

    async def by_one_time_password(self, request: EstRequest, issuer: Issuer, read_csr: ReadCsr) -> Proof | None:
        """What the CSR's otpChallenge proves; None where there is none, or the CSR cannot be read, for then nobody asks for anything."""
        try:
            csr = read_csr()
        except (MalformedBody, BadCsr):
            return None
        password = csr.one_time_password
        if password is None:
            return None
        passwords = issuer.one_time_passwords
        if passwords is None:
            raise IssuerNotReady("this issuer cannot check passwords now; try again later")
        names = csr.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        common_name = str(names[0].value) if names else None
        # who names nobody can only have a random password, which nobody guesses
        key = f"{issuer.key} {common_name}"
        with self.guesses.of_user(key, request.source) if names else self.guesses.of_source(request.source):
            if passwords.is_slow(password):
                found = await self.passwords.run(lambda: passwords.check(password, common_name=common_name))
            else:
                found = passwords.check(password, common_name=common_name)
        return Proof(
            requester=Requester(
                authenticated_by=AuthenticatedBy.ONE_TIME_PASSWORD, identity=found.user, user=found.user, single_use=found.single_use
            ),
            counts_for=lambda way: way.one_time_password is not None and way.one_time_password.secret_name == found.secret_name,
        )

    async def _by_password(self, request: EstRequest, issuer: Issuer, credentials: str) -> Proof:
        user, password = authorization_header.parse_basic(credentials)
        passwords = issuer.passwords
        if passwords is None:
            raise IssuerNotReady("this issuer cannot check passwords now; try again later")
        with self.guesses.of_user(f"{issuer.key} {user}", request.source):
            await self.passwords.check(passwords, user, password)
        secret_name = passwords.secret_of(user)
        return Proof(
            requester=Requester(authenticated_by=AuthenticatedBy.BASIC, identity=user, user=user),
            counts_for=lambda way: way.basic is not None and way.basic.secret_name == secret_name,
        )

    async def _by_digest(self, request: EstRequest, issuer: Issuer, ways: tuple[Authentication, ...], text: str) -> Proof:
        credentials = digest_authentication.parse_credentials(text)
        if credentials.uri != request.target:
            raise BadHeader("Authorization: Digest: uri is not the target of this request (RFC 7616 section 3.4.6)")
        digests = issuer.digests
        if digests is None:
            raise IssuerNotReady("this issuer cannot check passwords now; try again later")
        made_at = await self.digest.made_at(credentials, realm=realm(request, issuer))

        def counts_for(way: Authentication) -> bool:
            return way.digest is not None and (way.digest.md5 or credentials.algorithm is not DigestAlgorithm.MD5)

        secret_names = frozenset(way.digest.secret_name for way in ways if way.digest is not None and counts_for(way))
        with self.guesses.of_user(f"{issuer.key} {credentials.user}", request.source):
            secret_name = self.digest.check_response(credentials, digests, method=request.method, secret_names=secret_names)
        await self.digest.use(credentials, made_at=made_at)
        return Proof(
            requester=Requester(authenticated_by=AuthenticatedBy.DIGEST, identity=credentials.user, user=credentials.user),
            counts_for=lambda way: way.digest is not None and way.digest.secret_name == secret_name and counts_for(way),
        )

    async def _by_token(self, request: EstRequest, ways: tuple[Authentication, ...], token: str) -> Proof:
        listed = frozenset(way.service_account_token.audience for way in ways if way.service_account_token is not None)
        with self.guesses.of_source(request.source):
            account = await self.tokens.identify(token, audiences=listed | {self.registration_authority.audience})
        if self.registration_authority.is_shown_by(account):
            return Proof(requester=registration_authority.service_account(account, registration_authority=True), counts_for=lambda _: False)
        if not account.audiences & listed:
            raise Unauthenticated("this issuer takes no ServiceAccount tokens of this audience", reason="TokenNotAccepted")
        return Proof(
            requester=registration_authority.service_account(account),
            counts_for=lambda way: way.service_account_token is not None and way.service_account_token.audience in account.audiences,
        )


def realm(request: EstRequest, issuer: Issuer) -> str:
    """The label that was asked."""
    return request.label or issuer.label or issuer.name
