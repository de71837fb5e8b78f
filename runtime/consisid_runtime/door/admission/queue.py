"""Who runs next: one ordinary and one urgent request at a time; nothing is begun that nobody waits for.

The models run an urgent one's parts first, so that it waits for a part of the ordinary one's at most. Else first come.
"""

from __future__ import annotations

import asyncio
import bisect
import itertools
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from consisid_runtime.door.limits import Limits
from consisid_runtime.errors import Busy, ServerTimeout, ServerUnreachable

_UNKNOWN = 5.0
"""Seconds until a refused request is sent again, before the first success tells how long a video takes."""
_WEIGHT = 0.2
STOPPED = "the server is being stopped; the request was not begun and may be sent elsewhere"

Moved = Callable[[int, float | None], None]
"""Called with how many requests run before this one, and the seconds until its video, None while unknown."""


def _unmoved(position: int, seconds_left: float | None) -> None:
    pass


@dataclass(eq=False)
class _Place:
    """Of one that waits or runs.

    Attributes:
        seconds: that it is expected to take; None while unknown.
        position: that it was last told.
        came: by `time.monotonic`.
        began, ends: by `time.monotonic`; None before it computes, or while unknown.
    """

    urgent: bool
    number: int
    owner: str
    seconds: float | None
    moved: Moved
    turn: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    position: int | None = None
    came: float = field(default_factory=time.monotonic)
    began: float | None = None
    ends: float | None = None

    @property
    def rank(self) -> tuple[bool, int]:
        return not self.urgent, self.number


