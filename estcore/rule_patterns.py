"""The names of one rule, parsed once when the manifest is read, so that each request only matches them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from estcore.other_name_patterns import OtherNamePattern
from estcore.patterns import DnsPattern, EmailPattern, IPNetwork, Template, TextPattern, UriPattern, parse_ip_pattern


@dataclass(frozen=True, slots=True)
class SubjectPatterns:
    """What a rule permits of one attribute of a subject: the field that says so (`organizations`), and its patterns."""

    field: str
    patterns: tuple[TextPattern, ...]

    def __str__(self) -> str:
        return self.field


@dataclass(frozen=True, slots=True, kw_only=True)
class RulePatterns:
    """What a rule permits."""

    dns_names: tuple[DnsPattern, ...]
    uris: tuple[UriPattern, ...]
    ip_networks: tuple[IPNetwork, ...]
    email_addresses: tuple[EmailPattern, ...]
    other_names: tuple[OtherNamePattern, ...]
    subject: Mapping[str, SubjectPatterns] | None
    """By the attribute's name in the manifest (`commonName`, `organization`); None where the rule says nothing of the subject."""
    templates: frozenset[Template]
    """Values that a requester must have for this rule to be for it."""
    dns_templates: frozenset[Template]
    """Those that go into DNS names, and so must hold no dot."""

    @classmethod
    def parse(
        cls,
        *,
        dns_names: Iterable[str],
        uris: Iterable[str],
        ip_addresses: Iterable[str],
        email_addresses: Iterable[str],
        other_names: Iterable[tuple[str, str]],
        subject: Mapping[str, tuple[str, tuple[str, ...]]] | None,
    ) -> Self:
        """Parse a rule's lists, `other_names` as dotted type and text, `subject` as field and patterns; raises ValueError."""
        dns_patterns = tuple(map(DnsPattern.parse, dns_names))
        uri_patterns = tuple(map(UriPattern.parse, uris))
        email_patterns = tuple(map(EmailPattern.parse, email_addresses))
        other_patterns = tuple(OtherNamePattern.parse(oid, text) for oid, text in other_names)
        subject_patterns = None if subject is None else {name: _subject_patterns(*listed) for name, listed in subject.items()}
        subject_texts = [pattern for listed in (subject_patterns or {}).values() for pattern in listed.patterns]
        in_dns = frozenset[Template]().union(*(pattern.templates for pattern in dns_patterns))
        others: tuple[UriPattern | EmailPattern | OtherNamePattern | TextPattern, ...]
        others = (*uri_patterns, *email_patterns, *other_patterns, *subject_texts)
        return cls(
            dns_names=dns_patterns,
            uris=uri_patterns,
            ip_networks=tuple(map(parse_ip_pattern, ip_addresses)),
            email_addresses=email_patterns,
            other_names=other_patterns,
            subject=subject_patterns,
            templates=in_dns.union(*(pattern.templates for pattern in others)),
            dns_templates=in_dns,
        )


def _subject_patterns(field: str, texts: tuple[str, ...]) -> SubjectPatterns:
    return SubjectPatterns(field, tuple(map(TextPattern.parse, texts)))
