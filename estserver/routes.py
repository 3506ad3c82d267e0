"""From ASGI to an operation and back: the one dispatcher, and the one function that turns an error into an answer.

A single route takes every request of the FastAPI application and looks at `raw_path`, before anybody decoded it: a path is one of
those in the table, to the octet, or it is 404 (threats row 9). No dependency injection, no JSON, no middleware on this path.
Source: RFC 7030 section 3.2.2; answers laid out as old clients need them.
"""

import math
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Final

import structlog
from starlette.routing import BaseRoute, Match
from starlette.types import Message, Receive, Scope, Send

from estcore.errors import (
    AwaitingApproval,
    BadHeader,
    EstError,
    MalformedBody,
    RequestError,
    TooLarge,
    Unavailable,
    UnknownLabel,
    WrongMethod,
)
from estcore.visible_text import escaped
from estserver import full_cmc, full_cmc_response, operations, server_keygen
from estserver.challenges import Challenged
from estserver.full_cmc_response import CmcRefused
from estserver.http_answer import BODILESS
from estserver.issuer_endpoint import IssuerEndpoint
from estserver.issuers import Issuer, Issuers
from estserver.issuing import Service
from estserver.messages import BASE64, BASE64_MEDIA, MEDIA_TEXT, EstRequest, EstResponse, Header, Operation

PREFIX: Final = b"/.well-known/est/"
ISSUERS_PATH: Final = b"/est-issuer/v1/issuers"
MAX_BODY_OCTETS: Final = 64 * 1024
"""The transport has the same limit and refuses earlier; this one holds whatever transport is below."""
MAX_LABEL_OCTETS: Final = 63 + 1 + 253
MAX_ERROR_TEXT: Final = 512

Run = Callable[[EstRequest, Issuer, Service], Awaitable[EstResponse]]

OPERATIONS: Final[Mapping[bytes, tuple[str, Operation, Run]]] = {
    b"cacerts": ("GET", Operation.CACERTS, operations.cacerts),
    b"csrattrs": ("GET", Operation.CSRATTRS, operations.csrattrs),
    b"fullcmc": ("POST", Operation.FULL_CMC, full_cmc.full_cmc),
    b"simpleenroll": ("POST", Operation.SIMPLE_ENROLL, operations.enroll),
    b"simplereenroll": ("POST", Operation.SIMPLE_REENROLL, operations.reenroll),
    b"serverkeygen": ("POST", Operation.SERVER_KEYGEN, server_keygen.serverkeygen),
}
"""Operation segment → method, name, function. What is not here does not exist."""
_THERE_ARE: Final = ", ".join(sorted(segment.decode() for segment in OPERATIONS))

_log = structlog.get_logger("estserver")


@dataclass(slots=True)
class _Seen:
    """What is known of a request so far, for metrics and the log line of a refusal."""

    operation: str = ""
    issuer: str = ""


