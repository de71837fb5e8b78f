"""How many threads to compute with: what this process may use of the machine, not how many cores the machine has."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from consisid_runtime.errors import InvalidOption

MAX_THREADS = 1024

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")


def default_threads() -> int:
    """CPU threads for one computation: `OMP_NUM_THREADS` where it is a number above 0, else `usable_cpus`."""
    chosen = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if chosen.isascii() and chosen.isdigit() and 1 <= len(chosen) <= 6 and int(chosen) > 0:
        return min(int(chosen), MAX_THREADS)
    return usable_cpus()


def usable_cpus() -> int:
    """CPUs that this process may use: its affinity, or less where a cgroup (v1 or v2) has a CPU quota; at least 1.

    A quota of one and a half CPUs counts as two.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([allowed, *(math.ceil(quota) for quota in _quotas())]))


def thread_variables(count: int) -> dict[str, str]:
    """Environment variables with which a new process computes with this many threads."""
    return {"OMP_NUM_THREADS": str(count), "OPENCV_FOR_THREADS_NUM": str(count)}


def use_threads(count: int) -> None:
    """Compute with this many threads from now on, in this process and in those that it starts.

    Raises `InvalidOption` for a number below 1 or above `MAX_THREADS`.
    """
    check_threads(count)
    os.environ.update(thread_variables(count))
    if torch := sys.modules.get("torch"):  # it has read the variable
        torch.set_num_threads(count)


def limit_torch() -> None:
    """Lower PyTorch's threads to `usable_cpus`, unless `OMP_NUM_THREADS` chose: PyTorch itself sees no quota."""
    torch = sys.modules.get("torch")
    if torch and "OMP_NUM_THREADS" not in os.environ and torch.get_num_threads() > usable_cpus():
        torch.set_num_threads(usable_cpus())


def check_threads(count: int) -> None:
    """Raises `InvalidOption` for a number of threads below 1 or above `MAX_THREADS`."""
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MAX_THREADS:
        large = isinstance(count, int) and abs(count) > 10**40  # Python does not print 5000 digits
        got = "a very large number" if large else repr(count)[:100]
        raise InvalidOption(f"threads must be a whole number from 1 to {MAX_THREADS}, got {got}")


def _quotas() -> Iterator[float]:
    """The CPU quotas of this process's cgroups and of those above them, in CPUs."""
    for folder, version in _folders():
        try:
            if version == 2:
                quota, period = (folder / "cpu.max").read_text().split()
            else:
                quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
            if float(quota) > 0 and float(period) > 0:
                yield float(quota) / float(period)
        except (OSError, ValueError):  # no such file at this level; "max"
            continue


def _folders() -> Iterator[tuple[Path, int]]:
    """Folders that may limit this process, with the version of their cgroup.

    In a container the path in `/proc` may be the host's, of which only the container's own part is mounted: a folder
    that does not exist here has no files, and the mounted root is always among those returned.
    """
    try:
        lines = _OWN_CGROUP.read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        number, controllers, path = [*line.split(":", 2), "", ""][:3]
        mounts = [(_CGROUPS, 2)] if number == "0" else [(_CGROUPS / name, 1) for name in _mounts(controllers)]
        inside = PurePosixPath(path.lstrip("/"))
        for mount, version in mounts:
            for level in (inside, *inside.parents):
                if ".." not in level.parts:
                    yield mount / level, version


def _mounts(controllers: str) -> set[str]:
    """Names that the mount of these controllers may have: "cpu,cpuacct" is mounted by that name, or as "cpu"."""
    return {"cpu", controllers} if "cpu" in controllers.split(",") else set()
