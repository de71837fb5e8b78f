"""Draws anti-aliased shapes with sub-pixel accuracy, and optionally the label of each pixel."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from consisid_nano.world.person import Colour

Points = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.uint8]

_SHIFT = 5
_SMALL = 200
"""Height below which pictures are drawn at twice their size, since one level of anti-aliasing is visible there."""


class Canvas:
    """RGB pixels and, on request, labels (BiSeNet's classes). Coordinates are those of the finished picture.

    Args:
        height, width: of the finished picture.
        labelled: also draw labels, at the same size.
    """

    def __init__(self, height: int, width: int, *, labelled: bool = False) -> None:
        self._factor = 2 if height < _SMALL else 1
        self.height, self.width = height, width
        self._pixels: Any = np.zeros((height * self._factor, width * self._factor, 3), np.uint8)
        self._labels: Any = np.zeros((height, width), np.uint8) if labelled else None

    def polygon(self, points: Points, colour: Colour, label: int | None = None) -> None:
        """Fill a closed outline [n, 2]; without `label` the labels stay unchanged."""
        fill: Any = cv2.fillPoly
        fill(self._pixels, [_fixed(points, self._factor)], colour, cv2.LINE_AA, _SHIFT)
        if self._labels is not None and label is not None:
            fill(self._labels, [_fixed(points, 1)], label, cv2.LINE_8, _SHIFT)

    def line(self, points: Points, width: float, colour: Colour, label: int | None = None) -> None:
        """Draw a stroke of constant width along [n, 2], with round ends."""
        self.polygon(_stroke(np.asarray(points, np.float64), width / 2), colour, label)

    def ring(self, points: Points, width: float, colour: Colour, label: int | None = None) -> None:
        """Draw a closed stroke of constant width along the convex outline [n, 2]."""
        middle = points.mean(axis=0)
        away = (points - middle) / np.maximum(np.linalg.norm(points - middle, axis=1, keepdims=True), 1e-9)
        outer, inner = points + away * width / 2, points - away * width / 2
        self.polygon(np.concatenate([outer, outer[:1], inner[:1], inner[::-1]]), colour, label)

    def copy(self) -> Canvas:
        """Return an independent copy."""
        other = Canvas(self.height, self.width)
        other._pixels = self._pixels.copy()
        other._labels = None if self._labels is None else self._labels.copy()
        return other

    def finished(self) -> tuple[Pixels, Pixels | None]:
        """Return pixels uint8 [H, W, 3] and labels uint8 [H, W]."""
        pixels: Any = self._pixels
        if self._factor > 1:
            pixels = cv2.resize(pixels, (self.width, self.height), interpolation=cv2.INTER_AREA)
        return pixels, self._labels


def ellipse(x: float, y: float, across: float, down: float, corners: int = 24) -> Points:
    """Return an outline [corners, 2] with half-axes `across` and `down`."""
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    return np.stack([x + across * np.cos(angle), y + down * np.sin(angle)], axis=1)


def _fixed(points: Points, factor: int) -> Any:
    # OpenCV's pixel centres are at whole numbers, ours at halves.
    return np.round((points * factor - 0.5) * (1 << _SHIFT)).astype(np.int32)


def _stroke(points: Points, radius: float) -> Points:
    """Return the outline of all points within `radius` of a smooth line."""
    along = np.gradient(points, axis=0)
    along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9)
    across = np.stack([-along[:, 1], along[:, 0]], axis=1) * radius

    def cap(centre: Points, direction: Points) -> Points:
        turn = np.arctan2(direction[1], direction[0]) + np.linspace(np.pi / 2, -np.pi / 2, 7)
        return np.asarray(centre + radius * np.stack([np.cos(turn), np.sin(turn)], axis=1))

    return np.concatenate([points + across, cap(points[-1], along[-1]), (points - across)[::-1],
                           cap(points[0], -along[0])])  # fmt: skip
