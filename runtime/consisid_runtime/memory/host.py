"""Memory of the host for weights that wait there."""

from __future__ import annotations

import torch
from torch import Tensor

PIECE = 2**28
"""Bytes that are taken at once. PyTorch rounds pinned memory up to a power of two, for each tensor: by itself, a
transformer's weights would take 1.6 times their size."""
_ALIGNMENT = 512


class HostMemory:
    """Gives room to tensors out of large pieces, which are kept while one of the tensors is.

    Args:
        pinned: for copies to a GPU that do not wait.
        piece: bytes of one.
    """

    def __init__(self, *, pinned: bool, piece: int = PIECE) -> None:
        self._pinned, self._piece = pinned, piece
        self._pieces: list[tuple[Tensor, int]] = []

    def kept(self, tensor: Tensor) -> Tensor:
        """A copy of a tensor without gaps, with its strides."""
        size = -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT
        memory = self._room(size)[: tensor.nbytes].view(tensor.dtype)
        return memory.as_strided(tensor.shape, tensor.stride()).copy_(tensor)

    def _room(self, size: int) -> Tensor:
        """Bytes at an aligned address: the first that are free."""
        for number, (piece, used) in enumerate(self._pieces):
            if used + size <= len(piece):
                self._pieces[number] = piece, used + size
                return piece[used : used + size]
        piece = torch.empty(max(size, self._piece), dtype=torch.uint8, pin_memory=self._pinned)
        self._pieces.append((piece, size))
        return piece[:size]
