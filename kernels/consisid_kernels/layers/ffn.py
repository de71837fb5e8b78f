# mypy: disable-error-code="untyped-decorator,no-untyped-def,no-untyped-call"
"""Linear layers with an epilogue that replaces a pass over their output: GELU, or the scales of E4M3 numbers.

    y = GELU(x Wᵀ + b)        y = ((x Wᵀ) · x_scale) · w_scale + b
    GELU(a) = a / (1 + 2^(−a (α + β a²))),  α = 2 √(2/π) log2(e),  β = 0.044715 α

GELU is in its tanh form (Hendrycks & Gimpel 2016), written as a · sigmoid.

The kernel is persistent: one program for each multiprocessor loops over the output's tiles, in groups of rows, so that
the weights stay in L2 during a group. Tiles are loaded and stored by tensor descriptors (TMA from Hopper on), which
also mask elements past the edges. Tensor cores sum E4M3 products in fewer bits than float32 has (about 14 on Hopper:
DeepSeek-V3 report, section 3.3.2). Each block's sum therefore starts from zero and is added in float32 registers, by
`fma`, because Triton folds sum + dot(x, w) into dot(x, w, sum), which sums all channels in those few bits.

Bound by arithmetic: [35552, 3072] × [3072, 12288] are 2.7 TFLOP on 1.2 GB.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from consisid_kernels.launch import DTYPES, architecture, current_device, family, require, tile
from consisid_kernels.reference import FLOAT8
from consisid_kernels.variant import Variant

DTYPES_16BIT = (torch.float16, torch.bfloat16)
ARCHITECTURES = (90, 100)
"""Supported families. Below 9.0 there is no TMA: loads do not overlap with products, and the 16-bit form spills. On
12.0, ptxas 12.9 gives every kernel with TMA 8 bytes of stack."""

_ALPHA = tl.constexpr(2 * math.sqrt(2 / math.pi) * math.log2(math.e))
_BETA = tl.constexpr(0.044715 * 2 * math.sqrt(2 / math.pi) * math.log2(math.e))


@triton.jit
def gelu(a):
    return a / (1.0 + tl.exp2(-a * (_ALPHA + _BETA * a * a)))


@triton.jit(do_not_specialize=["rows"])
def _linear(
    out, x, weight, bias, x_scale, weight_scale, rows, columns, channels,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP: tl.constexpr,
    GELU: tl.constexpr, OUT: tl.constexpr,
):  # fmt: skip
    across = tl.cdiv(columns, BLOCK_N)
    down = tl.cdiv(rows, BLOCK_M)
    for index in tl.range(tl.program_id(0), down * across, tl.num_programs(0), flatten=True):
        first = index // (GROUP * across) * GROUP
        height = tl.minimum(down - first, GROUP)
        inner = index % (GROUP * across)
        row = (first + inner % height) * BLOCK_M
        column = inner // height * BLOCK_N
        if x_scale is not None:
            row_index = row + tl.arange(0, BLOCK_M)
            row_scale = tl.load(x_scale + row_index, mask=row_index < rows, other=0.0).to(tl.float32)
            scale = tl.broadcast_to(row_scale[:, None], (BLOCK_M, BLOCK_N))
        acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        for channel in tl.range(0, channels, BLOCK_K):
            x_block = x.load([row, channel])
            weight_block = weight.load([column, channel])
            if x_scale is None:
                acc = tl.dot(x_block, weight_block.T, acc)
            else:
                acc = tl.fma(tl.dot(x_block, weight_block.T), scale, acc)
        column_index = column + tl.arange(0, BLOCK_N)
        in_columns = column_index < columns
        if weight_scale is not None:
            acc *= tl.load(weight_scale + column_index, mask=in_columns, other=0.0).to(tl.float32)[None, :]
        if bias is not None:
            acc += tl.load(bias + column_index, mask=in_columns, other=0.0).to(tl.float32)[None, :]
        if GELU:
            acc = gelu(acc)
        out.store([row, column], acc.to(OUT))


def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`reference.linear_gelu` in fp16 or bf16; C and out are multiples of 16.

    Raises:
        ValueError: an argument's shape, dtype or device is not the specified one, it is not contiguous, or the device's
            family is not in `ARCHITECTURES`.
    """
    _require_architecture(x.device)
    check(x, weight, bias, DTYPES_16BIT)
    return _launch(x, weight, bias, (None, None), x.dtype, gelu=True)


