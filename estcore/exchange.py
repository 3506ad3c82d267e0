"""The client half of EST without IO: requests as values, answers as values or errors.

Each operation is a pair: one function builds the HttpRequest, one reads the HttpResponse and returns certificates or raises an
error of the ClientError branch. Moving bytes is the caller's task; so is the clock (`now`, aware UTC).

RFC 7030 sections 3.2 (URIs, HTTP), 4.1 (CA certificates), 4.2 (enrolment), 4.5 (CSR attributes); RFC 8951 sections 3 (base64 bodies)
and 4; RFC 9110 sections 10.2.3 (Retry-After) and 15.4 (redirects). The CSR that these requests carry is built in `estcore.csr_builder`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from urllib.parse import urljoin, urlsplit

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from estcore import certs_only, csrattrs, transfer
from estcore.csrattrs import CsrAttrs
from estcore.errors import ConfigurationError, MalformedBody, MalformedResponse, Pending, Refused, ServerUnavailable
from estcore.issuer_spec import OPERATIONS
from estcore.visible_text import printable

WELL_KNOWN = "/.well-known/est"
"""RFC 7030 section 3.2.2."""

MAX_ANSWER_OCTETS = 256 * 1024
"""Longest body of an answer that is read: an enrolment is below 6 KiB, a bag of thirty RSA-4096 CA certificates below 64 KiB."""

MAX_REASON_CHARACTERS = 300
"""How much of an error text is kept: a sentence, not a page."""

DEFAULT_RETRY_AFTER = timedelta(seconds=5)
DEFAULT_PENDING = timedelta(seconds=60)
"""Where a 202 names no time although RFC 7030 section 4.2.3 wants one."""
MIN_RETRY_AFTER = timedelta(seconds=1)
MAX_RETRY_AFTER = timedelta(days=1)

_LABEL = re.compile(r"[A-Za-z0-9][-A-Za-z0-9._:~]{0,316}")
_DELTA_SECONDS = re.compile(r"[0-9]{1,9}")
_TARGET = re.compile(r"/[!-~]{0,2047}")
_NO_CSR_ATTRS = frozenset({204, 404, 405, 501})
"""204 and 404 by RFC 8951 section 4; 405 and 501 are what servers without the operation say too."""
_SEE_LATER = frozenset({408, 425, 429})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRequest:
    """One request, ready for an HTTP library.

    `target` is the origin-form request target. `headers` hold neither Host nor Content-Length, which are the transport's; they may
    hold credentials, so they are not in the repr.
    """

    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    body: bytes = field(default=b"", repr=False)

    def with_headers(self, *headers: tuple[str, str]) -> "HttpRequest":
        """The same request with more headers."""
        return replace(self, headers=(*self.headers, *headers))


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpResponse:
    """One answer, read whole: header names in lower case, of a repeated header the first value.

    `challenges` are all values of WWW-Authenticate, the one header that is repeated on purpose.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    challenges: tuple[str, ...] = ()


def target(label: str | None, operation: str) -> str:
    """The path of an operation, with or without a label; raises ConfigurationError for what cannot be a label."""
    if label is None:
        return f"{WELL_KNOWN}/{operation}"
    if label in OPERATIONS or not _LABEL.fullmatch(label):
        raise ConfigurationError(f"{label!r} cannot be an EST label", field="label")
    return f"{WELL_KNOWN}/{label}/{operation}"


def get_ca_certs(label: str | None) -> HttpRequest:
    """Ask for the CA certificates (RFC 7030 section 4.1.2)."""
    return HttpRequest(method="GET", target=target(label, "cacerts"), headers=(("Accept", "application/pkcs7-mime"),))


def get_csr_attrs(label: str | None) -> HttpRequest:
    """Ask what the server wants in a CSR (RFC 7030 section 4.5.1)."""
    return HttpRequest(method="GET", target=target(label, "csrattrs"), headers=(("Accept", "application/csrattrs"),))


def post_csr(label: str | None, csr_der: bytes, *, renewal: bool) -> HttpRequest:
    """Ask for a certificate: simpleenroll, or simplereenroll for a renewal (RFC 7030 section 4.2).

    The body goes out in 64-column lines because libest's decoder cannot read a long line, and Content-Transfer-Encoding because
    older servers of globalsign/est refuse a request without it; RFC 8951 section 3 gives it no meaning.
    """
    return HttpRequest(
        method="POST",
        target=target(label, "simplereenroll" if renewal else "simpleenroll"),
        headers=(
            ("Content-Type", "application/pkcs10"),
            ("Content-Transfer-Encoding", "base64"),
            ("Accept", "application/pkcs7-mime"),
        ),
        body=transfer.encode_body(csr_der, wrap=True),
    )


def read_ca_certs(response: HttpResponse, *, now: datetime) -> tuple[x509.Certificate, ...]:
    """The CA certificates of an answer to /cacerts: at least one, in no order (RFC 5272 section 4.1).

    Being in the bag makes no certificate trusted (RFC 7030 section 4.1.3). Raises an error of the ClientError branch.
    """
    return _read_bag(response, now=now)


def read_csr_attrs(response: HttpResponse, *, now: datetime) -> CsrAttrs:
    """The CSR attributes of an answer to /csrattrs; none for 204 and for a server that has no such operation (RFC 8951 section 4).

    Raises an error of the ClientError branch.
    """
    if response.status in _NO_CSR_ATTRS:
        return ()
    check_status(response, now=now)
    content_type = response.headers.get("content-type", "")
    if media_type(content_type)[0] != "application/csrattrs":
        raise MalformedResponse(f"the server answered with {_one_line(content_type) or 'no Content-Type'} instead of CSR attributes")
    try:
        return csrattrs.decode(transfer.decode_body(response.body))
    except MalformedBody as error:
        raise MalformedResponse(f"the server's answer is no CSR attributes: {error.message}") from error


