"""The suite of tiers: which rows it makes of the judges' figures, and that it refuses a tier out of its limits."""

import pytest

from consisid_benchmarks.suites.tiers import TIERS, require_limits, sweep_rows, tier_rows
from consisid_fidelity.nano.gate import TIER_LIMITS
from consisid_fidelity.nano.run import Results
from consisid_fidelity.nano.variants import EXACT, TIER_SWEEP, names
from consisid_measurement.harness import Mismatch

PEOPLE = 6


def results(**changes: float) -> Results:
    """Judged videos of every variant; `changes` are added to the figures of `fast`."""
    found: Results = {}
    for name in (EXACT, *TIERS, *names(TIER_SWEEP)):
        for number in range(PEOPLE):
            values = {"facesim_arc": 0.7 + 0.01 * number, "prompt_accuracy": 1.0, "faces_found": 1.0, "flicker": 4.0}
            values |= {"latents": 0.1 * (name != EXACT), "psnr": 30.0, "clip_distance": 0.01, "denoise_seconds": 2.0}
            if name == "fast":
                values |= {metric: values[metric] + change for metric, change in changes.items()}
            found[name, number] = values
    return found


def test_tiers_within_their_limits_have_figures() -> None:
    require_limits(results(), PEOPLE)
    rows = {(row.variant, row.metric): row for row in tier_rows(results(facesim_arc=0.02), PEOPLE)}
    assert rows["ours", "facesim_arc_percent"].median == pytest.approx(72.5)
    assert rows["ours/fast", "facesim_arc_change_percent"].median == pytest.approx(2.0)
    assert rows["ours/draft", "facesim_arc_change_percent"].median == 0
    assert rows["ours/draft", "latent_distance_percent"].n == PEOPLE
    assert ("ours", "latent_distance_percent") not in rows


@pytest.mark.parametrize(
    ("change", "criterion"),
    [
        ({"facesim_arc": -0.011}, "identity"),
        ({"prompt_accuracy": -0.1}, "prompt_accuracy"),
        ({"faces_found": -0.1}, "faces_found"),
        ({"flicker": 1.0}, "flicker"),
        ({"latents": TIER_LIMITS["fast"].latents.value}, "latents"),
        ({"psnr": -10.0}, "psnr"),
        ({"clip_distance": 0.1}, "clip"),
    ],
    ids=str,
)
def test_a_tier_out_of_a_limit_is_refused(change: dict[str, float], criterion: str) -> None:
    with pytest.raises(Mismatch, match=rf"tier fast is not within its limits(.|\n)*FAIL  {criterion}:"):
        require_limits(results(**change), PEOPLE)


def test_every_alternative_is_a_case_of_its_own() -> None:
    cases = [row.case for row in sweep_rows(results(), PEOPLE)]
    assert set(cases) == {*names(TIER_SWEEP)} and len(cases) == 4 * len(TIER_SWEEP)
