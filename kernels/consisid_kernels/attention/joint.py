# mypy: disable-error-code="untyped-decorator,no-untyped-def,no-untyped-call"
"""Exact attention without a score matrix in memory (Dao et al. 2022, FlashAttention), in plain Triton language.

With scores s = q kᵀ·log₂e/√D and any reference m for each row of queries, summed over blocks of keys:

    total = Σ 2^(s − m)        acc = Σ 2^(s − m) v        out = acc / total        denominator = m + log₂ total

With the running maximum as m, a block's maximum must be known before its first exponential, and total and acc are
rescaled after each block. Here m is the maximum over the first block (Hong et al. 2023, FlashDecoding++), since any m
is correct as long as nothing overflows. bfloat16 weights have float32's exponents: scores of a row may exceed the
maximum of its first block until its sum reaches 2^100. A program with a row beyond that starts again with the running
maximum. float16 weights have a smaller range and always use the running maximum. On Hopper the loop has 5.4
instructions for each score instead of 7.9.

The last block of keys, which may be partial, comes first, so that the loop over the others needs no masks. At D = 64 a
score costs Hopper 256 FLOP of matrix products at 4096 a clock and one exponential at 16 a clock, both the same time.
Two programs, of four warps and 128 × 64 scores each, share a multiprocessor, so that the products of one overlap with
the exponentials of the other.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from consisid_kernels.launch import DTYPES, architecture, current_device, require, tile
from consisid_kernels.variant import MATRIX, Variant

_LOWEST = tl.constexpr(torch.finfo(torch.float32).min)


@triton.jit
def _weights(scores, m, SCALE: tl.constexpr, dtype: tl.constexpr):
    """2^(s·SCALE − m), in float32 2^((s − m)·SCALE): the difference of scores is exact for scores close to m."""
    if dtype == tl.float32:
        return tl.exp2((scores - m[:, None]) * SCALE)
    return tl.exp2(scores * SCALE - m[:, None])


@triton.jit
def _attend(
    q, k_ptr, v_ptr, tokens,
    SCALE: tl.constexpr, BLOCK: tl.constexpr, RUNNING: tl.constexpr,
):  # fmt: skip
    """m·SCALE, total [rows] and acc [rows, D]; m is the running maximum if RUNNING, else that of the first block.

    m is multiplied by SCALE when it is computed, in float32 when it is used (`_weights`).
    """
    D: tl.constexpr = q.shape[1]
    EARLY: tl.constexpr = 1.0 if v_ptr.dtype.element_ty == tl.float32 else SCALE
    LATE: tl.constexpr = SCALE / EARLY
    key = tl.arange(0, BLOCK)
    offsets = key[:, None] * D + tl.arange(0, D)[None, :]

    full = (tokens - 1) // BLOCK
    start = full.to(tl.int64) * (BLOCK * D)
    valid = key < tokens - full * BLOCK
    k = tl.load(k_ptr + start + offsets, mask=valid[:, None], other=0.0)
    scores = tl.where(valid[None, :], tl.dot(q, k.T, input_precision="ieee"), float("-inf"))
    # Finite also if all scores of the block are -inf: -inf − m is then defined.
    m = tl.maximum(tl.max(scores, 1) * EARLY, _LOWEST)
    weights = _weights(scores, m, SCALE, v_ptr.dtype.element_ty)
    total = tl.sum(weights, 1)
    v = tl.load(v_ptr + start + offsets, mask=valid[:, None], other=0.0)
    acc = tl.dot(weights.to(v.dtype), v, input_precision="ieee")

    for _ in range(full):
        k = tl.load(k_ptr + offsets)
        v = tl.load(v_ptr + offsets)
        scores = tl.dot(q, k.T, input_precision="ieee")
        if RUNNING:
            new_m = tl.maximum(m, tl.max(scores, 1) * EARLY)
            rescale = tl.exp2((m - new_m) * LATE)
            total *= rescale
            acc *= rescale[:, None]
            m = new_m
        weights = _weights(scores, m, SCALE, v_ptr.dtype.element_ty)
        total += tl.sum(weights, 1)
        acc = tl.dot(weights.to(v.dtype), v, acc, input_precision="ieee")
        k_ptr += BLOCK * D
        v_ptr += BLOCK * D
    return m * LATE, total, acc


@triton.jit(do_not_specialize=["q_tokens", "k_tokens", "heads"])
def _attention(
    q_ptr, k_ptr, v_ptr, q_tokens, k_tokens, heads, out_ptr, denominator_ptr,
    D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    Q_SHARED: tl.constexpr, K_SHARED: tl.constexpr, ROOM: tl.constexpr,
):  # fmt: skip
    """A program computes BLOCK_M queries of one head. Consecutive programs share a head, whose keys stay in L2.

    The order of arguments is that of a TensorRT plugin: inputs, integers, outputs. denominator_ptr may be None.

    Q_SHARED, K_SHARED: queries, or keys and values, have one branch for all. ROOM: log₂ of the largest row sum relative
    to the first block's maximum before the program starts again with the running maximum; 0: running from the start.
    """
    SCALE: tl.constexpr = 1.4426950408889634 / D**0.5
    branch, head = tl.program_id(1) // heads, tl.program_id(1) % heads
    q_head = (head if Q_SHARED else tl.program_id(1)).to(tl.int64)
    k_head = (head if K_SHARED else tl.program_id(1)).to(tl.int64)
    first = tl.program_id(0).to(tl.int64) * BLOCK_M
    row = tl.arange(0, BLOCK_M)
    column = tl.arange(0, D)
    inside = row < q_tokens - first
    q_ptr += (q_head * q_tokens + first) * D
    q = tl.load(q_ptr + (row[:, None] * D + column[None, :]), mask=inside[:, None], other=0.0)
    k_ptr += k_head * k_tokens * D
    v_ptr += k_head * k_tokens * D

    m, total, acc = _attend(q, k_ptr, v_ptr, k_tokens, SCALE, BLOCK_N, ROOM == 0)
    if ROOM:
        overflows = tl.max(tl.max(tl.where(tl.abs(acc) < float("inf"), 0, 1), 1), 0)
        if (overflows > 0) | (tl.max(total, 0) >= 2.0**ROOM):
            # Always 0, unknown to the compiler, which therefore keeps none of its addresses in registers before.
            zero = tl.multiple_of(overflows >> 1, 16)
            m, total, acc = _attend(q, k_ptr + zero, v_ptr + zero, k_tokens, SCALE, BLOCK_N, True)
    out = (acc / total[:, None]).to(out_ptr.dtype.element_ty)
    out_ptr += ((branch.to(tl.int64) * q_tokens + first) * heads + head) * D
    tl.store(out_ptr + (row[:, None] * (heads * D) + column[None, :]), out, mask=inside[:, None])
    if denominator_ptr is not None:
        denominator_ptr += tl.program_id(1).to(tl.int64) * q_tokens + first
        tl.store(denominator_ptr + row, m + tl.log2(total), mask=inside)


def joint_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`reference.joint_attention`; D is 16, 32, 64 or 128. float32, for tests, does not use tensor cores.

    Raises:
        ValueError: an argument's shape, dtype or device is not the specified one, it is not contiguous, or there is no
            key.
    """
    return attend_to(q, k, v)


