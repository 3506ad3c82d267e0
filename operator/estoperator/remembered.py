"""What one replica remembers of open requests beyond their objects, such as the Event told last. Memory follows the open work."""

from typing import Generic, TypeVar

from estoperator.open_requests import OpenRequests
from estoperator.resources import CertRequest, RequestKey

MAX_GONE = 256
"""Values kept of requests that were deleted before they were finished."""

V = TypeVar("V")


class Remembered(Generic[V]):
    """A value by request. Another object of the same name has none. Belongs to one event loop."""

    def __init__(self) -> None:
        self._values: dict[RequestKey, tuple[str, V]] = {}

    def __len__(self) -> int:
        return len(self._values)

    def get(self, request: CertRequest) -> V | None:
        """The value of this very object."""
        uid, value = self._values.get(request.key, ("", None))
        return value if uid == request.uid else None

    def put(self, request: CertRequest, value: V, open_requests: OpenRequests) -> None:
        """Remember a value. Drops those of requests that are not open any more, once there are many."""
        self._values[request.key] = request.uid, value
        if len(self._values) > len(open_requests) + MAX_GONE:
            self._values = {key: kept for key, kept in self._values.items() if open_requests.get(key) is not None}

    def first(self, request: CertRequest, value: V, open_requests: OpenRequests) -> V:
        """The value that is remembered; where there is none, this one from now on."""
        known = self.get(request)
        if known is not None:
            return known
        self.put(request, value, open_requests)
        return value

    def drop(self, key: RequestKey) -> None:
        """Forget what there is of that name."""
        self._values.pop(key, None)
