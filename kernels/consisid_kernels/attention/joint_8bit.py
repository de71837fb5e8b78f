# mypy: disable-error-code="untyped-decorator,no-untyped-def,no-untyped-call"
"""Joint attention in 8 bits: q and k in INT8 or E4M3, softmax weights and v in E4M3, softmax and sums in float32.

    s = q kᵀ · (scale of the block of queries) · (scale of the block of keys) · log2(e) / √D
    m' = max(m, max s),  p = 2^(s − m' + log2 448),  l' = l·2^(m − m') + Σ p,  o' = o·2^(m − m') + E4M3(p) v
    out = o / l · (scale of the channel of v)

Online softmax (Dao et al. 2022, FlashAttention) of smoothed, quantised tensors (Zhang et al. 2024, SageAttention 1, 2).
The largest weight of a row so far is scaled to 448, the largest E4M3 number: none saturates, and none is rounded more
coarsely than in `reference.joint_attention_8bit`. 448 cancels in o / l.

Three facts determine the machine code:
- Tensor cores sum E4M3 products in fewer bits than float32 has (about 14 on Hopper: DeepSeek-V3 report, section
  3.3.2). Each block's sum therefore starts from zero and is added to o in float32 registers. This is written as `fma`,
  because Triton folds o + dot(p, v) into dot(p, v, o), which sums all keys in those few bits.
- Tensor cores take 8-bit operands with the summed dimension contiguous, so v is [B, H, D, N].
- A thread receives scores in pairs, columns 2t and 2t + 1 of every 8, and supplies 8-bit operands in fours, 4t … 4t + 3
  of every 16 (PTX ISA, fragments of wgmma and mma). Keys are therefore read in an order in which each thread's scores
  are the weights that it supplies, without an exchange between threads.

Bound by exponentials: one for each score, at 16 a clock on a Hopper multiprocessor, which does 4096 products a clock.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import triton
import triton.language as tl
from torch import Tensor

from consisid_kernels.attention.quantise import DTYPES_8BIT, FLOAT8_ARCHITECTURES, HEAD_SIZES, TRITON_TYPES, check_heads
from consisid_kernels.launch import DTYPES, architecture, current_device, require, tile
from consisid_kernels.reference import FLOAT8, FLOAT8_LARGEST
from consisid_kernels.variant import Variant

_LOG2_LARGEST = tl.constexpr(math.log2(FLOAT8_LARGEST))


@triton.jit
def _attend(
    acc, total, m, q, rows, k, v, k_scale, start, keys, v_row,
    K_BLOCK: tl.constexpr, D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, RAGGED: tl.constexpr,
):  # fmt: skip
    """Adds one block of keys to acc, total and m. RAGGED: the block extends past the last key."""
    channel, column = tl.arange(0, D), tl.arange(0, BLOCK_N)
    key = column // 16 * 16 + column % 8 // 2 * 4 + column % 16 // 8 * 2 + column % 2
    k_offsets = (k + tl.cast(start, tl.int64) * D) + (key[:, None] * D + channel[None, :])
    v_offsets = (v + start) + (channel[:, None] * v_row + column[None, :])
    if RAGGED:
        k_block = tl.load(k_offsets, mask=(key < keys - start)[:, None])
        v_block = tl.load(v_offsets, mask=(column < keys - start)[None, :], other=0.0)
    else:
        k_block = tl.load(k_offsets)
        v_block = tl.load(v_offsets)
    if q.dtype == tl.int8:
        scores = tl.dot(q, tl.trans(k_block), out_dtype=tl.int32).to(tl.float32)
    else:
        scores = tl.dot(q, tl.trans(k_block))
    if RAGGED:
        scores = tl.where((key < keys - start)[None, :], scores, float("-inf"))
    scale = rows * tl.load(k_scale + start // K_BLOCK)
    new_m = tl.maximum(m, tl.max(scores, 1) * scale)
    weights = tl.exp2(scores * scale[:, None] - (new_m - _LOG2_LARGEST)[:, None])
    rescale = tl.exp2(m - new_m)
    total = total * rescale + tl.sum(weights, 1)
    pairs = tl.reshape(weights.to(tl.float8e4nv), (BLOCK_M, BLOCK_N // 16, 2, 4, 2))
    weights_8bit = tl.reshape(tl.permute(pairs, (0, 1, 3, 2, 4)), (BLOCK_M, BLOCK_N))
    added = tl.dot(weights_8bit, tl.trans(v_block))
    return tl.fma(acc, tl.broadcast_to(rescale[:, None], (BLOCK_M, D)), added), total, new_m


@triton.jit
def _joint_attention_8bit(
    out, q, q_scale, k, k_scale, v, v_scale, queries, keys, v_row, heads, factor,
    Q_BLOCK: tl.constexpr, K_BLOCK: tl.constexpr, D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(1).to(tl.int64)
    channel = tl.arange(0, D)
    query = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    inside = query < queries
    q_block = tl.load(q + (head * queries + query[:, None]) * D + channel[None, :], mask=inside[:, None])
    rows = tl.load(q_scale + head * tl.cdiv(queries, Q_BLOCK) + query // Q_BLOCK, mask=inside, other=1.0) * factor
    k += head * keys * D
    k_scale += head * tl.cdiv(keys, K_BLOCK)
    v += head * D * v_row
    acc = tl.zeros((BLOCK_M, D), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    m = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    whole = keys // BLOCK_N * BLOCK_N
    for start in tl.range(0, whole, BLOCK_N):
        acc, total, m = _attend(
            acc, total, m, q_block, rows, k, v, k_scale, start, keys, v_row, K_BLOCK, D, BLOCK_M, BLOCK_N, False
        )
    if whole < keys:
        acc, total, m = _attend(
            acc, total, m, q_block, rows, k, v, k_scale, whole, keys, v_row, K_BLOCK, D, BLOCK_M, BLOCK_N, True
        )
    result = acc / total[:, None] * tl.load(v_scale + head * D + channel)[None, :]
    offsets = ((head // heads * queries + query[:, None]) * heads + head % heads) * D + channel[None, :]
    tl.store(out + offsets, result.to(out.dtype.element_ty), mask=inside[:, None])


def joint_attention_8bit(
    q: tuple[Tensor, Tensor],
    k: tuple[Tensor, Tensor],
    v: tuple[Tensor, Tensor],
    blocks: tuple[int, int],
    dtype: torch.dtype,
) -> Tensor:
    """`reference.joint_attention_8bit`; head sizes 64 and 128, compute capability 8.9 and above.

    blocks[1] is a multiple of 32. Rows of v may be padded; rows that start at multiples of 16 bytes are read faster.

    Raises:
        ValueError: an argument's shape, dtype or device is not the specified one, or it is not contiguous.
    """
    (q8, q_scale), (k8, k_scale), (v8, v_scale) = q, k, v
    check_heads("q", q8, DTYPES_8BIT)
    branches, heads, queries, size = q8.shape
    require("k", k8, (branches, heads, None, size), (q8.dtype,), q8.device)
    keys = k8.shape[2]
    if keys == 0 or min(blocks) < 1 or blocks[1] % 32 or dtype not in DTYPES:
        raise ValueError(
            f"{keys} keys, blocks {blocks}, {dtype}; wanted at least one key, positive blocks, the second a multiple "
            f"of 32, and one of {list(DTYPES)}"
        )
    for name, scale, block, tokens in (("q", q_scale, blocks[0], queries), ("k", k_scale, blocks[1], keys)):
        wanted = (branches, heads, triton.cdiv(tokens, block))
        require(f"the scale of {name}", scale, wanted, (torch.float32,), q8.device)
    require("the scale of v", v_scale, (branches, heads, size), (torch.float32,), q8.device)
    row = _row_of_channels(v8, (branches, heads, size, keys), q8.device)
    number = architecture(q8.device)
    if number is not None and number < 89:
        raise ValueError(f"compute capability {number / 10} has no E4M3 products; use joint_attention")
    out = torch.empty((branches, queries, heads, size), dtype=dtype, device=q8.device)
    config = dict(tile("joint_attention_8bit", _case(q8.dtype, size), number))
    constants = _constants(blocks, size, config)
    if out.numel():
        with current_device(q8.device):
            _joint_attention_8bit[triton.cdiv(queries, config["block_m"]), branches * heads](
                out, q8, q_scale, k8, k_scale, v8, v_scale, queries, keys, row, heads,
                math.log2(math.e) / math.sqrt(size), **constants, **_options(config),
            )  # fmt: skip
    return out


def _row_of_channels(v: Tensor, shape: tuple[int, ...], device: torch.device) -> int:
    """The stride in elements between channels of v. Raises ValueError unless v is as `quantise_channels` returns it."""
    row = max(v.stride(2), shape[3]) if v.dim() == 4 else 0
    strides = (shape[1] * shape[2] * row, shape[2] * row, row, 1)
    misplaced = any(
        size > 1 and actual != wanted for size, actual, wanted in zip(shape, v.stride(), strides, strict=False)
    )
    if tuple(v.shape) != shape or misplaced or v.dtype != FLOAT8 or v.device != device:
        raise ValueError(
            f"v is {v.dtype} {list(v.shape)} with strides {v.stride()} on {v.device}; wanted {FLOAT8} {list(shape)} on "
            f"{device}, as `quantise_channels` returns it"
        )
    return row


def _case(dtype_8bit: torch.dtype, size: int) -> str:
    return f"{DTYPES_8BIT[dtype_8bit]}-d{size}"


def _constants(blocks: tuple[int, int], size: int, config: Mapping[str, int]) -> dict[str, int]:
    columns = math.gcd(blocks[1], config["block_n"])
    return {"Q_BLOCK": blocks[0], "K_BLOCK": blocks[1], "D": size, "BLOCK_M": config["block_m"], "BLOCK_N": columns}


def _options(config: Mapping[str, int]) -> dict[str, int]:
    return {name: config[name] for name in ("num_warps", "num_stages", "maxnreg") if name in config}


def _attention_variant(dtype_8bit: torch.dtype, dtype: torch.dtype, size: int, number: int) -> Variant:
    case = _case(dtype_8bit, size)
    config = tile("joint_attention_8bit", case, number)
    constants = _constants((128, 128), size, config)
    operand = TRITON_TYPES[DTYPES_8BIT[dtype_8bit]]
    pointers = {"out": DTYPES[dtype], "q": operand, "q_scale": "fp32", "k": operand, "k_scale": "fp32"}
    pointers |= {"v": "fp8e4nv", "v_scale": "fp32"}
    signature = {name: f"*{kind}" for name, kind in pointers.items()}
    signature |= dict.fromkeys(("queries", "keys", "v_row", "heads"), "i32") | {"factor": "fp32"}
    return Variant(
        f"joint_attention_8bit/{case}-{DTYPES[dtype]}", _joint_attention_8bit,
        signature | dict.fromkeys(constants, "constexpr"), constants, (number,), matrix=True,
        warps=config["num_warps"], stages=config["num_stages"],
        aligned=(*pointers, "queries", "keys", "v_row", "heads"),
        options={"maxnreg": config["maxnreg"]} if "maxnreg" in config else {},
    )  # fmt: skip


# No INT8 on 10.0: tcgen05.mma has no INT8 there, and q kᵀ would use mma.sync.
VARIANTS = [
    _attention_variant(dtype_8bit, dtype, size, number)
    for dtype_8bit, numbers in ((torch.int8, (89, 90, 120)), (FLOAT8, FLOAT8_ARCHITECTURES))
    for dtype in (torch.float16, torch.bfloat16)
    for size in HEAD_SIZES
    for number in numbers
]
