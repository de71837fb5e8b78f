"""Runs asynchronous calls for callers that have no event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

Result = TypeVar("Result")


def wait_for(work: Coroutine[Any, Any, Result]) -> Result:
    """What `work` returns or raises, in a thread and an event loop of its own; a caller who is interrupted cancels it.

    Nothing is shared between calls, so that threads and forked processes need not know of each other.
    """
    result: Future[Result] = Future()
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = Future()

    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        started.set_result((asyncio.get_running_loop(), task))
        try:
            result.set_result(await work)
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=lambda: asyncio.run(main()), daemon=True).start()
    try:
        return result.result()
    finally:
        if not result.done():
            loop, task = started.result()
            with contextlib.suppress(RuntimeError):  # it ended in this moment
                loop.call_soon_threadsafe(task.cancel)
