"""Users of HTTP Digest: lines `user:realm:algorithm:HA1` under `digest` of a Secret, HA1 in hex (RFC 7616 section 3.4.2).

The realm is the label that a client asks at. Whoever has HA1 can answer challenges of that realm, so the Secret is worth as much as
passwords are. A client picks the algorithm, so a user who has lines for several may use any of them that the issuer offers.
"""

import hmac
import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from estcore.digest_authentication import DigestAlgorithm, DigestCredentials
from estcore.errors import ConfigurationError
from estserver import user_lines
from estserver.snapshot import SecretManifest
from estserver.user_lines import MAX_USERS, UserLine

MAX_ALGORITHMS_A_USER = len(DigestAlgorithm)
MAX_LINES = MAX_USERS * MAX_ALGORITHMS_A_USER

_HEX = re.compile("[0-9a-fA-F]+")
_FORM = "user:realm:algorithm:HA1"

_Key = tuple[str, str, DigestAlgorithm]
"""User, realm, algorithm."""


@dataclass(frozen=True, slots=True)
class Known:
    """One line: HA1 in lower-case hex, and the name of the Secret that it is in."""

    ha1: str = field(repr=False)
    secret_name: str
    place: str


class Digests:
    """All Digest users of one issuer; immutable, holds at least one."""

    def __init__(self, entries: Mapping[_Key, Known]) -> None:
        if not entries:
            raise ConfigurationError("it holds no user", reason="SecretInvalidData")
        self._entries = dict(entries)
        self._key = secrets.token_bytes(32)

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, credentials: DigestCredentials, *, secret_names: Collection[str]) -> tuple[str, str | None]:
        """HA1 to check the credentials by, and the name of the Secret it is in, one of `secret_names`.

        For a user who is not there: None, and an HA1 that nobody has, so that the check costs the same.
        """
        known = self._entries.get((credentials.user, credentials.realm, credentials.algorithm))
        nobodys = hmac.new(self._key, credentials.user.encode(), "sha256").hexdigest()[: credentials.algorithm.hex_length]
        if known is None or known.secret_name not in secret_names:
            return nobodys, None
        return known.ha1, known.secret_name

    def unusable(self, *, labels: Collection[str], md5: bool) -> str:
        """One sentence about lines that let nobody in: a realm that is no label of the issuer, MD5 where it is off; empty where none is."""
        for (_, realm, algorithm), known in self._entries.items():
            if realm not in labels:
                return (
                    f"{known.place}: the realm {realm[:64]!r} is no label of this issuer ({', '.join(labels)}), so the line lets nobody in"
                )
            if algorithm is DigestAlgorithm.MD5 and not md5:
                return f"{known.place}: MD5 is off for this issuer (digest.md5), so the line lets nobody in"
        return ""


def load(sources: Sequence[SecretManifest]) -> Digests:
    """Users of all the Secrets that an issuer names under `digest`. Raises ConfigurationError that names Secret and line, never an HA1."""
    entries: dict[_Key, Known] = {}
    for secret in sources:
        for line in user_lines.read(secret, "digest", absent=f"it is missing; put lines {_FORM} there", form=_FORM):
            key, ha1 = _read(line)
            if key in entries:
                raise line.invalid(f"the user {line.user!r} is there twice for this realm and algorithm")
            entries[key] = Known(ha1, secret.name, f"{line.where}: {line.field_name}")
            if len(entries) > MAX_LINES:
                raise line.invalid(f"more than {MAX_LINES} lines")
    return Digests(entries)


def _read(line: UserLine) -> tuple[_Key, str]:
    """A realm may hold colons, as labels do: algorithm and HA1 are the last two parts."""
    parts = line.rest.rsplit(":", 2)
    if len(parts) != 3 or not parts[0]:
        raise line.invalid(f"it is not {_FORM}")
    realm, name, ha1 = parts
    algorithm = next((one for one in DigestAlgorithm if one.value == name.upper()), None)
    if algorithm is None:
        raise line.invalid(f"the algorithm is {' or '.join(DigestAlgorithm)}")
    if len(ha1) != algorithm.hex_length or not _HEX.fullmatch(ha1):
        raise line.invalid(
            f"HA1 of {algorithm} is {algorithm.hex_length} hexadecimal digits: the hash of user:realm:password (RFC 7616 section 3.4.2)"
        )
    return (line.user, realm, algorithm), ha1.lower()
