"""Since when every try to enrol a request has failed.

From then on it is counted how long it is tried again. Not from its creation: until it was approved, or while its issuer was not there or
waited for a person, nothing could fail, and the first fault after that would be for good.
"""

from datetime import datetime

from estoperator.open_requests import OpenRequests
from estoperator.resources import CertRequest, RequestKey

MAX_GONE = 256
"""Requests remembered that were deleted meanwhile."""


class Failing:
    """The requests whose last try failed, as one replica has seen them. Belongs to one event loop."""

    def __init__(self) -> None:
        self._since: dict[RequestKey, tuple[str, datetime]] = {}

    def since(self, request: CertRequest, open_requests: OpenRequests, *, now: datetime) -> datetime:
        """When the first of the tries failed that have failed in a row. One has failed now."""
        uid, since = self._since.get(request.key, ("", now))
        if uid != request.uid:
            since = now
        self._since[request.key] = request.uid, since
        if len(self._since) > len(open_requests) + MAX_GONE:
            self._since = {key: at for key, at in self._since.items() if open_requests.get(key) is not None}
        return since

    def end(self, key: RequestKey) -> None:
        """It was answered, or is not tried now."""
        self._since.pop(key, None)
