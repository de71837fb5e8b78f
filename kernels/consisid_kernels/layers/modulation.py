# mypy: disable-error-code="untyped-decorator,no-untyped-def,no-untyped-call"
"""Adaptive LayerNorm (Peebles & Xie 2023, adaLN) and its gated residual, over text and video rows at once.

    modulated_norm       h = LN(x)·w'  + b'           with w' = w (1 + scale), b' = b (1 + scale) + shift
    gated_residual       x' = x + gate·y
    gated_residual_norm  both, with the norm of x' after rounding to its dtype

All are bound by memory: they move 2, 3 and 4 times the size of x. A program loads w', b' and the gate once and applies
them to several rows, because loading them for each row would be twice the traffic of the rows. Its rows are all text or
all video. Statistics are float32; the variance is computed from centred values.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from consisid_kernels.launch import DTYPES, architecture, current_device, require, tile
from consisid_kernels.variant import MATRIX, Variant


@triton.jit
def _rows(tokens, text, ROWS: tl.constexpr):
    """The program's first row, the end of its rows, the index of its first vector: 3 for text, 0 for video."""
    group = tl.program_id(0)
    text_groups = tl.cdiv(text, ROWS)
    is_text = group < text_groups
    first = tl.where(is_text, group * ROWS, text + (group - text_groups) * ROWS)
    return first, tl.minimum(first + ROWS, tl.where(is_text, text, tokens)), tl.where(is_text, 3, 0)


@triton.jit
def _vector(modulation, step, vector, channel, in_channels, CHANNELS: tl.constexpr):
    offsets = (tl.load(step).to(tl.int64) * 6 + vector) * CHANNELS
    return tl.load(modulation + offsets + channel, mask=in_channels, other=0.0).to(tl.float32)


@triton.jit
def _affine(
    modulation, step, first_vector, weight, bias, channel, in_channels, CHANNELS: tl.constexpr, AFFINE: tl.constexpr
):
    """w' and b'."""
    offset = _vector(modulation, step, first_vector, channel, in_channels, CHANNELS)
    gain = 1.0 + _vector(modulation, step, first_vector + 1, channel, in_channels, CHANNELS)
    if AFFINE:
        offset += tl.load(bias + channel, mask=in_channels, other=0.0).to(tl.float32) * gain
        gain *= tl.load(weight + channel, mask=in_channels, other=0.0).to(tl.float32)
    return gain, offset


@triton.jit
def _normalised(x, in_channels, eps, CHANNELS: tl.constexpr):
    centred = tl.where(in_channels, x - tl.sum(x, 0) * (1.0 / CHANNELS), 0.0)
    return centred * tl.rsqrt(tl.sum(centred * centred, 0) * (1.0 / CHANNELS) + eps)


@triton.jit(do_not_specialize=["tokens", "text"])
def _modulated_norm(
    out, x, weight, bias, modulation, step, tokens, text, eps,
    CHANNELS: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr, STAGES: tl.constexpr, AFFINE: tl.constexpr,
):  # fmt: skip
    first, last, first_vector = _rows(tokens, text, ROWS)
    channel = tl.arange(0, BLOCK)
    in_channels = channel < CHANNELS
    gain, offset = _affine(modulation, step, first_vector, weight, bias, channel, in_channels, CHANNELS, AFFINE)
    branch = tl.program_id(1).to(tl.int64) * tokens
    for row in tl.range(first, last, num_stages=STAGES):
        offsets = (branch + row) * CHANNELS + channel
        value = tl.load(x + offsets, mask=in_channels, other=0.0).to(tl.float32)
        normed = _normalised(value, in_channels, eps, CHANNELS)
        tl.store(out + offsets, (normed * gain + offset).to(out.dtype.element_ty), mask=in_channels)


def modulated_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, modulation: Tensor, step: Tensor, text: int, eps: float
) -> Tensor:
    """`reference.modulated_norm`; vectors may have any supported dtype; weight and bias may both be None.

    Raises:
        ValueError: an argument's shape, dtype or device is not the specified one, or it is not contiguous.
    """
    _check(x, {"weight": weight, "bias": bias}, {"modulation": modulation}, step, text)
    out = torch.empty_like(x)
    _launch(_modulated_norm, "modulated_norm", (out, x, weight, bias, modulation, step), x, text, eps, weight)
    return out


