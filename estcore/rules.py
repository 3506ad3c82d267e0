"""Which rule of a policy is for a requester, and whether the names of its CSR are inside that rule.

Deny by default: the first rule whose `from` matches is the only one that counts, each name must be permitted by one of its
patterns, and what no pattern can permit (a directoryName, a link-local address, the API server's name) is refused whatever a rule says.
Source of the shape: threats 3, 5 and 22; RFC 6402 section 2.12 and RFC 7030 section 3.7 (authenticated is not yet authorized).
"""

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from cryptography import x509
from cryptography.x509.oid import NameOID

from estcore.dns_names import dns_labels
from estcore.errors import Forbidden
from estcore.issuer_spec import Policy, Rule, RuleFrom
from estcore.label_selector import LabelSelector
from estcore.names import check_general_name, describe_general_name, describe_name
from estcore.other_names import check_other_name
from estcore.patterns import STAR, DnsPattern, Template, TextPattern, Values, glob_matches, is_host_address
from estcore.requester import AuthenticatedBy, Requester

SUBJECT_FIELDS = {
    NameOID.COMMON_NAME: "commonName",
    NameOID.ORGANIZATION_NAME: "organization",
    NameOID.ORGANIZATIONAL_UNIT_NAME: "organizationalUnit",
    NameOID.COUNTRY_NAME: "country",
    NameOID.STATE_OR_PROVINCE_NAME: "stateOrProvince",
    NameOID.LOCALITY_NAME: "locality",
    NameOID.STREET_ADDRESS: "streetAddress",
    NameOID.POSTAL_CODE: "postalCode",
    NameOID.DOMAIN_COMPONENT: "domainComponent",
    NameOID.USER_ID: "userId",
    NameOID.SERIAL_NUMBER: "serialNumber",
}
_CLUSTERS: Final = "system:"
"""How Kubernetes' own users and groups begin. An API server compares them octet by octet: it folds no case and trims nothing."""
_CLUSTERS_KIND = re.compile(rf"{_CLUSTERS}[^:*{{}}]+:")
_SHOWN_PATTERNS = 5  # a refusal is one line: it shows so many patterns and says how many more there are


def describe(requester: Requester) -> str:
    """The requester as a refusal names it."""
    match requester.authenticated_by:
        case AuthenticatedBy.BASIC | AuthenticatedBy.DIGEST | AuthenticatedBy.ONE_TIME_PASSWORD | AuthenticatedBy.CMC_SHARED_SECRET:
            return f"{requester.authenticated_by} user {requester.user!r}"
        case AuthenticatedBy.SERVICE_ACCOUNT_TOKEN:
            return f"service account {requester.namespace}/{requester.service_account}"
        case AuthenticatedBy.KUBERNETES:
            return f"namespace {requester.namespace!r}" if requester.namespace else f"Kubernetes user {requester.user!r}"
        case AuthenticatedBy.THIRD_PARTY_CERTIFICATE | AuthenticatedBy.CERTIFICATE:
            kind = "third-party certificate" if requester.authenticated_by is AuthenticatedBy.THIRD_PARTY_CERTIFICATE else "certificate"
            return f"{kind} {describe_name(requester.certificate.subject)!r}" if requester.certificate else kind


def values_of(requester: Requester) -> Values:
    """What this requester fills placeholders with."""
    values: dict[Template, str] = {}
    if requester.namespace:
        values[Template.NAMESPACE] = requester.namespace
    if requester.user:
        values[Template.USER] = requester.user
    if requester.service_account:
        values[Template.SERVICE_ACCOUNT] = requester.service_account
    if requester.pod:
        values[Template.POD] = requester.pod
    return values


def rule_for(requester: Requester, policy: Policy) -> tuple[int, Rule] | None:
    """The first rule that is for this requester, with its place; None when there is none.

    A rule that uses a value the requester lacks ({namespace} for a basic user) is not for it.
    """
    values = values_of(requester)
    for place, rule in enumerate(policy.rules):
        if _is_for(rule.from_, requester) and rule.patterns.templates <= values.keys():
            return place, rule
    return None


