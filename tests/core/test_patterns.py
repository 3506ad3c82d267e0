"""Patterns alone: what each kind permits, and which ones a manifest may not hold."""

import time

import pytest

from estcore.patterns import DnsPattern, EmailPattern, Template, TextPattern, UriPattern, glob_matches, parse_ip_pattern

VALUES = {Template.NAMESPACE: "shop", Template.USER: "device-1", Template.SERVICE_ACCOUNT: "web"}


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("*", "", True),
        ("*", "anything.at/all", True),
        ("device-*", "device-1", True),
        ("device-*", "a-device-1", False),
        ("*-prod", "shop-prod", True),
        ("*-prod", "shop-prod-2", False),
        ("a*b*c", "a-b-b-c", True),
        ("a*b*c", "acb", False),
        ("aa*aa", "aaa", False),
        ("team-?", "team-1", False),
        ("team-[ab]", "team-a", False),
        ("exact", "exact", True),
        ("exact", "Exact", False),
        ("exact", "exactly", False),
    ],
)
def test_a_star_in_from_is_any_run_and_nothing_else_is_special(pattern: str, text: str, matches: bool) -> None:
    assert glob_matches(pattern, text) is matches


def test_matching_takes_no_time_whatever_pattern_a_tenant_writes() -> None:
    started = time.perf_counter()
    assert not glob_matches("*a" * 126, "a" * 250 + "b")
    assert time.perf_counter() - started < 0.05


