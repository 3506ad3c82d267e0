"""The operator's way to estserver: EST clients by label, with the ServiceAccount token and the trust anchors from mounted files.

Both files are replaced while the process runs (a projected token every hour, the ConfigMap when the serving root changes), so they
are looked at again every few seconds.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509

from estclient import Bearer, EstClient
from estcore.errors import CmcFailInfo, MalformedResponse, ServerUnavailable
from estcore.full_exchange import FullRefused
from estcore.full_request import Vouched
from estcore.keys import PublicKey
from estoperator.registration_authority import RegistrationAuthority

ISSUERS_PATH = "/est-issuer/v1/issuers"
TIMEOUT = timedelta(seconds=15)
MAX_CLIENTS = 64
"""Labels whose connections are kept; the least used goes first."""

FILE_SECONDS = 5.0
"""How long the contents of a mounted file are taken as fresh."""

_OURS = frozenset({CmcFailInfo.BAD_IDENTITY, CmcFailInfo.BAD_MESSAGE_CHECK})
"""What estserver says of a signer that it does not accept."""


class MountedFile:
    """A file that somebody replaces. `clock` gives monotonic seconds."""

    def __init__(self, path: Path, *, what: str, clock: Callable[[], float]) -> None:
        self._path, self._what, self._clock = path, what, clock
        self._contents = b""
        self._read_at = float("-inf")

    def read(self) -> bytes:
        """Its contents, a few seconds old at most; raises ServerUnavailable while it is absent or empty."""
        if self._clock() - self._read_at >= FILE_SECONDS:
            try:
                self._contents = self._path.read_bytes()
            except OSError as error:
                raise ServerUnavailable(f"the file of {self._what} cannot be read: {error}") from error
            if not self._contents.strip():
                raise ServerUnavailable(f"the file of {self._what}, {self._path}, is empty")
            self._read_at = self._clock()
        return self._contents


class EstServer:
    """estserver, as its registration authority sees it. Belongs to one event loop."""

    def __init__(self, *, url: str, anchors: MountedFile, token: MountedFile, now: Callable[[], datetime]) -> None:
        self._url, self._anchors = url, anchors
        self._credentials = Bearer(token=lambda: token.read().decode("ascii", "replace").strip())
        self._clients: OrderedDict[str | None, EstClient] = OrderedDict()
        self._anchors_pem = b""
        self._etag: str | None = None
        self.authority = RegistrationAuthority(self._simple_enroll, now=now)

    async def enrol(
        self, label: str | None, vouched: Vouched, *, public_key: PublicKey, authorities: Sequence[x509.Certificate]
    ) -> x509.Certificate:
        """The certificate for the vouched CSR, whose key is `public_key`, by a Full PKI Request (RFC 7030 section 4.3).

        `authorities` are the issuer's CA certificates, one of which signed the answer where it is a Full PKI Response. Raises errors of the
        ClientError branch, and ConfigurationError for a broken mounted file.
        """
        client = await self._client(label)
        request = self.authority.sign(label, vouched)
        try:
            answer = await client.full_cmc(request, ca_certificates=authorities)
        except FullRefused as refused:
            if any(info.fail_info is CmcFailInfo.BAD_TIME for info in refused.statuses):
                raise ServerUnavailable(
                    "the operator's clock and estserver's are more than 5 minutes apart: set the clocks of their nodes"
                ) from refused
            if not _OURS.isdisjoint(info.fail_info for info in refused.statuses):
                # Not the requester's fault: another CA key, a revoked certificate of ours. The next poll of the issuers gets a new one.
                self.authority.forget(label)
                raise ServerUnavailable(f"estserver does not take the operator's signature: {refused.message}") from refused
            raise
        return answer.certificate_for(public_key)

    async def _simple_enroll(self, label: str | None, csr_der: bytes) -> x509.Certificate:
        client = await self._client(label)
        return await client.simple_enroll(csr_der)

    async def issuers(self) -> list[object] | None:
        """The entries of estserver's list of issuers, None where it is the one of the last answer; raises as `enrol`."""
        client = await self._client(None)
        answer = await client.get_json(ISSUERS_PATH, self._etag)
        if answer is None:
            return None
        entries = answer.value.get("issuers") if isinstance(answer.value, dict) else None
        if not isinstance(entries, list):
            raise MalformedResponse(f"{ISSUERS_PATH} answered without a list of issuers")
        self._etag = answer.etag
        return entries

    def forget_issuers(self) -> None:
        """Have the next `issuers` answer in full."""
        self._etag = None

    async def aclose(self) -> None:
        """Close the connections."""
        while self._clients:
            await self._clients.popitem()[1].aclose()

    async def _client(self, label: str | None) -> EstClient:
        anchors_pem = self._anchors.read()
        if anchors_pem != self._anchors_pem:
            for known in self._clients.values():
                known.replace(anchors_pem=anchors_pem)
            self._anchors_pem = anchors_pem
        if label not in self._clients:
            self._clients[label] = EstClient(
                url=self._url, label=label, anchors_pem=anchors_pem, credentials=self._credentials, timeout=TIMEOUT
            )
            if len(self._clients) > MAX_CLIENTS:
                await self._clients.popitem(last=False)[1].aclose()
        self._clients.move_to_end(label)
        return self._clients[label]
