"""Sizes between those that a checkpoint supports are refused, in every dimension."""

from dataclasses import replace

import pytest

from consisid_runtime.errors import InvalidOption
from consisid_runtime.options import Options
from consisid_runtime.plan import Geometry, plan

TRAINED = Geometry(frames=49, height=480, width=720, spatial=8, temporal=4, patch=2, fixed_size=False)


@pytest.mark.parametrize("frames", range(1, 60))
def test_frames_are_one_more_than_a_multiple_of_two_latents(frames: int) -> None:
    if frames in (9, 17, 25, 33, 41, 49, 57):
        assert plan(Options(frames=frames), TRAINED).latent_frames == 1 + (frames - 1) // 4
    else:
        with pytest.raises(InvalidOption, match=f"frames must be 8k \\+ 1, k ≥ 1, got {frames}"):
            plan(Options(frames=frames), TRAINED)


@pytest.mark.parametrize(("height", "width"), [(480, 704), (464, 720), (720, 480)])
def test_learned_positions_are_for_one_height_and_one_width(height: int, width: int) -> None:
    options = Options(height=height, width=width)
    assert plan(options, TRAINED).columns == width // 16
    with pytest.raises(InvalidOption, match=f"480×720 .* only, got {height}×{width}"):
        plan(options, replace(TRAINED, fixed_size=True))
