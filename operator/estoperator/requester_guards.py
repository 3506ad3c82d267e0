"""What the guards share, who look again and again whether admission checks who makes the requests of a group.

A guard believes spec.username of requests that were made while it was checked, which it is still.
"""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Protocol

from estoperator.resources import CertRequest

CHECK_SECONDS = 10.0


class RequesterGuard(Protocol):
    """Belongs to one event loop."""

    def believes(self, request: CertRequest) -> bool:
        """Whether the request was made while its requester was checked."""
        ...

    async def check(self) -> None:
        """Look once."""
        ...


async def keep_checking(guard: RequesterGuard, sleep: Callable[[float], Awaitable[None]]) -> None:
    """Look until cancelled."""
    while True:
        await guard.check()
        await sleep(CHECK_SECONDS)


def made_since(request: CertRequest, since: datetime) -> bool:
    """Times are whole seconds: what was made within the first one may have come before the check was there."""
    return request.created > since
