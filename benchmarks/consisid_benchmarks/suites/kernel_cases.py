"""The cases of suite `kernels`: each kernel's inputs at a model's size, our call, and PyTorch's equivalents."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from consisid_benchmarks.suites.kernel_case_types import Call, Case, Size, case_name, total_bytes
from consisid_kernels import reference

_BACKENDS = {
    "sdpa-flash": SDPBackend.FLASH_ATTENTION,
    "sdpa-cudnn": SDPBackend.CUDNN_ATTENTION,
    "sdpa-efficient": SDPBackend.EFFICIENT_ATTENTION,
}


def cases(size: Size) -> Iterator[Case]:
    """Every case, created lazily so that only one case's tensors are in memory."""
    for make in (
        _attention,
        _shared_attention,
        _qkv,
        _norm,
        _residual,
        _residual_norm,
        _face,
        _feed_forward,
        _quantise_rows,
        _linear_float8,
        _spatial_norm,
    ):
        yield make(size)


def _plain(kernel: str, *arguments: object) -> dict[str, Call]:
    """The reference implementation, eager and compiled."""
    plain = getattr(reference, kernel)
    compiled: Any = torch.compile(plain)
    return {"torch-eager": lambda: plain(*arguments), "torch-compile": lambda: compiled(*arguments)}


def _attention(size: Size) -> Case:
    from consisid_kernels.attention import joint, joint_hopper

    shape = (size.branches, size.heads, size.tokens, size.head_dim)
    q, k, v = (size.normal(*shape) for _ in range(3))

    def peer(backend: SDPBackend) -> Call:
        def call() -> Tensor:
            with sdpa_kernel(backend):
                return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)

        return call

    calls: dict[str, Call] = {"ours": lambda: joint.joint_attention(q, k, v)}
    calls["ours/hopper"] = lambda: joint_hopper.joint_attention(q, k, v)
    calls |= {name: peer(backend) for name, backend in _BACKENDS.items()}
    flops = 4 * size.branches * size.heads * size.tokens**2 * size.head_dim
    return Case(case_name("joint_attention", size, *shape), calls, flops, total_bytes(q, k, v, q))


def _shared_attention(size: Size) -> Case:
    """Attention of the first layer, whose branches share the video; the peer computes both branches in full."""
    from consisid_kernels import ops

    text = [size.normal(size.branches, size.heads, size.text, size.head_dim) for _ in range(3)]
    video = [size.normal(1, size.heads, size.video, size.head_dim) for _ in range(3)]
    whole = [torch.cat((a, b.expand(size.branches, -1, -1, -1)), 2) for a, b in zip(text, video, strict=True)]
    calls: dict[str, Call] = {
        "ours": lambda: ops.shared_joint_attention((text[0], text[1], text[2]), (video[0], video[1], video[2])),
        "ours/in-full": lambda: ops.joint_attention(whole[0], whole[1], whole[2]),
    }
    queries = size.branches * size.text * size.tokens + size.video * (size.video + size.branches * size.text)
    flops = 4 * size.heads * size.head_dim * queries
    return Case(case_name("shared_joint_attention", size, *whole[0].shape), calls, flops)


def _modulation(size: Size) -> tuple[Tensor, Tensor]:
    return size.normal(50, 6, size.width), torch.tensor([7], dtype=torch.int32, device=size.device)


def _qkv(size: Size) -> Case:
    from consisid_kernels import ops

    qkv = size.normal(size.branches, size.tokens, 3 * size.width)
    norms = [(size.normal(size.head_dim), size.normal(size.head_dim)) for _ in range(2)]
    angle = torch.rand(size.video, size.head_dim, device=size.device)
    arguments: tuple[Any, ...] = (qkv, *norms, angle.cos(), angle.sin(), size.heads, 1e-6)
    calls: dict[str, Call] = {"ours": lambda: ops.qkv_epilogue(*arguments), **_plain("qkv_epilogue", *arguments)}
    return Case(case_name("qkv_epilogue", size, *qkv.shape), calls, traffic=total_bytes(qkv, qkv, angle, angle))


def _norm(size: Size) -> Case:
    from consisid_kernels import ops

    x = size.normal(size.branches, size.tokens, size.width)
    affine = size.normal(size.width), size.normal(size.width)
    arguments: tuple[Any, ...] = (x, *affine, *_modulation(size), size.text, 1e-5)
    calls: dict[str, Call] = {"ours": lambda: ops.modulated_norm(*arguments), **_plain("modulated_norm", *arguments)}
    return Case(case_name("modulated_norm", size, *x.shape), calls, traffic=total_bytes(x, x))


