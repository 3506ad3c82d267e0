"""Values of the path that every enrolment takes: frozen for the type checker, and mutable at run time, which costs less.

A frozen dataclass sets each field by a call of `object.__setattr__`. Of the eight values that one enrolment makes, these calls were 6 % of
its CPU (bench/run.py on kept connections). To mypy they are frozen dataclasses like any other; slots, equality, hash and repr are theirs
too. What has to stay as it was made, whoever holds it, is frozen at run time: `registration.Authorized`.
"""

from typing import TYPE_CHECKING

__all__ = ["value"]

if TYPE_CHECKING:
    from dataclasses import dataclass as value
else:
    from dataclasses import dataclass

    def value(*, frozen, slots, kw_only):
        """Class decorator: as `dataclass(frozen=True, …)`."""
        return dataclass(unsafe_hash=frozen, slots=slots, kw_only=kw_only)
