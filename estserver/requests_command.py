"""`estserver requests`: the requests that wait for approval, and a person's word on them. It works on the ledger, while servers run.

What loads a database is imported late: `estserver serve` has this module too.
"""

import asyncio
import getpass
import os
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from estcore.errors import ConfigurationError, EstError
from estserver.exit_status import EXIT_FAILED, EXIT_SETTINGS
from estserver.logs import clean

if TYPE_CHECKING:
    from rich.table import Table

    from estserver.held_requests import HeldRequest, HeldRequests, State

WIDE = 240
"""Columns where the output is no terminal: nothing is folded for a pipe."""

app = typer.Typer(no_args_is_help=True, help="Requests that wait for approval (issuers with approval: Manual).")

T = TypeVar("T")
Config = Annotated[Path | None, typer.Option(envvar="EST_CONFIG", help="As of serve: the ledger is in its folder state.")]
State_ = Annotated[Path | None, typer.Option(envvar="EST_STATE", help="As of serve: where the ledger is.")]
LedgerUrl = Annotated[str | None, typer.Option(envvar="EST_LEDGER", help="As of serve: SQLAlchemy URL of the ledger.")]
Ids = Annotated[list[str], typer.Argument(help="Ids, as list shows them.")]
By = Annotated[str | None, typer.Option(help="Who decides; in a container it must be said. [default: the operating system's user]")]


@app.command("list")
def list_(
    *,
    everything: Annotated[bool, typer.Option("--all", help="Those that were decided, issued or expired too.")] = False,
    config: Config = None,
    state: State_ = None,
    ledger: LedgerUrl = None,
) -> None:
    """Show the requests that wait, oldest first."""

    async def _list() -> "list[HeldRequest]":
        from estserver.held_requests import State

        async with _open(config, state, ledger) as held:
            return await held.listed(*(() if everything else (State.WAITING,)))

    from rich.console import Console

    console = Console() if sys.stdout.isatty() else Console(width=WIDE)
    found = _run(_list())
    console.print(_table(found) if found else "no request waits for approval" if not everything else "there are no requests")


@app.command()
def approve(
    ids: Ids,
    by: By = None,
    reason: Annotated[str, typer.Option(help="Why, for the audit log.")] = "",
    config: Config = None,
    state: State_ = None,
    ledger: LedgerUrl = None,
) -> None:
    """Let requests have their certificate: each is signed when its client asks again."""
    from estserver.held_requests import State

    _decide(ids, State.APPROVED, by, reason, (config, state, ledger))


@app.command()
def deny(
    ids: Ids,
    reason: Annotated[str, typer.Option(help="Why: the client is told, and the audit log.")],
    by: By = None,
    config: Config = None,
    state: State_ = None,
    ledger: LedgerUrl = None,
) -> None:
    """Refuse requests: each client is told so when it asks again."""
    from estserver.held_requests import State

    _decide(ids, State.DENIED, by, reason, (config, state, ledger))


def _decide(ids: list[str], state: "State", by: str | None, reason: str, where: tuple[Path | None, Path | None, str | None]) -> None:
    try:
        _check_place()
        name = by or _user()
    except ConfigurationError as error:
        _complain(error.message)
        raise typer.Exit(EXIT_SETTINGS) from error

    async def _each() -> list[str]:
        faults = []
        async with _open(*where) as held:
            for request_id in dict.fromkeys(ids):
                try:
                    request = await held.decide(request_id, state, by=name, reason=reason, now=datetime.now(UTC))
                    _say(f"{state} {request.id}: {_names(request)} for {clean(request.requester)}")
                except EstError as error:
                    faults.append(error.message)
        return faults

    faults = _run(_each())
    for fault in faults:
        _complain(fault)
    if faults:
        raise typer.Exit(EXIT_FAILED)


def _check_place() -> None:
    """In a cluster the admission policy says who may decide, so decisions are made there and nowhere else."""
    from estserver.settings import load

    if _in_cluster() and load({})[0].approval_objects:
        raise ConfigurationError("in a cluster requests are decided by kubectl, on the CertificateRequests that `kubectl get estcr` shows")


def _user() -> str:
    """The operating system's name of whoever runs this. Raises ConfigurationError where that is no person's."""
    unsaid = ConfigurationError("say with --by who decides: the user that this runs as is no person, and the audit log keeps the name")
    if _in_cluster():  # every kubectl exec runs as the Pod's user
        raise unsaid
    try:
        return getpass.getuser()
    except (KeyError, OSError) as error:  # a user id without a name; Python 3.13 says it by another error than those before
        raise unsaid from error


def _in_cluster() -> bool:
    return os.environ.get("EST_KUBERNETES", "").lower() in {"1", "true", "yes", "on"}


@asynccontextmanager
async def _open(config: Path | None, state: Path | None, ledger: str | None) -> "AsyncIterator[HeldRequests]":
    """The requests of the ledger that the options name. Raises ConfigurationError."""
    from estserver.held_requests import HeldRequests
    from estserver.ledger import Ledger

    opened = await Ledger.open(ledger or _sqlite(config, state))
    try:
        yield HeldRequests(opened)
    finally:
        await opened.aclose()


def _sqlite(config: Path | None, state: Path | None) -> str:
    from estserver.settings import KUBERNETES_STATE

    directory = state or (config / "state" if config is not None else KUBERNETES_STATE if _in_cluster() else None)
    if directory is None:
        raise ConfigurationError("give what serve was given: --config DIR, --state DIR or --ledger URL")
    file = directory.absolute() / "ledger.sqlite"
    if not file.is_file():
        raise ConfigurationError("no ledger is there; give the --config, --state or --ledger that serve was given", where=str(file))
    return f"sqlite:///{file}"


def _run(work: Coroutine[Any, Any, T]) -> T:
    try:
        return asyncio.run(work)
    except EstError as error:
        _complain(error.message)
        raise typer.Exit(EXIT_SETTINGS if isinstance(error, ConfigurationError) else EXIT_FAILED) from error


def _table(requests: "list[HeldRequest]") -> "Table":
    """One request a row. Every text is shown as text: whoever asked must steer neither the terminal nor rich."""
    from rich.table import Table
    from rich.text import Text

    shown = Table()
    for heading in ("id", "state", "issuer", "requester", "operation", "names", "key SHA-256", "from", "asked", "until", "decided"):
        shown.add_column(heading, overflow="fold", no_wrap=heading == "id")
    for request in requests:
        cells = (
            request.id,
            request.state,
            request.issuer,
            str(clean(request.requester)),
            request.operation,
            _names(request, "\n"),
            request.spki_sha256[:16],
            str(clean(request.source)),
            f"{request.created_at:%Y-%m-%d %H:%M}",
            f"{request.expires_at:%Y-%m-%d %H:%M}",
            str(clean(" ".join(part for part in (f"by {request.decided_by}" if request.decided_by else "", request.reason or "") if part))),
        )
        shown.add_row(*map(Text, cells))
    return shown


def _names(request: "HeldRequest", between: str = ", ") -> str:
    from estserver.held_requests import shown_names

    return between.join(str(clean(name)) for name in shown_names(request))


def _say(text: str) -> None:
    print(text)  # noqa: T201 - this is what the command is for


def _complain(text: str) -> None:
    print(f"estserver: {text}", file=sys.stderr)  # noqa: T201 - the one line that a person reads
