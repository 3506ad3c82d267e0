"""The list-watch loop against a scripted API: what makes it list again, how long it waits, and what it never forgets."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from typing import Any

import pytest

from estserver.kubernetes_api import ApiError, Listed, Object
from estserver.reflector import Reflector

Step = Listed | ApiError | Sequence[tuple[str, Object] | ApiError]


def item(name: str, version: int, **more: Any) -> Object:
    return {"metadata": {"namespace": "devices", "name": name, "resourceVersion": str(version)}, **more}


class Script:
    """Answers list and watch in turn; when nothing is left, everything is quiet for ever."""

    def __init__(self, *steps: Step) -> None:
        self.steps = list(steps)
        self.asked: list[str] = []
        self.slept: list[float] = []
        self.changes: list[list[str]] = []
        self.done = asyncio.Event()
        self.reflector = Reflector(
            self, "/apis/x", field_selector="metadata.name=a", changed=self._changed, sleep=self._sleep, jitter=lambda: 1.0
        )

    def _changed(self) -> None:
        self.changes.append(sorted(name for _, name in self.reflector.objects))

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    async def _next(self) -> Step:
        if not self.steps:
            self.done.set()
            await asyncio.Event().wait()
        return self.steps.pop(0)

    async def list(self, path: str, *, field_selector: str = "") -> Listed:
        assert (path, field_selector) == ("/apis/x", "metadata.name=a")
        self.asked.append("list")
        step = await self._next()
        if isinstance(step, ApiError):
            raise step
        assert isinstance(step, Listed)
        return step

    async def watch(self, path: str, resource_version: str, *, field_selector: str = "") -> AsyncGenerator[tuple[str, Object], None]:
        assert (path, field_selector) == ("/apis/x", "metadata.name=a")
        self.asked.append(f"watch {resource_version}")
        step = await self._next()
        if isinstance(step, ApiError):
            raise step
        assert not isinstance(step, Listed)
        for event in step:
            if isinstance(event, ApiError):
                raise event
            yield event

    async def play(self) -> "Script":
        task = asyncio.create_task(self.reflector.run())
        try:
            await asyncio.wait_for(self.done.wait(), 5)
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        return self


A, B = item("a", 1), item("b", 2)


async def test_what_is_listed_and_then_watched_is_kept() -> None:
    script = await Script(Listed((A,), "10"), [("ADDED", B), ("DELETED", item("a", 12)), ("MODIFIED", item("b", 13, x=1))]).play()
    assert script.changes == [["a"], ["a", "b"], ["b"], ["b"]]
    assert script.reflector.objects["devices", "b"]["x"] == 1


async def test_a_watch_that_ends_goes_on_from_the_newest_version_bookmarks_included() -> None:
    script = await Script(Listed((A,), "10"), [("ADDED", item("b", 11)), ("BOOKMARK", item("", 20))], []).play()
    assert script.asked == ["list", "watch 10", "watch 20", "watch 20"]
    assert script.changes == [["a"], ["a", "b"]], "a bookmark is no change"


@pytest.mark.parametrize("gone", [ApiError("too old", status=410), [ApiError("too old", status=410)]])
async def test_a_version_that_is_gone_is_listed_anew_and_nothing_is_wrong(gone: Step) -> None:
    script = await Script(Listed((A,), "10"), gone, Listed((A, B), "30"), []).play()
    assert script.asked[:4] == ["list", "watch 10", "list", "watch 30"]
    assert script.reflector.problem is None
    assert script.changes == [["a"], ["a", "b"]], "what did not change was never missing in between"


@pytest.mark.spec("THREAT-33")
async def test_an_outage_forgets_nothing_and_waits_ever_longer() -> None:
    away = ApiError("away")
    script = await Script(Listed((A,), "10"), [away], *[away] * 9).play()
    assert script.reflector.objects == {("devices", "a"): A}
    assert script.slept == [0.5, 1, 2, 4, 8, 10, 10, 10, 10, 10]
    assert script.reflector.problem is away


async def test_after_an_outage_the_wait_is_short_again() -> None:
    away = ApiError("away")
    script = await Script(away, away, Listed((A,), "1"), [("ADDED", B), away], away).play()
    assert script.slept == [0.5, 1, 0.5, 1]


async def test_a_watch_that_ends_at_once_does_not_spin() -> None:
    script = await Script(Listed((), "1"), [], [], []).play()
    assert script.slept == [0.5, 1, 2]


async def test_a_missing_right_is_told_once_and_asked_for_every_five_seconds() -> None:
    no = ApiError("no", status=403)
    script = await Script(no, no, no, Listed((A,), "1")).play()
    assert script.slept == [5, 5, 5]
    assert script.changes == [[], ["a"]]
    assert script.reflector.problem is None


async def test_what_a_starting_api_server_forbids_is_asked_for_again_before_anybody_is_told() -> None:
    """Its RBAC knows nothing for a second or two, and each issuer's status would be written twice at every restart."""
    no, away = ApiError("no", status=403), ApiError("away")
    script = await Script(Listed((A,), "1"), [no], Listed((A, B), "5"), [no], Listed((A, B), "9")).play()
    assert script.slept == [5, 5]
    assert script.changes == [["a"], ["a", "b"]]
    script = await Script(Listed((A,), "1"), [away], no).play()
    assert script.reflector.problem is away


async def test_a_right_that_is_taken_away_is_told_at_the_second_refusal() -> None:
    no = ApiError("no", status=403)
    script = await Script(Listed((A,), "1"), [no], no, no).play()
    assert script.slept == [5, 5, 5]
    assert script.changes == [["a"], ["a"]]
    assert script.reflector.problem is no
    assert script.reflector.objects == {("devices", "a"): A}


async def test_the_server_may_ask_for_a_longer_wait() -> None:
    script = await Script(ApiError("slow down", status=429, retry_after_seconds=17)).play()
    assert script.slept == [17]


@pytest.mark.parametrize("odd", [{}, {"metadata": {}}, {"metadata": None}, {"metadata": {"name": "x"}}])
async def test_an_odd_object_does_not_end_the_loop(odd: Object) -> None:
    script = await Script(Listed((A,), "1"), [("ADDED", odd)], Listed((A, B), "5")).play()
    assert set(script.reflector.objects) == {("devices", "a"), ("devices", "b")}


async def test_only_what_is_to_be_kept_is_kept() -> None:
    script = Script(Listed((item("a", 1, secret="canary"),), "1"), [("MODIFIED", item("a", 2, secret="canary"))])
    script.reflector = Reflector(
        script,
        "/apis/x",
        field_selector="metadata.name=a",
        changed=lambda: None,
        sleep=script._sleep,
        keep=lambda found: {"metadata": found["metadata"]},
    )
    await script.play()
    assert "canary" not in str(script.reflector.objects)
