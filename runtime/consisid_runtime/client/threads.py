"""Runs asynchronous work for callers that have no event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")


class Running(Generic[Result]):
    """Work in a thread and an event loop of its own: nothing is shared, also not with forked processes.

    Attributes:
        result: what the work returns or raises.
    """

    def __init__(self, work: Coroutine[Any, Any, Result]) -> None:
        self.result: Future[Result] = Future()
        self._started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = Future()
        main = _main(work, self._started, self.result)
        threading.Thread(target=lambda: asyncio.run(main), daemon=True).start()

    def cancel(self) -> None:
        """Cancel the work, unless it has ended. From any thread; does not wait."""
        if self.result.done():
            return
        loop, task = self._started.result()
        with contextlib.suppress(RuntimeError):  # it ended in this moment
            loop.call_soon_threadsafe(task.cancel)


def wait_for(work: Coroutine[Any, Any, Result]) -> Result:
    """What `work` returns or raises; a caller who is interrupted cancels it."""
    running = Running(work)
    try:
        return running.result.result()
    finally:
        running.cancel()


async def _main(
    work: Coroutine[Any, Any, Result],
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]],
    result: Future[Result],
) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().set_exception_handler(_report)
    started.set_result((asyncio.get_running_loop(), task))
    try:
        result.set_result(await work)
    except BaseException as error:
        result.set_exception(error)


def _report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Report what goes wrong in a callback, but for what gRPC says of loops other than this one.

    It has one queue of events for all loops of a process. Of an event of a loop that has ended, and of one that another
    loop has taken, it raises; neither loses a later event (https://github.com/grpc/grpc/issues/25364).
    """
    if "PollerCompletionQueue" not in context["message"]:
        loop.default_exception_handler(context)
