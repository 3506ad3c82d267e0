"""Label selectors in an issuer's spec: what they say to the API, and what is refused."""

from typing import Any

import pytest

from estcore import issuer_spec
from estcore.errors import ConfigurationError
from estcore.label_selector import LabelSelector


@pytest.mark.parametrize(
    ("selector", "query"),
    [
        ({}, ""),
        ({"matchLabels": {"team": "a", "example.com/tier": ""}}, "team=a,example.com/tier="),
        ({"matchExpressions": [{"key": "team", "operator": "In", "values": ["a", "b"]}]}, "team in (a,b)"),
        ({"matchExpressions": [{"key": "team", "operator": "NotIn", "values": ["a"]}]}, "team notin (a)"),
        ({"matchExpressions": [{"key": "a", "operator": "Exists"}, {"key": "b", "operator": "DoesNotExist"}]}, "a,!b"),
    ],
)
def test_a_selector_is_asked_for_as_the_api_writes_it(selector: dict[str, Any], query: str) -> None:
    assert LabelSelector.model_validate(selector).query == query


@pytest.mark.parametrize(
    ("selector", "field"),
    [
        ({"matchLabels": {"team": "a,b"}}, "matchLabels.team"),
        ({"matchLabels": {"no key": "a"}}, "matchLabels"),
        ({"matchExpressions": [{"key": "team", "operator": "Exists", "values": ["a"]}]}, "matchExpressions[0]"),
        ({"matchExpressions": [{"key": "team", "operator": "In"}]}, "matchExpressions[0]"),
        ({"matchExpressions": [{"key": "team", "operator": "Like", "values": ["a"]}]}, "matchExpressions[0].operator"),
        ({"matchFields": {}}, "matchFields"),
    ],
)
def test_a_selector_that_the_api_would_not_take_is_refused_by_its_field(selector: dict[str, Any], field: str) -> None:
    spec = {"ca": {"secretName": "x"}, "trust": {"configMap": {"name": "roots", "namespaceSelector": selector}}}
    with pytest.raises(ConfigurationError) as refused:
        issuer_spec.parse(spec, where="test")
    assert f"spec.trust.configMap.namespaceSelector.{field}" in refused.value.message


@pytest.mark.parametrize(
    ("selector", "labels", "selected"),
    [
        ({}, {}, True),
        ({"matchLabels": {"team": "a"}}, {"team": "a", "tier": "x"}, True),
        ({"matchLabels": {"team": "a"}}, {"team": "b"}, False),
        ({"matchLabels": {"team": "a", "tier": "x"}}, {"team": "a"}, False),
        ({"matchExpressions": [{"key": "team", "operator": "In", "values": ["a", "b"]}]}, {"team": "b"}, True),
        ({"matchExpressions": [{"key": "team", "operator": "In", "values": ["a", "b"]}]}, {}, False),
        ({"matchExpressions": [{"key": "team", "operator": "NotIn", "values": ["a"]}]}, {"team": "a"}, False),
        ({"matchExpressions": [{"key": "team", "operator": "NotIn", "values": ["a"]}]}, {}, True),
        ({"matchExpressions": [{"key": "team", "operator": "Exists"}]}, {"team": ""}, True),
        ({"matchExpressions": [{"key": "team", "operator": "Exists"}]}, {}, False),
        ({"matchExpressions": [{"key": "team", "operator": "DoesNotExist"}]}, {"team": "a"}, False),
        ({"matchLabels": {"team": "a"}, "matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}, {"team": "a"}, True),
    ],
)
def test_a_selector_selects_as_the_api_does(selector: dict[str, Any], labels: dict[str, str], selected: bool) -> None:
    """Kubernetes API reference, LabelSelector: all of it must hold."""
    assert LabelSelector.model_validate(selector).matches(labels) is selected
