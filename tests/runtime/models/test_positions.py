from __future__ import annotations

import pytest
import torch
from diffusers.models.embeddings import get_3d_rotary_pos_embed, get_3d_sincos_pos_embed
from diffusers.pipelines.consisid.pipeline_consisid import get_resize_crop_region_for_grid

from consisid_runtime.errors import CheckpointInvalid
from consisid_runtime.models.configs.dit import DiTConfig
from consisid_runtime.models.positions import added_positions, rope

SIZE = {
    "num_attention_heads": 3,
    "attention_head_dim": 16,
    "num_layers": 2,
    "in_channels": 8,
    "out_channels": 4,
    "sample_frames": 9,
    "sample_height": 8,
    "sample_width": 12,
    "max_text_seq_length": 5,
    "spatial_interpolation_scale": 1.875,
    "temporal_interpolation_scale": 1.25,
    "is_train_face": True,
    "LFE_output_dim": 32,
}
TRAINED = (3, 4, 6)
GRIDS = [TRAINED, (5, 4, 6), (3, 8, 12), (2, 6, 5), (2, 5, 7), (1, 3, 11), (2, 1, 1)]


def config(rotary: bool, learned: bool) -> DiTConfig:
    return DiTConfig.from_dict(
        SIZE | {"use_rotary_positional_embeddings": rotary, "use_learned_positional_embeddings": learned}
    )


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_rotation_is_the_reference_at_any_grid(grid):
    frames, rows, columns = grid
    crop = get_resize_crop_region_for_grid((rows, columns), 6, 4)
    expected = get_3d_rotary_pos_embed(16, crop, (rows, columns), frames)
    for got, want in zip(rope(config(True, False), *grid), expected, strict=True):
        assert got.shape == (*grid, 16)
        assert torch.equal(got.flatten(0, 2), want)


def test_a_checkpoint_without_rotation_turns_nothing():
    cos, sin = rope(config(False, False), *TRAINED)
    assert cos.shape == sin.shape == (*TRAINED, 16)
    assert (cos == 1).all()
    assert (sin == 0).all()


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_sinusoids_are_the_reference_at_any_grid(grid):
    frames, rows, columns = grid
    text, video = added_positions(config(False, False), *grid, learned=None)
    expected = get_3d_sincos_pos_embed(48, (columns, rows), frames, 1.875, 1.25, output_type="pt")
    assert torch.equal(video.flatten(1, 2), expected.float())
    assert torch.equal(text, torch.zeros(5, 48))


def test_learned_positions_hold_at_the_trained_size_alone():
    learned = torch.randn(1, 5 + 3 * 4 * 6, 48)
    text, video = added_positions(config(True, True), *TRAINED, learned=learned)
    assert torch.equal(torch.cat((text, video.flatten(0, 2))), learned[0])
    longer = added_positions(config(True, True), 5, 4, 6, learned=learned)
    sinusoids = added_positions(config(False, False), 5, 4, 6, learned=None)
    assert all(torch.equal(got, want) for got, want in zip(longer, sinusoids, strict=True))


def test_rotation_alone_adds_nothing():
    text, video = added_positions(config(True, False), *TRAINED, learned=None)
    assert not text.any()
    assert not video.any()
    assert (text.shape, video.shape) == ((5, 48), (*TRAINED, 48))


@pytest.mark.parametrize("learned", [None, torch.zeros(1, 9, 48)], ids=["none", "short"])
def test_learned_positions_of_another_size_are_refused(learned):
    with pytest.raises(CheckpointInvalid, match=r"\(1, 77, 48\)"):
        added_positions(config(True, True), *TRAINED, learned=learned)
