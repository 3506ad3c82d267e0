"""HTTP/1.1 on one TLS connection, by h11: a request goes out, its answer is read whole and bounded."""

import h11

from estclient.transport import ConnectionCut, TlsContext, TlsStream
from estcore.errors import ConfigurationError, MalformedResponse
from estcore.exchange import HttpRequest, HttpResponse

MAX_HEAD_OCTETS = 16 * 1024
"""Longest head of an answer (a request to us has the same bound)."""

USER_AGENT = "est-issuer"
"""Must never begin with `libest`: servers answer that client differently."""


class HttpConnection:
    """One keep-alive connection. One request at a time; after any error it is not reusable."""

    def __init__(self, stream: TlsStream, *, authority: str) -> None:
        self._stream = stream
        self._fixed_headers = [("Host", authority), ("User-Agent", USER_AGENT)]
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_OCTETS)
        self.answers = 0
        """How many answers were read on this connection."""
        self.answer_begun = False
        """Whether any byte came back for the request under way."""

    @classmethod
    async def open(cls, context: TlsContext, *, port: int, authority: str) -> "HttpConnection":
        """Connect, shake hands and verify the server; see TlsStream.connect."""
        return cls(await TlsStream.connect(context, port=port), authority=authority)

    @property
    def channel_binding(self) -> bytes:
        """See TlsStream.channel_binding."""
        return self._stream.channel_binding

    @property
    def reusable(self) -> bool:
        """True while another request may be sent: the last answer was read to its end and neither side said close."""
        return self._http.our_state is h11.IDLE and self._http.their_state is h11.IDLE and not self._stream.at_eof

    async def exchange(self, request: HttpRequest, *, max_octets: int) -> HttpResponse:
        """Send a request and read its answer, of a body at most `max_octets` long.

        Raises ConnectionCut (see `answer_begun`) or MalformedResponse; ConfigurationError for a request that HTTP/1.1 cannot carry.
        """
        self.answer_begun = False
        headers = [*self._fixed_headers, *request.headers]
        if request.body or request.method == "POST":
            headers.append(("Content-Length", str(len(request.body))))
        await self._stream.write(self._serialize(request, headers))
        try:
            response = await self._read(max_octets)
        except h11.RemoteProtocolError as error:
            raise MalformedResponse(f"the server's answer is not HTTP/1.1: {error}") from error
        self.answers += 1
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
        return response

    def close(self) -> None:
        """Close the connection at once."""
        self._stream.close()

    def _serialize(self, request: HttpRequest, headers: list[tuple[str, str]]) -> bytes:
        try:
            head = self._http.send(h11.Request(method=request.method, target=request.target, headers=headers)) or b""
        except h11.LocalProtocolError as error:  # its text may quote a header, and a header may be a secret
            raise ConfigurationError("the request's target or one of its headers cannot stand in HTTP/1.1") from error
        body = self._http.send(h11.Data(data=request.body)) or b""
        self._http.send(h11.EndOfMessage())
        return head + body

    async def _read(self, max_octets: int) -> HttpResponse:
        head: h11.Response | None = None
        body = bytearray()
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                data = await self._stream.read()
                if not data and head is None:
                    raise ConnectionCut("the server closed the connection without an answer")
                self.answer_begun = self.answer_begun or bool(data)
                self._http.receive_data(data)
            elif isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > max_octets:
                    raise MalformedResponse(f"the server's answer is longer than {max_octets} octets")
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                headers: dict[str, str] = {}
                challenges: list[str] = []
                for name, value in head.headers:
                    headers.setdefault(name.decode("ascii"), value.decode("latin-1"))
                    if name == b"www-authenticate":
                        challenges.append(value.decode("latin-1"))
                return HttpResponse(status=head.status_code, headers=headers, body=bytes(body), challenges=tuple(challenges))
            elif not isinstance(event, h11.InformationalResponse):
                raise MalformedResponse("the server closed the connection in its answer")
