"""How kernels are compiled: the GPU architectures, and the variants of a kernel that are compiled for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MATRIX = {80: "mma.sync", 89: "mma.sync", 90: "wgmma.mma_async", 100: "tcgen05.mma", 120: "mma.sync"}
"""Architecture → the PTX instruction of its tensor cores."""


@dataclass(frozen=True)
class Variant:
    """A kernel with the types, constants and options that it is compiled with.

    Attributes:
        name: unique, such as "joint_attention/bf16-d64".
        kernel: the decorated function.
        signature: argument → Triton's type ("*bf16", "i32", "constexpr", …), in order.
        constants: value of every constexpr.
        architectures: keys of `MATRIX` that it is compiled for.
        warps, stages: as in a launch.
        aligned: arguments that are multiples of 16: pointers in bytes, integers.
        matrix: whether it must use tensor cores.
        options: further compiler options, such as "maxnreg".
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
