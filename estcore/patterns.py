"""Patterns of registration rules: for requesters (`from`) and for the names that they may have.

Parsing raises ValueError that says what to write, so a manifest with a bad pattern is refused when it is read; matching never
raises, and takes time linear in the text: tenants write patterns too. What `*` stands for:

    from             any run of characters, the empty one included
    dnsNames         exactly one whole label
    uris             exactly one path segment, the last
    emailAddresses   the whole local part
    subject          a run of characters without `.` and `*`, never empty, once in a value
    ipAddresses      nothing: an entry is an address or a network

`{namespace}`, `{user}`, `{serviceAccount}` and `{pod}` stand for the requester's own values and are taken literally: a `*` or a brace
inside a value has no meaning.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Final, Self

from cryptography import x509

from estcore.errors import BadCsr
from estcore.names import check_general_name

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_SEGMENT = re.compile(r"[-A-Za-z0-9._~]+")
_METADATA: Final = IPv6Address("fd00:ec2::254")
"""Instance metadata at AWS; other clouds' address is link-local."""


class Template(StrEnum):
    """A placeholder for a value of the requester."""

    NAMESPACE = "namespace"
    USER = "user"
    SERVICE_ACCOUNT = "serviceAccount"
    POD = "pod"


Values = Mapping[Template, str]
"""The requester's values; one that it does not have is absent."""

Pieces = tuple[str | Template, ...]
"""Text between placeholders, and placeholders."""

STAR: Final[Pieces] = ("*",)


def parse_pieces(text: str) -> Pieces:
    """Split a text at its placeholders; raises ValueError for unknown ones and for stray braces."""
    pieces: list[str | Template] = []
    end = 0
    for found in _PLACEHOLDER.finditer(text):
        pieces.append(text[end : found.start()])
        if found[1] not in list(Template):
            raise ValueError(f"{found[0]} is unknown; write one of {', '.join(f'{{{known}}}' for known in Template)}")
        pieces.append(Template(found[1]))
        end = found.end()
    pieces.append(text[end:])
    if any(not isinstance(piece, Template) and ("{" in piece or "}" in piece) for piece in pieces):
        raise ValueError(f"{text!r} has a brace without its partner")
    return tuple(piece for piece in pieces if piece)


def templates_of(pieces: Pieces) -> frozenset[Template]:
    """The placeholders in it."""
    return frozenset(piece for piece in pieces if isinstance(piece, Template))


def fill(pieces: Pieces, values: Values) -> str:
    """The text with its placeholders filled. The rule's caller made sure that every value is there (KeyError otherwise)."""
    return "".join([values[piece] if isinstance(piece, Template) else piece for piece in pieces])


def _sample(pieces: Pieces) -> str:
    return "".join("x" if isinstance(piece, Template) else piece for piece in pieces)


def glob_matches(pattern: str, text: str) -> bool:
    """Whether the whole text fits a pattern in which `*` is any run of characters."""
    first, *rest = pattern.split("*")
    if not rest:
        return pattern == text
    *middle, last = rest
    if not text.startswith(first):
        return False
    position = len(first)
    for part in middle:
        found = text.find(part, position)
        if found < 0:
            return False
        position = found + len(part)
    return len(text) - position >= len(last) and text.endswith(last)


def _check_sample(kind: type[x509.DNSName | x509.UniformResourceIdentifier | x509.RFC822Name], text: str) -> None:
    """A pattern with its placeholders and stars filled must itself be a name that may be certified."""
    if not text.isascii():
        raise ValueError(f"{text!r} is not ASCII: write A-labels (xn--…) for names of other scripts")
    try:
        check_general_name(kind(text))
    except BadCsr as error:
        raise ValueError(str(error)) from error


