"""One request and its answer, between uvicorn's cycle and the application.

Differs from uvicorn's `RequestResponseCycle` where EST clients need it: the request is whole before the application is called; the head
of the answer waits for the body's first octets and leaves with them in one TLS record (strongSwan reads twice, and a write costs
0.05 ms); header names have their usual case; nothing leaves chunked.
"""

from typing import Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from estserver.http_answer import BODILESS, compose_head, text_headers
from estserver.tls_protocol import TlsProtocol

INTERNAL_ERROR = b"internal error\n"

Message = Any
"""An ASGI event: a dict whose keys depend on its type."""


class Exchange(RequestResponseCycle):
    """A request that was read whole, and the state of its answer."""

    transport: TlsProtocol
    answer_head: Message | None = None
    body_unread = True

    async def receive(self) -> Message:
        """ASGI: the body in one event, then the end of the answer or of the connection."""
        if self.body_unread:
            self.body_unread = False
            return {"type": "http.request", "body": bytes(self.body), "more_body": False}
        if not (self.disconnected or self.response_complete):
            await self.message_event.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """ASGI: hold the head, send it with the first octets of the body.

        Raises RuntimeError where the application breaks the protocol, or would need a chunked answer.
        """
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        kind = message["type"]
        if kind == "http.response.start" and self.answer_head is None:
            self.answer_head = message
        elif kind == "http.response.body" and self.answer_head is not None and not self.response_complete:
            self._send_body(message.get("body", b""), more=message.get("more_body", False))
        else:
            raise RuntimeError(f"unexpected ASGI message {kind!r}")

    async def send_500_response(self) -> None:
        """What uvicorn calls where the application failed before anything left."""
        self.answer_head = None
        self.body_unread = False
        await self.send({"type": "http.response.start", "status": 500, "headers": text_headers(INTERNAL_ERROR)})
        await self.send({"type": "http.response.body", "body": INTERNAL_ERROR})

    def _send_body(self, body: bytes, *, more: bool) -> None:
        head = b"" if self.response_started else self._compose(len(body), more=more)
        if self.scope["method"] == "HEAD":
            body, self.expected_content_length = b"", 0
        self.expected_content_length -= len(body)
        if self.expected_content_length < 0 or (self.expected_content_length > 0 and not more):
            raise RuntimeError("the answer's body is not as long as its Content-Length")
        self.response_started = True
        if more:
            self.transport.write(head + body)
            return
        self.response_complete = True
        self.message_event.set()
        if self.keep_alive:
            self.transport.write(head + body)
        else:
            self.transport.write_last(head + body)
        self.on_response()

    def _compose(self, first_octets: int, *, more: bool) -> bytes:
        assert self.answer_head is not None  # noqa: S101 - tells mypy what `send` has checked
        status = self.answer_head["status"]
        headers = [*self.default_headers, *self.answer_head.get("headers", ())]
        length: int | None = None
        for name, value in headers:
            match name.lower():
                case b"content-length":
                    length = int(value)
                case b"connection" if value.lower() == b"close":
                    self.keep_alive = False
                case b"transfer-encoding" | b"connection":
                    raise RuntimeError(f"the application may not set {name.decode()}")
        if length is None and status not in BODILESS:
            if more:
                raise RuntimeError("an answer in pieces needs a Content-Length")
            length = first_octets
            headers.append((b"content-length", b"%d" % length))
        if not self.keep_alive and (b"connection", b"close") not in headers:
            headers.append((b"connection", b"close"))
        self.expected_content_length = length or 0
        return compose_head(status, tuple(headers))
