"""Times what happens between two calls on a device, and reads the memory and the energy it takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec


@dataclass(frozen=True, slots=True)
class Gauge:
    """How a device is read.

    Attributes:
        wait: returns when the device has done everything that it was given.
        reset, peak: start anew, and read in bytes, the most memory that tensors held.
        now: seconds.
        joules: what the device has used since some moment; None where it does not tell.
    """

    wait: Callable[[], None]
    reset: Callable[[], None]
    peak: Callable[[], int]
    now: Callable[[], float] = time.perf_counter
    joules: Callable[[], float] | None = None


@dataclass(frozen=True, slots=True)
class Lap:
    """A stage's time on host and device together, the most memory that tensors held in it, and the device's energy."""

    stage: str
    seconds: float
    peak_bytes: int
    joules: float | None = None


class Stopwatch:
    """Called with the name of what begins, "" for nothing of interest: ends the lap before. `laps` are in order."""

    def __init__(self, gauge: Gauge) -> None:
        self.laps: list[Lap] = []
        self._gauge, self._stage, self._began, self._joules = gauge, "", 0.0, 0.0

    def __call__(self, stage: str) -> None:
        self._gauge.wait()
        read = self._gauge.joules
        if self._stage:
            seconds, peak = self._gauge.now() - self._began, self._gauge.peak()
            self.laps.append(Lap(self._stage, seconds, peak, read() - self._joules if read else None))
        self._gauge.reset()
        self._joules = read() if read else 0.0
        self._stage, self._began = stage, self._gauge.now()


def cuda() -> Gauge:
    """The current GPU."""
    from torch import cuda

    return Gauge(cuda.synchronize, cuda.reset_peak_memory_stats, cuda.max_memory_allocated, joules=energy_meter())


def energy_meter() -> Callable[[], float] | None:
    """Reads the joules that the current GPU has used since its driver was loaded; None where nvidia-ml-py cannot."""
    if find_spec("pynvml") is None:
        return None
    import pynvml
    import torch

    try:
        pynvml.nvmlInit()
        # Not the index, which CUDA_VISIBLE_DEVICES renumbers.
        device = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties().uuid}")
        pynvml.nvmlDeviceGetTotalEnergyConsumption(device)
    except pynvml.NVMLError:
        return None
    return lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(device) / 1e3
