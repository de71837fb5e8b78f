from typing import Any

import numpy as np
import pytest

from consisid_fidelity.metrics.frechet import frechet_distance
from consisid_fidelity.metrics.statistics import paired_difference, proportion
from consisid_fidelity.nano import experiments, gate
from consisid_fidelity.nano.experiments import summarise
from consisid_fidelity.nano.run import Results
from consisid_fidelity.nano.variants import CONTROLS, DAMAGES, EXACT, TIER_SWEEP, TIER_VARIANTS, VARIANTS, names

N = 8
RNG = np.random.default_rng(0)
IDENTITY = RNG.normal(0.8, 0.05, N)
NEAR = {"latents": 0.01, "psnr": 45.0, "ssim": 0.99, "clip_distance": 0.001}
FAR = NEAR | {"latents": 0.4}


def values(number: int, loss: float = 0.0, **more: Any) -> dict[str, Any]:
    known = {"facesim_arc": IDENTITY[number] - loss, "prompt_accuracy": 1.0, "faces_found": 1.0, "flicker": 3.0}
    return known | {"rank1": number != 3, "spectrum": [-1.0, -2.0 - number]} | more


@pytest.fixture
def results() -> Results:
    found: Results = {(EXACT, number): values(number, **NEAR) for number in range(N)}
    found |= {("8-bit-weights", number): values(number, loss=0.001, **NEAR) for number in range(N)}
    found |= {("3-bit-weights", number): values(number, loss=0.2, **FAR) for number in range(4)}
    found |= {("no-local", number): values(number, loss=0.1 + 0.01 * number, rank1=False) for number in range(N)}
    return found


def test_figures_are_means_shares_and_paired_differences(results: Results) -> None:
    found = summarise(results).figures
    assert found[EXACT]["facesim_arc"]["mean"] == pytest.approx(IDENTITY.mean(), abs=1e-6)
    assert "change" not in found[EXACT]["facesim_arc"] and "spectrum" not in found[EXACT]
    share = proportion([number != 3 for number in range(N)])
    assert found[EXACT]["rank1"] == pytest.approx(share.to_json(), abs=1e-6)
    wanted = paired_difference([-0.1 - 0.01 * number for number in range(N)], np.zeros(N))
    assert found["no-local"]["facesim_arc"]["change"] == pytest.approx(wanted.to_json(), abs=2e-6)
    assert found["no-local"]["rank1"]["change"]["mean"] == pytest.approx(-(N - 1) / N)
    assert found["3-bit-weights"]["facesim_arc"]["change"]["n"] == 4
    assert "change" not in found["8-bit-weights"]["latents"]


def test_details_are_reported_for_the_ablations_only(results: Results) -> None:
    for name in ("no-local", "8-bit-weights"):
        for number in range(N):
            results[name, number]["person.freckles"] = True
            results[name, number] |= {"own.freckles": False} if number else {}
    found = summarise(results).figures
    assert "person.freckles" in found["no-local"] and "person.freckles" not in found["8-bit-weights"]
    # The first case does not differ from its donor.
    assert found["no-local"]["own.freckles"]["n"] == N - 1


def test_fid_pools_faces_and_needs_more_of_them_than_features(results: Results) -> None:
    for number in range(N):
        own = RNG.normal(size=(2, 3))
        results["no-local", number] |= {"face_features": own.tolist(), "portrait_features": own[0].tolist()}
    found = summarise(results).figures["no-local"]
    faces = [row for number in range(N) for row in results["no-local", number]["face_features"]]
    wanted = frechet_distance(faces, [results["no-local", number]["portrait_features"] for number in range(N)])
    assert found["fid"] == {"mean": pytest.approx(wanted, abs=1e-5), "low": None, "high": None, "n": 2 * N}
    assert "face_features" not in found
    few = {("exact", 0): results["exact", 0], ("no-local", 0): results["no-local", 0]}
    assert "fid" not in summarise(few).figures["no-local"]


def test_spectra_are_means_over_videos(results: Results) -> None:
    assert summarise(results).spectra == {EXACT: [-1.0, -2.0 - (N - 1) / 2], "no-local": [-1.0, -2.0 - (N - 1) / 2]}


def test_the_gate_judges_controls_and_damage_only(results: Results) -> None:
    found = summarise(results)
    assert {name: verdict["passed"] for name, verdict in found.verdicts.items()} == {
        "8-bit-weights": True,
        "3-bit-weights": False,
    }
    assert {"identity", "latents", "worst_latents"} <= set(found.verdicts["3-bit-weights"]["failed"])
    assert experiments.unexpected_verdicts(found) == []
    for name in ("8-bit-weights", "3-bit-weights"):
        for number in range(N):
            results[name, number] = values(number, **(FAR if name == "8-bit-weights" else NEAR))
    assert experiments.unexpected_verdicts(summarise(results)) == ["8-bit-weights", "3-bit-weights"]


@pytest.mark.parametrize("cost", [NEAR, FAR])
def test_a_probe_has_no_expected_verdict(results: Results, cost: dict[str, float]) -> None:
    results |= {("last-injection-dropped", number): values(number, **cost) for number in range(N)}
    found = summarise(results)
    assert found.verdicts["last-injection-dropped"]["passed"] == (cost is NEAR)
    assert experiments.unexpected_verdicts(found) == []


def test_a_video_that_is_not_finite_fails_the_gate(results: Results) -> None:
    results["8-bit-weights", 5] = {"finite": False}
    verdict = gate.variant_verdict(results, "8-bit-weights", N)
    assert len(verdict.failed) == len(verdict.criteria)
    found = summarise(results).figures["8-bit-weights"]
    assert found["facesim_arc"]["n"] == N - 1 and found["finite"]["mean"] == 0


def test_every_counted_variant_exists() -> None:
    of_tiers = names((*TIER_VARIANTS, *TIER_SWEEP))  # `consisid bench tiers` counts them
    known = {*VARIANTS, "ground-truth", "vae-reconstruction"} - {*of_tiers}
    large, small = experiments.full_case_counts(100, 24), experiments.small_case_counts()
    assert set(large) == known and set(small) == {EXACT, *names((*CONTROLS, *DAMAGES))}
    assert large["no-local"] == 100 and large["dpm-5-steps"] == 24
    assert set(experiments.full_case_counts(10, 24).values()) == {10}
