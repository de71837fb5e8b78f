"""Anti-aliased drawing with sub-pixel accuracy, of pixels and of what each pixel shows."""

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
"""Pictures lower than this are drawn at twice their size: one level of anti-aliasing shows there."""


class Canvas:
    """RGB pixels and, where asked for, labels (BiSeNet's classes). Coordinates are those of the finished picture.

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
        """Fill a closed outline [n, 2]; without `label` what was labelled before shows through."""
        fill: Any = cv2.fillPoly
        fill(self._pixels, [_fixed(points, self._factor)], colour, cv2.LINE_AA, _SHIFT)
        if self._labels is not None and label is not None:
            fill(self._labels, [_fixed(points, 1)], label, cv2.LINE_8, _SHIFT)

    def line(self, points: Points, width: float, colour: Colour, label: int | None = None) -> None:
        """A stroke of constant width along [n, 2], with round ends."""
        self.polygon(_stroke(np.asarray(points, np.float64), width / 2), colour, label)

    def ring(self, points: Points, width: float, colour: Colour, label: int | None = None) -> None:
        """A closed stroke of constant width along the convex outline [n, 2]."""
        middle = points.mean(axis=0)
        away = (points - middle) / np.maximum(np.linalg.norm(points - middle, axis=1, keepdims=True), 1e-9)
        outer, inner = points + away * width / 2, points - away * width / 2
        self.polygon(np.concatenate([outer, outer[:1], inner[:1], inner[::-1]]), colour, label)

    def copy(self) -> Canvas:
        """Another canvas that shows the same so far."""
        other = Canvas(self.height, self.width)
        other._pixels = self._pixels.copy()
        other._labels = None if self._labels is None else self._labels.copy()
        return other

    def finished(self) -> tuple[Pixels, Pixels | None]:
        """Pixels [H, W, 3] and labels [H, W]."""
        pixels: Any = self._pixels
        if self._factor > 1:
            pixels = cv2.resize(pixels, (self.width, self.height), interpolation=cv2.INTER_AREA)
        return pixels, self._labels


def ellipse(x: float, y: float, across: float, down: float, corners: int = 24) -> Points:
    """An outline [corners, 2] with these half-axes."""
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    return np.stack([x + across * np.cos(angle), y + down * np.sin(angle)], axis=1)


def _fixed(points: Points, factor: int) -> Any:
    # Pixel centres lie at whole numbers in OpenCV, at halves here.
    return np.round((points * factor - 0.5) * (1 << _SHIFT)).astype(np.int32)


def _stroke(points: Points, radius: float) -> Points:
    """The outline of all that lies within `radius` of a smooth line."""
    along = np.gradient(points, axis=0)
    along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9)
    across = np.stack([-along[:, 1], along[:, 0]], axis=1) * radius

    def cap(centre: Points, direction: Points) -> Points:
        turn = np.arctan2(direction[1], direction[0]) + np.linspace(np.pi / 2, -np.pi / 2, 7)
        return np.asarray(centre + radius * np.stack([np.cos(turn), np.sin(turn)], axis=1))

    return np.concatenate([points + across, cap(points[-1], along[-1]), (points - across)[::-1],
                           cap(points[0], -along[0])])  # fmt: skip
