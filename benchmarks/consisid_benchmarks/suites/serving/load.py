"""Sends requests and tells what became of each: in a closed loop of clients, or in an open one of arrivals.

A request of the open loop is timed from the moment it was planned for, whether or not it could be sent then. Timed from
its sending, a server that stalls would delay the requests that would have shown it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

from consisid_benchmarks.suites.serving.arrivals import Arrival, Kind
from consisid_runtime.errors import Busy, ConsisIDError

OK = "OK"


@dataclass(slots=True)
class Heard:
    """What a request has heard of itself so far.

    Attributes:
        first: clock of the first event; None before.
        steps: denoising steps that events told of.
        steps_wanted: that it takes.
    """

    first: float | None = None
    steps: set[int] = field(default_factory=set)
    steps_wanted: int = 0


Send = Callable[[Kind, Heard], Awaitable[None]]
"""Sends one request and returns once its video is there. Raises typed errors."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What became of a request; times are seconds after the load began.

    Attributes:
        planned: when it should have been sent; in a closed loop, when it was.
        first: its first event; None where there was none.
        code: `OK`, or that of its error.
        steps, steps_wanted: of its denoising steps so many were told, so many there are.
    """

    kind: Kind
    planned: float
    first: float | None
    ended: float
    code: str
    steps: int
    steps_wanted: int

    @property
    def latency(self) -> float:
        """Seconds from the planned moment to the end."""
        return self.ended - self.planned


async def open_loop(arrivals: Iterable[Arrival], send: Send) -> list[Sample]:
    """Sends each request when it arrives, however many are on their way; returns once all have ended."""
    begin = time.perf_counter()
    tasks = []
    async with asyncio.TaskGroup() as group:
        for arrival in arrivals:
            await asyncio.sleep(begin + arrival.at - time.perf_counter())
            tasks.append(group.create_task(_one(arrival.kind, arrival.at, begin, send)))
    return [task.result()[0] for task in tasks]


async def closed_loop(clients: int, seconds: float, kind: Kind, send: Send) -> list[Sample]:
    """So many clients send one request after the other for so many seconds; returns once all have ended.

    A client that is refused goes on as late as it was told to: with another request, not with the same.
    """
    begin, found = time.perf_counter(), list[Sample]()

    async def client() -> None:
        while (now := time.perf_counter() - begin) < seconds:
            sample, pause = await _one(kind, now, begin, send)
            found.append(sample)
            await asyncio.sleep(max(0.0, min(pause, seconds - sample.ended)))

    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(client())
    return found


async def _one(kind: Kind, planned: float, begin: float, send: Send) -> tuple[Sample, float]:
    """The sample, and the seconds that the client was asked to wait."""
    heard, code, pause = Heard(), OK, 0.0
    try:
        await send(kind, heard)
    except ConsisIDError as error:
        code = error.code
        pause = (error.retry_after or 0.0) if isinstance(error, Busy) else 0.0
    ended = time.perf_counter() - begin
    first = None if heard.first is None else heard.first - begin
    return Sample(kind, planned, first, ended, code, len(heard.steps), heard.steps_wanted), pause
