"""Every error of this project, in one tree.

The core names the fault and hints an HTTP status; only the shells render it: estserver turns an error into an answer in
one function, the operator turns it into a condition in one function. A message is one sentence that a person can act on.
It never holds a key, a password or raw bytes.

    EstError                      never raised itself
    ├── RequestError              the requester is at fault; the same request will fail again
    │   ├── BadHeader        400  a request header cannot be read, or is there twice
    │   ├── MalformedBody    400  the body is not base64 of one DER value
    │   ├── BadCsr           400  the PKCS#10 CSR is malformed, its signature or its key is not acceptable
    │   ├── BindingMismatch  400  the CSR is bound to another TLS connection, or to none where one is required
    │   ├── CmcFailed        400  a Full PKI Request, or a part of it, fails; says which CMCFailInfo
    │   ├── Unauthenticated  401  no credentials, or wrong ones
    │   ├── Forbidden        403  authenticated, but not allowed to have this
    │   ├── UnknownLabel     404  no issuer answers at this path
    │   ├── WrongMethod      405  the operation is invoked by another method
    │   ├── Conflict         409  a transaction was used before for another request
    │   ├── TooLarge         413  a body over the limit
    │   └── UnsupportedMediaType 415
    ├── AwaitingApproval     202  accepted; a person decides, ask again after `retry_after`
    ├── Unavailable          503  not now: try again after `retry_after`
    │   ├── IssuerNotReady        the issuer has no usable CA
    │   ├── CalloutFailed         whom the issuer asks before it signs gave no usable answer
    │   ├── LedgerUnavailable     the ledger cannot be written
    │   └── Busy                  throttled, or a bounded queue is full
    ├── SignerError          500  we are at fault
    ├── ConfigurationError        a manifest, a Secret or a setting is wrong; says where and what to change
    └── ClientError               what estclient meets
        ├── Refused               the server answered 4xx; `http_status` and its text are kept
        ├── Pending               the server answered 202; ask again after `retry_after`
        ├── ServerUnavailable     no connection, a timeout or a 5xx; ask again after `retry_after`
        ├── UntrustedServer       the server's certificate is not under the explicit anchors, or names another host
        └── MalformedResponse     the server's answer is not what RFC 7030 says
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import IntEnum


class EstError(Exception):
    """The root of the tree; raise one of its leaves.

    `reason` is a fixed CamelCase word: it is the label of the metric and, where one is needed, the reason of a condition.
    """

    reason = "Error"
    http_status = 500

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        if type(self) in _ABSTRACT:
            raise TypeError(f"{type(self).__name__} is abstract: raise one of its subclasses")
        super().__init__(message)
        self.message = message
        if reason is not None:
            self.reason = reason


class RequestError(EstError):
    """The requester is at fault and must send something else."""

    reason = "BadRequest"
    http_status = 400


class BadHeader(RequestError):
    """A request header cannot be read, or is there twice. The sender must write it anew."""

    reason = "BadHeader"


class MalformedBody(RequestError):
    """The body is not the base64 of one DER value (RFC 8951 section 3). The sender must encode it anew."""

    reason = "MalformedBody"


class BadCsr(RequestError):
    """The PKCS#10 CSR, its signature or its public key is not acceptable. The sender must make another CSR."""

    reason = "BadCsr"


class BindingMismatch(RequestError):
    """The CSR's challengePassword is not this TLS connection's channel binding (RFC 7030 section 3.5)."""

    reason = "BindingMismatch"


class CmcFailInfo(IntEnum):
    """CMCFailInfo: what a PKIResponse gives as the reason (RFC 5272 section 6.1.4)."""

    BAD_ALG = 0
    BAD_MESSAGE_CHECK = 1
    BAD_REQUEST = 2
    BAD_TIME = 3
    BAD_CERT_ID = 4
    UNSUPPORTED_EXT = 5
    MUST_ARCHIVE_KEYS = 6
    BAD_IDENTITY = 7
    POP_REQUIRED = 8
    POP_FAILED = 9
    NO_KEY_REUSE = 10
    INTERNAL_CA_ERROR = 11
    TRY_LATER = 12
    AUTH_DATA_FAIL = 13


class CmcFailed(RequestError):
    """A Full PKI Request, or a part of it, fails and is answered with a PKIResponse (RFC 5272 section 6.1).

    `body_parts` are the BodyPartPaths for the bodyList, each a bodyPartID per layer from the outermost PKIData inwards, (0,) for the whole
    message. They are empty where the fault was found without knowing the place; whoever knows it puts it in by `about`.
    """

    reason = "CmcFailed"

    def __init__(
        self, message: str, *, fail_info: CmcFailInfo, body_parts: Sequence[tuple[int, ...]] = (), reason: str | None = None
    ) -> None:
        super().__init__(message, reason=reason)
        self.fail_info = fail_info
        self.body_parts = tuple(body_parts)

    def about(self, *body_parts: tuple[int, ...]) -> "CmcFailed":
        """The same failure, of these body parts unless it names its own."""
        failed = CmcFailed(self.message, fail_info=self.fail_info, body_parts=self.body_parts or body_parts, reason=self.reason)
        failed.http_status = self.http_status
        return failed


