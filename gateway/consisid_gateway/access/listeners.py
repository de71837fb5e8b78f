"""Streams of events that one key, or one address without a key, may hold open: each is a connection and a task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from consisid_gateway.access.caller import Caller
from consisid_gateway.errors import LimitReached

_RETRY_SECONDS = 5.0


class Listeners:
    """Of one replica.

    Args:
        each: streams of one key.
        most: streams of all.
    """

    def __init__(self, each: int = 64, most: int = 1024) -> None:
        self._each, self._most = each, most
        self._open: Counter[str] = Counter()

    @property
    def size(self) -> int:
        """Streams that are open."""
        return self._open.total()

    @contextmanager
    def one(self, caller: Caller) -> Iterator[None]:
        """A stream, for as long as it is open. Raises `LimitReached`."""
        name = caller.key or caller.tenant
        if self._open[name] >= self._each or self.size >= self._most:
            raise LimitReached(
                f"{self._open[name]} streams of events are open with this key, {self.size} in all; "
                f"at most {self._each} and {self._most} may be",
                _RETRY_SECONDS,
            )
        self._open[name] += 1
        try:
            yield
        finally:
            self._open[name] -= 1
            if not self._open[name]:
                del self._open[name]
