"""An HTTPS server beside an API server, with its address and certificate."""

import http.server
import ssl
import threading
from types import TracebackType
from typing import Self

from tests.integration.apiserver import ApiServer


class Handler(http.server.BaseHTTPRequestHandler):
    """Of HTTP/1.0: no connection is kept, or it would outlive the server."""

    def body(self) -> bytes:
        """What was sent."""
        return self.rfile.read(int(self.headers.get("Content-Length", "0")))

    def answer(self, status: int, content_type: str, body: bytes) -> None:
        """Send the whole answer."""
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002  # the library's name
        """Nothing to say."""


class HttpsServer:
    """Listens at once, and answers while the context lasts. Port 0 is any."""

    def __init__(self, api: ApiServer, handler: type[Handler], *, port: int = 0) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(api.directory / "apiserver.crt", api.directory / "apiserver.key")
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.port: int = self._server.server_address[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
