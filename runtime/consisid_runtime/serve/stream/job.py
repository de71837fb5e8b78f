"""One request to `consisid_stream`, as what `Turns` orders."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from consisid_runtime.errors import ConsisIDError
from consisid_runtime.events import QUEUE, Event, Progress

if TYPE_CHECKING:
    from numpy.typing import NDArray

Flow = Generator[Event, None, "tuple[Mapping[str, NDArray[Any]], dict[str, Any]]"]
"""Yields events; returns the answer's tensors by port name, and the video's `info`."""


class Answers(Protocol):
    """Where the responses to one request go."""

    def event(self, event: Event) -> None: ...

    def video(self, tensors: Mapping[str, NDArray[Any]], info: Mapping[str, Any]) -> None:
        """The last one."""

    def failure(self, error: Exception) -> None:
        """The last one; does not raise."""


class StreamJob:
    """See `turns.Job`.

    Args:
        flow: the request's work.
        answers: one call for each event, and one at the end.
        look: raises once nobody waits for the answer any more.
        urgent: goes before those that are not.
        left: seconds that it takes, as far as known.
    """

    def __init__(
        self,
        flow: Flow,
        answers: Answers,
        look: Progress,
        *,
        urgent: bool,
        left: float | None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.urgent, self.left = urgent, left
        self._flow, self._answers, self._look, self._clock = flow, answers, look, clock
        self._came = clock()
        self._computed = 0.0

    def part(self) -> bool:
        begin = self._clock()
        try:
            self._look("", 0, 0)
            try:
                event = next(self._flow)
            except StopIteration as end:
                tensors, info = end.value
                queued = begin - self._came - self._computed
                self._answers.video(tensors, info | {"queued": round(queued, 4)})
                return False
            self.left = event.seconds_left
            self._answers.event(event)
        except Exception as error:
            self._fail(error)
            return False
        self._computed += self._clock() - begin
        return True

    def waits(self, position: int, seconds: float | None) -> None:
        left = None if seconds is None or self.left is None else seconds + self.left
        with contextlib.suppress(Exception):  # where it cannot be told, its next part ends it
            self._answers.event(Event(QUEUE, 0, 1, position=position, seconds_left=left))

    def dropped(self) -> bool:
        try:
            self._look("", 0, 0)
        except ConsisIDError as error:
            self._fail(error)
            return True
        return False

    def _fail(self, error: Exception) -> None:
        with contextlib.suppress(Exception):
            self._flow.close()
        self._answers.failure(error)
