from typing import Any

import pytest

from consisid_benchmarks.predict.skipping import nano_curve, tiers
from consisid_runtime.tiers import TIERS, Curve

SECONDS = {"best": 1.0, "likely": 2.0, "worst": 3.0}
FP8: dict[str, Any] = {
    "request": {"seconds": {end: 50 * each + 7 for end, each in SECONDS.items()}},
    "stages": {f"fp8/denoise/{name}": {"seconds": SECONDS} for name in ("first-step", "step")},
}


def test_a_curve_that_rises_steeply_skips_nothing() -> None:
    found = tiers(FP8, Curve((999, 0), (0.0, 1e6)))
    assert (found["fast"]["computed"], found["fast"]["guided"]) == (50, 50)
    assert found["fast"]["seconds"] == pytest.approx(FP8["request"]["seconds"])


def test_only_computed_steps_take_time_and_half_of_it_without_guidance() -> None:
    found = tiers(FP8, Curve((999, 0), (0.0, 1e6)))["draft"]
    steps, guided = TIERS["draft"].steps, TIERS["draft"].guided_steps(TIERS["draft"].steps)
    assert (found["computed"], found["guided"]) == (steps, guided)
    assert found["seconds"]["likely"] == pytest.approx(7 + 2.0 * (guided + (steps - guided) / 2))
    still = tiers(FP8, Curve((999, 0), (0.0, 0.0)))["fast"]
    assert still["computed"] < 5
    assert still["seconds"]["worst"] == pytest.approx(7 + 3.0 * still["guided"])


def test_the_committed_checkpoint_has_the_curve() -> None:
    assert nano_curve().change[-1] > 0
