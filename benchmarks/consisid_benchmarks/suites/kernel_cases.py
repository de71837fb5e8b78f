"""What suite `kernels` runs: each kernel's inputs at a model's size, our call, and what a user would call instead."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from consisid_kernels import reference

Call = Callable[[], Tensor | tuple[Tensor, ...]]

_BACKENDS = {
    "sdpa-flash": SDPBackend.FLASH_ATTENTION,
    "sdpa-cudnn": SDPBackend.CUDNN_ATTENTION,
    "sdpa-efficient": SDPBackend.EFFICIENT_ATTENTION,
}


@dataclass(frozen=True, slots=True)
class Size:
    """One model and video. The default is ConsisID-preview at 49 frames of 480×720, with guidance.

    Latents are those of sixteen videos: one's would stay in the second-level cache from run to run.
    """

    branches: int = 2
    heads: int = 48
    head_dim: int = 64
    text: int = 226
    video: int = 17_550
    face_slots: int = 512
    face_heads: int = 16
    latents: tuple[int, ...] = (1, 16 * 13, 16, 60, 90)
    frames: tuple[int, ...] = (1, 8, 240, 360, 256)
    groups: int = 32
    enlarge: tuple[int, int] = (4, 4)
    dtype: torch.dtype = torch.bfloat16
    device: str = "cuda"

    @property
    def tokens(self) -> int:
        return self.text + self.video

    @property
    def width(self) -> int:
        return self.heads * self.head_dim

    def normal(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        return torch.randn(shape, device=self.device).to(dtype or self.dtype)


@dataclass(frozen=True, slots=True)
class Case:
    """One kernel.

    Attributes:
        name: kernel, sizes and dtype.
        calls: variant → what is timed; "ours" first. All give the same, within rounding.
        flops, traffic: the least work there is: operations of matrix products; bytes that must be read and written.
        apart: largest accepted relative L2 distance of a variant's result from ours.
    """

    name: str
    calls: dict[str, Call]
    flops: int = 0
    traffic: int = 0
    apart: float = 0.02


def cases(size: Size) -> Iterator[Case]:
    """One after the other, so that only one case's tensors are alive."""
    from consisid_benchmarks.suites import kernel_cases_8bit as narrow

    for make in (
        _attention,
        narrow.attention,
        _shared_attention,
        _qkv,
        narrow.epilogue,
        _norm,
        _residual,
        _residual_norm,
        _face,
        _feed_forward,
        narrow.linear,
        _solver,
        _spatial_norm,
    ):
        yield make(size)


def named(kernel: str, size: Size, *numbers: int) -> str:
    """A case's name."""
    return f"{kernel}/{'x'.join(map(str, numbers))}-{str(size.dtype).removeprefix('torch.')}"


def traffic(*tensors: Tensor) -> int:
    """Bytes of all."""
    return sum(tensor.nbytes for tensor in tensors)


def _plain(kernel: str, *arguments: object) -> dict[str, Call]:
    """The specification as it is, and compiled."""
    plain = getattr(reference, kernel)
    compiled: Any = torch.compile(plain)
    return {"torch-eager": lambda: plain(*arguments), "torch-compile": lambda: compiled(*arguments)}


def _attention(size: Size) -> Case:
    from consisid_kernels import ops
    from consisid_kernels.attention import joint_hopper

    shape = (size.branches, size.heads, size.tokens, size.head_dim)
    q, k, v = (size.normal(*shape) for _ in range(3))

    def peer(backend: SDPBackend) -> Call:
        def call() -> Tensor:
            with sdpa_kernel(backend):
                return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)

        return call

    calls: dict[str, Call] = {"ours": lambda: ops.joint_attention(q, k, v)}
    calls["ours/hopper"] = lambda: joint_hopper.joint_attention(q, k, v)
    calls |= {name: peer(backend) for name, backend in _BACKENDS.items()}
    flops = 4 * size.branches * size.heads * size.tokens**2 * size.head_dim
    return Case(named("joint_attention", size, *shape), calls, flops, traffic(q, k, v, q))


def _shared_attention(size: Size) -> Case:
    """The first layer's, beside attention of both branches in full."""
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
    return Case(named("shared_joint_attention", size, *whole[0].shape), calls, flops)


def _modulation(size: Size) -> tuple[Tensor, Tensor]:
    return size.normal(50, 6, size.width), torch.tensor([7], dtype=torch.int32, device=size.device)


