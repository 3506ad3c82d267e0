"""Challenges and credentials as text: what is read, what is refused, what is passed over."""

import pytest

from estcore.errors import BadHeader
from estcore.http_authentication import parse_challenges, parse_parameters, quote


@pytest.mark.spec("EST-AUTH-09")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('a=b, c="d, e"', {"a": "b", "c": "d, e"}),
        ('A = "b" ,c=d', {"a": "b", "c": "d"}),
        (',, a=b ,, c="d",', {"a": "b", "c": "d"}),
        (r'a="quote \" backslash \\ letter \x"', {"a": 'quote " backslash \\ letter x'}),
        ("a=b,c=d", {"a": "b", "c": "d"}),
        ("username*=UTF-8''J%C3%A4s", {"username*": "UTF-8''J%C3%A4s"}),
        ('a=""', {"a": ""}),
        ("", {}),
    ],
)
def test_parameters_are_read_as_rfc_9110_has_them(text: str, expected: dict[str, str]) -> None:
    assert parse_parameters(text) == expected


@pytest.mark.parametrize(
    "text",
    ["a", "a=", 'a="b', 'a="b" c=d', "a=b c=d", "a=b;c=d", 'a="b\x00"', 'a="\n"', "=b", "a=b=c", "a=b, a=c", "A=b, a=c", "é=b"],
)
def test_what_is_no_list_of_parameters_or_has_one_twice_is_refused(text: str) -> None:
    with pytest.raises(BadHeader):
        parse_parameters(text)


def test_parameters_are_bounded_and_a_long_bad_header_costs_no_more_than_its_length() -> None:
    with pytest.raises(BadHeader):
        parse_parameters(", ".join(f"p{number}=v" for number in range(33)))
    with pytest.raises(BadHeader):
        parse_parameters('a="' + "\\" * 100_001)
    with pytest.raises(BadHeader):
        parse_parameters("a" * 100_000)


@pytest.mark.spec("EST-AUTH-11")
def test_challenges_come_several_in_one_header_or_one_in_each() -> None:
    """RFC 9110 section 11.6.1, with the example of RFC 7616 section 3.9.1 in it."""
    one = 'Digest realm="a, b", nonce="n", algorithm=SHA-256, Basic realm="c", charset="UTF-8", Negotiate, Negotiate abc=, Bearer realm=d'
    found = parse_challenges([one, 'Digest realm="e"'])
    assert [(challenge.scheme, dict(challenge.parameters)) for challenge in found] == [
        ("digest", {"realm": "a, b", "nonce": "n", "algorithm": "SHA-256"}),
        ("basic", {"realm": "c", "charset": "UTF-8"}),
        ("negotiate", {}),
        ("negotiate", {}),
        ("bearer", {"realm": "d"}),
        ("digest", {"realm": "e"}),
    ]


@pytest.mark.parametrize("text", ["", ",", "=", 'Digest realm="a', '"', "Digest realm=a, realm=b", "Basic \x00"])
def test_a_challenge_that_cannot_be_read_is_none(text: str) -> None:
    assert all(challenge.scheme in {"digest", "basic"} for challenge in parse_challenges([text]))
    assert parse_challenges([text, "Basic realm=x"])[-1].parameters == {"realm": "x"}


def test_what_is_quoted_reads_back_and_control_characters_cannot_be() -> None:
    for text in ("", "plain", 'with "quotes" and \\'):
        assert parse_parameters(f"a={quote(text)}") == {"a": text}
    for text in ("a\nb", "\x00", "\x7f"):
        with pytest.raises(BadHeader):
            quote(text)
