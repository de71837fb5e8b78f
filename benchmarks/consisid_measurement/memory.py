"""Measures the peak memory of a function, in a process of its own."""

from __future__ import annotations

import multiprocessing
import re
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

_STATUS = Path("/proc/self/status")
_T = TypeVar("_T")


def peak_rss_bytes(work: Callable[[], object]) -> int | None:
    """The largest resident set of a fresh Python process that runs `work`, imports included; None except on Linux.

    `work` is pickled: a function of a module, or `functools.partial` of one.
    """
    return in_fresh_process(partial(_without_result, work))[1] if _STATUS.exists() else None


def in_fresh_process(work: Callable[[], _T]) -> tuple[_T, int | None]:
    """The result of `work` in a fresh Python process, and that process's `peak_rss_bytes`. Both are pickled."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_with_peak, work).result()


def _without_result(work: Callable[[], object]) -> None:
    work()


def _with_peak(work: Callable[[], _T]) -> tuple[_T, int | None]:
    result = work()
    if not _STATUS.exists():
        return result, None
    # getrusage would not do: a new process inherits its parent's ru_maxrss.
    found = re.search(r"^VmHWM:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
    assert found is not None
    return result, int(found[1]) * 1024
