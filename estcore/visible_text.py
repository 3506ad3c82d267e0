"""Text that people read and machines compare: what cannot be seen, or could be written in two ways, is refused or escaped."""

import re
import unicodedata
from typing import Final

from estcore.errors import BadCsr

MAX_DESCRIPTION_CHARACTERS: Final = 256

_UNSEEN = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")
"""Default_Ignorable_Code_Point (Unicode, DerivedCoreProperties) of categories that count as printable: fillers, variation selectors. No
text for machines has them (RFC 8264 section 9.13)."""


def check_text(text: str, what: str) -> None:
    """Check a text of one character at least: what a person reads is what is there. Raises BadCsr, where `what` names it."""
    if text[0] == " " or text[-1] == " ":
        raise BadCsr(f"{what} begins or ends with a space")
    if text.isascii() and text.isprintable():
        return
    # str.isprintable is false for every control, format (bidi, zero width), surrogate, private and unassigned character, and for every
    # space and line separator but U+0020: what a person reads is what is there.
    if not _is_visible(text):
        raise BadCsr(f"{what} holds a control, bidi or other character that cannot be seen")
    if not unicodedata.is_normalized("NFC", text):
        raise BadCsr(f"{what} is not in Unicode normalization form C")
    if unicodedata.combining(text[0]):
        raise BadCsr(f"{what} begins with a combining character")


def shown(text: str) -> str:
    """A text for people and logs: what cannot be seen escaped, at most 256 characters."""
    escaped = text if _is_visible(text) else ascii(text)[1:-1]
    return escaped if len(escaped) <= MAX_DESCRIPTION_CHARACTERS else escaped[: MAX_DESCRIPTION_CHARACTERS - 1] + "…"


def printable(text: str, *, instead: str = " ") -> str:
    """The text with `instead` for each character that is not printable: what a person is shown must not steer the terminal."""
    return "".join(character if character.isprintable() else instead for character in text)


def escaped(text: str) -> str:
    """The text with each character that is not printable escaped, so that it can be told what was there."""
    return text if text.isprintable() else "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def _is_visible(text: str) -> bool:
    return text.isprintable() and (text.isascii() or _UNSEEN.search(text) is None)
