"""One-time passwords: what a Secret holds, and whose one is (RFC 7894 section 3.1: the password comes in the CSR, with no user name).

Lines `user:hash` under `otp`. Two kinds of hash:

* `sha256:` and the hex of SHA-256 of the password: for passwords that a machine made, of 128 random bits or more. Such a password is
  found by its hash, so a user may have any number of them and the CSR may have any name;
* bcrypt, for passwords that people type: good for the user whose name is the CSR's commonName, for trying every line would cost a slow
  hash each. One a user.

That a password is good for one certificate is the ledger's to hold: `single_use` names the certificate's transaction there.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from estcore.errors import ConfigurationError, Unauthenticated
from estserver import user_lines
from estserver.passwords import Bcrypt, read_bcrypt
from estserver.snapshot import SecretManifest
from estserver.user_lines import MAX_USERS, UserLine

_SHA256 = re.compile("sha256:([0-9a-fA-F]{64})")
_FORM = "user:hash"


@dataclass(frozen=True, slots=True, kw_only=True)
class OneTimePassword:
    """Whose it is, the name of the Secret it is in, and what names the one certificate that it is good for."""

    user: str
    secret_name: str
    single_use: str


class OneTimePasswords:
    """All one-time passwords of one issuer; immutable, holds at least one."""

    def __init__(self, by_hash: Mapping[str, OneTimePassword], by_user: Mapping[str, tuple[Bcrypt, OneTimePassword]]) -> None:
        if not by_hash and not by_user:
            raise ConfigurationError("it holds no one-time password", reason="SecretInvalidData")
        self._by_hash = dict(by_hash)
        self._by_user = dict(by_user)
        self._stand_ins = tuple(bcrypt for bcrypt, _ in by_user.values())
        self._key = secrets.token_bytes(32)

    def __len__(self) -> int:
        return len(self._by_hash) + len(self._by_user)

    def is_slow(self, password: str) -> bool:
        """Whether `check` costs so much CPU that it must not run on the event loop."""
        return bool(self._by_user) and _sha256(password) not in self._by_hash

    def check(self, password: str, *, common_name: str | None) -> OneTimePassword:
        """Whose password it is. Raises Unauthenticated, with the same text and after the same work whoever is named."""
        found = self._by_hash.get(_sha256(password))
        if found is not None:
            return found
        if self._by_user:
            user = common_name if common_name is not None else ""
            number = int.from_bytes(hmac.digest(self._key, user.encode(), "sha256")[:8], "big")
            hashed, entry = self._by_user.get(user, (self._stand_ins[number % len(self._stand_ins)], None))
            if hashed.matches(password.encode()) and entry is not None and common_name is not None:
                return entry
        raise Unauthenticated("the one-time password is wrong, or is not for this commonName", reason="WrongPassword")


def load(sources: Sequence[SecretManifest]) -> OneTimePasswords:
    """The passwords of all the Secrets that an issuer names under `oneTimePassword`.

    Raises ConfigurationError that names the Secret and the line, never a hash.
    """
    by_hash: dict[str, OneTimePassword] = {}
    by_user: dict[str, tuple[Bcrypt, OneTimePassword]] = {}
    for secret in sources:
        for line in user_lines.read(secret, "otp", absent=f"it is missing; put lines {_FORM} there", form=_FORM):
            entry = OneTimePassword(user=line.user, secret_name=secret.name, single_use=_name(line))
            match = _SHA256.fullmatch(line.rest)
            if match is not None:
                if by_hash.setdefault(match[1].lower(), entry) is not entry:
                    raise line.invalid("the same password is there twice")
            elif line.rest.startswith("sha256:"):
                raise line.invalid("behind sha256: stand 64 hexadecimal digits, the SHA-256 of the password")
            elif by_user.setdefault(line.user, (read_bcrypt(line), entry))[1] is not entry:
                raise line.invalid(f"the user {line.user!r} has two bcrypt passwords; leave one, or use sha256: for random ones")
            if len(by_hash) + len(by_user) > MAX_USERS:
                raise line.invalid(f"more than {MAX_USERS} one-time passwords")
    return OneTimePasswords(by_hash, by_user)


def _sha256(password: str) -> str:
    return hashlib.sha256(password.encode()).hexdigest()


def _name(line: UserLine) -> str:
    """A line that is written anew, with another salt or password, is another password."""
    return f"otp:{hashlib.sha256(f'{line.user}:{line.rest}'.encode()).hexdigest()}"
