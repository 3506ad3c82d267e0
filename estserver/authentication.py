"""Who asks: a request and an issuer in, a Requester out, or an answer that says how to authenticate.

Any one of the ways that the issuer lists suffices. What the sender says in the Authorization header comes first, for it was said on
purpose; a TLS client certificate may be there by habit. The registration authority's token is accepted at every issuer.
Source: RFC 7030 sections 3.2.3, 3.3.2 and 4.2; RFC 7617; RFC 6750.
"""

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from estcore.errors import EstError, Forbidden, IssuerNotReady, RequestError, Unauthenticated
from estcore.issuer_spec import Authentication
from estcore.requester import AuthenticatedBy, Door, Requester
from estserver import client_certificates
from estserver.client_certificates import IsRevoked
from estserver.issuers import Issuer
from estserver.messages import EstRequest
from estserver.passwords import PasswordChecker
from estserver.throttle import Throttle
from estserver.tokens import ServiceAccount, Tokens

MAX_USER: Final = 255
MAX_PASSWORD: Final = 1024
USER_FREE_FAILURES: Final = 10
USER_LONGEST_PAUSE: Final = timedelta(seconds=2)
"""Short, for whoever knows the name of a fleet's common user, or one device with an old password, keeps the others out for as long.
Many sources together guess at half a password a second; what one source may guess is bounded below."""
USER_LONGEST_PAUSE_ALONE: Final = timedelta(seconds=30)
"""Where sources cannot be told apart, so nothing else bounds one of them."""
SOURCE_FREE_FAILURES: Final = 20
SOURCE_LONGEST_PAUSE: Final = timedelta(minutes=1)

_CREDENTIALS = re.compile(r"([A-Za-z][A-Za-z0-9_-]*) +([A-Za-z0-9._~+/-]+=*)")
_CONTROL = re.compile("[\x00-\x1f\x7f]")
# door/namespace/name/uid: names by RFC 1123 as the Kubernetes API checks them, the uid a UUID
_IDEMPOTENCY_KEY = re.compile(
    r"(?P<door>cert-manager\.io|est-issuer\.io)/(?P<namespace>[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?)"
    r"/(?P<name>[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?)/(?P<uid>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"
)


class Challenged(Unauthenticated):
    """Not authenticated where HTTP authentication would do: `challenges` are the WWW-Authenticate values, in order, at least one."""

    def __init__(self, message: str, *, challenges: Collection[str], reason: str = "Unauthenticated") -> None:
        super().__init__(message, reason=reason)
        self.challenges = tuple(challenges)


class BadHeader(RequestError):
    """A request header cannot be read, or is there twice: the sender's fault."""

    reason = "BadHeader"


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrationAuthority:
    """Whose token is accepted at every issuer: `<namespace>/<name>` of ServiceAccounts, and the audience their tokens have."""

    service_accounts: frozenset[str] = frozenset()
    audience: str = "est-issuer"


