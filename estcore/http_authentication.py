"""Challenges and credentials of HTTP authentication as text: schemes with `name=value` parameters.

What a parameter means is its scheme's. Source: RFC 9110 sections 5.6 and 11.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from estcore.errors import BadHeader

MAX_PARAMETERS: Final = 32

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTABLE = r"[^\x00-\x08\x0a-\x1f\x7f]"
_PARAMETER = re.compile(
    rf'[ \t]*(?P<name>{_TOKEN})[ \t]*=[ \t]*(?:"(?P<quoted>(?:(?!["\\]){_QUOTABLE}|\\{_QUOTABLE})*)"|(?P<token>{_TOKEN}))[ \t]*(?:,|$)'
)
_SCHEME = re.compile(rf"[ \t,]*(?P<scheme>{_TOKEN})(?:[ \t]+[A-Za-z0-9._~+/-]+=*[ \t]*(?=,|$)|[ \t]+|(?=,|$))")
_ESCAPED = re.compile(r"\\(.)")
_EMPTY = re.compile(r"[ \t,]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """One challenge of a WWW-Authenticate header: the scheme in lower case, its parameters by their names in lower case."""

    scheme: str
    parameters: Mapping[str, str]


def parse_parameters(text: str) -> dict[str, str]:
    """The parameters of credentials, names in lower case, values without their quotes.

    Raises BadHeader, whose text repeats no value, where the text is not a list of them, has one twice or more than 32.
    """
    parameters, end = _read_parameters(text, 0)
    if end != len(text):
        raise BadHeader('Authorization is not a list of name=value or name="value" after the scheme (RFC 9110 section 11.4)')
    return parameters


def parse_challenges(values: Iterable[str]) -> tuple[Challenge, ...]:
    """The challenges of all WWW-Authenticate headers, in their order; one header may hold several.

    A challenge that cannot be read ends its header. Never raises: what is not understood is no challenge (RFC 9110 section 11.6.1).
    """
    challenges: list[Challenge] = []
    for value in values:
        position = 0
        while position < len(value):
            scheme = _SCHEME.match(value, position)
            if scheme is None:
                break
            try:
                parameters, position = _read_parameters(value, scheme.end())
            except BadHeader:
                break
            challenges.append(Challenge(scheme=scheme["scheme"].lower(), parameters=parameters))
    return tuple(challenges)


def quote(text: str) -> str:
    """A quoted-string (RFC 9110 section 5.6.4); raises BadHeader for control characters, which cannot stand in one."""
    if any(character < " " or character == "\x7f" for character in text):
        raise BadHeader("a header value cannot hold control characters")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _read_parameters(text: str, position: int) -> tuple[dict[str, str], int]:
    """Parameters from `position` on, and where they end: at the end of the text, or where something else begins."""
    parameters: dict[str, str] = {}
    while position < len(text):
        empty = _EMPTY.match(text, position)  # empty elements of a list are allowed (RFC 9110 section 5.6.1)
        position = empty.end() if empty is not None else position
        found = _PARAMETER.match(text, position)
        if found is None:
            break
        name = found["name"].lower()
        if name in parameters or len(parameters) == MAX_PARAMETERS:
            raise BadHeader(f"the parameter {name[:32]} is there twice, or there are more than {MAX_PARAMETERS}")
        quoted = found["quoted"]
        parameters[name] = found["token"] if quoted is None else _ESCAPED.sub(r"\1", quoted)
        position = found.end()
    return parameters, position
