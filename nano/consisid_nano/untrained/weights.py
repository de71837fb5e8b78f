"""Draws the untrained checkpoint's random weights from the name and shape of each tensor."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def random_weights(network: nn.Module, generator: torch.Generator) -> dict[str, Tensor]:
    """Draw every tensor of the network's state dict, in the order of their names.

    Matrices and kernels preserve variance. Scales of norms differ from 1 and biases from 0, so that a wrongly connected
    norm or bias changes the result.
    """
    drawn = {}
    for name, tensor in sorted(network.state_dict().items()):
        noise = torch.randn(tensor.shape, generator=generator)
        if tensor.ndim >= 2:
            drawn[name] = noise / math.sqrt(tensor[0].numel())
        elif name.endswith("weight"):
            drawn[name] = 1 + 0.1 * noise
        else:
            drawn[name] = 0.05 * noise
    return drawn
