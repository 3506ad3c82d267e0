"""The passphrase by which the holder of a certificate may revoke it without its key: what the ledger keeps of it.

RFC 7894 section 3.2 (revocationChallenge in the CSR), RFC 5272 section 6.11 (passphrase in revokeRequest). Hashed by scrypt with a salt of
its own, in a thread and few at a time, for people choose passphrases.
"""

import asyncio
import hashlib
import hmac
import secrets
from typing import Final

from estcore.errors import Busy

_COST: Final = 1 << 13
_BLOCK: Final = 8
"""About 20 ms and 8 MiB each."""
_SALT_OCTETS: Final = 16
_HASH_OCTETS: Final = 32
MAX_AT_A_TIME: Final = 2
MAX_PASSPHRASE_OCTETS: Final = 1024

_running = asyncio.Semaphore(MAX_AT_A_TIME)


async def hash_passphrase(text: str) -> str:
    """What to keep of a passphrase: salt and hash in hex."""
    salt = secrets.token_bytes(_SALT_OCTETS)
    return f"{salt.hex()}:{(await _scrypt(text.encode(), salt)).hex()}"


async def matches(kept: str | None, passphrase: bytes) -> bool:
    """Whether this is the passphrase; the same work where none was kept. Raises Busy where too many are being checked."""
    if len(passphrase) > MAX_PASSPHRASE_OCTETS:
        return False
    if _running.locked():
        raise Busy("too many passphrases are being checked; try again")
    salt, _, expected = (kept or "00:").partition(":")
    found = await _scrypt(passphrase, bytes.fromhex(salt))
    return hmac.compare_digest(found.hex(), expected)


async def _scrypt(passphrase: bytes, salt: bytes) -> bytes:
    async with _running:
        return await asyncio.to_thread(hashlib.scrypt, passphrase, salt=salt, n=_COST, r=_BLOCK, p=1, dklen=_HASH_OCTETS)
