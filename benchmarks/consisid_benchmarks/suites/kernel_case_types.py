"""The vocabulary of suite `kernels`: the size of a model and video, and a case, which is one kernel at such a size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Call = Callable[[], Tensor | tuple[Tensor, ...]]


@dataclass(frozen=True, slots=True)
class Size:
    """The size of a model and a video. The default is ConsisID-preview at 49 frames of 480×720, with guidance."""

    branches: int = 2
    heads: int = 48
    head_dim: int = 64
    text: int = 226
    video: int = 17_550
    face_slots: int = 512
    face_heads: int = 16
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
    """One kernel at one size.

    Attributes:
        name: kernel, sizes and dtype.
        calls: variant → the call that is timed; "ours" first. Their results agree within rounding.
        flops: minimum number of operations in matrix products.
        traffic: minimum number of bytes read and written.
        tolerance: largest accepted relative L2 distance of a variant's result from ours.
    """

    name: str
    calls: dict[str, Call]
    flops: int = 0
    traffic: int = 0
    tolerance: float = 0.02


def case_name(kernel: str, size: Size, *numbers: int) -> str:
    """The name of a case."""
    return f"{kernel}/{'x'.join(map(str, numbers))}-{str(size.dtype).removeprefix('torch.')}"


def total_bytes(*tensors: Tensor) -> int:
    """Bytes of all tensors together."""
    return sum(tensor.nbytes for tensor in tensors)