class Queue:
    """For one event loop."""

    def __init__(self, limits: Limits) -> None:
        self._most, self._each = limits.queue, limits.one(limits.queue)
        self._most_urgent, self._urgent_in_row = limits.urgent_row, 0
        self._places: list[_Place] = []
        self._running: dict[bool, _Place] = {}
        self._owners: Counter[str] = Counter()
        self._numbers = itertools.count()
        self._mean: float | None = None
        self._closed = self._held = False
        self._pause = self._idle_since = 0.0
        self._left = asyncio.Event()

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return len(self._places)

    @property
    def oldest(self) -> float:
        """Seconds for which the request has waited that waits longest; 0 where none waits."""
        return max((time.monotonic() - place.came for place in self._places), default=0.0)

    @property
    def running(self) -> int:
        """Requests that run."""
        return len(self._running)

    def wait(self, *, urgent: bool = False) -> float | None:
        """Seconds until a request that came now would have the device; None while unknown."""
        return self._seconds([*self._running.values(), *self._places], urgent=urgent)

    def position(self, *, urgent: bool = False) -> int:
        """How many requests would run before one that came now."""
        places = (*self._running.values(), *self._places)
        return sum(place.urgent or not urgent for place in places)

    def require_room(self, owner: str) -> None:
        """Raises `Busy` where a request of this owner would be refused at once: before its body is read."""
        if self._closed:
            raise ServerUnreachable(STOPPED)
        if not self._running and not self._held:
            return
        if self.waiting >= self._most:
            self._refuse(f"{self.waiting} requests wait")
        if self._owners[owner] >= self._each:
            self._refuse(f"{self._owners[owner]} requests of this address wait")

    def require_idle(self) -> None:
        """Raises `Busy` where a request runs or waits, or would have to."""
        if self._running or self._places or self._held:
            self._refuse(f"{self.running} requests run and {self.waiting} wait; this one does not wait")

    async def enter(
        self, owner: str, until: float, *, urgent: bool, seconds: float | None = None, moved: Moved = _unmoved
    ) -> None:
        """Wait for a turn, which `leave` ends.

        Args:
            until: the deadline, by `time.monotonic`.
            seconds: that it is expected to take; None while unknown.
            moved: called at once, and whenever the position changes.

        Raises `Busy` at once where there is no room, or where the turn would come too late for the deadline;
        `ServerTimeout` where the deadline passes.
        """
        self.require_room(owner)
        place = _Place(urgent, next(self._numbers), owner, seconds, moved)
        if self._may_run(place):
            self._run(place)
            self._tell()
            return
        wait = self.wait(urgent=urgent)
        if wait is not None and time.monotonic() + wait + (seconds or 0.0) > until:
            self._refuse(f"a turn is expected in {wait:.0f} s, too late for the request's deadline")
        bisect.insort(self._places, place, key=lambda one: one.rank)
        self._owners[owner] += 1
        self._tell()
        try:
            async with asyncio.timeout(max(0.0, until - time.monotonic())):
                await asyncio.shield(place.turn)
        except BaseException as error:
            if not place.turn.done():
                self._remove(place)
                self._grant()
            elif place.turn.exception() is None:
                self.leave(urgent=urgent)  # its turn came in the same moment
            if isinstance(error, TimeoutError):
                raise ServerTimeout("the deadline passed while the request waited; it was not begun") from None
            raise

    def begin(self, *, urgent: bool) -> None:
        """The one whose turn it is computes from now on."""
        place = self._running[urgent]
        place.began = time.monotonic()
        seconds = self._mean if place.seconds is None else place.seconds
        self.expect(seconds, urgent=urgent)

    def expect(self, seconds_left: float | None, *, urgent: bool) -> None:
        """The one that computes is expected to end in so many seconds; None tells nothing new."""
        if seconds_left is not None:
            self._running[urgent].ends = time.monotonic() + seconds_left

    def leave(self, *, urgent: bool, success: bool = False) -> None:
        """The one whose turn it was has ended. Only a success says how long a video takes."""
        place = self._running.pop(urgent)
        if success and place.began is not None:
            took = time.monotonic() - place.began
            self._mean = took if self._mean is None else self._mean + _WEIGHT * (took - self._mean)
        if not urgent:
            self._urgent_in_row = 0
        self._idle_since = time.monotonic()
        self._left.set()
        self._left = asyncio.Event()
        self._grant()

    def hold(self, seconds: float) -> None:
        """Grant no turn until `resume`, which is expected so long after nobody computes any more."""
        self._held, self._pause, self._idle_since = True, seconds, time.monotonic()

    def resume(self) -> None:
        """Grant turns again."""
        self._held = False
        self._grant()

    @property
    def computes(self) -> bool:
        """Whether somebody does. One whose turn has come may be about to."""
        return any(place.began is not None for place in self._running.values())

    def next_end(self) -> Awaitable[bool]:
        """Ends when the next one has ended whose turn it was, from this call on."""
        return self._left.wait()

    def forget(self) -> None:
        """What is known of how long videos take holds no longer."""
        self._mean = None
        for place in self._places:
            if place.seconds:  # what computes no video stays quick
                place.seconds = None

    def close(self) -> None:
        """Refuse those who wait and those who come, as not begun."""
        self._closed = True
        for place in self._places.copy():
            self._remove(place)
            place.turn.set_exception(ServerUnreachable(STOPPED))

    def _may_run(self, place: _Place) -> bool:
        """Whether its lane is free, and no ordinary one has waited for too many urgent ones."""
        enough = place.urgent and self._urgent_in_row >= self._most_urgent and self._ordinary()
        return place.urgent not in self._running and not enough and not self._held

    def _ordinary(self) -> bool:
        """Whether an ordinary one runs or waits."""
        return any(not place.urgent for place in (*self._running.values(), *self._places))

    def _run(self, place: _Place) -> None:
        self._running[place.urgent] = place
        if place.urgent:
            self._urgent_in_row = self._urgent_in_row + 1 if self._ordinary() else 0
        place.moved(0, place.seconds)

    def _grant(self) -> None:
        for place in self._places.copy():
            if self._may_run(place):
                self._remove(place)
                self._run(place)
                place.turn.set_result(None)
        self._tell()

    def _tell(self) -> None:
        """Everyone who waits, where the position has changed."""
        for place in self._places:
            before = self._before(place.rank)
            if len(before) != place.position:
                place.position = len(before)
                wait = self._seconds(before, urgent=False)
                unknown = wait is None or place.seconds is None
                place.moved(place.position, None if unknown else wait + place.seconds)  # type: ignore[operator]

    def _before(self, rank: tuple[bool, int]) -> list[_Place]:
        """Those that run and wait before a place of this rank."""
        return [one for one in (*self._running.values(), *self._places) if one.rank < rank]

    def _seconds(self, places: list[_Place], *, urgent: bool) -> float | None:
        """That these need from now; of the urgent ones alone where that is asked for."""
        total = self._away()
        for place in places:
            if urgent and not place.urgent:
                continue
            if place.ends is not None:
                total += max(0.0, place.ends - time.monotonic())
                continue
            seconds = self._mean if place.seconds is None else place.seconds
            if seconds is None:
                return None
            total += seconds
        return total

    def _away(self) -> float:
        """For which turns are held, once nobody computes."""
        if not self._held:
            return 0.0
        return self._pause if self.computes else max(0.0, self._pause - (time.monotonic() - self._idle_since))

    def _remove(self, place: _Place) -> None:
        self._places.remove(place)
        self._owners[place.owner] -= 1
        if not self._owners[place.owner]:
            del self._owners[place.owner]

    def _refuse(self, why: str) -> None:
        wait = self.wait()
        seconds = float(max(1, math.ceil(_UNKNOWN if wait is None else wait)))
        raise Busy(f"{why}; try again in {seconds:.0f} s", seconds)
