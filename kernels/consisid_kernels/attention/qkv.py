# mypy: disable-error-code="untyped-decorator,no-untyped-def,no-untyped-call"
"""Attention's inputs from the fused projection, in one pass: LayerNorm of q and k, rotary embedding, [B, H, N, D].

LayerNorm is over a head's channels; only video tokens are rotated (Su et al. 2021).

    q' = n·cos + J n·sin,  n = (q − mean) / √(var + eps)·w + b,  J (a, b) = (−b, a) for each pair of channels

Bound by memory: every number of qkv is read once and written once. A program keeps the cosines and sines of its tokens
in registers for a group of heads; being float32 and two for each channel, they would otherwise cause more traffic than
q, k and v. Programs for the groups of one tile of tokens are consecutive, so that whole rows of qkv are read together.
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
def load_vector(pointer, channel, in_head):
    return tl.load(pointer + channel, mask=in_head, other=0.0).to(tl.float32)[None, :]


@triton.jit
def load_angles(cos, sin, token, valid, text, channel, in_head, DIM: tl.constexpr):
    """Cosines and sines, [tokens, D] each; 1 and 0 for text, which is not rotated."""
    offsets = (token - text)[:, None] * DIM + channel[None, :]
    rotated = (valid & (token >= text))[:, None] & in_head[None, :]
    return tl.load(cos + offsets, mask=rotated, other=1.0), tl.load(sin + offsets, mask=rotated, other=0.0)


@triton.jit
def norm_and_rotate(x, in_head, weight, bias, cos, sin, eps, DIM: tl.constexpr):
    """x float32 [tokens, D], 0 beyond the head's channels; weight and bias [1, D], cos and sin [tokens, D]."""
    centred = tl.where(in_head[None, :], x - tl.sum(x, 1, keep_dims=True) / DIM, 0.0)
    normed = centred * tl.rsqrt(tl.sum(centred * centred, 1, keep_dims=True) / DIM + eps) * weight + bias
    even, odd = tl.split(tl.reshape(normed, (x.shape[0], x.shape[1] // 2, 2)))
    return normed * cos + tl.reshape(tl.join(-odd, even), x.shape) * sin


@triton.jit(do_not_specialize=["tokens", "text"])
def _qkv_epilogue(
    q, k, v, qkv, q_weight, q_bias, k_weight, k_bias, cos, sin, tokens, text, eps,
    HEADS: tl.constexpr, DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK: tl.constexpr, GROUP: tl.constexpr,
    STAGES: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    channel = tl.arange(0, BLOCK_D)
    valid, in_head = token < tokens, channel < DIM
    mask = valid[:, None] & in_head[None, :]
    angles = load_angles(cos, sin, token, valid, text, channel, in_head, DIM)
    q_affine = load_vector(q_weight, channel, in_head), load_vector(q_bias, channel, in_head)
    k_affine = load_vector(k_weight, channel, in_head), load_vector(k_bias, channel, in_head)
    branch = tl.program_id(2).to(tl.int64)
    qkv_offsets = (branch * tokens + token)[:, None] * (3 * HEADS * DIM) + channel[None, :]
    first = tl.program_id(0) * GROUP
    for head in tl.range(first, tl.minimum(first + GROUP, HEADS), num_stages=STAGES):
        part = qkv + qkv_offsets + head * DIM
        q_part = tl.load(part, mask=mask, other=0.0)
        k_part = tl.load(part + HEADS * DIM, mask=mask, other=0.0)
        v_part = tl.load(part + 2 * HEADS * DIM, mask=mask, other=0.0)
        offsets = ((branch * HEADS + head) * tokens + token)[:, None] * DIM + channel[None, :]
        rotated = norm_and_rotate(q_part.to(tl.float32), in_head, *q_affine, *angles, eps, DIM)
        tl.store(q + offsets, rotated.to(q.dtype.element_ty), mask=mask)
        rotated = norm_and_rotate(k_part.to(tl.float32), in_head, *k_affine, *angles, eps, DIM)
        tl.store(k + offsets, rotated.to(k.dtype.element_ty), mask=mask)
        tl.store(v + offsets, v_part, mask=mask)


def qkv_epilogue(
    qkv: Tensor,
    q_norm: tuple[Tensor, Tensor],
    k_norm: tuple[Tensor, Tensor],
    cos: Tensor,
    sin: Tensor,
    heads: int,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """`reference.qkv_epilogue`; norms of any supported dtype.

    Raises:
        ValueError: an argument's shape, dtype or device is not the specified one, or it is not contiguous.
    """
    branches, tokens, dim = check_qkv(qkv, {"q_norm": q_norm, "k_norm": k_norm}, cos, sin, heads)
    parts = tuple(torch.empty((branches, heads, tokens, dim), dtype=qkv.dtype, device=qkv.device) for _ in range(3))
    config = tile("qkv_epilogue", f"{DTYPES[qkv.dtype]}-d{triton.next_power_of_2(dim)}", architecture(qkv.device))
    constants = _constants(heads, dim, config)
    if qkv.numel():
        grid = triton.cdiv(heads, config["group"]), triton.cdiv(tokens, config["block"]), branches
        pointers = *parts, qkv, *q_norm, *k_norm, cos, sin
        with current_device(qkv.device):
            _qkv_epilogue[grid](
                *pointers, tokens, tokens - len(cos), eps, **constants, num_warps=config["num_warps"]
            )  # fmt: skip
    return parts[0], parts[1], parts[2]


def check_qkv(
    qkv: Tensor, norms: dict[str, tuple[Tensor, Tensor]], cos: Tensor, sin: Tensor, heads: int
) -> tuple[int, int, int]:
    """The numbers of branches, tokens and channels of a head. Raises ValueError for arguments that do not fit."""
    require("qkv", qkv, (None, None, None), DTYPES, qkv.device)
    branches, tokens, width = qkv.shape
    if heads < 1 or width % (6 * heads):
        raise ValueError(f"qkv has {width} channels; wanted 3 · {heads} heads · an even number")
    dim = width // (3 * heads)
    if not 8 < dim <= 128:
        raise ValueError(f"qkv has heads of {dim} channels; wanted 10 to 128")
    for name, norm in norms.items():
        for part, vector in zip(("weight", "bias"), norm, strict=True):
            require(f"{name}'s {part}", vector, (dim,), DTYPES, qkv.device)
    for name, table in (("cos", cos), ("sin", sin)):
        require(name, table, (len(cos), dim), (torch.float32,), qkv.device)
    if len(cos) > tokens:
        raise ValueError(f"cos has {len(cos)} rows; wanted at most the {tokens} tokens of qkv")
    return branches, tokens, dim


def _constants(heads: int, dim: int, config: dict[str, int]) -> dict[str, Any]:
    block_d = triton.next_power_of_2(dim)
    sizes = {"HEADS": heads, "DIM": dim, "BLOCK_D": block_d, "BLOCK": config["block"], "GROUP": config["group"]}
    return sizes | {"STAGES": config["num_stages"]}


def _variant(dtype: str, dim: int, architecture: int) -> Variant:
    config = tile("qkv_epilogue", f"{dtype}-d{dim}", architecture)
    constants = _constants(3072 // dim, dim, config)
    types = {name: f"*{dtype}" for name in ["q", "k", "v", "qkv", "q_weight", "q_bias", "k_weight", "k_bias"]}
    types |= {"cos": "*fp32", "sin": "*fp32", "tokens": "i32", "text": "i32", "eps": "fp32"}
    return Variant(
        f"qkv_epilogue/{dtype}-d{dim}", _qkv_epilogue, types | dict.fromkeys(constants, "constexpr"), constants,
        (architecture,), warps=config["num_warps"], aligned=tuple(name for name in types if types[name][0] == "*"),
    )  # fmt: skip


VARIANTS = [_variant(dtype, dim, number) for dtype in DTYPES.values() for dim in (64, 128) for number in MATRIX]
