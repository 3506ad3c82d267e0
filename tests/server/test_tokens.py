"""ServiceAccount tokens: reviewed once, remembered for 30 seconds, and junk never reaches the API server."""

import asyncio
from collections.abc import Collection
from datetime import timedelta
from typing import Any

import pytest

from estcore.errors import Busy, Unauthenticated, Unavailable
from estserver.tokens import MAX_REVIEWS_AT_ONCE, ReviewedToken, Tokens
from tests.server.app_fixtures import NOW, Clock, Reviewer, make_token

AUDIENCE = frozenset({"est-issuer"})


async def test_a_token_is_its_service_account_for_the_audiences_it_has() -> None:
    reviewer = Reviewer()
    token = reviewer.add("team-a/web", audience="est-issuer")
    account = await Tokens(reviewer, clock=Clock()).identify(token, audiences=frozenset({"est-issuer", "devices"}))
    assert account.full_name == "team-a/web"
    assert account.audiences == {"est-issuer"}


@pytest.mark.spec("THREAT-25")
async def test_a_verdict_is_kept_for_thirty_seconds_and_no_longer() -> None:
    reviewer, passed = Reviewer(), Clock()
    tokens = Tokens(reviewer, clock=Clock(), timer=lambda: passed().timestamp())
    token = reviewer.add("team-a/web", audience="est-issuer")
    for _ in range(3):
        await tokens.identify(token, audiences=AUDIENCE)
    assert reviewer.asked == 1
    reviewer.known.clear()  # the pod is gone
    passed.advance(seconds=30)
    with pytest.raises(Unauthenticated):
        await tokens.identify(token, audiences=AUDIENCE)
    assert reviewer.asked == 2


@pytest.mark.spec("THREAT-25", "THREAT-30")
async def test_a_clock_that_is_set_back_makes_no_verdict_last_longer() -> None:
    reviewer, clock, passed = Reviewer(), Clock(), Clock()
    tokens = Tokens(reviewer, clock=clock, timer=lambda: passed().timestamp())
    token = reviewer.add("team-a/web", audience="est-issuer")
    await tokens.identify(token, audiences=AUDIENCE)
    reviewer.known.clear()
    clock.advance(seconds=-3600)
    passed.advance(seconds=30)
    with pytest.raises(Unauthenticated):
        await tokens.identify(token, audiences=AUDIENCE)


async def test_a_token_that_expires_within_the_thirty_seconds_is_refused_from_then_on() -> None:
    reviewer, clock = Reviewer(), Clock()
    tokens = Tokens(reviewer, clock=clock)
    token = reviewer.add("team-a/web", audience="est-issuer", expires=NOW - timedelta(seconds=50))
    await tokens.identify(token, audiences=AUDIENCE)
    clock.advance(seconds=11)
    with pytest.raises(Unauthenticated, match="expired"):
        await tokens.identify(token, audiences=AUDIENCE)


@pytest.mark.spec("THREAT-25")
@pytest.mark.parametrize(
    "token",
    [
        "junk",
        "a.b",
        "a.b.c",
        "a.bnVsbA.c",
        "a.W10.c",
        "x" * 9000,
        make_token("a/b", audience="other"),
        make_token("a/b", audience=["other", 7]),
        make_token("a/b", audience={"est-issuer": 1}),
        make_token("a/b", audience="est-issuer", expires=None),
        make_token("a/b", audience="est-issuer", expires=True),
        make_token("a/b", audience="est-issuer", expires="tomorrow"),
        make_token("a/b", audience="est-issuer", expires=NOW - timedelta(seconds=61)),
    ],
)
async def test_a_token_that_cannot_pass_is_refused_before_the_api_server_is_asked(token: str) -> None:
    reviewer = Reviewer()
    with pytest.raises(Unauthenticated) as raised:
        await Tokens(reviewer, clock=Clock()).identify(token, audiences=AUDIENCE)
    assert reviewer.asked == 0
    assert token not in raised.value.message


@pytest.mark.spec("THREAT-25")
@pytest.mark.parametrize(
    "reviewed",
    [
        None,
        ReviewedToken(username="system:serviceaccount:a:b", groups=frozenset(), audiences=frozenset()),
        ReviewedToken(username="system:serviceaccount:a:b", groups=frozenset(), audiences=frozenset({"other"})),
        ReviewedToken(username="admin", groups=frozenset({"system:masters"}), audiences=AUDIENCE),
        ReviewedToken(username="system:serviceaccount:a:b:c", groups=frozenset(), audiences=AUDIENCE),
        ReviewedToken(username="system:node:n", groups=frozenset(), audiences=AUDIENCE),
    ],
)
async def test_what_the_api_server_does_not_confirm_as_a_service_account_of_our_audience_is_nobody(reviewed: ReviewedToken | None) -> None:
    class Says(Reviewer):
        async def review(self, token: str, *, audiences: Collection[str]) -> ReviewedToken | None:
            return reviewed

    with pytest.raises(Unauthenticated):
        await Tokens(Says(), clock=Clock()).identify(make_token("a/b", audience="est-issuer"), audiences=AUDIENCE)


async def test_without_a_cluster_tokens_are_refused_with_that_reason() -> None:
    with pytest.raises(Unauthenticated, match="no Kubernetes API"):
        await Tokens(None, clock=Clock()).identify(make_token("a/b", audience="est-issuer"), audiences=AUDIENCE)


class Slow(Reviewer):
    """An API server that answers when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()

    async def review(self, token: str, *, audiences: Collection[str]) -> ReviewedToken | None:
        await self.go.wait()
        return await super().review(token, audiences=audiences)


async def test_one_token_brought_by_many_at_once_is_reviewed_once() -> None:
    reviewer = Slow()
    tokens = Tokens(reviewer, clock=Clock())
    token = reviewer.add("team-a/web", audience="est-issuer")
    asking: list[Any] = [asyncio.create_task(tokens.identify(token, audiences=AUDIENCE)) for _ in range(20)]
    await asyncio.sleep(0)
    reviewer.go.set()
    assert {account.full_name for account in await asyncio.gather(*asking)} == {"team-a/web"}
    assert reviewer.asked == 1


async def test_reviews_at_once_are_bounded() -> None:
    reviewer = Slow()
    tokens = Tokens(reviewer, clock=Clock())
    asking: list[Any] = [
        asyncio.create_task(tokens.identify(reviewer.add(f"a/b{number}", audience="est-issuer"), audiences=AUDIENCE))
        for number in range(MAX_REVIEWS_AT_ONCE)
    ]
    await asyncio.sleep(0)
    with pytest.raises(Busy):
        await tokens.identify(reviewer.add("a/late", audience="est-issuer"), audiences=AUDIENCE)
    reviewer.go.set()
    await asyncio.gather(*asking)


async def test_an_api_server_that_could_not_be_asked_is_asked_again() -> None:
    reviewer = Reviewer(away=True)
    tokens = Tokens(reviewer, clock=Clock())
    token = reviewer.add("team-a/web", audience="est-issuer")
    with pytest.raises(Unavailable):
        await tokens.identify(token, audiences=AUDIENCE)
    reviewer.away = False
    assert (await tokens.identify(token, audiences=AUDIENCE)).name == "web"
