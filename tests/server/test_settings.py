"""Settings: options before variables before defaults, and one line for whatever is wrong."""

from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from estcore.errors import ConfigurationError
from estserver.limits import Limits
from estserver.settings import Settings, load, parse_address


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("EST_")]:
        monkeypatch.delenv(name)


def settings(**options: Any) -> Settings:
    return load({"config": "dir", **options})[0]


def test_the_defaults_are_safe() -> None:
    found = settings()
    assert found.listen == ("127.0.0.1:8443",), "nothing listens to the network unless told to"
    assert found.metrics_listen == "127.0.0.1:8080"
    assert found.state_directory == Path("dir/state")
    assert found.ledger_url == f"sqlite:///{Path.cwd() / 'dir/state/ledger.sqlite'}"
    assert (found.workers, found.retry_window, found.drain) == (1, timedelta(minutes=10), timedelta(seconds=30))
    assert found.approval_retention == timedelta(days=90)
    assert {"localhost", "127.0.0.1", "::1"} <= set(found.serving_names)
    assert found.registry(install_namespace="default").directory


def test_variables_are_read_as_the_chart_sets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {
        "EST_KUBERNETES": "true",
        "EST_LISTEN": "0.0.0.0:8443,[::1]:9443",
        "EST_SERVER_NAME": "est,est.est-system,est.est-system.svc",
        "EST_RA_SERVICE_ACCOUNTS": "est-system/operator",
        "EST_TRUST_NAMESPACES": "devices, shop",
        "EST_LABELS": "factory=devices/factory,line:2=shop/line",
        "EST_DEFAULT_ISSUER": "EstClusterIssuer/factory",
        "EST_RETRY_WINDOW": "0",
        "EST_APPROVAL_RETENTION": "720h",
        "EST_LIMIT_CONNECTIONS": "100",
        "EST_LIMIT_HEADER_SECONDS": "2.5",
        "EST_METRICS_LISTEN": "0.0.0.0:8080",
        "EST_LEDGER": "",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found, limits = load({})
    assert found.listen == ("0.0.0.0:8443", "[::1]:9443")
    assert found.serving_names == ("est", "est.est-system", "est.est-system.svc"), "a Pod's own name is nobody's business"
    assert found.ra_service_accounts == ("est-system/operator",)
    assert found.trust_namespaces == ("devices", "shop")
    assert found.labels == {"factory": "devices/factory", "line:2": "shop/line"}
    assert found.retry_window == timedelta(0)
    assert found.approval_retention == timedelta(days=30)
    assert (limits.connections, limits.header_seconds, limits.body_octets) == (100, 2.5, Limits().body_octets)
    assert found.ledger_url == "sqlite:////var/lib/est-issuer/ledger.sqlite", "an empty variable is none"


def test_an_empty_variable_switches_the_metrics_off_as_the_option_does(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings(metrics_listen="").metrics_listen == ""
    monkeypatch.setenv("EST_METRICS_LISTEN", "")
    assert settings().metrics_listen == ""
    assert settings(metrics_listen="127.0.0.1:9090").metrics_listen == "127.0.0.1:9090"


def test_an_option_goes_before_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EST_WORKERS", "3")
    assert settings().workers == 3
    assert settings(workers=2).workers == 2


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"config": None}, "exactly one of --config DIR and --kubernetes"),
        ({"kubernetes": True}, "exactly one of --config DIR and --kubernetes"),
        ({"kubeconfig": "x"}, "--kubeconfig goes with --kubernetes"),
        ({"workers": 0}, "--workers (EST_WORKERS): "),
        ({"workers": 1000}, "--workers (EST_WORKERS): "),
        ({"listen": ","}, "--listen (EST_LISTEN): name an address to listen on"),
        ({"listen": "8443"}, "'8443' is not host:port"),
        ({"listen": "::1:8443"}, "is not host:port"),
        ({"listen": "localhost:99999"}, "is not host:port"),
        ({"metrics_listen": "nowhere"}, "is not host:port"),
        ({"retry_window": "ten"}, "--retry-window (EST_RETRY_WINDOW): a duration is written like"),
        ({"approval_retention": "90d"}, "--approval-retention (EST_APPROVAL_RETENTION): a duration is written like"),
        ({"longest_outage": "90s"}, "--longest-outage (EST_LONGEST_OUTAGE): write 2m or longer, or 0"),
        ({"labels": ["factory"]}, "--map-label (EST_LABELS): write label=namespace/name"),
        ({"labels": ["a=b/c", "a=d/e"]}, "a label is there twice"),
        ({"labels": ["cacerts=b/c"]}, "is the name of an EST operation"),
        ({"labels": ["a/b=b/c"]}, "--map-label (EST_LABELS): "),
        ({"labels": ["a=../c"]}, "--map-label (EST_LABELS): "),
        ({"ra_service_accounts": ["operator"]}, "--ra-service-account (EST_RA_SERVICE_ACCOUNTS): "),
        ({"server_name": ["a b"]}, "'a b' is neither a DNS name nor an IP address"),
        ({"public_url": "http://x"}, "--public-url (EST_PUBLIC_URL): "),
        ({"serving_key": "x"}, "--serving-certificate and --serving-key go together"),
        ({"serving_secret": "x"}, "--serving-secret goes with --kubernetes"),
        ({"log_format": "xml"}, "--log-format (EST_LOG_FORMAT): "),
        ({"release": "A"}, "--release (EST_RELEASE): "),
        ({"default_issuer": "factory"}, "--default-issuer (EST_DEFAULT_ISSUER): "),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_the_option(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        settings(**options)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value"), [("EST_LIMIT_CONNECTION", "1"), ("EST_LIMIT_CONNECTIONS", "many"), ("EST_LIMIT_CONNECTIONS", "0")]
)
def test_a_wrong_limit_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match="EST_LIMIT_"):
        settings()


def test_the_ledgers_password_is_not_in_a_repr_or_an_error() -> None:
    assert "canary" not in repr(settings(ledger="postgresql+psycopg://u:canary@db/est"))
    with pytest.raises(ConfigurationError) as refused:
        settings(ledger="postgresql+psycopg://u:canary@db/est", workers=0)
    assert "canary" not in str(refused.value)


def test_addresses() -> None:
    assert parse_address("127.0.0.1:0") == ("127.0.0.1", 0)
    assert parse_address("[::]:8443") == ("::", 8443)


DOCUMENTATION = Path(__file__).parents[2] / "docs" / "configuration.md"


def test_every_bound_of_the_transport_is_in_the_documentation_with_its_default_and_unit() -> None:
    rows = [line.split("|")[1:-1] for line in DOCUMENTATION.read_text().splitlines() if line.startswith("| `EST_LIMIT_")]
    told = {variable.strip(" `"): (float(default), unit.strip()) for variable, default, unit, _ in rows}
    assert len(told) == len(rows)
    assert {name: default for name, (default, _) in told.items()} == {
        f"EST_LIMIT_{field.name.upper()}": field.default for field in fields(Limits)
    }
    for name, (_, unit) in told.items():
        last = name.rpartition("_")[2].lower()
        assert (unit == last) if last in {"seconds", "octets", "certificates"} else unit in {"lines", "connections"}, name


def test_every_setting_is_in_the_documentation() -> None:
    documentation = DOCUMENTATION.read_text()
    absent = [name for name in Settings.model_fields if f"`EST_{name.upper()}`" not in documentation]
    assert absent == []
