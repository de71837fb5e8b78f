"""Engines run the modules of a bundle: one protocol, a table of records, and a file for each library."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from consisid_runtime.errors import InvalidOption

if TYPE_CHECKING:
    import torch
    from torch import Tensor


DEVICES = ("cpu", "cuda", "cuda:N", "auto")
"""Where a module may run: "cuda" is the current GPU, "cuda:N" the GPU of that number, "auto" CUDA where it is there."""

_DEVICE = re.compile(r"cpu|auto|cuda(?::(0|[1-9][0-9]*))?")


def check_device(name: str) -> None:
    """Raises `InvalidOption` for a device that is none of `DEVICES`."""
    if not isinstance(name, str) or _DEVICE.fullmatch(name) is None:
        raise InvalidOption(f"device must be one of {', '.join(DEVICES)}, got {name!r}")


def gpu_number(name: str) -> int | None:
    """N of "cuda:N", None for another device. Raises `InvalidOption` as `check_device`."""
    check_device(name)
    _, _, number = name.partition(":")
    return int(number) if number else None


def require_gpu(name: str, count: int) -> None:
    """Raises `InvalidOption` for a device "cuda:N" where only `count` GPUs are seen."""
    number = gpu_number(name)
    if number is not None and number >= count:
        seen = "is 1 GPU, cuda:0" if count == 1 else f"are {count} GPUs, cuda:0 to cuda:{count - 1}"
        raise InvalidOption(f"device {name!r}: here {seen} (as far as CUDA_VISIBLE_DEVICES shows them)")


class Engine(Protocol):
    """A loaded module. Takes and returns tensors by port name; dtypes and shapes are those of its signature.

    An engine that takes tensors where it runs, without a copy, has the attribute `device`.
    The caches of the VAE's decoder belong to the engine that made them: they may have another dtype, and the call that
    takes them may overwrite them.
    """

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]: ...


def place_of(engine: Engine) -> torch.device | str:
    """Where a tensor that `engine` takes at every request should lie."""
    place: torch.device | str = getattr(engine, "device", "cpu")
    return place


def hardware(device: str) -> str:
    """The name of the device that "cpu", "cuda" or "auto" means here: equal bytes hold on devices of one name."""
    import torch

    if device != "cpu" and torch.cuda.is_available():
        return torch.cuda.get_device_name(gpu_number(device))
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
