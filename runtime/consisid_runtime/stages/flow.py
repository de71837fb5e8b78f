"""One request as a generator: an event after each part, between two of which another request may run.

Parts are the stages; denoising has a part for each half second, of at least one step. A request that was paused, or cut
and continued from a checkpoint, ends with the bytes of one that ran through.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

from consisid_runtime.events import Event, Progress, silent
from consisid_runtime.plan import Plan
from consisid_runtime.stages.rates import Rates, evaluations
from consisid_runtime.stages.table import STAGES, Info, Stage, Values

Call = Callable[[Stage, Values, Plan, Mapping[str, Info], Progress], tuple[Values, Info]]
"""Runs one stage: (stage, values, plan, reports of the stages before, progress) → its outputs and what it reports."""

RANGE_SECONDS = 0.5
"""What a part of the denoising lasts, unless one step takes longer, or checkpoints are wanted more often."""

_NAMES = [stage.name for stage in STAGES]


@dataclass(frozen=True, slots=True)
class Course:
    """What a flow does beside the video.

    Attributes:
        rates: of earlier requests; learns from this one.
        preview: (x0, plan) → a JPEG; None for no previews.
        similarity: (values, plan, look) → events, and what is reported of the video's faces; None for nothing.
        checkpoint: (next step, values) → a checkpoint of the solver's state; None for none.
        checkpoint_seconds: between two checkpoints, at least.
        step: of `denoise`, that the values already hold the state for.
        whole: denoise in one part.
        look: called at each step; raise in it to cancel.
    """

    rates: Rates = field(default_factory=Rates)
    preview: Callable[[Any, Plan], bytes] | None = None
    similarity: Callable[[Values, Plan, Progress], Generator[Event, None, Info]] | None = None
    checkpoint: Callable[[int, Values], bytes] | None = None
    checkpoint_seconds: float = 0.0
    step: int = 0
    whole: bool = False
    look: Progress = silent


def in_process(loaded: Mapping[str, Any]) -> Call:
    """Runs the stages that `table.load` returned."""
    return lambda stage, values, plan, reports, look: stage.call(loaded[stage.name], values, plan, look)


def flow(call: Call, values: Values, plan: Plan, course: Course) -> Generator[Event, None, dict[str, Info]]:
    """Run all stages.

    Args:
        values: the inputs of the first, and the state of `denoise` where `course.step` is not 0; gets the outputs of
            each stage.

    Returns what each stage reports, with its wall time as "seconds", without the time between two parts.
    """
    reports: dict[str, Info] = {}
    for i, stage in enumerate(STAGES):
        if stage.name == "denoise":
            reports["denoise"] = yield from _denoise(stage, call, values, plan, reports, course)
            continue
        yield Event(stage.name, 0, 1, seconds_left=course.rates.left(plan, _NAMES[i:], course.step))
        course.look(stage.name, 0, 1)
        begin = time.perf_counter()
        outputs, info = call(stage, values, plan, reports, course.look)
        seconds = time.perf_counter() - begin
        values |= outputs
        reports[stage.name] = {**info, "seconds": seconds}
        if not info.get("face_cached"):  # what was not computed says nothing
            course.rates.learn(plan, stage.name, seconds)
    if course.similarity is not None:
        reports["similarity"] = yield from course.similarity(values, plan, course.look)
    return reports


def _denoise(
    stage: Stage, call: Call, values: Values, plan: Plan, reports: Mapping[str, Info], course: Course
) -> Generator[Event, None, Info]:
    info: Info = {}
    names, step, total, took = _NAMES[_NAMES.index(stage.name) :], course.step, plan.steps, 0.0
    yield Event(stage.name, step, total, seconds_left=course.rates.left(plan, names, step))
    saved, lasting = time.monotonic(), RANGE_SECONDS
    if course.checkpoint is not None:
        lasting = min(lasting, course.checkpoint_seconds)
    while step < total:
        course.look(stage.name, step, total)
        count = total - step if course.whole else course.rates.steps(plan, step, lasting)
        span = range(step, step + count)
        begin = time.perf_counter()
        # A run in one part keeps nothing for further ones.
        given = values if span == range(total) else values | {"span": (span.start, span.stop)}
        outputs, info = call(stage, given, plan, reports, course.look)
        seconds = time.perf_counter() - begin
        values |= outputs
        took, step = took + seconds, span.stop
        if done := evaluations(plan, span.start, step):
            course.rates.learn(plan, stage.name, seconds / done)
        for i in range(span.start + 1, step):
            yield Event(stage.name, i, total, seconds_left=course.rates.left(plan, names, i))
        checkpoint = None
        due = time.monotonic() - saved >= course.checkpoint_seconds
        if course.checkpoint is not None and due and step < total:
            checkpoint, saved = course.checkpoint(step, values), time.monotonic()
        preview = None if course.preview is None else course.preview(values["x0"], plan)
        left = course.rates.left(plan, names, step)
        yield Event(stage.name, step, total, seconds_left=left, preview=preview, checkpoint=checkpoint)
    return {**info, "seconds": took}
