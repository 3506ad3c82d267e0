"""What a client authenticates with: a name and password, a bearer token, a TLS client certificate, or a certificate and a password.

A password for Basic or a token leaves only on a connection whose server was verified, and at once, without waiting for a challenge: the
server is known by then (RFC 7030 section 3.2.3). A password for Digest never leaves. Nothing here is shown in a repr.
"""

import base64
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field

from estcore.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class Basic:
    """HTTP Basic (RFC 7617). `user` may be empty where a password has no user name (RFC 7030 section 3.2.3)."""

    user: str
    password: str = field(repr=False)

    def __post_init__(self) -> None:
        _check(self.user, self.password)

    def header(self) -> str:
        """The value of Authorization, in UTF-8 (RFC 7617 section 2.1)."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode("ascii")


@dataclass(frozen=True, slots=True, kw_only=True)
class Digest:
    """HTTP Digest (RFC 7616): the server's challenge is waited for, and answered with SHA-256 or, where it offers nothing better, MD5."""

    user: str
    password: str = field(repr=False)

    def __post_init__(self) -> None:
        _check(self.user, self.password)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bearer:
    """A bearer token, such as a Kubernetes ServiceAccount token (RFC 6750).

    `token` is called for each request, because a projected token is replaced while the process runs.
    """

    token: Callable[[], str] = field(repr=False)

    def header(self) -> str:
        """The value of Authorization; raises ConfigurationError where the token is empty or cannot stand in a header."""
        token = self.token().strip()
        if not token or not token.isascii() or not token.isprintable() or " " in token:
            raise ConfigurationError(
                "the bearer token is empty or holds characters that no token has (RFC 6750 section 2.1)", field="token"
            )
        return f"Bearer {token}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCertificate:
    """A TLS client certificate: `chain_pem` leaf first, then its intermediates; `key_pem` the leaf's key, not encrypted."""

    chain_pem: bytes = field(repr=False)
    key_pem: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateAndPassword:
    """Both, for an issuer that asks for both (RFC 7030 section 3.2.3)."""

    certificate: ClientCertificate
    password: Basic | Digest


Credentials = Basic | Digest | Bearer | ClientCertificate | CertificateAndPassword


def _check(user: str, password: str) -> None:
    if ":" in user:
        raise ConfigurationError("a user name cannot hold a colon (RFC 7617 section 2)", field="user")
    if any(unicodedata.category(character) == "Cc" for character in user + password):
        raise ConfigurationError("user name and password cannot hold control characters (RFC 7617 section 2)", field="password")
