"""What long work reports while it runs."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with what is being done, and how many of how many parts of it are done. Raise in it to cancel the work."""


def silent(label: str, done: int, total: int) -> None:
    """Reports to nobody."""
