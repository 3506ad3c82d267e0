"""Passwords of HTTP Basic: what a Secret holds, and the check that costs the same whoever asks.

Two kinds of Secret: kubernetes.io/basic-auth (`username`, `password`) and any with an htpasswd file under `auth`, whose hashes are
bcrypt. Other hashes are refused when they are loaded: MD5 and SHA-1 are too fast to guess, crypt(3) is not in every Python.
An unknown user is checked against the entry of some known user, always the same one for the same name, and then refused: so
neither time nor text tells who exists. Source: RFC 7617; threats of user enumeration as in OpenBao CVE-2025-54999.
"""

import asyncio
import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, TypeVar
from weakref import WeakKeyDictionary

import bcrypt
from cachetools import TTLCache

from estcore.errors import Busy, ConfigurationError, Unauthenticated
from estserver import user_lines
from estserver.snapshot import TYPE_BASIC_AUTH, SecretManifest
from estserver.user_lines import MAX_USERS, UserLine

MAX_BCRYPT_COST = 14
"""About a second of CPU; 31 would be two days."""
BCRYPT_OCTETS = 72
"""bcrypt reads no further, and neither does htpasswd when it makes a hash."""
REMEMBERED_FOR: Final = timedelta(seconds=5)
REMEMBERED: Final = 1024
"""Users of one issuer whose right password is remembered at once."""

T = TypeVar("T")

_BCRYPT = re.compile(
    rb"\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}"
)  # 16 octets of salt leave 4 bits of the 22nd character at zero


@dataclass(frozen=True, slots=True)
class _Plain:
    """SHA-256 of a password that the Secret holds as it is: digests have one length, so comparing tells nothing."""

    digest: bytes = field(repr=False)

    def matches(self, password: bytes) -> bool:
        return hmac.compare_digest(self.digest, hashlib.sha256(password).digest())


@dataclass(frozen=True, slots=True)
class Bcrypt:
    """A salted, slow hash."""

    hashed: bytes = field(repr=False)

    def matches(self, password: bytes) -> bool:
        """Whether it is the hash of this password; costs what the hash says."""
        return bcrypt.checkpw(password[:BCRYPT_OCTETS], self.hashed)


_Entry = _Plain | Bcrypt


class Passwords:
    """All users of one issuer, each from one Secret; immutable, holds at least one."""

    def __init__(self, entries: Mapping[str, _Entry], secrets_of_users: Mapping[str, str]) -> None:
        if not entries:
            raise ConfigurationError("it holds no user", reason="SecretInvalidData")
        self._entries = dict(entries)
        self._secrets_of_users = dict(secrets_of_users)
        self._stand_ins = tuple(self._entries.values())
        self._key = secrets.token_bytes(32)

    def __len__(self) -> int:
        return len(self._entries)

    def is_slow(self, user: str) -> bool:
        """Whether `check` costs so much CPU that it must not run on the event loop; equally often for unknown users."""
        return isinstance(self._entry(user)[0], Bcrypt)

    def check(self, user: str, password: str) -> None:
        """Raises Unauthenticated, with the same text and after the same work for an unknown user and for a wrong password."""
        entry, known = self._entry(user)
        matches = entry.matches(password.encode())
        if not (known and matches):
            raise Unauthenticated("the user or the password is wrong", reason="WrongPassword")

    def secret_of(self, user: str) -> str:
        """Name of the Secret that a user whose password was right is in."""
        return self._secrets_of_users[user]

    def _entry(self, user: str) -> tuple[_Entry, bool]:
        entry = self._entries.get(user)
        number = int.from_bytes(hmac.digest(self._key, user.encode(), "sha256")[:8], "big")
        stand_in = self._stand_ins[number % len(self._stand_ins)]
        return (stand_in, False) if entry is None else (entry, True)


def load(sources: Sequence[SecretManifest]) -> Passwords:
    """Passwords of all the Secrets that an issuer names under `basic`.

    Raises ConfigurationError that names the Secret and the line, never a hash: an unusable line would be a user locked out in silence.
    """
    entries: dict[str, _Entry] = {}
    secrets_of_users: dict[str, str] = {}
    for secret in sources:
        where = f"Secret {secret.namespace}/{secret.name}"
        read = _read_basic_auth if secret.type == TYPE_BASIC_AUTH else _read_htpasswd
        for user, entry, field_name in read(secret):
            if user in entries:
                raise user_lines.invalid(f"the user {user!r} is there twice", where, field_name)
            entries[user], secrets_of_users[user] = entry, secret.name
            if len(entries) > MAX_USERS:
                raise user_lines.invalid(f"more than {MAX_USERS} users", where, field_name)
    return Passwords(entries, secrets_of_users)


