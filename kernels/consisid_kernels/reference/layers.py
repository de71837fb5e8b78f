"""Modulation and feed-forward layers of the transformer, and the norm of the VAE's decoder."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def modulated_norm(
    x: Tensor, weight: Tensor, bias: Tensor, modulation: Tensor, step: Tensor, text: int, eps: float
) -> Tensor:
    """LayerNorm(x) · (1 + scale) + shift; the first `text` tokens use the text's shift and scale.

    x [B, N, C]; weight and bias [C]; modulation [T, 6, C] has for each step shift, scale and gate of the video, then of
    the text (`dit.Modulate`); step int32 [1] is an index into T.
    """
    shift, scale, _ = _vectors(modulation, step, x.shape[1], text)
    return F.layer_norm(x, x.shape[-1:], weight, bias, eps) * (1 + scale) + shift


def gated_residual(x: Tensor, y: Tensor, modulation: Tensor, step: Tensor, text: int) -> Tensor:
    """x + gate · y; arguments as `modulated_norm`."""
    return x + _vectors(modulation, step, x.shape[1], text)[2] * y


def gated_residual_norm(
    x: Tensor,
    y: Tensor,
    modulation: Tensor,
    weight: Tensor,
    bias: Tensor,
    next_modulation: Tensor,
    step: Tensor,
    text: int,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """The result of `gated_residual`, and its `modulated_norm` with the next norm's parameters."""
    x = gated_residual(x, y, modulation, step, text)
    return x, modulated_norm(x, weight, bias, next_modulation, step, text, eps)


def _vectors(modulation: Tensor, step: Tensor, tokens: int, text: int) -> tuple[Tensor, ...]:
    rows = modulation.index_select(0, step).reshape(2, 3, -1)
    is_text = (torch.arange(tokens, device=modulation.device) < text)[:, None]
    return tuple(torch.where(is_text, rows[1, i], rows[0, i]) for i in range(3))


def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """GELU(x Wᵀ + b), in its tanh form. x [..., C], weight [out, C], bias [out] → [..., out]."""
    return F.gelu(F.linear(x, weight, bias), approximate="tanh")


def spatial_norm_silu(
    x: Tensor,
    groups: int,
    weight: Tensor,
    bias: Tensor,
    scale: Tensor,
    shift: Tensor,
    enlarge: tuple[int, int],
    past: Tensor | None,
    eps: float,
) -> Tensor:
    """SiLU(GroupNorm(x) · scale + shift) after two frames of the past: the input of the VAE's next convolution.

    Channels last: x [1, T, H, W, C]; scale and shift [1, t, h, w, C] at the latents' size, enlarged (nearest) by (time,
    space); past [1, 2, H, W, C], the last two frames of the previous chunk's result, or None for the first chunk, whose
    first frame is used as its past and is not repeated in time. → [1, T + 2, H, W, C].
    """
    first = past is None
    normed = F.group_norm(x.movedim(-1, 1), groups, weight, bias, eps).movedim(1, -1)
    wide = [_enlarged(tensor, enlarge, first) for tensor in (scale, shift)]
    frames = F.silu(normed * wide[0] + wide[1])
    before = frames[:, :1].expand(-1, 2, -1, -1, -1) if past is None else past
    return torch.cat((before, frames), dim=1)


def _enlarged(x: Tensor, enlarge: tuple[int, int], first: bool) -> Tensor:
    time, space = enlarge
    wide = x.repeat_interleave(time, 1).repeat_interleave(space, 2).repeat_interleave(space, 3)
    return wide[:, time - 1 :] if first else wide
