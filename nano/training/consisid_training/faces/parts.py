"""Teaches features where eyes, nose and mouth are; what reads the features then finds landmarks far sooner."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from consisid_training.data.pictures import Shot

_KINDS = 5
_WEIGHT = 4.0


class Parts(nn.Module):
    """Reads five maps from each level of features, one for each keypoint: how much of it lies in a cell.

    A keypoint is shared out among the four cells around it as in bilinear interpolation. Then the sum of the cells'
    places, weighted so, is its place, and a convolution can find it. It only trains: no file holds it.

    Args:
        widths, strides: of the levels of features [B, width, h, w]; cell (i, j) is taken to be at (j, i) · stride.
        edges: of the faces, in pixels, (least, most) of each level; others do not count there.
    """

    def __init__(self, widths: Sequence[int], strides: Sequence[int], edges: Sequence[tuple[float, float]]) -> None:
        super().__init__()
        self._strides, self._edges = strides, edges
        self.heads = nn.ModuleList(nn.Conv2d(width, _KINDS, 1) for width in widths)
        for parameter in self.heads.parameters():
            nn.init.zeros_(parameter)

    def loss(self, levels: Sequence[Tensor], shots: Sequence[Shot]) -> Tensor:
        """Squared error of the maps, summed over cells and averaged over keypoints, at least a face a picture."""
        total = torch.zeros(())
        for head, features, stride, edges in zip(self.heads, levels, self._strides, self._edges, strict=True):
            wanted = torch.from_numpy(_maps(shots, features.shape[-2:], stride, edges))
            squared = F.mse_loss(head(features).float(), wanted, reduction="sum")
            total = total + squared / wanted.sum().clamp(min=float(_KINDS * len(shots)))
        return _WEIGHT * total


def position_kernels(weight: Tensor) -> None:
    """Start a convolution [out, in, k, k] that should find places from maps: one output has the place across, the next
    down, of the map that the two of them read."""
    size = weight.shape[-1]
    ramp = torch.linspace(-1, 1, size).expand(size, size)
    with torch.no_grad():
        weight.mul_(0.1)
        for output in range(weight.shape[0]):
            source = output // 2 % weight.shape[1] if weight.shape[1] > 1 else 0
            weight[output, source] += (ramp if output % 2 == 0 else ramp.T) / size


def _maps(
    shots: Sequence[Shot], shape: Sequence[int], stride: int, edges: tuple[float, float]
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    rows, columns = shape
    found = np.zeros((len(shots), _KINDS, rows, columns), np.float32)
    for number, shot in enumerate(shots):
        size = np.sqrt((shot.boxes[:, 2:] - shot.boxes[:, :2]).prod(axis=1))
        for points in shot.keypoints[(size >= edges[0]) & (size <= edges[1])] / stride:
            for step in ((0, 0), (0, 1), (1, 0), (1, 1)):
                corner = np.floor(points) + step
                x, y = corner.astype(int).T
                share = (1 - np.abs(points - corner)).prod(axis=1)
                inside = (x >= 0) & (x < columns) & (y >= 0) & (y < rows)
                np.add.at(found, (number, np.arange(_KINDS)[inside], y[inside], x[inside]), share[inside])
    return found
