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
    """One scale for each `block` tokens of a head: x [B, H, N, D] → 8 bits [B, H, N, D], float32 [B, H, ⌈N/block⌉]."""
    wide = x.float()
    count = -(-x.shape[2] // block)
    padded = F.pad(wide, (0, 0, 0, count * block - x.shape[2]))
    padded = torch.unflatten(padded, 2, (count, block))
    largest = INT8_LARGEST if dtype == torch.int8 else FLOAT8_LARGEST
    scale = _over(padded.abs().amax(dim=(3, 4)).clamp(min=1e-12), largest)
    scaled = (padded / scale[..., None, None]).flatten(2, 3)[:, :, : x.shape[2]]
    return (scaled.round() if dtype == torch.int8 else scaled).clamp(-largest, largest).to(dtype), scale


def quantise_channels(x: Tensor) -> tuple[Tensor, Tensor]:
    """One scale for each channel of a head: x [B, H, N, D] → E4M3 [B, H, D, N], float32 [B, H, D].

    Transposed, because tensor cores take 8-bit values with the keys contiguous.
    """
    scale = _over(x.float().abs().amax(dim=2).clamp(min=1e-12), FLOAT8_LARGEST)
    scaled = (x.float() / scale[:, :, None]).clamp(-FLOAT8_LARGEST, FLOAT8_LARGEST)
    return scaled.mT.contiguous().to(FLOAT8), scale


def qkv_statistics(
    qkv: Tensor, k_norm: tuple[Tensor, Tensor], cos: Tensor, sin: Tensor, heads: int, eps: float
) -> tuple[Tensor, Tensor]:
    """The keys' mean over the tokens and the scale of each channel of the values, both float32 [B, H, D]."""
    _, k, v = qkv_epilogue(_wide(qkv), k_norm, k_norm, cos, sin, heads, eps)
    return k.mean(dim=2).float(), _over(v.abs().amax(dim=2).clamp(min=1e-12), FLOAT8_LARGEST).float()


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
    """What `joint_attention_8bit` takes, from what `qkv_epilogue` takes and `qkv_statistics` gives.

    `quantise_tokens` of q and of k less its mean, `quantise_channels` of v; nothing is rounded to qkv's dtype between.
    """
    mean, scale = statistics
    q, k, v = qkv_epilogue(_wide(qkv), q_norm, k_norm, cos, sin, heads, eps)
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
    """`joint_attention` of quantised tensors; each is 8 bits, q and k [B, H, N, D], v [B, H, D, N], and scales.

    q and k come from `quantise_tokens` with these `blocks`, k less its mean over the tokens, which the softmax does not
    see (Zhang et al. 2024, SageAttention); v from `quantise_channels`. Softmax weights become E4M3 numbers, 448 for the
    largest of a row, so that none saturates. → `dtype` [B, N, H, D].
    """
    (q8, q_scale), (k8, k_scale), (v8, v_scale) = q, k, v
    rows, columns = (
        _of_tokens(s, block, x.shape[2]) for s, block, x in zip((q_scale, k_scale), blocks, (q8, k8), strict=True)
    )
    scores = (q8.double() * rows) @ (k8.double() * columns).mT / math.sqrt(q8.shape[-1])
    weights = torch.exp(scores - scores.amax(dim=-1, keepdim=True))
    narrow = (weights * FLOAT8_LARGEST).float().to(FLOAT8).double() / FLOAT8_LARGEST
    out = narrow @ v8.double().mT * v_scale[:, :, None].double() / weights.sum(dim=-1, keepdim=True)
    return out.transpose(1, 2).contiguous().to(dtype)


def _over(x: Tensor, number: float) -> Tensor:
    """The quotient itself: PyTorch on CUDA multiplies by the reciprocal of what is no tensor on the device."""
    return x / x.new_full((), number)


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _of_tokens(scale: Tensor, block: int, tokens: int) -> Tensor:
    return scale.double().repeat_interleave(block, dim=2)[:, :, :tokens, None]
