"""Things that go wrong when a model is made faster, done on purpose: the gate must see each of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from consisid_export.onnx.fp8 import quantised_layers
from consisid_runtime.engines import Engine
from consisid_runtime.engines.torch import TorchEngine
from consisid_runtime.models import networks
from consisid_runtime.signatures import Signature
from consisid_runtime.stages.denoise import Conditions


def permuted_tokens(tokens: Tensor) -> Tensor:
    """Face tokens [1, Q, D] in another order: no damage, a sum over them is the same in any order up to rounding."""
    return tokens[:, _permutation(tokens.shape[1])]


def shuffled_channels(tokens: Tensor) -> Tensor:
    """Face tokens [1, Q, D] whose channels changed places, the same way in every token: same values, other meaning."""
    return tokens[..., _permutation(tokens.shape[2])]


def without_injection(share: float) -> Callable[[Conditions], Conditions]:
    """Drops one of the layers that inject face tokens: the first (share 0), the last (1) or between."""

    def drop(conditions: Conditions) -> Conditions:
        values = conditions.face_values.clone()
        values[round(share * (len(values) - 1))] = 0
        return replace(conditions, face_values=values)

    return drop


def rounded_step(checkpoint: networks.WeightReader, signature: Signature, bits: int | None) -> Engine:
    """The denoiser's step in PyTorch, float32, on the CPU.

    Args:
        checkpoint: what the bundle was made from.
        bits: of the weights of the blocks' linear layers, each output channel with a scale of its own, rounded to the
            nearest of 2^bits − 1 symmetric levels; None leaves them as they are.
    """
    network = networks.load("dit_step", checkpoint, torch.float32)
    if bits is not None:
        for layer in quantised_layers(network).values():
            layer.weight = torch.nn.Parameter(rounded(layer.weight, bits), requires_grad=False)
    return cast(Engine, TorchEngine(network, signature, device="cpu"))


def rounded(weight: Tensor, bits: int) -> Tensor:
    """weight [out, in] to the nearest of 2^bits − 1 levels between ± each row's largest value."""
    most = 2 ** (bits - 1) - 1
    scale: Tensor = weight.detach().abs().amax(dim=1, keepdim=True).clamp(min=torch.finfo(weight.dtype).tiny) / most
    levels: Tensor = (weight.detach() / scale).round()
    return levels * scale


def _permutation(size: int) -> Tensor:
    """Without a fixed point but by chance; always the same."""
    return torch.randperm(size, generator=torch.Generator().manual_seed(size))
