"""What both clients do, asynchronously: one request, from its arguments to its answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from consisid_runtime.client.access import Access
from consisid_runtime.client.calls import Calls
from consisid_runtime.client.connect import connect
from consisid_runtime.client.request import Request
from consisid_runtime.client.servers.servers import Servers
from consisid_runtime.client.stream import Put, Work
from consisid_runtime.client.transport import Transport
from consisid_runtime.errors import ConsisIDError, InvalidOption, ServerError
from consisid_runtime.events import Event
from consisid_runtime.files.image_file import image_bytes
from consisid_runtime.identity import Identity
from consisid_runtime.options import Options, check_prompt
from consisid_runtime.stages.estimate import Estimate
from consisid_runtime.video import Video
from consisid_runtime.wire import TRIAL, Extras

Server = str | Transport
"""A URL, or the way to a server."""

Image = str | Path | bytes | bytearray
Portrait = Image | Identity

_LONGEST_TIMEOUT = 1e6
_READY_TIMEOUT = 10.0
_END_TIMEOUT = 1.0


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

    async def generate(
        self, image: Portrait, prompt: str, options: Options | None, extras: Extras, *, urgent: bool
    ) -> Video:
        """One video."""
        if isinstance(image, Identity):
            require_no_frames(raw_frames=extras.raw_frames)
            found: list[Event | Video] = []
            await self.stream(image, prompt, options, extras, None, urgent=urgent)(found.append)
            assert isinstance(found[-1], Video)
            return found[-1]
        request = Request.make(await _read(image), prompt, options, extras, urgent=urgent)
        names = [port.name for port in request.outputs]
        answer = self._transport.infer(request.model, request.inputs, request.parameters, names, self._timeout)
        return request.video(await self._calls.run(answer))

    def stream(
        self,
        image: Portrait,
        prompt: str,
        options: Options | None,
        extras: Extras,
        checkpoint: bytes | None,
        *,
        urgent: bool,
    ) -> Work:
        """One video with its events. Raises what concerns the prompt at once."""
        check_prompt(prompt)

        async def work(put: Put) -> None:
            if isinstance(image, Identity):
                content, chosen = None, replace(extras, identity=image.handle)
            else:
                content, chosen = await _read(image), extras
            request = Request.make_stream(content, prompt, options, chosen, checkpoint, urgent=urgent)
            await self._calls.run(self._receive(request, put))

        return work

    async def estimate(self, options: Options | None) -> Estimate:
        """What a video should take."""
        return Estimate.from_json(await self._act(None, options, Extras(action="estimate")))

    async def identify(self, image: Image, options: Options | None) -> Identity:
        """A handle of the face in a photograph."""
        self._require_one_server()
        info = await self._act(await _read(image), options, Extras(action="identify"))
        try:
            return Identity(str(info["identity"]), dict(info["face"]))
        except (KeyError, TypeError, ValueError):
            raise ServerError("the server answered without an identity") from None

    async def forget(self, identity: Identity) -> None:
        """End a handle."""
        self._require_one_server()
        await self._act(None, None, Extras(action="forget", identity=identity.handle))

    async def trial(self) -> dict[str, Any]:
        """What a trial tells."""
        self._require_one_server()
        return await self._act(None, None, Extras(action=TRIAL))

    async def _act(self, image: bytes | None, options: Options | None, extras: Extras) -> dict[str, Any]:
        return await self._calls.run(self._report(Request.make_action(image, options, extras)))

    async def _report(self, request: Request) -> dict[str, Any]:
        names = [port.name for port in request.outputs]
        answers = self._transport.stream(request.model, request.inputs, request.parameters, names, self._timeout)
        async with aclosing(answers):
            async for answer in answers:
                if "event" not in answer:
                    await _read_to_end(answers)
                    return request.report(answer)
        raise ServerError("the server ended its answer without a report")

    def _require_one_server(self) -> None:
        if isinstance(self._transport, Servers):
            raise InvalidOption("identities and trials are of one server; use a client of that server alone")

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
                if isinstance(item, Video):
                    await _read_to_end(answers)
                    put(item)
                    return
                put(item)
        raise ServerError("the server ended its answer without a video")


def require_no_frames(*, raw_frames: bool) -> None:
    """Raises `InvalidOption`: streams carry no raw frames."""
    if raw_frames:
        raise InvalidOption("raw_frames come neither with on_progress nor for an identity; leave them out")


async def _read_to_end(answers: AsyncGenerator[Any, None]) -> None:
    """To a server, a caller who leaves before the end has cancelled. The answer is there: no error may lose it."""
    with suppress(ConsisIDError, TimeoutError):
        async with asyncio.timeout(_END_TIMEOUT):
            async for _ in answers:
                pass


async def _read(image: Image) -> bytes:
    """A file is read in a thread: it may be on a slow disk."""
    return await asyncio.to_thread(image_bytes, image) if isinstance(image, str | Path) else image_bytes(image)
