"""Streams: what a request says of itself while it is worked on, and then its video."""

from __future__ import annotations

import asyncio
import contextlib
import queue
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self

from consisid_runtime.client.threads import Running
from consisid_runtime.errors import RequestCancelled
from consisid_runtime.events import Event
from consisid_runtime.video import Video

Item = Event | Video
Put = Callable[[Item], None]
Work = Callable[[Put], Coroutine[Any, Any, None]]
"""Puts a request's items as they come; returns behind the video. Raises what ends the request otherwise."""


class AsyncStream:
    """An asynchronous iterator of events, and the video as its last item. The request begins with the first `anext`.

    It is ended at the server by `cancel`, by leaving the `async with` block of the stream, and where the task that
    waits for an item is cancelled.
    """

    def __init__(self, work: Work) -> None:
        self._work: Work | None = work
        self._items: asyncio.Queue[Item | BaseException] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._over = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        """Raises as `generate`, and `RequestCancelled` after `cancel`."""
        if self._over:
            raise StopAsyncIteration
        if self._work is not None:
            work, self._work = self._work, None
            self._task = asyncio.create_task(_fill(work, self._items))
        try:
            item = await self._items.get()
        except asyncio.CancelledError:
            self.cancel()
            raise
        self._over = not isinstance(item, Event)
        if isinstance(item, BaseException):
            raise item
        return item

    async def video(self, on_progress: Callable[[Event], object] = lambda event: None) -> Video:
        """The video; events go to `on_progress`, which may raise. Raises as `anext`."""
        async with self:
            async for item in self:
                if isinstance(item, Video):
                    return item
                on_progress(item)
        raise _cancelled()

    def cancel(self) -> None:
        """End the request, in the stream's event loop. Idempotent."""
        if self._task is not None:
            self._task.cancel()
        elif self._work is not None:
            self._work = None
            self._items.put_nowait(_cancelled())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()
        if self._task is not None:
            await asyncio.wait({self._task})

    def __del__(self) -> None:
        if self._task is not None and not self._task.done():
            with contextlib.suppress(RuntimeError):  # its loop has ended
                self._task.get_loop().call_soon_threadsafe(self._task.cancel)


class Stream:
    """An iterator of events, and the video as its last item. The request begins with the first `next`.

    It is ended at the server by `cancel`, from any thread, and by leaving the `with` block of the stream.
    """

    def __init__(self, work: Work) -> None:
        self._work: Work | None = work
        self._items: queue.SimpleQueue[Item | BaseException] = queue.SimpleQueue()
        self._running: Running[None] | None = None
        self._over = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Item:
        """Raises as `generate`, and `RequestCancelled` after `cancel`."""
        if self._over:
            raise StopIteration
        if self._work is not None:
            work, self._work = self._work, None
            self._running = Running(_pass_on(work, self._items.put))
        try:
            item = self._items.get()
        except BaseException:
            self.cancel()
            raise
        self._over = not isinstance(item, Event)
        if isinstance(item, BaseException):
            raise item
        return item

    def video(self, on_progress: Callable[[Event], object] = lambda event: None) -> Video:
        """Wait for the video; events go to `on_progress`, which may raise. Raises as `next`."""
        with self:
            for item in self:
                if isinstance(item, Video):
                    return item
                on_progress(item)
        raise _cancelled()

    def cancel(self) -> None:
        """End the request. Idempotent; does not wait."""
        if self._running is not None:
            self._running.cancel()
        elif self._work is not None:
            self._work = None
            self._items.put(_cancelled())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    def __del__(self) -> None:
        if self._running is not None:
            self._running.cancel()


async def _fill(work: Work, items: asyncio.Queue[Any]) -> None:
    await _pass_on(work, items.put_nowait)


async def _pass_on(work: Work, put: Callable[[Any], None]) -> None:
    """Puts the items of `work`, and what it raises."""
    try:
        await work(put)
    except asyncio.CancelledError:
        put(_cancelled())
    except BaseException as error:
        put(error)


def _cancelled() -> RequestCancelled:
    return RequestCancelled("the request was cancelled before its video was done")
