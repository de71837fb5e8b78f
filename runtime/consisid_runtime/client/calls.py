"""The calls of one transport that are in flight, so that `close` can end them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from consisid_runtime.errors import ClientClosed


class Calls:
    """Thread-safe without a lock: one that another thread holds during a fork would stay locked in the child."""

    def __init__(self) -> None:
        self._closed = False
        self._running: set[tuple[int, Callable[[], None]]] = set()

    @contextmanager
    def running(self, end: Callable[[], None]) -> Iterator[None]:
        """One call, which `close` ends by `end`. Raises `ClientClosed` instead of any error of a call so ended."""
        call = (os.getpid(), end)
        self._running.add(call)
        try:
            if self._closed:
                raise ClientClosed("the client was closed before this call")
            yield
        except Exception as error:
            if self._closed and not isinstance(error, ClientClosed):
                raise ClientClosed("the client was closed while this call waited") from error
            raise
        finally:
            self._running.discard(call)

    def close(self) -> None:
        """End the calls of this process and refuse further ones. Idempotent."""
        self._closed = True
        for process, end in self._running.copy():
            if process == os.getpid():
                end()
