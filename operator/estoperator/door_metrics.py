"""What waits at each door, counted when it is scraped: as many series as there are doors, whoever asks for what."""

from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from estcore.requester import Door
from estoperator.doors import DOORS
from estoperator.resources import RequestKey


class DoorMetrics(Collector):
    """`waiting` gives each key in the queue with its seconds there, `unfinished` each request that is not finished."""

    def __init__(self, *, waiting: Callable[[], Iterable[tuple[RequestKey, float]]], unfinished: Iterable[RequestKey]) -> None:
        self._waiting, self._unfinished = waiting, unfinished

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Three gauges, each with every door."""
        depth, oldest, unfinished = (dict.fromkeys(DOORS, 0.0) for _ in range(3))
        for key, seconds in self._waiting():
            depth[key.door] += 1
            oldest[key.door] = max(oldest[key.door], seconds)
        for key in self._unfinished:
            unfinished[key.door] += 1
        yield _gauge("est_operator_queue_keys", "Requests that wait for work, the delayed ones included, by door", depth)
        yield _gauge("est_operator_queue_oldest_seconds", "Age of the oldest request that is ready for work, by door", oldest)
        yield _gauge("est_operator_open_requests", "Requests that are not finished, by door", unfinished)


def _gauge(name: str, documentation: str, values: dict[Door, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, documentation, labels=["door"])
    for door, value in values.items():
        family.add_metric([door], value)
    return family
