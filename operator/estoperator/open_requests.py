"""The requests that are ours and not finished, as last seen. Everything else is forgotten: memory follows the open work.

Fed by watch events and by what the API server answers to our own writes, in any order: an older version never replaces a newer.
"""

from collections import defaultdict
from collections.abc import Iterator

from estcore.requester import Door
from estoperator.requesters import owner_of, requester_of
from estoperator.resources import CertRequest, IssuerRef, RequestKey


class OpenRequests:
    """One replica's view. Belongs to one event loop."""

    def __init__(self) -> None:
        self._requests: dict[RequestKey, CertRequest] = {}
        self._by_issuer: defaultdict[IssuerRef, set[RequestKey]] = defaultdict(set)

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[RequestKey]:
        return iter(self._requests)

    def get(self, key: RequestKey) -> CertRequest | None:
        """The request as last seen, None when it is not open."""
        return self._requests.get(key)

    def observe(self, request: CertRequest) -> bool:
        """Take a version of a request; True when it gives something to decide that the version before did not."""
        before = self._requests.get(request.key)
        if before is not None and before.uid == request.uid and is_older(request.resource_version, before.resource_version):
            return False
        if request.finished:
            self.forget(request.key)
            return False
        if before is not None and before.issuer != request.issuer:
            self.forget(request.key)
        self._requests[request.key] = request
        self._by_issuer[request.issuer].add(request.key)
        return before is None or before.judgement != request.judgement

    def forget(self, key: RequestKey) -> None:
        """It is finished or gone."""
        request = self._requests.pop(key, None)
        if request is None:
            return
        keys = self._by_issuer[request.issuer]
        keys.discard(key)
        if not keys:
            del self._by_issuer[request.issuer]

    def owner_of(self, key: RequestKey) -> str:
        """Whose turn the request takes in the queue (`requesters.owner_of`); where it is not open, its namespace's."""
        request = self._requests.get(key)
        return key.namespace if request is None else owner_of(request)

    def of_issuer(self, ref: IssuerRef) -> Iterator[RequestKey]:
        """Those that name this issuer, to be decided again when it changes."""
        return iter(tuple(self._by_issuer.get(ref, ())))

    def of_namespace(self, namespace: str) -> Iterator[RequestKey]:
        """Those asked for on behalf of this namespace, to be decided again when its labels change."""
        return iter([key for key, request in self._requests.items() if requester_of(request).namespace == namespace])

    def of_door(self, door: Door) -> Iterator[CertRequest]:
        """Those that came by a door."""
        return iter([request for key, request in self._requests.items() if key.door == door])

    def knows(self, request: CertRequest) -> bool:
        """Whether we have seen this version of the request, or a later one."""
        seen = self._requests.get(request.key)
        return seen is not None and seen.uid == request.uid and not is_older(seen.resource_version, request.resource_version)


def is_older(version: str, than: str) -> bool:
    """Compare resourceVersions of one object: decimal integers that grow (Kubernetes 1.35 promises it, etcd always did)."""
    if version.isdecimal() and than.isdecimal():
        return int(version) < int(than)
    return False
