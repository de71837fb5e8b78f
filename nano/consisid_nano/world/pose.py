"""Defines the pose of a head and the expression of its face."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from consisid_nano.world.canvas import Points

_TURN = 0.24
_NOD = 0.2


@dataclass(frozen=True, slots=True)
class Expression:
    """Changes of a face from its neutral shape, which is 0 everywhere.

    Attributes:
        smile: corners of the mouth up. open: mouth open. wide: eyes wide, negative for narrow.
        raised: brows up. frown: inner ends of the brows down, negative for up.
    """

    smile: float = 0.0
    open: float = 0.0
    wide: float = 0.0
    raised: float = 0.0
    frown: float = 0.0


EXPRESSION_SHAPES: dict[str, Expression] = {
    "calm": Expression(),
    "happy": Expression(smile=1.0, wide=-0.15, raised=0.2),
    "sad": Expression(smile=-1.0, wide=-0.3, frown=-1.0),
    "surprised": Expression(open=0.8, wide=0.35, raised=1.0),
    "angry": Expression(smile=-0.5, wide=-0.25, frown=1.2, raised=-0.5),
}


@dataclass(frozen=True, slots=True)
class Pose:
    """A head in a picture.

    Attributes:
        x, y: the middle of the face, in pixels. unit: half the height of the face, in pixels.
        yaw, pitch: −1 to 1; positive looks to the viewer's right, and down. roll: in radians, clockwise.
    """

    x: float
    y: float
    unit: float
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0

    def on_outline(self, points: Points) -> Points:
        """Map points [n, 2] on the silhouette from face units to pixels; yaw and pitch do not move them."""
        turned = points @ np.array([[np.cos(self.roll), np.sin(self.roll)], [-np.sin(self.roll), np.cos(self.roll)]])
        return np.asarray(turned * self.unit + (self.x, self.y))

    def on_face(self, points: Points) -> Points:
        """Map points [n, 2] on the front of the face from face units to pixels; yaw and pitch move near points most."""
        across, down = points[:, 0], points[:, 1]
        depth = np.sqrt(np.clip(1 - 0.7 * across**2 - 0.5 * down**2, 0.1, None))
        narrowed = across * (1 - 0.12 * self.yaw**2)
        return self.on_outline(
            np.stack([narrowed + _TURN * self.yaw * depth, down + _NOD * self.pitch * depth], axis=1)
        )
