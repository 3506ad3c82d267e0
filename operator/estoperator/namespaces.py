"""The namespaces by their labels: who an EstClusterIssuer serves, and whom a rule with namespaceSelector is for."""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from estoperator.youngest import youngest

NAME_LABEL = "kubernetes.io/metadata.name"
"""kube-apiserver sets it on every namespace, to its name, and lets nobody change it."""


class Namespace(NamedTuple):
    """One namespace; a later one of its name has another uid."""

    uid: str
    labels: Mapping[str, str]


Index = Mapping[str, Iterable[Namespace]]
"""kopf's index of the namespaces, by name."""

LabelsOf = Callable[[str], Mapping[str, str]]
"""The labels of a namespace, by its name."""


def name_alone(namespace: str) -> Mapping[str, str]:
    """All that is known of a namespace where nobody looked: the label that kube-apiserver makes of its name."""
    return {NAME_LABEL: namespace}


class Namespaces:
    """What kopf watches of them. Where it may not, their names are all that is known."""

    def __init__(self) -> None:
        self._index: Index | None = None

    def attach(self, index: Index) -> None:
        """Use kopf's index."""
        self._index = index

    def labels(self, namespace: str) -> Mapping[str, str]:
        """Its labels; of one that is not known, its name alone."""
        return {**(self.known_labels(namespace) or {}), **name_alone(namespace)}

    def seen(self, namespace: str) -> bool:
        """Whether the watch has told of it, or tells of none. A request and its new namespace come by two watches, in any order."""
        return self._index is None or namespace in self._index

    def known_labels(self, namespace: str) -> Mapping[str, str] | None:
        """Its labels, None where they are not known."""
        if self._index is None or namespace not in self._index:
            return None
        found = youngest(self._index[namespace])
        return None if found is None else found.labels

    def uids(self) -> frozenset[str]:
        """Of all that the watch has told of."""
        return frozenset(one.uid for name in tuple(self._index or ()) for one in tuple((self._index or {})[name]))
