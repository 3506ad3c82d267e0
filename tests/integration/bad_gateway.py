"""A load balancer whose API server is away: it answers 503 to everything, on the API server's address and with its certificate."""

import http.server
import ssl
import threading
from types import TracebackType
from typing import Self

from tests.integration.apiserver import ApiServer


class _Unavailable(http.server.BaseHTTPRequestHandler):
    """Of HTTP/1.0: no connection is kept, or it would outlive the outage."""

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        body = b"upstream connect error"
        self.send_response(503)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer  # noqa: N815  # the library's names

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002  # as above
        """Nothing to say."""


class BadGateway:
    """Stands in for a stopped API server while the context lasts."""

    def __init__(self, api: ApiServer) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(api.directory / "apiserver.crt", api.directory / "apiserver.key")
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", api.port), _Unavailable)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