def _read_basic_auth(secret: SecretManifest) -> Iterator[tuple[str, _Entry, str]]:
    where = f"Secret {secret.namespace}/{secret.name}"
    user, password = (
        user_lines.text(user_lines.without_line_end(secret.data.get(member, b"")), where, member) for member in ("username", "password")
    )
    user_lines.check_user(user, where, "username")
    if not password:
        raise user_lines.invalid("it is missing or empty", where, "password")
    if user_lines.has_control(password):
        raise user_lines.invalid("it holds a control character, which HTTP Basic cannot carry", where, "password")
    yield user, _Plain(hashlib.sha256(password.encode()).digest()), "username"


def _read_htpasswd(secret: SecretManifest) -> Iterator[tuple[str, _Entry, str]]:
    absent = "it is missing; put an htpasswd file there, or use a Secret of type kubernetes.io/basic-auth"
    for line in user_lines.read(secret, "auth", absent=absent, form="user:hash"):
        yield line.user, read_bcrypt(line), line.field_name


def read_bcrypt(line: UserLine) -> Bcrypt:
    """The bcrypt hash of a line `user:hash`; raises ConfigurationError."""
    hashed = line.rest.encode()
    match = _BCRYPT.fullmatch(hashed)
    if match is None:
        raise line.invalid(f"the hash of user {line.user!r} is not bcrypt; make it with: htpasswd -B")
    cost = int(match[1])
    if not 4 <= cost <= MAX_BCRYPT_COST:
        raise line.invalid(f"the bcrypt cost of user {line.user!r} is {cost}; choose 4 to {MAX_BCRYPT_COST} (htpasswd -B -C)")
    return Bcrypt(hashed)


class PasswordChecker:
    """Runs slow checks in a bounded pool: `threads` at once, `waiting` more in line, the next one is told to come back.

    A password that was right is remembered for five seconds, by an HMAC under a key of this process, and requests that bring the same
    one at once share a check: a fleet that comes back after an outage costs one slow hash a user, not one a request. What is remembered
    belongs to the `Passwords` it was checked against, so a Secret that changes is a new page. Wrong ones are never remembered.
    """

    def __init__(self, *, threads: int = 2, waiting: int = 32, timer: Callable[[], float] = time.monotonic) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="passwords")
        self._room = threads + waiting
        self._timer = timer
        self._key = secrets.token_bytes(32)
        self._recent: WeakKeyDictionary[Passwords, TTLCache[bytes, None]] = WeakKeyDictionary()
        self._running: dict[tuple[int, bytes], asyncio.Task[None]] = {}

    async def check(self, passwords: Passwords, user: str, password: str) -> None:
        """As Passwords.check, off the event loop where it is slow. Raises Busy where the line is full."""
        if not passwords.is_slow(user):
            passwords.check(user, password)
            return
        recent = self._recent.get(passwords)
        if recent is None:
            recent = self._recent[passwords] = TTLCache(REMEMBERED, REMEMBERED_FOR.total_seconds(), timer=self._timer)
        key = hmac.digest(self._key, f"{len(user)}:{user}{password}".encode(), "sha256")
        if key in recent:
            return
        await self._once((id(passwords), key), lambda: passwords.check(user, password))
        recent[key] = None

    async def run(self, work: Callable[[], T]) -> T:
        """Do slow work in the pool. Raises Busy where the line is full, and what `work` raises."""
        if self._room == 0:
            raise Busy("too many passwords are being checked; try again")
        self._room -= 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self._room += 1

    async def _once(self, key: tuple[int, bytes], work: Callable[[], None]) -> None:
        running = self._running.get(key)
        if running is None:
            if self._room == 0:
                raise Busy("too many passwords are being checked; try again")
            running = self._running[key] = asyncio.create_task(self.run(work), name="password")
            running.add_done_callback(lambda done: self._done(key, done))
        await asyncio.shield(running)  # a request that goes away takes no other's check along

    def _done(self, key: tuple[int, bytes], done: asyncio.Task[None]) -> None:
        self._running.pop(key, None)
        if not done.cancelled():
            done.exception()  # whoever waited has it; where nobody did any more, it is nobody's

    def close(self) -> None:
        """End the threads; what is in line is dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)
