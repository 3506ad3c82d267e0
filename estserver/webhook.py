"""Asks a webhook: one POST of JSON over HTTPS to a server that the issuer's own certificates vouch for, one JSON answer.

Every failure is the same to the requester: nothing is issued.
"""

import ssl
from collections import OrderedDict
from typing import Final

import httpx

from estcore.authorization_callout import MAX_ANSWER_OCTETS
from estcore.errors import SignerError

MAX_CLIENTS: Final = 32
"""Webhooks whose connections are kept; the least used goes first."""


class Webhooks:
    """Clients by URL and trust. Belongs to one event loop; close it when done."""

    def __init__(self) -> None:
        self._clients: OrderedDict[tuple[str, str], httpx.AsyncClient] = OrderedDict()

    async def ask(self, url: str, *, ca_bundle_pem: str, body: bytes) -> bytes:
        """POST `body` (JSON) to `url` and return the body of a 200.

        Nothing is decompressed, so what is counted is what came. Raises SignerError where the server is not trusted, cannot be reached, or
        answers anything but 200 with at most 64 KiB; how long it may take is the caller's to say. No redirect is followed and no proxy
        of the environment is used.
        """
        client = await self._client(url, ca_bundle_pem)
        try:
            async with client.stream(
                "POST", url, content=body, headers={"Content-Type": "application/json", "Accept-Encoding": "identity"}
            ) as response:
                answer = bytearray()
                async for chunk in response.aiter_raw():
                    answer += chunk
                    if len(answer) > MAX_ANSWER_OCTETS:
                        raise _failed(url, f"it answered with more than {MAX_ANSWER_OCTETS} octets")
        except httpx.HTTPError as error:
            raise _failed(url, str(error) or type(error).__name__) from error
        if response.status_code != httpx.codes.OK:
            raise _failed(url, f"it answered with HTTP status {response.status_code}")
        return bytes(answer)

    async def aclose(self) -> None:
        """Close all connections."""
        while self._clients:
            _, client = self._clients.popitem()
            await client.aclose()

    async def _client(self, url: str, ca_bundle_pem: str) -> httpx.AsyncClient:
        key = url, ca_bundle_pem
        client = self._clients.pop(key, None)
        if client is None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            try:
                context.load_verify_locations(cadata=ca_bundle_pem)
            except (ssl.SSLError, ValueError) as error:
                raise _failed(url, "caBundle holds no PEM certificates") from error
            client = httpx.AsyncClient(verify=context, trust_env=False, follow_redirects=False, timeout=None)  # noqa: S113 - as above
        self._clients[key] = client
        if len(self._clients) > MAX_CLIENTS:
            _, least_used = self._clients.popitem(last=False)
            await least_used.aclose()
        return client


def _failed(url: str, fault: str) -> SignerError:
    return SignerError(f"the authorization webhook {url} failed: {fault}", reason="CalloutFailed")
