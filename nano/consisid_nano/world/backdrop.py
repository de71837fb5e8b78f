"""Draws places, which fill the picture, and bodies below the head."""

from __future__ import annotations

import numpy as np

from consisid_nano.world.canvas import Canvas, Points, ellipse
from consisid_nano.world.head import CLOTH, NECK, darker
from consisid_nano.world.person import Colour, Person
from consisid_nano.world.pose import Pose
from consisid_nano.world.scene import CLOTHES

_BACKGROUND = 0


def draw_place(canvas: Canvas, place: str, seed: int) -> None:
    """Fill the picture with one of `PLACES`; `seed` determines the details."""
    rng = np.random.default_rng([4, seed])
    height, width = canvas.height, canvas.width

    def band(top: float, bottom: float, colour: Colour) -> None:
        canvas.polygon(_box(-1, top * height, width + 1, bottom * height), colour, _BACKGROUND)

    def shape(points: Points, colour: Colour) -> None:
        canvas.polygon(points * height, colour, _BACKGROUND)

    wide = width / height
    if place == "beach":
        horizon = rng.uniform(0.42, 0.5)
        band(-0.1, horizon, (140, 206, 246))
        band(horizon, 0.72, (32, 132, 190))
        band(0.72, 1.1, (238, 214, 160))
        shape(ellipse(rng.uniform(0.1, 0.3) * wide, 0.16, 0.1, 0.1), (255, 236, 120))
    elif place == "forest":
        band(-0.1, 0.8, (98, 168, 96))
        band(0.8, 1.1, (70, 104, 48))
        for i in range(6):
            x = (i + rng.uniform(0.2, 0.8)) * wide / 6
            shape(_box(x - 0.035, 0.2, x + 0.035, 0.9), (92, 62, 36))
            shape(ellipse(x, 0.16, 0.15, 0.24), (28, 98, 44))
    elif place == "city":
        band(-0.1, 1.1, (196, 206, 216))
        for i in range(5):
            left = i * wide / 5
            top = rng.uniform(0.08, 0.4)
            shape(_box(left, top, left + 0.24, 1.1), (104, 110, 124) if i % 2 else (146, 112, 100))
            for row in (top + 0.07 + 0.14 * floor for floor in range(7)):
                for column in (0.04, 0.14):
                    shape(_box(left + column, row, left + column + 0.06, row + 0.06), (250, 236, 160))
    elif place == "snow":
        band(-0.1, 1.1, (150, 186, 226))
        for i in range(3):
            x, top = (i + 0.5 + rng.uniform(-0.2, 0.2)) * wide / 3, rng.uniform(0.16, 0.3)
            shape(np.array([(x, top), (x + 0.42, 0.8), (x - 0.42, 0.8)]), (108, 124, 152))
            shape(np.array([(x, top), (x + 0.13, top + 0.19), (x - 0.13, top + 0.19)]), (250, 252, 255))
        band(0.74, 1.1, (244, 248, 255))
    elif place == "night":
        band(-0.1, 0.82, (16, 20, 56))
        band(0.82, 1.1, (28, 36, 44))
        x = rng.uniform(0.1, 0.26) * wide
        shape(ellipse(x, 0.18, 0.11, 0.11), (246, 240, 208))
        for _ in range(14):
            shape(ellipse(rng.uniform(0, wide), rng.uniform(0.03, 0.7), 0.018, 0.018, 8), (255, 255, 255))
    else:
        band(-0.1, 1.1, (120, 78, 48))
        books = ((176, 40, 44), (36, 92, 140), (214, 170, 70), (52, 120, 72), (226, 220, 206))
        for row in range(3):
            offset = 0.1 * rng.uniform(0, 1)
            for i in range(int(wide / 0.1) + 2):
                left = 0.1 * (i - 1) + offset
                top = 0.34 * row + 0.05 + 0.03 * (i % 3 == row)
                shape(_box(left, top, left + 0.085, 0.34 * row + 0.29), books[(i + 2 * row) % 5])


def draw_body(canvas: Canvas, who: Person, pose: Pose, garment: str, colour: str) -> None:
    """Draw neck, shoulders and clothes. Yaw and pitch of `pose` must be 0, because only the head turns and nods."""
    cloth = CLOTHES[colour]
    neck = _box(-0.3, 0.6, 0.3, 1.4)
    shoulders = np.array([(-0.34, 1.16), (-0.75, 1.24), (-1.3, 1.5), (-1.55, 2.2), (-1.6, 6.0), (1.6, 6.0),
                          (1.55, 2.2), (1.3, 1.5), (0.75, 1.24), (0.34, 1.16), (0.0, 1.4)])  # fmt: skip
    canvas.polygon(pose.on_outline(neck), darker(who.skin, 0.18), NECK)
    canvas.polygon(pose.on_outline(shoulders), cloth, CLOTH)
    if garment == "striped sweater":
        stripe: Colour = (36, 40, 52) if sum(cloth) > 330 else (240, 240, 240)
        for y in (1.62, 2.1, 2.58, 3.06):
            half = float(np.interp(y, (1.5, 2.2), (1.32, 1.55)))
            canvas.polygon(pose.on_outline(_box(-half, y, half, y + 0.2)), stripe, CLOTH)
    elif garment == "jacket":
        opening = np.array([(-0.3, 1.2), (0.3, 1.2), (0.22, 6.0), (-0.22, 6.0)])
        canvas.polygon(pose.on_outline(opening), (60, 62, 70), CLOTH)
        for side in (-1, 1):
            lapel = np.array([(side * 0.36, 1.14), (side * 0.8, 1.5), (side * 0.3, 2.0), (side * 0.22, 1.3)])
            canvas.polygon(pose.on_outline(lapel), darker(cloth, 0.4), CLOTH)


def _box(left: float, top: float, right: float, bottom: float) -> Points:
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
