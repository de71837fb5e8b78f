import numpy as np
import pytest

from consisid_fidelity.metrics.statistics import (
    Estimate,
    estimate,
    paired_difference,
    paired_proportions,
    proportion,
    rank1,
)


def test_students_interval_of_known_samples() -> None:
    # Mean 3, standard deviation √2.5, t(0.975, 4) = 2.7764: half = 2.7764 · √(2.5 / 5).
    found = estimate([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (found.mean, found.n) == (3.0, 5)
    assert found.high == pytest.approx(3 + 2.776445 * np.sqrt(0.5), rel=1e-6)
    assert found.low == pytest.approx(3 - 2.776445 * np.sqrt(0.5), rel=1e-6)


def test_the_interval_has_its_nominal_coverage() -> None:
    rng = np.random.default_rng(0)
    covers = [(found := estimate(rng.normal(2, 3, 6))).low <= 2 <= found.high for _ in range(4000)]  # type: ignore[operator]
    # Within three standard errors of a share of 0.95 over 4000 trials.
    assert abs(np.mean(covers) - 0.95) < 3 * np.sqrt(0.95 * 0.05 / 4000)


def test_one_sample_has_a_mean_and_no_interval() -> None:
    found = estimate([0.7])
    assert found == Estimate(0.7, None, None, 1)
    assert str(found) == "0.7 (no interval, n = 1)"


@pytest.mark.parametrize("values", [[], [[1.0, 2.0]], [1.0, np.nan], [np.inf]])
def test_invalid_samples_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match=r"samples"):
        estimate(values)


def test_pairing_removes_the_shared_variation() -> None:
    rng = np.random.default_rng(1)
    people = rng.normal(0.7, 0.2, 40)
    found = paired_difference(people - 0.01 + rng.normal(0, 0.002, 40), people)
    assert found.high is not None and found.high < -0.008
    alone = estimate(people)
    assert alone.low is not None and alone.mean - alone.low > 10 * (found.mean - (found.low or 0))
    with pytest.raises(ValueError, match="equal lengths"):
        paired_difference([1.0, 2.0], [1.0])


def test_an_interval_is_clamped_to_the_range_of_values() -> None:
    found = estimate([1.0, 1.0, 0.5], least=0.0, most=1.0)
    assert found.high == 1.0 and found.low is not None and 0 < found.low < found.mean


def test_the_interval_of_paired_shares_has_a_width_when_no_pair_differs() -> None:
    same = paired_proportions([True] * 22, [True] * 22)
    # Half a pair gained and lost of 24: ± 1.96 · √1 / 24.
    assert (same.mean, same.n) == (0.0, 22)
    assert same.high == pytest.approx(1.959964 / 24, rel=1e-6) and same.low == pytest.approx(-1.959964 / 24, rel=1e-6)
    # 8 gained, 2 lost of 18: (8.5 − 2.5) / 20 ± 1.96 · √(11 − 36 / 20) / 20.
    first, second = [True] * 8 + [False] * 2 + [True] * 8, [False] * 8 + [True] * 2 + [True] * 8
    found = paired_proportions(first, second)
    assert found.mean == pytest.approx(6 / 18)
    assert found.low == pytest.approx(0.3 - 1.959964 * np.sqrt(9.2) / 20, rel=1e-6)
    with pytest.raises(ValueError, match="equal lengths"):
        paired_proportions([True], [True, False])


def test_wilsons_interval_has_a_width_when_all_succeed() -> None:
    # (p̂ + z²/2n ± …) / (1 + z²/n) with p̂ = 1: the lower end is 1 / (1 + z²/n).
    found = proportion([True] * 20)
    assert found.mean == 1.0 and found.high == pytest.approx(1.0)
    assert found.low == pytest.approx(1 / (1 + 1.959964**2 / 20), rel=1e-6)
    with pytest.raises(ValueError, match="outcomes"):
        proportion([])


def test_rank1_needs_the_right_person_ahead_of_all_others() -> None:
    similarity = [[0.9, 0.1, 0.2], [0.3, 0.2, 0.1], [0.0, 0.0, 0.0], [0.1, 0.5, 0.5]]
    assert rank1(similarity, [0, 1, 2, 1]).tolist() == [True, False, False, False]


@pytest.mark.parametrize(
    ("similarity", "person"),
    [([[1.0]], [0]), ([[1.0, 0.0]], [2]), ([[1.0, 0.0]], [-1]), ([[1.0, 0.0]], [0, 1]), ([[1.0, 0.0]], [0.0])],
)
def test_rank1_refuses_invalid_columns(similarity: list[list[float]], person: list[int]) -> None:
    with pytest.raises(ValueError, match="person"):
        rank1(similarity, person)
