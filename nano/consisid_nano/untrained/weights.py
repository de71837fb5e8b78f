"""Random weights for the nano checkpoint, by the name and shape of every tensor alone."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def random_weights(network: nn.Module, generator: torch.Generator) -> dict[str, Tensor]:
    """A value for every tensor of the network's state dict, drawn in the order of their names.

    Matrices and kernels keep their inputs' variance; scales of norms lie around 1 and biases around 0 without being it,
    so that a norm or a bias wired wrongly changes the result.
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
