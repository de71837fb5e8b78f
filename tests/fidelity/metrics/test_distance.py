from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from scipy.ndimage import gaussian_filter

from consisid_fidelity.metrics.distance import MAX_PSNR, psnr, relative_distance, ssim
from consisid_runtime.mp4 import Frames

GREY: Frames = np.full((2, 32, 48, 3), 100, np.uint8)


def noisy(levels: float) -> Frames:
    noise = np.random.default_rng(0).normal(0, levels, GREY.shape)
    return np.clip(np.round(GREY + noise), 0, 255).astype(np.uint8)


def test_psnr_of_known_errors() -> None:
    assert psnr(GREY + np.uint8(1), GREY) == pytest.approx(20 * np.log10(255))
    assert psnr(np.full_like(GREY, 255), np.zeros_like(GREY)) == 0.0
    half = GREY.copy()
    half[0] += 10
    assert psnr(half, GREY) == pytest.approx(10 * np.log10(255**2 / 50))


def test_psnr_of_known_noise() -> None:
    # Rounding adds a variance of 1/12. The relative error of a variance from n samples is √(2 / n); the bound is three
    # of these, 2 %.
    expected = 10 * np.log10(255**2 / (8**2 + 1 / 12))
    assert abs(psnr(noisy(8), GREY) - expected) < 10 * np.log10(1 + 3 * np.sqrt(2 / GREY.size))


def test_equal_videos_have_a_finite_psnr() -> None:
    assert psnr(GREY, GREY) == MAX_PSNR


def test_ssim_is_one_for_equal_and_falls_with_noise() -> None:
    texture = noisy(20)
    worse = [ssim(np.clip(texture.astype(int) + shift, 0, 255).astype(np.uint8), texture) for shift in (0, 20, 60)]
    assert worse[0] == pytest.approx(1)
    assert worse[0] > worse[1] > worse[2]
    # For two flat pictures only the luminance term remains: (2ab + C) / (a² + b² + C), C = (0.01 · 255)².
    flat = ssim(np.full_like(GREY, 50), GREY)
    assert flat == pytest.approx((2 * 50 * 100 + 2.55**2) / (50**2 + 100**2 + 2.55**2), rel=1e-6)


def test_ssim_equals_the_formula_of_wang_et_al() -> None:
    one, other = (np.moveaxis(noisy(levels).astype(float), -1, 1) for levels in (20, 12))

    def local(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return gaussian_filter(x, (0, 0, 1.5, 1.5), truncate=3.5)[..., 5:-5, 5:-5]

    means, squares = [local(x) for x in (one, other)], [local(x * x) for x in (one, other)]
    variances = [square - mean**2 for square, mean in zip(squares, means, strict=True)]
    covariance = local(one * other) - means[0] * means[1]
    light, contrast = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    above = (2 * means[0] * means[1] + light) * (2 * covariance + contrast)
    below = (means[0] ** 2 + means[1] ** 2 + light) * (sum(variances) + contrast)
    assert ssim(noisy(20), noisy(12)) == pytest.approx((above / below).mean(), rel=1e-9)


@pytest.mark.parametrize("measure", [psnr, ssim])
@pytest.mark.parametrize(
    "other", [GREY[:1], GREY[:, :-1], GREY.astype(np.float32), GREY[..., :1], GREY[:0]], ids=lambda x: str(x.shape)
)
def test_unequal_videos_are_refused(measure: Callable[[Frames, Frames], float], other: Frames) -> None:
    with pytest.raises(ValueError, match=r"uint8|equal"):
        measure(other, GREY)


def test_ssim_refuses_frames_smaller_than_its_window() -> None:
    with pytest.raises(ValueError, match="11×11"):
        ssim(GREY[:, :10], GREY[:, :10])


def test_relative_distance() -> None:
    reference = np.array([3.0, 4.0])
    assert relative_distance([3.0, 4.5], reference) == pytest.approx(0.1)
    assert np.isnan(relative_distance([np.nan, 4.0], reference))
    with pytest.raises(ValueError, match="equal shapes"):
        relative_distance([1.0], reference)
    with pytest.raises(ValueError, match="zero"):
        relative_distance([1.0, 2.0], [0.0, 0.0])
