"""ModelStreamInfer: the requests of a stream, one after the other, each with its events and its video."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

from tritonclient.grpc import service_pb2

from consisid_runtime.door.access import owner
from consisid_runtime.door.admission.budget import Reservation
from consisid_runtime.door.grpc.exchange import host, named, read, write
from consisid_runtime.door.grpc.message import identifier, parse
from consisid_runtime.door.outbox import Outbox
from consisid_runtime.door.parts import Parts
from consisid_runtime.door.records import Request
from consisid_runtime.door.request import SMALL, Asked
from consisid_runtime.errors import Busy, ConsisIDError, ServerTimeout
from consisid_runtime.events import Event

_FINAL = "triton_final_response"


class Stream:
    """One call, on a door's parts."""

    def __init__(self, parts: Parts, context: Any) -> None:
        self._parts, self._context = parts, context
        self._peer = host(context, parts.access.proxies)
        self._caller = owner(self._peer)
        self._stuck = False

    async def answer(self) -> None:
        """Answer all requests. Raises `ServerTimeout` where the next one does not come, or an answer is not taken."""
        seconds = self._parts.limits.body_seconds
        while await self._answer_next(seconds):
            seconds = self._parts.limits.next_seconds

    async def _answer_next(self, seconds: float) -> bool:
        """Whether there was a request."""
        async with self._parts.budget.reserve(self._caller, self._parts.limits.message) as held:
            data = await read(self._context, seconds)
            if data is None:
                return False
            found = identifier(data, self._parts.limits)
            try:
                with self._parts.records.request("grpc", self._peer, *named(self._context)) as line:
                    line.received = len(data)
                    if len(data) > SMALL:
                        self._parts.dispatch.require_room(self._caller)
                    asked = parse(data, self._parts.limits)
                    del data  # its parts are copies
                    line.kind = asked.kind
                    held.resize(asked.size)
                    await self._run(asked, held, line)
            except ConsisIDError as error:
                if self._stuck:
                    raise
                await self._write(_failure(error, found))
            return True

    async def _run(self, asked: Asked, held: Reservation, line: Request) -> None:
        outbox, left = Outbox(), self._context.time_remaining()
        run = self._parts.dispatch.run(asked, self._caller, left, line=line, on_event=outbox.put)
        work = asyncio.ensure_future(run)
        try:
            while (event := await outbox.take(work)) is not None:
                if (message := _event(event, asked)) is not None:
                    await self._write(_response(message, final=False))
                    line.first_event()
            answer = work.result()
        finally:
            if not work.done():
                work.cancel()
                await asyncio.wait({work})
        line.sent = answer.ByteSize()
        held.resize(line.sent)
        await self._write(_response(answer, final=False))
        if asked.closing:
            await self._write(_response(_empty(asked), final=True))

    async def _write(self, message: Any) -> None:
        try:
            await write(self._context, message, self._parts.limits)
        except ServerTimeout:
            self._stuck = True
            raise


def _event(event: Event, asked: Asked) -> Any:
    """The event as a ModelInferResponse; None where none of its outputs was asked for."""
    text = event.to_json().encode()
    message = _empty(asked)
    for name, datatype, size, content in (
        ("event", "BYTES", 1, struct.pack("<I", len(text)) + text),
        ("preview", "UINT8", len(event.preview or b""), event.preview),
        ("checkpoint", "UINT8", len(event.checkpoint or b""), event.checkpoint),
    ):
        if content is not None and name in asked.outputs:
            message.outputs.add(name=name, datatype=datatype, shape=[size])
            message.raw_output_contents.append(content)
    return message if message.outputs else None


def _empty(asked: Asked) -> Any:
    return service_pb2.ModelInferResponse(model_name=asked.model, model_version="1", id=asked.identifier)


def _failure(error: ConsisIDError, request: str) -> Any:
    response = _response(service_pb2.ModelInferResponse(id=request), final=True)
    response.error_message = error.sent()
    if isinstance(error, Busy) and error.retry_after is not None:
        response.infer_response.parameters["retry_after"].double_param = error.retry_after
    return response


def _response(message: Any, *, final: bool) -> Any:
    message.parameters[_FINAL].bool_param = final
    return service_pb2.ModelStreamInferResponse(infer_response=message)
