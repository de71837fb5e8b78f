# mypy: disable-error-code="untyped-decorator,no-untyped-def,no-untyped-call"
"""Quantisation of attention's inputs: a scale for each block of tokens (INT8, E4M3) or for each channel (E4M3).

The scale is the largest magnitude over the largest number of the format (Zhang et al. 2024, SageAttention).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from consisid_kernels.launch import DTYPES, current_device, require
from consisid_kernels.reference import FLOAT8, FLOAT8_LARGEST, INT8_LARGEST
from consisid_kernels.variant import Variant

HEAD_SIZES = (64, 128)
DTYPES_8BIT = {torch.int8: "int8", FLOAT8: "e4m3"}
"""Dtypes of quantised queries and keys, with their names in tile tables and variants."""

TRITON_TYPES = {"int8": "i8", "e4m3": "fp8e4nv"}
FLOAT8_ARCHITECTURES = (89, 90, 100, 120)
_CHUNK, _ROWS = 1024, 64
"""Tokens over which one program takes the maxima of channels; tokens in its registers at a time."""
_MAXIMA = {"CHUNK": _CHUNK, "ROWS": _ROWS}
_CHANNELS = {"CHUNKS": 32, "ROWS": _ROWS, "LARGEST": FLOAT8_LARGEST}


@triton.jit
def magnitude(x):
    """The bits of float32 |x| as an integer: in the order of the numbers, NaN above infinity, so maxima keep NaN."""
    return x.to(tl.int32, bitcast=True) & 0x7FFFFFFF


@triton.jit
def scale_of(largest, LARGEST: tl.constexpr):
    """The scale that maps the largest `magnitude` to LARGEST."""
    amplitude = largest.to(tl.float32, bitcast=True)
    return tl.div_rn(tl.maximum(amplitude, 1e-12, propagate_nan=tl.PropagateNan.ALL), LARGEST)


@triton.jit
def _quantised(x, scale, LARGEST: tl.constexpr, dtype: tl.constexpr):
    scaled = tl.clamp(tl.div_rn(x, scale), -LARGEST, LARGEST, propagate_nan=tl.PropagateNan.ALL)
    if dtype == tl.int8:
        # A sum near 1.5 · 2^23 has no bits for a fraction, so it is rounded to an integer, ties to even.
        scaled = (scaled + 12582912.0) - 12582912.0
    return scaled.to(dtype)


@triton.jit(do_not_specialize=["tokens", "blocks"])
def _quantise_tokens(
    out, scales, x, tokens, blocks,
    BLOCK: tl.constexpr, ROWS: tl.constexpr, D: tl.constexpr, LARGEST: tl.constexpr,
):  # fmt: skip
    block = tl.program_id(0)
    head = tl.program_id(1).to(tl.int64)
    row = tl.arange(0, ROWS)
    token = block.to(tl.int64) * BLOCK + row
    offsets = (head * tokens + token[:, None]) * D + tl.arange(0, D)[None, :]
    valid = ((row < BLOCK) & (token < tokens))[:, None]
    value = tl.load(x + offsets, mask=valid, other=0.0).to(tl.float32)
    scale = scale_of(tl.max(tl.max(magnitude(value), 1), 0), LARGEST)
    tl.store(out + offsets, _quantised(value, scale, LARGEST, out.dtype.element_ty), mask=valid)
    tl.store(scales + head * blocks + block, scale)


def quantise_tokens(x: Tensor, block: int, dtype: torch.dtype = torch.int8) -> tuple[Tensor, Tensor]:
    """`reference.quantise_tokens`, bit for bit; head sizes 64 and 128.

    Raises:
        ValueError: x's shape or dtype is not the specified one or x is not contiguous; block is not positive; dtype is
        not
            int8 or E4M3.
    """
    check_heads("x", x, DTYPES)
    if block < 1 or dtype not in DTYPES_8BIT:
        raise ValueError(
            f"block {block} and {dtype}; wanted a block of at least one token, and one of {list(DTYPES_8BIT)}"
        )
    branches, heads, tokens, size = x.shape
    blocks = triton.cdiv(tokens, block)
    out = torch.empty(x.shape, dtype=dtype, device=x.device)
    scales = torch.empty((branches, heads, blocks), dtype=torch.float32, device=x.device)
    constants = _token_constants(block, size, dtype)
    if x.numel():
        with current_device(x.device):
            _quantise_tokens[blocks, branches * heads](
                out, scales, x, tokens, blocks, **constants, num_warps=_warps(size)
            )
    return out, scales


def _warps(size: int) -> int:
    """Exact division needs registers, so wider rows get more threads."""
    return size // 16


def _token_constants(block: int, size: int, dtype: torch.dtype) -> dict[str, Any]:
    largest = INT8_LARGEST if dtype == torch.int8 else FLOAT8_LARGEST
    return {"BLOCK": block, "ROWS": triton.next_power_of_2(block), "D": size, "LARGEST": largest}


@triton.jit(do_not_specialize=["tokens"])
def _channel_maxima(maxima, x, tokens, CHUNK: tl.constexpr, ROWS: tl.constexpr, D: tl.constexpr):
    head = tl.program_id(1).to(tl.int64)
    channel = tl.arange(0, D)
    largest = tl.zeros((ROWS, D), tl.int32)
    for start in tl.range(0, CHUNK, ROWS):
        token = tl.program_id(0).to(tl.int64) * CHUNK + start + tl.arange(0, ROWS)
        offsets = (head * tokens + token[:, None]) * D + channel[None, :]
        value = tl.load(x + offsets, mask=(token < tokens)[:, None], other=0.0).to(tl.float32)
        largest = tl.maximum(largest, magnitude(value))
    tl.store(maxima + (head * tl.num_programs(0) + tl.program_id(0)) * D + channel, tl.max(largest, 0))


@triton.jit(do_not_specialize=["tokens", "chunks"])
def _quantise_channels(
    out, scales, maxima, x, tokens, row, chunks,
    CHUNKS: tl.constexpr, ROWS: tl.constexpr, D: tl.constexpr, LARGEST: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(1).to(tl.int64)
    channel = tl.arange(0, D)
    largest = tl.zeros((D,), tl.int32)
    for start in tl.range(0, chunks, CHUNKS):
        chunk = start + tl.arange(0, CHUNKS)
        offsets = (head * chunks + chunk[:, None]) * D + channel[None, :]
        largest = tl.maximum(largest, tl.max(tl.load(maxima + offsets, mask=(chunk < chunks)[:, None], other=0), 0))
    scale = scale_of(largest, LARGEST)
    token = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    valid = (token < tokens)[:, None]
    offsets = (head * tokens + token[:, None]) * D + channel[None, :]
    value = tl.load(x + offsets, mask=valid, other=0.0).to(tl.float32)
    quantised = _quantised(value, scale[None, :], LARGEST, out.dtype.element_ty)
    tl.store(out + (head * D + channel[None, :]) * row + token[:, None], quantised, mask=valid)
    if tl.program_id(0) == 0:
        tl.store(scales + head * D + channel, scale)


def quantise_channels(x: Tensor) -> tuple[Tensor, Tensor]:
    """`reference.quantise_channels`, bit for bit; head sizes 64 and 128.

    Channels of the result start at multiples of 16 bytes.

    Raises:
        ValueError: x's shape or dtype is not the specified one, or x is not contiguous.
    """
    check_heads("x", x, DTYPES)
    branches, heads, tokens, size = x.shape
    row = triton.cdiv(tokens, 16) * 16
    chunks = triton.cdiv(tokens, _CHUNK)
    out = torch.empty((branches, heads, size, row), dtype=FLOAT8, device=x.device)
    scales = torch.empty((branches, heads, size), dtype=torch.float32, device=x.device)
    maxima = torch.empty((branches, heads, chunks, size), dtype=torch.int32, device=x.device)
    if x.numel():
        with current_device(x.device):
            _channel_maxima[chunks, branches * heads](maxima, x, tokens, **_MAXIMA, D=size, num_warps=8)
            _quantise_channels[triton.cdiv(tokens, _ROWS), branches * heads](
                out, scales, maxima, x, tokens, row, chunks, **_CHANNELS, D=size, num_warps=8
            )
    return out[..., :tokens], scales


def check_heads(name: str, x: Tensor, dtypes: Collection[torch.dtype]) -> None:
    if x.dim() != 4 or x.shape[-1] not in HEAD_SIZES:
        raise ValueError(f"{name} is {list(x.shape)}; wanted [branches, heads, tokens, one of {HEAD_SIZES}]")
    require(name, x, (None,) * 4, dtypes, x.device)


def _variants(dtype: str, size: int) -> Iterator[Variant]:
    for dtype_8bit, numbers in ((torch.int8, (80, *FLOAT8_ARCHITECTURES)), (FLOAT8, FLOAT8_ARCHITECTURES)):
        constants = _token_constants(128, size, dtype_8bit)
        kind = DTYPES_8BIT[dtype_8bit]
        signature = {"out": f"*{TRITON_TYPES[kind]}", "scales": "*fp32", "x": f"*{dtype}", "tokens": "i32"}
        signature |= {"blocks": "i32"} | dict.fromkeys(constants, "constexpr")
        yield Variant(
            f"quantise_tokens/{kind}-{dtype}-d{size}", _quantise_tokens, signature, constants, numbers,
            warps=_warps(size), aligned=("out", "scales", "x"),
        )  # fmt: skip
    constants = _MAXIMA | {"D": size}
    signature = {"maxima": "*i32", "x": f"*{dtype}", "tokens": "i32"} | dict.fromkeys(constants, "constexpr")
    yield Variant(
        f"channel_maxima/{dtype}-d{size}", _channel_maxima, signature, constants, FLOAT8_ARCHITECTURES,
        warps=8, aligned=("maxima", "x"),
    )  # fmt: skip
    constants = _CHANNELS | {"D": size}
    signature = {"out": "*fp8e4nv", "scales": "*fp32", "maxima": "*i32", "x": f"*{dtype}"}
    signature |= dict.fromkeys(("tokens", "row", "chunks"), "i32") | dict.fromkeys(constants, "constexpr")
    yield Variant(
        f"quantise_channels/{dtype}-d{size}", _quantise_channels, signature, constants, FLOAT8_ARCHITECTURES,
        warps=8, aligned=("out", "scales", "maxima", "x", "row"),
    )  # fmt: skip


VARIANTS = [variant for dtype in ("fp16", "bf16") for size in HEAD_SIZES for variant in _variants(dtype, size)]
