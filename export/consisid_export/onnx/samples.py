"""Makes inputs from a signature, for tracing and for comparing an exported module with its original."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from consisid_export.onnx.sample_portrait import drawn_portrait
from consisid_runtime.signatures import Port, Signature

TRACE_SIZES = {
    "branches": 2,
    "images": 2,
    "frames": 3,
    "rows": 4,
    "columns": 5,
    "latent_height": 6,
    "latent_width": 10,
    "steps": 3,
    "image_height": 192,
    "image_width": 160,
}
"""Sizes that graphs are traced at. None is 1, which the tracer would treat as a constant."""

CHECK_SIZES = (
    {**TRACE_SIZES},
    {
        "branches": 1,
        "images": 1,
        "frames": 5,
        "rows": 6,
        "columns": 3,
        "latent_height": 4,
        "latent_width": 8,
        "steps": 1,
        "image_height": 131,
        "image_width": 250,
    },
)
"""Sizes that exported modules are compared at: the traced ones, and others to detect an axis fixed by the tracer."""

_FLOATS = {"FP32": torch.float32, "FP16": torch.float16, "BF16": torch.bfloat16}
_INTEGERS_BELOW = 32  # token ids and timesteps that every checkpoint has
_PIXEL_SPREAD = {"aligner": 60.0}  # its pixels are not normalised, only centred


def sample_inputs(signature: Signature, sizes: Mapping[str, int], *, seed: int = 0) -> dict[str, Tensor]:
    """Seeded random inputs for every port, dynamic symbols taken from `sizes`.

    Floats are normal, integers below 32. Images are drawn portraits with a little noise: face networks return
    constants for white noise, whose comparison would detect nothing.
    """
    generator = torch.Generator().manual_seed(seed)
    samples = {port.name: _sample(port.bind(sizes), generator) for port in signature.inputs}
    if "image" in samples:
        samples["image"] = _portraits(samples["image"], seed) * _PIXEL_SPREAD.get(signature.name, 1.0)
    return samples


def seeded_samples(signature: Signature) -> list[dict[str, Tensor]]:
    """Inputs at all `CHECK_SIZES`."""
    return [sample_inputs(signature, sizes, seed=seed) for seed, sizes in enumerate(CHECK_SIZES, start=1)]


def _sample(port: Port, generator: torch.Generator) -> Tensor:
    shape = [size for size in port.shape if isinstance(size, int)]
    if len(shape) != len(port.shape):
        raise ValueError(f"{port.name} has unbound sizes: {port.shape}")
    if port.dtype == "INT64":
        return torch.randint(_INTEGERS_BELOW, shape, generator=generator)
    return torch.randn(shape, generator=generator).to(_FLOATS[port.dtype])


def _portraits(noise: Tensor, seed: int) -> Tensor:
    """noise [n, 3, H, W] → drawn faces of that size, about normalised."""
    drawn = torch.from_numpy(np.stack([drawn_portrait(seed + i) for i in range(len(noise))]))
    images = drawn.permute(0, 3, 1, 2).float() / 64 - 2
    return F.interpolate(images, size=noise.shape[-2:], mode="bilinear") + 0.05 * noise
