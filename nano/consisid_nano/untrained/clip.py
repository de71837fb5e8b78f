"""Writes a narrow EVA02-CLIP vision tower with random weights under the published file's names."""

from __future__ import annotations

from math import sqrt
from pathlib import Path

import torch
from torch import Tensor

from consisid_nano.untrained.configs import CLIP_OUT, CLIP_WIDTH
from consisid_nano.untrained.layers import save_tensors
from consisid_runtime.models.eva_clip import rope_table

_GRID, _PATCH = 24, 14
_HEAD_DIM = 16
_HIDDEN = 80
DEPTH = 6
"""Half the published tower's, which also halves the time of its export."""


def write_clip(path: Path, seed: int, depth: int = DEPTH) -> None:
    """Write the tower to `path`; `depth` must be a multiple of 6, so that the five hidden states are evenly spaced."""
    save_tensors(random_tower(seed, depth=depth), path)


def random_tower(
    seed: int, *, width: int = CLIP_WIDTH, out: int = CLIP_OUT, hidden: int = _HIDDEN, head_dim: int = _HEAD_DIM,
    depth: int = DEPTH,
) -> dict[str, Tensor]:  # fmt: skip
    """Return random tensors by the published file's names: `width` channels in heads of `head_dim`, `out` outputs."""
    generator = torch.Generator().manual_seed(seed)
    shapes = _shapes(width, out, hidden, depth)
    tensors = {name: _random(name, shape, generator) for name, shape in shapes.items()}
    table = dict(zip(("rope.freqs_cos", "rope.freqs_sin"), rope_table(_GRID, head_dim), strict=True))
    for module in ("", *(f"blocks.{block}.attn." for block in range(depth))):
        tensors |= {module + name: values for name, values in table.items()}
    return {f"visual.{name}": tensor for name, tensor in tensors.items()}


def _shapes(width: int, out: int, hidden: int, depth: int) -> dict[str, tuple[int, ...]]:
    def norm(name: str, size: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (size,), f"{name}.bias": (size,)}

    def linear(name: str, outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}

    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, 1 + _GRID * _GRID, width),
        "patch_embed.proj.weight": (width, 3, _PATCH, _PATCH),
        "patch_embed.proj.bias": (width,),
    }
    for block in range(depth):
        at = f"blocks.{block}"
        shapes |= norm(f"{at}.norm1", width) | norm(f"{at}.norm2", width)
        shapes |= {f"{at}.attn.{name}_proj.weight": (width, width) for name in "qkv"}
        shapes |= {f"{at}.attn.q_bias": (width,), f"{at}.attn.v_bias": (width,)}
        shapes |= norm(f"{at}.attn.inner_attn_ln", width) | linear(f"{at}.attn.proj", width, width)
        shapes |= linear(f"{at}.mlp.w1", hidden, width) | linear(f"{at}.mlp.w2", hidden, width)
        shapes |= norm(f"{at}.mlp.ffn_ln", hidden) | linear(f"{at}.mlp.w3", width, hidden)
    return shapes | norm("norm", width) | linear("head", out, width)


def _random(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw a tensor; kernels preserve variance, no norm is 1 and no bias 0, so that swapped ones change the result."""
    noise = torch.randn(shape, generator=generator)
    if name in ("cls_token", "pos_embed"):
        return 0.5 * noise
    if len(shape) >= 2:
        return noise / sqrt(noise[0].numel())
    return 1 + 0.1 * noise if name.endswith("weight") else 0.05 * noise
