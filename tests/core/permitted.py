"""What a rule permits, said another way than the product says it: patterns as regular expressions."""

import re
from collections.abc import Sequence

import pytest
from cryptography import x509

from estcore.issuer_spec import Rule
from estcore.requester import Requester


def regex_of(pattern: str, requester: Requester, star: str) -> str | None:
    """A pattern as a regular expression. None where the requester lacks a value."""
    values = {"namespace": requester.namespace, "user": requester.user, "serviceAccount": requester.service_account}
    regex = ""
    for part in re.split(r"(\*|\{\w+\})", pattern):
        if part == "*":
            regex += star
        elif part.startswith("{"):
            value = values[part[1:-1]]
            if not value:
                return None
            regex += re.escape(value)
        else:
            regex += re.escape(part)
    return regex


def _within(text: str, patterns: Sequence[str], requester: Requester, star: str) -> bool:
    return any(regex is not None and re.fullmatch(regex, text) for regex in (regex_of(pattern, requester, star) for pattern in patterns))


def is_for(rule: Rule, requester: Requester) -> bool:
    """Whether a rule is for a requester: its `users` and `namespaces`, and the values that its patterns need."""
    for patterns, value in ((rule.from_.users, requester.user), (rule.from_.namespaces, requester.namespace)):
        if patterns and not (value and any(re.fullmatch(pattern.replace("*", ".*"), value) for pattern in patterns)):
            return False
    needed = " ".join([*rule.dns_names, *rule.uris, *rule.email_addresses, (rule.subject and rule.subject.common_name) or ""])
    return not (
        ("{namespace}" in needed and not requester.namespace)
        or ("{user}" in needed and not requester.user)
        or ("{serviceAccount}" in needed and not requester.service_account)
    )


def assert_names_inside(subject: x509.Name, sans: Sequence[x509.GeneralName], rule: Rule, requester: Requester) -> None:
    """Each name is one that the rule permits this requester."""
    for san in sans:
        match san:
            case x509.DNSName(value=name) if name.startswith("*."):
                assert rule.wildcards
                assert any(regex_of(pattern, requester, r"\*") == re.escape(name) for pattern in rule.dns_names), name
            case x509.DNSName(value=name):
                assert _within(name, rule.dns_names, requester, r"[^.*]+"), name
                if name in {"kubernetes", "kubernetes.default"} or name.startswith("kubernetes.default.svc"):
                    assert name in rule.dns_names
            case x509.UniformResourceIdentifier(value=uri):
                assert _within(uri, rule.uris, requester, r"[^/]+"), uri
            case x509.RFC822Name(value=address):
                assert _within(address, rule.email_addresses, requester, r"[^@]+"), address
            case _:
                pytest.fail(f"{san} was asked for by nobody")
    for attribute in subject:
        if rule.subject is None:
            assert attribute.value in {san.value for san in sans}
        else:
            assert rule.subject.common_name
            assert _within(str(attribute.value), [rule.subject.common_name], requester, r"[^.*]+")
