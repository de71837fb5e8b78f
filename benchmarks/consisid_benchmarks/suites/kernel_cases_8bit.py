"""The cases of the 8-bit kernels, compared with 16-bit attention and with PyTorch's fp8 matrix product."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from consisid_benchmarks.suites.kernel_case_types import Call, Case, Size, case_name, total_bytes
from consisid_kernels import launch

TOLERANCE = 0.1
"""Relative L2 distance accepted between 8-bit and 16-bit attention: the quantisation error."""


def attention(size: Size) -> Case:
    """Ours with queries and keys already quantised to INT8 or E4M3; the peer is 16-bit."""
    from consisid_kernels import ops

    shape = (size.branches, size.heads, size.tokens, size.head_dim)
    q, k, v = (size.normal(*shape) for _ in range(3))
    values = ops.quantise_channels(v)
    centred = k - k.mean(dim=2, keepdim=True)

    def ours(dtype: torch.dtype) -> Call:
        name = "int8" if dtype == torch.int8 else "e4m3"
        found = launch.tile("joint_attention_8bit", f"{name}-d{size.head_dim}", launch.architecture(q.device))
        blocks = found["block_m"], found["block_n"]
        queries = ops.quantise_tokens(q, blocks[0], dtype)
        keys = ops.quantise_tokens(centred, blocks[1], dtype)
        return lambda: ops.joint_attention_8bit(queries, keys, values, blocks, size.dtype)

    def flash() -> Tensor:
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)

    calls: dict[str, Call] = {"ours": ours(torch.int8), "ours/e4m3": ours(torch.float8_e4m3fn), "sdpa-flash": flash}
    flops = 4 * size.branches * size.heads * size.tokens**2 * size.head_dim
    return Case(case_name("joint_attention_8bit", size, *shape), calls, flops, tolerance=TOLERANCE)


def epilogue(size: Size) -> Case:
    """The epilogue with statistics and quantisation; no peer."""
    from consisid_kernels import ops

    qkv = size.normal(size.branches, size.tokens, 3 * size.width)
    norms = [(size.normal(size.head_dim), size.normal(size.head_dim)) for _ in range(2)]
    angle = torch.rand(size.video, size.head_dim, device=size.device)
    cos, sin = angle.cos(), angle.sin()
    found = launch.tile("joint_attention_8bit", f"int8-d{size.head_dim}", launch.architecture(qkv.device))
    blocks = found["block_m"], found["block_n"]

    def ours() -> tuple[Tensor, ...]:
        statistics = ops.qkv_statistics(qkv, norms[1], cos, sin, size.heads, 1e-6)
        arguments: tuple[Any, ...] = (qkv, *norms, cos, sin, statistics, size.heads, 1e-6, blocks)
        return tuple(tensor for part in ops.qkv_epilogue_8bit(*arguments) for tensor in part)

    # Read twice: the mean of the keys and the scales of the values need all tokens.
    least = total_bytes(qkv, qkv) + qkv.numel()
    return Case(case_name("qkv_epilogue_8bit", size, *qkv.shape), {"ours": ours}, traffic=least)


def linear(size: Size) -> Case:
    """The first layer of the feed-forward network in fp8, compared with `torch._scaled_mm`."""
    from consisid_kernels import ops

    rows, out = size.branches * size.tokens, 4 * size.width
    x = size.normal(rows, size.width).to(torch.float8_e4m3fn)
    weight = size.normal(out, size.width).to(torch.float8_e4m3fn)
    x_scale = torch.full((1,), 0.01, device=size.device)
    weight_scale, bias = torch.rand(out, device=size.device) * 0.01, size.normal(out)

    def scaled_mm() -> Tensor:
        scales = x_scale.expand(rows, 1).contiguous(), weight_scale[None]
        return torch._scaled_mm(x, weight.mT, *scales, bias=bias, out_dtype=size.dtype)

    calls: dict[str, Call] = {
        "ours": lambda: ops.linear_float8(x, x_scale, weight, weight_scale, bias, size.dtype),
        "torch-scaled-mm": scaled_mm,
    }
    return Case(case_name("linear_float8", size, rows, size.width, out), calls, 2 * rows * size.width * out)
