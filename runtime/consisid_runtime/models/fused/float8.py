"""Linear layers in E4M3: weights with a scale for each output channel, inputs with one for each row as it comes.

No calibration is needed, and nothing saturates: the largest number of a row becomes E4M3's largest.
"""

from __future__ import annotations

from types import ModuleType
from typing import cast

import torch
from torch import Tensor, nn


class Float8Linear(nn.Module):
    """y [..., out] of x [..., in], in the dtype that the layer's weight had.

    Args:
        linear: its weight [out, in] is emptied.
        operators: `consisid_kernels.reference`, or a module of kernels with the same names and arguments.
    """

    weight: Tensor
    weight_scale: Tensor

    def __init__(self, linear: nn.Linear, operators: ModuleType) -> None:
        super().__init__()
        self._ops, self._dtype = operators, linear.weight.dtype
        weight, scale = operators.quantise_rows(linear.weight)
        self.register_buffer("weight", weight)
        self.register_buffer("weight_scale", scale.flatten())
        self.bias = linear.bias
        linear.weight = nn.Parameter(torch.empty(0), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.multiply(*self._ops.quantise_rows(x))

    def multiply(self, x: Tensor, scale: Tensor) -> Tensor:
        """The layer of what `quantise_rows` made of its input: E4M3 [..., in], float32 [..., 1]."""
        return cast(Tensor, self._ops.linear_float8(x, scale, self.weight, self.weight_scale, self.bias, self._dtype))
