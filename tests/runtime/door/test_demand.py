"""What a video should take, and what an operator does not allow."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from consisid_runtime.door.admission import demand as subject
from consisid_runtime.door.admission.demand import Demand
from consisid_runtime.door.limits import Limits
from consisid_runtime.errors import InvalidOption
from consisid_runtime.options import Options
from consisid_runtime.plan import Geometry, Plan, plan
from consisid_runtime.tiers import Curve, TierSet

SIZES = Geometry(frames=49, height=480, width=720, spatial=8, temporal=4, patch=2, fixed_size=False)


def resolve(options: Options) -> Plan:
    return plan(options, SIZES)


def test_seconds_follow_evaluations_and_size() -> None:
    demand = Demand(Limits(), lambda: resolve)
    assert demand.seconds(resolve(Options())) is None and demand.at_least(resolve(Options())) == 0
    assert demand.stages(resolve(Options())) is None
    demand.learn(resolve(Options(steps=10)), {"denoise": 20.0})
    assert demand.seconds(resolve(Options(steps=10))) == pytest.approx(20)
    assert demand.seconds(resolve(Options(steps=5))) == pytest.approx(10)
    assert demand.seconds(resolve(Options(steps=10, guidance=1.0))) == pytest.approx(10), "half the evaluations"
    assert demand.seconds(resolve(Options(steps=10, frames=97))) == pytest.approx(20 * 97 / 49)
    demand.learn(resolve(Options(steps=10, frames=97)), {"denoise": 60.0})
    assert demand.seconds(resolve(Options(steps=1, frames=97))) == pytest.approx(6), "its own size's"
    assert demand.seconds(resolve(Options(steps=1))) == pytest.approx(2)
    assert demand.seconds(resolve(Options(steps=1, frames=89))) == pytest.approx(6 * 89 / 97), "the nearest size's"
    demand.learn(resolve(Options(steps=10)), {"denoise": 5.0})
    assert demand.seconds(resolve(Options(steps=10))) == pytest.approx(5), "the last"


def test_other_stages_take_no_longer_for_more_steps() -> None:
    demand = Demand(Limits(), lambda: resolve)
    demand.learn(resolve(Options(steps=2, guidance=1.0)), {"denoise": 0.5, "decode": 3.0})
    assert demand.seconds(resolve(Options(steps=1000, guidance=1.0))) == pytest.approx(250 + 3)
    assert demand.seconds(resolve(Options(steps=2, frames=97))) == pytest.approx(4 * 97 / 49)


def test_what_a_stage_works_on_decides_how_it_grows() -> None:
    demand, wide = Demand(Limits(), lambda: resolve), resolve(Options(steps=1, guidance=1.0, frames=97, width=1440))
    demand.learn(
        resolve(Options(steps=1, guidance=1.0)),
        {"face": 1.0, "text": 1.0, "encode": 1.0, "denoise": 1.0, "decode": 1.0},
    )
    volume = pytest.approx(2 * 97 / 49)
    assert demand.stages(wide) == {"face": 1, "text": 1, "encode": 2, "denoise": volume, "decode": volume}


def test_a_stage_that_was_not_computed_keeps_its_seconds() -> None:
    demand = Demand(Limits(), lambda: resolve)
    demand.learn(resolve(Options(steps=1, guidance=1.0)), {"face": 2.0, "denoise": 1.0})
    demand.learn(resolve(Options(steps=1, guidance=1.0)), {"denoise": 3.0})
    assert demand.stages(resolve(Options(steps=1, guidance=1.0))) == {"face": 2, "denoise": 3}
    demand.learn(resolve(Options(steps=1, guidance=1.0, frames=97)), {"denoise": 5.0, "decode": 97.0})
    assert demand.stages(resolve(Options(steps=1, guidance=1.0, frames=97))) == {"face": 2, "denoise": 5, "decode": 97}
    assert demand.stages(resolve(Options(steps=1, guidance=1.0))) == {"face": 2, "denoise": 3, "decode": 49}


def test_another_tier_serves_until_one_of_its_own_was_made() -> None:
    tiers = TierSet(("exact", "fast"), Curve((999, 0), (0.0, 100.0)))
    demand = Demand(Limits(), lambda: resolve)
    fast = plan(Options(steps=1, guidance=1.0, tier="fast"), SIZES, tiers)
    demand.learn(resolve(Options(steps=1, guidance=1.0)), {"denoise": 1.0})
    assert demand.seconds(fast) == pytest.approx(1)
    demand.learn(replace(fast, frames=97), {"denoise": 4.0})
    assert demand.seconds(fast) == pytest.approx(4 * 49 / 97)


def test_only_a_fresh_figure_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(subject, "time", SimpleNamespace(monotonic=lambda: now))
    demand = Demand(Limits(), lambda: resolve)
    demand.learn(resolve(Options()), {"denoise": 40.0})
    assert demand.at_least(resolve(Options())) == pytest.approx(20)
    now = 601.0
    assert demand.at_least(resolve(Options())) == 0


def test_sizes_are_forgotten() -> None:
    demand = Demand(Limits(), lambda: resolve)
    for row in range(1, 101):
        demand.learn(resolve(Options(height=16 * row, width=16)), {"denoise": 1.0})
    assert len(demand._seen) == subject._SIZES_KEPT


@pytest.mark.parametrize(
    ("limits", "options", "name", "asked"),
    [
        (Limits(steps=20), Options(steps=21), "steps", 21),
        (Limits(steps=20), Options(), "steps", 50),
        (Limits(frames=17), Options(frames=25), "frames", 25),
        (Limits(frames=17), Options(), "frames", 49),
        (Limits(pixels=10_000), Options(height=128, width=128), "pixels", 128 * 128),
    ],
)
def test_the_operators_limits_hold_for_what_is_resolved(
    limits: Limits, options: Options, name: str, asked: int
) -> None:
    with pytest.raises(InvalidOption, match=rf"--max-{name} is \d+, the request asks for {asked}"):
        Demand(limits, lambda: resolve).plan(options)
    within = Options(steps=20, frames=17, height=96, width=96)
    assert Demand(limits, lambda: resolve).plan(within) == resolve(within)
    assert Demand(limits, lambda: None).plan(options) is None
