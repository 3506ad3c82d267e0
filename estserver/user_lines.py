"""Lines of users in a member of a Secret, `user:…`, as htpasswd files have them: what passwords, digests and one-time passwords share.

An unusable line is an error that names Secret, member and line and never repeats what stands behind the colon: left out, it would be a
user locked out in silence.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from estcore.errors import ConfigurationError
from estserver.snapshot import SecretManifest

MAX_USERS = 10_000

_CONTROL = re.compile("[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True, kw_only=True)
class UserLine:
    """One line: the user, what stands behind the first colon, and where the line is."""

    user: str
    rest: str = field(repr=False)
    where: str
    field_name: str

    def invalid(self, message: str) -> ConfigurationError:
        """The error to raise for this line."""
        return invalid(message, self.where, self.field_name)


def read(secret: SecretManifest, member: str, *, absent: str, form: str) -> Iterator[UserLine]:
    """The lines of `member` but blank ones and comments (`#`). `absent`: what to say where it is missing; `form`: what a line is.

    Raises ConfigurationError.
    """
    where = f"Secret {secret.namespace}/{secret.name}"
    if member not in secret.data:
        raise invalid(absent, where, member)
    for number, line in enumerate(text(secret.data[member], where, member).splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        field_name = f"{member} line {number}"
        user, colon, rest = line.rstrip().partition(":")
        if not colon:
            raise invalid(f"it is not {form}", where, field_name)
        check_user(user, where, field_name)
        yield UserLine(user=user, rest=rest, where=where, field_name=field_name)


def check_user(user: str, where: str, field_name: str) -> None:
    """Raise ConfigurationError for a name that no client could send."""
    if ":" in user or _CONTROL.search(user):
        raise invalid("a user name holds no colon and no control character (RFC 7617 section 2)", where, field_name)


def has_control(value: str) -> bool:
    """Whether text holds a control character, which no header can carry."""
    return _CONTROL.search(value) is not None


def text(value: bytes, where: str, field_name: str) -> str:
    """UTF-8 text; raises ConfigurationError."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise invalid("it is not UTF-8", where, field_name) from None


def without_line_end(value: bytes) -> bytes:
    """`echo` and editors leave a line end that no client could ever send."""
    return value.removesuffix(b"\n").removesuffix(b"\r")


def invalid(message: str, where: str, field_name: str) -> ConfigurationError:
    """A Secret that cannot be used as it is."""
    return ConfigurationError(message, where=where, field=field_name, reason="SecretInvalidData")
