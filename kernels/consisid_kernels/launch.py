"""What every wrapper does before it launches its kernel: check the tensors, find the tile, choose the device."""

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
"""One table a kernel, KERNEL.json: architecture or "default" → case → tile. `make tune` writes them."""

DTYPES = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32"}
"""What kernels compute in, by the name that tile tables and variants give it."""


def require(
    name: str, tensor: Tensor, shape: Sequence[int | None], dtypes: Collection[torch.dtype], device: torch.device
) -> None:
    """Raise ValueError unless `tensor` is contiguous and of this shape (None: any size), dtype and device."""
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
    """90 on Hopper; None where there is no GPU, in Triton's interpreter."""
    if device.type != "cuda":
        return None
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def family(architecture: int | None) -> int | None:
    """What kernels are compiled for that is closest below, of the same major version: 100 for 103, 80 for 86."""
    if architecture is None:
        return None
    return max((n for n in MATRIX if n // 10 == architecture // 10 and n <= architecture), default=None)


@cache
def tile(kernel: str, case: str, architecture: int | None) -> dict[str, int]:
    """The tile of a kernel: that of the architecture where its table lists the case, of its family, or the default."""
    table = json.loads((TILES / f"{kernel}.json").read_text())
    own: dict[str, dict[str, int]] = table["default"]
    for number in (family(architecture), architecture):
        own = own | table.get(str(number), {})
    return own[case]


def current_device(device: torch.device) -> AbstractContextManager[object]:
    """Triton launches on the current device, whichever its arguments lie on."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