@pytest.mark.spec("THREAT-03")
@pytest.mark.parametrize(
    ("pattern", "name", "permits"),
    [
        ("a.example.com", "a.example.com", True),
        ("A.Example.COM", "a.example.com", True),
        ("*.example.com", "a.example.com", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", "a.b.example.com", False),
        ("*.example.com", "evilexample.com", False),
        ("*.example.com", "a.example.com.evil", False),
        ("a.*.example.com", "a.b.example.com", True),
        ("{serviceAccount}.{namespace}.svc", "web.shop.svc", True),
        ("{serviceAccount}.{namespace}.svc", "web.other.svc", False),
        ("{user}-x.example.com", "device-1-x.example.com", True),
    ],
)
def test_a_star_is_exactly_one_label(pattern: str, name: str, permits: bool) -> None:
    assert DnsPattern.parse(pattern).permits(name.split("."), VALUES, wildcards=False) is permits
    assert DnsPattern.parse(pattern).permits(name.split("."), VALUES, wildcards=True) is permits


@pytest.mark.spec("THREAT-03")
@pytest.mark.parametrize(
    ("pattern", "name", "permits"),
    [
        ("*.example.com", "*.example.com", True),
        ("*.{namespace}.svc", "*.shop.svc", True),
        ("*.{namespace}.svc", "*.other.svc", False),
        ("*.*.example.com", "*.a.example.com", False),
        ("*.*.example.com", "*.*.example.com", False),
        ("a.*.example.com", "a.*.example.com", True),  # no such name passes dns_labels; as a label it is one
        ("a.example.com", "*.example.com", False),
        ("{user}.example.com", "*.example.com", False),
    ],
)
def test_a_wildcard_name_needs_wildcards_and_this_very_pattern(pattern: str, name: str, permits: bool) -> None:
    values = VALUES | {Template.USER: "*"}
    assert DnsPattern.parse(pattern).permits(name.split("."), values, wildcards=True) is permits
    if name.startswith("*"):
        assert not DnsPattern.parse(pattern).permits(name.split("."), values, wildcards=False)


@pytest.mark.spec("THREAT-05")
@pytest.mark.parametrize(
    ("pattern", "uri", "permits"),
    [
        ("spiffe://cluster.local/ns/{namespace}/sa/*", "spiffe://cluster.local/ns/shop/sa/web", True),
        ("spiffe://cluster.local/ns/{namespace}/sa/*", "spiffe://cluster.local/ns/other/sa/web", False),
        ("spiffe://cluster.local/ns/{namespace}/sa/*", "spiffe://evil.local/ns/shop/sa/web", False),
        ("spiffe://cluster.local/ns/{namespace}/sa/*", "spiffe://cluster.local/ns/shop/sa/web/admin", False),
        ("spiffe://cluster.local/ns/{namespace}/sa/*", "spiffe://cluster.local/ns/shop/sa/", False),
        ("spiffe://cluster.local/ns/{namespace}/sa/*", "spiffe://cluster.local/ns/shop/sa/..", False),
        ("spiffe://cluster.local/ns/{namespace}/sa/*", "spiffe://cluster.local/ns/shop/sa/a%2Fb", False),
        ("spiffe://cluster.local/ns/{namespace}/sa/*", "spiffe://cluster.local/ns/shop/sa/web?x", False),
        ("spiffe://cluster.local/ns/{namespace}/sa/*", "SPIFFE://cluster.local/ns/shop/sa/web", False),
        ("https://a.example:8443/x", "https://a.example:8443/x", True),
        ("https://a.example/x", "https://a.example:8443/x", False),
        ("https://a.example/x", "https://user@a.example/x", False),
        ("urn:device:{user}", "urn:device:device-1", True),
        ("urn:device:{user}", "urn:device:device-2", False),
    ],
)
def test_a_uri_is_equal_but_for_its_last_segment(pattern: str, uri: str, permits: bool) -> None:
    assert UriPattern.parse(pattern).permits(uri, VALUES) is permits


@pytest.mark.spec("THREAT-05")
@pytest.mark.parametrize("value", ["a/b", "..", ".", "a?b", "a#b", "a%2Fb", "a:b", "a b", "é", "*"])
def test_a_value_that_is_no_path_segment_permits_no_uri(value: str) -> None:
    pattern = UriPattern.parse("https://a.example/{user}/x")
    assert not pattern.permits(f"https://a.example/{value}/x", {Template.USER: value})


@pytest.mark.parametrize(
    ("pattern", "address", "permits"),
    [
        ("ops@example.com", "ops@example.com", True),
        ("ops@example.com", "ops@EXAMPLE.com", True),
        ("ops@example.com", "Ops@example.com", False),
        ("*@example.com", "any.body@example.com", True),
        ("*@example.com", "any.body@a.example.com", False),
        ("*@example.com", "a@evil.com@example.org", False),
        ("{user}@example.com", "device-1@example.com", True),
        ("{user}@example.com", "device-2@example.com", False),
        ("{user}", "a@example.com", True),
        ("{user}", "a@Example.com", True),
        ("{user}", "b@example.com", False),
    ],
)
def test_a_star_in_a_mail_address_is_the_local_part(pattern: str, address: str, permits: bool) -> None:
    values = VALUES | {Template.USER: "a@example.com"} if pattern == "{user}" else VALUES
    assert EmailPattern.parse(pattern).permits(address, values) is permits


@pytest.mark.parametrize(
    ("pattern", "value", "permits"),
    [
        ("{user}", "device-1", True),
        ("{user}", "device-2", False),
        ("device-*", "device-7", True),
        ("device-*", "device-", False),
        ("device-*", "device-7.evil.com", False),
        ("device-*", "device-*", False),
        ("*.example.com", "a.example.com", True),
        ("*.example.com", "a.b.example.com", False),
        ("*.example.com", "*.example.com", False),
        ("ab*ba", "aba", False),
        ("{user}-*", "device-1-x", True),
    ],
)
def test_a_star_in_a_subject_is_a_run_without_dots(pattern: str, value: str, permits: bool) -> None:
    assert TextPattern.parse(pattern).permits(value, VALUES) is permits


def test_a_value_is_taken_literally() -> None:
    values = {Template.USER: "{namespace}*", Template.NAMESPACE: "shop"}
    assert TextPattern.parse("{user}").permits("{namespace}*", values)
    assert not TextPattern.parse("{user}").permits("shop*", values)
    assert not TextPattern.parse("{user}").permits("{namespace}anything", values)


@pytest.mark.parametrize(
    ("parse", "text", "said"),
    [
        (DnsPattern.parse, "web-*.example.com", "whole label"),
        (DnsPattern.parse, "**.example.com", "whole label"),
        (DnsPattern.parse, "a..example.com", "empty label"),
        (DnsPattern.parse, "a.example.com.", "empty label"),
        (DnsPattern.parse, "a_b.example.com", "letters, digits"),
        (DnsPattern.parse, "10.0.0.1", "IP address"),
        (DnsPattern.parse, "bücher.example", "A-labels"),
        (DnsPattern.parse, "{name}.example.com", "{name} is unknown; write one of {namespace}, {user}, {serviceAccount}"),
        (DnsPattern.parse, "{user.example.com", "brace"),
        (UriPattern.parse, "spiffe://*", "authority"),
        (UriPattern.parse, "spiffe://{user}/x", "authority"),
        (UriPattern.parse, "spiffe://a.example/*/x", "last path segment"),
        (UriPattern.parse, "spiffe://a.example/x*", "last path segment"),
        (UriPattern.parse, "https://user@a.example/", "user name"),
        (UriPattern.parse, "https://[fe80::1%25eth0]/", "zone"),
        (UriPattern.parse, "https://a.example:99999/", "port"),
        (UriPattern.parse, "https://a.example/../x", "dot segment"),
        (UriPattern.parse, "https://a.example/?x=1", "no query"),
        (UriPattern.parse, "{user}://a.example/", "scheme"),
        (UriPattern.parse, "no-uri", "URI"),
        (EmailPattern.parse, "example.com", "rfc822Name"),
        (EmailPattern.parse, "a*@example.com", "whole local part"),
        (EmailPattern.parse, "a@*.example.com", "letters, digits|wildcard"),
        (TextPattern.parse, "a*b*", r"at most one \*"),
        (TextPattern.parse, "{", "brace"),
        (parse_ip_pattern, "10.0.0.0/33", "no network"),
        (parse_ip_pattern, "10.0.0.1/8", "host bits"),
        (parse_ip_pattern, "*", "no network"),
        (parse_ip_pattern, "169.254.169.254", "never issued"),
        (parse_ip_pattern, "::ffff:10.0.0.1", "never issued"),
        (parse_ip_pattern, "::", "never issued"),
        (parse_ip_pattern, "fe80::1", "never issued"),
    ],
)
def test_a_bad_pattern_says_what_to_write(parse: object, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("{", r"\{").replace("}", r"\}")):
        parse(text)  # type: ignore[operator]  # each row's own parser
