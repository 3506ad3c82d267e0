"""What an answer takes away: only what it names, and of names that look alike none goes alone."""

from datetime import timedelta

import pytest
from cryptography import x509

from estcore import authorization_callout, registration
from estcore.authorization_callout import Answer
from estcore.errors import Forbidden
from estcore.names import describe_general_name
from tests import pki
from tests.core.requests import DNS, EMAIL, RA, URI, basic, csr, ip, policy

LIFE = timedelta(days=90)
TWINS = tuple(URI(f"spiffe://example.org/{'a' * 300}{end}") for end in "12")


def test_names_whose_beginnings_are_equal_stay_or_go_together() -> None:
    """The answer cannot tell them apart, and no name is lost that it did not take away."""
    web = DNS("web.example")
    rules = policy({"dnsNames": [web.value], "uris": ["spiffe://example.org/*"]})
    alike = describe_general_name(TWINS[0])
    assert describe_general_name(TWINS[1]) == alike

    def left(answer: Answer) -> tuple[object, ...]:
        authorized = registration.authorize(basic(), csr(web, *TWINS), rules)
        return authorization_callout.apply(answer, authorized, default_duration=LIFE).sans

    assert left(Answer(allowed=True, sans=("DNS:web.example", alike))) == (web, *TWINS)
    assert left(Answer(allowed=True, sans=("DNS:web.example",))) == (web,)
    assert left(Answer(allowed=True, duration=timedelta(hours=1))) == (web, *TWINS)


def narrowed(common_name: str, kept: x509.GeneralName, *gone: x509.GeneralName) -> x509.Name:
    authorized = registration.authorize(RA, csr(kept, *gone, subject=pki.name(common_name)), policy())
    answer = Answer(allowed=True, sans=(describe_general_name(kept),))
    return authorization_callout.apply(answer, authorized, default_duration=LIFE).subject


@pytest.mark.spec("THREAT-09")
@pytest.mark.parametrize(
    ("common_name", "gone"),
    [
        ("b.example", DNS("b.example")),
        ("B.example", DNS("b.example")),
        ("*.b.example", DNS("*.b.example")),
        ("10.0.0.2", ip("10.0.0.2")),
        ("2001:db8::2", ip("2001:db8::2")),
        ("b@example.com", EMAIL("b@example.com")),
        ("urn:b", URI("urn:b")),
    ],
)
def test_a_name_of_any_kind_that_goes_is_no_common_name_whoever_vouched_for_it(common_name: str, gone: x509.GeneralName) -> None:
    with pytest.raises(Forbidden, match="commonName") as raised:
        narrowed(common_name, DNS("a.example"), gone)
    assert raised.value.reason == "NameNotPermitted"
    assert describe_general_name(gone) in raised.value.message


def test_a_common_name_that_no_name_that_goes_says_stays() -> None:
    for common_name in ("device-1", "a.example"):
        assert narrowed(common_name, DNS("a.example"), DNS("b.example"), URI("urn:b")) == pki.name(common_name)
    assert narrowed("a.example", DNS("a.example"), DNS("A.example")) == pki.name("a.example")  # the same name in another spelling
