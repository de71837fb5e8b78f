"""Deliberate damage of the kinds that optimising a model can cause; the gate must detect each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional

from consisid_export.onnx.fp8 import quantised_layers
from consisid_kernels import reference
from consisid_runtime.engines import Engine
from consisid_runtime.engines.torch import TorchEngine
from consisid_runtime.models import networks
from consisid_runtime.models.dit import Step
from consisid_runtime.models.fused.step import FusedStep
from consisid_runtime.plan import Plan
from consisid_runtime.signatures import Signature
from consisid_runtime.stages.denoise import Conditions
from consisid_runtime.tiers import TierSet

SATURATION = 4.0
"""Of known damage: scales made for E4M3 numbers up to 112."""


def permuted_tokens(tokens: Tensor) -> Tensor:
    """Face tokens [1, Q, D] in another order: a control, since attention over them is invariant up to rounding."""
    return tokens[:, _permutation(tokens.shape[1])]


def shuffled_channels(tokens: Tensor) -> Tensor:
    """Face tokens [1, Q, D] with their channels permuted, the same way in every token."""
    return tokens[..., _permutation(tokens.shape[2])]


def without_injection(share: float) -> Callable[[Conditions], Conditions]:
    """Zeroes the face values of one injection layer: the first (share 0), the last (1) or one between."""

    def drop(conditions: Conditions) -> Conditions:
        values = conditions.face_values.clone()
        values[round(share * (len(values) - 1))] = 0
        return replace(conditions, face_values=values)

    return drop


def skipping(*steps: int) -> Callable[[Plan, TierSet], Plan]:
    """Skips these steps, whatever the checkpoint's curve says of them."""
    return lambda request, _: replace(
        request, computed=tuple(computed and i not in steps for i, computed in enumerate(request.computed))
    )


def skipping_where_it_matters(request: Plan, _: TierSet) -> Plan:
    """As many steps as planned, in the reverse order: skips where the clean latents move most."""
    return replace(request, computed=request.computed[::-1])


def rounded_step(checkpoint: networks.WeightReader, signature: Signature, bits: int | None) -> Engine:
    """The denoiser's step in PyTorch, float32, on the CPU.

    Args:
        checkpoint: whose weights are loaded.
        signature: of `dit_step`.
        bits: the weights of the blocks' linear layers are rounded to 2^bits − 1 symmetric levels, with one scale per
            output channel; None leaves them unchanged.
    """
    network = networks.load("dit_step", checkpoint, torch.float32)
    if bits is not None:
        for layer in quantised_layers(network).values():
            layer.weight = torch.nn.Parameter(rounded(layer.weight, bits), requires_grad=False)
    return cast(Engine, TorchEngine(network, signature, device="cpu"))


def float8_step(checkpoint: networks.WeightReader, signature: Signature, saturation: float = 1.0) -> Engine:
    """The denoiser's step with linear layers in E4M3, in float32 otherwise, as the torch engine emulates it on a CPU.

    Args:
        checkpoint: whose weights are loaded.
        signature: of `dit_step`.
        saturation: by how much every scale is too small: what is above 1 / `saturation` of a row's largest magnitude is
            cut off.
    """
    network = networks.load("dit_step", checkpoint, torch.float32)
    if saturation == 1:
        return cast(Engine, TorchEngine(network, signature, device="cpu", float8=True))

    def saturating(x: Tensor, gelu: bool = False) -> tuple[Tensor, Tensor]:
        wide = functional.gelu(x, approximate="tanh") if gelu else x
        scale = wide.abs().amax(-1, keepdim=True) / (reference.FLOAT8_LARGEST * saturation)
        most = reference.FLOAT8_LARGEST
        return (wide / scale).clamp(-most, most).to(reference.FLOAT8), scale

    operators = ModuleType("saturating")
    vars(operators).update(vars(reference), quantise_rows=saturating)
    fused = FusedStep(cast(Step, network), operators, float8=True)
    return cast(Engine, TorchEngine(fused, signature, device="cpu"))


def rounded(weight: Tensor, bits: int) -> Tensor:
    """Round weight [out, in] to the nearest of 2^bits − 1 levels between ± the largest magnitude of each row."""
    most = 2 ** (bits - 1) - 1
    scale: Tensor = weight.detach().abs().amax(dim=1, keepdim=True).clamp(min=torch.finfo(weight.dtype).tiny) / most
    levels: Tensor = (weight.detach() / scale).round()
    return levels * scale


def _permutation(size: int) -> Tensor:
    """A pseudo-random permutation that depends on `size` only."""
    return torch.randperm(size, generator=torch.Generator().manual_seed(size))