def partial_attention(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """`reference.partial_attention`; out is a view of [B, M, H, D], the denominator is float32.

    Raises:
        ValueError: as `joint_attention`.
    """
    denominator = empty_denominator(q, k)
    return attend_to(q, k, v, denominator).transpose(1, 2), denominator


def empty_denominator(q: Tensor, k: Tensor) -> Tensor:
    return torch.empty(max(q.shape[0], k.shape[0]), *q.shape[1:3], dtype=torch.float32, device=q.device)


def attend_to(q: Tensor, k: Tensor, v: Tensor, denominator: Tensor | None = None) -> Tensor:
    """out [B, M, H, D]."""
    check_inputs(q, k, v)
    if not k.shape[2]:
        raise ValueError("k has no tokens; wanted at least one key")
    (q_branches, heads, tokens, size), k_branches = q.shape, k.shape[0]
    branches = max(q_branches, k_branches)
    out = torch.empty(branches, tokens, heads, size, dtype=q.dtype, device=q.device)
    table = "joint_attention" if denominator is None else "partial_attention"
    config = tile(table, _case(DTYPES[q.dtype], size), architecture(q.device))
    shared = {"Q_SHARED": q_branches < branches, "K_SHARED": k_branches < branches}
    if out.numel():
        with current_device(q.device):
            _attention[triton.cdiv(tokens, config["block_m"]), branches * heads](
                q, k, v, tokens, k.shape[2], heads, out, denominator,
                **_constants(size, config), **shared, num_warps=config["num_warps"], num_stages=config["num_stages"],
            )  # fmt: skip
    return out


def check_inputs(q: Tensor, k: Tensor, v: Tensor) -> None:
    require("q", q, (None, None, None, None), DTYPES, q.device)
    branches, heads, _, size = q.shape
    if size not in (16, 32, 64, 128):
        raise ValueError(f"q has heads of {size} channels; wanted 16, 32, 64 or 128")
    require("k", k, (None, heads, None, size), (q.dtype,), q.device)
    require("v", v, k.shape, (q.dtype,), q.device)
    if branches != k.shape[0] and 1 not in (branches, k.shape[0]):
        raise ValueError(f"q has {branches} branches, k {k.shape[0]}; wanted as many, or one for all")


def _case(dtype: str, size: int) -> str:
    return f"{dtype}-d{max(size, 64)}"


def _constants(size: int, config: dict[str, int]) -> dict[str, int]:
    names = {"BLOCK_M": "block_m", "BLOCK_N": "block_n", "ROOM": "room"}
    return {"D": size} | {name: config[key] for name, key in names.items()}


def _variant(dtype: str, size: int, number: int, part: bool = False, shared: str = "") -> Variant:
    """Of `partial_attention` if `part`, else `joint_attention`; `shared`, which has one branch, is "", "q" or "k"."""
    config = tile("partial_attention" if part else "joint_attention", _case(dtype, size), number)
    types = dict.fromkeys(("out_ptr", "q_ptr", "k_ptr", "v_ptr"), f"*{dtype}")
    constants: dict[str, Any] = _constants(size, config) | {"Q_SHARED": shared == "q", "K_SHARED": shared == "k"}
    if part:
        types["denominator_ptr"] = "*fp32"
    else:
        constants["denominator_ptr"] = None
    pointers = tuple(types)
    types |= dict.fromkeys(("q_tokens", "k_tokens", "heads"), "i32")
    name = f"{'partial' if part else 'joint'}_attention/{dtype}-d{size}{shared and f'-shared-{shared}'}"
    return Variant(
        name, _attention,
        {name: types.get(name, "constexpr") for name in _attention.arg_names}, constants, (number,),
        warps=config["num_warps"], stages=config["num_stages"], aligned=pointers, matrix=True,
    )  # fmt: skip


VARIANTS = [
    variant
    for dtype in ("bf16", "fp16")
    for number in MATRIX
    for variant in (
        *(_variant(dtype, size, number, part) for size in (64, 128) for part in (False, True)),
        *(_variant(dtype, 64, number, True, shared) for shared in ("q", "k")),
    )
]
