"""Requests for inference: `infer`, and `generate` and `generate_stream` of Triton server's generate extension."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request

from consisid_runtime.door.access import owner
from consisid_runtime.door.admission.budget import Reservation
from consisid_runtime.door.description import signature_of
from consisid_runtime.door.http.answer import success
from consisid_runtime.door.http.body import number, parse, parse_generate, read
from consisid_runtime.door.http.events import Events
from consisid_runtime.door.parts import Parts
from consisid_runtime.door.records import Request as Line
from consisid_runtime.door.request import SMALL, Asked
from consisid_runtime.errors import ConsisIDError, MalformedRequest, RequestCancelled

WAYS = ("infer", "generate", "generate_stream")


class Inference:
    """An ASGI application: its memory stays reserved until the answer was taken.

    Args:
        way: one of `WAYS`.
    """

    def __init__(self, parts: Parts, way: str) -> None:
        self._parts, self._way = parts, way

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request, limits = Request(scope, receive), self._parts.limits
        hops = request.headers.getlist("x-forwarded-for")
        peer = self._parts.access.proxies.caller(request.client.host if request.client else "", hops)
        caller, flat = owner(peer), self._way != "infer"
        events = Events(send, limits, whole=self._way == "generate")
        named = (request.headers.get(name, "") for name in ("x-request-id", "traceparent"))
        try:
            with self._parts.records.request("http", peer, *named) as line:
                signature = signature_of(request.path_params["model"], request.path_params.get("version", ""))
                size = number(request.headers, "content-length")
                if size is None or size > SMALL:
                    self._parts.dispatch.require_room(caller)
                most = limits.generate if flat else limits.json
                async with read(request, caller, self._parts.budget, limits, most) as (body, head, held):
                    line.received = len(body)
                    if flat:
                        asked = parse_generate(signature.name, body, head, limits)
                        body.clear()
                        line.kind = asked.kind
                        held.resize(asked.size)
                        await self._generate(request, asked, caller, held, line, events)
                        return
                    asked, binary = parse(signature.name, body, head, limits)
                    body.clear()
                    if asked.streams:
                        raise MalformedRequest(f"{asked.model} answers several times; call it by generate_stream")
                    held.resize(asked.size)
                    run = self._parts.dispatch.run(asked, caller, line=line)
                    answer = await _unless_left(request, asyncio.ensure_future(run))
                    line.sent = answer.ByteSize()
                    held.resize(line.sent)
                    response = await success(answer, binary, asked.identifier)
                    response.headers["X-Request-Id"] = line.identifier
                    await response(scope, receive, send)
        except ConsisIDError:
            if not events.begun:
                raise

    async def _generate(
        self, request: Request, asked: Asked, caller: str, held: Reservation, line: Line, events: Events
    ) -> None:
        run = self._parts.dispatch.run(asked, caller, line=line, on_event=events.outbox.put)
        work = asyncio.ensure_future(run)
        await _unless_left(request, asyncio.ensure_future(events.write(asked, work, held, line)))


async def _unless_left(request: Request, work: asyncio.Future[Any]) -> Any:
    """What `work` returns; cancels it where the caller disconnects, and raises `RequestCancelled`."""
    # After the body, the only event that comes is http.disconnect.
    left = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait({work, left}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise RequestCancelled("the caller left")
        return work.result()
    finally:
        left.cancel()
        if not work.done():
            work.cancel()
            await asyncio.wait({work})
