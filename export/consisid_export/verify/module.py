"""Compares an exported module with its PyTorch original, and refuses it above the limit."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from consisid_export.onnx.samples import seeded_samples
from consisid_runtime.engines import Engine
from consisid_runtime.errors import ExportRefused
from consisid_runtime.signatures import Signature

FP32_LIMIT = 1e-5
"""The least limit of a relative L2 error, per output. Two orders of adding up the same numbers may differ by many times
PyTorch's own error where that is a few units in the last place; a wrong wire anywhere shows as 1e-3 or more."""

FP32_CEILING = 5e-4
"""The largest limit of an fp32 graph, whatever PyTorch's own error is: a wrong wire must not pass for rounding."""

OWN_ERROR_FACTOR = 2
"""A graph's limit in units of the error of PyTorch itself in that precision."""


@dataclass(frozen=True, slots=True)
class Check:
    """The error closest to its limit over all outputs and sizes, that limit, and where it comes from."""

    error: float
    limit: float
    reason: str


def fp32_limit(own_error: float, factor: float) -> tuple[float, str]:
    """The limit in fp32, and its reason, where PyTorch's own float32 is at `own_error` from float64."""
    limit = factor * own_error
    if limit > FP32_CEILING:
        return FP32_CEILING, "the largest limit of fp32"
    return least_limit(limit, f"{factor:g} × the distance of PyTorch's own float32 from float64")


def least_limit(limit: float, reason: str) -> tuple[float, str]:
    """`limit` and its reason, or the least limit and that."""
    return (limit, reason) if limit > FP32_LIMIT else (FP32_LIMIT, "the least limit")


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
    exact: Callable[[], nn.Module] | None = None,
) -> Check:
    """Run both on the same inputs. Raises `ExportRefused` above the limit; every output and sample has its own.

    Args:
        network: the original, in float32.
        rounded: the original in the artifact's narrower precision. The limit is then twice the distance between the two
            originals.
        samples: inputs; by default seeded ones, at the traced sizes and at others.
        exact: makes the original in float64. Called for an fp32 artifact that is further than `FP32_LIMIT` from
            `network`: both are then compared with it, and the limit is twice `network`'s own distance. Most graphs are
            nearer, so that its time and memory, twice those of `network`, are seldom needed.
    """
    worst = Check(0.0, *least_limit(0.0, ""))
    truth = _Exact(exact) if exact and not rounded else None
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
            error = relative_error(found[port.name], reference)
            limit, reason = least_limit(OWN_ERROR_FACTOR * own[i] if own else 0.0, _NARROW)
            if truth and not error <= limit:
                true = truth(inputs)[i]
                error = relative_error(found[port.name], true)
                limit, reason = fp32_limit(relative_error(reference, true), OWN_ERROR_FACTOR)
            if not error <= limit:
                raise ExportRefused(
                    f"{signature.name}: {port.name} {list(reference.shape)} differs from PyTorch by {error:.1e} "
                    f"(relative L2); the limit is {limit:.2g} ({reason})"
                )
            worst = max(worst, Check(error, limit, reason), key=lambda result: result.error / result.limit)
    return worst


_NARROW = f"{OWN_ERROR_FACTOR} × the distance of PyTorch's own run in this precision from float32"


class _Exact:
    """Outputs in float64 of a network that is made when it is first needed; those for the last inputs are kept."""

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        self._network = functools.cache(make)
        self._inputs: Mapping[str, Tensor] | None = None
        self._outputs: tuple[Tensor, ...] = ()

    def __call__(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        if inputs is not self._inputs:
            wide = {name: value.double() if value.is_floating_point() else value for name, value in inputs.items()}
            self._inputs, self._outputs = inputs, _outputs(self._network(), wide)
        return self._outputs


def _outputs(network: nn.Module, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    outputs = network(*inputs.values())
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
