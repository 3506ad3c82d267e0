"""How long and how many requests of est-issuer.io may wait. Of no other group: there it is not ours to say.

Those that wait for a person are bounded by issuer and requester, so that nobody can bury what others wait for. A request that was told that
it waits goes on waiting, whatever comes after it.
"""

from collections import defaultdict
from datetime import datetime, timedelta

from estoperator.conditions import one_line
from estoperator.decide import AWAITS_APPROVAL, Refuse, Step, Wait
from estoperator.doors import EST_ISSUER
from estoperator.open_requests import OpenRequests
from estoperator.resources import CertRequest, IssuerRef, RequestKey

MAX_WAITING = 100
"""Requests that wait for a person, by issuer and requester; as many as may wait that came by EST."""

MIN_SWEPT = 100
"""Issuers and requesters that are counted, up to which nobody looks whose requests have all ended."""


class Waiting:
    """The requests that wait for a person, as one replica has seen them. Belongs to one event loop."""

    def __init__(self) -> None:
        self._keys: defaultdict[tuple[IssuerRef, str], dict[RequestKey, str]] = defaultdict(dict)
        self._sweep_beyond = MIN_SWEPT

    def __len__(self) -> int:
        """How many issuers and requesters are counted."""
        return len(self._keys)

    def judge(self, step: Step, request: CertRequest, open_requests: OpenRequests, *, now: datetime) -> Step:
        """The step, or a refusal where it would have the request wait for too long, or beside too many others."""
        if not isinstance(step, Wait) or request.key.door is not EST_ISSUER.door:
            return step
        if step.until is not None and now >= step.until:
            hours = (step.until - request.created) // timedelta(hours=1)
            message = f"Failed to sign CertificateRequest: it waited for {hours}h, longer than it may: {step.message}"
            return Refuse(message=message, reason="Expired")
        if step.for_person and not self._admit(request, open_requests):
            who = one_line(requester(request))
            message = (
                f"Failed to sign CertificateRequest: {MAX_WAITING} requests of {who} wait for approval by {request.issuer} already; "
                "have some approved or denied, or delete them"
            )
            return Refuse(message=message, reason="TooManyWaiting")
        return step

    def _admit(self, request: CertRequest, open_requests: OpenRequests) -> bool:
        if len(self._keys) > self._sweep_beyond:
            self._sweep(open_requests)
        keys = self._keys[request.issuer, requester(request)]
        _drop_ended(keys, open_requests)
        told = request.ready is not None and request.ready.message == AWAITS_APPROVAL
        if request.key not in keys and len(keys) >= MAX_WAITING and not told:
            return False
        keys[request.key] = request.uid
        return True

    def _sweep(self, open_requests: OpenRequests) -> None:
        for pair, keys in tuple(self._keys.items()):
            _drop_ended(keys, open_requests)
            if not keys:
                del self._keys[pair]
        self._sweep_beyond = max(MIN_SWEPT, 2 * len(self._keys))


def _drop_ended(keys: dict[RequestKey, str], open_requests: OpenRequests) -> None:
    for key, uid in tuple(keys.items()):
        other = open_requests.get(key)
        if other is None or other.uid != uid or other.approved_by_condition:
            del keys[key]


def requester(request: CertRequest) -> str:
    """Whose requests are counted together: the user's, where the request says who that is, else the namespace's."""
    return f"namespace {request.key.namespace}" if request.username is None else f"user {request.username}"
