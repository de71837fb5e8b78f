"""Work beside a test: a thread with a result, and waiting with an end."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

Result = TypeVar("Result")


class Later(Generic[Result]):
    """Calls `work` in a thread at once."""

    def __init__(self, work: Callable[[], Result]) -> None:
        self._work = work
        self._found: list[Result] = []
        self._failed: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._found.append(self._work())
        except BaseException as error:
            self._failed.append(error)

    def done(self) -> bool:
        return not self._thread.is_alive()

    def result(self, seconds: float = 150.0) -> Result:
        """Raises what `work` raised, and `AssertionError` where it hangs."""
        self._thread.join(None if math.isinf(seconds) else seconds)
        assert self.done(), f"not done after {seconds:g} s"
        if self._failed:
            raise self._failed[0]
        return self._found[0]


def wait_for(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Raises `AssertionError` where it does not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"after {seconds:g} s still waiting until {what}"
        time.sleep(0.05)
