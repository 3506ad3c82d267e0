"""Writes charts/est-issuer/README.md: every value with its default and the comment above it in values.yaml.

Usage: python -m tests.chart.readme [--check]
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import yaml

from tests.chart.rendering import CHART

README = CHART / "README.md"
HEAD = """\
# {name}

{description}.

```
helm install est-issuer charts/est-issuer --namespace est-issuer --create-namespace --wait
helm test est-issuer --namespace est-issuer
```

Kubernetes {kubernetes}. [docs/kubernetes.md](../../docs/kubernetes.md) has the doors, several replicas and security,
[docs/operations.md](../../docs/operations.md) backup, upgrade, uninstall and alerts. One cluster has one release.

This page is made from values.yaml by `make chart-readme`. values.schema.json checks every value, and refuses one that it does not know.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """One value: its path with dots, its default as JSON (empty for a mapping that has rows of its own), the comment above it."""

    path: str
    default: str
    comment: str


def values_of(text: str) -> Iterator[Value]:
    """Every value of a commented values.yaml in its order, mappings before what is in them."""
    root = yaml.compose(text)
    assert root is not None
    yield from _in_mapping(root, text.splitlines(), "")


def _in_mapping(mapping: yaml.Node, lines: list[str], prefix: str) -> Iterator[Value]:
    for key, node in mapping.value:
        path = f"{prefix}{key.value}"
        is_section = isinstance(node, yaml.MappingNode) and not node.flow_style
        default = "" if is_section else json.dumps(yaml.safe_load(yaml.serialize(node)), ensure_ascii=False)
        yield Value(path=path, default=default, comment=_comment_above(lines, key.start_mark.line))
        if is_section:
            yield from _in_mapping(node, lines, f"{path}.")


def _comment_above(lines: list[str], line: int) -> str:
    """The comment that ends at the line above, as one paragraph."""
    first = line
    while first > 0 and lines[first - 1].lstrip().startswith("#"):
        first -= 1
    return " ".join(one.strip().removeprefix("#").strip() for one in lines[first:line])


def _escape(comment: str) -> str:
    """Markdown would take <name> for a tag, but not inside backticks."""
    pieces = comment.split("`")
    return "`".join(piece if number % 2 else piece.replace("<", "&lt;") for number, piece in enumerate(pieces))


def _row(value: Value) -> str:
    comment = _escape(value.comment).replace("|", "\\|")
    default = f"`{value.default}`".replace("|", "\\|") if value.default else ""
    return f"| `{value.path}` | {default} | {comment} |"


def render() -> str:
    """The whole page."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    sections: dict[str, list[Value]] = {}
    for value in values_of((CHART / "values.yaml").read_text()):
        sections.setdefault(value.path.partition(".")[0], []).append(value)
    head = HEAD.format(name=chart["name"], description=chart["description"], kubernetes=chart["kubeVersion"].removesuffix("-0"))
    parts = [head]
    loose = [values[0] for values in sections.values() if len(values) == 1]
    tables = [("Values outside a section", "", loose)] + [
        (name, values[0].comment, values[1:]) for name, values in sections.items() if len(values) > 1
    ]
    for title, comment, values in tables:
        about = f"{_escape(comment)}\n\n" if comment else ""
        rows = "\n".join(_row(value) for value in values if value.default or value.comment)
        parts.append(f"## {title}\n\n{about}| value | default | what it is |\n|---|---|---|\n{rows}\n")
    return "\n".join(parts)


def main() -> int:
    """Write the page, or with --check fail where it is not up to date."""
    if "--check" in sys.argv[1:]:
        if README.read_text() != render():
            sys.stderr.write("charts/est-issuer/README.md is not what values.yaml says: run make chart-readme\n")
            return 1
        return 0
    README.write_text(render())
    return 0


if __name__ == "__main__":
    sys.exit(main())
