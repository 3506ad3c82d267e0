"""`estserver requests`: what a person sees of waiting requests, and says to them, in the ledger that a server works with."""

import asyncio
import getpass
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from typer.testing import CliRunner, Result

from estserver.__main__ import app
from estserver.held_requests import HeldRequest, HeldRequests, State
from estserver.ledger import Ledger

T = TypeVar("T")
ASKED = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
REQUEST = HeldRequest(
    id="00000000000000a1",
    issuer="EstIssuer/devices/factory",
    requester="basic:device-1",
    requested_by="{}",
    operation="simpleenroll",
    slot="slot-1",
    spki_sha256="ab" * 32,
    subject="CN=device-1",
    sans=("DNS:a.devices.example", "DNS:b.devices.example"),
    usages=("client auth",),
    csr_der=b"\x30\x00",
    source="192.0.2.7",
    created_at=ASKED,
    expires_at=ASKED + timedelta(days=7),
)
OTHER = replace(REQUEST, id="00000000000000a2", slot="slot-2", requester="basic:evil\x1b[31m[red]", created_at=ASKED + timedelta(minutes=1))


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EST_CONFIG", "EST_STATE", "EST_LEDGER"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A server's state directory with two requests that wait."""
    directory = tmp_path / "state"
    directory.mkdir()

    async def hold(held: HeldRequests) -> None:
        for request in (REQUEST, OTHER):
            await held.hold(request, now=ASKED)

    in_ledger(directory, hold)
    return directory


def in_ledger(state: Path, work: Callable[[HeldRequests], Coroutine[Any, Any, T]]) -> T:
    async def _with_ledger() -> T:
        ledger = await Ledger.open(f"sqlite:///{state / 'ledger.sqlite'}")
        try:
            return await work(HeldRequests(ledger))
        finally:
            await ledger.aclose()

    return asyncio.run(_with_ledger())


def row(state: Path, request: HeldRequest = REQUEST) -> HeldRequest:
    found = in_ledger(state, lambda held: held.find(request.id))
    assert found is not None
    return found


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["requests", *map(str, arguments)])


def test_list_shows_who_asks_for_what_oldest_first(state: Path) -> None:
    shown = run("list", "--state", state)
    assert shown.exit_code == 0
    for text in (REQUEST.id, "waiting", REQUEST.issuer, "basic:device-1", "CN=device-1", "DNS:b.devices.example", "192.0.2.7", "ab" * 8):
        assert text in shown.stdout
    assert shown.stdout.index(REQUEST.id) < shown.stdout.index(OTHER.id)


def test_no_name_steers_the_terminal_or_the_table(state: Path) -> None:
    shown = run("list", "--state", state).stdout
    assert "\x1b" not in shown
    assert "evil\\x1b[31m[red]" in shown


def test_approve_says_for_whom_and_keeps_who_did_it(state: Path) -> None:
    done = run("approve", REQUEST.id, "--state", state, "--by", "alice", "--reason", "on the list of today")
    assert (done.exit_code, done.stdout) == (
        0,
        "approved 00000000000000a1: CN=device-1, DNS:a.devices.example, DNS:b.devices.example for basic:device-1\n",
    )
    found = row(state)
    assert (found.state, found.decided_by, found.reason, found.announced) == (State.APPROVED, "alice", "on the list of today", False)
    assert row(state, OTHER).state is State.WAITING
    listed = run("list", "--state", state).stdout
    assert (REQUEST.id in listed, OTHER.id in listed) == (False, True)
    assert "by alice on the list of today" in run("list", "--all", "--state", state).stdout


def test_without_by_it_is_the_user_of_the_operating_system(state: Path) -> None:
    run("deny", REQUEST.id, OTHER.id, "--reason", "unknown", "--config", state.parent)
    assert [(row(state, request).state, row(state, request).decided_by) for request in (REQUEST, OTHER)] == [
        (State.DENIED, getpass.getuser())
    ] * 2


@pytest.mark.parametrize("place", ["in a cluster", "as a user without a name"])
def test_where_the_user_is_no_person_who_decides_must_be_said(state: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    if place == "in a cluster":
        monkeypatch.setenv("EST_KUBERNETES", "true")
        monkeypatch.setenv("EST_APPROVAL_OBJECTS", "false")
    else:
        for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr("os.getuid", lambda: 1_000_660_000)
    for command in (("approve", REQUEST.id), ("deny", REQUEST.id, "--reason", "unknown")):
        done = run(*command, "--state", str(state))
        assert done.exit_code == 2
        assert done.stderr.startswith("estserver: say with --by who decides: ")
        assert done.stderr.count("\n") == 1
    assert {request.state for request in in_ledger(state, lambda held: held.listed())} == {State.WAITING}
    done = run("approve", REQUEST.id, "--by", "alice", "--state", str(state))
    assert done.exit_code == 0, done.output
    (decided,) = in_ledger(state, lambda held: held.listed(State.APPROVED))
    assert decided.decided_by == "alice"


def test_a_denial_needs_a_reason_for_the_client_is_told(state: Path) -> None:
    assert run("deny", REQUEST.id, "--state", state).exit_code == 2
    assert row(state).state is State.WAITING


def test_what_cannot_be_decided_is_said_and_the_others_are_decided(state: Path) -> None:
    done = run("approve", "0000", REQUEST.id, "--state", state)
    assert (done.exit_code, done.stderr) == (1, "estserver: there is no request 0000\n")
    assert row(state).state is State.APPROVED
    again = run("deny", REQUEST.id, "--reason", "too late", "--state", state)
    assert (again.exit_code, "is approved by" in again.stderr) == (1, True)


@pytest.mark.parametrize("option", ["--ledger", "--state", "--config"])
def test_the_ledger_is_found_as_serve_finds_it(state: Path, option: str) -> None:
    value = {"--ledger": f"sqlite:///{state / 'ledger.sqlite'}", "--state": str(state), "--config": str(state.parent)}[option]
    assert REQUEST.id in run("list", option, value).stdout


def test_a_wrong_place_is_one_line_and_makes_no_ledger_there(tmp_path: Path) -> None:
    for arguments in (("list",), ("list", "--state", tmp_path), ("list", "--ledger", "nonsense")):
        done = run(*arguments)
        assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert list(tmp_path.iterdir()) == []


def test_nothing_waiting_is_said(tmp_path: Path) -> None:
    in_ledger(tmp_path, lambda held: held.listed())
    assert run("list", "--state", tmp_path).stdout == "no request waits for approval\n"
