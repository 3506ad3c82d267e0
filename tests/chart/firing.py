"""Every alert of the chart, evaluated by Prometheus' own engine: series on which it fires, and series on which it must not.

Run by `make chart-check`, for the engine takes a minute to build.
"""

import json
import subprocess
from dataclasses import dataclass
from typing import Any

import pytest

from tests.chart.gotool import built
from tests.chart.test_monitoring import alerts

NOW = 60
"""Minutes after the first sample, and so after the epoch."""
DAY = 86_400
SERVER = 'namespace="pki",pod="est-issuer-server-0"'
LEADER = 'namespace="pki",pod="est-issuer-operator-a",instance="10.0.0.1:8080"'
OTHER = 'namespace="pki",pod="est-issuer-operator-b",instance="10.0.0.2:8080"'
ISSUER = f'{SERVER},issuer="EstIssuer/pki/factory"'
LEADING = {f"est_operator_leader{{{LEADER}}}": "1x70", f"est_operator_leader{{{OTHER}}}": "0x70"}
Series = dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Values, one a minute, by series; `fires` is a label that the alert has, none where it must be quiet."""

    alert: str
    series: Series
    fires: dict[str, str] | None


def both(alert: str, label: dict[str, str], fires: Series, *quiet: Series) -> list[Case]:
    return [Case(alert=alert, series=fires, fires=label), *(Case(alert=alert, series=one, fires=None) for one in quiet)]


def ends_in(days: float) -> Series:
    return {f"est_ca_not_after_timestamp_seconds{{{ISSUER}}}": f"{NOW * 60 + int(days * DAY)}x70"}


def enrolments(slow: str) -> Series:
    """100 enrolments a minute, of which so many take longer than a second."""
    fast = 100 - int(slow)
    counts = {"0.01": fast, "1": fast, "2.5": 100, "+Inf": 100}
    return {f'est_operator_enrolment_seconds_bucket{{{LEADER},le="{le}"}}': f"0+{count}x70" for le, count in counts.items()}


def operator(series: str, values: str, labels: str = "") -> Series:
    return {f"{series}{{{LEADER}{labels}}}": values}


def server(series: str, values: str, labels: str = "") -> Series:
    return {f"{series}{{{SERVER}{labels}}}": values}


STUCK = "est_operator_queue_oldest_seconds"
CHECKED = "est_operator_watch_checked_timestamp_seconds"
DOOR = ',door="est-issuer.io"'
POLL = "est_operator_issuer_poll_failures_total"
UNREACHABLE = ',reason="ServerUnreachable"'
CASES = [
    *both("EstServerAbsent", {}, LEADING, server("est_ledger_writable", "1x70"), server("est_ledger_writable", "0x70")),
    *both("EstCaEndsSoon", {"issuer": "EstIssuer/pki/factory"}, ends_in(29), ends_in(31)),
    *both("EstCaEndsSoon", {"namespace": "pki"}, ends_in(-1)),
    *both("EstCaEndsNow", {"issuer": "EstIssuer/pki/factory"}, ends_in(2.9), ends_in(3.1)),
    *both("EstCaEndsNow", {"namespace": "pki"}, ends_in(-1)),
    *both(
        "EstIssuerNotReady",
        {"issuer": "EstIssuer/pki/factory"},
        {f"est_issuer_ready{{{ISSUER}}}": "0x70"},
        {f"est_issuer_ready{{{ISSUER}}}": "1x70"},
    ),
    *both(
        "EstLedgerUnwritable", {"pod": "est-issuer-server-0"}, server("est_ledger_writable", "0x70"), server("est_ledger_writable", "1x70")
    ),
    *both(
        "EstInternalErrors",
        {"namespace": "pki"},
        server("est_refusals_total", "0x55 1x15", ',issuer="",reason="InternalError"'),
        server("est_refusals_total", "7x70", ',issuer="",reason="InternalError"'),
        server("est_refusals_total", "0+9x70", ',issuer="",reason="Forbidden"'),
    ),
    *both(
        "EstConnectionsRefused",
        {"result": "refused_limit"},
        server("est_connections_total", "0+5x70", ',result="refused_limit"'),
        server("est_connections_total", "0+5x70", ',result="accepted"'),
        server("est_connections_total", "0+5x70", ',result="handshake_no_certificate"'),
    ),
    *both(
        "EstRequestsWaitForApproval",
        {"issuer": "EstIssuer/pki/factory"},
        {f"est_requests_oldest_waiting_seconds{{{ISSUER}}}": f"{DAY + 1}x70"},
        {f"est_requests_oldest_waiting_seconds{{{ISSUER}}}": f"{DAY - 1}x70"},
    ),
    *both("EstOperatorNotLeading", {}, server("est_ledger_writable", "1x70"), LEADING),
    *both("EstOperatorNotLeading", {"namespace": "pki"}, operator("est_operator_leader", "0x70")),
    *both(
        "EstOperatorRestarts",
        {"pod": "est-issuer-operator-a"},
        LEADING | operator("process_start_time_seconds", "1x9 2x9 3x9 4x40"),
        LEADING | operator("process_start_time_seconds", "1x9 2x9 3x50"),
        LEADING | {'process_start_time_seconds{namespace="pki",pod="somebody-else",instance="10.0.0.9:80"}': "1x9 2x9 3x9 4x40"},
    ),
    *both(
        "EstDoorShut",
        {"door": "est-issuer.io"},
        operator("est_operator_door_off", "1x70", f'{DOOR},why="Forbidden"'),
        operator("est_operator_door_off", "1x70", f'{DOOR},why="Absent"'),
        operator("est_operator_door_off", "1x70", f'{DOOR},why="Disabled"'),
    ),
    *both(
        "EstWatchSilent",
        {"door": "est-issuer.io", "pod": "est-issuer-operator-a"},
        operator(CHECKED, f"{NOW * 60 - 901}x70", DOOR),
        operator(CHECKED, f"{NOW * 60 - 899}x70", DOOR),
    ),
    *both(
        "EstRequestsStuck",
        {"pod": "est-issuer-operator-a", "door": "est-issuer.io"},
        LEADING | operator(STUCK, "301x70", DOOR),
        LEADING | operator(STUCK, "299x70", DOOR),
        LEADING | {f"{STUCK}{{{OTHER}{DOOR}}}": "9999x70"},  # who waits to lead has old keys
    ),
    *both(
        "EstRequestsRetried",
        {"door": "est-issuer.io", "reason": "Unavailable"},
        operator("est_operator_retries_total", "0+1x70", f'{DOOR},reason="Unavailable"'),
        operator("est_operator_retries_total", "5x70", f'{DOOR},reason="Unavailable"'),
    ),
    *both(
        "EstServerUnreachable", {"reason": "ServerUnreachable"}, operator(POLL, "0+1x70", UNREACHABLE), operator(POLL, "3x70", UNREACHABLE)
    ),
    *both(
        "EstOperatorErrors",
        {"work": "request", "reason": "Internal"},
        operator("est_operator_errors_total", "0+1x70", ',work="request",reason="Internal"'),
        operator("est_operator_errors_total", "1x70", ',work="request",reason="Internal"'),
    ),
    *both("EstEnrolmentsSlow", {"namespace": "pki"}, enrolments(slow="2"), enrolments(slow="0")),
]


@pytest.fixture(scope="module")
def answers() -> list[list[dict[str, str]]]:
    rules = alerts()
    questions = [{"series": case.series, "expr": rules[case.alert]["expr"], "at_minutes": NOW} for case in CASES]
    done = subprocess.run([built("promql")], input=json.dumps(questions), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found: list[list[dict[str, str]]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("number", range(len(CASES)), ids=[f"{case.alert}-{'quiet' if case.fires is None else 'fires'}" for case in CASES])
def test_an_alert_fires_when_it_must_and_not_otherwise(answers: list[list[dict[str, Any]]], number: int) -> None:
    case = CASES[number]
    if case.fires is None:
        assert answers[number] == []
    else:
        (fired,) = answers[number]
        assert case.fires.items() <= fired.items()


def test_every_alert_is_seen_to_fire_and_to_be_quiet() -> None:
    assert {case.alert for case in CASES if case.fires is not None} == alerts().keys()
    assert {case.alert for case in CASES if case.fires is None} == alerts().keys()
