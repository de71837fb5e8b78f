"""One request of a stream: what its caller gets, whatever happens to it."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

import numpy as np

from consisid_runtime.errors import NoFace, RequestCancelled
from consisid_runtime.events import QUEUE, Event
from consisid_runtime.serve.stream.job import StreamJob


class Answers:
    def __init__(self) -> None:
        self.events: list[Event] = []
        self.end: Any = None

    def event(self, event: Event) -> None:
        self.events.append(event)

    def video(self, tensors: Mapping[str, Any], info: Mapping[str, Any]) -> None:
        self.end = info

    def failure(self, error: Exception) -> None:
        self.end = error


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Caller:
    left = False

    def look(self, label: str, done: int, total: int) -> None:
        if self.left:
            raise RequestCancelled("left")


FACE, TEXT = Event("face", 0, 1, seconds_left=5.0), Event("text", 0, 1, seconds_left=2.0)


def flow(clock: Clock, error: Exception | None = None) -> Generator[Event, None, Any]:
    yield FACE
    clock.now += 3.0
    if error is not None:
        raise error
    yield TEXT
    clock.now += 2.0
    return {"video": np.zeros(1, np.uint8)}, {"seed": 1}


def made(error: Exception | None = None, left: float | None = None) -> tuple[StreamJob, Answers, Caller, Clock]:
    clock, answers, caller = Clock(), Answers(), Caller()
    return (
        StreamJob(flow(clock, error), answers, caller.look, urgent=False, left=left, clock=clock),
        answers,
        caller,
        clock,
    )


def test_events_then_the_video_with_the_seconds_it_waited() -> None:
    job, answers, _, clock = made()
    clock.now += 10.0
    assert job.part() and job.part() and answers.end is None
    clock.now += 0.5
    assert not job.part()
    assert answers.events == [FACE, TEXT]
    assert answers.end == {"seed": 1, "queued": 10.5}


def test_what_is_left_counts_those_before_it() -> None:
    job, answers, _, _ = made()
    job.waits(2, 7.0)
    job.part()
    job.waits(1, 7.0)
    job.waits(1, None)
    assert answers.events == [
        Event(QUEUE, 0, 1, position=2),
        FACE,
        Event(QUEUE, 0, 1, position=1, seconds_left=12.0),
        Event(QUEUE, 0, 1, position=1),
    ]


def test_one_that_is_not_begun_counts_what_earlier_ones_took() -> None:
    job, answers, _, _ = made(left=5.0)
    job.waits(1, 7.0)
    assert answers.events == [Event(QUEUE, 0, 1, position=1, seconds_left=12.0)]


def test_an_error_is_its_last_answer() -> None:
    job, answers, _, _ = made(error := NoFace("no face"))
    assert job.part() and not job.part()
    assert answers.end is error


def test_a_caller_who_left_costs_no_further_part() -> None:
    job, answers, caller, clock = made()
    assert job.part() and not job.dropped()
    caller.left = True
    assert not job.part() and clock.now == 0.0
    assert isinstance(answers.end, RequestCancelled)


def test_one_that_is_paused_ends_when_its_caller_leaves() -> None:
    job, answers, caller, _ = made()
    assert job.part()
    caller.left = True
    assert job.dropped() and isinstance(answers.end, RequestCancelled)
