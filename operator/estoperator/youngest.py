"""Which object a name stands for, where kopf's index holds more than one.

Of an end that falls into a gap of its watch kopf tells nothing: it lists again, and keeps what is not in the list beside what is. The
re-list finds that (`relist`); until then what came last counts.
"""

from collections.abc import Iterable
from typing import TypeVar

V = TypeVar("V")


def youngest(values: Iterable[V]) -> V | None:
    """The last of the values of one key, in the order in which they came; None where there is none."""
    last = None
    for last in values:  # noqa: B007  # its Store cannot be read from the end
        pass
    return last