@triton.jit(do_not_specialize=["tokens", "text"])
def _gated_residual(
    out, x, y, modulation, step, tokens, text,
    CHANNELS: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    first, last, first_vector = _rows(tokens, text, ROWS)
    channel = tl.arange(0, BLOCK)
    in_channels = channel < CHANNELS
    gate = _vector(modulation, step, first_vector + 2, channel, in_channels, CHANNELS)
    branch = tl.program_id(1).to(tl.int64) * tokens
    for row in tl.range(first, last, num_stages=STAGES):
        offsets = (branch + row) * CHANNELS + channel
        value = tl.load(x + offsets, mask=in_channels, other=0.0).to(tl.float32)
        added = tl.load(y + offsets, mask=in_channels, other=0.0).to(tl.float32)
        tl.store(out + offsets, (value + gate * added).to(out.dtype.element_ty), mask=in_channels)


def gated_residual(x: Tensor, y: Tensor, modulation: Tensor, step: Tensor, text: int) -> Tensor:
    """`reference.gated_residual`.

    Raises:
        ValueError: as `modulated_norm`.
    """
    _check(x, {}, {"modulation": modulation}, step, text)
    require("y", y, x.shape, (x.dtype,), x.device)
    out = torch.empty_like(x)
    _launch(_gated_residual, "gated_residual", (out, x, y, modulation, step), x, text)
    return out


@triton.jit(do_not_specialize=["tokens", "text"])
def _gated_residual_norm(
    out, normed, x, y, modulation, weight, bias, next_modulation, step, tokens, text, eps,
    CHANNELS: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr, STAGES: tl.constexpr, AFFINE: tl.constexpr,
):  # fmt: skip
    first, last, first_vector = _rows(tokens, text, ROWS)
    channel = tl.arange(0, BLOCK)
    in_channels = channel < CHANNELS
    gate = _vector(modulation, step, first_vector + 2, channel, in_channels, CHANNELS)
    gain, offset = _affine(next_modulation, step, first_vector, weight, bias, channel, in_channels, CHANNELS, AFFINE)
    branch = tl.program_id(1).to(tl.int64) * tokens
    for row in tl.range(first, last, num_stages=STAGES):
        offsets = (branch + row) * CHANNELS + channel
        value = tl.load(x + offsets, mask=in_channels, other=0.0).to(tl.float32)
        added = tl.load(y + offsets, mask=in_channels, other=0.0).to(tl.float32)
        stored = (value + gate * added).to(out.dtype.element_ty)
        tl.store(out + offsets, stored, mask=in_channels)
        value = _normalised(stored.to(tl.float32), in_channels, eps, CHANNELS)
        tl.store(normed + offsets, (value * gain + offset).to(normed.dtype.element_ty), mask=in_channels)


def gated_residual_norm(
    x: Tensor,
    y: Tensor,
    modulation: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    next_modulation: Tensor,
    step: Tensor,
    text: int,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """`reference.gated_residual_norm`; weight and bias may both be None.

    Raises:
        ValueError: as `modulated_norm`.
    """
    tables = {"modulation": modulation, "next_modulation": next_modulation}
    _check(x, {"weight": weight, "bias": bias}, tables, step, text)
    require("y", y, x.shape, (x.dtype,), x.device)
    out, normed = torch.empty_like(x), torch.empty_like(x)
    pointers = (out, normed, x, y, modulation, weight, bias, next_modulation, step)
    _launch(_gated_residual_norm, "gated_residual_norm", pointers, x, text, eps, weight)
    return out, normed


def _check(x: Tensor, affine: dict[str, Tensor | None], tables: dict[str, Tensor], step: Tensor, text: int) -> None:
    require("x", x, (None, None, None), DTYPES, x.device)
    tokens, channels = x.shape[1:]
    if len({vector is None for vector in affine.values()}) > 1:
        raise ValueError("one of weight and bias is None; give both or neither")
    for name, vector in affine.items():
        if vector is not None:
            require(name, vector, (channels,), DTYPES, x.device)
    for name, table in tables.items():
        require(name, table, (None, 6, channels), DTYPES, x.device)
    require("step", step, (1,), (torch.int32,), x.device)
    if not 0 <= text <= tokens:
        raise ValueError(f"text is {text}; wanted 0 to the {tokens} tokens of x")


def _launch(kernel: Any, name: str, pointers: tuple[Tensor | None, ...], x: Tensor, text: int, *norm: Any) -> None:
    """`norm` is eps and weight for kernels with a norm, else empty."""
    branches, tokens, channels = x.shape
    config = tile(name, DTYPES[x.dtype], architecture(x.device))
    groups = triton.cdiv(text, config["rows"]) + triton.cdiv(tokens - text, config["rows"])
    constants = _constants(channels, config) | ({"AFFINE": norm[1] is not None} if norm else {})
    if x.numel():
        with current_device(x.device):
            kernel[groups, branches](*pointers, tokens, text, *norm[:1], **constants, num_warps=config["num_warps"])


def _constants(channels: int, config: dict[str, int]) -> dict[str, Any]:
    block = triton.next_power_of_2(channels)
    return {"CHANNELS": channels, "BLOCK": block, "ROWS": config["rows"], "STAGES": config["num_stages"]}


def _variant(name: str, kernel: Any, pointers: str, dtype: str, architecture: int) -> Variant:
    norms = "eps" in kernel.arg_names
    config = tile(name, dtype, architecture)
    constants = _constants(3072, config) | ({"AFFINE": True} if norms else {})
    signature = {pointer: f"*{dtype}" for pointer in pointers.split()} | {
        "step": "*i32",
        "tokens": "i32",
        "text": "i32",
    }
    signature |= ({"eps": "fp32"} if norms else {}) | dict.fromkeys(constants, "constexpr")
    return Variant(
        f"{name}/{dtype}-c3072", kernel, signature, constants, (architecture,),
        warps=config["num_warps"], aligned=(*pointers.split(), "step"),
    )  # fmt: skip


VARIANTS = [
    _variant(name, kernel, pointers, dtype, number)
    for name, kernel, pointers in (
        ("modulated_norm", _modulated_norm, "out x weight bias modulation"),
        ("gated_residual", _gated_residual, "out x y modulation"),
        ("gated_residual_norm", _gated_residual_norm, "out normed x y modulation weight bias next_modulation"),
    )
    for dtype in DTYPES.values()
    for number in MATRIX
]