class Unauthenticated(RequestError):
    """No credentials, or wrong ones. The sender must authenticate as one of the challenges says."""

    reason = "Unauthenticated"
    http_status = 401


class Forbidden(RequestError):
    """The requester is known and may not have this. An administrator may change the issuer's policy."""

    reason = "Forbidden"
    http_status = 403


class UnknownLabel(RequestError):
    """No issuer answers at this path."""

    reason = "UnknownLabel"
    http_status = 404


class WrongMethod(RequestError):
    """The operation exists and is invoked by another method (RFC 9110 section 15.5.6)."""

    reason = "WrongMethod"
    http_status = 405

    def __init__(self, message: str, *, allow: Sequence[str]) -> None:
        super().__init__(message)
        self.allow = tuple(allow)


class Conflict(RequestError):
    """The same transactionId came with another request: the sender's fault, for a transaction is one request (RFC 5272 section 6.6)."""

    reason = "Conflict"
    http_status = 409


class TooLarge(RequestError):
    """The body is over the limit."""

    reason = "TooLarge"
    http_status = 413


class UnsupportedMediaType(RequestError):
    """The operation takes another media type."""

    reason = "UnsupportedMediaType"
    http_status = 415


class AwaitingApproval(EstError):
    """The request is good and waits for a person (RFC 7030 section 4.2.3). The same request gives its certificate after `retry_after`.

    `request_id` is what it waits as, since `asked_at` (aware, UTC).
    """

    reason = "AwaitingApproval"
    http_status = 202

    def __init__(self, message: str, *, retry_after: timedelta, request_id: str, asked_at: datetime) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.request_id = request_id
        self.asked_at = asked_at


class Unavailable(EstError):
    """Not now. The same request may succeed after `retry_after`."""

    reason = "Unavailable"
    http_status = 503

    def __init__(self, message: str, *, retry_after: timedelta = timedelta(seconds=5), reason: str | None = None) -> None:
        super().__init__(message, reason=reason)
        self.retry_after = retry_after


class IssuerNotReady(Unavailable):
    """The issuer has no usable CA; its status says why."""

    reason = "IssuerNotReady"


class CalloutFailed(Unavailable):
    """The issuer's authorization callout gave no answer that can be used, so nothing was issued; the cause says why."""

    reason = "CalloutFailed"


class LedgerUnavailable(Unavailable):
    """The certificate could not be recorded, so it was not handed out."""

    reason = "LedgerUnavailable"


class Busy(Unavailable):
    """Throttled after failed passwords, or a bounded queue is full."""

    reason = "Busy"


class SignerError(EstError):
    """Building or signing the certificate failed: our fault."""

    reason = "SignerError"


class ConfigurationError(EstError):
    """A manifest, a Secret or a setting is wrong.

    `where` is the file or object, `field` the path of the field in it; both may be empty.
    """

    reason = "InvalidConfiguration"

    def __init__(self, message: str, *, where: str = "", field: str = "", reason: str | None = None) -> None:
        super().__init__(": ".join(part for part in (where, field, message) if part), reason=reason)
        self.where = where
        self.field = field


class ClientError(EstError):
    """What an EST client meets."""


class Refused(ClientError):
    """The server answered 4xx: it will not issue this. The request must change."""

    reason = "Refused"

    def __init__(self, message: str, *, http_status: int) -> None:
        super().__init__(message)
        self.http_status = http_status


class Pending(ClientError):
    """The server answered 202: the request waits for somebody. Send it again after `retry_after`."""

    reason = "Pending"
    http_status = 202

    def __init__(self, message: str, *, retry_after: timedelta) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ServerUnavailable(ClientError):
    """No connection, a timeout, or a 5xx answer. Send the request again after `retry_after`."""

    reason = "ServerUnavailable"
    http_status = 503

    def __init__(self, message: str, *, retry_after: timedelta = timedelta(seconds=1)) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class UntrustedServer(ClientError):
    """The server's certificate is not under the explicit trust anchors, or is another host's."""

    reason = "UntrustedServer"


class MalformedResponse(ClientError):
    """The server's answer is not what RFC 7030 says."""

    reason = "MalformedResponse"


_ABSTRACT = frozenset({EstError, RequestError, ClientError})
