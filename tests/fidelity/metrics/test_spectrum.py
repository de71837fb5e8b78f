import numpy as np
import pytest

from consisid_fidelity.metrics.spectrum import relative_log_amplitude
from consisid_runtime.mp4 import Frames

SIZE = (64, 96)


def wave(down: int, across: int, height: float, offset: float = 128) -> Frames:
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    levels = offset + height * np.cos(2 * np.pi * (down * y / SIZE[0] + across * x / SIZE[1]))
    return np.repeat(np.round(levels).astype(np.uint8)[None, ..., None], 3, axis=3)


@pytest.mark.parametrize(("down", "across", "ring"), [(20, 0, 20), (0, 30, 20), (8, 9, 10)])
def test_a_wave_peaks_in_its_ring(down: int, across: int, ring: int) -> None:
    # 64 rows: 32 rings of 1/64 cycle per pixel; (8, 9) lies in ring √(8² + 6²) = 10.
    found = relative_log_amplitude(wave(down, across, 60))
    assert abs(int(found.amplitude.argmax()) + 1 - ring) <= 1
    assert found.frequency[ring - 1] == ring / 32


def test_the_level_of_white_noise_is_known() -> None:
    # |amplitude|² is exponential with mean σ² Σw²: the mean of its logarithm is ln(σ² Σw²) − γ (Euler's constant).
    sigma, mean = 20.0, 128.0
    rng = np.random.default_rng(0)
    grey = np.round(rng.normal(mean, sigma, (8, *SIZE, 1))).clip(0, 255).astype(np.uint8)
    window = np.outer(*(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size) for size in SIZE))
    expected = 0.5 * (np.log(sigma**2 * np.sum(window**2)) - np.euler_gamma) - np.log(mean * np.sum(window))
    found = relative_log_amplitude(np.repeat(grey, 3, axis=3)).amplitude
    # ln of an exponential variable has a standard deviation of π / √6, halved by the root; neighbours correlate through
    # the window.
    places = 8 * np.arange(10, 33) * np.pi * 1.5
    assert (np.abs(found[9:] - expected) < 4 * np.pi / np.sqrt(6) / 2 * 2.25 / np.sqrt(places)).all()


def test_fine_detail_shows_only_at_high_frequencies() -> None:
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    grain = np.random.default_rng(1).normal(0, 4, SIZE)
    soft = 128 + 60 * np.cos(2 * np.pi * y / 32) * np.cos(2 * np.pi * x / 32) + grain
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(SIZE[0]), np.fft.fftfreq(SIZE[1]), indexing="ij")) * 2
    detail = np.fft.ifft2(np.where(radius > 0.7, np.fft.fft2(np.random.default_rng(2).normal(0, 4, SIZE)), 0)).real
    plain, detailed = (
        relative_log_amplitude(np.repeat(np.round(v).astype(np.uint8)[None, ..., None], 3, axis=3)).amplitude
        for v in (soft, soft + detail)
    )
    change = detailed - plain
    assert np.abs(change[:20]).max() < 0.1
    # Twice the power there: ½ ln 2 more.
    assert np.abs(change[24:] - np.log(2) / 2).mean() < 0.1


def test_a_black_video_has_a_flat_finite_spectrum() -> None:
    found = relative_log_amplitude(np.zeros((2, 16, 16, 3), np.uint8))
    assert np.abs(found.amplitude).max() < 1e-12
    assert found.frequency[-1] == 1.0


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="frames must be"):
        relative_log_amplitude(np.zeros((2, 3, 16, 3), np.uint8))
