"""Secrets that prove identity in Full PKI Requests: each entry of a Secret is one, its name what id-cmc-identification says.

Source: RFC 5272 sections 6.2 and 6.3.
"""

from collections.abc import Mapping, Sequence

from estcore.errors import ConfigurationError
from estserver import user_lines
from estserver.snapshot import SecretManifest

MIN_SHARED_SECRET_OCTETS = 16
"""RFC 5272 section 6.2.1: both sides support 16 characters at least. Whoever sees a request can try shorter ones against its proof."""
MAX_SHARED_SECRET_OCTETS = 1024


class SharedSecrets:
    """All shared secrets of one issuer; immutable, holds at least one."""

    def __init__(self, entries: Mapping[str, bytes]) -> None:
        if not entries:
            raise ConfigurationError("it holds no entry", reason="SecretInvalidData")
        self._entries = dict(entries)

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, name: str) -> bytes | None:
        """The secret of this name; None where there is none. Checking costs the same if a random one takes its place."""
        return self._entries.get(name)


def load(sources: Sequence[SecretManifest]) -> SharedSecrets:
    """All entries of the Secrets that an issuer names under `cmcSharedSecret`; a line end at an entry's end does not count.

    Raises ConfigurationError that names Secret and entry.
    """
    entries: dict[str, bytes] = {}
    for secret in sources:
        where = f"Secret {secret.namespace}/{secret.name}"
        for name, value in secret.data.items():
            octets = user_lines.without_line_end(value)
            if not MIN_SHARED_SECRET_OCTETS <= len(octets) <= MAX_SHARED_SECRET_OCTETS:
                raise user_lines.invalid(
                    f"a shared secret has {MIN_SHARED_SECRET_OCTETS} to {MAX_SHARED_SECRET_OCTETS} octets",
                    where,
                    name,
                )
            if name in entries:
                raise user_lines.invalid("an entry of this name is in another Secret of this issuer too", where, name)
            entries[name] = octets
    return SharedSecrets(entries)