def linear_float8(
    x: Tensor, x_scale: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """`reference.linear_float8` to fp16 or bf16; C and out are multiples of 16; scales of any dtype.

    Raises:
        ValueError: as `linear_gelu`, or dtype is neither fp16 nor bf16.
    """
    _require_architecture(x.device)
    check_float8(x, x_scale, weight, weight_scale, bias, dtype)
    return _launch(x, weight, bias, (x_scale, weight_scale), dtype, gelu=False)


def _require_architecture(device: torch.device) -> None:
    number = architecture(device)
    if number is not None and family(number) not in ARCHITECTURES:
        wanted = " and ".join(f"{known // 10}.x" for known in ARCHITECTURES)
        raise ValueError(f"{device} has compute capability {number / 10}; this kernel needs {wanted}")


def check(x: Tensor, weight: Tensor, bias: Tensor | None, dtypes: tuple[torch.dtype, ...]) -> None:
    """Raises ValueError unless x is [..., C], weight [out, C] and bias [out], as a linear layer here takes them."""
    if x.dim() == 0 or weight.dim() != 2 or x.shape[-1] % 16 or weight.shape[0] % 16 or 0 in weight.shape:
        raise ValueError(
            f"x is {list(x.shape)}, weight {list(weight.shape)}; wanted [..., C] and [out, C], multiples of 16"
        )
    require("x", x, (None,) * x.dim(), dtypes, x.device)
    require("weight", weight, (None, x.shape[-1]), (x.dtype,), x.device)
    if bias is not None:
        require("bias", bias, weight.shape[:1], DTYPES, x.device)


def check_float8(
    x: Tensor, x_scale: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor | None, dtype: torch.dtype
) -> None:
    """Raises ValueError unless these are the arguments of `linear_float8`."""
    check(x, weight, bias, (FLOAT8,))
    if dtype not in DTYPES_16BIT:
        raise ValueError(f"dtype is {dtype}; wanted one of {list(DTYPES_16BIT)}")
    require("x_scale", x_scale, (*x.shape[:-1], 1), DTYPES, x.device)
    require("weight_scale", weight_scale, weight.shape[:1], DTYPES, x.device)


def _launch(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    scales: tuple[Tensor | None, Tensor | None],
    dtype: torch.dtype,
    gelu: bool,
) -> Tensor:
    columns, channels = weight.shape
    out = torch.empty((*x.shape[:-1], columns), dtype=dtype, device=x.device)
    rows = x.numel() // channels
    if rows == 0:
        return out
    config = tile("linear", _case(x.dtype), architecture(x.device))
    m, n, k = config["block_m"], config["block_n"], config["block_k"]
    tiles = triton.cdiv(rows, m) * triton.cdiv(columns, n)
    tensors = (
        TensorDescriptor.from_tensor(tensor.view(-1, tensor.shape[-1]), block)
        for tensor, block in ((out, [m, n]), (x, [m, k]), (weight, [n, k]))
    )
    # With a bias of 16 bits, the whole tile gets the bias's layout on 10.0, and spills.
    vectors = (None if vector is None else vector.float() for vector in (bias, *scales))
    with current_device(x.device):
        _linear[(min(tiles, _processors(x.device)),)](
            *tensors, *vectors, rows, columns, channels, **_constants(config, gelu, dtype),
            num_warps=config["num_warps"], num_stages=config["num_stages"],
        )  # fmt: skip
    return out


def _processors(device: torch.device) -> int:
    """The number of multiprocessors; 2 in the interpreter, so that a program computes several tiles."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 2


def _case(dtype: torch.dtype) -> str:
    return "e4m3" if dtype == FLOAT8 else "16-bit"


def _constants(config: dict[str, int], gelu: bool, dtype: torch.dtype) -> dict[str, Any]:
    sizes = {name.upper(): config[name] for name in ("block_m", "block_n", "block_k", "group")}
    return sizes | {"GELU": gelu, "OUT": getattr(tl, _TYPES[dtype][1])}


_TYPES = {
    torch.float16: ("fp16", "float16"),
    torch.bfloat16: ("bf16", "bfloat16"),
    FLOAT8: ("fp8e4nv", "float8e4nv"),
}
"""Names of dtypes in signatures and in `triton.language`."""


def _variant(name: str, dtype: torch.dtype, out: torch.dtype, number: int, gelu: bool) -> Variant:
    config = tile("linear", _case(dtype), number)
    constants = _constants(config, gelu, out)
    m, n, k = config["block_m"], config["block_n"], config["block_k"]
    signature = {
        tensor: f"tensordesc<{_TYPES[kind][0]}[{height},{width}]>"
        for tensor, kind, height, width in (("out", out, m, n), ("x", dtype, m, k), ("weight", dtype, n, k))
    }
    used = {"bias": True, "x_scale": dtype == FLOAT8, "weight_scale": dtype == FLOAT8}
    signature |= {pointer: "*fp32" if present else "constexpr" for pointer, present in used.items()}
    signature |= dict.fromkeys(("rows", "columns", "channels"), "i32") | dict.fromkeys(constants, "constexpr")
    return Variant(
        name, _linear, signature, constants | {pointer: None for pointer, present in used.items() if not present},
        (number,), warps=config["num_warps"], stages=config["num_stages"], matrix=True,
        aligned=(*(pointer for pointer, present in used.items() if present), "columns", "channels"),
    )  # fmt: skip


VARIANTS = [
    variant
    for number in ARCHITECTURES
    for variant in (
        *(_variant(f"linear_gelu/{DTYPES[dtype]}", dtype, dtype, number, gelu=True) for dtype in DTYPES_16BIT),
        *(_variant(f"linear_float8/{DTYPES[dtype]}", FLOAT8, dtype, number, gelu=False) for dtype in DTYPES_16BIT),
    )
]
