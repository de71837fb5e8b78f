"""Times what happens between two calls on a device, and the memory it takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Gauge:
    """How a device is read.

    Attributes:
        wait: returns when the device has done everything that it was given.
        reset, peak: start anew, and read in bytes, the most memory that tensors held.
        now: seconds.
    """

    wait: Callable[[], None]
    reset: Callable[[], None]
    peak: Callable[[], int]
    now: Callable[[], float] = time.perf_counter


@dataclass(frozen=True, slots=True)
class Lap:
    """A stage's time on host and device together, and the most memory that tensors held in it."""

    stage: str
    seconds: float
    peak_bytes: int


class Stopwatch:
    """Called with the name of what begins, "" for nothing of interest: ends the lap before. `laps` are in order."""

    def __init__(self, gauge: Gauge) -> None:
        self.laps: list[Lap] = []
        self._gauge, self._stage, self._began = gauge, "", 0.0

    def __call__(self, stage: str) -> None:
        self._gauge.wait()
        if self._stage:
            self.laps.append(Lap(self._stage, self._gauge.now() - self._began, self._gauge.peak()))
        self._gauge.reset()
        self._stage, self._began = stage, self._gauge.now()


def cuda() -> Gauge:
    """The current GPU."""
    import torch

    return Gauge(torch.cuda.synchronize, torch.cuda.reset_peak_memory_stats, torch.cuda.max_memory_allocated)
