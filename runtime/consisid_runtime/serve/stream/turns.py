"""Which of several requests computes next, on one device: urgent ones first, else the one that came first.

A request is worked on in parts; between two of them another may have its turn.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

from consisid_runtime.errors import Busy

_LOOK_SECONDS = 0.1
"""Between two looks at whether those that wait were left by their callers."""


class Job(Protocol):
    """A request that computes in parts.

    Attributes:
        urgent: before all that are not.
        left: seconds until it is done, as far as known.
    """

    urgent: bool
    left: float | None

    def part(self) -> bool:
        """Compute the next part; whether there are more. Its errors are its own: it does not raise."""

    def waits(self, position: int, seconds: float | None) -> None:
        """It waits for so many others, which take so long, as far as known. Does not raise."""

    def dropped(self) -> bool:
        """Whether its caller left, in which case it has ended. Does not raise."""


class Turns:
    """One thread runs the jobs, others add them.

    Args:
        most: jobs at once.
        clock: seconds.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock = most, clock
        self._changed = threading.Condition()
        self._jobs: list[Job] = []
        self._told: dict[int, int] = {}
        self._running: Job | None = None
        self._closed = False
        self._looked = clock()

    def add(self, job: Job) -> None:
        """Raises `Busy` where there are too many."""
        with self._changed:
            if len(self._jobs) >= self._most:
                raise Busy(f"{self._most} requests are here already; this one was not begun")
            self._jobs.append(job)
            self._jobs.sort(key=lambda job: not job.urgent)
            if self._running is not None:
                self._tell()
            self._changed.notify()

    def ahead(self) -> tuple[int, float | None]:
        """Jobs before one that is added now and is not urgent, and the seconds that they take, None while unknown."""
        with self._changed:
            left = [job.left for job in self._jobs]
        return len(left), None if None in left else sum(seconds or 0.0 for seconds in left)

    def run(self) -> None:
        """Run jobs until `close`."""
        while (job := self._next()) is not None:
            more = job.part()
            if not more:
                self._remove(job)

    def close(self) -> None:
        """End `run` after the part that is being computed."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _next(self) -> Job | None:
        with self._changed:
            self._sweep()
            while not self._jobs and not self._closed:
                self._running = None
                self._changed.wait()
            if self._closed:
                return None
            self._running = self._jobs[0]
            self._tell()
            return self._running

    def _remove(self, job: Job) -> None:
        with self._changed:
            self._jobs.remove(job)
            self._told.pop(id(job), None)

    def _sweep(self) -> None:
        """End those that wait and were left; the next to compute looks for itself."""
        if self._clock() - self._looked < _LOOK_SECONDS:
            return
        self._looked = self._clock()
        for job in self._jobs[1:]:
            if job.dropped():
                self._remove(job)

    def _tell(self) -> None:
        """Tell each job that waits how many are before it, where that has changed."""
        running = self._running
        before = [running] if running is not None else []
        for job in self._jobs:
            if job is running:
                self._told.pop(id(job), None)
                continue
            if self._told.get(id(job)) != len(before):
                self._told[id(job)] = len(before)
                left = [other.left for other in before]
                job.waits(len(before), None if None in left else sum(seconds or 0.0 for seconds in left))
            before.append(job)