def _is_for(from_: RuleFrom, requester: Requester) -> bool:
    if from_.authentication is not None and from_.authentication != requester.authenticated_by:
        return False
    if from_.with_certificate is not None and from_.with_certificate not in (requester.authenticated_by, requester.with_certificate):
        return False
    if from_.doors and requester.door not in from_.doors:
        return False
    if from_.namespace_selector is not None and not _selects(from_.namespace_selector, requester):
        return False
    if from_.namespaces and not _any_glob(from_.namespaces, requester.namespace):
        return False
    if from_.service_accounts and not _any_glob(from_.service_accounts, requester.service_account):
        return False
    if from_.users and not _any_glob(from_.users, requester.user):
        return False
    return not from_.groups or any(_any_glob(from_.groups, group) for group in requester.groups)


def _selects(selector: LabelSelector, requester: Requester) -> bool:
    return requester.namespace_labels is not None and selector.matches(requester.namespace_labels)


def _any_glob(patterns: Iterable[str], text: str | None) -> bool:
    return text is not None and any(glob_matches(pattern, text) for pattern in patterns)


def check_names(requester: Requester, place: int, rule: Rule, subject: x509.Name, sans: Sequence[x509.GeneralName]) -> None:
    """Check every name of a request against its rule.

    Raises Forbidden (NameNotPermitted) with the name and the patterns that would permit, BadCsr for a name that is none.
    """
    values = values_of(requester)
    for template in rule.patterns.dns_templates:
        if "." in values[template]:
            raise Forbidden(
                f"rule {place + 1} writes {{{template}}} into DNS names, and {values[template]!r} of {describe(requester)} holds a dot",
                reason="NameNotPermitted",
            )
    for san in sans:
        patterns = _permitting_patterns(rule, san, values)
        if patterns is not None:
            _refuse(describe_general_name(san), requester, place, patterns)
    _check_subject(requester, place, rule, subject, sans, values)


def _permitting_patterns(rule: Rule, san: x509.GeneralName, values: Values) -> tuple[str, Sequence[str]] | None:
    """None when the rule permits the name, else the field of the rule and its patterns."""
    patterns = rule.patterns
    if isinstance(san, x509.DNSName):
        labels = dns_labels(san.value)
        for pattern in patterns.dns_names:
            if pattern.permits(labels, values, wildcards=rule.wildcards) and not _reaches_into_cluster(labels, pattern):
                return None
        return "dnsNames", rule.dns_names
    check_may_exist(san)
    if isinstance(san, x509.UniformResourceIdentifier):
        permitted = any(pattern.permits(san.value, values) for pattern in patterns.uris)
        return None if permitted else ("uris", rule.uris)
    if isinstance(san, x509.RFC822Name):
        permitted = any(pattern.permits(san.value, values) for pattern in patterns.email_addresses)
        return None if permitted else ("emailAddresses", rule.email_addresses)
    if isinstance(san, x509.OtherName):
        oid, text = san.type_id.dotted_string, check_other_name(san)
        permitted = any(pattern.permits(oid, text, values) for pattern in patterns.other_names)
        return None if permitted else ("otherNames", tuple(map(str, patterns.other_names)))
    permitted = any(san.value in network for network in patterns.ip_networks)
    return None if permitted else ("ipAddresses", rule.ip_addresses)


def check_may_exist(san: x509.GeneralName) -> None:
    """Refuse a name that nobody may have, whoever vouches for it: malformed, of another kind, an address that no one host owns.

    `pkcs10.parse` has looked at form already; this holds for every way that a request comes. Raises BadCsr, or Forbidden
    (NameNotPermitted).
    """
    check_general_name(san)
    if isinstance(san, x509.IPAddress) and isinstance(san.value, IPv4Address | IPv6Address) and not is_host_address(san.value):
        raise Forbidden(f"{describe_general_name(san)} is never issued: it is link-local or of no one host", reason="NameNotPermitted")


def check_type_is_permitted(san: x509.GeneralName, policy: Policy) -> None:
    """Refuse an otherName of a type that no rule permits to anybody, whoever vouches for it. Raises Forbidden (NameNotPermitted).

    It is a login elsewhere: the administrator says whether this issuer certifies such at all.
    """
    if isinstance(san, x509.OtherName) and (oid := san.type_id.dotted_string) not in policy.other_name_types:
        raise Forbidden(
            f"{describe_general_name(san)} is not issued: no rule of this issuer's policy has the type {oid} in otherNames",
            reason="NameNotPermitted",
        )


