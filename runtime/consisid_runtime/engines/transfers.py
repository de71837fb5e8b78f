"""Copies between host and GPU that neither waits for, and how far the host may be ahead.

On other devices copies are plain ones, and there is nothing to wait for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def send(tensor: Tensor, device: torch.device | str) -> Tensor:
    """`tensor` on `device`. From the host to a GPU it goes through pinned memory, and nobody waits for it."""
    device = torch.device(device)
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def receive(tensors: Sequence[Tensor]) -> Callable[[], list[Tensor]]:
    """Begin to copy tensors of one device to the host; the returned function waits for the copies and returns them."""
    device = tensors[0].device
    if device.type != "cuda":
        return lambda: list(tensors)
    copies = [torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True) for tensor in tensors]
    for copy, tensor in zip(copies, tensors, strict=True):
        copy.copy_(tensor, non_blocking=True)
    arrived = _mark(device)

    def wait() -> list[Tensor]:
        arrived.synchronize()
        return copies

    return wait


class Lead:
    """Keeps the host one part of its work ahead of a GPU.

    The device then always has work to do, and what is cancelled between two parts ends with the part that it is at.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._latest: torch.cuda.Event | None = None

    def part(self) -> None:
        """What was given to the device since the last call is a part; returns when the part before it is done."""
        if self._device.type == "cuda":
            before, self._latest = self._latest, _mark(self._device)
            if before is not None:
                before.synchronize()

    def finish(self) -> None:
        """Returns when all parts are done."""
        if self._latest is not None:
            self._latest.synchronize()


def _mark(device: torch.device) -> torch.cuda.Event:
    """An event behind everything that this thread's stream was given; who waits for it sleeps."""
    event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(device))
    return event
