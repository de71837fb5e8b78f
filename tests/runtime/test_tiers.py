"""Which steps a tier computes, and how a request's tier, steps and guidance are resolved."""

import json
from dataclasses import fields
from typing import Any

import pytest

from consisid_runtime.errors import TierUnavailable
from consisid_runtime.options import Options
from consisid_runtime.plan import Geometry, plan
from consisid_runtime.tiers import GUIDANCE, STEPS, TIERS, Curve, Tier, TierSet, available, computed_steps
from consisid_runtime.wire import read_parameters, write_parameters

GEOMETRY = Geometry(9, 32, 32, 8, 4, 2, fixed_size=False)
CURVE = Curve((90, 80, 60, 0), (0.0, 0.5, 0.5, 1.1))


def timesteps(count: int) -> list[int]:
    return [round(90 * (1 - i / max(count - 1, 1))) for i in range(count)]


ALL = TierSet(("exact", "fast", "draft"), CURVE, timesteps)


@pytest.mark.parametrize(
    ("timestep", "change"), [(95, 0.0), (90, 0.0), (85, 0.25), (80, 0.5), (70, 0.5), (60, 0.5), (30, 0.8), (0, 1.1)]
)
def test_a_curve_is_linear_between_its_points(timestep: int, change: float) -> None:
    assert CURVE.at(timestep) == pytest.approx(change)


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        {},
        {"timesteps": [9, 0]},
        {"timesteps": [9, 0], "change": [0.0]},
        {"timesteps": [9], "change": [0.0]},
        {"timesteps": [0, 9], "change": [0.0, 1.0]},
        {"timesteps": [9, 9], "change": [0.0, 1.0]},
        {"timesteps": [9, 0], "change": [0.0, -1.0]},
        {"timesteps": [9, 0], "change": [0.5, 1.0]},
        {"timesteps": [9, 0], "change": [0.0, float("nan")]},
        {"timesteps": [9, 0], "change": [0.0, float("inf")]},
        {"timesteps": [9, 0], "change": [0.0, "1"]},
        {"timesteps": [9.5, 0], "change": [0.0, 1.0]},
        {"timesteps": [9, -1], "change": [0.0, 1.0]},
        {"timesteps": [9, 0], "change": [0.0, 1.0], "more": 1},
    ],
    ids=str,
)
def test_a_malformed_curve_is_refused(content: Any) -> None:
    with pytest.raises(ValueError, match='"timesteps" falling and "change" rising from 0'):
        Curve.from_json(content)


def test_a_curve_survives_json() -> None:
    assert Curve.from_json(json.loads(json.dumps(CURVE.to_json()))) == CURVE


def test_a_step_is_computed_once_the_clean_latents_moved_too_far() -> None:
    """The change counts from the last computed step, not from the one before."""
    curve = Curve((5, 4, 3, 2, 1, 0), (0.0, 0.3, 0.4, 0.5, 0.6, 0.65))
    steps = range(5, -1, -1)
    assert computed_steps(curve, steps, 0.25) == (True, True, False, False, True, True)
    assert computed_steps(curve, steps, 0.2999) == (True, True, False, False, True, True)
    assert computed_steps(curve, steps, 0.3) == (True, False, True, False, False, True)
    assert computed_steps(curve, steps, 10.0) == (True, False, False, False, False, True)
    assert computed_steps(curve, [3], 10.0) == (True,)


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 50, 1000])
@pytest.mark.parametrize("tier", TIERS)
def test_first_and_last_step_are_always_computed(tier: str, steps: int) -> None:
    computed = ALL.computed(TIERS[tier], steps)
    assert len(computed) == steps and computed[0] and computed[-1]
    assert all(computed) or TIERS[tier].threshold


def test_the_more_a_tier_may_skip_the_fewer_steps_it_computes() -> None:
    counts = [sum(computed_steps(CURVE, timesteps(50), threshold)) for threshold in (0.01, 0.1, 0.2, 0.3, 2.0)]
    assert counts == sorted(counts, reverse=True) and counts[0] > counts[1] > counts[-1] == 2


@pytest.mark.parametrize(
    ("precision", "curve", "names"),
    [
        ("fp32", None, ("exact",)),
        ("bf16", CURVE, ("exact", "fast", "draft")),
        ("fp8", None, ("fp8",)),
        ("fp8", CURVE, ("fp8", "fast", "draft")),
    ],
)
def test_a_bundle_has_the_tiers_of_its_precision_and_curve(
    precision: str, curve: Curve | None, names: tuple[str, ...]
) -> None:
    assert available(precision, curve) == names


def test_a_request_without_a_tier_takes_the_bundles_first() -> None:
    assert plan(Options(), GEOMETRY).tier == "exact"
    assert plan(Options(), GEOMETRY, TierSet(("fp8",))).tier == "fp8"


@pytest.mark.parametrize("tier", ["fp8", "fast", "draft"])
def test_a_tier_that_the_bundle_lacks_is_refused(tier: str) -> None:
    with pytest.raises(TierUnavailable, match=f"no tier '{tier}'; it has exact$"):
        plan(Options(tier=tier), GEOMETRY)


@pytest.mark.parametrize("tier", ["exact", "fast", "draft"])
def test_what_a_request_names_goes_before_the_tiers_own(tier: str) -> None:
    own = plan(Options(tier=tier), GEOMETRY, ALL)
    assert (own.steps, own.guidance) == (TIERS[tier].steps, GUIDANCE)
    asked = plan(Options(tier=tier, steps=STEPS, guidance=GUIDANCE), GEOMETRY, ALL)
    assert (asked.steps, asked.guidance, asked.guided_steps) == (STEPS, GUIDANCE, STEPS)
    assert len(asked.computed) == STEPS


def test_draft_leaves_guidance_out_late_where_the_request_names_none() -> None:
    late = plan(Options(tier="draft", steps=9), GEOMETRY, ALL)
    assert late.guided and 0 < late.guided_steps < 9
    assert plan(Options(tier="draft", steps=1), GEOMETRY, ALL).guided_steps == 1
    assert plan(Options(tier="draft", steps=9, dynamic_guidance=True), GEOMETRY, ALL).guided_steps == 9
    assert plan(Options(tier="draft", steps=9, guidance=1.0), GEOMETRY, ALL).guided_steps == 0
    assert plan(Options(tier="fast"), GEOMETRY, ALL).guided_steps == STEPS


def test_an_explicit_default_survives_the_wire() -> None:
    options = Options(tier="draft", steps=STEPS, guidance=GUIDANCE)
    sent = write_parameters(options)
    assert sent == {"tier": "draft", "steps": 50, "guidance": 6.0}
    assert read_parameters(json.dumps(sent))[0] == options


def test_exact_and_fp8_save_nothing_by_steps() -> None:
    for name in ("exact", "fp8"):
        changed = {f.name for f in fields(Tier) if getattr(TIERS[name], f.name) != f.default}
        assert changed == {"name", "meaning"}
