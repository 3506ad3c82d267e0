"""The command `estserver`. Options here, meaning in settings.py, doing in program.py."""

import asyncio
import os
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import structlog
import typer

from estcore.errors import ConfigurationError
from estserver import requests_command
from estserver.exit_status import EXIT_FAILED, EXIT_SETTINGS

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="EST server (RFC 7030).")
app.add_typer(requests_command.app, name="requests")


@app.callback()
def _estserver() -> None:
    """EST server (RFC 7030)."""


@app.command()
def serve(
    config: Annotated[Path | None, typer.Option(help="Directory of manifests: EstIssuer, EstClusterIssuer, Secret.")] = None,
    kubernetes: Annotated[bool | None, typer.Option("--kubernetes", help="Issuers from the Kubernetes API.")] = None,
    kubeconfig: Annotated[Path | None, typer.Option(help="Instead of the Pod's ServiceAccount.")] = None,
    state: Annotated[Path | None, typer.Option(help="Our own files: ledger, generated CAs, certificate. [default: CONFIG/state]")] = None,
    listen: Annotated[str | None, typer.Option(help="EST over TLS: host:port, several by comma. [default: 127.0.0.1:8443]")] = None,
    metrics_listen: Annotated[str | None, typer.Option(help="Health and metrics, plain HTTP. [default: 127.0.0.1:8080]")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that serve. [default: 1]")] = None,
    ledger: Annotated[str | None, typer.Option(help="SQLAlchemy URL. [default: SQLite in STATE]")] = None,
    server_name: Annotated[list[str] | None, typer.Option(help="DNS name or IP address of our certificate; repeat for more.")] = None,
    public_url: Annotated[str | None, typer.Option(help="https://host:port of the issuers' URLs.")] = None,
    release: Annotated[str | None, typer.Option(help="Prefix of our Secret and ConfigMap.")] = None,
    namespace: Annotated[str | None, typer.Option(help="Install namespace: Secrets of EstClusterIssuers.")] = None,
    serving_secret: Annotated[str | None, typer.Option(help="A given kubernetes.io/tls Secret instead of our own.")] = None,
    serving_certificate: Annotated[Path | None, typer.Option(help="A given certificate chain, PEM, instead of our own.")] = None,
    serving_key: Annotated[Path | None, typer.Option(help="Its key, PEM.")] = None,
    trust_namespace: Annotated[list[str] | None, typer.Option(help="Namespace that gets our trust root too; repeat for more.")] = None,
    ra_service_account: Annotated[list[str] | None, typer.Option(help="namespace/name of a registration authority.")] = None,
    ra_audience: Annotated[str | None, typer.Option(help="Audience of its token. [default: est-issuer]")] = None,
    map_label: Annotated[list[str] | None, typer.Option(help="label=namespace/name of an EstIssuer; repeat for more.")] = None,
    default_issuer: Annotated[str | None, typer.Option(help="EstClusterIssuer/name or namespace/name, for the path without label.")] = None,
    throttle_sources: Annotated[bool | None, typer.Option(help="Count failed passwords by client address too.")] = None,
    retry_window: Annotated[str | None, typer.Option(help="How long a retry gets the same certificate; 0 is off. [default: 10m]")] = None,
    longest_outage: Annotated[
        str | None, typer.Option(help="Sign for so long while the Kubernetes API is away; 0 is for ever. [default: 1h]")
    ] = None,
    approval_objects: Annotated[bool | None, typer.Option(help="Show requests that wait as CertificateRequests, in a cluster.")] = None,
    approval_retention: Annotated[
        str | None, typer.Option(help="How long requests that waited stay in the ledger after they ended; 0 is for ever. [default: 2160h]")
    ] = None,
    drain: Annotated[str | None, typer.Option(help="Longest wait for running requests at the end. [default: 30s]")] = None,
    drain_delay: Annotated[str | None, typer.Option(help="How long to go on accepting after SIGTERM. [default: 0]")] = None,
    log_format: Annotated[str | None, typer.Option(help="json or keyvalue. [default: by terminal]")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error. [default: info]")] = None,
) -> None:
    """Serve EST until SIGTERM. Each option is also a variable: --listen is EST_LISTEN, a list is separated by commas."""
    options = {name: value for name, value in locals().items() if value not in (None, [])}
    for plural, singular in (
        ("trust_namespaces", "trust_namespace"),
        ("ra_service_accounts", "ra_service_account"),
        ("labels", "map_label"),
    ):
        if singular in options:
            options[plural] = options.pop(singular)
    try:
        _serve(options)
    except ConfigurationError as error:
        print(f"estserver: {error}", file=sys.stderr)  # noqa: T201 - the one line that a person reads
        raise typer.Exit(EXIT_SETTINGS) from error


@app.command(name="roll-over")
def roll_over(
    old_certificate: Annotated[Path, typer.Option(help="The old CA certificate, PEM, self-signed.")],
    old_key: Annotated[Path, typer.Option(help="Its key, PEM, unencrypted.")],
    new_certificate: Annotated[Path, typer.Option(help="The new CA certificate, PEM, self-signed, of the same name.")],
    new_key: Annotated[Path, typer.Option(help="Its key, PEM, unencrypted.")],
) -> None:
    """Print the rollover.crt of a new CA key: OldWithOld, OldWithNew and NewWithOld (RFC 7030 section 4.1.3), PEM.

    Put it beside tls.crt and tls.key of the new CA in the issuer's Secret; /cacerts gives it out, and certificates of the old key renew.
    """
    from estserver.roll_over_command import rollover_pem

    try:
        print(rollover_pem(old_certificate, old_key, new_certificate, new_key), end="")  # noqa: T201 - the output of the command
    except ConfigurationError as error:
        print(f"estserver: {error}", file=sys.stderr)  # noqa: T201 - as above
        raise typer.Exit(EXIT_SETTINGS) from error


def _serve(options: dict[str, Any]) -> None:
    from estserver.settings import load

    settings, limits = load(options)
    with tempfile.TemporaryDirectory(prefix="estserver-metrics-") as shared:
        if settings.workers > 1:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = shared  # read when the library is loaded, so before the imports below
        import uvloop

        from estserver import logs, program
        from estserver.front import log_format

        logs.configure(log_format(settings), level=settings.log_level)
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(program.run(settings, limits, options))
        except Exception as error:
            cause = _first(error)
            if isinstance(cause, ConfigurationError):
                raise cause from error
            structlog.get_logger("estserver").exception("the server failed")
            raise typer.Exit(EXIT_FAILED) from error


def _first(error: Exception) -> Exception:
    """Of tasks that ran side by side, the one that failed first ended the others."""
    return _first(error.exceptions[0]) if isinstance(error, ExceptionGroup) else error


if __name__ == "__main__":
    app()