class Authenticator:
    """Holds what authentication remembers between requests: failures, and tokens that were reviewed."""

    def __init__(
        self,
        *,
        tokens: Tokens,
        passwords: PasswordChecker,
        registration_authority: RegistrationAuthority,
        is_revoked: IsRevoked,
        clock: Callable[[], datetime],
        throttle_sources: bool = True,
    ) -> None:
        self._tokens = tokens
        self._passwords = passwords
        self._ra = registration_authority
        self._is_revoked = is_revoked
        self._clock = clock
        longest = USER_LONGEST_PAUSE if throttle_sources else USER_LONGEST_PAUSE_ALONE
        self._users = Throttle(free=USER_FREE_FAILURES, longest=longest)
        self._sources = Throttle(free=SOURCE_FREE_FAILURES, longest=SOURCE_LONGEST_PAUSE) if throttle_sources else None

    async def enroller(self, request: EstRequest, issuer: Issuer) -> Requester:
        """Who asks for simpleenroll. Raises Challenged (401), Forbidden (403) where only certificates are known, or Unavailable."""
        ways = _ways(issuer)
        requester, why_not = await self._by_header(request, issuer, ways)
        if requester is None:
            requester, no_certificate = self._by_certificate(request, issuer, ways)
            why_not = why_not or no_certificate
        if requester is None:
            raise _refused(ways, issuer, why_not)
        if request.idempotency_key is not None and requester.door is Door.EST:
            raise Forbidden("Idempotency-Key is for the registration authority only; leave it out", reason="IdempotencyKeyForbidden")
        return requester

    def reenroller(self, request: EstRequest, issuer: Issuer) -> Requester:
        """Who asks for simplereenroll: only the holder of a certificate of this issuer. Raises Forbidden: no HTTP challenge would help."""
        if request.idempotency_key is not None:
            raise Forbidden("Idempotency-Key is for the registration authority only; leave it out", reason="IdempotencyKeyForbidden")
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
        challenge = _bearer_challenge()
        scheme, credentials = _parse_authorization(authorization) if authorization is not None else ("", "")
        if scheme != "bearer":
            raise Challenged("a ServiceAccount token is needed (Authorization: Bearer)", challenges=[challenge])
        try:
            account = await self._tokens.identify(credentials, audiences=frozenset({self._ra.audience}))
        except Unauthenticated as error:
            raise Challenged(error.message, challenges=[challenge], reason=error.reason) from None
        if account.full_name not in self._ra.service_accounts:
            raise Forbidden("this is for the registration authority only", reason="NotRegistrationAuthority")
        return account

    async def _by_header(self, request: EstRequest, issuer: Issuer, ways: tuple[Authentication, ...]) -> tuple[Requester | None, str]:
        """The requester by the Authorization header; or None, and why the header was not taken for credentials."""
        if request.authorization is None:
            return None, ""
        scheme, credentials = _parse_authorization(request.authorization)
        try:
            if scheme == "basic":
                if not any(way.basic is not None for way in ways):
                    return None, "this issuer takes no passwords"
                return await self._by_password(request, issuer, credentials), ""
            if scheme == "bearer":
                return await self._by_token(request, ways, credentials), ""
        except Unauthenticated as error:
            raise _refused(ways, issuer, error.message, reason=error.reason) from None
        return None, "this server knows no such Authorization scheme"

    async def _by_password(self, request: EstRequest, issuer: Issuer, credentials: str) -> Requester:
        user, password = _parse_basic(credentials)
        if issuer.passwords is None:
            raise IssuerNotReady("this issuer cannot check passwords now; try again later")
        user_key, source_key = f"{issuer.key} {user}", _source(request.source)
        now = self._clock()
        self._users.check(user_key, now=now)
        if self._sources is not None:
            self._sources.check(source_key, now=now)
        try:
            await self._passwords.check(issuer.passwords, user, password)
        except Unauthenticated:
            now = self._clock()
            self._users.failed(user_key, now=now)
            if self._sources is not None:
                self._sources.failed(source_key, now=now)
            raise
        self._users.succeeded(user_key)
        if self._sources is not None:
            self._sources.forgive(source_key)
        return Requester(authenticated_by=AuthenticatedBy.BASIC, identity=user, user=user)

    async def _by_token(self, request: EstRequest, ways: tuple[Authentication, ...], token: str) -> Requester:
        listed = frozenset(way.service_account_token.audience for way in ways if way.service_account_token is not None)
        now = self._clock()
        source_key = _source(request.source)
        if self._sources is not None:
            self._sources.check(source_key, now=now)
        try:
            account = await self._tokens.identify(token, audiences=listed | {self._ra.audience})
        except Unauthenticated:
            if self._sources is not None:
                self._sources.failed(source_key, now=now)
            raise
        if self._ra.audience in account.audiences and account.full_name in self._ra.service_accounts:
            return _vouching(account, request.idempotency_key)
        if not account.audiences & listed:
            raise Unauthenticated("this issuer takes no ServiceAccount tokens of this audience", reason="TokenNotAccepted")
        return _service_account(account)

    def _by_certificate(self, request: EstRequest, issuer: Issuer, ways: tuple[Authentication, ...]) -> tuple[Requester | None, str]:
        """The requester by the TLS client certificate; or None, and one sentence why the one that was sent was not accepted."""
        if not request.tls.unverified_client_chain:
            return None, ""
        now = self._clock()
        why_not: list[str] = []
        for way in ways:
            try:
                if _is_own(way):
                    return client_certificates.issued_by_this(request.tls, issuer, is_revoked=self._is_revoked, now=now), ""
                if way.certificate is not None and issuer.anchors:
                    return client_certificates.under_anchors(request.tls, issuer, now=now), ""
            except Unauthenticated as error:
                why_not.append(error.message)
        reasons = "; ".join(dict.fromkeys(why_not)) or "this issuer takes no client certificates"
        return None, f"the client certificate was not accepted: {reasons}"