def read_issued(response: HttpResponse, *, csr_der: bytes, now: datetime) -> x509.Certificate:
    """The certificate issued for a CSR: the one in the bag that holds the CSR's key.

    A server sends only that one (RFC 7030 section 4.2.3), but those with CMC habits add the chain, in any order.
    Raises MalformedResponse where none holds our key, else an error of the ClientError branch.
    """
    bag = _read_bag(response, now=now)
    public_key = x509.load_der_x509_csr(csr_der).public_key()
    for certificate in bag:
        if has_key(certificate, public_key):
            return certificate
    raise MalformedResponse("the server's answer holds no certificate for the key of the CSR")


def has_key(certificate: x509.Certificate, public_key: object) -> bool:
    """Whether a certificate is for this public key; false for one whose key cannot be read."""
    try:
        return certificate.public_key() == public_key
    except (ValueError, UnsupportedAlgorithm):
        return False


def redirect(request: HttpRequest, response: HttpResponse, *, origin: str) -> HttpRequest | None:
    """The request to send next when the answer is a redirect within the same origin; None when it is no redirect.

    `origin` is `https://host[:port]`. Another origin would have to be authenticated anew and agreed to by a person, and only 307
    and 308 keep a POST and its body (RFC 7030 section 3.2.1, RFC 9110 section 15.4): everything else raises MalformedResponse.
    """
    if response.status not in _REDIRECTS:
        return None
    location = response.headers.get("location", "")
    try:
        there = urlsplit(urljoin(origin + request.target, location))
    except ValueError as error:
        raise MalformedResponse("the server redirects to something that is no URL") from error
    if not location or f"{there.scheme}://{there.netloc}".lower() != origin.lower():
        elsewhere = _one_line(location) or "nowhere"
        raise MalformedResponse(f"the server redirects to {elsewhere}, another origin: call that address yourself if you trust it")
    if request.method != "GET" and response.status not in (307, 308):
        raise MalformedResponse(f"the server redirects an enrolment with {response.status}, which would drop the CSR")
    target = (there.path or "/") + (f"?{there.query}" if there.query else "")
    if not _TARGET.fullmatch(target):
        raise MalformedResponse("the server redirects to something that is no URL")
    return replace(request, target=target)


def check_status(response: HttpResponse, *, now: datetime) -> None:
    """Raise what a status other than 200 means: Pending, Refused, ServerUnavailable or MalformedResponse (RFC 7030 section 4.2.3)."""
    status = response.status
    if status == 200:
        return
    said = _reason(response)
    if status == 202:
        raise Pending(said or "the request waits for approval", retry_after=_retry_after(response, now=now, default=DEFAULT_PENDING))
    if status >= 500 or status in _SEE_LATER:
        text = f"the server cannot answer now ({status}): {said}" if said else f"the server cannot answer now ({status})"
        raise ServerUnavailable(text, retry_after=_retry_after(response, now=now, default=DEFAULT_RETRY_AFTER))
    if status >= 400:
        raise Refused(f"the server refused ({status}): {said}" if said else f"the server refused ({status})", http_status=status)
    raise MalformedResponse(f"the server answered {status}, which has no meaning in EST")


def media_type(value: str) -> tuple[str, dict[str, str]]:
    """A Content-Type as (type/subtype in lower case, parameters by lower-case name); quotes are taken off."""
    kind, *parameters = value.split(";")
    pairs = (parameter.partition("=") for parameter in parameters)
    return kind.strip().lower(), {name.strip().lower(): text.strip().strip('"') for name, _, text in pairs}


def _read_bag(response: HttpResponse, *, now: datetime) -> tuple[x509.Certificate, ...]:
    check_status(response, now=now)
    content_type = response.headers.get("content-type", "")
    kind, parameters = media_type(content_type)
    # RFC 7030 appendix A.1 itself has no smime-type, and older libest servers leave it out: absent is as good as certs-only.
    if kind != "application/pkcs7-mime" or parameters.get("smime-type", "certs-only").lower() != "certs-only":
        raise MalformedResponse(f"the server answered with {_one_line(content_type) or 'no Content-Type'} instead of a certs-only message")
    try:
        bag = certs_only.decode(transfer.decode_body(response.body))
    except MalformedBody as error:
        raise MalformedResponse(f"the server's answer is no certs-only message: {error.message}") from error
    if not bag:
        raise MalformedResponse("the server's certs-only message holds no certificate")
    return bag


def _retry_after(response: HttpResponse, *, now: datetime, default: timedelta) -> timedelta:
    """Retry-After in either form of RFC 9110 section 10.2.3, within one second and one day."""
    value = response.headers.get("retry-after", "").strip()
    wait = default
    if _DELTA_SECONDS.fullmatch(value):
        wait = timedelta(seconds=int(value))
    elif value:
        try:
            wait = datetime.strptime(value, "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=UTC) - now
        except ValueError:
            wait = default
    return min(max(wait, MIN_RETRY_AFTER), MAX_RETRY_AFTER)


def _reason(response: HttpResponse) -> str:
    """The sentence of an error answer; empty where the body is not text (RFC 7030 section 4.2.3: text where no type is named)."""
    kind, _ = media_type(response.headers.get("content-type", "text/plain"))
    return _one_line(response.body[: 8 * MAX_REASON_CHARACTERS].decode("utf-8", "ignore")) if kind == "text/plain" else ""


def _one_line(text: str) -> str:
    """What may be shown to a person: printable, one line, not longer than a sentence (a server must not steer a terminal)."""
    line = " ".join(printable(text).split())
    return line if len(line) <= MAX_REASON_CHARACTERS else line[: MAX_REASON_CHARACTERS - 1] + "…"
