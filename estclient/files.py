"""Reading and writing the client's files: bounded, atomic, in the order of the calls, and private where a key is in them."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from estcore.errors import ConfigurationError

MAX_OCTETS = 1024 * 1024


def read(path: Path, *, what: str) -> bytes:
    """The contents of a file of at most 1 MiB; raises ConfigurationError that names `what` it should have been."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_OCTETS + 1)
    except OSError as error:
        raise ConfigurationError(f"the {what} cannot be read: {error.strerror}", where=str(path)) from error
    if len(data) > MAX_OCTETS:
        raise ConfigurationError(f"the {what} is longer than {MAX_OCTETS} octets", where=str(path))
    return data


def read_line(path: Path, *, what: str) -> str:
    """The first line of a file, without its end; for a password or a token."""
    try:
        text = read(path, what=what).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"the {what} is not UTF-8", where=str(path)) from error
    return text.split("\n", 1)[0].rstrip("\r")


def write(path: Path, data: bytes, *, private: bool = False) -> None:
    """Put `data` into a file so that a reader, or a crash, finds the old contents or the new, never a part.

    Mode 0600 where `private`, else 0644. Raises ConfigurationError where the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # made with mode 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                os.fchmod(file.fileno(), 0o600 if private else 0o644)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)
            _keep_order(path.parent)
        except BaseException:
            with suppress(FileNotFoundError):
                Path(temporary).unlink()
            raise
    except OSError as error:
        raise ConfigurationError(f"cannot be written: {error.strerror}", where=str(path)) from error


def remove(path: Path) -> None:
    """Take a file away, if it is there; raises ConfigurationError."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigurationError(f"cannot be removed: {error.strerror}", where=str(path)) from error


def _keep_order(folder: Path) -> None:
    """What is written next is not on disk before what was written last, where the file system can say so."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
