"""Answers to the Digest challenges of one server (RFC 7616): the password itself never leaves.

The strongest algorithm that is offered is used. A nonce serves further requests, each with a higher count, until the server says that
it is stale. Another challenge after an answer means that the password is wrong, and nothing is sent again.
"""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from estcore import digest_authentication
from estcore.digest_authentication import QOP, DigestAlgorithm, DigestCredentials
from estcore.errors import BadHeader
from estcore.exchange import HttpRequest
from estcore.http_authentication import parse_challenges

CNONCE_OCTETS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class _Challenge:
    algorithm: DigestAlgorithm
    realm: str
    nonce: str
    opaque: str | None
    stale: bool


class DigestAnswers:
    """The answers of one user to one server; remembers the nonce and how often it was used."""

    def __init__(self, *, user: str, password: str, random_octets: Callable[[int], bytes] = secrets.token_bytes) -> None:
        self._user = user
        self._password = password
        self._random_octets = random_octets
        self._challenge: _Challenge | None = None
        self._nonce_count = 0

    def header(self, request: HttpRequest) -> str | None:
        """The value of Authorization for a request; None where no challenge is known yet. Raises BadHeader for an odd user or realm."""
        challenge = self._challenge
        if challenge is None:
            return None
        self._nonce_count += 1
        cnonce = self._random_octets(CNONCE_OCTETS).hex()
        ha1 = digest_authentication.hash_a1(challenge.algorithm, user=self._user, realm=challenge.realm, password=self._password)
        response = digest_authentication.compute_response(
            challenge.algorithm,
            ha1,
            method=request.method,
            uri=request.target,
            nonce=challenge.nonce,
            nonce_count=self._nonce_count,
            cnonce=cnonce,
        )
        return digest_authentication.render_credentials(
            DigestCredentials(
                user=self._user,
                realm=challenge.realm,
                nonce=challenge.nonce,
                uri=request.target,
                algorithm=challenge.algorithm,
                nonce_count=self._nonce_count,
                cnonce=cnonce,
                response=response,
                opaque=challenge.opaque,
            )
        )

    def take(self, challenges: Sequence[str], *, answered: bool) -> bool:
        """Take the challenge of a 401 to answer it; False where none can be answered, or an answer was just refused for good.

        `answered`: the request that got the 401 carried an answer of ours. After one to a nonce that is stale a new one is made once.
        """
        found = _best(challenges)
        if found is None or (answered and not found.stale):
            self._challenge = None
            return False
        self._challenge, self._nonce_count = found, 0
        return True


def _best(challenges: Sequence[str]) -> _Challenge | None:
    found: dict[DigestAlgorithm, _Challenge] = {}
    for challenge in parse_challenges(challenges):
        parameters = challenge.parameters
        algorithm = next((one for one in DigestAlgorithm if one.value == parameters.get("algorithm", "MD5").upper()), None)
        offered = {part.strip().lower() for part in parameters.get("qop", "").split(",")}
        if challenge.scheme != "digest" or algorithm is None or QOP not in offered or not {"realm", "nonce"} <= parameters.keys():
            continue
        found.setdefault(
            algorithm,
            _Challenge(
                algorithm=algorithm,
                realm=_utf8(parameters["realm"]),
                nonce=parameters["nonce"],
                opaque=parameters.get("opaque"),
                stale=parameters.get("stale", "").lower() == "true",
            ),
        )
    return next((found[algorithm] for algorithm in DigestAlgorithm if algorithm in found), None)


def _utf8(text: str) -> str:
    """A realm as its octets say: the header came as Latin-1."""
    try:
        return text.encode("latin-1").decode()
    except UnicodeError:
        raise BadHeader("the realm of the server's challenge is not UTF-8") from None
