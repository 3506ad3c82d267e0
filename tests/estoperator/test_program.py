"""What runs only while this replica leads."""

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

from estoperator.metrics import Metrics
from estoperator.program import Program
from estoperator.workqueue import WorkQueue
from tests.estoperator.test_workqueue import Clock


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
