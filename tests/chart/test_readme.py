"""The chart's README says what values.yaml says, and values.yaml says something about every value."""

import json

import yaml

from tests.chart.readme import README, render, values_of
from tests.chart.rendering import CHART

SAMPLE = """\
# File.

# One switch.
switch: true

# A program.
program:
  # How many; <n>
  # of them.
  count: 2
  list: [a]
  map: {}
  deep:
    text: ""
"""


def test_the_readme_is_up_to_date() -> None:
    assert README.read_text() == render(), "run make chart-readme"


def test_every_value_is_found_with_its_default_and_comment() -> None:
    assert [(value.path, value.default, value.comment) for value in values_of(SAMPLE)] == [
        ("switch", "true", "One switch."),
        ("program", "", "A program."),
        ("program.count", "2", "How many; <n> of them."),
        ("program.list", '["a"]', ""),
        ("program.map", "{}", ""),
        ("program.deep", "", ""),
        ("program.deep.text", '""', ""),
    ]


def test_the_defaults_of_the_readme_are_those_of_the_values() -> None:
    text = (CHART / "values.yaml").read_text()
    defaults = yaml.safe_load(text)
    for value in values_of(text):
        found = defaults
        for key in value.path.split("."):
            found = found[key]
        assert value.default == "" or json.loads(value.default) == found


def test_every_section_and_every_value_outside_one_has_a_comment() -> None:
    bare = {value.path for value in values_of((CHART / "values.yaml").read_text()) if "." not in value.path and not value.comment}
    assert bare == set()
