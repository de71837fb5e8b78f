import json
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from consisid_fidelity.verdict import Distances, Limit, Limits, RunMetrics, compare_runs

N = 24
CASES = [f"person {i}" for i in range(N)]
RNG = np.random.default_rng(0)
REFERENCE = RunMetrics(CASES, RNG.normal(0.8, 0.1, N), RNG.choice([0.75, 1.0], N), np.ones(N), RNG.normal(3.0, 0.5, N))
LIMITS = Limits(
    identity=Limit(-0.01, "why identity"),
    prompt_accuracy=Limit(-0.02, "why prompt"),
    faces_found=Limit(-0.01, "why faces"),
    flicker=Limit(0.1, "why flicker"),
    latents=Limit(0.05, "why latents"),
    worst_latents=Limit(0.2, "why worst"),
    clip=Limit(0.1, "why clip"),
    psnr=Limit(30.0, "why psnr"),
)
NEAR = Distances(RNG.uniform(0.01, 0.02, N), RNG.uniform(38, 42, N), RNG.uniform(0.0, 0.02, N))


def changed(name: str, by: Any) -> RunMetrics:
    return replace(REFERENCE, **{name: np.asarray(getattr(REFERENCE, name)) + by})


def failed(candidate: RunMetrics = REFERENCE, distances: Distances = NEAR, limits: Limits = LIMITS) -> tuple[str, ...]:
    return compare_runs(candidate, REFERENCE, distances, limits).failed


def test_the_reference_itself_passes_every_criterion() -> None:
    verdict = compare_runs(REFERENCE, REFERENCE, NEAR, LIMITS)
    assert verdict.passed and verdict.failed == ()
    assert [each.name for each in verdict.criteria] != [] and len(verdict.criteria) == len(fields(Limits))
    assert {each.name for each in verdict.criteria} == {each.name for each in fields(Limits)}


@pytest.mark.parametrize(
    ("name", "harmless", "harm"),
    [("identity", 0.2, -0.02), ("prompt_accuracy", 0.1, -0.05), ("faces_found", 0.0, -0.1), ("flicker", -1.0, 0.2)],
)
def test_a_change_fails_only_its_own_criterion_and_only_when_worse(name: str, harmless: float, harm: float) -> None:
    assert failed(changed(name, harmless)) == ()
    assert failed(changed(name, harm)) == (name,)


@pytest.mark.parametrize(("name", "far"), [("latents", 0.06), ("clip", 0.2), ("psnr", 25.0)])
def test_a_distance_fails_its_own_criterion(name: str, far: float) -> None:
    assert failed(distances=replace(NEAR, **{name: np.full(N, far)})) == (name,)


def test_one_bad_video_fails_even_with_a_good_mean() -> None:
    latents = np.array(NEAR.latents)
    latents[7] = 0.25
    verdict = compare_runs(REFERENCE, REFERENCE, replace(NEAR, latents=latents), LIMITS)
    assert verdict.failed == ("worst_latents",)
    assert "FAIL  worst_latents: 0.25 (no interval, n = 1), person 7; at most 0.2: why worst" in str(verdict)


def test_a_mean_within_the_limit_fails_when_its_interval_exceeds_it() -> None:
    noise = np.where(np.arange(N) % 2, 0.1, -0.1)
    verdict = compare_runs(changed("identity", noise - 0.005), REFERENCE, NEAR, LIMITS)
    (criterion,) = (each for each in verdict.criteria if each.name == "identity")
    assert criterion.figure is not None and criterion.figure.mean == pytest.approx(-0.005)
    assert verdict.failed == ("identity",)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["identity", "flicker"])
def test_a_value_that_is_not_finite_fails(name: str, value: float) -> None:
    by = np.zeros(N)
    by[5] = value
    verdict = compare_runs(changed(name, by), REFERENCE, NEAR, LIMITS)
    assert verdict.failed == (name,)
    assert "not finite, person 5" in str(verdict)


def test_latents_that_are_not_finite_fail_both_criteria_and_can_be_written() -> None:
    latents = np.array(NEAR.latents)
    latents[3] = np.nan
    verdict = compare_runs(REFERENCE, REFERENCE, replace(NEAR, latents=latents), LIMITS)
    assert verdict.failed == ("latents", "worst_latents")
    assert json.loads(json.dumps(verdict.to_json(), allow_nan=False))["failed"] == ["latents", "worst_latents"]


def test_a_single_video_fails_every_mean() -> None:
    one = RunMetrics(["a"], [0.8], [1.0], [1.0], [3.0])
    verdict = compare_runs(one, one, Distances([0.01], [40.0], [0.0]), LIMITS)
    assert set(verdict.failed) == {each.name for each in fields(Limits)} - {"worst_latents"}
    assert "no interval, n = 1" in str(verdict)


def test_three_equal_videos_fail_and_four_pass() -> None:
    for count, passed in ((3, False), (4, True)):
        same = RunMetrics(CASES[:count], [0.8] * count, [1.0] * count, [1.0] * count, [3.0] * count)
        assert (
            compare_runs(same, same, Distances([0.0] * count, [100.0] * count, [0.0] * count), LIMITS).passed is passed
        )


@pytest.mark.parametrize(
    "candidate",
    [
        replace(REFERENCE, cases=CASES[::-1]),
        replace(REFERENCE, cases=CASES[:-1]),
        replace(REFERENCE, identity=[0.5]),
    ],
    ids=["another order", "fewer", "values missing"],
)
def test_runs_with_different_cases_are_refused(candidate: RunMetrics) -> None:
    with pytest.raises(ValueError, match="cases"):
        compare_runs(candidate, REFERENCE, NEAR, LIMITS)


def test_repeated_cases_are_refused() -> None:
    same = replace(REFERENCE, cases=["person"] * N)
    with pytest.raises(ValueError, match="each once"):
        compare_runs(same, same, NEAR, LIMITS)