def _ways(issuer: Issuer) -> tuple[Authentication, ...]:
    return issuer.spec.est.authentication if issuer.spec is not None else ()


def _is_own(way: Authentication) -> bool:
    return way.certificate is not None and way.certificate.issued_by == "this"


def _vouching(account: ServiceAccount, idempotency_key: str | None) -> Requester:
    """The registration authority, or whom it asks for: the Kubernetes object that its Idempotency-Key names."""
    if idempotency_key is None:
        return replace(_service_account(account), registration_authority=True)
    match = _IDEMPOTENCY_KEY.fullmatch(idempotency_key)
    if match is None:
        raise BadHeader("Idempotency-Key is <door>/<namespace>/<name>/<uid>, the door cert-manager.io or est-issuer.io")
    return Requester(
        authenticated_by=AuthenticatedBy.KUBERNETES,
        identity=match["namespace"],
        door=Door(match["door"]),
        namespace=match["namespace"],
        registration_authority=True,
    )


def _service_account(account: ServiceAccount) -> Requester:
    return Requester(
        authenticated_by=AuthenticatedBy.SERVICE_ACCOUNT_TOKEN,
        identity=account.full_name,
        user=account.username,
        groups=account.groups,
        namespace=account.namespace,
        service_account=account.name,
    )


def _parse_authorization(value: str) -> tuple[str, str]:
    """Scheme in lower case (RFC 9110 section 11.1) and token68."""
    match = _CREDENTIALS.fullmatch(value.strip())
    if match is None:
        return "", ""
    return match[1].lower(), match[2]


def _parse_basic(credentials: str) -> tuple[str, str]:
    """User (may be empty) and password; the first colon parts them. Raises Unauthenticated. Source: RFC 7617 section 2."""
    try:
        text = base64.b64decode(credentials, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise _malformed_basic() from None
    user, colon, password = text.partition(":")
    if not colon or _CONTROL.search(text) or len(user) > MAX_USER or len(password) > MAX_PASSWORD:
        raise _malformed_basic()
    return user, password


def _malformed_basic() -> EstError:
    return Unauthenticated("Authorization: Basic takes the base64 of user:password in UTF-8 (RFC 7617)", reason="MalformedCredentials")


def _source(address: str) -> str:
    """Who counts as one source: an IPv4 address, or the /64 that one site has of IPv6."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    return address if parsed.version == 4 else str(int(parsed) >> 64)


def _refused(ways: tuple[Authentication, ...], issuer: Issuer, why_not: str, *, reason: str = "Unauthenticated") -> EstError:
    """401 with a challenge per way of HTTP authentication, or 403 where no HTTP authentication would help."""
    possible = list(dict.fromkeys(_describe(ways)))
    text = f"authenticate by {' or '.join(possible)}" if possible else "nobody but the registration authority may enrol at this issuer"
    text = f"{text}; {why_not}" if why_not else text
    challenges = list(dict.fromkeys(_challenges(ways, realm=issuer.label or issuer.name)))
    if not challenges:
        return Forbidden(text, reason=reason)
    # old clients read the first header only, and none of them knows Bearer
    return Challenged(text, challenges=sorted(challenges, key=lambda challenge: challenge.startswith("Bearer")), reason=reason)


def _describe(ways: tuple[Authentication, ...]) -> Iterator[str]:
    for way in ways:
        if _is_own(way):
            yield "a TLS client certificate of this issuer"
        elif way.certificate is not None:
            yield "a TLS client certificate under the issuer's trust anchors"
        elif way.basic is not None:
            yield "HTTP Basic"
        elif way.service_account_token is not None:
            yield f"a ServiceAccount token of audience {way.service_account_token.audience} (Authorization: Bearer)"


def _challenges(ways: tuple[Authentication, ...], *, realm: str) -> Iterator[str]:
    for way in ways:
        if way.basic is not None:
            yield f'Basic realm="{realm}", charset="UTF-8"'
        elif way.service_account_token is not None:
            yield _bearer_challenge()


def _bearer_challenge() -> str:
    return 'Bearer realm="est-issuer"'
