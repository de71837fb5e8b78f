import numpy as np
import pytest

from consisid_fidelity.metrics.stability import flicker, identity_stability


def frames(levels: list[int]) -> np.ndarray:
    return np.stack([np.full((4, 6, 3), level, np.uint8) for level in levels])


@pytest.mark.parametrize(
    ("levels", "expected"), [([90] * 4, 0.0), ([10, 20, 30, 40], 0.0), ([100, 110, 100, 110], 20.0), ([0, 0, 9], 9.0)]
)
def test_flicker_of_known_levels(levels: list[int], expected: float) -> None:
    assert flicker(frames(levels)) == pytest.approx(expected)


def test_flicker_does_not_wrap_around() -> None:
    assert flicker(frames([255, 0, 255])) == 510.0


def test_two_frames_cannot_flicker() -> None:
    assert flicker(frames([0, 255])) is None


def test_identity_from_frame_to_frame() -> None:
    a, b, none = [1.0, 0.0], [0.6, 0.8], [0.0, 0.0]
    assert identity_stability(np.array([a, b, b], np.float32)) == pytest.approx(0.8)
    assert identity_stability(np.array([a, none, a], np.float32)) == 0.0
    assert identity_stability(np.array([a], np.float32)) is None
