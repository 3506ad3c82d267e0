"""The Authorization header as text: its scheme, and what stands behind it (RFC 9110 section 11.6.2, RFC 7617 section 2)."""

import base64
import re
from typing import Final

from estcore.errors import EstError, Unauthenticated

MAX_USER: Final = 255
MAX_PASSWORD: Final = 1024

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9_-]*) +(.*)")
_TOKEN68 = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_CONTROL = re.compile("[\x00-\x1f\x7f]")


def parse(value: str | None) -> tuple[str, str]:
    """The scheme in lower case and the credentials; both empty where there is no header, or it cannot be read.

    Credentials of Digest are a list of parameters, all others token68.
    """
    match = _SCHEME.fullmatch(value.strip()) if value is not None else None
    if match is None:
        return "", ""
    scheme, credentials = match[1].lower(), match[2]
    if scheme != "digest" and not _TOKEN68.fullmatch(credentials):
        return "", ""
    return scheme, credentials


def parse_basic(credentials: str) -> tuple[str, str]:
    """User (may be empty) and password; the first colon parts them. Raises Unauthenticated. Source: RFC 7617 section 2."""
    try:
        text = base64.b64decode(credentials, validate=True).decode()
    except ValueError:  # not base64, not ASCII, or not UTF-8 inside
        raise _malformed_basic() from None
    user, colon, password = text.partition(":")
    if not colon or _CONTROL.search(text) or len(user) > MAX_USER or len(password) > MAX_PASSWORD:
        raise _malformed_basic()
    return user, password


def _malformed_basic() -> EstError:
    return Unauthenticated("Authorization: Basic takes the base64 of user:password in UTF-8 (RFC 7617)", reason="MalformedCredentials")
