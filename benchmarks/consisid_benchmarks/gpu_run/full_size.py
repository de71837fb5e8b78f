"""Weights and inputs of ConsisID-preview's size, made on the device: nothing of it is on a disk."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from consisid_benchmarks.fake_gpu.full_size import CONFIGS, FullSize
from consisid_benchmarks.fake_gpu.stages import MakeInput
from consisid_benchmarks.suites.full_checkpoint import distribution


def bundle(device: str, configs: Mapping[str, Mapping[str, Any]] = CONFIGS, *, float8: bool = False) -> FullSize:
    """Every network with random weights, which depend on the names and shapes of the tensors alone.

    Args:
        float8: as in `FullSize`.
    """
    generator = torch.Generator(device)

    def weight(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        if not dtype.is_floating_point:
            return torch.ones(shape, dtype=dtype, device=device)
        generator.manual_seed(zlib.crc32(name.encode()))
        mean, spread = distribution(name, shape)
        return torch.empty(shape, dtype=dtype, device=device).normal_(mean, spread, generator=generator)

    return FullSize(weight, configs=configs, device=device, float8=float8)


def inputs(device: str) -> MakeInput:
    """Seeded normal numbers, float32."""
    generator = torch.Generator(device).manual_seed(0)
    return lambda *shape: torch.randn(shape, generator=generator, device=device)