@dataclass(frozen=True, slots=True)
class DnsPattern:
    """A dNSName, label by label: `*` or pieces, in lower case."""

    text: str
    labels: tuple[Pieces, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read it; raises ValueError."""
        labels: list[Pieces] = []
        for label in text.split("."):
            pieces = tuple(piece if isinstance(piece, Template) else piece.lower() for piece in parse_pieces(label))
            if pieces != STAR and "*" in _sample(pieces):
                raise ValueError(f"{text!r}: * stands for one whole label, such as *.example.com")
            labels.append(pieces)
        _check_sample(x509.DNSName, ".".join("x" if pieces == STAR else _sample(pieces) for pieces in labels))
        return cls(text, tuple(labels))

    @property
    def templates(self) -> frozenset[Template]:
        """The placeholders in it."""
        return frozenset(piece for pieces in self.labels for piece in templates_of(pieces))

    def is_literal(self, index: int) -> bool:
        """Whether the label there is written out: neither `*` nor from a placeholder."""
        return self.labels[index] != STAR and not templates_of(self.labels[index])

    def permits(self, labels: Sequence[str], values: Values, *, wildcards: bool) -> bool:
        """Whether a name of these lower-case labels may be had; a wildcard name only where it is this very pattern."""
        if len(labels) != len(self.labels):
            return False
        pairs = list(zip(self.labels, labels, strict=True))
        if labels[0] == "*":
            return wildcards and self.labels[0] == STAR and all(p != STAR and fill(p, values).lower() == label for p, label in pairs[1:])
        return all(p == STAR or fill(p, values).lower() == label for p, label in pairs)


@dataclass(frozen=True, slots=True)
class UriPattern:
    """A uniformResourceIdentifier: equal octet by octet, but for placeholders and a last segment `*`."""

    text: str
    pieces: Pieces
    any_last_segment: bool

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read it; raises ValueError."""
        stem = text.removesuffix("*")
        if "*" in stem or (stem != text and not stem.endswith("/")):
            raise ValueError(f"{text!r}: * stands for the last path segment, such as spiffe://example.org/ns/prod/*")
        pieces = parse_pieces(stem)
        head, _, rest = text.partition("://")
        if any(mark in head.partition(":")[0] + rest.partition("/")[0] for mark in "{*"):
            raise ValueError(f"{text!r}: placeholders and * stand behind scheme and authority")
        if "?" in text or "#" in text:
            raise ValueError(f"{text!r}: a pattern has no query and no fragment")
        _check_sample(x509.UniformResourceIdentifier, _sample(pieces) + ("x" if stem != text else ""))
        return cls(text, pieces, stem != text)

    @property
    def templates(self) -> frozenset[Template]:
        """The placeholders in it."""
        return templates_of(self.pieces)

    def permits(self, uri: str, values: Values) -> bool:
        """Whether a URI may be had. A value that is no path segment by itself (it has a slash, or is `..`) permits none."""
        if not all(_is_segment(values[template]) for template in self.templates):
            return False
        stem = fill(self.pieces, values)
        if not self.any_last_segment:
            return uri == stem
        return uri.startswith(stem) and _is_segment(uri[len(stem) :])


def _is_segment(text: str) -> bool:
    return _SEGMENT.fullmatch(text) is not None and text not in {".", ".."}


@dataclass(frozen=True, slots=True)
class EmailPattern:
    """An rfc822Name: local part in its case, domain in any."""

    text: str
    local: Pieces
    domain: str | None
    """Lower case; None where one placeholder stands for the whole address."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read it; raises ValueError."""
        local, at, domain = text.rpartition("@")
        if not at:
            pieces = parse_pieces(text)
            if len(pieces) == 1 and templates_of(pieces):
                return cls(text, pieces, None)
        pieces = parse_pieces(local)
        if pieces != STAR and "*" in local:
            raise ValueError(f"{text!r}: * stands for the whole local part, such as *@example.com")
        _check_sample(x509.RFC822Name, f"{_sample(pieces)}@{domain}")
        return cls(text, pieces, domain.lower())

    @property
    def templates(self) -> frozenset[Template]:
        """The placeholders in it."""
        return templates_of(self.local)

    def permits(self, address: str, values: Values) -> bool:
        """Whether a mail address may be had."""
        local, _, domain = address.rpartition("@")
        if self.domain is None:
            own_local, _, own_domain = fill(self.local, values).rpartition("@")
            return (own_local, own_domain.lower()) == (local, domain.lower())
        return domain.lower() == self.domain and (self.local == STAR or fill(self.local, values) == local)


@dataclass(frozen=True, slots=True)
class TextPattern:
    """A value of a subject attribute: pieces before and after at most one `*`."""

    text: str
    before: Pieces
    after: Pieces | None
    """None where there is no `*`."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read it; raises ValueError."""
        before, star, after = text.partition("*")
        if "*" in after:
            raise ValueError(f"{text!r}: at most one * in a subject attribute")
        return cls(text, parse_pieces(before), parse_pieces(after) if star else None)

    @property
    def templates(self) -> frozenset[Template]:
        """The placeholders in it."""
        return templates_of(self.before) | templates_of(self.after or ())

    @property
    def is_literal(self) -> bool:
        """Whether it is one value, written out."""
        return self.after is None and not self.templates

    def permits(self, value: str, values: Values) -> bool:
        """Whether a value may be had."""
        before = fill(self.before, values)
        if self.after is None:
            return value == before
        after = fill(self.after, values)
        run = value[len(before) : len(value) - len(after)]
        fits = len(value) > len(before) + len(after) and value.startswith(before) and value.endswith(after)
        return fits and "." not in run and "*" not in run

    def permits_wildcard(self, value: str, values: Values) -> bool:
        """Whether a value is this very pattern, its placeholders filled: `*.apps.example.com` of `*.apps.example.com`."""
        return not self.before and self.after is not None and value == "*" + fill(self.after, values)


def parse_ip_pattern(text: str) -> IPNetwork:
    """Read an address or a network in CIDR form; raises ValueError."""
    try:
        network = ip_network(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no IP address and no network such as 10.0.0.0/8: {error}") from None
    if not is_host_address(network.network_address) and network.num_addresses == 1:
        raise ValueError(f"{text!r} is link-local, multicast, unspecified or an IPv4 address in IPv6 form: it is never issued")
    return network


def is_host_address(address: IPAddress) -> bool:
    """Whether one host can own it (threats row 5): a link-local address is many hosts', and some forms are an alias of another."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is None and int(address) >> 32 == 0:
        return address.is_loopback  # ::a.b.c.d, RFC 4291 section 2.5.5.1
    return not (
        address.is_unspecified
        or address.is_link_local
        or address.is_multicast
        or address in {_METADATA, IPv4Address("255.255.255.255")}
        or (isinstance(address, IPv6Address) and address.ipv4_mapped is not None)
    )
