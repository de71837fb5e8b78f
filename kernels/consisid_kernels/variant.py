"""How kernels are compiled: the GPU architectures, and the variants of a kernel that are compiled for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MATRIX = {80: "mma.sync", 89: "mma.sync", 90: "wgmma.mma_async", 100: "tcgen05.mma", 120: "mma.sync"}
"""Architecture → the PTX instruction that its tensor cores are fed by."""


@dataclass(frozen=True)
class Variant:
    """One way a kernel is compiled.

    Attributes:
        name: unique, such as "joint_attention/bf16-d64".
        kernel: the decorated function.
        signature: argument → Triton's type ("*bf16", "i32", "constexpr", …), in order.
        constants: value of every constexpr.
        architectures: what it is meant for: 80, 89, 90, 100, 120.
        warps, stages: as in a launch.
        aligned: arguments that are multiples of 16: pointers, and strides in elements.
        matrix: whether it must run on tensor cores.
    """

    name: str
    kernel: Any
    signature: Mapping[str, str]
    constants: Mapping[str, Any]
    architectures: tuple[int, ...]
    warps: int = 4
    stages: int = 2
    aligned: tuple[str, ...] = ()
    matrix: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
