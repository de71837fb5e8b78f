"""Recognises a file that was read before, without reading it again."""

from __future__ import annotations

import time
from pathlib import Path

SETTLED = 2 * 10**9
"""Nanoseconds since a file was last changed, after which a further change surely gives it other times."""


def identity(path: Path) -> list[int]:
    """Device, inode, size, and times of modification and of change in ns of the file that a path leads to.

    Who writes to a file can put its time of modification back, but not its time of change. Raises `OSError`.
    """
    found = path.stat()
    return [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def is_settled(seen: list[int]) -> bool:
    """Whether a file of this identity, taken just now, changes its identity when it changes: clocks have steps."""
    return time.time_ns() - max(seen[-2:]) > SETTLED
