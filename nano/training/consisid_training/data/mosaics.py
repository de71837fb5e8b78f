"""Many faces to a picture, from close-ups that are drawn once: landmarks take more faces to learn than there is time to
draw, and most of a portrait is no face."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from consisid_training.data.pictures import Shot, close_up

_MIRRORED = (1, 0, 2, 4, 3)
"""Which keypoint is which in a mirror."""
_FACE = (0.5, 0.78)
"""Height of a face in its cell."""


class Tiles:
    """Close-ups [size, size] by number: of step n, `count` of them from number n · `fresh` on.

    Which those are depends on the step alone, so that a run that was stopped goes on as if it had not been.
    """

    def __init__(self, seed: int, size: int, count: int, fresh: int) -> None:
        self._seed, self._size, self._count, self._fresh = seed, size, count, fresh
        self._drawn: dict[int, Shot] = {}

    def at(self, step: int) -> list[Shot]:
        numbers = range(step * self._fresh, step * self._fresh + self._count)
        for number in numbers:
            if number not in self._drawn:
                self._drawn[number] = close_up(np.random.default_rng([self._seed, 2, number]), self._size)
        self._drawn = {number: self._drawn[number] for number in numbers}
        return list(self._drawn.values())


def mosaic(rng: np.random.Generator, tiles: Sequence[Shot], cell: tuple[int, int], rows: int, columns: int) -> Shot:
    """Cells (height, width) of one face each, mirrored or not, of any size that fits, about the middle."""
    height, width = cell
    pixels = np.zeros((rows * height, columns * width, 3), np.uint8)
    boxes, points = [], []
    for row, column in np.ndindex(rows, columns):
        tile = tiles[int(rng.integers(len(tiles)))]
        face = rng.uniform(*_FACE) * min(height, 1.1 * width)
        scale = face / (tile.boxes[0, 3] - tile.boxes[0, 1])
        mirror = -1 if rng.random() < 0.5 else 1
        turn = np.array([[scale * mirror, 0.0], [0.0, scale]])
        middle = (tile.boxes[0, :2] + tile.boxes[0, 2:]) / 2
        goal = np.array((width, height)) * (0.5 + rng.normal(0, 0.05, 2))
        shift = goal - turn @ middle
        # Pixel centres lie at whole numbers in OpenCV, at halves here.
        matrix = np.column_stack([turn, shift + turn @ (0.5, 0.5) - 0.5])
        corner = np.array((column * width, row * height))
        drawn = cv2.warpAffine(tile.pixels, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
        pixels[corner[1] : corner[1] + height, corner[0] : corner[0] + width] = drawn
        ends = tile.boxes[0].reshape(2, 2) @ turn.T + shift + corner
        boxes.append(np.concatenate([ends.min(axis=0), ends.max(axis=0)]))
        order = _MIRRORED if mirror < 0 else range(5)
        points.append((tile.keypoints[0] @ turn.T + shift + corner)[list(order)])
    return Shot(pixels, np.array(boxes, np.float32), np.array(points, np.float32))
