# mypy: disable-error-code="untyped-decorator,no-untyped-def,no-untyped-call"
"""Statistics over all tokens for the 8-bit form of `qkv_epilogue`: the keys' mean, the scales of the values.

A program stores the sum of the keys and the maxima of the values for a tile of tokens; a second kernel merges them in a
fixed order. Bound by memory: two thirds of qkv are read. Work is divided into programs as in `qkv`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from consisid_kernels.attention.qkv import check_qkv, load_angles, load_vector, norm_and_rotate
from consisid_kernels.attention.quantise import FLOAT8_ARCHITECTURES, magnitude, scale_of
from consisid_kernels.launch import DTYPES, architecture, current_device, tile
from consisid_kernels.reference import FLOAT8_LARGEST
from consisid_kernels.variant import Variant

_ROWS = 64
"""Tiles whose sums and maxima are merged at a time."""


@triton.jit(do_not_specialize=["tokens", "text"])
def _tile_statistics(
    sums, maxima, qkv, k_weight, k_bias, cos, sin, tokens, text, eps,
    HEADS: tl.constexpr, DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK: tl.constexpr, GROUP: tl.constexpr,
    STAGES: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    channel = tl.arange(0, BLOCK_D)
    valid, in_head = token < tokens, channel < DIM
    mask = valid[:, None] & in_head[None, :]
    angles = load_angles(cos, sin, token, valid, text, channel, in_head, DIM)
    affine = load_vector(k_weight, channel, in_head), load_vector(k_bias, channel, in_head)
    branch = tl.program_id(2).to(tl.int64)
    qkv_offsets = (branch * tokens + token)[:, None] * (3 * HEADS * DIM) + channel[None, :]
    first = tl.program_id(0) * GROUP
    for head in tl.range(first, tl.minimum(first + GROUP, HEADS), num_stages=STAGES):
        part = qkv + qkv_offsets + head * DIM
        k_part = tl.load(part + HEADS * DIM, mask=mask, other=0.0).to(tl.float32)
        v_part = tl.load(part + 2 * HEADS * DIM, mask=mask, other=0.0).to(tl.float32)
        rotated = tl.where(mask, norm_and_rotate(k_part, in_head, *affine, *angles, eps, DIM), 0.0)
        offsets = ((branch * HEADS + head) * tl.num_programs(1) + tl.program_id(1)) * DIM + channel
        tl.store(sums + offsets, tl.sum(rotated, 0), mask=in_head)
        tl.store(maxima + offsets, tl.max(magnitude(v_part), 0), mask=in_head)


@triton.jit(do_not_specialize=["tiles", "tokens"])
def _join_statistics(
    k_mean, v_scale, sums, maxima, tiles, tokens,
    DIM: tl.constexpr, BLOCK_D: tl.constexpr, ROWS: tl.constexpr, LARGEST: tl.constexpr,
):  # fmt: skip
    channel = tl.arange(0, BLOCK_D)
    in_head = channel < DIM
    head = tl.program_id(0).to(tl.int64)
    total = tl.zeros((ROWS, BLOCK_D), tl.float32)
    largest = tl.zeros((ROWS, BLOCK_D), tl.int32)
    for start in range(0, tiles, ROWS):
        row = start + tl.arange(0, ROWS)
        offsets = (head * tiles + row)[:, None] * DIM + channel[None, :]
        mask = (row < tiles)[:, None] & in_head[None, :]
        total += tl.load(sums + offsets, mask=mask, other=0.0)
        largest = tl.maximum(largest, tl.load(maxima + offsets, mask=mask, other=0))
    tl.store(k_mean + head * DIM + channel, tl.div_rn(tl.sum(total, 0), tokens.to(tl.float32)), mask=in_head)
    tl.store(v_scale + head * DIM + channel, scale_of(tl.max(largest, 0), LARGEST), mask=in_head)


def qkv_statistics(
    qkv: Tensor, k_norm: tuple[Tensor, Tensor], cos: Tensor, sin: Tensor, heads: int, eps: float
) -> tuple[Tensor, Tensor]:
    """`reference.qkv_statistics`.

    Raises:
        ValueError: an argument's shape, dtype or device is not the specified one, it is not contiguous, or there is no
            token.
    """
    branches, tokens, dim = check_qkv(qkv, {"k_norm": k_norm}, cos, sin, heads)
    if tokens == 0:
        raise ValueError("qkv has no tokens; a mean needs at least one")
    config = tile("qkv_epilogue_8bit", f"statistics-d{triton.next_power_of_2(dim)}", architecture(qkv.device))
    tiles = triton.cdiv(tokens, config["block"])
    sums, maxima = (
        torch.empty((branches, heads, tiles, dim), dtype=dtype, device=qkv.device)
        for dtype in (torch.float32, torch.int32)
    )
    k_mean, v_scale = (float_buffer((branches, heads, dim), qkv) for _ in range(2))
    pointers = sums, maxima, qkv, *k_norm, cos, sin
    with current_device(qkv.device):
        _tile_statistics[triton.cdiv(heads, config["group"]), tiles, branches](
            *pointers, tokens, tokens - len(cos), eps, **_statistics_constants(heads, dim, config),
            num_warps=config["num_warps"],
        )  # fmt: skip
        _join_statistics[(branches * heads,)](
            k_mean, v_scale, sums, maxima, tiles, tokens, **_join_constants(dim), num_warps=4
        )
    return k_mean, v_scale


def float_buffer(shape: tuple[int, ...], beside: Tensor) -> Tensor:
    return torch.empty(shape, dtype=torch.float32, device=beside.device)


def head_constants(heads: int, dim: int, config: dict[str, int]) -> dict[str, Any]:
    sizes = {"HEADS": heads, "DIM": dim, "BLOCK_D": triton.next_power_of_2(dim), "GROUP": config["group"]}
    return sizes | {"STAGES": config["num_stages"]}


def _statistics_constants(heads: int, dim: int, config: dict[str, int]) -> dict[str, Any]:
    return head_constants(heads, dim, config) | {"BLOCK": config["block"]}


def _join_constants(dim: int) -> dict[str, Any]:
    return {"DIM": dim, "BLOCK_D": triton.next_power_of_2(dim), "ROWS": _ROWS, "LARGEST": FLOAT8_LARGEST}


def make_variant(
    name: str, kernel: Any, dtype: str, constants: dict[str, Any], types: dict[str, str], warps: int, architecture: int
) -> Variant:
    inputs = {"qkv", "q_weight", "q_bias", "k_weight", "k_bias"}
    other_types = dict.fromkeys(("tokens", "text", "tiles", "row"), "i32")
    other_types |= {"eps": "fp32", "v": "*fp8e4nv", "maxima": "*i32"} | types
    signature = {
        argument: "constexpr"
        if argument in constants
        else other_types.get(argument, f"*{dtype}" if argument in inputs else "*fp32")
        for argument in kernel.arg_names
    }
    aligned = tuple(argument for argument, kind in signature.items() if kind[0] == "*" or argument == "row")
    return Variant(name, kernel, signature, constants, (architecture,), warps=warps, aligned=aligned)


def _variants(architecture: int) -> Iterator[Variant]:
    yield make_variant("qkv_statistics/join-d64", _join_statistics, "fp32", _join_constants(64), {}, 4, architecture)
    for dtype in DTYPES.values():
        for dim in (64, 128):
            config = tile("qkv_epilogue_8bit", f"statistics-d{dim}", architecture)
            constants, warps = _statistics_constants(3072 // dim, dim, config), config["num_warps"]
            name = f"qkv_statistics/{dtype}-d{dim}"
            yield make_variant(name, _tile_statistics, dtype, constants, {}, warps, architecture)


VARIANTS = [variant for number in FLOAT8_ARCHITECTURES for variant in _variants(number)]
