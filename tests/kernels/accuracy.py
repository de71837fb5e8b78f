"""The error measure of the kernels' tests, and inputs of attention with outliers."""

import torch
from torch import Tensor

Qkv = tuple[Tensor, Tensor, Tensor]


def relative_error(found: Tensor, exact: Tensor) -> float:
    """‖found − exact‖ / ‖exact‖."""
    return float((found.double() - exact).norm() / exact.norm())


def in_float64(tensors: Qkv) -> Qkv:
    q, k, v = tensors
    return q.double(), k.double(), v.double()


def attention_inputs(
    queries: int, keys: int, dtype: torch.dtype, device: str, *, size: int = 64, heads: int = 2, branches: int = 1
) -> Qkv:
    """q [B, H, M, D], k and v [B, H, N, D]; one channel and a few tokens are outliers, as in the network."""
    q, k, v = (torch.randn(branches, heads, tokens, size) for tokens in (queries, keys, keys))
    k[..., 3] += 8
    k[:, :, :: max(keys // 3, 1)] *= 3
    v[:, :, ::7] *= 50
    return q.to(device, dtype), k.to(device, dtype), v.to(device, dtype)
