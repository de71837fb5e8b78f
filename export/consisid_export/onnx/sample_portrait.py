"""Draws frontal portraits of nobody from simple shapes, for tests and for checks of the face networks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

_SKINS = ((255, 221, 196), (238, 192, 158), (214, 164, 128), (176, 126, 96), (134, 92, 68), (102, 68, 52))
_HAIRS = ((38, 28, 24), (86, 56, 34), (172, 124, 48), (58, 58, 66), (120, 48, 30))
_BACKS = ((96, 128, 168), (188, 198, 206), (64, 84, 76), (146, 150, 190), (226, 230, 236))
_SHIRTS = ((44, 60, 112), (40, 92, 84), (232, 234, 240), (70, 40, 92), (28, 30, 36))
_IRISES = ((60, 40, 28), (52, 84, 116), (62, 92, 60))
_OVERSAMPLED = 3


def drawn_portrait(
    seed: int, size: int = 512, face: float | None = None, centre: tuple[float, float] | None = None
) -> npt.NDArray[np.uint8]:
    """A drawn head and shoulders: uint8 RGB [size, size, 3], the same for the same arguments.

    Args:
        seed: chooses skin, hair, clothes, expression, proportions, and whatever is left None below.
        size: edge of the picture in pixels.
        face: height of the face, hairline to chin, as a share of the edge.
        centre: where the middle of the face lies, (x, y) as shares of the edge.
    """
    rng = np.random.default_rng(seed)

    def pick(colours: tuple[tuple[int, int, int], ...]) -> tuple[int, int, int]:
        return colours[int(rng.integers(len(colours)))]

    skin, hair, back, shirt, iris = (pick(c) for c in (_SKINS, _HAIRS, _BACKS, _SHIRTS, _IRISES))
    if max(abs(a - b) for a, b in zip(skin, hair, strict=True)) < 70:
        hair = _HAIRS[0]  # hair of the skin's own colour would hide where the face ends
    narrow, smile, brow, fringe = rng.uniform((0.72, 0.0, 0.9, 0.8), (0.82, 1.0, 1.1, 1.15))
    drawn_face, shift_x, shift_y = rng.uniform((0.34, -0.05, -0.04), (0.5, 0.05, 0.03))
    long_hair = bool(rng.integers(2))
    height = face or float(drawn_face)
    x, y = centre or (0.5 + float(shift_x), 0.47 + float(shift_y))

    edge = size * _OVERSAMPLED
    image = Image.new("RGB", (edge, edge), back)
    pen = ImageDraw.Draw(image)
    unit = height * edge / 2

    def box(cx: float, cy: float, rx: float, ry: float) -> tuple[float, float, float, float]:
        """Bounds of an ellipse in face units: origin mid-face, 1 = half the face's height, y downwards."""
        left, top = x * edge + cx * unit, y * edge + cy * unit
        return (left - rx * unit, top - ry * unit, left + rx * unit, top + ry * unit)

    def oval(cx: float, cy: float, rx: float, ry: float, fill: tuple[int, int, int]) -> None:
        pen.ellipse(box(cx, cy, rx, ry), fill)

    shade = _mix(skin, (60, 20, 20), 0.28)
    lips = _mix(skin, (150, 30, 50), 0.55)
    oval(0, -0.32, narrow + 0.16, 0.92, hair)
    if long_hair:
        pen.rectangle(box(0, 0.35, narrow + 0.16, 0.7), hair)
    oval(0, 2.55, 1.75, 1.2, shirt)
    pen.rectangle(box(0, 1.05, 0.34, 0.42), _mix(skin, (60, 20, 20), 0.14))
    for side in (-1, 1):
        oval(side * narrow, 0.06, 0.1, 0.19, _mix(skin, (60, 20, 20), 0.1))
    oval(0, 0, narrow, 1, skin)
    pen.chord(box(0, -0.14 * fringe, narrow + 0.04, 0.94), 198, 342, hair)
    for side in (-1, 1):
        eye = side * 0.36
        pen.arc(box(eye, -0.14, 0.22, 0.16 * brow), 205, 335, hair, round(0.06 * unit))
        oval(eye, -0.065, 0.185, 0.105, _mix(skin, (30, 14, 14), 0.7))
        oval(eye, -0.045, 0.155, 0.07, _mix(skin, (240, 238, 234), 0.6))
        oval(eye, -0.05, 0.085, 0.085, iris)
        oval(eye, -0.05, 0.04, 0.04, (16, 14, 14))
        oval(side * 0.09, 0.33, 0.04, 0.025, _mix(shade, (30, 10, 10), 0.4))
    pen.arc(box(0, 0.27, 0.13, 0.12), 35, 145, shade, round(0.03 * unit))
    oval(0, 0.62, 0.27, 0.05 + 0.03 * float(smile), lips)
    pen.arc(
        box(0, 0.6 - 0.08 * float(smile), 0.29, 0.02 + 0.1 * float(smile)),
        10,
        170,
        _mix(lips, (40, 0, 10), 0.6),
        round(0.03 * unit),
    )
    image = image.filter(ImageFilter.GaussianBlur(edge / 640))
    return np.asarray(image.resize((size, size), Image.Resampling.LANCZOS), dtype=np.uint8)


def _mix(colour: tuple[int, int, int], other: tuple[int, int, int], share: float) -> tuple[int, int, int]:
    red, green, blue = (round(a * (1 - share) + b * share) for a, b in zip(colour, other, strict=True))
    return red, green, blue
