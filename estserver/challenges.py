"""What those are told who are not authenticated: the ways of the issuer in words, and a challenge for each way of HTTP authentication.

Source: RFC 7030 section 3.2.3; RFC 9110 section 11.6.1; RFC 7616 section 3.7.
"""

from collections.abc import Collection, Iterator, Sequence

from estcore.digest_authentication import DigestAlgorithm
from estcore.errors import EstError, Forbidden, Unauthenticated
from estcore.issuer_spec import Authentication
from estserver.digest import DigestVerifier

BEARER = 'Bearer realm="est-issuer"'


class Challenged(Unauthenticated):
    """Not authenticated where HTTP authentication would do: `challenges` are the WWW-Authenticate values, in order, at least one."""

    def __init__(self, message: str, *, challenges: Collection[str], reason: str = "Unauthenticated") -> None:
        super().__init__(message, reason=reason)
        self.challenges = tuple(challenges)


async def refused(
    ways: Sequence[Authentication],
    digest: DigestVerifier,
    *,
    realm: str,
    why_not: str,
    reason: str = "Unauthenticated",
    libest: bool = False,
    bouncy_castle: bool = False,
    stale: bool = False,
) -> EstError:
    """401 with a challenge per way of HTTP authentication, or 403 where no HTTP authentication would help.

    `libest` reads the first header only and knows Digest with MD5 only: where MD5 is on, it is the first Digest challenge for it.
    `bouncy_castle` reads the first header only, and of Digest its own form only.
    """
    possible = list(dict.fromkeys(describe(way) for way in ways if not _is_for_fullcmc(way)))
    text = f"authenticate by {' or '.join(possible)}" if possible else "nobody but the registration authority may enrol at this issuer"
    text = f"{text}; {why_not}" if why_not else text
    challenges: list[str] = []
    algorithms = _digest_algorithms(ways, libest=libest)
    digests = await digest.challenges(realm, algorithms, stale=stale, all_quoted=bouncy_castle) if algorithms else []
    for way in ways:
        if way.basic is not None:
            challenges.append(f'Basic realm="{realm}", charset="UTF-8"')
        elif way.digest is not None:
            challenges += digests
    # old clients read the first header only, and none of them knows Bearer
    if any(way.service_account_token is not None for way in ways):
        challenges.append(BEARER)
    if not challenges:
        return Forbidden(text, reason=reason)
    return Challenged(text, challenges=dict.fromkeys(challenges), reason=reason)


def _digest_algorithms(ways: Sequence[Authentication], *, libest: bool) -> list[DigestAlgorithm]:
    """SHA-256 first, for a client takes the first that it knows (RFC 7616 section 3.7). Empty where no way is Digest."""
    named = [way.digest for way in ways if way.digest is not None]
    if not named:
        return []
    algorithms = [DigestAlgorithm.SHA_256, *([DigestAlgorithm.MD5] if any(one.md5 for one in named) else [])]
    return algorithms[::-1] if libest else algorithms


def describe(way: Authentication) -> str:
    """One way in words."""
    return " together with ".join(_parts(way))


def _parts(way: Authentication) -> Iterator[str]:
    if way.certificate is not None:
        whose = "of this issuer" if way.certificate.issued_by == "this" else "under the issuer's trust anchors"
        yield f"a TLS client certificate {whose}"
    if way.basic is not None:
        yield "HTTP Basic"
    if way.digest is not None:
        yield "HTTP Digest"
    if way.one_time_password is not None:
        yield "a one-time password in the CSR (otpChallenge, RFC 7894)"
    if way.service_account_token is not None:
        yield f"a ServiceAccount token of audience {way.service_account_token.audience} (Authorization: Bearer)"


def _is_for_fullcmc(way: Authentication) -> bool:
    return way.cmc_shared_secret is not None
