"""In which version the API server serves a kind of its own."""

from collections.abc import Sequence
from typing import Protocol


class Discovery(Protocol):
    """What this module needs of Kubernetes; raises kubernetes_errors."""

    async def serves(self, group: str, version: str, plural: str) -> bool:
        """Whether the API server has this kind in this version."""
        ...


async def served_version(api: Discovery, group: str, plural: str, versions: Sequence[str]) -> str | None:
    """The first of these versions in which the API server has the kind, None where it has it in none; raises kubernetes_errors."""
    for version in versions:
        if await api.serves(group, version, plural):
            return version
    return None
