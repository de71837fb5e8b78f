"""Which of several servers is asked next: the one that would have done the request first. No input or output."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from consisid_runtime.errors import Busy, ServerError

Plan = tuple[object, ...]
"""What decides how long a request takes; equal for similar ones."""

_DECISIVE = ("tier", "steps", "guidance", "dynamic_guidance", "frames", "height", "width")
_WEIGHT = 0.3
_PLANS_KEPT = 64
"""Of a server, for each of which its seconds are known."""
_PAUSE, _LONGEST_PAUSE = 1.0, 30.0
"""Seconds for which a server that did not take a request is asked after all others."""


def plan_of(parameters: Mapping[str, Any]) -> Plan:
    """Of a request, from its parameters."""
    return tuple(parameters.get(name) for name in _DECISIVE)


@dataclass(frozen=True, eq=False)
class Work:
    """One request at one server.

    Attributes:
        server: its number.
        expected: seconds.
        began: by the clock.
    """

    server: int
    plan: Plan
    expected: float
    began: float


class Balance:
    """Of one client. Thread-safe; a forked process begins without the work of the other.

    Args:
        count: of the servers.
        clock: seconds.
    """

    def __init__(self, count: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._count, self._clock = count, clock
        self._took: list[dict[Plan, float]] = [{} for _ in range(count)]
        self._until, self._pause = [0.0] * count, [0.0] * count
        self._proven = [False] * count
        self._asked, self._turns = [0] * count, itertools.count(1)
        self._renew()

    def take(self, plan: Plan, passed: Collection[int]) -> Work | None:
        """The next server for a request, and from now on its work; None where all have been passed over.

        Servers that rest come last, among the others the one that is expected to end first.
        """
        with self._mine():
            now = self._clock()
            left = [number for number in range(self._count) if number not in passed]
            if not left:
                return None

            def rank(number: int) -> tuple[float, ...]:
                rest = max(0.0, self._until[number] - now)
                return rest, self._outstanding(number, now) + self._expected(number, plan), self._asked[number]

            chosen = min(left, key=rank)
            self._asked[chosen] = next(self._turns)
            work = Work(chosen, plan, self._expected(chosen, plan), now)
            self._works.append(work)
            return work

    def end(self, work: Work, seconds: float | None = None) -> None:
        """It has ended, after so many seconds of computing where that is known; which proves the server."""
        with self._mine():
            if work in self._works:
                self._works.remove(work)
            if seconds is not None:
                known = self._took[work.server]
                # Taken out, so that it becomes the latest.
                known[work.plan] = known.pop(work.plan, seconds) * (1 - _WEIGHT) + seconds * _WEIGHT
                if len(known) > _PLANS_KEPT:
                    del known[next(iter(known))]
                self._proven[work.server], self._pause[work.server] = True, 0.0

    def rest(self, server: int, error: ServerError) -> None:
        """It did not take a request: it rests as long as it says, or twice as long as before."""
        with self._mine():
            pause = error.retry_after if isinstance(error, Busy) else None
            if pause is None:
                pause = self._pause[server] = min(2 * self._pause[server] or _PAUSE, _LONGEST_PAUSE)
            self._until[server] = self._clock() + min(pause, _LONGEST_PAUSE)
            self._proven[server] = isinstance(error, Busy)

    def is_proven(self, server: int) -> bool:
        """Whether the server need not be asked for its health before it is sent a request."""
        return self._proven[server]

    def _outstanding(self, server: int, now: float) -> float:
        """Seconds of work: a server has begun with the first of its requests only."""
        works = [work for work in self._works if work.server == server]
        done = min(now - works[0].began, works[0].expected) if works else 0.0
        return sum(work.expected for work in works) - done

    def _expected(self, server: int, plan: Plan) -> float:
        """Seconds: measured here, or at the others, or of other requests; 1 before any is known, which counts them."""
        if plan in self._took[server]:
            return self._took[server][plan]
        alike = [known[plan] for known in self._took if plan in known]
        known = alike or list(self._took[server].values()) or [value for each in self._took for value in each.values()]
        return sum(known) / len(known) if known else 1.0

    def _renew(self) -> None:
        self._process, self._lock, self._works = os.getpid(), threading.Lock(), list[Work]()

    def _mine(self) -> threading.Lock:
        """The lock of this process: that of another one may have been held when it was forked."""
        if self._process != os.getpid():
            self._renew()
        return self._lock
