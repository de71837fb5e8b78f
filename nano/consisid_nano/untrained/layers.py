"""Collects hand-made weights layer by layer and writes them as a state dict."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_BATCH_NORM_EPS = 1e-5

Floats = npt.NDArray[np.float64]


class Layers:
    """Collects tensors by name, with `prefix` before each."""

    def __init__(self, prefix: str = "") -> None:
        self.tensors: dict[str, Tensor] = {}
        self._prefix = prefix

    def put(self, name: str, value: npt.ArrayLike) -> None:
        self.tensors[self._prefix + name] = torch.from_numpy(np.ascontiguousarray(value, np.float32))

    def conv(self, conv: str, norm: str, weight: npt.ArrayLike, bias: npt.ArrayLike = 0.0) -> None:
        """Put a convolution without bias, and a batch normalisation after it that only adds `bias`.

        `weight` is [out, in, k, k], or [out, in] for 1×1.
        """
        kernel = _square(weight)
        self.put(f"{conv}.weight", kernel)
        self.norm(norm, np.broadcast_to(bias, len(kernel)))

    def norm(self, name: str, bias: npt.ArrayLike) -> None:
        """Put a batch normalisation that only adds `bias` [channels]."""
        offsets = np.asarray(bias, np.float64)
        self.put(f"{name}.weight", np.ones_like(offsets))
        self.put(f"{name}.bias", offsets)
        self.put(f"{name}.running_mean", np.zeros_like(offsets))
        self.put(f"{name}.running_var", np.full_like(offsets, 1 - _BATCH_NORM_EPS))
        self.tensors[f"{self._prefix}{name}.num_batches_tracked"] = torch.tensor(0)

    def head(self, name: str, weight: npt.ArrayLike, bias: npt.ArrayLike) -> None:
        """Put a convolution with a bias."""
        self.put(f"{name}.weight", _square(weight))
        self.put(f"{name}.bias", bias)

    def save(self, path: Path) -> None:
        save_tensors(self.tensors, path)


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write a file for `torch.load(weights_only=True)`; equal tensors give equal bytes under any file name."""
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    path.write_bytes(buffer.getvalue())


def _square(weight: npt.ArrayLike) -> Floats:
    kernel = np.asarray(weight, np.float64)
    return kernel.reshape(*kernel.shape, 1, 1) if kernel.ndim == 2 else kernel
