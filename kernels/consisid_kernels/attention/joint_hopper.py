# mypy: disable-error-code="untyped-decorator,no-untyped-def,no-untyped-call"
"""`joint.joint_attention` in Gluon, which gives access to Hopper's asynchronous units.

A program computes 128 queries of one head: 64 for each of its two consumers, warpgroups of four warps. One more warp,
the producer, copies keys and values into a ring of buffers in shared memory with TMA (Shah et al. 2024,
FlashAttention-3). Blocks of keys are processed from the last one, which may be partial and alone needs a mask, to the
first. Slot t holds the keys of block t and the values of block t − 1, so that step u of a consumer, over half a block,
is

    start acc += P(u−2) V(u−2) and S(u) = Q K(u)ᵀ     P(u−1) = 2^(S(u−1)·log₂e/√D − m)     wait for both

and exponentials overlap with products of the same and of the other warpgroup. Blocks before the first and after the
last are outside the tensor: TMA copies zeros there, which are not used. For bfloat16 at D = 64, m is the maximum over
the first block, as in `joint`: the loop has no maximum and no rescaling. If a row's sum grows too large for that, both
consumers and the producer repeat the loop over all blocks with the running maximum. Without the running maximum, one in
four exponentials is a polynomial (Zadouri et al. 2026, FlashAttention-4). At D = 64 a score costs Hopper 256 FLOP of
products at 4096 a clock, which are 8 issue slots of each scheduler: the loop uses 7, and 6 of 8 of the exponential
unit.

The overlap depends on ptxas. It waits after every product if a loop keeps one in flight across iterations and touches
its accumulator (C7514), or if registers are short (C7512). With whole blocks of 128 keys instead of halves, it
schedules all exponentials before or after all products.

No deadlock is possible: the copies of a slot complete a phase of `ready`, one arrival of each consumer completes a
phase of `empty`, and all three warpgroups go through slots 0, 1, 2 … in this order. The n-th use of a buffer has phase
n mod 2.
"""

from __future__ import annotations

import torch
from torch import Tensor
from triton import language as tl
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier, tma, warpgroup_mma, warpgroup_mma_wait
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from consisid_kernels.attention import joint
from consisid_kernels.launch import DTYPES, architecture, current_device, tile
from consisid_kernels.variant import Variant

ARCHITECTURE = 90
SIZES = (64, 128)
"""Channels of a head."""
ROWS = 64
"""Queries of a consumer: the rows of Hopper's matrix instruction."""
CONSUMERS = 2
REGISTERS = 168
"""Registers of a thread when a block of 12 warps starts: 65,536 / 384, rounded down to a multiple of 8. Most of the
producer's are then given to the consumers."""
_copy = getattr(tma, "async_load", None) or tma.async_copy_global_to_shared
"""Triton 3.6 has the second name, later versions the first."""
_ROWS = gl.constexpr(ROWS)
_CONSUMERS = gl.constexpr(CONSUMERS)
_LOWEST = gl.constexpr(torch.finfo(torch.float32).min)
_KEEP_NAN = gl.constexpr(tl.PropagateNan.ALL)


@gluon.jit
def _polynomial(x):
    """2^x on the FMA units: 2^n in the exponent's bits, and 2^r by a cubic for |r| ≤ 1/2, with an error of 7.5e-5.

    x is clamped to ±126, as a number from 0 to 1, which costs no instruction (FFMA.SAT). Adding 1.5·2^23 rounds to an
    integer, because the sum has no bits for a fraction. Saturation turns NaN into 0. The final maximum with x restores
    NaN and changes nothing else, as 2^x > x.
    """
    ROUND: gl.constexpr = 12582912.0 - 126.0
    share = gl.minimum(gl.maximum(x * (1 / 252) + 0.5, 0.0), 1.0)
    shifted = share * 252.0 + ROUND
    r = share * 252.0 - (shifted - ROUND)
    mantissa = ((0.05517167 * r + 0.24261113) * r + 0.69326097) * r + 0.99992806
    bits = mantissa.to(gl.int32, bitcast=True) + (shifted.to(gl.int32, bitcast=True) << 23)
    return gl.maximum(bits.to(gl.float32, bitcast=True), x, propagate_nan=_KEEP_NAN)


@gluon.jit
def _exponentials(a, b, c, d):
    return gl.exp2(a), gl.exp2(b), gl.exp2(c), _polynomial(d)


