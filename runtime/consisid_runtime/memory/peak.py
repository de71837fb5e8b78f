"""What a request takes of memory at most: of the host as the kernel measured it, of a GPU as it was counted."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from consisid_runtime.errors import InvalidOption, MemoryTooSmall
from consisid_runtime.memory.decide import Setting, needs_of, process_needs, require_countable
from consisid_runtime.memory.plan import AUTO, GIB, RESERVED, peak_of, plan_memory
from consisid_runtime.options import Options
from consisid_runtime.plan import Plan, plan

if TYPE_CHECKING:
    from consisid_runtime.bundle import Bundle

_DRIVERS = ("/dev/nvidiactl", "/dev/dxg")
"""Files of a GPU's driver, on Linux and in Windows. Asking CUDA takes seconds, and memory of the GPU."""


def device_bytes(bundle: Bundle, request: Plan, *, processes: bool, memory: Setting | None = None) -> int | None:
    """Bytes of the GPU at a request's peak, what is left free included; 0 without a GPU; None where nobody counted.

    Args:
        processes: whether each stage is a process of its own.
        memory: with which another process opened the bundle. What "auto" found there is not known here.
    """
    if bundle.device == "cpu" or not any(Path(driver).exists() for driver in _DRIVERS):
        return 0
    config, modules = bundle.config, bundle.manifest["modules"]
    try:
        if processes:
            return process_needs(config, modules, request)
        require_countable(config, modules)
        needs, found = needs_of(config, request), bundle.memory
        if found is None and memory is None:
            return needs.fixed + sum(needs.weights.values()) + max(needs.working.values()) + RESERVED
        if found is None and memory != AUTO:
            own = needs_of(config, plan(Options(), config.geometry))
            found = plan_memory(own, int(memory or 0) * GIB - RESERVED, f"memory {memory}")
        return None if found is None else peak_of(found, needs) + RESERVED
    except (InvalidOption, MemoryTooSmall):
        return None


def peak_bytes(pids: Iterable[int]) -> int | None:
    """The resident memory of each process at its peak, added up; None where the kernel does not tell."""
    found = [_peak(pid) for pid in pids]
    known = [size for size in found if size is not None]
    return sum(known) if known and len(known) == len(found) else None


def own_peak() -> int | None:
    """`peak_bytes` of this process."""
    return peak_bytes([os.getpid()])


def _peak(pid: int) -> int | None:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, ValueError, StopIteration):
        return None


class HostPeak:
    """Of processes that keep what they once took, so that a smaller video than the largest takes no less.

    Args:
        before: bytes before their first video; None where the kernel does not tell.
    """

    def __init__(self, before: int | None) -> None:
        self._before, self._largest = before, 0
        self._peak: int | None = None

    def learn(self, request: Plan, peak: int | None) -> None:
        """A video was made, and this is the peak since the processes began."""
        if peak is not None:
            self._peak, self._largest = peak, max(self._largest, _pixels(request))

    def foreseen(self, request: Plan) -> int | None:
        """Bytes at a request's peak: what videos took beside the loaded networks, in proportion for a larger one."""
        if self._peak is None or self._before is None:
            return None
        growth = max(1.0, _pixels(request) / self._largest)
        return self._before + round((self._peak - self._before) * growth)


def _pixels(request: Plan) -> int:
    return request.frames * request.height * request.width
