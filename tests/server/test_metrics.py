"""Metrics: fixed labels, and one answer for several processes."""

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from estserver.deadline import Phase
from estserver.metrics import Metrics
from tests.server.app_fixtures import NOW, basic, make_csr, manifest, registry_of, running

ISSUER = "EstIssuer/devices/factory"


async def test_what_is_granted_and_refused_is_counted_by_issuer_door_and_reason(tmp_path: Path) -> None:
    async with running(tmp_path) as server:
        await server.enroll(make_csr(), authorization=basic())
        await server.enroll(make_csr("other"), authorization=basic())
        await server.enroll(make_csr())
        await server.request("GET", "/.well-known/est/nowhere/cacerts")
        await server.request("GET", "/nothing")
        assert server.metric(f'est_certificates_issued_total{{door="est",issuer="{ISSUER}",result="issued"}}') == 1
        assert server.metric(f'est_refusals_total{{issuer="{ISSUER}",reason="NameNotPermitted"}}') == 1
        assert server.metric(f'est_refusals_total{{issuer="{ISSUER}",reason="Unauthenticated"}}') == 1
        assert server.metric('est_refusals_total{issuer="",reason="UnknownLabel"}') == 2
        assert server.metric('est_request_duration_seconds_count{operation="simpleenroll"}') == 3
        assert server.metric('est_request_duration_seconds_count{operation=""}') == 1


@pytest.mark.spec("THREAT-36")
async def test_strangers_make_no_new_series(tmp_path: Path) -> None:
    async with running(tmp_path) as server:

        async def series(round_: int) -> set[str]:
            for number in range(5):
                name = f"{round_}-{number}"
                await server.request("GET", f"/.well-known/est/{name}/cacerts", headers=[("User-Agent", name)])
                await server.request(f"M{number}", f"/{name}")
                await server.enroll(make_csr(name), authorization=basic(name), source=f"192.0.2.{number}")
                await server.enroll(make_csr(name), authorization=basic())
            return {line.rsplit(" ", 1)[0] for line in server.metrics.render()[0].decode().splitlines() if not line.startswith("#")}

        assert await series(1) == await series(2)


def test_connections_ca_expiry_and_states_are_there() -> None:
    registry = registry_of(manifest())
    metrics = Metrics(
        ca_expiries=lambda: [(ISSUER, NOW + timedelta(days=1))],
        issuer_states=lambda: [(key, one.ready) for key, one in registry.issuers.items()],
    )
    metrics.connection_opened()
    metrics.connection_opened()
    metrics.connection_closed()
    metrics.connection_refused("connections")
    metrics.handshake_failed("timeout")
    metrics.timed_out(Phase.HEADER)
    metrics.request_refused(413)
    metrics.ledger_writable(False)
    text = metrics.render()[0].decode().splitlines()
    samples = {name: float(value) for name, _, value in (line.rpartition(" ") for line in text if not line.startswith("#"))}
    expected = {
        "est_connections_open": 1,
        'est_connections_total{result="accepted"}': 2,
        'est_connections_total{result="refused_connections"}': 1,
        'est_connections_total{result="handshake_timeout"}': 1,
        'est_timeouts_total{phase="header"}': 1,
        'est_transport_refusals_total{status="413"}': 1,
        "est_ledger_writable": 0,
        f'est_ca_not_after_timestamp_seconds{{issuer="{ISSUER}"}}': (NOW + timedelta(days=1)).timestamp(),
    }
    assert {name: samples.get(name) for name in expected} == expected


def test_several_processes_are_rendered_as_one(tmp_path: Path) -> None:
    program = """
from estserver.metrics import Metrics
metrics = Metrics()
metrics.issued("i", "est", "issued")
metrics.connection_opened()
print(metrics.render()[0].decode())
"""
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    outputs = [
        subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert 'est_certificates_issued_total{door="est",issuer="i",result="issued"} 2.0' in outputs[1]