@gluon.jit
def _overflowed(overflow_check):
    """Waits until both consumers have checked their rows. Returns the number of keys if any row overflowed, else 0."""
    checked, overflows = overflow_check
    mbarrier.wait(checked, 0)
    layout: gl.constexpr = gl.BlockedLayout([1], [32], [gl.num_warps()], [0])
    overflowed = 0
    for consumer in gl.static_range(_CONSUMERS):
        overflowed |= gl.max(overflows.index(consumer).load(layout), 0)
    return overflowed


@gluon.jit
def _stream(k, v, ring, head, blocks, first):
    """Copies all blocks once, into the slots from `first` on."""
    k_ring, v_ring, ready, empty = ring
    STAGES: gl.constexpr = k_ring.shape[0]
    BLOCK: gl.constexpr = k_ring.shape[2]
    for t in range(blocks + 1):
        slot = first + t
        buffer = slot % STAGES
        mbarrier.wait(empty.index(buffer), (slot // STAGES & 1) ^ 1)
        full = ready.index(buffer)
        mbarrier.expect(full, k.block_type.nbytes + v.block_type.nbytes)
        _copy(v, [head, (blocks - t) * BLOCK, 0], full, v_ring.index(buffer))
        _copy(k, [head, (blocks - 1 - t) * BLOCK, 0], full, k_ring.index(buffer))


@gluon.jit
def _produce(q, k, v, q_tiles, q_ready, ring, overflow_check, coordinates, ROOM: gl.constexpr):
    program, head, _, _, _, blocks = coordinates
    mbarrier.expect(q_ready, _CONSUMERS * q.block_type.nbytes)
    for consumer in gl.static_range(_CONSUMERS):
        row = (program * _CONSUMERS + consumer) * _ROWS
        _copy(q, [head, row, 0], q_ready, q_tiles.index(consumer))
    _stream(k, v, ring, head, blocks, 0)
    if ROOM:  # noqa: SIM102
        if _overflowed(overflow_check) != 0:
            _stream(k, v, ring, head, blocks, blocks + 1)


@gluon.jit
def _half(tile, half: gl.constexpr):
    """The first or second half of a slot's keys or values, [HALF, D]."""
    HALF: gl.constexpr = tile.shape[1] // 2
    return tile.reshape([2 * HALF, tile.shape[2]]).slice(half * HALF, HALF)


@gluon.jit
def _weights(scores, m, total, q, RUNNING: gl.constexpr, POLYNOMIAL: gl.constexpr):
    """P = 2^(S·log₂e/√D − m) in the layout of q for the next product, the new m and total, the rescaling factor."""
    SCALE: gl.constexpr = 1.4426950408889634 / q.shape[1] ** 0.5
    rescale = total
    if RUNNING:
        next_m = gl.maximum(m, gl.max(scores, 1) * SCALE)
        rescale = gl.exp2(m - next_m)
        total = total * rescale
        m = next_m
    x = scores * SCALE - m[:, None]
    weights = gl.map_elementwise(_exponentials, x, pack=4)[0] if POLYNOMIAL else gl.exp2(x)
    return gl.convert_layout(weights.to(q.dtype), q.type.layout), m, total + gl.sum(weights, 1), rescale


@gluon.jit
def _rescaled(acc, rescale, RUNNING: gl.constexpr):
    return acc * gl.convert_layout(rescale, gl.SliceLayout(1, acc.type.layout))[:, None] if RUNNING else acc


@gluon.jit
def _step(scores, weights, m, total, acc, q, k, v, RUNNING: gl.constexpr, POLYNOMIAL: gl.constexpr):
    acc = warpgroup_mma(weights, v, acc, is_async=True)
    next_scores = warpgroup_mma(q, k.permute((1, 0)), gl.zeros_like(scores), use_acc=False, is_async=True)
    next_weights, m, total, rescale = _weights(scores, m, total, q, RUNNING, POLYNOMIAL)
    # `total` depends on all exponentials, so none of them can be scheduled after the wait.
    acc, next_scores, total = warpgroup_mma_wait(0, deps=(acc, next_scores, total))
    return next_scores, next_weights, m, total, _rescaled(acc, rescale, RUNNING)


@gluon.jit
def _attend(q, ring, tokens, blocks, first, RUNNING: gl.constexpr, POLYNOMIAL: gl.constexpr):
    """total [rows] and acc [rows, D] over all blocks, in the slots from `first` on; m is as in `joint._attend`."""
    k_ring, v_ring, ready, empty = ring
    STAGES: gl.constexpr = k_ring.shape[0]
    HALF: gl.constexpr = k_ring.shape[2] // 2
    SCALE: gl.constexpr = 1.4426950408889634 / q.shape[1] ** 0.5
    scores_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, HALF, 16])
    none = gl.zeros([_ROWS, HALF], gl.float32, scores_layout)
    acc_layout: gl.constexpr = q.type.layout.parent
    acc = gl.zeros(q.shape, gl.float32, acc_layout)
    total = gl.zeros([_ROWS], gl.float32, gl.SliceLayout(1, scores_layout))

    buffer = first % STAGES
    mbarrier.wait(ready.index(buffer), first // STAGES & 1)
    k = k_ring.index(buffer)
    scores = warpgroup_mma(q, _half(k, 0).permute((1, 0)), none, use_acc=False)
    next_scores = warpgroup_mma(q, _half(k, 1).permute((1, 0)), none, use_acc=False)
    mbarrier.arrive(empty.index(buffer), count=1)
    key = (blocks - 1) * (2 * HALF) + gl.arange(0, HALF, gl.SliceLayout(0, scores_layout))
    scores = gl.where((key < tokens)[None, :], scores, float("-inf"))
    next_scores = gl.where((key + HALF < tokens)[None, :], next_scores, float("-inf"))
    m = gl.maximum(gl.maximum(gl.max(scores, 1), gl.max(next_scores, 1)) * SCALE, _LOWEST)
    weights, m, total, _ = _weights(scores, m, total, q, False, POLYNOMIAL)
    scores = next_scores

    for slot in range(first + 1, first + blocks):
        buffer = slot % STAGES
        mbarrier.wait(ready.index(buffer), slot // STAGES & 1)
        k, v = k_ring.index(buffer), v_ring.index(buffer)
        scores, weights, m, total, acc = _step(
            scores, weights, m, total, acc, q, _half(k, 0), _half(v, 0), RUNNING, POLYNOMIAL
        )
        scores, weights, m, total, acc = _step(
            scores, weights, m, total, acc, q, _half(k, 1), _half(v, 1), RUNNING, POLYNOMIAL
        )
        mbarrier.arrive(empty.index(buffer), count=1)

    buffer = (first + blocks) % STAGES
    mbarrier.wait(ready.index(buffer), (first + blocks) // STAGES & 1)
    v = v_ring.index(buffer)
    acc = warpgroup_mma(weights, _half(v, 0), acc)
    weights, m, total, rescale = _weights(scores, m, total, q, RUNNING, POLYNOMIAL)
    acc = warpgroup_mma(weights, _half(v, 1), _rescaled(acc, rescale, RUNNING))
    mbarrier.arrive(empty.index(buffer), count=1)
    return total, acc


@gluon.jit
def _consume(
    out_ptr, q_tiles, q_ready, ring, overflow_check, coordinates, consumer,
    ROOM: gl.constexpr, POLYNOMIAL: gl.constexpr,
):  # fmt: skip
    program, head, heads, queries, tokens, blocks = coordinates
    D: gl.constexpr = q_tiles.shape[3]
    acc_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, D, 16])
    mbarrier.wait(q_ready, 0)
    q = q_tiles.index(consumer).reshape([_ROWS, D]).load(gl.DotOperandLayout(0, acc_layout, 2))
    total, acc = _attend(q, ring, tokens, blocks, 0, ROOM == 0, POLYNOMIAL)
    if ROOM:
        checked, overflows = overflow_check
        overflowed = gl.max(gl.max(gl.where(gl.abs(acc) < float("inf"), 0, tokens), 1), 0)
        overflowed |= gl.max(gl.where(total < 2.0**ROOM, 0, tokens), 0)
        overflows.index(consumer).store(gl.full([1], overflowed, gl.int32, gl.BlockedLayout([1], [32], [4], [0])))
        mbarrier.arrive(checked, count=1)
        # Read from memory. From `tokens`, the compiler would compute the mask once and keep it in registers in between.
        tokens_again = _overflowed(overflow_check)
        if tokens_again != 0:
            total, acc = _attend(q, ring, tokens_again, blocks, blocks + 1, True, False)

    acc = acc / gl.convert_layout(total, gl.SliceLayout(1, acc_layout))[:, None]
    row = (program * _CONSUMERS + consumer) * _ROWS + gl.arange(0, _ROWS, gl.SliceLayout(1, acc_layout))
    position = ((head // heads).to(gl.int64) * queries + row) * heads + head % heads
    channel = gl.arange(0, D, gl.SliceLayout(0, acc_layout))
    gl.store(out_ptr + (position[:, None] * D + channel[None, :]), acc.to(q.dtype), mask=(row < queries)[:, None])


@gluon.jit(do_not_specialize=["heads"])
def _attention(out_ptr, q, k, v, heads, STAGES: gl.constexpr, ROOM: gl.constexpr, POLYNOMIAL: gl.constexpr):
    """A program computes 128 queries of one head. Consecutive programs share a head, whose keys stay in L2.

    ROOM is as in `joint._attention`.
    """
    tokens = k.shape[1]
    coordinates = (gl.program_id(0), gl.program_id(1), heads, q.shape[1], tokens, gl.cdiv(tokens, k.block_shape[1]))
    q_tiles = gl.allocate_shared_memory(q.dtype, [_CONSUMERS] + q.block_shape, q.layout)  # noqa: RUF005
    k_ring = gl.allocate_shared_memory(k.dtype, [STAGES] + k.block_shape, k.layout)  # noqa: RUF005
    v_ring = gl.allocate_shared_memory(v.dtype, [STAGES] + v.block_shape, v.layout)  # noqa: RUF005
    q_ready = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    checked = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    ready = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    overflows = gl.allocate_shared_memory(gl.int32, [_CONSUMERS, 1], gl.SwizzledSharedLayout(1, 1, 1, [0]))
    mbarrier.init(q_ready, count=1)
    mbarrier.init(checked, count=_CONSUMERS)
    for buffer in gl.static_range(STAGES):
        mbarrier.init(ready.index(buffer), count=1)
        mbarrier.init(empty.index(buffer), count=_CONSUMERS)

    ring = (k_ring, v_ring, ready, empty)
    overflow_check = (checked, overflows)
    gl.warp_specialize(
        [
            (_consume, (out_ptr, q_tiles, q_ready, ring, overflow_check, coordinates, 0, ROOM, POLYNOMIAL)),
            (_consume, (out_ptr, q_tiles, q_ready, ring, overflow_check, coordinates, 1, ROOM, POLYNOMIAL)),
            (_produce, (q, k, v, q_tiles, q_ready, ring, overflow_check, coordinates, ROOM)),
        ],
        [4, 1],
        [240, 24],
    )


def joint_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`joint.joint_attention`, computed by this kernel if it `supports` the arguments.

    Raises:
        ValueError: as `joint.joint_attention`.
    """
    if not supports(q, k, v):
        return joint.joint_attention(q, k, v)
    branches, heads, tokens, size = q.shape
    out = torch.empty(branches, tokens, heads, size, dtype=q.dtype, device=q.device)
    config = tile("joint_attention_hopper", f"{DTYPES[q.dtype]}-d{size}", 90)
    blocks = (ROWS, config["block_n"], config["block_n"])
    descriptors = [
        TensorDescriptor.from_tensor(x.flatten(0, 1), [1, block, size], _layout())
        for x, block in zip((q, k, v), blocks, strict=True)
    ]
    with current_device(q.device):
        _attention[-(-tokens // (CONSUMERS * ROWS)), branches * heads](
            out, *descriptors, heads, **_constants(config), num_warps=4, maxnreg=REGISTERS
        )
    return out


def supports(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether this kernel supports the arguments.

    It does on Hopper, in float16 or bfloat16, for D = 64 or 128 and as many branches of keys as of queries, contiguous
    and aligned.
    """
    return (
        architecture(q.device) == ARCHITECTURE
        and q.dtype in (torch.float16, torch.bfloat16)
        and q.dim() == k.dim() == 4
        and q.shape[-1] in SIZES
        and (*q.shape[:2], q.shape[3]) == (*k.shape[:2], k.shape[3])
        and k.shape == v.shape
        and all(
            x.is_contiguous() and x.numel() and x.data_ptr() % 16 == 0 and (x.dtype, x.device) == (q.dtype, q.device)
            for x in (q, k, v)
        )
    )


def _layout() -> gl.NVMMASharedLayout:
    return gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=3)


def _constants(config: dict[str, int]) -> dict[str, int]:
    names = {"STAGES": "num_stages", "ROOM": "room", "POLYNOMIAL": "polynomial"}
    return {name: config[key] for name, key in names.items()}


def _variant(dtype: str, size: int) -> Variant:
    config = tile("joint_attention_hopper", f"{dtype}-d{size}", 90)
    constants = _constants(config)
    descriptors = {
        name: f"tensordesc<{dtype}[1, {rows}, {size}],{_layout()}>"
        for name, rows in (("q", ROWS), ("k", config["block_n"]), ("v", config["block_n"]))
    }
    return Variant(
        f"joint_attention_hopper/{dtype}-d{size}",
        _attention,
        {"out_ptr": f"*{dtype}", **descriptors, "heads": "i32"} | dict.fromkeys(constants, "constexpr"),
        constants,
        (90,),
        aligned=("out_ptr",),
        matrix=True,
        options={"maxnreg": REGISTERS},
    )


VARIANTS = [_variant(dtype, size) for dtype in ("fp16", "bf16") for size in SIZES]
