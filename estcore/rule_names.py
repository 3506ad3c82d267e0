"""The names that a rule fixes for a requester, and those that it leaves open: the counterpart of `estcore.rules`, which checks names.

A pattern without `*` whose placeholders the requester fills is one name; every other is the client's to choose. RFC 9908 section 3.4 has
a form for both: a name component, an extension or an IP address without its value. The rule is one that `rules.rule_for` found for the
requester, so its placeholders have values.
"""

from collections.abc import Sequence
from typing import Final

from cryptography import x509
from cryptography.x509.oid import NameOID, ObjectIdentifier

from estcore import der
from estcore.csr_template import ANY_IP_ADDRESS, ExtensionTemplate, NameComponent, RdnTemplate, general_names
from estcore.csr_vocabulary import SUBJECT_ALT_NAME
from estcore.der import SEQUENCE
from estcore.errors import BadCsr
from estcore.names import STRING_TYPES, check_general_name, check_name
from estcore.other_name_patterns import OtherNamePattern
from estcore.other_names import other_name
from estcore.patterns import STAR, DnsPattern, EmailPattern, TextPattern, UriPattern, Values, fill
from estcore.policy_spec import Rule
from estcore.rules import SUBJECT_FIELDS, impersonates_cluster

MAX_FIXED_NAMES_OCTETS: Final = 8 * 1024
"""Of a subjectAltName that is spelled out, twice in an answer; a rule that fixes more names leaves them to the client."""

_IN_ORDER = (
    NameOID.DOMAIN_COMPONENT,
    NameOID.COUNTRY_NAME,
    NameOID.STATE_OR_PROVINCE_NAME,
    NameOID.LOCALITY_NAME,
    NameOID.STREET_ADDRESS,
    NameOID.POSTAL_CODE,
    NameOID.ORGANIZATION_NAME,
    NameOID.ORGANIZATIONAL_UNIT_NAME,
    NameOID.USER_ID,
    NameOID.COMMON_NAME,
    NameOID.SERIAL_NUMBER,
)
"""From the widest to the narrowest, as names are written (X.501 section 9.2)."""


def subject(rule: Rule, values: Values) -> tuple[RdnTemplate, ...] | None:
    """The components that the rule lists, each once, with its value where that is fixed; None where it says nothing of the subject."""
    patterns = rule.patterns.subject
    if patterns is None:
        return None
    fixed: dict[ObjectIdentifier, bytes | None] = {}
    if not _fails(rule, values):
        fixed = {oid: _component_value(oid, patterns[field].patterns, values) for oid, field in SUBJECT_FIELDS.items() if field in patterns}
    return tuple((NameComponent(type=oid.dotted_string, value=fixed.get(oid)),) for oid in _IN_ORDER if SUBJECT_FIELDS[oid] in patterns)


def open_subject(rules: Sequence[Rule]) -> tuple[RdnTemplate, ...] | None:
    """The components that all of these rules list, without a value; None where there are none."""
    fields = [set(rule.patterns.subject or ()) for rule in rules]
    common = set.intersection(*fields) if fields else set()
    return tuple((NameComponent(type=oid.dotted_string),) for oid in _IN_ORDER if SUBJECT_FIELDS[oid] in common) or None


def subject_alt_name(rule: Rule, values: Values) -> ExtensionTemplate | None:
    """The subjectAltName that the rule permits: all of its fixed names, an open IP address for a network, or no value at all.

    None where the rule permits no such name. It is critical where the subject is empty (RFC 5280 section 4.2.1.6).
    """
    if not names_any(rule):
        return None
    critical = not rule.patterns.subject
    fixed = _fixed_names(rule, values)
    networks = any(network.num_addresses > 1 for network in rule.patterns.ip_networks)
    value = None if fixed is None else _encode(fixed, open_address=networks)
    return ExtensionTemplate(oid=SUBJECT_ALT_NAME, critical=critical, value=value)


