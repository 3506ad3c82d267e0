"""DNS names as they may stand in a certificate: labels of letters, digits and hyphens, in the one form that all readers read alike.

RFC 5280 section 4.2.1.6, RFC 1034 section 3.5, RFC 5890 and 5891 for A-labels.
"""

import re
import unicodedata
from typing import Final

from estcore.errors import BadCsr
from estcore.visible_text import shown

MAX_DNS_CHARACTERS: Final = 253
MAX_DNS_LABEL_CHARACTERS: Final = 63

_DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_U_LABEL_CATEGORIES = frozenset({"Ll", "Lo", "Lm", "Mn", "Mc", "Nd"})
"""RFC 5892 section 2.1; its contextual characters (joiners, middle dots) are not issued."""


def dns_labels(name: str) -> tuple[str, ...]:
    """Normalise a dNSName to its labels, lower-case, the leftmost perhaps "*".

    Letters, digits and hyphens only (RFC 5280 section 4.2.1.6, RFC 1034 section 3.5), A-labels that decode and encode back (RFC 5891
    section 4.4), no trailing dot, no IP address. Raises BadCsr with the name.
    """
    lower = name.lower() if name.isascii() else name
    labels = tuple(lower.split("."))
    fault = None
    if not 0 < len(name) <= MAX_DNS_CHARACTERS:
        fault = f"has {len(name)} characters; 1 to {MAX_DNS_CHARACTERS} are allowed"
    elif labels[0] == "*" and len(labels) < 3:
        fault = "is a wildcard over a whole top-level domain"
    elif labels[-1].isdigit() or labels[-1].startswith("0x"):
        fault = "is an IP address or looks like one; ask for an IP address instead"
    else:
        for label in labels[1:] if labels[0] == "*" else labels:
            fault = fault or _label_fault(label)
    if fault:
        raise BadCsr(f"the dNSName {shown(name)} {fault}", reason="BadName")
    return labels


def _label_fault(label: str) -> str | None:
    if not label:
        return "has an empty label"
    if len(label) > MAX_DNS_LABEL_CHARACTERS:
        return f"has a label of more than {MAX_DNS_LABEL_CHARACTERS} characters"
    if "*" in label:
        return "has a * that is not the whole leftmost label"
    if not _DNS_LABEL.fullmatch(label):
        return "has a label with other than letters, digits and inner hyphens"
    if label[2:4] == "--" and not (label.startswith("xn--") and _is_a_label(label)):
        return "has a label that is no valid A-label (RFC 5890 section 2.3.2.1)"
    return None


def _is_a_label(label: str) -> bool:
    try:
        text = label[4:].encode("ascii").decode("punycode")
        again = text.encode("punycode").decode("ascii")
    except (ValueError, OverflowError):
        return False
    return (
        not text.isascii()
        and again == label[4:]
        and unicodedata.is_normalized("NFC", text)
        and text.lower() == text
        and not unicodedata.category(text[0]).startswith("M")
        and all(character == "-" or unicodedata.category(character) in _U_LABEL_CATEGORIES for character in text)
    )
