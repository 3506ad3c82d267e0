"""What waits at each door, as Prometheus sees it."""

from estcore.requester import Door
from estoperator.door_metrics import DoorMetrics
from estoperator.metrics import Metrics
from estoperator.open_requests import OpenRequests
from estoperator.resources import RequestKey
from estoperator.workqueue import WorkQueue
from tests.estoperator.builders import approved, request_of
from tests.estoperator.test_workqueue import Clock


def test_depth_age_and_open_requests_are_told_for_each_door_also_where_nothing_waits() -> None:
    clock, metrics, unfinished = Clock(), Metrics(), OpenRequests()
    work: WorkQueue[RequestKey] = WorkQueue(clock=clock, per_namespace=1)
    metrics.registry.register(DoorMetrics(waiting=work.waiting, unfinished=unfinished))

    def told(door: Door) -> tuple[float | None, ...]:
        names = ("est_operator_queue_keys", "est_operator_queue_oldest_seconds", "est_operator_open_requests")
        return tuple(metrics.registry.get_sample_value(name, {"door": door}) for name in names)

    assert told(Door.CERT_MANAGER) == told(Door.EST_ISSUER) == (0, 0, 0)
    for name in ("one", "two"):
        unfinished.observe(approved(name=name))
        work.add(approved(name=name).key)
        clock.seconds += 5
    unfinished.observe(request_of(name="waiting"))
    work.add_after(request_of(name="waiting").key, 60)
    assert told(Door.CERT_MANAGER) == (2, 10, 2)
    assert told(Door.EST_ISSUER) == (1, 0, 1)
