"""The calls of one client that are in flight, so that `close` can end them."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Coroutine
from typing import Any, TypeVar

from consisid_runtime.errors import ClientClosed

Result = TypeVar("Result")


class Calls:
    """For any thread and event loop. Without a lock: one that is held during a fork would stay locked in the child."""

    def __init__(self) -> None:
        self._closed = False
        self._running: set[tuple[int, asyncio.AbstractEventLoop, asyncio.Task[Any]]] = set()

    async def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """One call, which `close` ends. Raises `ClientClosed` then, and where the client was closed before."""
        task = asyncio.ensure_future(work)
        call = (os.getpid(), asyncio.get_running_loop(), task)
        self._running.add(call)
        try:
            if self._closed:
                task.cancel()
                await asyncio.wait({task})
                raise ClientClosed("the client was closed before this call")
            return await task
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if self._closed and not (current and current.cancelling()):
                raise ClientClosed("the client was closed while this call waited") from None
            raise
        finally:
            self._running.discard(call)

    def close(self) -> None:
        """End the calls of this process and refuse further ones. Idempotent."""
        self._closed = True
        for process, loop, task in self._running.copy():
            if process == os.getpid():
                with contextlib.suppress(RuntimeError):  # the loop has ended, and the call with it
                    loop.call_soon_threadsafe(task.cancel)
