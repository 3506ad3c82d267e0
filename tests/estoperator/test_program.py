"""What runs only while this replica leads."""

import asyncio
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from estoperator.doors import DOORS, KubernetesDoor
from estoperator.metrics import Metrics
from estoperator.open_requests import OpenRequests
from estoperator.program import Program, request_queue
from estoperator.resources import CertRequest
from estoperator.workqueue import WorkQueue
from tests.estoperator.builders import pod_request, request_of, signing_request
from tests.estoperator.test_workqueue import Clock, take


@dataclass
class Leadership:
    """Leads until a test says otherwise."""

    leading: asyncio.Event = field(default_factory=asyncio.Event)
    lost: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def release(self) -> None:
        return


@dataclass
class Issuers:
    """Known after the first poll; from the second one on estserver does not answer."""

    known: bool = False
    hangs: asyncio.Event = field(default_factory=asyncio.Event)

    def start_over(self) -> None:
        self.known = False

    async def poll(self) -> None:
        if self.known:
            self.hangs.set()
            await asyncio.Event().wait()
        self.known = True

    async def work(self, _: object) -> None:
        return


def asked_by(tenant: str, name: str, door: KubernetesDoor) -> CertRequest:
    match door.plural:
        case "certificatesigningrequests":
            one = signing_request(username=f"system:serviceaccount:{tenant}:web", signerName=f"estissuers.est-issuer.io/{name}.factory")
            return replace(one, key=one.key._replace(name=name))
        case "podcertificaterequests":
            one = pod_request(namespace=tenant)
            return replace(one, key=one.key._replace(name=name))
        case _:
            return request_of(door, namespace=tenant, name=name)


@pytest.mark.spec("THREAT-34")
@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
async def test_a_tenants_requests_that_hang_keep_no_other_tenants_waiting_at_any_door(door: KubernetesDoor) -> None:
    seen, workers = OpenRequests(), 16
    queue = request_queue(seen, workers=workers, clock=Clock())
    queue.resume()
    for request in (*(asked_by("flood", f"flood-{number}", door) for number in range(40)), asked_by("quiet", "quiet-1", door)):
        seen.observe(request)
        queue.add(request.key)
    taken = [key for _ in range(workers) if (key := await take(queue)) is not None]
    assert "quiet-1" in [key.name for key in taken]
    assert len(taken) == workers * 3 // 4 + 1, "the flood holds a share"


async def test_a_leader_that_is_one_no_more_hands_out_nothing_though_estserver_hangs() -> None:
    leadership, issuers, metrics = Leadership(), Issuers(), Metrics()
    requests: WorkQueue[Any] = WorkQueue(clock=Clock(), per_namespace=9)
    issuer_queue: WorkQueue[Any] = WorkQueue(clock=Clock(), per_namespace=9)
    removals: WorkQueue[Any] = WorkQueue(clock=Clock(), per_namespace=9)
    idle = SimpleNamespace(run=asyncio.Event().wait, posted=_nothing, work=_nothing)
    program = Program(
        issuing=cast("Any", idle),
        issuers=cast("Any", issuers),
        namespaces=cast("Any", None),
        requests=requests,
        issuer_queue=issuer_queue,
        leadership=cast("Any", leadership),
        retention=cast("Any", SimpleNamespace(queue=removals, work=_nothing)),
        metrics=metrics,
        events=cast("Any", idle),
        workers=0,
        poll_interval=0.001,
    )
    running = asyncio.create_task(program.run())
    leadership.leading.set()
    async with asyncio.timeout(5):
        await issuers.hangs.wait()
    requests.add(Key("a"))
    assert requests.pressed()
    leadership.leading.clear()
    leadership.lost.set()
    for _ in range(9):  # turns of the event loop, no time
        await asyncio.sleep(0)
    assert not requests.pressed()
    assert metrics.registry.get_sample_value("est_operator_leader") == 0
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@dataclass(frozen=True)
class Key:
    namespace: str


async def _nothing(*_: object) -> None:
    return
