import re
from datetime import timedelta

import pytest

from estcore.errors import ConfigurationError
from estcore.requester import Door
from estoperator import est_server, settings

NEEDED = {"EST_OPERATOR_SERVER_URL": "https://est.example:8443", "EST_OPERATOR_NAMESPACE": "est"}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in NEEDED.items():
        monkeypatch.setenv(name, value)


def test_every_default_is_there_and_two_processes_have_two_identities() -> None:
    one, other = settings.load(), settings.load()
    assert one.doors == (Door.EST_ISSUER, Door.CERT_MANAGER, Door.SIGNING_REQUEST, Door.POD_CERTIFICATE)
    assert (one.max_retry_duration, one.poll_interval) == (timedelta(minutes=10), timedelta(seconds=2))
    assert one.identity != other.identity


@pytest.mark.parametrize(
    ("name", "value", "field"),
    [
        ("EST_OPERATOR_SERVER_URL", "http://est.example", "SERVER_URL"),
        ("EST_OPERATOR_SERVER_URL", "https://est.example/path", "SERVER_URL"),
        ("EST_OPERATOR_NAMESPACE", "", "NAMESPACE"),
        ("EST_OPERATOR_DOORS", "est", "DOORS"),
        ("EST_OPERATOR_DOORS", "cert-manager.io,acme", "DOORS"),
        ("EST_OPERATOR_WORKERS", "0", "WORKERS"),
        ("EST_OPERATOR_MAX_RETRY_DURATION", "soon", "MAX_RETRY_DURATION"),
        ("EST_OPERATOR_LOG_LEVEL", "LOUD", "LOG_LEVEL"),
    ],
)
def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str, field: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=f"EST_OPERATOR_{field}"):
        settings.load()


@pytest.mark.parametrize(("poll", "after"), [("1m", "30s"), ("30s", "30s"), ("2s", "10s"), ("2s", "17s")])
def test_a_silence_that_one_failed_poll_fills_is_refused_with_the_least_to_write(
    monkeypatch: pytest.MonkeyPatch, poll: str, after: str
) -> None:
    monkeypatch.setenv("EST_OPERATOR_POLL_INTERVAL", poll)
    monkeypatch.setenv("EST_OPERATOR_SERVER_UNAVAILABLE_AFTER", after)
    with pytest.raises(ConfigurationError, match="EST_OPERATOR_SERVER_UNAVAILABLE_AFTER") as refused:
        settings.load()
    least = re.search(r"write (\S+) or more", refused.value.message)
    assert least is not None
    monkeypatch.setenv("EST_OPERATOR_SERVER_UNAVAILABLE_AFTER", least[1])
    loaded = settings.load()
    assert loaded.server_unavailable_after > loaded.poll_interval + est_server.TIMEOUT


def test_a_longer_poll_interval_alone_is_refused_where_the_default_silence_does_not_outlast_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EST_OPERATOR_POLL_INTERVAL", "1m")
    with pytest.raises(ConfigurationError, match="write 76s or more"):
        settings.load()


def test_doors_are_a_comma_list_and_none_is_named_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EST_OPERATOR_DOORS", "cert-manager.io, cert-manager.io")
    assert settings.load().doors == (Door.CERT_MANAGER,)
