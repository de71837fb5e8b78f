"""Who runs next: one request at a time, urgent ones first, else first come; nothing is begun that nobody waits for."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import time
from collections import Counter
from typing import NamedTuple

from consisid_runtime.door.limits import Limits
from consisid_runtime.errors import Busy, ServerTimeout, ServerUnreachable

_UNKNOWN = 5.0
"""Seconds until a refused request is sent again, before the first success tells how long a video takes."""
_WEIGHT = 0.2


class _Place(NamedTuple):
    ordinary: bool
    number: int
    owner: str
    turn: asyncio.Future[None]


class Queue:
    """For one event loop."""

    def __init__(self, limits: Limits) -> None:
        self._most, self._each = limits.queue, limits.one(limits.queue)
        self._places: list[_Place] = []
        self._owners: Counter[str] = Counter()
        self._numbers = itertools.count()
        self._running = False
        self._began: float | None = None
        self._mean: float | None = None
        self._closed = False

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return len(self._places)

    @property
    def running(self) -> int:
        """Requests that run."""
        return int(self._running)

    def wait(self) -> float | None:
        """Seconds until an ordinary request that came now would run; None before the first success."""
        if self._mean is None:
            return None
        done = time.monotonic() - self._began if self._began is not None else 0.0
        return max(0.0, self._mean - done) * self._running + self._mean * len(self._places)

    def require_room(self, owner: str) -> None:
        """Raises `Busy` where a request of this owner would be refused at once: before its body is read."""
        if self._closed:
            raise ServerUnreachable("the server is being stopped; the request was not begun and may be sent elsewhere")
        if not self._running:
            return
        if self.waiting >= self._most:
            self._refuse(f"{self.waiting} requests wait")
        if self._owners[owner] >= self._each:
            self._refuse(f"{self._owners[owner]} requests of this address wait")

    async def enter(self, owner: str, until: float, *, urgent: bool) -> None:
        """Wait for a turn, which `leave` ends.

        Args:
            until: the deadline, by `time.monotonic`.

        Raises `Busy` at once where there is no room, or where the turn would come after the deadline; `ServerTimeout`
        where the deadline passes.
        """
        self.require_room(owner)
        if not self._running:
            self._running = True
            return
        wait = self.wait()
        if not urgent and wait is not None and time.monotonic() + wait > until:
            self._refuse(f"a turn is expected in {wait:.0f} s, after the request's deadline")
        place = _Place(not urgent, next(self._numbers), owner, asyncio.get_running_loop().create_future())
        heapq.heappush(self._places, place)
        self._owners[owner] += 1
        try:
            async with asyncio.timeout(max(0.0, until - time.monotonic())):
                await asyncio.shield(place.turn)
        except BaseException as error:
            if not place.turn.done():
                self._remove(place)
            elif place.turn.exception() is None:
                self.leave()  # its turn came in the same moment
            if isinstance(error, TimeoutError):
                raise ServerTimeout("the deadline passed while the request waited; it was not begun") from None
            raise

    def begin(self) -> None:
        """The one whose turn it is computes from now on."""
        self._began = time.monotonic()

    def leave(self, *, success: bool = False) -> None:
        """The one whose turn it was has ended. Only a success says how long a video takes."""
        if success and self._began is not None:
            took = time.monotonic() - self._began
            self._mean = took if self._mean is None else self._mean + _WEIGHT * (took - self._mean)
        self._running, self._began = False, None
        if self._places:
            place = self._places[0]
            self._remove(place)
            self._running = True
            place.turn.set_result(None)

    def close(self) -> None:
        """Refuse those who wait and those who come, as not begun."""
        self._closed = True
        for place in self._places.copy():
            self._remove(place)
            place.turn.set_exception(ServerUnreachable("the server is being stopped; the request was not begun"))

    def _remove(self, place: _Place) -> None:
        self._places.remove(place)
        heapq.heapify(self._places)
        self._owners[place.owner] -= 1
        if not self._owners[place.owner]:
            del self._owners[place.owner]

    def _refuse(self, why: str) -> None:
        wait = self.wait()
        seconds = float(max(1, math.ceil(_UNKNOWN if wait is None else wait)))
        raise Busy(f"{why}; try again in {seconds:.0f} s", seconds)
