"""HTTP/1.1 of one connection: uvicorn's httptools protocol with the limits and deadlines that it lacks.

The application is called with whole requests only. What is wrong with a request is answered here, with one line of text and
`Connection: close`; the application never sees it. Requests that a client pipelines are answered in order, and while one waits nothing
more is read.
"""

import asyncio
from typing import Any, NoReturn, cast
from urllib.parse import unquote

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from estserver.connection import TlsConnection
from estserver.deadline import Phase
from estserver.http_answer import compose_head, text_headers
from estserver.http_exchange import Exchange
from estserver.http_head import Framing, Refusal, check_headers, check_target
from estserver.limits import Limits
from estserver.tls_protocol import TlsProtocol
from estserver.traffic import TrafficObserver

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
ASGI = {"version": "3.0", "spec_version": "2.3"}


class HttpProtocol(HttpToolsProtocol):
    """Parses requests, starts the application, and says what the connection waits for."""

    transport: TlsProtocol
    cycle: Exchange | None  # type: ignore[assignment]  # the request that the application has now

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        *,
        loop: asyncio.AbstractEventLoop,
        transport: TlsProtocol,
        tls: TlsConnection,
        limits: Limits,
        observer: TrafficObserver,
    ) -> None:
        super().__init__(config, server_state, app_state, loop)
        self.transport = transport
        self.flow = FlowControl(transport)
        self.server, self.client = transport.server, transport.client
        self._extensions = {"tls": tls}
        self._limits = limits
        self._observer = observer
        self._phase = Phase.HEADER
        self._begun = False
        self._octets = 0
        self._requests = 0
        self._refusal: Refusal | None = None
        self._continue_due = self._draining = self._peer_finished = False
        self._expect()

    # --- the connection's side ---------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Parse; start what is whole; await what is not."""
        if self._refusal is not None:
            return
        phase, requests = self._phase, self._requests
        try:
            self.parser.feed_data(data)
            self._count(len(data), moved=self._phase is not phase or self._requests != requests)
        except Refusal as refusal:
            self._refuse(refusal)
        except httptools.HttpParserError as error:
            self._refuse(self._refusal_in(error))
        else:
            if self._phase is not phase or self._requests != requests:
                self._expect()

    def peer_finished(self) -> None:
        """The client closed its half: what is whole is still answered (RFC 9112 section 9.6)."""
        self._peer_finished = True
        if self.cycle is None:
            self.transport.close()

    def drain(self) -> None:
        """Answer what has begun, then close. A client that has sent nothing yet gets a moment."""
        self._draining = True
        if self.cycle is not None:
            last = self.pipeline[0][0] if self.pipeline else self.cycle
            last.keep_alive = False
        elif self._requests == 0 and not self._begun:
            self.transport.expect(Phase.HEADER, self._limits.linger_seconds)
        elif not self._begun:
            self.transport.close()

    def timed_out(self, phase: Phase) -> None:  # noqa: ARG002
        """Say so where a request had begun; an idle connection just closes."""
        if self._begun:
            self._refuse(Refusal(408, "the request did not come in time"))
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Tell the application, if it waits, and let everything go."""
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.pipeline.clear()
        self.flow.resume_writing()
        self.parser = None  # type: ignore[assignment]  # it holds us, and we hold it

    def _expect(self) -> None:
        if self.cycle is not None:
            self.transport.expect_nothing()
        elif self._phase is Phase.HEADER:
            self.transport.expect(Phase.HEADER, self._limits.header_seconds)
        elif self._phase is Phase.BODY:
            self.transport.expect(Phase.BODY, self._limits.body_seconds)
        else:
            self.transport.expect(Phase.IDLE, self._limits.idle_seconds)

    def _count(self, octets: int, *, moved: bool) -> None:
        """Bound what the parser swallows without telling: an endless header line, chunk extensions, empty lines before a request."""
        if moved:
            self._octets = 0
            return
        self._octets += octets
        if self._phase is Phase.BODY:
            if self._octets > self._limits.chunked_octets:
                raise Refusal(413, f"the body may have {self._limits.body_octets} octets")
            return
        self._phase = Phase.HEADER
        if self._octets > self._limits.header_octets + self._limits.request_line_octets:
            raise Refusal(431, f"more than {self._limits.header_octets} octets of headers")

    # --- the parser's side -------------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """The first octet of a request."""
        self.url = b""
        self.headers = []
        self._body = bytearray()
        self._begun = True
        self._phase = Phase.HEADER

    def on_url(self, url: bytes) -> None:
        """A piece of the request target."""
        self.url += url
        if len(self.url) > self._limits.request_line_octets:
            self._stop(Refusal(414, f"the request target may have {self._limits.request_line_octets} octets"))

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header line; trailers are dropped, for they could change what was judged (RFC 9110 section 6.5.1)."""
        if self._phase is Phase.HEADER:
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Judge the head."""
        self._http_version = self.parser.get_http_version()
        self._keep_alive = self._http_version != "1.0" and self.parser.should_keep_alive()
        try:
            self._raw_path, self._query = check_target(self.url)
            framing = check_headers(self.headers, self._http_version, self._limits)
        except Refusal as refusal:
            self._stop(refusal)
        self._phase = Phase.BODY
        if framing.expects_continue:
            self._invite(framing)

    def on_body(self, body: bytes) -> None:
        """A piece of the body, out of its chunks."""
        self._body += body
        if len(self._body) > self._limits.body_octets:
            self._stop(Refusal(413, f"the body may have {self._limits.body_octets} octets"))

    def on_message_complete(self) -> None:
        """The request is whole: it is the application's turn, or the turn of those before it."""
        self._phase = Phase.IDLE
        self._begun = self._continue_due = False
        self._requests += 1
        exchange = self._make_exchange()
        if self.cycle is None:
            self.cycle = exchange
            self._start_asgi_task(exchange, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((exchange, self.app))

    def _make_exchange(self) -> Exchange:
        path = self._raw_path.decode("ascii")
        scope: Any = {  # uvicorn's type of it knows no extension whose value is not a dict
            "type": "http",
            "asgi": ASGI,
            "http_version": self._http_version,
            "method": self.parser.get_method().decode("ascii"),
            "server": self.server,
            "client": self.client,
            "scheme": "https",
            "root_path": "",
            "path": unquote(path) if "%" in path else path,
            "raw_path": self._raw_path,
            "query_string": self._query,
            "headers": self.headers,
            "state": self.app_state.copy(),
            "extensions": self._extensions,
        }
        exchange = Exchange(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=self._keep_alive and not self._draining,
            on_response=self.on_response_complete,
        )
        exchange.body = self._body
        return exchange

    def _invite(self, framing: Framing) -> None:
        """RFC 9110 section 10.1.1: the head is fine, so ask for the body; after the answers that go before."""
        if framing.content_length == 0:
            return
        if self.cycle is None:
            self.transport.write(CONTINUE)
        else:
            self._continue_due = True

    # --- the application's side --------------------------------------------------------------------------------------------

    def on_response_complete(self) -> None:
        """The next in the pipeline, or the client's turn."""
        self.server_state.total_requests += 1
        self.cycle = None
        if self.transport.is_closing():
            return
        if self.pipeline:
            exchange, app = self.pipeline.pop()
            self.cycle = cast("Exchange", exchange)
            self._start_asgi_task(exchange, app)
        elif self._refusal is not None:
            self._answer(self._refusal)
        elif self._peer_finished:
            self.transport.close()
        else:
            if self._continue_due:
                self._continue_due = False
                self.transport.write(CONTINUE)
            self._expect()
            self.flow.resume_reading()

    def _stop(self, refusal: Refusal) -> NoReturn:
        # httptools keeps the exception of some callbacks and loses that of others.
        self._refusal = refusal
        raise refusal

    def _refusal_in(self, error: httptools.HttpParserError) -> Refusal:
        if self._refusal is not None:
            return self._refusal
        if isinstance(error, httptools.HttpParserCallbackError):
            raise error  # our own fault: the loop's handler logs it and ends the connection
        if isinstance(error, httptools.HttpParserInvalidMethodError):
            return Refusal(501, "the request method is not known")
        return Refusal(400, f"malformed HTTP request: {error}")

    def _refuse(self, refusal: Refusal) -> None:
        self._refusal = refusal.with_traceback(None)  # its frames hold us
        if self.cycle is None:
            self._answer(refusal)
        else:
            self.flow.pause_reading()

    def _answer(self, refusal: Refusal) -> None:
        self._observer.request_refused(refusal.http_status)
        body = refusal.text.encode("ascii", "replace") + b"\n"
        head = compose_head(refusal.http_status, (*self.server_state.default_headers, *text_headers(body)))
        self.transport.write(head + body)
        self.transport.close_discarding()
