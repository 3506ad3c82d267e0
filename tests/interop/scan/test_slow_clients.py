"""slowhttptest with a thousand connections: the server ends each by its deadline, and answers others meanwhile."""

import contextlib
import csv
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.conftest import RunningServer, serving

CONNECTIONS = 1000
DEADLINES = {"HEADER": 4, "BODY": 4, "IDLE": 4, "WRITE": 4}
"""Seconds, so that the test is short; the defaults are in estserver/limits.py."""
ATTACK_SECONDS = 30
"""Connecting takes 2 to 15, on a busy machine, each deadline 4. What the attacker sees closed ends it earlier."""
ESTABLISHED = "01"

ATTACKS = {
    "slow headers": ("-H", "-i", "1"),
    "slow bodies": ("-B", "-i", "1", "-s", "8192", "-f", "application/pkcs10"),
    "slow reading": ("-X", "-n", "1", "-w", "1", "-y", "2", "-z", "8", "-k", "3"),
}


@pytest.fixture(scope="module")
def impatient_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    limits = {f"EST_LIMIT_{name}_SECONDS": str(seconds) for name, seconds in DEADLINES.items()}
    with serving(tmp_path_factory.mktemp("slow"), "devices/factory", environment=limits) as server:
        yield server


def held_by(port: int) -> int:
    """How many connections the server at this port has open; what the kernel still sends to a client that does not read is none."""
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[1].endswith(f":{port:04X}") and row[3] == ESTABLISHED for row in rows)


@pytest.mark.spec("THREAT-19")
@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_slow_clients_are_ended_by_their_deadline_and_others_are_served(
    impatient_server: RunningServer, tmp_path: Path, attack: tuple[str, ...]
) -> None:
    assert shutil.which("slowhttptest"), "Debian package slowhttptest"
    operation = "simpleenroll" if "-B" in attack else "cacerts"
    bounds = ("-c", str(CONNECTIONS), "-r", "500", "-l", str(ATTACK_SECONDS), "-p", "5", "-g", "-o", str(tmp_path / "seen"))
    target = f"https://localhost:{impatient_server.port}/.well-known/est/factory/{operation}"
    with subprocess.Popen(("slowhttptest", *bounds, *attack, "-u", target), stdout=subprocess.DEVNULL, cwd=tmp_path) as attacker:
        with contextlib.suppress(subprocess.TimeoutExpired):  # it ends when all are closed, but does not see it where it does not read
            attacker.wait(ATTACK_SECONDS - 4)
        held = held_by(impatient_server.port)
    with (tmp_path / "seen.csv").open() as file:
        seconds = [[int(value) for value in row] for row in list(csv.reader(file))[1:]]
    assert max(closed + connected for _, closed, _, connected, _ in seconds) > CONNECTIONS * 0.9, "the attack took place"
    assert held <= CONNECTIONS * 0.01, "of which some are the probe's"
    assert all(available for *_, available in seconds), "a probe found the service away"
