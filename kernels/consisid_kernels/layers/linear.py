"""Linear layers with an epilogue, by cuBLASLt or by the kernel of `layers.ffn`: the form that `forms` names."""

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
