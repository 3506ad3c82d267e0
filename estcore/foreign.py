"""Calls into the library beneath on octets that somebody else sent.

What `cryptography` raises on fuzzed certificates and CSRs is not a closed set: ValueError, TypeError, KeyError, OverflowError,
UnsupportedAlgorithm, InvalidVersion, DuplicateExtension, UnsupportedGeneralNameType and, with warnings as errors, warnings have been seen,
some at parsing and some only when a property is read. So this one function lists none of them.
"""

from collections.abc import Callable
from typing import TypeVar

from estcore.errors import EstError

_T = TypeVar("_T")


def foreign(read: Callable[[], _T], fault: Callable[[], EstError]) -> _T:
    """Return what `read` returns; where it raises anything, raise what `fault` makes, with the cause.

    `read` calls the library and nothing of ours.
    """
    try:
        return read()
    except Exception as error:
        raise fault() from error
