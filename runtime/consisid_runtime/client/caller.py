"""What both clients do, asynchronously: one request, from its arguments to its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import cast

from consisid_runtime.client.access import Access
from consisid_runtime.client.calls import Calls
from consisid_runtime.client.connect import connect
from consisid_runtime.client.request import Request
from consisid_runtime.client.servers.servers import Servers
from consisid_runtime.client.stream import Put, Work
from consisid_runtime.client.transport import Transport
from consisid_runtime.errors import InvalidOption, ServerError
from consisid_runtime.files.image_file import image_bytes
from consisid_runtime.options import Options, check_prompt
from consisid_runtime.video import Video
from consisid_runtime.wire import Extras

Server = str | Transport
"""A URL, or the way to a server."""

Image = str | Path | bytes | bytearray

_LONGEST_TIMEOUT = 1e6
_READY_TIMEOUT = 10.0


class Caller:
    """Of one client; for any thread and event loop. Arguments and errors are those of `Client`."""

    def __init__(
        self, server: Server | Sequence[Server], timeout: float, token: str | None, ca: str | Path | None
    ) -> None:
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout <= _LONGEST_TIMEOUT:
            raise InvalidOption(f"timeout must be seconds above 0, at most {_LONGEST_TIMEOUT:g}, got {timeout!r}")
        access = Access.read(token, ca)
        listed = cast("Sequence[Server]", server if isinstance(server, list | tuple) else [server])
        if not listed:
            raise InvalidOption("a client needs at least one server")
        transports = [connect(each, access) if isinstance(each, str) else each for each in listed]
        self._transport: Transport = transports[0] if len(transports) == 1 else Servers(transports)
        self._timeout = timeout
        self._calls = Calls()

    async def generate(self, image: Image, prompt: str, options: Options | None, *, raw_frames: bool) -> Video:
        """One video."""
        request = Request.make(await _read(image), prompt, options, raw_frames=raw_frames)
        names = [port.name for port in request.outputs]
        answer = self._transport.infer(request.model, request.inputs, request.parameters, names, self._timeout)
        return request.video(await self._calls.run(answer))

    def stream(
        self, image: Image, prompt: str, options: Options | None, extras: Extras, checkpoint: bytes | None
    ) -> Work:
        """One video with its events. Raises what concerns the prompt at once."""
        check_prompt(prompt)

        async def work(put: Put) -> None:
            request = Request.make_stream(await _read(image), prompt, options, extras, checkpoint)
            await self._calls.run(self._receive(request, put))

        return work

    async def ready(self) -> bool:
        """Whether the server answers and has loaded its models."""
        return await self._calls.run(self._transport.ready(min(self._timeout, _READY_TIMEOUT)))

    def close(self) -> None:
        """End the calls in flight and refuse further ones."""
        self._calls.close()

    async def _receive(self, request: Request, put: Put) -> None:
        names = [port.name for port in request.outputs]
        answers = self._transport.stream(request.model, request.inputs, request.parameters, names, self._timeout)
        async with aclosing(answers):
            async for answer in answers:
                item = request.item(answer)
                put(item)
                if isinstance(item, Video):
                    return
        raise ServerError("the server ended its answer without a video")


def require_no_frames(*, raw_frames: bool) -> None:
    """Raises `InvalidOption`: streams carry no raw frames."""
    if raw_frames:
        raise InvalidOption("raw_frames do not come with on_progress; leave one of them out")


async def _read(image: Image) -> bytes:
    """A file is read in a thread: it may be on a slow disk."""
    return await asyncio.to_thread(image_bytes, image) if isinstance(image, str | Path) else image_bytes(image)