def _qkv(size: Size) -> Case:
    from consisid_kernels import ops

    qkv = size.normal(size.branches, size.tokens, 3 * size.width)
    norms = [(size.normal(size.head_dim), size.normal(size.head_dim)) for _ in range(2)]
    angle = torch.rand(size.video, size.head_dim, device=size.device)
    arguments: tuple[Any, ...] = (qkv, *norms, angle.cos(), angle.sin(), size.heads, 1e-6)
    calls: dict[str, Call] = {"ours": lambda: ops.qkv_epilogue(*arguments), **_plain("qkv_epilogue", *arguments)}
    return Case(named("qkv_epilogue", size, *qkv.shape), calls, traffic=traffic(qkv, qkv, angle, angle))


def _norm(size: Size) -> Case:
    from consisid_kernels import ops

    x = size.normal(size.branches, size.tokens, size.width)
    affine = size.normal(size.width), size.normal(size.width)
    arguments: tuple[Any, ...] = (x, *affine, *_modulation(size), size.text, 1e-5)
    calls: dict[str, Call] = {"ours": lambda: ops.modulated_norm(*arguments), **_plain("modulated_norm", *arguments)}
    return Case(named("modulated_norm", size, *x.shape), calls, traffic=traffic(x, x))


def _residual(size: Size) -> Case:
    from consisid_kernels import ops

    x, y = (size.normal(size.branches, size.tokens, size.width) for _ in range(2))
    arguments: tuple[Any, ...] = (x, y, *_modulation(size), size.text)
    calls: dict[str, Call] = {"ours": lambda: ops.gated_residual(*arguments), **_plain("gated_residual", *arguments)}
    return Case(named("gated_residual", size, *x.shape), calls, traffic=traffic(x, y, x))


def _residual_norm(size: Size) -> Case:
    from consisid_kernels import ops

    x, y = (size.normal(size.branches, size.tokens, size.width) for _ in range(2))
    (table, step), affine = _modulation(size), (size.normal(size.width), size.normal(size.width))
    arguments: tuple[Any, ...] = (x, y, table, *affine, table, step, size.text, 1e-5)
    calls: dict[str, Call] = {"ours": lambda: ops.gated_residual_norm(*arguments)}
    calls |= _plain("gated_residual_norm", *arguments)
    return Case(named("gated_residual_norm", size, *x.shape), calls, traffic=traffic(x, y, x, x))


def _face(size: Size) -> Case:
    from consisid_kernels import ops

    x = size.normal(size.branches, size.tokens, size.width)
    affine = size.normal(size.width), size.normal(size.width)
    keys = size.normal(size.width, size.face_slots) * size.width**-0.5
    values = size.normal(size.face_slots, size.width)
    arguments: tuple[Any, ...] = (x, *affine, keys, values, size.face_heads, size.text, 1e-5)
    calls: dict[str, Call] = {"ours": lambda: ops.face_attention(*arguments), **_plain("face_attention", *arguments)}
    flops = 4 * size.branches * size.video * size.width * size.face_slots
    return Case(named("face_attention", size, *x.shape), calls, flops, traffic(x, x, keys, values))


def _feed_forward(size: Size) -> Case:
    from consisid_kernels import ops

    x = size.normal(size.branches, size.tokens, size.width)
    weight, bias = size.normal(4 * size.width, size.width) * size.width**-0.5, size.normal(4 * size.width)
    rows, columns = x.flatten(0, -2), weight.mT

    def epilogue() -> Tensor:
        """On CUDA its GELU is the tanh form; on a CPU it is the exact one."""
        return torch._addmm_activation(bias, rows, columns, use_gelu=True).view(*x.shape[:-1], -1)

    calls: dict[str, Call] = {"ours": lambda: ops.linear_gelu(x, weight, bias), "torch-cublaslt-epilogue": epilogue}
    calls |= _plain("linear_gelu", x, weight, bias)
    flops = 2 * size.branches * size.tokens * size.width * 4 * size.width
    return Case(named("linear_gelu", size, *x.shape), calls, flops)


def _solver(size: Size) -> Case:
    from consisid_kernels import ops

    latents, previous, draw = (size.normal(*size.latents, dtype=torch.float32) for _ in range(3))
    velocity = size.normal(size.branches, *size.latents[1:], dtype=torch.float32)
    table, step = torch.rand(50, 8, device=size.device), _modulation(size)[1]
    arguments: tuple[Any, ...] = (velocity, latents, previous, draw, table, step)
    calls: dict[str, Call] = {"ours": lambda: ops.guided_step(*arguments), **_plain("guided_step", *arguments)}
    least = traffic(velocity, latents, previous, draw, latents, latents)
    return Case(named("guided_step", size, *latents.shape), calls, traffic=least)


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
    # The statistics are of all of x, so that it is read twice.
    return Case(named("spatial_norm_silu", size, *x.shape), calls, traffic=traffic(x, x, x, past, past, *fields))
