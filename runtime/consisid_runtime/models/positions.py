"""Positions of tokens: rotary angles for the attention, and positions added to the embeddings.

Both follow diffusers, including what it does silently at sizes other than the checkpoint's own.
"""

from __future__ import annotations

import torch
from torch import Tensor

from consisid_runtime.errors import CheckpointInvalid
from consisid_runtime.models.configs.dit import DiTConfig

_THETA = 10000.0


def rope(config: DiTConfig, frames: int, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine, float32 [frames, rows, columns, head_dim] each; 1 and 0 for a checkpoint without rotation.

    A quarter of the channels turns with time, three eighths with each of height and width (`get_3d_rotary_pos_embed`).
    """
    shape, head_dim = (frames, rows, columns), config.attention_head_dim
    if not config.use_rotary_positional_embeddings:
        return torch.ones(*shape, head_dim), torch.zeros(*shape, head_dim)
    (top, left), (bottom, right) = _crop(config, rows, columns)
    spatial = head_dim // 8 * 3
    axes = (
        _angles(0, frames, frames, head_dim // 4)[:, None, None],
        _angles(top, bottom, rows, spatial)[None, :, None],
        _angles(left, right, columns, spatial)[None, None, :],
    )
    angles = torch.cat([axis.expand(*shape, -1) for axis in axes], dim=-1)
    return angles.cos(), angles.sin()


def added_positions(
    config: DiTConfig, frames: int, rows: int, columns: int, learned: Tensor | None
) -> tuple[Tensor, Tensor]:
    """What is added to text and video tokens, float32 [text_length, dim] and [frames, rows, columns, dim].

    Learned positions hold at the trained size only; at any other, diffusers' transformer takes sinusoids instead.

    Args:
        learned: `patch_embed.pos_embedding` [1, text_length + tokens, dim] of a checkpoint that has it; not copied
            where it is float32.

    Raises:
        CheckpointInvalid: learned positions are announced and missing, or do not have the announced size.
    """
    length, dim = config.max_text_seq_length, config.dim
    if config.use_learned_positional_embeddings and _trained_size(config, frames, rows, columns):
        wanted = (1, length + frames * rows * columns, dim)
        if learned is None or tuple(learned.shape) != wanted:
            found = "none" if learned is None else tuple(learned.shape)
            raise CheckpointInvalid(f"learned positions (patch_embed.pos_embedding) must be {wanted}, found {found}")
        both = learned[0].float()
        return both[:length], both[length:].view(frames, rows, columns, dim)
    if config.use_rotary_positional_embeddings and not config.use_learned_positional_embeddings:
        return torch.zeros(length, dim), torch.zeros(frames, rows, columns, dim)
    return torch.zeros(length, dim), _sinusoids(config, frames, rows, columns)


def _trained_size(config: DiTConfig, frames: int, rows: int, columns: int) -> bool:
    patch = config.patch_size
    size = ((frames - 1) * config.temporal_compression_ratio + 1, rows * patch, columns * patch)
    return size == (config.sample_frames, config.sample_height, config.sample_width)


def _crop(config: DiTConfig, rows: int, columns: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """The grid, fitted into the trained one with its aspect ratio kept: (top, left), (bottom, right)."""
    height, width = config.sample_height // config.patch_size, config.sample_width // config.patch_size
    if rows / columns > height / width:
        fitted = height, round(height / rows * columns)
    else:
        fitted = round(width / columns * rows), width
    top, left = round((height - fitted[0]) / 2.0), round((width - fitted[1]) / 2.0)
    return (top, left), (top + fitted[0], left + fitted[1])


def _angles(start: int, stop: int, count: int, channels: int) -> Tensor:
    """`count` positions from `start` to one short of `stop`, times each channel pair's frequency: [count, channels]."""
    frequency = 1.0 / (_THETA ** (torch.arange(0, channels, 2, dtype=torch.float32) / channels))
    place = torch.linspace(start, stop * (count - 1) / count, count, dtype=torch.float32)
    return torch.outer(place, frequency).repeat_interleave(2, dim=1)


def _sinusoids(config: DiTConfig, frames: int, rows: int, columns: int) -> Tensor:
    """[frames, rows, columns, dim]: a quarter of the channels is time, three eighths are column, three eighths row."""
    shape, dim = (frames, rows, columns), config.dim
    space, time = config.spatial_interpolation_scale, config.temporal_interpolation_scale
    spatial = 3 * dim // 4 // 2
    axes = (
        _waves(frames, time, dim // 4)[:, None, None],
        _waves(columns, space, spatial)[None, None, :],
        _waves(rows, space, spatial)[None, :, None],
    )
    return torch.cat([axis.expand(*shape, -1) for axis in axes], dim=-1).float()


def _waves(count: int, scale: float, channels: int) -> Tensor:
    """Sines, then cosines, in float64 as the reference has them: [count, channels]."""
    exponent = torch.arange(channels // 2, dtype=torch.float64) / (channels / 2.0)
    place = torch.arange(count, dtype=torch.float32) / scale
    angle = torch.outer(place.double(), 1.0 / 10000**exponent)
    return torch.cat((angle.sin(), angle.cos()), dim=1)
