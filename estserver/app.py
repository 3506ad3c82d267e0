"""Puts the ASGI application together: the only place that knows all its parts, and the only one beside routes that knows FastAPI."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

import structlog
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from estcore.errors import EstError
from estserver.approval import Approvals
from estserver.audit import AuditLog
from estserver.authentication import Authenticator
from estserver.background import beside
from estserver.callouts import Callouts
from estserver.digest import DigestVerifier
from estserver.held_requests import HeldRequests
from estserver.issuer_endpoint import IssuerEndpoint
from estserver.issuers import Issuers
from estserver.issuing import Service
from estserver.ledger import Ledger
from estserver.metrics import Metrics
from estserver.passwords import PasswordChecker
from estserver.program_call import ProgramCalls
from estserver.proofs import Proofs
from estserver.registration_authority import RegistrationAuthority
from estserver.routes import EstRoute
from estserver.spent import Spent
from estserver.throttle import Guesses
from estserver.tokens import TokenReviewer, Tokens

REVOKED_REFRESH: Final = timedelta(seconds=10)
"""A certificate that another process revoked is refused at most this much later."""

_log = structlog.get_logger("estserver")


class AppSettings(Protocol):
    """What the application reads of the program's settings."""

    @property
    def ra_service_accounts(self) -> tuple[str, ...]:
        """`<namespace>/<name>` of each ServiceAccount that is registration authority."""

    @property
    def ra_audience(self) -> str:
        """Audience of their tokens."""

    @property
    def retry_window(self) -> timedelta:
        """How long a retry gets the same certificate; zero switches it off."""

    @property
    def throttle_sources(self) -> bool:
        """Whether the peer's address is the client's own, so that failures may be counted by it."""

    @property
    def public_url(self) -> str | None:
        """Where clients outside reach the server, without a path."""


class EstApplication(FastAPI):
    """FastAPI with one route and no middleware: routes turns every error into an answer itself."""

    def __init__(self, route: EstRoute, **settings: Any) -> None:
        super().__init__(**settings)
        self.router.routes[:] = [route]
        self._route = route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """HTTP to the one route, for which no router has to look; the lifespan to FastAPI.

        Its own handlers and middleware would answer in JSON, which is no form of EST (RFC 8951 section 5).
        """
        if scope["type"] == "http":
            await self._route.handle(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def build_app(
    *,
    issuers: Issuers,
    ledger: Ledger,
    tokens: TokenReviewer | None,
    settings: AppSettings,
    clock: Callable[[], datetime],
    metrics: Metrics,
    audit: AuditLog,
) -> FastAPI:
    """The ASGI application. It owns its thread pool and its background task from startup to shutdown; the ledger is the caller's."""
    ledger.on_writable = metrics.ledger_writable
    passwords = PasswordChecker()
    spent = Spent(ledger)
    guesses = Guesses(clock=clock, throttle_sources=settings.throttle_sources)
    proofs = Proofs(
        tokens=Tokens(tokens, clock=clock),
        passwords=passwords,
        digest=DigestVerifier(spent, clock=clock),
        registration_authority=RegistrationAuthority(
            service_accounts=frozenset(settings.ra_service_accounts), audience=settings.ra_audience
        ),
        guesses=guesses,
    )
    programs = ProgramCalls()
    callouts = Callouts(programs)
    authenticator = Authenticator(proofs, is_revoked=ledger.is_revoked, clock=clock)
    service = Service(
        authenticator=authenticator,
        guesses=guesses,
        ledger=ledger,
        spent=spent,
        approvals=Approvals(held=HeldRequests(ledger), audit=audit, metrics=metrics, retry_window=settings.retry_window),
        callouts=callouts,
        programs=programs,
        audit=audit,
        metrics=metrics,
        clock=clock,
        retry_window=settings.retry_window,
    )

    @asynccontextmanager
    async def _running(_: FastAPI) -> AsyncIterator[None]:
        try:
            async with beside(ledger.keep_revoked_fresh(every=REVOKED_REFRESH, on_error=_report)):
                yield
        finally:
            passwords.close()
            await callouts.aclose()
            service.key_generator.close()

    return EstApplication(
        EstRoute(issuers, service, IssuerEndpoint(issuers, authenticator, public_url=settings.public_url)),
        title="est-issuer",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_running,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # spans would hold what our log lines leave out
    )


def _report(error: EstError) -> None:
    _log.warning("revoked certificates could not be read again", reason=error.reason, cause=str(error.__cause__))
