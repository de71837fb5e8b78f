"""Memory is reserved before a request is read, in order, and never more than there is."""

from __future__ import annotations

import asyncio

import pytest

from consisid_runtime.door.admission.budget import Budget
from consisid_runtime.door.limits import Limits
from consisid_runtime.errors import Busy

LIMITS = Limits(in_flight=100, share=0.6, body_seconds=0.05)


async def hold(budget: Budget, owner: str, size: int, seconds: float, log: list[tuple[str, int]]) -> None:
    async with budget.reserve(owner, size):
        log.append((owner, budget.used))
        await asyncio.sleep(seconds)


def test_requests_wait_for_memory_in_their_order() -> None:
    async def run() -> list[tuple[str, int]]:
        budget, log = Budget(Limits(in_flight=100, share=1.0)), []  # type: ignore[var-annotated]
        wanted = (("a", 60), ("b", 60), ("c", 30))
        await asyncio.gather(*(hold(budget, owner, size, 0.01, log) for owner, size in wanted))
        assert budget.used == 0 and not budget._owners
        return log

    assert asyncio.run(run()) == [("a", 60), ("b", 90), ("c", 90)], "the small one does not overtake the large one"


def test_one_owner_leaves_room_for_others() -> None:
    async def run() -> list[tuple[str, int]]:
        budget, log = Budget(LIMITS), []  # type: ignore[var-annotated]
        wanted = (("a", 50), ("a", 20), ("b", 40))
        await asyncio.gather(*(hold(budget, owner, size, 0.01, log) for owner, size in wanted))
        return log

    assert [owner for owner, _ in asyncio.run(run())] == ["a", "b", "a"]


def test_one_request_alone_always_fits_its_owner() -> None:
    async def run() -> None:
        async with Budget(LIMITS).reserve("a", 90) as held:
            assert held.size == 90

    asyncio.run(run())


def test_who_waits_too_long_is_refused_and_what_shrinks_makes_room() -> None:
    async def run() -> None:
        budget, log = Budget(LIMITS), []  # type: ignore[var-annotated]
        async with budget.reserve("a", 100) as held:
            with pytest.raises(Busy, match="no memory for a request of 10 bytes") as refused:
                await hold(budget, "b", 10, 0, log)
            assert refused.value.retry_after == 5
            left = asyncio.create_task(hold(budget, "b", 10, 0, log))
            await asyncio.sleep(0)
            left.cancel()
            waiting = asyncio.create_task(hold(budget, "b", 10, 0, log))
            await asyncio.sleep(0)
            held.resize(20)
            await waiting
        assert log == [("b", 30)] and budget.used == 0 and not budget._waiting

    asyncio.run(run())