def _residual(size: Size) -> Case:
    from consisid_kernels import ops

    x, y = (size.normal(size.branches, size.tokens, size.width) for _ in range(2))
    arguments: tuple[Any, ...] = (x, y, *_modulation(size), size.text)
    calls: dict[str, Call] = {"ours": lambda: ops.gated_residual(*arguments), **_plain("gated_residual", *arguments)}
    return Case(case_name("gated_residual", size, *x.shape), calls, traffic=total_bytes(x, y, x))


def _residual_norm(size: Size) -> Case:
    from consisid_kernels import ops

    x, y = (size.normal(size.branches, size.tokens, size.width) for _ in range(2))
    (table, step), affine = _modulation(size), (size.normal(size.width), size.normal(size.width))
    arguments: tuple[Any, ...] = (x, y, table, *affine, table, step, size.text, 1e-5)
    calls: dict[str, Call] = {"ours": lambda: ops.gated_residual_norm(*arguments)}
    calls |= _plain("gated_residual_norm", *arguments)
    return Case(case_name("gated_residual_norm", size, *x.shape), calls, traffic=total_bytes(x, y, x, x))


def _face(size: Size) -> Case:
    from consisid_kernels import ops

    x = size.normal(size.branches, size.tokens, size.width)
    affine = size.normal(size.width), size.normal(size.width)
    keys = size.normal(size.width, size.face_slots) * size.width**-0.5
    values = size.normal(size.face_slots, size.width)
    arguments: tuple[Any, ...] = (x, *affine, keys, values, size.face_heads, size.text, 1e-5)
    calls: dict[str, Call] = {"ours": lambda: ops.face_attention(*arguments), **_plain("face_attention", *arguments)}
    flops = 4 * size.branches * size.video * size.width * size.face_slots
    return Case(case_name("face_attention", size, *x.shape), calls, flops, total_bytes(x, x, keys, values))


def _feed_forward(size: Size) -> Case:
    from consisid_kernels.layers import ffn, linear

    x = size.normal(size.branches, size.tokens, size.width)
    weight, bias = size.normal(4 * size.width, size.width) * size.width**-0.5, size.normal(4 * size.width)
    calls: dict[str, Call] = {
        "ours": lambda: ffn.linear_gelu(x, weight, bias),
        "torch-cublaslt-epilogue": lambda: linear.cublaslt_linear_gelu(x, weight, bias),
    }
    calls |= _plain("linear_gelu", x, weight, bias)
    flops = 2 * size.branches * size.tokens * size.width * 4 * size.width
    return Case(case_name("linear_gelu", size, *x.shape), calls, flops)


def _quantise_rows(size: Size) -> Case:
    """The input of the second feed-forward layer, the widest."""
    from consisid_kernels import ops

    x = size.normal(size.branches, size.tokens, 4 * size.width)
    calls: dict[str, Call] = {"ours": lambda: ops.quantise_rows(x, gelu=True), **_plain("quantise_rows", x, True)}
    return Case(case_name("quantise_rows", size, *x.shape), calls, traffic=total_bytes(x) + x.numel())


def _linear_float8(size: Size) -> Case:
    """The first feed-forward layer of E4M3 numbers."""
    from consisid_kernels.layers import ffn, linear

    rows, out = size.branches * size.tokens, 4 * size.width
    x, weight = (reference.quantise_rows(size.normal(count, size.width)) for count in (rows, out))
    arguments: tuple[Any, ...] = (*x, weight[0], weight[1].flatten(), size.normal(out), size.dtype)
    calls: dict[str, Call] = {
        "ours": lambda: ffn.linear_float8(*arguments),
        "torch-scaled-mm": lambda: linear.scaled_mm(*arguments),
    }
    return Case(case_name("linear_float8", size, rows, size.width, out), calls, 2 * rows * size.width * out)


def _spatial_norm(size: Size) -> Case:
    from consisid_kernels import ops

    batch, frames, height, width, channels = size.frames
    x = size.normal(*size.frames)
    small = (batch, frames // size.enlarge[0], height // size.enlarge[1], width // size.enlarge[1], channels)
    affine, fields = (size.normal(channels), size.normal(channels)), (size.normal(*small), size.normal(*small))
    past = size.normal(batch, 2, height, width, channels)
    arguments: tuple[Any, ...] = (x, size.groups, *affine, *fields, size.enlarge, past, 1e-6)
    calls: dict[str, Call] = {"ours": lambda: ops.spatial_norm_silu(*arguments)}
    calls |= _plain("spatial_norm_silu", *arguments)
    # The statistics need all of x, so x is read twice.
    return Case(
        case_name("spatial_norm_silu", size, *x.shape), calls, traffic=total_bytes(x, x, x, past, past, *fields)
    )
