# mypy: disable-error-code="untyped-decorator,no-untyped-def,no-untyped-call"
"""`qkv_epilogue` with results in the 8-bit formats of `joint_8bit`.

    q8 = round(q' / s),  s = max |q'| / 127 over a block of tokens        (Zhang et al. 2024, SageAttention)
    k8: the same of k' − mean(k');  v8 = v / max |v| · 448 for each channel, laid out [B, H, D, N]

mean(k') and max |v| are taken over all tokens, in an earlier pass (`qkv_statistics`). Bound by memory; work is divided
into programs as in `qkv`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from consisid_kernels.attention.qkv import check_qkv, load_angles, load_vector, norm_and_rotate
from consisid_kernels.attention.qkv_statistics import float_buffer, head_constants, make_variant
from consisid_kernels.attention.quantise import FLOAT8_ARCHITECTURES, magnitude, scale_of
from consisid_kernels.launch import DTYPES, architecture, current_device, require, tile
from consisid_kernels.reference import FLOAT8, FLOAT8_LARGEST, INT8_LARGEST
from consisid_kernels.variant import Variant

_LARGEST = {torch.int8: INT8_LARGEST, FLOAT8: FLOAT8_LARGEST}
_ELEMENTS = 128 * 64
"""Elements that a program of 16 warps holds in registers beside its cosines and sines."""


@triton.jit
def _rounded(x, dtype: tl.constexpr):
    """x rounded to `dtype`, to nearest; float32 x exceeds the largest number of `dtype` by a rounding error at most."""
    # A sum near 1.5 · 2²³ has no bits for a fraction: it is rounded to an integer, which its low bits contain.
    integer = (x + 12582912.0).to(tl.int32, bitcast=True).to(tl.int8)
    return integer if dtype == tl.int8 else x.to(dtype)


@triton.jit
def _tokens_8bit(
    out, scales, part, weight, bias, mean, cos, sin, tokens, text, eps,
    HEADS: tl.constexpr, DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK: tl.constexpr, GROUP: tl.constexpr,
    STAGES: tl.constexpr, QUANT: tl.constexpr, LARGEST: tl.constexpr,
):  # fmt: skip
    """Queries, or keys less their mean: a tile of tokens for a group of heads, a scale for each QUANT tokens."""
    token = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    channel = tl.arange(0, BLOCK_D)
    valid, in_head = token < tokens, channel < DIM
    mask = valid[:, None] & in_head[None, :]
    angles = load_angles(cos, sin, token, valid, text, channel, in_head, DIM)
    affine = load_vector(weight, channel, in_head), load_vector(bias, channel, in_head)
    branch = tl.program_id(2).to(tl.int64)
    qkv_offsets = (branch * tokens + token)[:, None] * (3 * HEADS * DIM) + channel[None, :]
    scale_number = tl.program_id(1) * (BLOCK // QUANT) + tl.arange(0, BLOCK // QUANT)
    scale_count = tl.cdiv(tokens, QUANT)
    first = tl.program_id(0) // 3 * GROUP
    for number in tl.range(first, tl.minimum(first + GROUP, HEADS), num_stages=STAGES):
        head = branch * HEADS + number
        x = tl.load(part + qkv_offsets + number * DIM, mask=mask, other=0.0).to(tl.float32)
        x = norm_and_rotate(x, in_head, *affine, *angles, eps, DIM)
        if mean is not None:
            x -= load_vector(mean + head * DIM, channel, in_head)
        # x is the norm's bias beyond the last token, and 0 beyond the head's last channel.
        of_token = tl.where(valid, tl.max(magnitude(x), 1), 0)
        largest = tl.max(tl.reshape(of_token, (BLOCK // QUANT, QUANT)), 1)
        scale = scale_of(largest, LARGEST)
        tl.store(scales + head * scale_count + scale_number, scale, mask=scale_number < scale_count)
        inverse = tl.reshape(tl.broadcast_to(1 / scale[:, None], (BLOCK // QUANT, QUANT)), (BLOCK,))
        offsets = (head * tokens + token)[:, None] * DIM + channel[None, :]
        tl.store(out + offsets, _rounded(x * inverse[:, None], out.dtype.element_ty), mask=mask)


@triton.jit
def _channels_8bit(
    out, part, scale, tokens, row,
    HEADS: tl.constexpr, DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK: tl.constexpr, GROUP: tl.constexpr,
    STAGES: tl.constexpr, LARGEST: tl.constexpr,
):  # fmt: skip
    """Values, transposed to [D, tokens]."""
    token = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    channel = tl.arange(0, BLOCK_D)
    in_head = (channel < DIM)[None, :]
    # Stores zeros beyond the last token, up to `row`: then whole groups of 16 bytes are stored or none of a group.
    mask, stored = (token < tokens)[:, None] & in_head, (token < row)[:, None] & in_head
    branch = tl.program_id(2).to(tl.int64)
    qkv_offsets = (branch * tokens + token)[:, None] * (3 * HEADS * DIM) + channel[None, :]
    first = tl.program_id(0) // 3 * GROUP
    for number in tl.range(first, tl.minimum(first + GROUP, HEADS), num_stages=STAGES):
        head = branch * HEADS + number
        x = tl.load(part + qkv_offsets + number * DIM, mask=mask, other=0.0).to(tl.float32)
        inverse = 1 / tl.load(scale + head * DIM + channel, mask=channel < DIM, other=1.0)[None, :]
        offsets = (head * DIM + channel)[None, :] * row + token[:, None]
        x = tl.clamp(x * inverse, -LARGEST, LARGEST, propagate_nan=tl.PropagateNan.ALL)
        tl.store(out + offsets, x.to(out.dtype.element_ty), mask=stored)


@triton.jit(do_not_specialize=["tokens", "text"])
def _qkv_epilogue_8bit(
    q, q_scale, k, k_scale, v, qkv, q_weight, q_bias, k_weight, k_bias, cos, sin, k_mean, v_scale, tokens, text, row,
    eps,
    HEADS: tl.constexpr, DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK: tl.constexpr, GROUP: tl.constexpr,
    STAGES: tl.constexpr, Q_QUANT: tl.constexpr, K_QUANT: tl.constexpr, LARGEST: tl.constexpr, V_LARGEST: tl.constexpr,
):  # fmt: skip
    # A program computes one of q, k and v, so that registers hold the vectors of one norm, not of two.
    if tl.program_id(0) % 3 == 0:
        _tokens_8bit(
            q, q_scale, qkv, q_weight, q_bias, None, cos, sin, tokens, text, eps,
            HEADS, DIM, BLOCK_D, BLOCK, GROUP, STAGES, Q_QUANT, LARGEST,
        )  # fmt: skip
    elif tl.program_id(0) % 3 == 1:
        _tokens_8bit(
            k, k_scale, qkv + HEADS * DIM, k_weight, k_bias, k_mean, cos, sin, tokens, text, eps,
            HEADS, DIM, BLOCK_D, BLOCK, GROUP, STAGES, K_QUANT, LARGEST,
        )  # fmt: skip
    else:
        values = qkv + 2 * HEADS * DIM
        _channels_8bit(v, values, v_scale, tokens, row, HEADS, DIM, BLOCK_D, BLOCK, GROUP, STAGES, V_LARGEST)


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
    """`reference.qkv_epilogue_8bit`; blocks are 16 to 128, 64 at head size 128. Compute capability 8.9 and above.

    The channels of v start at multiples of 16 bytes, which `joint_attention_8bit` reads fastest.

    Raises:
        ValueError: an argument's shape, dtype or device is not the specified one, or it is not contiguous.
    """
    branches, tokens, dim = check_qkv(qkv, {"q_norm": q_norm, "k_norm": k_norm}, cos, sin, heads)
    for name, tensor in zip(("k's mean", "v's scale"), statistics, strict=True):
        require(name, tensor, (branches, heads, dim), (torch.float32,), qkv.device)
    allowed = [block for block in (16, 32, 64, 128) if block * triton.next_power_of_2(dim) <= _ELEMENTS]
    if dtype not in _LARGEST or any(block not in allowed for block in blocks):
        raise ValueError(
            f"blocks are {blocks} and dtype {dtype}; wanted two of {allowed} at head size {dim}, and one of "
            f"{list(_LARGEST)}"
        )
    number = architecture(qkv.device)
    if number is not None and number < 89:
        raise ValueError(f"compute capability {number / 10} has no E4M3 numbers; use qkv_epilogue")
    shape = branches, heads, tokens, dim
    q, k = (torch.empty(shape, dtype=dtype, device=qkv.device) for _ in range(2))
    q_scale, k_scale = (float_buffer((branches, heads, triton.cdiv(tokens, block)), qkv) for block in blocks)
    row = 16 * triton.cdiv(tokens, 16)
    v = torch.empty((branches, heads, dim, row), dtype=FLOAT8, device=qkv.device)
    config = tile("qkv_epilogue_8bit", f"{DTYPES[qkv.dtype]}-d{triton.next_power_of_2(dim)}", number)
    constants = _constants(heads, dim, blocks, dtype, config)
    pointers = q, q_scale, k, k_scale, v, qkv, *q_norm, *k_norm, cos, sin, *statistics
    if qkv.numel():
        grid = 3 * triton.cdiv(heads, config["group"]), triton.cdiv(tokens, constants["BLOCK"]), branches
        with current_device(qkv.device):
            _qkv_epilogue_8bit[grid](
                *pointers, tokens, tokens - len(cos), row, eps, **constants, num_warps=config["num_warps"]
            )
    return (q, q_scale), (k, k_scale), (v[..., :tokens], statistics[1])


def _constants(
    heads: int, dim: int, blocks: tuple[int, int], dtype: torch.dtype, config: dict[str, int]
) -> dict[str, Any]:
    largest = {"LARGEST": _LARGEST[dtype], "V_LARGEST": FLOAT8_LARGEST}
    quant = {"BLOCK": max(blocks), "Q_QUANT": blocks[0], "K_QUANT": blocks[1]}
    return head_constants(heads, dim, config) | quant | largest


def _variants(architecture: int) -> Iterator[Variant]:
    for dtype in DTYPES.values():
        for dim in (64, 128):
            config = tile("qkv_epilogue_8bit", f"{dtype}-d{dim}", architecture)
            for kind, dtype_8bit in (("i8", torch.int8), ("fp8e4nv", FLOAT8)):
                constants = _constants(3072 // dim, dim, (_ELEMENTS // dim,) * 2, dtype_8bit, config)
                name, types = f"qkv_epilogue_8bit/{dtype}-{kind}-d{dim}", {"q": f"*{kind}", "k": f"*{kind}"}
                yield make_variant(name, _qkv_epilogue_8bit, dtype, constants, types, config["num_warps"], architecture)


VARIANTS = [variant for number in FLOAT8_ARCHITECTURES for variant in _variants(number)]
