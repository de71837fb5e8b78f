"""Who runs next, who is refused, and what a refusal says."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any

import pytest

from consisid_runtime.door.admission import queue as subject
from consisid_runtime.door.admission.queue import Queue
from consisid_runtime.door.limits import Limits
from consisid_runtime.errors import Busy, ServerTimeout, ServerUnreachable

LATER = 1e9


async def enter(queue: Queue, name: str, order: list[str], owner: str = "a", **settings: Any) -> None:
    await queue.enter(owner, **{"until": LATER, "urgent": False, **settings})
    order.append(name)


def start(*waiting: Coroutine[Any, Any, None]) -> list[asyncio.Task[None]]:
    return [asyncio.create_task(one) for one in waiting]


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_one_ordinary_and_one_urgent_run_at_once_else_first_come() -> None:
    async def run() -> list[str]:
        queue, order = Queue(Limits()), []  # type: ignore[var-annotated]
        await enter(queue, "first", order)
        tasks = start(
            enter(queue, "second", order),
            enter(queue, "third", order),
            enter(queue, "urgent", order, urgent=True),
            enter(queue, "urgent too", order, urgent=True),
        )
        await settle()
        assert order == ["first", "urgent"] and queue.waiting == 3 and queue.running == 2
        for urgent in (True, False, True, False, False):
            queue.leave(urgent=urgent)
            await settle()
        await asyncio.gather(*tasks)
        assert queue.waiting == queue.running == 0
        return order

    assert asyncio.run(run()) == ["first", "urgent", "urgent too", "second", "third"]


def test_who_asks_for_the_next_end_misses_none() -> None:
    """Also where the last one ends before whoever asked is first run."""

    async def run() -> None:
        queue, order = Queue(Limits()), []  # type: ignore[var-annotated]
        await enter(queue, "runs", order)
        queue.begin(urgent=False)
        asyncio.get_running_loop().call_soon(lambda: queue.leave(urgent=False))
        await asyncio.wait_for(asyncio.ensure_future(queue.next_end()), 1)
        assert not queue.computes

    asyncio.run(run())


def test_who_does_not_wait_does_not_while_turns_are_held() -> None:
    queue = Queue(Limits())
    queue.require_idle()
    queue.hold(1.0)
    with pytest.raises(Busy):
        queue.require_idle()


def test_the_oldest_is_who_waits_longest() -> None:
    async def run() -> None:
        queue, order = Queue(Limits()), []  # type: ignore[var-annotated]
        await enter(queue, "runs", order)
        began = time.monotonic()
        tasks = start(enter(queue, "second", order))
        await settle()
        await asyncio.sleep(0.05)
        came = time.monotonic()
        tasks += start(enter(queue, "third", order))
        await settle()
        assert 0.05 <= queue.oldest <= time.monotonic() - began
        queue.leave(urgent=False)
        assert queue.oldest <= time.monotonic() - came, "the second runs"
        queue.leave(urgent=False)
        assert queue.oldest == 0
        await asyncio.gather(*tasks)

    asyncio.run(run())


def test_an_ordinary_one_lets_few_urgent_ones_pass() -> None:
    async def run() -> None:
        queue, order = Queue(Limits(urgent_row=2)), []  # type: ignore[var-annotated]
        await enter(queue, "first", order)
        tasks = start(*(enter(queue, f"urgent {n}", order, urgent=True) for n in range(4)), enter(queue, "next", order))
        for _ in range(2):
            await settle()
            queue.leave(urgent=True)
        await settle()
        assert order == ["first", "urgent 0", "urgent 1"], "two have passed"
        queue.leave(urgent=False)
        await settle()
        assert order[3:] == ["urgent 2", "next"]
        queue.leave(urgent=False)
        queue.leave(urgent=True)
        await settle()
        queue.leave(urgent=True)
        await asyncio.gather(*tasks)
        for _ in range(9):
            await enter(queue, "alone", order, urgent=True)
            queue.leave(urgent=True)

    asyncio.run(run())


def test_who_waits_hears_how_many_are_before_it() -> None:
    async def run() -> None:
        queue, heard = Queue(Limits()), {}  # type: ignore[var-annotated]

        async def ask(name: str, seconds: float | None, *, urgent: bool = False) -> None:
            heard[name] = []
            moved = lambda *position: heard[name].append(position)  # noqa: E731
            await queue.enter("a", LATER, urgent=urgent, seconds=seconds, moved=moved)

        await ask("first", 10.0)
        tasks = start(ask("second", 10.0), ask("third", 5.0), ask("unknown", None))
        await settle()
        assert heard == {"first": [(0, 10.0)], "second": [(1, 20.0)], "third": [(2, 25.0)], "unknown": [(3, None)]}
        await ask("urgent", 1.0, urgent=True)
        assert heard["urgent"] == [(0, 1.0)] and heard["second"][-1] == (2, 21.0) and heard["third"][-1] == (3, 26.0)
        queue.leave(urgent=True)
        tasks[0].cancel()
        await settle()
        assert heard["third"][-1] == (1, 15.0) and heard["unknown"][-1] == (2, None)
        queue.leave(urgent=False)
        await settle()
        assert heard["third"][-1] == (0, 5.0)
        tasks[-1].cancel()

    asyncio.run(run())


def test_who_does_not_fit_is_refused_at_once_and_told_when_to_come_back() -> None:
    async def run() -> None:
        queue, order = Queue(Limits(queue=4, share=0.5)), []  # type: ignore[var-annotated]
        await enter(queue, "first", order)
        queue.begin(urgent=False)
        tasks = start(enter(queue, "second", order), enter(queue, "third", order))
        await settle()
        with pytest.raises(Busy, match="2 requests of this address wait; try again in 5 s") as refused:
            await enter(queue, "fourth", order)
        assert refused.value.retry_after == 5, "nothing has succeeded yet"
        tasks += start(*(enter(queue, name, order, "b") for name in "xy"))
        await settle()
        with pytest.raises(Busy, match="4 requests wait"):
            queue.require_room("c")
        for task in tasks:
            task.cancel()
        await settle()
        assert queue.waiting == 0, "who has left takes no place"
        queue.require_room("a")

    asyncio.run(run())


def test_only_a_success_says_how_long_a_video_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(subject, "time", SimpleNamespace(monotonic=lambda: now))

    async def run() -> None:
        nonlocal now
        queue = Queue(Limits())
        for took, success, mean in ((100.0, False, None), (10.0, True, 10.0), (0.1, False, 10.0), (20.0, True, 12.0)):
            await queue.enter("a", LATER, urgent=False)
            queue.begin(urgent=False)
            now += took
            queue.leave(urgent=False, success=success)
            wait = queue.wait()
            assert queue._mean == (None if mean is None else pytest.approx(mean))
            assert wait in (None, 0.0)
        await queue.enter("a", LATER, urgent=False)
        queue.begin(urgent=False)
        now += 2
        assert queue.wait() == pytest.approx(10.0)
        now += 100
        assert queue.wait() == 0.0

    asyncio.run(run())


def test_a_deadline_that_cannot_be_met_is_refused_and_one_that_passes_ends_the_wait() -> None:
    async def run() -> None:
        queue = Queue(Limits())
        await queue.enter("a", LATER, urgent=False)
        queue.begin(urgent=False)
        with pytest.raises(ServerTimeout, match="it was not begun"):
            await queue.enter("a", time.monotonic() + 0.02, urgent=False)
        assert queue.waiting == 0
        queue._mean = 50.0
        with pytest.raises(Busy, match="too late for the request's deadline") as refused:
            await queue.enter("a", time.monotonic() + 1, urgent=False)
        assert refused.value.retry_after == 50
        queue.leave(urgent=False)
        await queue.enter("a", LATER, urgent=False)

    asyncio.run(run())


def test_a_turn_that_comes_as_its_owner_leaves_is_passed_on() -> None:
    async def run() -> None:
        queue, order = Queue(Limits()), []  # type: ignore[var-annotated]
        await enter(queue, "first", order)
        leaving, staying = start(enter(queue, "second", order), enter(queue, "third", order))
        await settle()
        queue.leave(urgent=False)
        leaving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await leaving
        await asyncio.wait_for(staying, 1)
        assert order == ["first", "third"]

    asyncio.run(run())


def test_a_queue_that_is_closed_hands_back_who_waits_as_not_begun() -> None:
    async def run() -> None:
        queue, order = Queue(Limits()), []  # type: ignore[var-annotated]
        await enter(queue, "first", order)
        (waiting,) = start(enter(queue, "second", order))
        await settle()
        queue.close()
        with pytest.raises(ServerUnreachable, match="not begun"):
            await waiting
        with pytest.raises(ServerUnreachable, match="sent elsewhere"):
            queue.require_room("b")
        queue.leave(urgent=False)
        assert order == ["first"]

    asyncio.run(run())
