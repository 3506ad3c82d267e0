"""What an answer takes away: only what it names, and of names that look alike none goes alone."""

from datetime import timedelta

from estcore import authorization_callout, registration
from estcore.authorization_callout import Answer
from estcore.names import describe_general_name
from tests.core.requests import DNS, URI, basic, csr, policy

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
