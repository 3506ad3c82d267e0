"""ServiceAccount tokens: who a Bearer token is, by TokenReview, remembered for at most 30 seconds.

What is cached is keyed by the token's digest: no token stays in memory. A token that cannot pass (no audience of ours in its
claims, or expired by its own words) is refused before the API server is asked, so strangers cannot make us flood it.
"""

import asyncio
import base64
import binascii
import hashlib
import json
import re
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from cachetools import TTLCache

from estcore.errors import Busy, EstError, Unauthenticated

CACHE_LIFE = timedelta(seconds=30)
"""A deleted pod's or ServiceAccount's token is good for at most this much longer."""
CACHE_SIZE = 4096
MAX_TOKEN_OCTETS = 8192
MAX_REVIEWS_AT_ONCE = 64
CLOCK_SKEW = timedelta(seconds=60)

_COMPACT_JWS = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_SERVICE_ACCOUNT = re.compile(r"system:serviceaccount:([a-z0-9-]{1,63}):([a-z0-9.-]{1,253})")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewedToken:
    """`status` of a TokenReview that says authenticated: the user, its groups, and which of the audiences asked for the token has."""

    username: str
    groups: frozenset[str]
    audiences: frozenset[str]


class TokenReviewer(Protocol):
    """Asks the API server (authentication.k8s.io/v1 TokenReview)."""

    async def review(self, token: str, *, audiences: Collection[str]) -> ReviewedToken | None:
        """None where the token is not authentic for any of the audiences. Raises Unavailable when nobody could be asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceAccount:
    """A reviewed token's owner. `audiences`: those that were asked for and that the token has; never empty."""

    namespace: str
    name: str
    username: str
    groups: frozenset[str]
    audiences: frozenset[str]

    @property
    def full_name(self) -> str:
        """`<namespace>/<name>`: neither half can hold a slash."""
        return f"{self.namespace}/{self.name}"


class Tokens:
    """The cache before a TokenReviewer. Without one (no cluster) every token is refused with that reason."""

    def __init__(
        self, reviewer: TokenReviewer | None, *, clock: Callable[[], datetime], timer: Callable[[], float] = time.monotonic
    ) -> None:
        self._reviewer = reviewer
        self._clock = clock
        # Not by the clock: where it is set back by an hour, a deleted token would be good for an hour more.
        self._known: TTLCache[bytes, tuple[ServiceAccount | None, float]] = TTLCache(CACHE_SIZE, CACHE_LIFE.total_seconds(), timer=timer)
        self._running: dict[bytes, asyncio.Task[ServiceAccount | None]] = {}

    async def identify(self, token: str, *, audiences: frozenset[str]) -> ServiceAccount:
        """The ServiceAccount that the token is of, for at least one of the audiences.

        Raises Unauthenticated (the text never repeats the token), Busy, or Unavailable when the API server cannot be asked.
        """
        if self._reviewer is None:
            raise Unauthenticated("this server knows no Kubernetes API that could check a token", reason="TokenNotAccepted")
        key = hashlib.sha256("\0".join((token, *sorted(audiences))).encode()).digest()
        known = self._known.get(key)
        if known is not None:
            account, expires = known
            if account is not None and self._clock().timestamp() >= expires:
                raise _refused("it has expired")
        else:
            expires = _claims_expiry(token, audiences, now=self._clock())
            account = await self._review_once(key, token, audiences)
            self._known[key] = (account, expires)
        if account is None:
            raise _refused("the API server does not confirm it for this audience")
        return account

    async def _review_once(self, key: bytes, token: str, audiences: frozenset[str]) -> ServiceAccount | None:
        """One TokenReview for however many requests bring the same token at once."""
        running = self._running.get(key)
        if running is None:
            if len(self._running) >= MAX_REVIEWS_AT_ONCE:
                raise Busy("too many tokens are being checked; try again")
            running = asyncio.create_task(self._review(token, audiences))
            self._running[key] = running
            running.add_done_callback(lambda _: self._running.pop(key, None))
        return await asyncio.shield(running)

    async def _review(self, token: str, audiences: frozenset[str]) -> ServiceAccount | None:
        assert self._reviewer is not None  # noqa: S101 - identify looked
        reviewed = await self._reviewer.review(token, audiences=audiences)
        if reviewed is None or not reviewed.audiences & audiences:
            return None
        match = _SERVICE_ACCOUNT.fullmatch(reviewed.username)
        if match is None:
            return None
        return ServiceAccount(
            namespace=match[1],
            name=match[2],
            username=reviewed.username,
            groups=reviewed.groups,
            audiences=reviewed.audiences & audiences,
        )


def _claims_expiry(token: str, audiences: frozenset[str], *, now: datetime) -> float:
    """`exp` of the token's own, unverified claims, in seconds since the epoch, where they name one of our audiences and a time to come.

    This trusts nothing: it only spares the API server what it would refuse. Source: RFC 7519 sections 4.1.3 and 4.1.4.
    """
    if len(token) > MAX_TOKEN_OCTETS or not _COMPACT_JWS.fullmatch(token):
        raise _refused("it is not a JSON Web Token")
    claims = _decode_claims(token.split(".")[1])
    audience = claims.get("aud")
    named = (
        {audience}
        if isinstance(audience, str)
        else {item for item in audience if isinstance(item, str)}
        if isinstance(audience, list)
        else set()
    )
    if not named & audiences:
        raise _refused(f"its audience is none of: {', '.join(sorted(audiences))}")
    expires = claims.get("exp")
    if not isinstance(expires, int | float) or isinstance(expires, bool):
        raise _refused("it never expires; use a projected ServiceAccount token")
    if now.timestamp() >= expires + CLOCK_SKEW.total_seconds():
        raise _refused("it has expired")
    return float(expires) + CLOCK_SKEW.total_seconds()


def _decode_claims(segment: str) -> dict[str, Any]:
    try:
        claims = json.loads(base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        raise _refused("its claims cannot be read") from None
    if not isinstance(claims, dict):
        raise _refused("its claims cannot be read")
    return claims


def _refused(why: str) -> EstError:
    return Unauthenticated(f"the token was not accepted: {why}", reason="TokenNotAccepted")
