"""Attention on tensors of 8 bits, and their quantisation."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from consisid_kernels.reference.attention import qkv_epilogue

FLOAT8 = torch.float8_e4m3fn
FLOAT8_LARGEST = 448.0
INT8_LARGEST = 127.0


def quantise_tokens(x: Tensor, block: int, dtype: torch.dtype = torch.int8) -> tuple[Tensor, Tensor]:
    """A scale for each `block` tokens of a head: x [B, H, N, D] → 8 bits [B, H, N, D], float32 [B, H, ⌈N/block⌉]."""
    wide = x.float()
    count = -(-x.shape[2] // block)
    padded = F.pad(wide, (0, 0, 0, count * block - x.shape[2]))
    padded = torch.unflatten(padded, 2, (count, block))
    largest = INT8_LARGEST if dtype == torch.int8 else FLOAT8_LARGEST
    scale = _divided(padded.abs().amax(dim=(3, 4)).clamp(min=1e-12), largest)
    scaled = (padded / scale[..., None, None]).flatten(2, 3)[:, :, : x.shape[2]]
    return (scaled.round() if dtype == torch.int8 else scaled).clamp(-largest, largest).to(dtype), scale


def quantise_channels(x: Tensor) -> tuple[Tensor, Tensor]:
    """A scale for each channel of a head: x [B, H, N, D] → E4M3 [B, H, D, N], float32 [B, H, D].

    The result is transposed because tensor cores take 8-bit operands whose summed dimension, here keys, is contiguous.
    """
    scale = _divided(x.float().abs().amax(dim=2).clamp(min=1e-12), FLOAT8_LARGEST)
    scaled = (x.float() / scale[:, :, None]).clamp(-FLOAT8_LARGEST, FLOAT8_LARGEST)
    return scaled.mT.contiguous().to(FLOAT8), scale


def qkv_statistics(
    qkv: Tensor, k_norm: tuple[Tensor, Tensor], cos: Tensor, sin: Tensor, heads: int, eps: float
) -> tuple[Tensor, Tensor]:
    """The keys' mean over the tokens and the scale of each channel of the values, both float32 [B, H, D]."""
    _, k, v = qkv_epilogue(_at_least_float32(qkv), k_norm, k_norm, cos, sin, heads, eps)
    return k.mean(dim=2).float(), _divided(v.abs().amax(dim=2).clamp(min=1e-12), FLOAT8_LARGEST).float()


def qkv_epilogue_8bit(
    qkv: Tensor,
    q_norm: tuple[Tensor, Tensor],
    k_norm: tuple[Tensor, Tensor],
    cos: Tensor,
    sin: Tensor,
    statistics: tuple[Tensor, Tensor],
    heads: int,
    eps: float,
    blocks: tuple[int, int],
    dtype: torch.dtype = torch.int8,
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The inputs of `joint_attention_8bit` from those of `qkv_epilogue` and the result of `qkv_statistics`.

    `quantise_tokens` of q and of k less its mean, `quantise_channels` of v, without rounding to qkv's dtype in between.
    """
    mean, scale = statistics
    q, k, v = qkv_epilogue(_at_least_float32(qkv), q_norm, k_norm, cos, sin, heads, eps)
    v8 = (v.float() / scale[:, :, None]).clamp(-FLOAT8_LARGEST, FLOAT8_LARGEST).mT.contiguous().to(FLOAT8)
    k = k - mean[:, :, None]
    return quantise_tokens(q, blocks[0], dtype), quantise_tokens(k, blocks[1], dtype), (v8, scale)


def joint_attention_8bit(
    q: tuple[Tensor, Tensor],
    k: tuple[Tensor, Tensor],
    v: tuple[Tensor, Tensor],
    blocks: tuple[int, int],
    dtype: torch.dtype,
) -> Tensor:
    """`joint_attention` of quantised tensors, each a pair of 8-bit numbers and scales.

    q and k [B, H, N, D] come from `quantise_tokens` with these `blocks`, k less its mean over the tokens, which does
    not change the softmax (Zhang et al. 2024, SageAttention); v [B, H, D, N] comes from `quantise_channels`. Softmax
    weights are rounded to E4M3, scaled so that the largest of a row is 448 and none saturates. → `dtype` [B, N, H, D].
    """
    (q8, q_scale), (k8, k_scale), (v8, v_scale) = q, k, v
    rows, columns = (
        _token_scales(s, block, x.shape[2]) for s, block, x in zip((q_scale, k_scale), blocks, (q8, k8), strict=True)
    )
    scores = (q8.double() * rows) @ (k8.double() * columns).mT / math.sqrt(q8.shape[-1])
    weights = torch.exp(scores - scores.amax(dim=-1, keepdim=True))
    rounded = (weights * FLOAT8_LARGEST).float().to(FLOAT8).double() / FLOAT8_LARGEST
    out = rounded @ v8.double().mT * v_scale[:, :, None].double() / weights.sum(dim=-1, keepdim=True)
    return out.transpose(1, 2).contiguous().to(dtype)


def _divided(x: Tensor, number: float) -> Tensor:
    """x / number, correctly rounded: on CUDA, PyTorch multiplies by the reciprocal of a Python number instead."""
    return x / x.new_full((), number)


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _token_scales(scale: Tensor, block: int, tokens: int) -> Tensor:
    """The scale of each token, [B, H, N, 1]."""
    return scale.double().repeat_interleave(block, dim=2)[:, :, :tokens, None]
