"""The asynchronous client; `Client` is the same for callers without an event loop."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import TracebackType
from typing import Self

from consisid_runtime.client.access import Access
from consisid_runtime.client.calls import Calls
from consisid_runtime.client.connect import connect
from consisid_runtime.client.request import Request
from consisid_runtime.client.transport import Transport
from consisid_runtime.errors import InvalidOption
from consisid_runtime.files.image_file import image_bytes
from consisid_runtime.options import Options
from consisid_runtime.video import Video

_LONGEST_TIMEOUT = 1e6
_READY_TIMEOUT = 10.0


class AsyncClient:
    """`Client` for asyncio: the same words, awaited. An asynchronous context manager.

    Cancelling the task that awaits a call cancels the request at the server. One client serves any number of tasks and
    event loops; in forked processes it behaves as `Client` does.

    Args:
        server, timeout, token, ca: as for `Client`.
    """

    def __init__(
        self,
        server: str | Transport,
        *,
        timeout: float = 600.0,
        token: str | None = None,
        ca: str | Path | None = None,
    ) -> None:
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout <= _LONGEST_TIMEOUT:
            raise InvalidOption(f"timeout must be seconds above 0, at most {_LONGEST_TIMEOUT:g}, got {timeout!r}")
        self._transport = connect(server, Access.read(token, ca)) if isinstance(server, str) else server
        self._timeout = timeout
        self._calls = Calls()

    async def generate(
        self,
        image: str | Path | bytes | bytearray,
        prompt: str,
        options: Options | None = None,
        *,
        raw_frames: bool = False,
    ) -> Video:
        """Generate one video on the server. Arguments and errors are those of `Client.generate`."""
        photo = (
            image_bytes(image) if isinstance(image, bytes | bytearray) else await asyncio.to_thread(image_bytes, image)
        )
        request = Request.make(photo, prompt, options, raw_frames=raw_frames)
        answer = self._transport.infer(
            request.model,
            request.inputs,
            request.parameters,
            [port.name for port in request.outputs],
            self._timeout,
        )
        return request.video(await self._calls.run(answer))

    async def ready(self) -> bool:
        """Whether the server answers, within the timeout and ten seconds, and has loaded all its models.

        Raises `ClientClosed` or `ForkedProcess`.
        """
        return await self._calls.run(self._transport.ready(min(self._timeout, _READY_TIMEOUT)))

    async def close(self) -> None:
        """End the calls in flight, of all event loops, with `ClientClosed`, and refuse further ones. Idempotent."""
        self._calls.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
