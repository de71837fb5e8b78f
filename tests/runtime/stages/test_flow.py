"""A request in parts: which events come when, with stages that only take time."""

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from consisid_runtime.options import Options
from consisid_runtime.plan import Geometry, plan
from consisid_runtime.stages import flow as module
from consisid_runtime.stages.flow import RANGE_SECONDS, Course, flow
from consisid_runtime.stages.rates import Rates, evaluations
from consisid_runtime.stages.table import STAGES

GEOMETRY = Geometry(9, 32, 32, 8, 4, 2, fixed_size=False)
PLAN = plan(Options(steps=10, guidance=6.0), GEOMETRY)


class Clock:
    """Stages that take so many seconds, `denoise` for each step; time passes in them alone."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, step: float, **others: float) -> None:
        self.now, self.step, self.others, self.spans = 0.0, step, others, []  # type: ignore[var-annotated]
        time = SimpleNamespace(perf_counter=lambda: self.now, monotonic=lambda: self.now)
        monkeypatch.setattr(module, "time", time)

    def call(self, stage: Any, values: Any, plan: Any, reports: Any, look: Any) -> Any:
        if stage.name == "denoise":
            first, last = values["span"]
            self.spans.append((first, last))
            self.now += self.step * (last - first)
            return {"latents": last, "x0": last, "generator": last}, {"steps": last - first}
        self.now += self.others.get(stage.name, 0.0)
        return {}, {}


def finished(events: Iterator[Any]) -> tuple[list[Any], Any]:
    seen = []
    while True:
        try:
            seen.append(next(events))
        except StopIteration as end:
            return seen, end.value


def test_every_stage_and_every_step_has_an_event(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, 0.1, decode=2.0)
    events, reports = finished(flow(clock.call, {}, PLAN, Course()))
    assert [event.stage for event in events if event.done == 0] == [stage.name for stage in STAGES]
    assert [event.done for event in events if event.stage == "denoise"] == list(range(11))
    assert clock.spans == [(0, 1), (1, 6), (6, 10)]
    assert reports["denoise"]["seconds"] == pytest.approx(1.0) and reports["decode"]["seconds"] == 2.0


def test_a_part_is_one_step_where_a_step_takes_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, 3 * RANGE_SECONDS)
    finished(flow(clock.call, {}, PLAN, Course()))
    assert clock.spans == [(i, i + 1) for i in range(10)]


def test_what_is_left_is_known_after_the_first_step_and_for_the_next_request_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, rates = Clock(monkeypatch, 1.0, face=0.5, decode=2.0), Rates()
    first, _ = finished(flow(clock.call, {}, PLAN, Course(rates=rates)))
    assert [event.seconds_left for event in first[:5]] == [None, None, None, None, 9.0]
    second, _ = finished(flow(clock.call, {}, PLAN, Course(rates=rates)))
    assert second[0].seconds_left == pytest.approx(12.5)
    assert second[-1].seconds_left == pytest.approx(2.0)


def test_time_between_two_parts_belongs_to_another_request(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, 1.0)
    events = flow(clock.call, {}, PLAN, Course())
    for event in events:
        clock.now += 100.0
        assert event.seconds_left is None or event.seconds_left < 11


def test_checkpoints_come_when_they_are_due_and_none_comes_with_the_last_step(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, 1.0)
    course = Course(checkpoint=lambda step, values: b"%d" % step, checkpoint_seconds=2.5)
    events, _ = finished(flow(clock.call, {}, PLAN, course))
    assert [event.checkpoint for event in events if event.checkpoint] == [b"3", b"6", b"9"]


def test_a_checkpoint_is_gone_on_from(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, 1.0)
    values = {"latents": 7, "x0": 7, "generator": 7}
    events, _ = finished(flow(clock.call, values, PLAN, Course(step=7)))
    assert clock.spans[0] == (7, 8)
    assert [event.done for event in events if event.stage == "denoise"] == [7, 8, 9, 10]


def test_a_look_comes_before_every_stage_and_every_part(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, looks = Clock(monkeypatch, 1.0), []
    finished(flow(clock.call, {}, PLAN, Course(look=lambda *at: looks.append(at))))
    assert [at for at in looks if at[0] == "denoise"] == [("denoise", i, 10) for i in range(10)]
    assert {at[0] for at in looks} == {stage.name for stage in STAGES}


def test_previews_are_of_the_clean_latents_at_the_end_of_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, 0.1)
    events, _ = finished(flow(clock.call, {}, PLAN, Course(preview=lambda x0, plan: b"%d" % x0)))
    assert [(event.done, event.preview) for event in events if event.preview] == [(1, b"1"), (6, b"6"), (10, b"10")]


def test_evaluations_count_guidance_twice_and_skipped_steps_not() -> None:
    skipping = replace(PLAN, computed=(True, False) * 5, guided_steps=4)
    assert [evaluations(skipping), evaluations(skipping, 3), evaluations(PLAN)] == [7, 3, 20]


def test_rates_of_the_latest_sizes_are_kept() -> None:
    rates = Rates()
    for frames in range(9, 9 + 8 * 65, 8):
        rates.learn(replace(PLAN, frames=frames), "decode", float(frames))
    assert rates.left(replace(PLAN, frames=9), ["decode"]) == 0.0
    assert rates.left(replace(PLAN, frames=17), ["decode"]) == 17.0