def open_subject_alt_name(rules: Sequence[Rule]) -> ExtensionTemplate | None:
    """A subjectAltName without a value where each of these rules permits such names, and None of them a subject; else None."""
    wanted = bool(rules) and all(names_any(rule) and rule.patterns.subject is None for rule in rules)
    return ExtensionTemplate(oid=SUBJECT_ALT_NAME, critical=True) if wanted else None


def fixed_names(rule: Rule, values: Values) -> tuple[x509.GeneralName, ...] | None:
    """The subject alternative names that the rule writes out; None where it leaves one open (`*`, a network) or a value makes no name."""
    if any(network.num_addresses > 1 for network in rule.patterns.ip_networks):
        return None
    return _fixed_names(rule, values)


def names_any(rule: Rule) -> bool:
    """Whether the rule permits subject alternative names."""
    return bool(rule.dns_names or rule.uris or rule.ip_addresses or rule.email_addresses or rule.other_names)


def _fails(rule: Rule, values: Values) -> bool:
    """Whether the rule permits this requester nothing at all, whose value would reach into another's DNS names (`rules.check_names`)."""
    return any("." in values[template] for template in rule.patterns.dns_templates)


def _component_value(oid: ObjectIdentifier, patterns: Sequence[TextPattern], values: Values) -> bytes | None:
    if len(patterns) > 1 or patterns[0].after is not None:
        return None
    text = fill(patterns[0].before, values)
    if impersonates_cluster(SUBJECT_FIELDS[oid], text, patterns[0]):
        return None
    try:
        check_name(x509.Name([x509.NameAttribute(oid, text)]))
    except (BadCsr, ValueError):
        return None
    return der.tlv(STRING_TYPES[oid], text.encode())


def _fixed_names(rule: Rule, values: Values) -> tuple[x509.GeneralName, ...] | None:
    """Each name that the rule writes out, a network's left aside; None where a pattern leaves something open, or makes no name."""
    patterns = rule.patterns
    if _fails(rule, values):
        return None
    try:
        names: list[x509.GeneralName | None] = [_fixed_dns_name(pattern, values) for pattern in patterns.dns_names]
        names += [_fixed_uri(pattern, values) for pattern in patterns.uris]
        names += [x509.IPAddress(network.network_address) for network in patterns.ip_networks if network.num_addresses == 1]
        names += [_fixed_email(pattern, values) for pattern in patterns.email_addresses]
        names += [_fixed_other_name(pattern, values) for pattern in patterns.other_names]
        fixed = tuple(name for name in names if name is not None)
        for name in fixed:
            check_general_name(name)
    except (BadCsr, ValueError):
        return None
    return tuple(dict.fromkeys(fixed)) if len(fixed) == len(names) else None


def _fixed_dns_name(pattern: DnsPattern, values: Values) -> x509.DNSName | None:
    if STAR in pattern.labels:
        return None
    return x509.DNSName(".".join(fill(pieces, values).lower() for pieces in pattern.labels))


def _fixed_uri(pattern: UriPattern, values: Values) -> x509.UniformResourceIdentifier | None:
    uri = fill(pattern.pieces, values)
    if pattern.any_last_segment or not pattern.permits(uri, values):
        return None
    return x509.UniformResourceIdentifier(uri)


def _fixed_email(pattern: EmailPattern, values: Values) -> x509.RFC822Name | None:
    if pattern.local == STAR:
        return None
    local = fill(pattern.local, values)
    return x509.RFC822Name(local if pattern.domain is None else f"{local}@{pattern.domain}")


def _fixed_other_name(pattern: OtherNamePattern, values: Values) -> x509.OtherName | None:
    text = pattern.fixed(values)
    return None if text is None else other_name(pattern.oid, text)


def _encode(names: Sequence[x509.GeneralName], *, open_address: bool) -> bytes | None:
    encoded = general_names(x509.SubjectAlternativeName(names).public_bytes()) if names else ()
    value = der.tlv(SEQUENCE, b"".join((*encoded, ANY_IP_ADDRESS) if open_address else encoded))
    return value if len(value) <= MAX_FIXED_NAMES_OCTETS else None
