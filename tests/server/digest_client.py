"""Answers challenges of HTTP Digest, by the formula of RFC 7616 section 3.4 written out: not by the product's own code."""

import hashlib
from collections.abc import Sequence

from estcore.http_authentication import parse_challenges
from estserver.snapshot import SecretManifest
from tests.server.app_fixtures import secret

ALGORITHMS = {"SHA-256": hashlib.sha256, "MD5": hashlib.md5}
TARGET = "/.well-known/est/factory/simpleenroll"


def h(algorithm: str, text: str) -> str:
    return ALGORITHMS[algorithm](text.encode()).hexdigest()


def line(user: str, password: str, *, realm: str = "factory", algorithm: str = "SHA-256") -> str:
    """A line of the Secret."""
    return f"{user}:{realm}:{algorithm}:{h(algorithm, f'{user}:{realm}:{password}')}"


def digests(*lines: str, name: str = "digests") -> SecretManifest:
    return secret(name, {"digest": "\n".join(lines).encode()})


def offered(challenges: Sequence[str], algorithm: str = "SHA-256") -> dict[str, str]:
    """The parameters of the challenge for an algorithm."""
    (found,) = [
        dict(challenge.parameters) for challenge in parse_challenges(challenges) if challenge.parameters.get("algorithm") == algorithm
    ]
    return found


def respond(
    challenge: dict[str, str],
    user: str,
    password: str,
    *,
    nc: str = "00000001",
    method: str = "POST",
    uri: str = TARGET,
    cnonce: str = "MDAwMQ",
    **other: str | None,
) -> str:
    """The value of Authorization; `other` replaces a parameter after the response was computed, None leaves it out."""
    algorithm, realm, nonce = challenge["algorithm"], challenge["realm"], challenge["nonce"]
    a1, a2 = h(algorithm, f"{user}:{realm}:{password}"), h(algorithm, f"{method}:{uri}")
    parameters: dict[str, str | None] = {
        "username": f'"{user}"',
        "realm": f'"{realm}"',
        "uri": f'"{uri}"',
        "algorithm": algorithm,
        "nonce": f'"{nonce}"',
        "nc": nc,
        "cnonce": f'"{cnonce}"',
        "qop": "auth",
        "response": f'"{h(algorithm, f"{a1}:{nonce}:{nc}:{cnonce}:auth:{a2}")}"',
        "opaque": f'"{challenge["opaque"]}"',
        **other,
    }
    return "Digest " + ", ".join(f"{name}={value}" for name, value in parameters.items() if value is not None)
