"""HTTP Digest: what its header says, what its response must be, and nonces that their maker can recognize. Pure.

SHA-256, and MD5 for clients that know no other; SHA-512-256 is left out, for the RFC's own example of it was computed otherwise.
`qop` is `auth` only: EST runs inside TLS, which protects the body better than `auth-int` does. Source: RFC 7616.
"""

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final
from urllib.parse import quote as percent_encoded
from urllib.parse import unquote_to_bytes

from estcore.errors import BadHeader
from estcore.http_authentication import parse_parameters, quote

NONCE_LIFE: Final = timedelta(minutes=5)
"""Clients answer a challenge at once, on the same connection or the next one; a later answer is told that its nonce is stale."""
NONCE_RANDOM_OCTETS: Final = 8
MAX_VALUE_CHARACTERS: Final = 512
QOP: Final = "auth"

_TIME_OCTETS = 6
_MAC_OCTETS = 16
# 30 octets are 40 characters without padding: libest keeps less than 64
_NONCE = re.compile(r"[A-Za-z0-9_-]{40}")
_NONCE_COUNT = re.compile(r"[0-9a-f]{8}")
_CONTROL = re.compile("[\x00-\x1f\x7f]")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class DigestAlgorithm(StrEnum):
    """The hash functions, by their names in the header (RFC 7616 section 6.1)."""

    SHA_256 = "SHA-256"
    MD5 = "MD5"

    @property
    def hex_length(self) -> int:
        """Characters of its digest in hex."""
        return 64 if self is DigestAlgorithm.SHA_256 else 32

    def hash(self, text: str) -> str:
        """H(text), the text in UTF-8, in lower-case hex."""
        function = "sha256" if self is DigestAlgorithm.SHA_256 else "md5"
        return hashlib.new(function, text.encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class DigestCredentials:
    """Authorization: Digest. `nonce_count` is nc, from 1 on; `opaque` is None where it was left out, as libest does."""

    user: str
    realm: str
    nonce: str
    uri: str
    algorithm: DigestAlgorithm
    nonce_count: int
    cnonce: str
    response: str = field(repr=False)
    opaque: str | None = None


def hash_a1(algorithm: DigestAlgorithm, *, user: str, realm: str, password: str) -> str:
    """HA1: the hash of user, realm and password, as a server keeps it (RFC 7616 section 3.4.2). Hex."""
    return algorithm.hash(f"{user}:{realm}:{password}")


def compute_response(
    algorithm: DigestAlgorithm, ha1: str, *, method: str, uri: str, nonce: str, nonce_count: int, cnonce: str, session: bool = False
) -> str:
    """The response for qop=auth (RFC 7616 sections 3.4.1 to 3.4.3), in hex. `session`: of the algorithm's `-sess` variant."""
    if session:
        ha1 = algorithm.hash(f"{ha1}:{nonce}:{cnonce}")
    return algorithm.hash(f"{ha1}:{nonce}:{nonce_count:08x}:{cnonce}:{QOP}:{algorithm.hash(f'{method}:{uri}')}")


def parse_credentials(text: str) -> DigestCredentials:
    """What stands behind `Authorization: Digest`; `text` is decoded as Latin-1, as HTTP headers are.

    qop, nc and algorithm may be quoted, against RFC 7616 section 3.4: libest and Bouncy Castle do so. No algorithm is MD5. Raises
    BadHeader that names what is missing, malformed or not offered by this server (`-sess`, auth-int, userhash, RFC 2069 without qop).
    """
    parameters = parse_parameters(text)
    missing = [name for name in ("realm", "nonce", "uri", "response", "cnonce", "nc", "qop") if name not in parameters]
    if missing:
        raise _bad(f"{missing[0]} is missing (RFC 7616 section 3.4)")
    if any(len(value) > MAX_VALUE_CHARACTERS for value in parameters.values()):
        raise _bad(f"a value is longer than {MAX_VALUE_CHARACTERS} characters")
    if parameters["qop"].lower() != QOP:
        raise _bad(f"qop is {QOP} at this server: TLS protects the body")
    if parameters.get("userhash", "false").lower() != "false":
        raise _bad("userhash is not offered by this server: TLS protects the user name")
    if not _NONCE_COUNT.fullmatch(parameters["nc"]) or int(parameters["nc"], 16) == 0:
        raise _bad("nc is eight hexadecimal digits in lower case, from 00000001 on (RFC 7616 section 3.4)")
    algorithm = _algorithm(parameters.get("algorithm", "MD5"))
    response = parameters["response"].lower()
    if len(response) != algorithm.hex_length or not re.fullmatch("[0-9a-f]+", response):
        raise _bad(f"response is {algorithm.hex_length} hexadecimal digits for {algorithm}")
    return DigestCredentials(
        user=_user(parameters),
        realm=_utf8(parameters["realm"]),
        nonce=parameters["nonce"],
        uri=parameters["uri"],
        algorithm=algorithm,
        nonce_count=int(parameters["nc"], 16),
        cnonce=_utf8(parameters["cnonce"]),
        response=response,
        opaque=parameters.get("opaque"),
    )


def render_credentials(credentials: DigestCredentials) -> str:
    """The value of Authorization. A user name beyond ASCII is sent as username* (RFC 7616 section 3.4)."""
    if credentials.user.isascii():
        user = f"username={quote(credentials.user)}"
    else:
        user = f"username*=UTF-8''{percent_encoded(credentials.user, safe='')}"
    parts = [
        user,
        f"realm={quote(credentials.realm)}",
        f"uri={quote(credentials.uri)}",
        f"algorithm={credentials.algorithm}",
        f"nonce={quote(credentials.nonce)}",
        f"nc={credentials.nonce_count:08x}",
        f"cnonce={quote(credentials.cnonce)}",
        f"qop={QOP}",
        f"response={quote(credentials.response)}",
    ]
    if credentials.opaque is not None:
        parts.append(f"opaque={quote(credentials.opaque)}")
    return f"Digest {', '.join(parts)}"


def render_challenge(
    algorithm: DigestAlgorithm, *, realm: str, nonce: str, opaque: str, stale: bool = False, all_quoted: bool = False
) -> str:
    """The value of one WWW-Authenticate (RFC 7616 section 3.3).

    `all_quoted`, against that section: a quoted algorithm, and neither charset nor stale, for Bouncy Castle 1.84 reads nothing else.
    """
    parts = [f"realm={quote(realm)}", f"qop={quote(QOP)}", f"algorithm={quote(algorithm) if all_quoted else algorithm}"]
    parts += [f"nonce={quote(nonce)}", f"opaque={quote(opaque)}"]
    if not all_quoted:
        parts += ["charset=UTF-8", *(["stale=true"] if stale else [])]
    return f"Digest {', '.join(parts)}"


def make_nonce(key: bytes, *, realm: str, now: datetime, random_octets: bytes) -> str:
    """A nonce for one realm: the time and 8 random octets under HMAC-SHA256, so no server has to remember it (RFC 7616 section 3.3)."""
    head = ((now - _EPOCH) // timedelta(milliseconds=1)).to_bytes(_TIME_OCTETS, "big") + random_octets
    return base64.urlsafe_b64encode(head + _mac(key, "nonce", head, realm)).decode()


def nonce_time(key: bytes, nonce: str, *, realm: str) -> datetime | None:
    """When this nonce was made; None where nobody with the key made it for this realm."""
    if not _NONCE.fullmatch(nonce):
        return None
    octets = base64.urlsafe_b64decode(nonce)
    head, mac = octets[:-_MAC_OCTETS], octets[-_MAC_OCTETS:]
    if not hmac.compare_digest(mac, _mac(key, "nonce", head, realm)):
        return None
    return _EPOCH + timedelta(milliseconds=int.from_bytes(head[:_TIME_OCTETS], "big"))


def make_opaque(key: bytes, *, realm: str) -> str:
    """What a client sends back unchanged."""
    return base64.urlsafe_b64encode(_mac(key, "opaque", b"", realm)[:12]).decode()


def _mac(key: bytes, purpose: str, head: bytes, realm: str) -> bytes:
    return hmac.digest(key, purpose.encode() + b"\0" + head + b"\0" + realm.encode(), "sha256")[:_MAC_OCTETS]


def _algorithm(name: str) -> DigestAlgorithm:
    for algorithm in DigestAlgorithm:
        if name.upper() == algorithm.value:
            return algorithm
    raise _bad(f"algorithm is {' or '.join(DigestAlgorithm)} at this server")


def _user(parameters: dict[str, str]) -> str:
    plain, extended = parameters.get("username"), parameters.get("username*")
    if (plain is None) == (extended is None):
        raise _bad("exactly one of username and username* is needed")
    if plain is not None:
        user = _utf8(plain)
    else:
        charset, _, encoded = (extended or "").partition("''")
        if charset.upper() != "UTF-8":
            raise _bad("username* is UTF-8'' and the name percent-encoded (RFC 8187 section 3.2)")
        user = _utf8(unquote_to_bytes(encoded).decode("latin-1"))
    if ":" in user or _CONTROL.search(user):
        raise _bad("a user name holds no colon and no control character")
    return user


def _utf8(value: str) -> str:
    """Text that came in a header: its octets are UTF-8, as the challenge asks for."""
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:
        raise _bad("a value is not UTF-8") from None


def _bad(what: str) -> BadHeader:
    return BadHeader(f"Authorization: Digest: {what}")
