"""HTTP Digest at this server: challenges, and whether what answers them is right, fresh and new.

A nonce is good for five minutes, at every worker and replica: they share the key that makes it, and each (nonce, nc) is spent in the
ledger's database, so whoever replays a header at another replica is as late as at this one. Source: RFC 7616 sections 3.3 to 3.7, 5.4.
"""

import hmac
import secrets
from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timedelta
from typing import Final

from estcore import digest_authentication
from estcore.digest_authentication import NONCE_LIFE, NONCE_RANDOM_OCTETS, DigestAlgorithm, DigestCredentials
from estcore.errors import Unauthenticated
from estserver.digests import Digests
from estserver.spent import Spent

CLOCK_SKEW: Final = timedelta(minutes=1)
"""How much later than a nonce's end its uses are remembered: the clocks of replicas differ."""

_SCOPE = "digest"


class StaleNonce(Unauthenticated):
    """The response is right and its nonce is too old or was used before: the client answers a new challenge, with the same password."""

    reason = "StaleNonce"


class DigestVerifier:
    """Makes challenges and checks credentials. One per process; `spent` is what it shares with the others."""

    def __init__(self, spent: Spent, *, clock: Callable[[], datetime], random_octets: Callable[[int], bytes] = secrets.token_bytes) -> None:
        self._spent = spent
        self._clock = clock
        self._random_octets = random_octets
        self._key: bytes | None = None

    async def challenges(self, realm: str, algorithms: Sequence[DigestAlgorithm], *, stale: bool, all_quoted: bool = False) -> list[str]:
        """The WWW-Authenticate values for these algorithms, in their order, with one fresh nonce. Raises LedgerUnavailable."""
        key = await self._shared_key()
        nonce = digest_authentication.make_nonce(
            key, realm=realm, now=self._clock(), random_octets=self._random_octets(NONCE_RANDOM_OCTETS)
        )
        opaque = digest_authentication.make_opaque(key, realm=realm)
        return [
            digest_authentication.render_challenge(algorithm, realm=realm, nonce=nonce, opaque=opaque, stale=stale, all_quoted=all_quoted)
            for algorithm in algorithms
        ]

    async def made_at(self, credentials: DigestCredentials, *, realm: str) -> datetime:
        """When this server made the challenge that is answered. Raises Unauthenticated where it made none such, LedgerUnavailable."""
        key = await self._shared_key()
        if credentials.realm != realm:
            raise Unauthenticated("the realm is not that of the challenge: it is the label of this path", reason="WrongRealm")
        made = digest_authentication.nonce_time(key, credentials.nonce, realm=realm)
        opaque = digest_authentication.make_opaque(key, realm=realm)
        if made is None or credentials.opaque not in (None, opaque):
            raise Unauthenticated(
                "the nonce or the opaque is not of this server: answer the challenge of this answer", reason="UnknownNonce"
            )
        return made

    def check_response(self, credentials: DigestCredentials, digests: Digests, *, method: str, secret_names: Collection[str]) -> str:
        """The name of the Secret that the user is in, one of `secret_names`.

        Raises Unauthenticated, with the same text and after the same work for an unknown user and for a wrong password.
        """
        ha1, secret_name = digests.find(credentials, secret_names=secret_names)
        expected = digest_authentication.compute_response(
            credentials.algorithm,
            ha1,
            method=method,
            uri=credentials.uri,
            nonce=credentials.nonce,
            nonce_count=credentials.nonce_count,
            cnonce=credentials.cnonce,
        )
        if not hmac.compare_digest(expected, credentials.response) or secret_name is None:
            raise Unauthenticated("the user or the password is wrong", reason="WrongPassword")
        return secret_name

    async def use(self, credentials: DigestCredentials, *, made_at: datetime) -> None:
        """Use (nonce, nc) up, after the response was found right. Raises StaleNonce, LedgerUnavailable."""
        now = self._clock()
        if now >= made_at + NONCE_LIFE:
            raise StaleNonce("the nonce is too old: answer the new challenge")
        value = f"{credentials.nonce}:{credentials.nonce_count:x}"
        if not await self._spent.spend(_SCOPE, value, now=now, expires_at=made_at + NONCE_LIFE + CLOCK_SKEW):
            raise StaleNonce("this nonce and nc were used before: answer the new challenge")

    async def _shared_key(self) -> bytes:
        if self._key is None:
            self._key = await self._spent.shared_key(_SCOPE)
        return self._key
