"""Compares an exported module with its PyTorch original, and refuses it above the limit."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from consisid_export.samples import CHECK_SIZES, sample_inputs
from consisid_runtime.engines import Engine
from consisid_runtime.errors import ExportRefused
from consisid_runtime.signatures import Signature

FP32_LIMIT = 1e-5
"""Largest accepted relative L2 error of an fp32 graph, per output. A wrong wire anywhere shows as 1e-3 or more."""


@dataclass(frozen=True, slots=True)
class Check:
    """The largest error found over all outputs and sizes, and the limit it was held to."""

    error: float
    limit: float


def relative_error(found: Tensor, wanted: Tensor) -> float:
    """‖found − wanted‖₂ / ‖wanted‖₂ in float64; for integers the share that differs; infinite if not finite."""
    if found.shape != wanted.shape:
        return float("inf")
    if not wanted.is_floating_point():
        return float((found != wanted).double().mean())
    difference = (found.double() - wanted.double()).norm()
    scale = wanted.double().norm()
    error = float(difference / scale) if scale > 0 else float(difference)
    return error if torch.isfinite(difference) else float("inf")


@torch.no_grad()
def check(network: nn.Module, engine: Engine, signature: Signature) -> Check:
    """Run both on the same seeded inputs, at the traced sizes and at others. Raises `ExportRefused` above the limit."""
    worst = 0.0
    for seed, sizes in enumerate(CHECK_SIZES):
        inputs = sample_inputs(signature, sizes, seed=seed + 1)
        wanted = network(*inputs.values())
        wanted = (wanted,) if isinstance(wanted, Tensor) else wanted
        found = engine(inputs)
        for port, reference in zip(signature.outputs, wanted, strict=True):
            if reference.numel() > 1 and bool((reference == reference.flatten()[0]).all()):
                raise ExportRefused(
                    f"{signature.name}: PyTorch answers every sample with a constant {port.name}, so that a comparison "
                    "shows nothing; the checkpoint's weights for it are not usable"
                )
            error = relative_error(found[port.name], reference)
            if not error <= FP32_LIMIT:
                raise ExportRefused(
                    f"{signature.name}: {port.name} differs from PyTorch by {error:.1e} (relative L2) with sizes "
                    f"{sizes}; the limit is {FP32_LIMIT:g}"
                )
            worst = max(worst, error)
    return Check(worst, FP32_LIMIT)
