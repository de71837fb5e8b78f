"""The requests of the suite: one portrait, each time as another file, and a prompt that nano was trained for."""

from __future__ import annotations

import functools
import itertools
import struct
import time
import zlib
from contextlib import aclosing
from dataclasses import dataclass, field

from consisid_benchmarks.suites.serving.arrivals import Kind
from consisid_benchmarks.suites.serving.load import Heard, Send
from consisid_runtime.client.connect import connect
from consisid_runtime.client.request import Request
from consisid_runtime.errors import ServerError
from consisid_runtime.events import Event
from consisid_runtime.options import Options
from consisid_runtime.wire import Extras

STEPS = 6
_LONGEST = 300.0
"""Seconds for one request."""
_END = 12
"""Bytes of a PNG's last chunk."""


@dataclass
class Photographs:
    """Files of one portrait that differ: a server would answer the second of equal ones without its face networks."""

    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def next(self) -> bytes:
        """Another file of the same pixels."""
        return _numbered(_portrait(), next(self._numbers))


def prompt() -> str:
    from consisid_fidelity.nano.evaluation_set import case

    return case(0).prompt


def options(frames: int) -> Options:
    """Of every request, so that each has the same work."""
    return Options(seed=0, steps=STEPS, frames=frames)


def sender(url: str) -> Send:
    """Sends requests to a server's `consisid_stream`, over a connection of its own each, as the clients do."""
    transport, photographs, words = connect(url), Photographs(), prompt()

    async def send(kind: Kind, heard: Heard) -> None:
        heard.steps_wanted = STEPS
        request = Request.make_stream(photographs.next(), words, options(kind.frames), Extras(), None)
        parameters = {**request.parameters, **({"priority": 1} if kind.urgent else {})}
        names = [port.name for port in request.outputs]
        answers = transport.stream(request.model, request.inputs, parameters, names, _LONGEST)
        async with aclosing(answers):
            async for answer in answers:
                item = request.item(answer)
                if not isinstance(item, Event):
                    return
                heard.first = heard.first or time.perf_counter()
                if item.stage == "denoise" and item.done:
                    heard.steps.add(item.done)
        raise ServerError("the server ended its answer without a video")

    return send


@functools.cache
def _portrait() -> bytes:
    from consisid_fidelity.nano.evaluation_set import case, png

    return png(case(0).portrait())


def _numbered(png: bytes, number: int) -> bytes:
    """A PNG with a comment before its last chunk."""
    content = b"tEXt" + b"Comment\0" + str(number).encode()
    chunk = struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))
    return png[:-_END] + chunk + png[-_END:]
