"""Waits for what may take long, and may have to be left."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import TypeVar

Found = TypeVar("Found")


async def unless(event: asyncio.Event, wanted: Awaitable[Found], error: Exception) -> Found:
    """What `wanted` returns; where the event is set before, `wanted` is cancelled and `error` raised."""
    found, left = asyncio.ensure_future(wanted), asyncio.create_task(event.wait())
    try:
        await asyncio.wait({found, left}, return_when=asyncio.FIRST_COMPLETED)
        if not found.done():
            raise error
        return found.result()
    finally:
        found.cancel()
        left.cancel()


async def aside(work: Callable[[], Found]) -> Found:
    """Call it in a thread. Where this is cancelled, the call goes on, and ends with the process at the latest.

    A thread of its own: a process waits at its end for those of a pool.
    """
    found: Future[Found] = Future()
    found.set_running_or_notify_cancel()

    def call() -> None:
        try:
            found.set_result(work())
        except BaseException as error:
            found.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    return await asyncio.wrap_future(found)
