# mypy: disable-error-code="untyped-decorator,no-untyped-def,no-untyped-call"
"""Joint attention in 8 bits: q kᵀ of INT8 or E4M3 numbers, weights and v in E4M3, softmax and sums in float32.

    s = q kᵀ · (one scale of a block of queries) · (one of a block of keys) · log2(e) / √D
    m' = max(m, max s),  p = 2^(s − m' + log2 448),  l' = l·2^(m − m') + Σ p,  o' = o·2^(m − m') + E4M3(p) v
    out = o / l · (one scale of a channel of v)

Online softmax (Dao et al. 2022, FlashAttention) of smoothed, quantised tensors (Zhang et al. 2024, SageAttention 1, 2).
The largest weight that a row has met becomes 448, the largest E4M3 number: none saturates, and none is rounded coarser
than `reference.joint_attention_8bit` rounds it. 448 cancels in o / l.

Three things decide the machine code:
- Tensor cores sum E4M3 products in fewer bits than float32 has (about 14 on Hopper: DeepSeek-V3 report, section
  3.3.2). Each block of keys starts from zero there, and is added to o in float32 registers. Written as `fma`, because
  Triton folds o + dot(p, v) into dot(p, v, o), which sums all keys in those few bits.
- Tensor cores take 8-bit operands with the summed dimension contiguous, so v comes as [B, H, D, N].
- Scores leave the tensor cores as pairs: a thread holds columns 2t, 2t + 1 of every 8. 8-bit operands enter as fours:
  4t … 4t + 3 of every 16 (PTX ISA, fragments of wgmma and mma). Keys are therefore read in the order that makes each
  thread's scores the weights it must supply, and no weight changes threads.

Bound by exponentials: one for each score, 16 a clock on a Hopper multiprocessor, beside 4096 products.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from consisid_kernels.launch import DTYPES, architecture, on, require, tile
from consisid_kernels.reference import FLOAT8, FLOAT8_LARGEST, INT8_LARGEST
from consisid_kernels.variant import Variant

HEAD_SIZES = (64, 128)
NARROW = {torch.int8: "int8", FLOAT8: "e4m3"}
"""What queries and keys may be, by the name that tile tables and variants give it."""

_LOG2_LARGEST = tl.constexpr(math.log2(FLOAT8_LARGEST))
_TYPES = {"int8": "i8", "e4m3": "fp8e4nv"}
_FLOAT8_ARCHITECTURES = (89, 90, 100, 120)
_CHUNK, _ROWS = 1024, 64
"""Tokens whose channels' maxima one program takes; tokens in its registers at once."""
_MAXIMA = {"CHUNK": _CHUNK, "ROWS": _ROWS}
_CHANNELS = {"CHUNKS": 32, "ROWS": _ROWS, "LARGEST": FLOAT8_LARGEST}


@triton.jit
def magnitude(x):
    """The bits of |x|. As integers they have the order of the numbers, with NaN above infinity: maxima keep it."""
    return x.to(tl.int32, bitcast=True) & 0x7FFFFFFF


@triton.jit
def scale_of(largest, LARGEST: tl.constexpr):
    """From the largest `magnitude`."""
    number = largest.to(tl.float32, bitcast=True)
    return tl.div_rn(tl.maximum(number, 1e-12, propagate_nan=tl.PropagateNan.ALL), LARGEST)


@triton.jit
def _narrow(x, scale, LARGEST: tl.constexpr, dtype: tl.constexpr):
    scaled = tl.clamp(tl.div_rn(x, scale), -LARGEST, LARGEST, propagate_nan=tl.PropagateNan.ALL)
    if dtype == tl.int8:
        # 1.5 · 2^23 leaves no bits for a fraction: the sum is rounded to the nearest integer, ties to even.
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
    at = (head * tokens + token[:, None]) * D + tl.arange(0, D)[None, :]
    inside = ((row < BLOCK) & (token < tokens))[:, None]
    value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    scale = scale_of(tl.max(tl.max(magnitude(value), 1), 0), LARGEST)
    tl.store(out + at, _narrow(value, scale, LARGEST, out.dtype.element_ty), mask=inside)
    tl.store(scales + head * blocks + block, scale)


