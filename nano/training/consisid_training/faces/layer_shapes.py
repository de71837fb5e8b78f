"""Declares face networks layer by layer under the official tensor names, from which the runtime builds them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from consisid_nano.untrained.layers import save_tensors


class LayerShapes:
    """Collects uninitialised tensors; the runtime's networks take their layers from the names and shapes."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}

    def conv(self, name: str, inputs: int, outputs: int, kernel: int = 1, *, bias: bool = False) -> None:
        self.tensors[f"{name}.weight"] = torch.empty(outputs, inputs, kernel, kernel)
        if bias:
            self.tensors[f"{name}.bias"] = torch.empty(outputs)

    def norm(self, name: str, width: int) -> None:
        self.tensors[f"{name}.weight"] = torch.empty(width)

    def conv_norm(self, conv: str, norm: str, inputs: int, outputs: int, kernel: int = 1) -> None:
        self.conv(conv, inputs, outputs, kernel)
        self.norm(norm, outputs)


def save_half(tensors: Mapping[str, Tensor], path: Path, prefix: str = "") -> None:
    """Write a state dict with floats as float16, deterministically; the runtime's loaders convert them to float32.

    Raises `OverflowError`, naming the tensor, if a value exceeds float16's range.
    """
    halves = {}
    for name, tensor in tensors.items():
        narrow = tensor.half() if tensor.is_floating_point() else tensor
        if not narrow.isfinite().all():
            raise OverflowError(f"{name} reaches {tensor.abs().max():.3g}, float16 ends at 65504")
        halves[prefix + name] = narrow.contiguous()
    save_tensors(halves, path)