def _reaches_into_cluster(labels: Sequence[str], pattern: DnsPattern) -> bool:
    """Whether the name is one of the cluster's own that this pattern does not write out (threats row 5)."""
    if _is_the_clusters(labels):
        return not all(pattern.is_literal(index) or labels[index] == "*" for index in range(len(labels)))
    return "svc" in labels[2:] and pattern.labels[labels.index("svc", 2) - 1] == STAR  # a * there is anybody's namespace


def _is_the_clusters(labels: Sequence[str]) -> bool:
    """Localhost, the API server's kubernetes[.default[.svc…]], and the wildcard that covers it."""
    if len(labels) == 1:
        return labels[0] in {"kubernetes", "localhost"}
    return labels[0] in {"kubernetes", "*"} and labels[1] == "default" and (len(labels) == 2 or labels[2] == "svc")


def impersonates_cluster(field: str, value: str, pattern: TextPattern) -> bool:
    """Whether a `*` or a placeholder stands for a name that Kubernetes itself gives a meaning to.

    A commonName is a host name to old clients; `system:…` in a subject is a user or group to an API server that trusts this CA. Of that
    the pattern writes out the kind (`system:node:`) at least, for without one it is any of the cluster's own (`system:masters`).
    """
    if value.startswith(_CLUSTERS) and not pattern.is_literal and not _CLUSTERS_KIND.match(pattern.text):
        return True
    if field != "commonName":
        return False
    labels = value.lower().rstrip(".").split(".")
    if _is_the_clusters(labels):
        return not pattern.is_literal
    return "svc" in labels[2:] and pattern.after is not None


def _check_subject(
    requester: Requester, place: int, rule: Rule, subject: x509.Name, sans: Sequence[x509.GeneralName], values: Values
) -> None:
    patterns = rule.patterns.subject
    for attribute in subject:
        field, value = SUBJECT_FIELDS.get(attribute.oid), attribute.value
        permitting: tuple[str, Sequence[str]]
        if patterns is None:
            if field == "commonName" and any(is_same_text(value, san) for san in sans) and not str(value).startswith(_CLUSTERS):
                continue  # a URI may be system:…, where it is nobody's user
            permitting = "of a subject only", ("a commonName equal to one of the subject alternative names asked for",)
        elif field is None or field not in patterns:
            permitting = "subject", tuple(map(str, patterns.values()))
        else:
            if isinstance(value, str) and _permits_value(field, value, patterns[field].patterns, sans, values, wildcards=rule.wildcards):
                continue
            permitting = f"subject.{patterns[field]}", tuple(pattern.text for pattern in patterns[field].patterns)
        _refuse(f"subject {describe_name(x509.Name([attribute]))}", requester, place, permitting)


def _permits_value(
    field: str, value: str, patterns: Sequence[TextPattern], sans: Sequence[x509.GeneralName], values: Values, *, wildcards: bool
) -> bool:
    """Whether one of the rule's patterns for a subject attribute permits this value.

    A wildcard as commonName is a name to old clients: it is had where the rule has `wildcards`, as the very pattern, and for a dNSName
    of the request, which passed as such.
    """
    for pattern in patterns:
        permitted = pattern.permits(value, values) or (
            field == "commonName"
            and wildcards
            and pattern.permits_wildcard(value, values)
            and any(isinstance(san, x509.DNSName) and is_same_text(value, san) for san in sans)
        )
        if permitted and not impersonates_cluster(field, value, pattern):
            return True
    return False


def is_same_text(value: str | bytes, san: x509.GeneralName) -> bool:
    """Whether a commonName says the same as a subject alternative name."""
    if not isinstance(value, str):
        return False
    if isinstance(san, x509.DNSName):
        return san.value.lower() == value.lower()
    return str(san.value) == value


def _refuse(name: str, requester: Requester, place: int, permitting: tuple[str, Sequence[str]]) -> None:
    field, patterns = permitting
    shown = ", ".join(patterns[:_SHOWN_PATTERNS]) or "none"
    more = f" and {len(patterns) - _SHOWN_PATTERNS} more" if len(patterns) > _SHOWN_PATTERNS else ""
    raise Forbidden(
        f"{name} is not permitted to {describe(requester)}: rule {place + 1} permits {field} {shown}{more}", reason="NameNotPermitted"
    )
