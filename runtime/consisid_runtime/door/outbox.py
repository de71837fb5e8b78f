"""What a caller has yet to take of a request that runs: the newest event, however slowly it reads."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from consisid_runtime.events import Event


class Outbox:
    """Of one request."""

    def __init__(self) -> None:
        self._event: Event | None = None
        self._came = asyncio.Event()

    def put(self, event: Event) -> None:
        """In place of one that was not taken; the latest preview and checkpoint stay."""
        if self._event is not None:
            preview, checkpoint = event.preview or self._event.preview, event.checkpoint or self._event.checkpoint
            event = replace(event, preview=preview, checkpoint=checkpoint)
        self._event = event
        self._came.set()

    async def take(self, work: asyncio.Future[Any]) -> Event | None:
        """The next event; None once `work` has ended and all was taken. May be cancelled: nothing is lost."""
        if self._event is None and not work.done():
            came = asyncio.ensure_future(self._came.wait())
            try:
                await asyncio.wait({came, work}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                came.cancel()
        event, self._event = self._event, None
        self._came.clear()
        return event
