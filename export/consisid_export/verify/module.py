"""Compares an exported module with its PyTorch original, and refuses it above the limit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from consisid_export.onnx.samples import seeded_samples
from consisid_runtime.engines import Engine
from consisid_runtime.errors import ExportRefused
from consisid_runtime.signatures import Signature

FP32_LIMIT = 1e-5
"""Largest accepted relative L2 error of an fp32 graph, per output. A wrong wire anywhere shows as 1e-3 or more."""


@dataclass(frozen=True, slots=True)
class Check:
    """The error closest to its limit over all outputs and sizes, and that limit."""

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


def require_finite(own: Iterable[float], subject: str) -> None:
    """Raises `ExportRefused` where PyTorch's own error is infinite: there is nothing to compare with."""
    if not all(math.isfinite(error) for error in own):
        raise ExportRefused(
            f"{subject}: in this precision PyTorch itself gives values that are not finite, so the weights lead out of "
            "its range; bf16 and fp32 have a larger one"
        )


@torch.no_grad()
def check(
    network: nn.Module,
    engine: Engine,
    signature: Signature,
    rounded: nn.Module | None = None,
    samples: Iterable[Mapping[str, Tensor]] | None = None,
) -> Check:
    """Run both on the same inputs. Raises `ExportRefused` above the limit.

    Args:
        network: the original, in float32.
        rounded: the original in the artifact's narrower precision. The limit is then not `FP32_LIMIT` but twice the
            distance between the two originals, separately for every output and sample.
        samples: inputs; by default seeded ones, at the traced sizes and at others.
    """
    worst = Check(0.0, FP32_LIMIT)
    for inputs in samples or seeded_samples(signature):
        wanted = _outputs(network, inputs)
        own = [relative_error(*pair) for pair in zip(_outputs(rounded, inputs), wanted, strict=True)] if rounded else []
        require_finite(own, signature.name)
        found = engine(inputs)
        for i, (port, reference) in enumerate(zip(signature.outputs, wanted, strict=True)):
            if reference.numel() > 1 and bool((reference == reference.flatten()[0]).all()):
                raise ExportRefused(
                    f"{signature.name}: PyTorch answers every sample with a constant {port.name}, so that a comparison "
                    "shows nothing; the checkpoint's weights for it are not usable"
                )
            limit = max(FP32_LIMIT, 2 * own[i]) if own else FP32_LIMIT
            error = relative_error(found[port.name], reference)
            if not error <= limit:
                raise ExportRefused(
                    f"{signature.name}: {port.name} {list(reference.shape)} differs from PyTorch by {error:.1e} "
                    f"(relative L2); the limit is {limit:.2g}"
                )
            worst = max(worst, Check(error, limit), key=lambda result: result.error / result.limit)
    return worst


def _outputs(network: nn.Module, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    outputs = network(*inputs.values())
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
