import numpy as np
import pytest
from scipy.linalg import sqrtm

from consisid_fidelity.metrics.frechet import TooFewSamples, frechet_distance, squared_distance


def whitened(n: int, width: int, seed: int) -> np.ndarray:
    """Samples with a mean of exactly 0 and the identity as covariance."""
    samples = np.random.default_rng(seed).standard_normal((n, width))
    samples -= samples.mean(axis=0)
    return np.asarray(np.linalg.qr(samples)[0] * np.sqrt(n - 1))


def test_gaussians_of_known_moments() -> None:
    # ‖μ‖² + Σ (σ₁ − σ₂)² for diagonal covariances.
    first, second = np.array([1.0, 2.0, 0.5]), np.array([3.0, 2.0, 0.1])
    shift = np.array([0.0, 3.0, 4.0])
    found = frechet_distance(whitened(50, 3, 0) * first, whitened(80, 3, 1) * second + shift)
    assert found == pytest.approx(25 + 4 + 0 + 0.16, rel=1e-12)


def test_covariances_that_do_not_commute() -> None:
    rng = np.random.default_rng(2)
    mixes = rng.standard_normal((2, 4, 4))
    covariances = [mix.T @ mix for mix in mixes]
    expected = sum(map(np.trace, covariances)) - 2 * np.trace(sqrtm(covariances[0] @ covariances[1]).real)
    found = frechet_distance(whitened(60, 4, 3) @ mixes[0], whitened(70, 4, 4) @ mixes[1])
    assert found == pytest.approx(expected, rel=1e-9)


def test_a_set_has_distance_zero_to_itself_even_with_repeated_features() -> None:
    features = whitened(200, 8, 5) * np.geomspace(1e-9, 1e3, 8)
    repeated = np.concatenate([features, features[:, :3]], axis=1)
    assert frechet_distance(repeated, repeated[::-1]) < 1e-9 * np.sum(repeated.var(axis=0))


@pytest.mark.parametrize(("n", "m"), [(3, 50), (50, 3), (1, 1)])
def test_too_few_samples_are_refused(n: int, m: int) -> None:
    rng = np.random.default_rng(6)
    with pytest.raises(TooFewSamples, match=f"{min(n, m)} samples of 3 features"):
        frechet_distance(rng.standard_normal((n, 3)), rng.standard_normal((m, 3)))


def test_other_shapes_and_nan_are_refused() -> None:
    good = np.random.default_rng(7).standard_normal((9, 3))
    for bad in (good[:, :2], good[0], np.where(good > 1, np.nan, good)):
        with pytest.raises(ValueError, match=r"\[n, D\]|finite"):
            frechet_distance(good, bad)


def test_squared_distance_is_the_evaluations_fid_of_one_pair() -> None:
    assert squared_distance([[1.0, 2.0], [4.0, 6.0]], [1.0, 2.0]) == pytest.approx(25 / 2)
