"""An answer that goes on for long ends when the key of its request is revoked, as if its caller had left."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from starlette.types import Message, Receive

LOOK_SECONDS = 0.75
"""Between two looks at the key."""


def while_valid(receive: Receive, valid: Callable[[], Awaitable[bool]]) -> Receive:
    """What `receive` does, and that the caller has left once `valid` is false. For requests without a body."""

    async def receive_or_end() -> Message:
        waiting = asyncio.ensure_future(receive())
        try:
            while not (await asyncio.wait({waiting}, timeout=LOOK_SECONDS))[0]:
                if not await valid():
                    return {"type": "http.disconnect"}
            return waiting.result()
        finally:
            waiting.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.wait({waiting})

    return receive_or_end
