# mypy: disable-error-code="untyped-decorator,no-untyped-def,no-untyped-call"
"""Attention of the video to the face, with keys and values folded with the projections around them.

    x' = x + softmax(LN(x) K) V,  softmax over the Q slots of each head

The face's tokens F are the same in all steps, so LN(x) Wq (F Wk)ᵀ = LN(x) K and (·) (F Wv) Wo = (·) V need two matrices
of [C, H·Q] for each layer and face (`dit.Prepare`), a quarter of the operations, and no attention kernel.

A program computes a block of rows and reads it three times. First for mean and variance, merged from blocks of channels
(Chan, Golub & LeVeque 1983), so that a variance of centred values needs no second pass. Then for the scores of all
heads, which stay in registers. Then to add the result. The bound is reading K and V from the L2 cache, once for each
program, so a program takes as many rows as registers hold scores for: 64 on Hopper.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from consisid_kernels.launch import DTYPES, architecture, current_device, require, tile
from consisid_kernels.variant import MATRIX, Variant

_LOG2_E = tl.constexpr(math.log2(math.e))


@triton.jit
def _statistics(x, offsets, valid, channel, eps, CHANNELS: tl.constexpr, BLOCK_C: tl.constexpr, STAGES: tl.constexpr):
    """Mean and 1/√(variance + eps) of some rows, [rows, 1]."""
    mean = tl.zeros((offsets.shape[0], 1), tl.float32)
    squares = tl.zeros((offsets.shape[0], 1), tl.float32)
    for start in tl.range(0, CHANNELS, BLOCK_C, num_stages=STAGES):
        in_channels = (start + channel < CHANNELS)[None, :]
        value = tl.load(x + offsets + start + channel[None, :], mask=valid & in_channels, other=0.0).to(tl.float32)
        count = tl.minimum(CHANNELS - start, BLOCK_C).to(tl.float32)
        block_mean = tl.div_rn(tl.sum(value, 1, keep_dims=True), count)
        centred = tl.where(in_channels, value - block_mean, 0.0)
        delta = block_mean - mean
        share = count / (start + count)
        mean += delta * share
        squares += tl.sum(centred * centred, 1, keep_dims=True) + delta * delta * (start * share)
    return mean, tl.rsqrt(squares / CHANNELS + eps)


@triton.jit(do_not_specialize=["tokens", "text"])
def _face_attention(
    out, x, weight, bias, keys, values, tokens, text, eps,
    CHANNELS: tl.constexpr, SLOTS: tl.constexpr, HEAD_SLOTS: tl.constexpr, BLOCK_S: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    valid = (row < tokens)[:, None]
    offsets = ((tl.program_id(1).to(tl.int64) * tokens + row) * CHANNELS)[:, None]
    mean, scale = _statistics(x, offsets, valid, tl.arange(0, BLOCK_C), eps, CHANNELS, BLOCK_C, STAGES)

    slot = tl.arange(0, BLOCK_S)[None, :]
    channel = tl.arange(0, BLOCK_K)
    scores = tl.zeros((BLOCK_M, BLOCK_S), tl.float32)
    for start in tl.range(0, CHANNELS, BLOCK_K, num_stages=STAGES):
        in_channels = start + channel < CHANNELS
        value = tl.load(x + offsets + start + channel[None, :], mask=valid & in_channels[None, :], other=0.0)
        value = value.to(tl.float32)
        gain = tl.load(weight + start + channel, mask=in_channels, other=0.0).to(tl.float32)[None, :]
        offset = tl.load(bias + start + channel, mask=in_channels, other=0.0).to(tl.float32)[None, :]
        normed = ((value - mean) * scale * gain + offset).to(keys.dtype.element_ty)
        key_mask = in_channels[:, None] & (slot < SLOTS)
        key = tl.load(keys + (start + channel)[:, None] * SLOTS + slot, mask=key_mask, other=0.0)
        scores = tl.dot(normed, key, scores, input_precision="ieee")

    head_scores = tl.reshape(scores * _LOG2_E, (BLOCK_M, BLOCK_S // HEAD_SLOTS, HEAD_SLOTS))
    head_scores = tl.exp2(head_scores - tl.max(head_scores, 2, keep_dims=True))
    head_scores /= tl.sum(head_scores, 2, keep_dims=True)
    weights = tl.reshape(head_scores, (BLOCK_M, BLOCK_S)).to(values.dtype.element_ty)

    slot = tl.arange(0, BLOCK_S)[:, None]
    channel = tl.arange(0, BLOCK_N)[None, :]
    for start in tl.range(0, CHANNELS, BLOCK_N, num_stages=STAGES):
        in_channels = start + channel < CHANNELS
        value_block = tl.load(values + slot * CHANNELS + start + channel, mask=in_channels & (slot < SLOTS), other=0.0)
        attended = tl.dot(weights, value_block, input_precision="ieee")
        value = tl.load(x + offsets + start + channel, mask=valid & in_channels, other=0.0).to(tl.float32)
        value += tl.where((row >= text)[:, None], attended, 0.0)
        tl.store(out + offsets + start + channel, value.to(out.dtype.element_ty), mask=valid & in_channels)


def face_attention(
    x: Tensor, weight: Tensor, bias: Tensor, keys: Tensor, values: Tensor, heads: int, text: int, eps: float
) -> Tensor:
    """`reference.face_attention`; Q must be a power of two.

    Raises:
        ValueError: an argument's shape, dtype or device is not the specified one, or it is not contiguous.
    """
    require("x", x, (None, None, None), DTYPES, x.device)
    branches, tokens, channels = x.shape
    for name, vector in (("weight", weight), ("bias", bias)):
        require(name, vector, (channels,), DTYPES, x.device)
    require("keys", keys, (channels, None), (x.dtype,), x.device)
    slots = keys.shape[1]
    require("values", values, (slots, channels), (x.dtype,), x.device)
    if heads < 1 or slots % heads or (slots // heads).bit_count() != 1:
        raise ValueError(f"keys have {slots} columns; wanted {heads} heads · a power of two")
    if not 0 <= text <= tokens:
        raise ValueError(f"text is {text}; wanted 0 to the {tokens} tokens of x")
    out = torch.empty_like(x)
    config = tile("face_attention", DTYPES[x.dtype], architecture(x.device))
    if x.numel():
        with current_device(x.device):
            _face_attention[triton.cdiv(tokens, config["block_m"]), branches](
                out, x, weight, bias, keys, values, tokens, text, eps,
                **_constants(channels, slots, heads, config), num_warps=config["num_warps"],
            )  # fmt: skip
    return out


def _constants(channels: int, slots: int, heads: int, config: dict[str, int]) -> dict[str, Any]:
    sizes = {"CHANNELS": channels, "SLOTS": slots, "HEAD_SLOTS": slots // heads}
    blocks = {f"BLOCK_{name}": config[f"block_{name.lower()}"] for name in "MCKN"}
    return sizes | {"BLOCK_S": max(triton.next_power_of_2(slots), 16)} | blocks | {"STAGES": config["num_stages"]}


def _variant(dtype: str, architecture: int) -> Variant:
    config = tile("face_attention", dtype, architecture)
    constants = _constants(3072, 512, 16, config)
    pointers = ("out", "x", "weight", "bias", "keys", "values")
    signature = {name: f"*{dtype}" for name in pointers} | {"tokens": "i32", "text": "i32", "eps": "fp32"}
    return Variant(
        f"face_attention/{dtype}-c3072", _face_attention, signature | dict.fromkeys(constants, "constexpr"), constants,
        (architecture,), warps=config["num_warps"], aligned=pointers, matrix=dtype != "fp32",
    )  # fmt: skip


VARIANTS = [_variant(dtype, number) for dtype in DTYPES.values() for number in MATRIX]
