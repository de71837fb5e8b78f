"""Combines close-ups of faces into mosaics.

Landmarks need more faces than can be drawn in time, and most of a portrait is background. So each close-up is drawn
once and reused at several sizes and positions.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from consisid_training.data.pictures import FacePicture, draw_close_up

_MIRRORED = (1, 0, 2, 4, 3)
"""Order of the keypoints in a mirrored picture."""
_FACE = (0.5, 0.78)
"""Least and greatest height of a face, relative to its cell."""


class CloseUps:
    """A sliding window of close-ups [size, size]: step n has `count` of them, from number n · `fresh` on.

    They depend on the step alone, so that a resumed run sees the same ones.
    """

    def __init__(self, seed: int, size: int, count: int, fresh: int) -> None:
        self._seed, self._size, self._count, self._fresh = seed, size, count, fresh
        self._drawn: dict[int, FacePicture] = {}

    def at(self, step: int) -> list[FacePicture]:
        numbers = range(step * self._fresh, step * self._fresh + self._count)
        for number in numbers:
            if number not in self._drawn:
                self._drawn[number] = draw_close_up(np.random.default_rng([self._seed, 2, number]), self._size)
        self._drawn = {number: self._drawn[number] for number in numbers}
        return list(self._drawn.values())


def mosaic(
    rng: np.random.Generator, close_ups: Sequence[FacePicture], cell: tuple[int, int], rows: int, columns: int
) -> FacePicture:
    """Draw cells (height, width), each with one face of random size and mirroring near its middle."""
    height, width = cell
    pixels = np.zeros((rows * height, columns * width, 3), np.uint8)
    boxes, points = [], []
    for row, column in np.ndindex(rows, columns):
        close_up = close_ups[int(rng.integers(len(close_ups)))]
        face = rng.uniform(*_FACE) * min(height, 1.1 * width)
        scale = face / (close_up.boxes[0, 3] - close_up.boxes[0, 1])
        mirror = -1 if rng.random() < 0.5 else 1
        turn = np.array([[scale * mirror, 0.0], [0.0, scale]])
        middle = (close_up.boxes[0, :2] + close_up.boxes[0, 2:]) / 2
        goal = np.array((width, height)) * (0.5 + rng.normal(0, 0.05, 2))
        shift = goal - turn @ middle
        # OpenCV's pixel centres are at whole numbers, ours at halves.
        matrix = np.column_stack([turn, shift + turn @ (0.5, 0.5) - 0.5])
        corner = np.array((column * width, row * height))
        drawn = cv2.warpAffine(close_up.pixels, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
        pixels[corner[1] : corner[1] + height, corner[0] : corner[0] + width] = drawn
        ends = close_up.boxes[0].reshape(2, 2) @ turn.T + shift + corner
        boxes.append(np.concatenate([ends.min(axis=0), ends.max(axis=0)]))
        order = _MIRRORED if mirror < 0 else range(5)
        points.append((close_up.keypoints[0] @ turn.T + shift + corner)[list(order)])
    return FacePicture(pixels, np.array(boxes, np.float32), np.array(points, np.float32))