class EstRoute(BaseRoute):
    """Every path of the application."""

    def __init__(self, issuers: Issuers, service: Service, endpoint: IssuerEndpoint) -> None:
        self._issuers = issuers
        self._service = service
        self._endpoint = endpoint

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """All of HTTP; a websocket is nobody's."""
        return (Match.FULL if scope["type"] == "http" else Match.NONE), {}

    def url_path_for(self, name: str, /, **path_params: Any) -> Any:
        """No path has a name."""
        raise NotImplementedError(name)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Whatever happens, the answer is one of ours, head and body in two sends without a pause."""
        started = perf_counter()
        seen = _Seen()
        try:
            response = await self._answer(scope, receive, seen)
        except EstError as error:
            response = self._refuse(error, scope, seen)
            if seen.operation == Operation.FULL_CMC:
                response = full_cmc_response.refused(response, error)
        except Exception as error:  # noqa: BLE001 - nothing internal leaves: an id outside, the trace in the log
            response = self._fail(error, seen)
        body = response.body
        headers = list(response.headers)
        if any(name == b"content-type" and value.startswith(BASE64_MEDIA) for name, value in headers):
            headers.append(BASE64)
        if response.status not in BODILESS:  # a 204 has none; a 304's would be the length of the 200 (RFC 9110 section 8.6)
            headers.append((b"content-length", b"%d" % len(body)))
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        self._service.metrics.answered(seen.operation, perf_counter() - started)

    async def _answer(self, scope: Scope, receive: Receive, seen: _Seen) -> EstResponse:
        raw_path: bytes = scope["raw_path"]
        if not raw_path.startswith(PREFIX):
            if raw_path != ISSUERS_PATH or scope["query_string"]:
                raise UnknownLabel("nothing is here; EST is at /.well-known/est/")
            _check_method(scope, "GET")
            seen.operation = "issuers"
            headers = _Headers(scope)
            return await self._endpoint.answer(authorization=headers.authorization, if_none_match=headers.if_none_match)
        label, segment = _split(raw_path, scope["query_string"])
        found = OPERATIONS.get(segment)
        if found is None:
            raise UnknownLabel(f"no such EST operation here; there are {_THERE_ARE}")
        method, operation, run = found
        seen.operation = operation
        _check_method(scope, method)
        issuer = self._find(label)
        seen.issuer = issuer.key
        body = await _read_body(receive) if method == "POST" else b""
        return await run(_to_request(scope, operation, label, body), issuer, self._service)

    def _find(self, label: str | None) -> Issuer:
        registry = self._issuers.current
        if label is not None:
            issuer = registry.by_label.get(label)
            if issuer is None:
                raise UnknownLabel("no issuer has this label")
            return issuer
        if registry.default is None:
            raise UnknownLabel("this server has no default issuer; use /.well-known/est/<label>/…")
        return registry.default

    def _refuse(self, refused: EstError, scope: Scope, seen: _Seen) -> EstResponse:
        error = refused.cause if isinstance(refused, CmcRefused) else refused
        if not isinstance(error, RequestError | Unavailable | AwaitingApproval):
            return self._fail(refused.__cause__ if isinstance(refused.__cause__, Exception) else error, seen)
        self._service.metrics.refused(seen.issuer, error.reason)
        details: dict[str, object] = {"cause": str(error.__cause__)} if isinstance(error, Unavailable) and error.__cause__ else {}
        _log.info(
            "refused",
            status=error.http_status,
            reason=error.reason,
            text=error.message,
            operation=seen.operation,
            issuer=seen.issuer,
            source=_source(scope),
            **details,
        )
        response = to_response(error)
        if isinstance(error, Challenged) and _reads_no_body(scope, error):
            return EstResponse(status=response.status, body=b"", headers=response.headers)
        return response

    def _fail(self, error: Exception, seen: _Seen) -> EstResponse:
        incident = secrets.token_hex(8)
        self._service.metrics.refused(seen.issuer, error.reason if isinstance(error, EstError) else "InternalError")
        _log.error("internal error", incident=incident, operation=seen.operation, issuer=seen.issuer, exc_info=error)
        return _text(500, f"internal error {incident}; the server's log has it under this id")


def to_response(error: RequestError | Unavailable | AwaitingApproval) -> EstResponse:
    """The answer to a client: one line of text that a person can act on (RFC 7030 section 4.2.3, RFC 8951 section 5)."""
    headers: tuple[Header, ...] = ()
    match error:
        case Challenged():
            headers = tuple((b"www-authenticate", challenge.encode("latin-1")) for challenge in error.challenges)
        case WrongMethod():
            headers = ((b"allow", ", ".join(error.allow).encode()),)
        case Unavailable() | AwaitingApproval():
            headers = ((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after.total_seconds()))),)
    return _text(error.http_status, error.message, headers)


def _text(status: int, text: str, headers: tuple[Header, ...] = ()) -> EstResponse:
    line = " ".join(text.split())
    if len(line) > MAX_ERROR_TEXT:
        line = line[: MAX_ERROR_TEXT - 1] + "…"
    return EstResponse(status=status, body=f"{escaped(line)}\n".encode(), headers=(*headers, (b"content-type", MEDIA_TEXT)))


def _split(raw_path: bytes, query_string: bytes) -> tuple[str | None, bytes]:
    """Label (None where the path has none) and operation segment, of a path that is exactly so."""
    segments = raw_path[len(PREFIX) :].split(b"/")
    if query_string or len(segments) > 2:
        raise UnknownLabel("no such path; it is /.well-known/est/[label/]operation")
    if len(segments) == 1:
        return None, segments[0]
    label = segments[0].replace(b"%3A", b":").replace(b"%3a", b":")
    if not label or len(label) > MAX_LABEL_OCTETS or b"%" in label or not label.isascii():
        raise UnknownLabel("no issuer has this label")
    return label.decode("ascii"), segments[1]


def _check_method(scope: Scope, method: str) -> None:
    if scope["method"] != method:
        raise WrongMethod(f"this operation is invoked by {method}", allow=[method])


class _Headers:
    """The request headers that mean something here; one that may come once and comes twice is refused."""

    __slots__ = ("authorization", "content_encoding", "content_type", "if_none_match", "user_agent")

    def __init__(self, scope: Scope) -> None:
        self.authorization: str | None = None
        self.content_encoding: str | None = None
        self.content_type: str | None = None
        self.if_none_match: str | None = None
        self.user_agent: str | None = None
        for name, value in scope["headers"]:
            slot = _SLOTS.get(name)
            if slot is not None:
                if name in _ONCE and getattr(self, slot) is not None:
                    raise BadHeader(f"{name.decode()} is there twice")
                setattr(self, slot, value.decode("latin-1"))


_ONCE: Final = frozenset({b"authorization", b"content-encoding", b"content-type"})
_SLOTS: Final[Mapping[bytes, str]] = {slot.replace("_", "-").encode(): slot for slot in _Headers.__slots__}


def _reads_no_body(scope: Scope, challenged: Challenged) -> bool:
    """Bouncy Castle: it closes the body of a 401 unread, takes that for a broken answer, and never sends its credentials (seen: 1.84).

    It knows Basic and Digest, sends no User-Agent, and after the challenge an Authorization: from then on it is told in text what is wrong.
    """
    return not challenged.challenges[0].startswith("Bearer") and not any(
        name in {b"user-agent", b"authorization"} for name, _ in scope["headers"]
    )


def _to_request(scope: Scope, operation: Operation, label: str | None, body: bytes) -> EstRequest:
    headers = _Headers(scope)
    return EstRequest(
        operation=operation,
        method=scope["method"],
        target=scope["raw_path"].decode("latin-1"),
        label=label,
        content_type=headers.content_type,
        content_encoding=headers.content_encoding,
        authorization=headers.authorization,
        wants_wrapped=headers.user_agent is not None and headers.user_agent.startswith("libest"),
        body=body,
        tls=scope["extensions"]["tls"],
        source=_source(scope),
        names_no_agent=headers.user_agent is None,
    )


def _source(scope: Scope) -> str:
    client = scope.get("client")
    return client[0] if client else ""


async def _read_body(receive: Receive) -> bytes:
    """The whole body. Raises TooLarge, or MalformedBody where the client went away within it."""
    message: Message = await receive()
    first: bytes = message.get("body", b"")
    if message["type"] == "http.request" and not message.get("more_body") and len(first) <= MAX_BODY_OCTETS:
        return first
    parts, size = [first], len(first)
    while message["type"] == "http.request" and message.get("more_body") and size <= MAX_BODY_OCTETS:
        message = await receive()
        parts.append(message.get("body", b""))
        size += len(parts[-1])
    if message["type"] != "http.request":
        raise MalformedBody("the connection ended within the body")
    if size > MAX_BODY_OCTETS:
        raise TooLarge(f"the body is longer than {MAX_BODY_OCTETS} octets")
    return b"".join(parts)
