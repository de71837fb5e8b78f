"""One protocol, one file for each way of running a module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class Engine(Protocol):
    """A loaded module. Takes and returns tensors by port name; dtypes and shapes are those of its signature."""

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]: ...
