"""Muon (Jordan 2024) as in `torch.optim.Muon`, but with matrix products in float32 on CPUs without bfloat16.

PyTorch's always rounds to bfloat16, which such a CPU emulates slowly (`device.autocast`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from consisid_training.loop.device import autocast

_A, _B, _C = 3.4445, -4.775, 2.0315
_STEPS = 5
_MOMENTUM = 0.95


class Muon(Optimizer):
    """Optimises matrices [m, n]; updates are scaled to the size of AdamW's (Liu et al. 2025)."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Update all parameters; matrices of equal shape are batched."""
        assert closure is None
        for group in self.param_groups:
            alike: dict[torch.Size, list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike.setdefault(parameter.shape, []).append(parameter)
            for shape, parameters in alike.items():
                updates = orthogonal(torch.stack([self._momentum(parameter) for parameter in parameters]))
                for parameter, update in zip(parameters, updates, strict=True):
                    parameter.sub_(update, alpha=group["lr"] * 0.2 * max(shape) ** 0.5)

    def _momentum(self, parameter: nn.Parameter) -> Tensor:
        assert parameter.grad is not None
        state = self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter.grad)
        state["momentum_buffer"].lerp_(parameter.grad, 1 - _MOMENTUM)
        return parameter.grad.lerp(state["momentum_buffer"], _MOMENTUM)


def orthogonal(matrices: Tensor) -> Tensor:
    """Approximate the nearest orthogonal matrix to each of [N, m, n], by five Newton-Schulz steps."""
    x = matrices.mT if matrices.shape[-2] > matrices.shape[-1] else matrices
    with autocast(matrices.device):
        x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
        for _ in range(_STEPS):
            gram = x @ x.mT
            x = _A * x + (_B * gram + _C * gram @ gram) @ x
    return cast(Tensor, x.mT if matrices.shape[-2] > matrices.shape[-1] else x).to(matrices.dtype)
