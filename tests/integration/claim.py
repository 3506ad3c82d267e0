"""The user whom a request object names as the one who asks: the same fields in cert-manager's kind and in ours."""

from typing import TypedDict


class Claim(TypedDict, total=False):
    """Fields of `spec` as JSON has them."""

    username: str
    uid: str
    groups: list[str]
    extra: dict[str, list[str]]
