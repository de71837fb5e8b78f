"""Draws portraits for the face networks and clips for the video model, with all labels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from consisid_nano.world.backdrop import draw_body, draw_place
from consisid_nano.world.canvas import Canvas, Pixels
from consisid_nano.world.head import draw_head, keypoints, outline
from consisid_nano.world.person import Person
from consisid_nano.world.pose import EXPRESSION_SHAPES, Expression, Pose
from consisid_nano.world.scene import Scene, scene

Floats = npt.NDArray[np.float32]

FRAMES, HEIGHT, WIDTH = 17, 64, 96
_PERIOD = 8  # frames in which a talking mouth opens and closes once, and a head nods once


@dataclass(frozen=True, slots=True)
class Picture:
    """One portrait: pixels uint8 [S, S, 3] RGB, box float32 [4], keypoints float32 [5, 2], labels uint8 [S, S]."""

    pixels: Pixels
    box: Floats
    keypoints: Floats
    labels: Pixels


@dataclass(frozen=True, slots=True)
class Clip:
    """One video: pixels uint8 [F, H, W, 3] RGB, boxes float32 [F, 4], keypoints float32 [F, 5, 2]."""

    pixels: Pixels
    boxes: Floats
    keypoints: Floats


def portrait(who: Person, seed: int, size: int = 512) -> Picture:
    """Draw a portrait; the seed determines expression, place, clothes, pose, size and light."""
    rng = np.random.default_rng([5, seed])
    where = scene(int(rng.integers(2**31)))
    unit = size * rng.uniform(0.22, 0.3)
    pose = Pose(
        x=size * rng.uniform(0.44, 0.56),
        y=size * rng.uniform(0.44, 0.52),
        unit=unit,
        yaw=rng.uniform(-0.5, 0.5),
        pitch=rng.uniform(-0.4, 0.4),
        roll=rng.uniform(-0.1, 0.1),
    )
    full = EXPRESSION_SHAPES[where.expression]
    expression = replace(full, open=full.open * rng.uniform(0, 1))
    canvas = Canvas(size, size, labelled=True)
    draw_place(canvas, where.place, int(rng.integers(2**31)))
    _draw_person(canvas, who, where, pose, expression)
    pixels, labels = canvas.finished()
    assert labels is not None
    light = rng.uniform(0.88, 1.08) * (1 + rng.uniform(-0.12, 0.12) * np.linspace(-1, 1, size))
    pixels = np.clip(pixels * light[None, :, None].astype(np.float32), 0, 255).astype(np.uint8)
    return Picture(pixels, _box(who, pose), keypoints(who, pose, expression).astype(np.float32), labels)


def clip(who: Person, where: Scene, seed: int, frames: int = FRAMES, height: int = HEIGHT, width: int = WIDTH) -> Clip:
    """Draw a video of a person in a scene; the seed determines the details of the place and the initial pose.

    At the default size a head moves at most 1.5 pixels a frame, 2 when nodding, because the VAE compresses four frames
    into one latent frame.
    """
    rng = np.random.default_rng([6, seed])
    start = Pose(
        x=width / 2 + height * rng.uniform(-0.05, 0.05),
        y=height * rng.uniform(0.47, 0.51),
        unit=height * rng.uniform(0.265, 0.295),
        yaw=rng.uniform(-0.15, 0.15),
    )
    place = Canvas(height, width)
    draw_place(place, where.place, int(rng.integers(2**31)))
    pixels, boxes, points = [], [], []
    for frame in range(frames):
        pose, expression = _pose_at(where, start, frame, height)
        canvas = place.copy()
        _draw_person(canvas, who, where, pose, expression)
        pixels.append(canvas.finished()[0])
        boxes.append(_box(who, pose))
        points.append(keypoints(who, pose, expression))
    return Clip(np.stack(pixels), np.stack(boxes), np.stack(points).astype(np.float32))


def _pose_at(where: Scene, start: Pose, frame: int, height: int) -> tuple[Pose, Expression]:
    """Return pose and expression `frame` frames after `start`, in pictures of this height."""
    done = frame / (FRAMES - 1)
    side = {"left": -1, "right": 1}.get(where.motion, 0)
    pose = replace(start, x=start.x + side * (done - 0.5) * 0.36 * height)
    if where.motion == "nods":
        down = (1 - np.cos(2 * np.pi * frame / _PERIOD)) / 2
        pose = replace(pose, pitch=0.9 * down, y=pose.y + 0.02 * height * down)
    elif where.motion == "turns":
        pose = replace(pose, yaw=1.6 * (done - 0.5))
    elif where.motion == "closer":
        pose = replace(pose, unit=pose.unit * (0.82 + 0.42 * done), y=pose.y + 0.05 * height * (done - 0.5))
    rest = EXPRESSION_SHAPES[where.expression]
    if where.speech == "talks":
        spoken = (1 - np.cos(2 * np.pi * frame / _PERIOD)) / 2
        return pose, replace(rest, open=0.15 * rest.open + 0.85 * spoken)
    return pose, rest


def _draw_person(canvas: Canvas, who: Person, where: Scene, pose: Pose, expression: Expression) -> None:
    draw_body(canvas, who, replace(pose, yaw=0.0, pitch=0.0), where.garment, where.colour)
    draw_head(canvas, who, pose, expression)


def _box(who: Person, pose: Pose) -> Floats:
    edge = pose.on_outline(outline(who))
    return np.asarray(np.concatenate([edge.min(axis=0), edge.max(axis=0)]), np.float32)
