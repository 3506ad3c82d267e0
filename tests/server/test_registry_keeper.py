"""The registry follows the clock: the status of an issuer whose CA expires says so when it does."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import pytest

from estserver.issuers import Issuers, RegistrySettings
from estserver.registry_keeper import REJUDGE_SECONDS, RegistryKeeper
from tests.server.manifest_builders import NOW, ca_secret, issuer, snapshot

KEY = "EstIssuer/devices/factory"


@dataclass
class Clock:
    now: datetime = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.mark.spec("THREAT-27")
async def test_the_registry_is_judged_anew_at_the_very_time_at_which_a_ca_expires() -> None:
    clock, issuers = Clock(), Issuers()
    keeper = RegistryKeeper(issuers, RegistrySettings(cluster_namespace="est-system"), clock=clock)
    keeper.feed(snapshot(issuer(), ca_secret("Short CA", days=1), issuer("other", ca="other-ca"), ca_secret(name="other-ca")))
    await keeper.judge()
    ((_, end),) = [known for known in keeper.ca_expiries() if known[0] == KEY]
    assert keeper.seconds_to_next() == REJUDGE_SECONDS
    clock.now = end - timedelta(seconds=7)
    assert keeper.seconds_to_next() == 7
    clock.now = end - timedelta(microseconds=1)
    await keeper.judge()
    assert issuers.current.issuers[KEY].ready, "the timer was early"
    clock.now = end + timedelta(microseconds=1)
    assert keeper.seconds_to_next() == 0, "what expires right after a judgement is not left until the next"
    await keeper.judge()
    assert issuers.current.issuers[KEY].reason == "CAExpired"
    assert keeper.seconds_to_next() == REJUDGE_SECONDS, "what has expired is no reason to look again"


async def test_a_ca_that_has_ended_is_in_the_metrics_until_it_is_replaced() -> None:
    """The alert EstCaEndsNow says "is about to end, or has ended": without the series it would be resolved by the end itself."""
    clock, issuers = Clock(), Issuers()
    keeper = RegistryKeeper(issuers, RegistrySettings(cluster_namespace="est-system"), clock=clock)
    keeper.feed(snapshot(issuer(), ca_secret("Short CA", days=1)))
    await keeper.judge()
    ((_, end),) = keeper.ca_expiries()
    clock.now = end + timedelta(days=1)
    await keeper.judge()
    assert issuers.current.issuers[KEY].reason == "CAExpired"
    assert keeper.ca_expiries() == [(KEY, end)]
    keeper.feed(snapshot(issuer(), ca_secret("Next CA", days=30)))
    await keeper.judge()
    ((_, next_end),) = keeper.ca_expiries()
    assert next_end > clock.now
    keeper.feed(snapshot(issuer()))
    await keeper.judge()
    assert keeper.ca_expiries() == []
