"""Patterns of otherNames: the type of the name, and what its text may be.

`*` stands for the whole part before the `@`. There, neither it nor a placeholder's value may hold `@`, `/` or `*`: an XMPP address is cut
at its first `/` (RFC 7622 section 3.1), so `evil.example/@example.org` would be of another domain than it seems. Behind the `@` a pattern
is literal. A pattern without `@` is literal but for placeholders, whose values hold no dot either, as in DNS names; one placeholder alone
stands for a whole value, whatever it is.
"""

from dataclasses import dataclass
from typing import Self

from estcore.errors import BadCsr
from estcore.other_names import SMTP_UTF8_MAILBOX, check_other_name, check_type, other_name
from estcore.patterns import STAR, Pieces, Template, Values, fill, parse_pieces, templates_of


@dataclass(frozen=True, slots=True)
class OtherNamePattern:
    """An otherName whose value is a UTF8String: its dotted type, and its text, all in its case."""

    oid: str
    text: str
    local: Pieces
    """What stands before the `@`; all of it where there is none."""
    domain: str | None

    @classmethod
    def parse(cls, oid: str, text: str) -> Self:
        """Read it; raises ValueError."""
        check_type(oid)
        before, at, behind = text.rpartition("@")
        local, domain = (parse_pieces(before), behind) if at else (parse_pieces(text), None)
        pattern = cls(oid, text, local, domain)
        if pattern._is_whole:
            return pattern
        if at and any(mark in behind for mark in "{}*"):
            raise ValueError(f"{text!r}: placeholders and * stand before the @; what is behind it is written out")
        if "*" in text and (local != STAR or not at):
            raise ValueError(f"{text!r}: * stands for the whole part before an @, such as *@example.com")
        pattern._check_sample()
        return pattern

    def __str__(self) -> str:
        """As names are described."""
        return f"{self.oid};UTF8:{self.text}"

    @property
    def templates(self) -> frozenset[Template]:
        """The placeholders in it."""
        return templates_of(self.local)

    @property
    def _is_whole(self) -> bool:
        return self.domain is None and len(self.local) == 1 and bool(self.templates)

    def fixed(self, values: Values) -> str | None:
        """The one text that it permits; None where `*` leaves it open or a value makes none."""
        if self.local == STAR or not all(map(self._may_fill, map(values.__getitem__, self.templates))):
            return None
        return self._filled(values)

    def permits(self, oid: str, text: str, values: Values) -> bool:
        """Whether an otherName of this dotted type and text, checked before, may be had."""
        if oid != self.oid:
            return False
        if self.local == STAR:
            local, _, domain = text.rpartition("@")
            return domain == self.domain and _is_run(local)
        return text == self.fixed(values)

    def _may_fill(self, value: str) -> bool:
        return self._is_whole or (_is_run(value) and (self.domain is not None or "." not in value))

    def _filled(self, values: Values) -> str:
        local = fill(self.local, values)
        return local if self.domain is None else f"{local}@{self.domain}"

    def _check_sample(self) -> None:
        """With its placeholders and `*` filled it must itself be a name that may be certified."""
        letter = "é" if self.oid == SMTP_UTF8_MAILBOX else "x"
        sample = self._filled(dict.fromkeys(Template, letter)) if self.local != STAR else f"{letter}@{self.domain}"
        try:
            check_other_name(other_name(self.oid, sample))
        except BadCsr as error:
            raise ValueError(error.message) from error


def _is_run(text: str) -> bool:
    return bool(text) and not any(mark in text for mark in "@/*")
