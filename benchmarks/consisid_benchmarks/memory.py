"""Peak memory of a piece of work, in a process of its own."""

from __future__ import annotations

import multiprocessing
import re
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

_STATUS = Path("/proc/self/status")


def peak_rss_bytes(work: Callable[[], object]) -> int | None:
    """The largest resident set of a fresh Python process that does `work`, imports included; None where not Linux.

    `work` is pickled: a module's function, or `functools.partial` of one.
    """
    if not _STATUS.exists():
        return None
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_peak, work).result()


def _peak(work: Callable[[], object]) -> int:
    work()
    # Not getrusage: a new process inherits its parent's ru_maxrss.
    found = re.search(r"^VmHWM:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024
