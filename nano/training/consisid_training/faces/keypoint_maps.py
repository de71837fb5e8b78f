"""Auxiliary loss that trains features to locate keypoints, so that the landmark heads on them converge sooner."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from consisid_training.data.pictures import FacePicture

_KINDS = 5
_WEIGHT = 4.0


class KeypointMaps(nn.Module):
    """Predicts five maps from each level of features, one a keypoint: the share of the keypoint in each cell.

    A keypoint is distributed over the four cells around it as in bilinear interpolation. Its position is then the
    weighted sum of the cells' positions, which a convolution can compute. Used in training only, stored in no file.

    Args:
        widths, strides: of the levels of features [B, width, h, w]; cell (i, j) is at (j, i) · stride.
        edges: least and greatest edge, in pixels, of the faces that count in each level.
    """

    def __init__(self, widths: Sequence[int], strides: Sequence[int], edges: Sequence[tuple[float, float]]) -> None:
        super().__init__()
        self._strides, self._edges = strides, edges
        self.heads = nn.ModuleList(nn.Conv2d(width, _KINDS, 1) for width in widths)
        for parameter in self.heads.parameters():
            nn.init.zeros_(parameter)

    def loss(self, levels: Sequence[Tensor], pictures: Sequence[FacePicture]) -> Tensor:
        """Return the squared error of the maps per keypoint, counting at least one face a picture."""
        total = torch.zeros(())
        for head, features, stride, edges in zip(self.heads, levels, self._strides, self._edges, strict=True):
            target = torch.from_numpy(_maps(pictures, features.shape[-2:], stride, edges))
            squared = F.mse_loss(head(features).float(), target, reduction="sum")
            total = total + squared / target.sum().clamp(min=float(_KINDS * len(pictures)))
        return _WEIGHT * total


def position_kernels(weight: Tensor) -> None:
    """Initialise a convolution [out, in, k, k] to compute positions from maps.

    Outputs alternate between the horizontal and the vertical position in an input.
    """
    size = weight.shape[-1]
    ramp = torch.linspace(-1, 1, size).expand(size, size)
    with torch.no_grad():
        weight.mul_(0.1)
        for output in range(weight.shape[0]):
            channel = output // 2 % weight.shape[1] if weight.shape[1] > 1 else 0
            weight[output, channel] += (ramp if output % 2 == 0 else ramp.T) / size


def _maps(
    pictures: Sequence[FacePicture], shape: Sequence[int], stride: int, edges: tuple[float, float]
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    rows, columns = shape
    found = np.zeros((len(pictures), _KINDS, rows, columns), np.float32)
    for number, picture in enumerate(pictures):
        size = np.sqrt((picture.boxes[:, 2:] - picture.boxes[:, :2]).prod(axis=1))
        for points in picture.keypoints[(size >= edges[0]) & (size <= edges[1])] / stride:
            for step in ((0, 0), (0, 1), (1, 0), (1, 1)):
                corner = np.floor(points) + step
                x, y = corner.astype(int).T
                share = (1 - np.abs(points - corner)).prod(axis=1)
                inside = (x >= 0) & (x < columns) & (y >= 0) & (y < rows)
                np.add.at(found, (number, np.arange(_KINDS)[inside], y[inside], x[inside]), share[inside])
    return found
