"""Engines run the modules of a bundle: one protocol, a table of records, and a file for each library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from consisid_runtime.errors import InvalidOption

if TYPE_CHECKING:
    from torch import Tensor


DEVICES = ("cpu", "cuda", "auto")


def check_device(name: str) -> None:
    """Raises `InvalidOption` for a device that is none of `DEVICES`."""
    if name not in DEVICES:
        raise InvalidOption(f"device must be one of {', '.join(DEVICES)}, got {name!r}")


class Engine(Protocol):
    """A loaded module. Takes and returns tensors by port name; dtypes and shapes are those of its signature."""

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]: ...