def quantise_tokens(x: Tensor, block: int, dtype: torch.dtype = torch.int8) -> tuple[Tensor, Tensor]:
    """`reference.quantise_tokens`, bit for bit; head sizes 64 and 128.

    Raises:
        ValueError: x has another shape or dtype, or is not contiguous; block is not positive; dtype is not 8 bits.
    """
    _check_heads("x", x, DTYPES)
    if block < 1 or dtype not in NARROW:
        raise ValueError(f"block {block} and {dtype}; wanted at least one token, and one of {list(NARROW)}")
    branches, heads, tokens, size = x.shape
    blocks = triton.cdiv(tokens, block)
    out = torch.empty(x.shape, dtype=dtype, device=x.device)
    scales = torch.empty((branches, heads, blocks), dtype=torch.float32, device=x.device)
    constants = _token_constants(block, size, dtype)
    if x.numel():
        with on(x.device):
            _quantise_tokens[blocks, branches * heads](
                out, scales, x, tokens, blocks, **constants, num_warps=_warps(size)
            )
    return out, scales


def _warps(size: int) -> int:
    """Exact division takes registers: more threads share a wider row."""
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
        at = (head * tokens + token[:, None]) * D + channel[None, :]
        value = tl.load(x + at, mask=(token < tokens)[:, None], other=0.0).to(tl.float32)
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
        at = (head * chunks + chunk[:, None]) * D + channel[None, :]
        largest = tl.maximum(largest, tl.max(tl.load(maxima + at, mask=(chunk < chunks)[:, None], other=0), 0))
    scale = scale_of(largest, LARGEST)
    token = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside = (token < tokens)[:, None]
    at = (head * tokens + token[:, None]) * D + channel[None, :]
    value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    narrow = _narrow(value, scale[None, :], LARGEST, out.dtype.element_ty)
    tl.store(out + (head * D + channel[None, :]) * row + token[:, None], narrow, mask=inside)
    if tl.program_id(0) == 0:
        tl.store(scales + head * D + channel, scale)


def quantise_channels(x: Tensor) -> tuple[Tensor, Tensor]:
    """`reference.quantise_channels`, bit for bit; head sizes 64 and 128. Rows of the result start at multiples of 16.

    Raises:
        ValueError: x has another shape or dtype, or is not contiguous.
    """
    _check_heads("x", x, DTYPES)
    branches, heads, tokens, size = x.shape
    row = triton.cdiv(tokens, 16) * 16
    chunks = triton.cdiv(tokens, _CHUNK)
    out = torch.empty((branches, heads, size, row), dtype=FLOAT8, device=x.device)
    scales = torch.empty((branches, heads, size), dtype=torch.float32, device=x.device)
    maxima = torch.empty((branches, heads, chunks, size), dtype=torch.int32, device=x.device)
    if x.numel():
        with on(x.device):
            _channel_maxima[chunks, branches * heads](maxima, x, tokens, **_MAXIMA, D=size, num_warps=8)
            _quantise_channels[triton.cdiv(tokens, _ROWS), branches * heads](
                out, scales, maxima, x, tokens, row, chunks, **_CHANNELS, D=size, num_warps=8
            )
    return out[..., :tokens], scales


