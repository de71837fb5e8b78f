"""Checks arguments, selects the tile and sets the current device, for the wrappers that launch kernels."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from consisid_kernels.variant import MATRIX

TILES = Path(__file__).with_name("tiles")
"""A table for each kernel, KERNEL.json: architecture or "default" → case → tile. Written by `make tune`."""

DTYPES = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32"}
"""Supported dtypes, with their names in tile tables and variants."""


def require(
    name: str, tensor: Tensor, shape: Sequence[int | None], dtypes: Collection[torch.dtype], device: torch.device
) -> None:
    """Raises ValueError unless `tensor` is contiguous and has this shape (None: any size), dtype and device."""
    sizes = len(shape) == tensor.dim() and all(
        wanted in (None, size) for wanted, size in zip(shape, tensor.shape, strict=True)
    )
    if sizes and tensor.dtype in dtypes and tensor.device == device and tensor.is_contiguous():
        return
    contiguous = "" if tensor.is_contiguous() else "non-contiguous "
    wanted = ", ".join("any" if size is None else str(size) for size in shape)
    raise ValueError(
        f"{name} is {contiguous}{tensor.dtype} {list(tensor.shape)} on {tensor.device}; wanted contiguous "
        f"{' or '.join(str(dtype) for dtype in dtypes)} [{wanted}] on {device}"
    )


def architecture(device: torch.device) -> int | None:
    """Compute capability as a number, 90 on Hopper; None on a CPU, where Triton's interpreter runs."""
    if device.type != "cuda":
        return None
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def family(architecture: int | None) -> int | None:
    """The closest architecture of `MATRIX` at or below this one, of the same major version: 100 for 103, 80 for 86."""
    if architecture is None:
        return None
    return max((n for n in MATRIX if n // 10 == architecture // 10 and n <= architecture), default=None)


@cache
def tile(kernel: str, case: str, architecture: int | None) -> dict[str, int]:
    """The tile of a kernel for a case: the architecture's where its table has one, else its family's, else the default.

    Raises KeyError for an unknown case.
    """
    table = json.loads((TILES / f"{kernel}.json").read_text())
    cases: dict[str, dict[str, int]] = table["default"]
    for number in (family(architecture), architecture):
        cases = cases | table.get(str(number), {})
    return cases[case]


def current_device(device: torch.device) -> AbstractContextManager[object]:
    """A context in which Triton launches on `device`: it uses the current device, not that of its arguments."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
