"""Text that people read and machines compare: what cannot be seen, or could be written in two ways, is refused or escaped."""

import unicodedata
from typing import Final

from estcore.errors import BadCsr

MAX_DESCRIPTION_CHARACTERS: Final = 256


def check_text(text: str, what: str) -> None:
    """Check a text of one character at least: what a person reads is what is there. Raises BadCsr, where `what` names it."""
    if text[0] == " " or text[-1] == " ":
        raise BadCsr(f"{what} begins or ends with a space")
    if text.isascii() and text.isprintable():
        return
    # str.isprintable is false for every control, format (bidi, zero width), surrogate, private and unassigned character, and for every
    # space and line separator but U+0020: what a person reads is what is there.
    if not text.isprintable():
        raise BadCsr(f"{what} holds a control, bidi or other character that cannot be seen")
    if not unicodedata.is_normalized("NFC", text):
        raise BadCsr(f"{what} is not in Unicode normalization form C")
    if unicodedata.combining(text[0]):
        raise BadCsr(f"{what} begins with a combining character")


def shown(text: str) -> str:
    """A text for people and logs: what cannot be seen escaped, at most 256 characters."""
    escaped = text if text.isprintable() else ascii(text)[1:-1]
    return escaped if len(escaped) <= MAX_DESCRIPTION_CHARACTERS else escaped[: MAX_DESCRIPTION_CHARACTERS - 1] + "…"
