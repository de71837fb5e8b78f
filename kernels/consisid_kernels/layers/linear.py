"""Linear layers with an epilogue, by PyTorch's products or by the kernel of `layers.ffn`, as `forms` has it."""

from __future__ import annotations

import torch
from torch import Tensor

from consisid_kernels.forms import form
from consisid_kernels.launch import DTYPES, architecture
from consisid_kernels.layers import ffn


def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`reference.linear_gelu` in fp16 or bf16; C and out are multiples of 16. On a CPU, by the kernel.

    Raises:
        ValueError: as `ffn.linear_gelu`.
    """
    number = architecture(x.device)
    if number is None or form("linear_gelu", DTYPES.get(x.dtype, ""), number) == "triton":
        return ffn.linear_gelu(x, weight, bias)
    ffn.check(x, weight, bias, ffn.DTYPES_16BIT)
    return cublaslt_linear_gelu(x, weight, bias)


def cublaslt_linear_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`reference.linear_gelu` on CUDA, whose epilogue is the GELU's tanh form; PyTorch on a CPU has the exact one."""
    rows = x.flatten(0, -2)
    return torch._addmm_activation(bias.to(x.dtype), rows, weight.mT, use_gelu=True).view(*x.shape[:-1], -1)


def linear_float8(
    x: Tensor, x_scale: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """`reference.linear_float8` to bf16 or, by the kernel alone, to fp16; C and out are multiples of 16.

    On a CPU, by the kernel. On CUDA the scales are float32, and bias has the result's dtype.

    Raises:
        ValueError: as `ffn.linear_float8`.
    """
    number = architecture(x.device)
    if number is None or form("linear_float8", DTYPES.get(dtype, ""), number) == "triton":
        return ffn.linear_float8(x, x_scale, weight, weight_scale, bias, dtype)
    ffn.check_float8(x, x_scale, weight, weight_scale, bias, dtype)
    return scaled_mm(x, x_scale, weight, weight_scale, bias, dtype)


def scaled_mm(
    x: Tensor, x_scale: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """`reference.linear_float8` by `torch._scaled_mm`, whose sums are float32 also on Hopper (no fast accumulation)."""
    rows, scales = x.flatten(0, -2), (x_scale.view(-1, 1), weight_scale[None])
    return torch._scaled_mm(rows, weight.mT, *scales, bias=bias, out_dtype=dtype).view(*x.shape[:-1], -1)
