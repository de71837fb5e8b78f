"""Bytes that requests may take in memory, reserved before they are read."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from consisid_runtime.door.limits import Limits
from consisid_runtime.errors import Busy

_RETRY = 5.0


class Reservation:
    """What one request holds."""

    def __init__(self, budget: Budget, owner: str, size: int) -> None:
        self._budget, self._owner, self.size = budget, owner, size

    def resize(self, size: int) -> None:
        """Hold what is needed from now on. More is held at once: others then wait until there is room again."""
        self._budget._give_back(self._owner, self.size - size)
        self.size = size


class Budget:
    """For one event loop.

    Attributes:
        used: bytes that are reserved.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._most, self._each = limits.in_flight, limits.one(limits.in_flight)
        self.used = 0
        self._owners: Counter[str] = Counter()
        self._waiting: deque[tuple[str, int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def reserve(self, owner: str, size: int) -> AsyncIterator[Reservation]:
        """Hold `size` bytes; waits its turn. Raises `Busy` where there is no room in the time a body may take."""
        await self._take(owner, size)
        held = Reservation(self, owner, size)
        try:
            yield held
        finally:
            held.resize(0)

    async def _take(self, owner: str, size: int) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(entry := (owner, size, turn))
        self._grant()
        if turn.done():
            return
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                await asyncio.shield(turn)
        except BaseException as error:
            if turn.done():
                self._give_back(owner, size)
            else:
                self._waiting.remove(entry)
                self._grant()
            if isinstance(error, TimeoutError):
                raise Busy(f"no memory for a request of {size} bytes; try again in {_RETRY:g} s", _RETRY) from None
            raise

    def _fits(self, owner: str, size: int) -> bool:
        # One request alone always fits: a limit is never a lock.
        alone = not self._owners[owner]
        return self.used + size <= self._most and (alone or self._owners[owner] + size <= self._each)

    def _give_back(self, owner: str, size: int) -> None:
        self.used -= size
        self._owners[owner] -= size
        if not self._owners[owner]:
            del self._owners[owner]
        self._grant()

    def _grant(self) -> None:
        """First come: a small one does not overtake a large one, but one that waits for its owner's own limit."""
        for entry in list(self._waiting):
            waiting, wanted, turn = entry
            if self._fits(waiting, wanted):
                self._waiting.remove(entry)
                self.used += wanted
                self._owners[waiting] += wanted
                turn.set_result(None)
            elif self.used + wanted > self._most:
                break
