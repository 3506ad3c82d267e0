"""A load balancer whose API server is away: it answers 503 to everything, on the API server's address and with its certificate."""

from tests.integration.apiserver import ApiServer
from tests.integration.https_server import Handler, HttpsServer


class _Unavailable(Handler):
    def _answer(self) -> None:
        self.body()
        self.answer(503, "text/plain", b"upstream connect error")

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer  # noqa: N815  # the library's names


class BadGateway(HttpsServer):
    """Stands in for a stopped API server while the context lasts."""

    def __init__(self, api: ApiServer) -> None:
        super().__init__(api, _Unavailable, port=api.port)
