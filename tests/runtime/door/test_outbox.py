import asyncio
from collections.abc import Sequence

from consisid_runtime.door.outbox import MOST, Outbox
from consisid_runtime.events import Event


def taken(events: Sequence[Event]) -> list[Event]:
    """What a caller takes who reads only once all of these have come, and the work has ended."""

    async def take() -> list[Event]:
        outbox, work = Outbox(), asyncio.get_running_loop().create_future()
        for event in events:
            outbox.put(event)
        work.set_result(None)
        found = []
        while (event := await outbox.take(work)) is not None:
            found.append(event)
        return found

    return asyncio.run(take())


def test_steps_that_are_told_at_once_are_all_taken_in_order() -> None:
    steps = [Event("denoise", done, MOST) for done in range(1, MOST + 1)]
    assert taken(steps) == steps


def test_of_too_many_the_oldest_are_lost() -> None:
    steps = [Event("denoise", done, 1000) for done in range(1, 1001)]
    assert taken(steps) == steps[-MOST:]


def test_only_the_latest_preview_and_checkpoint_are_kept() -> None:
    found = taken(
        [
            Event("denoise", 1, 4, preview=b"first", checkpoint=b"state"),
            Event("denoise", 2, 4),
            Event("denoise", 3, 4, preview=b"second"),
            Event("denoise", 4, 4),
        ]
    )
    assert [event.preview for event in found] == [None, None, b"second", None]
    assert [event.checkpoint for event in found] == [b"state", None, None, None]


def test_the_latest_preview_and_checkpoint_outlive_their_event() -> None:
    steps = [Event("denoise", done, 1000) for done in range(2, 1001)]
    first, *others = taken([Event("denoise", 1, 1000, preview=b"jpeg", checkpoint=b"state"), *steps])
    assert (first.preview, first.checkpoint) == (b"jpeg", b"state")
    assert not [event for event in others if event.preview or event.checkpoint]


def test_an_event_that_comes_while_a_caller_waits_is_taken() -> None:
    async def wait() -> tuple[Event | None, Event | None]:
        outbox, work = Outbox(), asyncio.get_running_loop().create_future()
        waiting = asyncio.create_task(outbox.take(work))
        await asyncio.sleep(0)
        outbox.put(Event("face", 0, 1))
        first = await waiting
        asyncio.get_running_loop().call_later(0.01, work.set_result, None)
        return first, await outbox.take(work)

    assert asyncio.run(wait()) == (Event("face", 0, 1), None)
