# mypy: disable-error-code="untyped-decorator,no-untyped-def,no-untyped-call"
"""Quantises the input of a linear layer to E4M3, a scale for each row, after GELU if that is asked for.

    s = max |y| / 448        q = y / s,  y = x or GELU(x)

Bound by memory: a row is read once, written once in half the size. GELU here instead of in the product before saves a
pass over the widest features; its form is that of `layers.ffn`.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor, empty, float32

from consisid_kernels.launch import DTYPES, architecture, current_device, require, tile
from consisid_kernels.layers.ffn import DTYPES_16BIT, gelu
from consisid_kernels.reference import FLOAT8, FLOAT8_LARGEST
from consisid_kernels.variant import MATRIX, Variant

ARCHITECTURES = tuple(number for number in MATRIX if number >= 89)
"""Those whose hardware rounds to E4M3."""
_LARGEST = tl.constexpr(FLOAT8_LARGEST)


@triton.jit
def _quantise_rows(out, scales, x, CHANNELS: tl.constexpr, BLOCK: tl.constexpr, GELU: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    channel = tl.arange(0, BLOCK)
    inside = channel < CHANNELS
    value = tl.load(x + row * CHANNELS + channel, mask=inside, other=0.0).to(tl.float32)
    if GELU:
        value = gelu(value)
    # As integers the bits of |value| are in the order of the numbers, NaN above infinity: the maximum keeps NaN.
    bits = tl.max(value.to(tl.int32, bitcast=True) & 0x7FFFFFFF, 0)
    largest = tl.maximum(bits.to(tl.float32, bitcast=True), 1e-12, propagate_nan=tl.PropagateNan.ALL)
    scale = tl.div_rn(largest, _LARGEST)
    scaled = tl.clamp(tl.div_rn(value, scale), -_LARGEST, _LARGEST, propagate_nan=tl.PropagateNan.ALL)
    tl.store(out + row * CHANNELS + channel, scaled.to(out.dtype.element_ty), mask=inside)
    tl.store(scales + row, scale)


def quantise_rows(x: Tensor, gelu: bool = False) -> tuple[Tensor, Tensor]:
    """`reference.quantise_rows`; without GELU bit for bit. On a GPU from compute capability 8.9 on.

    Raises:
        ValueError: x's dtype is not a supported one, it is not contiguous or has no channels, or the device is older.
    """
    number = architecture(x.device)
    if number is not None and number < min(ARCHITECTURES):
        raise ValueError(f"{x.device} has compute capability {number / 10}; E4M3 needs 8.9 or more")
    require("x", x, (None,) * x.dim(), DTYPES, x.device)
    if x.dim() == 0 or not x.shape[-1]:
        raise ValueError(f"x is {list(x.shape)}; wanted [..., C] with at least one channel")
    out = empty(x.shape, dtype=FLOAT8, device=x.device)
    scales = empty((*x.shape[:-1], 1), dtype=float32, device=x.device)
    if x.numel():
        constants = _constants(x.shape[-1], gelu)
        warps = tile("quantise_rows", DTYPES[x.dtype], number)["num_warps"]
        with current_device(x.device):
            _quantise_rows[(scales.numel(),)](out, scales, x, **constants, num_warps=warps)
    return out, scales


def _constants(channels: int, gelu: bool) -> dict[str, int]:
    return {"CHANNELS": channels, "BLOCK": triton.next_power_of_2(channels), "GELU": gelu}


def _variant(dtype: str, channels: int, gelu: bool, number: int) -> Variant:
    constants = _constants(channels, gelu)
    types = {"out": "*fp8e4nv", "scales": "*fp32", "x": f"*{dtype}"}
    return Variant(
        f"quantise_rows/{'gelu-' if gelu else ''}{dtype}-c{channels}", _quantise_rows,
        types | dict.fromkeys(constants, "constexpr"), constants, (number,),
        warps=tile("quantise_rows", dtype, number)["num_warps"], aligned=tuple(types),
    )  # fmt: skip


VARIANTS = [
    _variant(DTYPES[dtype], channels, gelu, number)
    for dtype in DTYPES_16BIT
    for channels, gelu in ((3072, False), (12288, True))
    for number in ARCHITECTURES
]
