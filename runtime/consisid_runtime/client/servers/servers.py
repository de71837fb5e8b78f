"""Several servers as one transport."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from consisid_runtime.client.answer import seconds_of
from consisid_runtime.client.servers.balance import Balance, Work, plan_of
from consisid_runtime.client.transport import PATIENCE, Parameters, Transport, patiently
from consisid_runtime.errors import Busy, ServerError, ServerUnreachable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Answers = AsyncGenerator[dict[str, NDArray[Any]], None]
    Start = Callable[[Transport, float], Answers]
    """Sends a request to a server, with the seconds that are left."""

_HEALTH_TIMEOUT = 1.0
"""Seconds."""


class Servers:
    """A `Transport` to the one of several that is expected to have done a request first.

    One that is busy or cannot be reached is passed over, since nothing was computed there, and rests for a while. After
    that, and before its first request, it is asked for its health.
    """

    def __init__(self, transports: Sequence[Transport]) -> None:
        self._transports = transports
        self._balance = Balance(len(transports))

    async def infer(
        self,
        model: str,
        inputs: Mapping[str, bytes | str],
        parameters: Parameters,
        outputs: Sequence[str],
        timeout: float,
        patience: float = PATIENCE,
    ) -> dict[str, NDArray[Any]]:
        async def start(transport: Transport, left: float) -> Answers:
            yield await transport.infer(model, inputs, parameters, outputs, left, patience=0)

        found: dict[str, NDArray[Any]] = {}
        async for answer in self._run(start, parameters, timeout, patience):
            found = answer
        return found

    async def stream(
        self,
        model: str,
        inputs: Mapping[str, bytes | str],
        parameters: Parameters,
        outputs: Sequence[str],
        timeout: float,
        patience: float = PATIENCE,
    ) -> Answers:
        def start(transport: Transport, left: float) -> Answers:
            return transport.stream(model, inputs, parameters, outputs, left, patience=0)

        async for answer in self._run(start, parameters, timeout, patience):
            yield answer

    async def ready(self, timeout: float) -> bool:
        """Whether any is."""
        found = await asyncio.gather(*[transport.ready(timeout) for transport in self._transports])
        return any(found)

    async def _run(self, start: Start, parameters: Parameters, timeout: float, patience: float) -> Answers:
        deadline = time.monotonic() + timeout

        async def attempt() -> tuple[Work, Answers, dict[str, NDArray[Any]]]:
            return await self._first(start, parameters, deadline)

        work, answers, answer = await patiently(attempt, min(patience, timeout))
        began, seconds = time.monotonic(), None
        try:
            while True:
                if "video" in answer:
                    seconds = seconds_of(answer) or time.monotonic() - began
                yield answer
                answer = await anext(answers)
        except StopAsyncIteration:
            return
        finally:
            self._balance.end(work, seconds)
            await answers.aclose()

    async def _first(
        self, start: Start, parameters: Parameters, deadline: float
    ) -> tuple[Work, Answers, dict[str, NDArray[Any]]]:
        """The answers of the first server that takes the request, and the first of them.

        Raises `Busy` where one of them is only busy, `ServerUnreachable` where none can be reached.
        """
        refused: dict[int, ServerError] = {}
        while (work := self._balance.take(plan_of(parameters), refused)) is not None:
            transport = self._transports[work.server]
            answers = start(transport, max(0.001, deadline - time.monotonic()))
            try:
                if not self._balance.is_proven(work.server) and not await transport.ready(_HEALTH_TIMEOUT):
                    raise ServerUnreachable(f"server {work.server + 1} of the list is not ready")
                return work, answers, await anext(answers)
            except BaseException as error:
                self._balance.end(work)
                await answers.aclose()
                if not isinstance(error, Busy | ServerUnreachable) or getattr(error, "begun", False):
                    raise
                self._balance.rest(work.server, error)
                refused[work.server] = error
        raise _none_left(list(refused.values()))


def _none_left(refused: Sequence[ServerError]) -> ServerError:
    text = f"none of {len(refused)} servers took the request: {'; '.join(map(str, refused))}"
    busy = [error for error in refused if isinstance(error, Busy)]
    if not busy:
        return ServerUnreachable(text)
    return Busy(text, min((error.retry_after for error in busy if error.retry_after is not None), default=None))
