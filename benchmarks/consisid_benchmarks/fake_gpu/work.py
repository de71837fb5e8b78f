"""The arithmetic of our kernels' launches, which PyTorch's counter of FLOPs does not know."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

Arguments = Mapping[str, Any]


def _attention(given: Arguments) -> int:
    """Two products: q [..., M, D] with k [..., N, D], either of which may have one branch for all."""
    known = tensors(given)
    q, k = (known.get(name, known.get(f"{name}_ptr")) for name in "qk")
    assert q is not None and k is not None
    heads = max(math.prod(q.shape[:-2]), math.prod(k.shape[:-2]))
    return 4 * heads * q.shape[-2] * k.shape[-2] * q.shape[-1]


def _face_attention(given: Arguments) -> int:
    """Video tokens of x [B, L + N, C] with keys [C, slots], and their weights with values [slots, C]."""
    branches, tokens, channels = given["x"].shape
    slots = given["values"].shape[-2]
    return int(4 * branches * (tokens - given["text"]) * channels * slots)


def _linear(given: Arguments) -> int:
    """x [rows, C] with weight [columns, C]."""
    (rows, channels), (columns, _) = given["x"].shape, given["weight"].shape
    return int(2 * rows * channels * columns)


def _none(given: Arguments) -> int:
    """Element-wise."""
    return 0


FLOPS: dict[str, Callable[[Arguments], int]] = {
    "face": _face_attention,
    "ffn": _linear,
    "joint": _attention,
    "joint_hopper": _attention,
    "merge": _none,
    "modulation": _none,
    "qkv": _none,
    "quantise": _none,
    "vae": _none,
}
"""Module of `consisid_kernels` → FLOPs of one launch, from its arguments by name."""


def flops(module: str, given: Arguments) -> int:
    """Raises `KeyError` for a module without an entry: an unknown kernel must not count as free."""
    if module not in FLOPS:
        raise KeyError(f"the arithmetic of consisid_kernels' module {module!r} is not known; add it to {__name__}")
    return FLOPS[module](given)


def tensors(given: Arguments) -> dict[str, Tensor]:
    """The arguments that are tensors, and the tensors under tensor descriptors."""
    bases = {name: getattr(value, "base", value) for name, value in given.items() if value is not None}
    return {name: base for name, base in bases.items() if isinstance(base, Tensor)}
