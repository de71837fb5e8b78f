"""What a caller has yet to take of a request that runs: its newest events, however slowly it reads."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import replace
from typing import Any

from consisid_runtime.events import Event

MOST = 64
"""Events; those of all steps of half a second come at once, and a caller that reads is to have each of them."""


class Outbox:
    """Of one request. Has the bytes of one preview and one checkpoint at most: the latest, which are never lost."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._came = asyncio.Event()

    def put(self, event: Event) -> None:
        """Behind those that were not taken; of too many the oldest is lost."""
        if self._events and (large := _bytes_of(event)):
            self._events = deque(replace(old, **dict.fromkeys(large)) for old in self._events)  # type: ignore[arg-type]
        self._events.append(event)
        if len(self._events) > MOST:
            lost = self._events.popleft()
            self._events[0] = replace(self._events[0], **(_bytes_of(lost) | _bytes_of(self._events[0])))
        self._came.set()

    async def take(self, work: asyncio.Future[Any]) -> Event | None:
        """The next event; None once `work` has ended and all were taken. May be cancelled: nothing is lost."""
        if not self._events and not work.done():
            came = asyncio.ensure_future(self._came.wait())
            try:
                await asyncio.wait({came, work}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                came.cancel()
        self._came.clear()
        return self._events.popleft() if self._events else None


def _bytes_of(event: Event) -> dict[str, Any]:
    """Its preview and checkpoint, where it has them."""
    found = {"preview": event.preview, "checkpoint": event.checkpoint}
    return {name: content for name, content in found.items() if content is not None}