@triton.jit
def _attend(
    out, total, top, q, rows, k, v, k_scale, start, keys, v_row,
    K_BLOCK: tl.constexpr, D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, RAGGED: tl.constexpr,
):  # fmt: skip
    """One block of keys. RAGGED: some of its columns are past the last key."""
    channel, column = tl.arange(0, D), tl.arange(0, BLOCK_N)
    key = column // 16 * 16 + column % 8 // 2 * 4 + column % 16 // 8 * 2 + column % 2
    k_at = (k + tl.cast(start, tl.int64) * D) + (key[:, None] * D + channel[None, :])
    v_at = (v + start) + (channel[:, None] * v_row + column[None, :])
    if RAGGED:
        k_block = tl.load(k_at, mask=(key < keys - start)[:, None])
        v_block = tl.load(v_at, mask=(column < keys - start)[None, :], other=0.0)
    else:
        k_block = tl.load(k_at)
        v_block = tl.load(v_at)
    if q.dtype == tl.int8:
        scores = tl.dot(q, tl.trans(k_block), out_dtype=tl.int32).to(tl.float32)
    else:
        scores = tl.dot(q, tl.trans(k_block))
    if RAGGED:
        scores = tl.where((key < keys - start)[None, :], scores, float("-inf"))
    scale = rows * tl.load(k_scale + start // K_BLOCK)
    new_top = tl.maximum(top, tl.max(scores, 1) * scale)
    weights = tl.exp2(scores * scale[:, None] - (new_top - _LOG2_LARGEST)[:, None])
    shrink = tl.exp2(top - new_top)
    total = total * shrink + tl.sum(weights, 1)
    pairs = tl.reshape(weights.to(tl.float8e4nv), (BLOCK_M, BLOCK_N // 16, 2, 4, 2))
    narrow = tl.reshape(tl.permute(pairs, (0, 1, 3, 2, 4)), (BLOCK_M, BLOCK_N))
    added = tl.dot(narrow, tl.trans(v_block))
    return tl.fma(out, tl.broadcast_to(shrink[:, None], (BLOCK_M, D)), added), total, new_top


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
    summed = tl.zeros((BLOCK_M, D), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    top = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    whole = keys // BLOCK_N * BLOCK_N
    for start in tl.range(0, whole, BLOCK_N):
        summed, total, top = _attend(
            summed, total, top, q_block, rows, k, v, k_scale, start, keys, v_row, K_BLOCK, D, BLOCK_M, BLOCK_N, False
        )
    if whole < keys:
        summed, total, top = _attend(
            summed, total, top, q_block, rows, k, v, k_scale, whole, keys, v_row, K_BLOCK, D, BLOCK_M, BLOCK_N, True
        )
    found = summed / total[:, None] * tl.load(v_scale + head * D + channel)[None, :]
    at = ((head // heads * queries + query[:, None]) * heads + head % heads) * D + channel[None, :]
    tl.store(out + at, found.to(out.dtype.element_ty), mask=inside[:, None])


def joint_attention_8bit(
    q: tuple[Tensor, Tensor],
    k: tuple[Tensor, Tensor],
    v: tuple[Tensor, Tensor],
    blocks: tuple[int, int],
    dtype: torch.dtype,
) -> Tensor:
    """`reference.joint_attention_8bit`; head sizes 64 and 128, compute capability 8.9 and above.

    blocks[1] is a multiple of 32. Rows of v need not be adjacent; where they start at multiples of 16, reading is fast.

    Raises:
        ValueError: an argument has another shape, dtype or device than the specification says, or is not contiguous.
    """
    (q8, q_scale), (k8, k_scale), (v8, v_scale) = q, k, v
    _check_heads("q", q8, NARROW)
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
        raise ValueError(f"compute capability {number / 10} multiplies no E4M3 numbers; use attention.joint_attention")
    out = torch.empty((branches, queries, heads, size), dtype=dtype, device=q8.device)
    found = dict(tile("joint_attention_8bit", _case(q8.dtype, size), number))
    constants = _constants(blocks, size, found)
    if out.numel():
        with on(q8.device):
            _joint_attention_8bit[triton.cdiv(queries, found["block_m"]), branches * heads](
                out, q8, q_scale, k8, k_scale, v8, v_scale, queries, keys, row, heads,
                math.log2(math.e) / math.sqrt(size), **constants, **_options(found),
            )  # fmt: skip
    return out


def _check_heads(name: str, x: Tensor, dtypes: Collection[torch.dtype]) -> None:
    if x.dim() != 4 or x.shape[-1] not in HEAD_SIZES:
        raise ValueError(f"{name} is {list(x.shape)}; wanted [branches, heads, tokens, one of {HEAD_SIZES}]")
    require(name, x, (None,) * 4, dtypes, x.device)


def _row_of_channels(v: Tensor, shape: tuple[int, ...], device: torch.device) -> int:
    """Elements from one channel of v to the next, at least as many as there are keys."""
    row = max(v.stride(2), shape[3]) if v.dim() == 4 else 0
    strides = (shape[1] * shape[2] * row, shape[2] * row, row, 1)
    apart = any(size > 1 and found != wanted for size, found, wanted in zip(shape, v.stride(), strides, strict=False))
    if tuple(v.shape) != shape or apart or v.dtype != FLOAT8 or v.device != device:
        raise ValueError(
            f"v is {v.dtype} {list(v.shape)} with strides {v.stride()} on {v.device}; wanted {FLOAT8} {list(shape)} on "
            f"{device}, as `quantise_channels` gives it"
        )
    return row


def _case(narrow: torch.dtype, size: int) -> str:
    return f"{NARROW[narrow]}-d{size}"


def _constants(blocks: tuple[int, int], size: int, found: Mapping[str, int]) -> dict[str, int]:
    columns = math.gcd(blocks[1], found["block_n"])
    return {"Q_BLOCK": blocks[0], "K_BLOCK": blocks[1], "D": size, "BLOCK_M": found["block_m"], "BLOCK_N": columns}


def _options(found: Mapping[str, int]) -> dict[str, int]:
    return {name: found[name] for name in ("num_warps", "num_stages", "maxnreg") if name in found}


def _attention_variant(narrow: torch.dtype, dtype: torch.dtype, size: int, number: int) -> Variant:
    case = _case(narrow, size)
    found = tile("joint_attention_8bit", case, number)
    constants = _constants((128, 128), size, found)
    operand = _TYPES[NARROW[narrow]]
    pointers = {"out": DTYPES[dtype], "q": operand, "q_scale": "fp32", "k": operand, "k_scale": "fp32"}
    pointers |= {"v": "fp8e4nv", "v_scale": "fp32"}
    signature = {name: f"*{kind}" for name, kind in pointers.items()}
    signature |= dict.fromkeys(("queries", "keys", "v_row", "heads"), "i32") | {"factor": "fp32"}
    return Variant(
        f"joint_attention_8bit/{case}-{DTYPES[dtype]}", _joint_attention_8bit,
        signature | dict.fromkeys(constants, "constexpr"), constants, (number,), matrix=True,
        warps=found["num_warps"], stages=found["num_stages"], aligned=(*pointers, "queries", "keys", "v_row", "heads"),
        options={"maxnreg": found["maxnreg"]} if "maxnreg" in found else {},
    )  # fmt: skip


def _quantise_variants(dtype: str, size: int) -> Iterator[Variant]:
    for narrow, numbers in ((torch.int8, (80, *_FLOAT8_ARCHITECTURES)), (FLOAT8, _FLOAT8_ARCHITECTURES)):
        constants = _token_constants(128, size, narrow)
        signature = {"out": f"*{_TYPES[NARROW[narrow]]}", "scales": "*fp32", "x": f"*{dtype}", "tokens": "i32"}
        signature |= {"blocks": "i32"} | dict.fromkeys(constants, "constexpr")
        yield Variant(
            f"quantise_tokens/{NARROW[narrow]}-{dtype}-d{size}", _quantise_tokens, signature, constants, numbers,
            warps=_warps(size), aligned=("out", "scales", "x"),
        )  # fmt: skip
    constants = _MAXIMA | {"D": size}
    signature = {"maxima": "*i32", "x": f"*{dtype}", "tokens": "i32"} | dict.fromkeys(constants, "constexpr")
    yield Variant(
        f"channel_maxima/{dtype}-d{size}", _channel_maxima, signature, constants, _FLOAT8_ARCHITECTURES,
        warps=8, aligned=("maxima", "x"),
    )  # fmt: skip
    constants = _CHANNELS | {"D": size}
    signature = {"out": "*fp8e4nv", "scales": "*fp32", "maxima": "*i32", "x": f"*{dtype}"}
    signature |= dict.fromkeys(("tokens", "row", "chunks"), "i32") | dict.fromkeys(constants, "constexpr")
    yield Variant(
        f"quantise_channels/{dtype}-d{size}", _quantise_channels, signature, constants, _FLOAT8_ARCHITECTURES,
        warps=8, aligned=("out", "scales", "maxima", "x", "row"),
    )  # fmt: skip


# Not INT8 on 10.0: its new tensor cores are reached in E4M3 only; q kᵀ would go through mma.sync.
VARIANTS = [
    _attention_variant(narrow, dtype, size, number)
    for narrow, numbers in ((torch.int8, (89, 90, 120)), (FLOAT8, _FLOAT8_ARCHITECTURES))
    for dtype in (torch.float16, torch.bfloat16)
    for size in HEAD_SIZES
    for number in numbers
] + [variant for dtype in ("fp16", "bf16") for size in HEAD_SIZES for variant in _quantise_variants(dtype, size)]
