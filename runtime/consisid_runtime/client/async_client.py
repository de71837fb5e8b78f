"""The asynchronous client; `Client` is the same for callers without an event loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from consisid_runtime.client.caller import Caller, Image, Portrait, Server, require_no_frames
from consisid_runtime.client.stream import AsyncStream
from consisid_runtime.events import Event
from consisid_runtime.identity import Identity
from consisid_runtime.options import Options
from consisid_runtime.stages.estimate import Estimate
from consisid_runtime.video import Video
from consisid_runtime.wire import Extras


class AsyncClient:
    """`Client` for asyncio: the same words and arguments, awaited. An asynchronous context manager.

    Cancelling the task that awaits a call cancels the request at the server. One client serves any number of tasks,
    event loops and threads; in forked processes it behaves as `Client` does.
    """

    def __init__(
        self,
        server: Server | Sequence[Server],
        *,
        timeout: float = 600.0,
        token: str | None = None,
        ca: str | Path | None = None,
    ) -> None:
        self._caller = Caller(server, timeout, token, ca)

    async def generate(
        self,
        image: Portrait,
        prompt: str,
        options: Options | None = None,
        *,
        raw_frames: bool = False,
        similarity: bool = False,
        urgent: bool = False,
        on_progress: Callable[[Event], object] | None = None,
    ) -> Video:
        """Generate one video on the server. Arguments and errors are those of `Client.generate`."""
        if on_progress is None:
            extras = Extras(raw_frames=raw_frames, similarity=similarity)
            return await self._caller.generate(image, prompt, options, extras, urgent=urgent)
        require_no_frames(raw_frames=raw_frames)
        return await self.stream(image, prompt, options, similarity=similarity, urgent=urgent).video(on_progress)

    def stream(
        self,
        image: Portrait,
        prompt: str,
        options: Options | None = None,
        *,
        similarity: bool = False,
        urgent: bool = False,
        previews: bool = False,
        checkpoint_seconds: float = 0.0,
        checkpoint: bytes | None = None,
    ) -> AsyncStream:
        """`Client.stream`, for `async for`."""
        extras = Extras(similarity=similarity, previews=previews, checkpoint_seconds=checkpoint_seconds)
        return AsyncStream(self._caller.stream(image, prompt, options, extras, checkpoint, urgent=urgent))

    async def estimate(self, options: Options | None = None) -> Estimate:
        """What a video should take. Arguments and errors are those of `Client.estimate`."""
        return await self._caller.estimate(options)

    async def identify(self, image: Image, options: Options | None = None) -> Identity:
        """Read a face once. Arguments and errors are those of `Client.identify`."""
        return await self._caller.identify(image, options)

    async def forget(self, identity: Identity) -> None:
        """Forget an identity now. Idempotent. Errors are those of `Client.identify`."""
        await self._caller.forget(identity)

    async def trial(self) -> dict[str, Any]:
        """Try the server out. Answer and errors are those of `Client.trial`."""
        return await self._caller.trial()

    async def ready(self) -> bool:
        """Whether the server answers, within the timeout and ten seconds, and has loaded all its models.

        Raises `ClientClosed` or `ForkedProcess`.
        """
        return await self._caller.ready()

    async def close(self) -> None:
        """End the calls in flight, of all event loops, with `ClientClosed`, and refuse further ones. Idempotent."""
        self._caller.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
