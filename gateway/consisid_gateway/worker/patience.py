"""Waiting for what does not answer: a database, a store, a server."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from consisid_gateway.errors import StorageUnavailable

log = logging.getLogger(__name__)
_T = TypeVar("_T")

_PAUSE, _LONGEST_PAUSE = 0.2, 5.0
"""Seconds."""


class Ending(Exception):
    """The worker is to end: what it does is left as it is, for another one."""


class Patience:
    """Of a worker, until it is to end.

    Args:
        ending: set where the worker is to end.
    """

    def __init__(self, ending: threading.Event) -> None:
        self.ending = ending

    def call(self, run: Callable[[], _T]) -> _T:
        """Again and again while the database or the store is away. Raises `Ending`."""
        for pause in pauses():
            try:
                return run()
            except StorageUnavailable as error:
                log.warning("%s", error)
                self.rest(pause)
        raise AssertionError("pauses never end")

    def rest(self, seconds: float, look: Callable[[], None] = lambda: None) -> None:
        """Calls `look`, which may raise, twice a second. Raises `Ending`."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self.ending.wait(min(left, 0.5)):
                raise Ending
            look()


def pauses() -> Iterator[float]:
    """Seconds, growing."""
    pause = _PAUSE
    while True:
        yield pause
        pause = min(2 * pause, _LONGEST_PAUSE)
