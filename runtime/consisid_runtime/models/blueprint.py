"""Builds networks in the sizes that a checkpoint's tensors have, and fills them with those tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from consisid_runtime.errors import CheckpointInvalid

Network = TypeVar("Network", bound=nn.Module)
_LISTED = 5


class Blueprint:
    """A checkpoint's tensors seen from one place in the tree of modules; makes layers of the sizes found there.

    The layers' values are not initialised; `fill` sets them. Raises `CheckpointInvalid` naming the tensor
    that is missing or has the wrong rank.
    """

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str = "") -> None:
        self._tensors = tensors
        self._prefix = prefix

    def __truediv__(self, name: str | int) -> Blueprint:
        return Blueprint(self._tensors, f"{self._prefix}{name}.")

    def __contains__(self, name: str) -> bool:
        """Whether a tensor or a module of this name is here."""
        full = self._prefix + name
        return full in self._tensors or any(key.startswith(f"{full}.") for key in self._tensors)

    def shape(self, name: str, rank: int) -> tuple[int, ...]:
        full = self._prefix + name
        if full not in self._tensors:
            raise CheckpointInvalid(f"tensor {full} is missing")
        shape = tuple(self._tensors[full].shape)
        if len(shape) != rank:
            raise CheckpointInvalid(f"tensor {full} has shape {list(shape)}, expected {rank} dimensions")
        return shape

    def count(self) -> int:
        """How many numbered modules (0, 1, …) are here."""
        number = 0
        while str(number) in self:
            number += 1
        return number

    def conv(self, name: str, stride: int = 1, padding: int | None = None, *, bias: bool = False) -> nn.Conv2d:
        """A square convolution; without `padding` it keeps the size at stride 1."""
        out, channels, kernel, _ = self.shape(f"{name}.weight", 4)
        padding = kernel // 2 if padding is None else padding
        return nn.Conv2d(channels, out, kernel, stride, padding, bias=bias)

    def batch_norm(self, name: str) -> nn.BatchNorm2d:
        return nn.BatchNorm2d(self.shape(f"{name}.weight", 1)[0])

    def layer_norm(self, name: str, eps: float) -> nn.LayerNorm:
        return nn.LayerNorm(self.shape(f"{name}.weight", 1)[0], eps=eps)

    def linear(self, name: str, *, bias: bool = True) -> nn.Linear:
        out, features = self.shape(f"{name}.weight", 2)
        return nn.Linear(features, out, bias)

    def parameter(self, name: str, rank: int) -> nn.Parameter:
        return nn.Parameter(torch.empty(self.shape(name, rank)))


def dtype_of(network: nn.Module) -> torch.dtype:
    """The dtype of a network's weights, in which it computes."""
    return next(network.parameters()).dtype


def at_least_float32(x: Tensor) -> Tensor:
    """x in float32, unless it is in float64, in which a network is run to tell how exact float32 is."""
    return x if x.dtype == torch.float64 else x.float()


def fill(network: Network, tensors: Mapping[str, Tensor], dtype: torch.dtype | None = torch.float32) -> Network:
    """Give `network` the checkpoint's tensors and make it ready for inference.

    Args:
        dtype: of every floating-point tensor; None keeps each as it is and shares its memory.

    Raises `CheckpointInvalid` naming tensors that are missing, left over, no floating-point numbers, or of
    another shape than the rest implies.
    """
    own = network.state_dict()
    problems = [f"{name} is missing" for name in own if name not in tensors]
    problems += [f"{name} is not part of this network" for name in tensors if name not in own]
    problems += [
        f"{name} has shape {list(tensors[name].shape)}, expected {list(own[name].shape)}"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    problems += [
        f"{name} has the dtype {str(tensors[name].dtype).removeprefix('torch.')}, expected floating-point numbers"
        for name in own
        if name in tensors and own[name].is_floating_point() and not tensors[name].is_floating_point()
    ]
    if problems:
        rest = f"; and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
        raise CheckpointInvalid(f"{type(network).__name__}: {'; '.join(problems[:_LISTED])}{rest}")
    typed = {name: t.to(dtype or t.dtype) if t.is_floating_point() else t for name, t in tensors.items()}
    network.load_state_dict(typed, assign=True)
    return network.eval().requires_grad_(False)
