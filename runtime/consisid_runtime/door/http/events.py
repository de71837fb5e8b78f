"""The answer of the generate extension: events as they come (Server-Sent Events), or the last alone, as JSON."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from typing import Any

from consisid_runtime.door.admission.budget import Reservation
from consisid_runtime.door.limits import Limits
from consisid_runtime.door.outbox import Outbox
from consisid_runtime.door.records import Request
from consisid_runtime.door.request import Asked
from consisid_runtime.door.server.upstream import contents
from consisid_runtime.errors import Busy, ConsisIDError
from consisid_runtime.events import Event

_PIECE = 3 * 2**14
"""Bytes that become Base64 and are sent at a time: a caller who reads slowly holds no more."""
_OF_EVENTS = {"event", "preview", "checkpoint"}


class Events:
    """One answer.

    Args:
        whole: the last object alone.

    Attributes:
        outbox: where the request's events go.
        begun: whether something was sent.
    """

    def __init__(self, send: Any, limits: Limits, *, whole: bool) -> None:
        self._send, self._limits, self._whole = send, limits, whole
        self.outbox = Outbox()
        self.begun = False

    async def write(self, asked: Asked, work: asyncio.Future[Any], held: Reservation, line: Request) -> None:
        """Send what `work` yields, and cancel it where this is. Raises its error, which was sent where `begun`."""
        try:
            await self._write_events(asked, work, line)
            answer = work.result()
        except ConsisIDError as error:
            if self.begun:
                again = {"retry_after": error.retry_after} if isinstance(error, Busy) and error.retry_after else {}
                await self._pieces(_object({"error": error.sent(), **again}, {}, asked), line)
                await self._end()
            raise
        finally:
            if not work.done():
                work.cancel()
                await asyncio.wait({work})
        held.resize(answer.ByteSize())
        found = contents(answer)
        fields = {"info": json.loads(found["info"])} if "info" in found else {}
        await self._pieces(_object(fields, {"video": found.get("video")}, asked), line)
        await self._end()

    async def _write_events(self, asked: Asked, work: asyncio.Future[Any], line: Request) -> None:
        while True:
            try:
                async with asyncio.timeout(self._limits.silence):
                    event = await self.outbox.take(work)
            except TimeoutError:
                await self._body(b"\n" if self._whole else b": \n\n", line)
                continue
            if event is None:
                return
            if not self._whole and not _OF_EVENTS.isdisjoint(asked.outputs):
                await self._pieces(_event(event, asked), line)
                line.first_event()

    async def _pieces(self, pieces: Iterator[bytes], line: Request) -> None:
        held = bytearray(b"" if self._whole else b"data: ")
        for piece in pieces:
            held += piece
            if len(held) >= _PIECE:
                await self._body(bytes(held), line)
                held.clear()
        await self._body(bytes(held) + (b"\n" if self._whole else b"\n\n"), line)

    async def _body(self, data: bytes, line: Request) -> None:
        if not self.begun:
            self.begun = True
            kind = b"application/json" if self._whole else b"text/event-stream"
            headers = [
                (b"content-type", kind),
                (b"cache-control", b"no-store"),
                (b"x-accel-buffering", b"no"),
                (b"x-request-id", line.identifier.encode()),
            ]
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        line.sent += len(data)
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def _end(self) -> None:
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})


def _event(event: Event, asked: Asked) -> Iterator[bytes]:
    fields = {"event": json.loads(event.to_json())} if "event" in asked.outputs else {}
    return _object(fields, {"preview": event.preview, "checkpoint": event.checkpoint}, asked)


def _object(fields: dict[str, Any], files: dict[str, bytes | None], asked: Asked) -> Iterator[bytes]:
    """JSON in pieces: the fields, and those files that were asked for as Base64."""
    named = {"id": asked.identifier, **fields} if asked.identifier else fields
    yield json.dumps(named)[:-1].encode()
    separator = ", " if named else ""
    for name, content in files.items():
        if content is None or name not in asked.outputs:
            continue
        yield f'{separator}"{name}": "'.encode()
        for start in range(0, len(content), _PIECE):
            yield base64.b64encode(memoryview(content)[start : start + _PIECE])
        yield b'"'
        separator = ", "
    yield b"}"
