"""Draws pictures for training the face networks: people of the world in any position, and pictures without faces."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from consisid_nano.world import person
from consisid_nano.world.backdrop import draw_body, draw_place
from consisid_nano.world.canvas import Canvas, Pixels, ellipse
from consisid_nano.world.head import draw_head, keypoints, outline
from consisid_nano.world.person import Person
from consisid_nano.world.pose import EXPRESSION_SHAPES, Expression, Pose
from consisid_nano.world.scene import PLACES, Scene, scene

TRAINING_PEOPLE = 12_000
PHOTOGRAPHS = (
    "brick", "camera", "cat", "checkerboard", "clock", "coffee", "coins", "colorwheel", "grass", "gravel",
    "horse", "hubble_deep_field", "immunohistochemistry", "logo", "moon", "page", "text",
)  # fmt: skip
HELD_OUT_PHOTOGRAPHS = ("astronaut", "cell", "microaneurysms", "retina", "rocket", "stereo_motorcycle")
"""Names in `skimage.data`. The second halves of the faces and of the rest in its `lfw_subset` are held out too."""

_LFW = 100  # rows in each half of lfw_subset: 50 faces, 50 others

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class FacePicture:
    """Pixels uint8 [H, W, 3] RGB, and for N faces boxes float32 [N, 4] and keypoints float32 [N, 5, 2] in pixels."""

    pixels: Pixels
    boxes: Floats
    keypoints: Floats


def draw_people(rng: np.random.Generator, height: int, width: int, low: float, high: float) -> FacePicture:
    """Draw one to three people, with faces `low` to `high` pixels high, before a place or other content."""
    count = int(rng.choice((1, 2, 3), p=(0.75, 0.2, 0.05)))
    canvas = Canvas(height, width, labelled=True)
    draw_place(canvas, str(rng.choice(list(PLACES))), int(rng.integers(2**31)))
    slot, boxes, points = width / count, [], []
    for number in range(count):
        # Neighbours must not cover one another's faces; hair is up to 1.4 units wide.
        most = min(high, 0.84 * height, 2 * slot / (1.6 if count == 1 else 2.4))
        unit = np.exp(rng.uniform(np.log(min(low, most)), np.log(most))) / 2
        pose = _pose(rng, unit, slot, height, spread=count == 1)
        box, place = _draw(canvas, replace(pose, x=pose.x + slot * number), rng)
        boxes.append(box)
        points.append(place)
    pixels, labels = canvas.finished()
    if rng.random() < 0.25:
        assert labels is not None
        pixels = np.where(labels[..., None] > 0, pixels, _other_content(rng, height, width))
    return FacePicture(relight(pixels, rng), np.array(boxes, np.float32), np.array(points, np.float32))


def draw_close_up(rng: np.random.Generator, size: int) -> FacePicture:
    """Draw one person in the middle of [size, size] pixels, the face half as high."""
    canvas = Canvas(size, size)
    draw_place(canvas, str(rng.choice(list(PLACES))), int(rng.integers(2**31)))
    pose = _pose(rng, size / 4, size, size, spread=False)
    box, place = _draw(canvas, replace(pose, x=size * 0.5, y=size * 0.48), rng)
    return FacePicture(relight(canvas.finished()[0], rng), box[None].astype(np.float32), place[None].astype(np.float32))


def draw_without_faces(rng: np.random.Generator, height: int, width: int) -> FacePicture:
    """Draw a picture without a face: a place, a body without a head, a photograph, shapes or noise."""
    kind = rng.random()
    if kind < 0.55:
        pixels = _other_content(rng, height, width)
    else:
        canvas = Canvas(height, width)
        draw_place(canvas, str(rng.choice(list(PLACES))), int(rng.integers(2**31)))
        if kind < 0.8:
            where, unit = _scene(rng), height * rng.uniform(0.1, 0.4)
            pose = _pose(rng, unit, width, height, spread=True)
            draw_body(canvas, _somebody(rng), pose, where.garment, where.colour)
        pixels = canvas.finished()[0]
    return FacePicture(relight(pixels, rng), np.zeros((0, 4), np.float32), np.zeros((0, 5, 2), np.float32))


def degrade(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Degrade a picture by random downsampling, blur, JPEG compression and noise."""
    height, width = pixels.shape[:2]
    found: Any = pixels
    if rng.random() < 0.35:
        rows = int(rng.uniform(min(56, height), height)) if rng.random() < 0.6 else min(64, height)
        found = cv2.resize(found, (max(1, round(width * rows / height)), rows), interpolation=cv2.INTER_AREA)
        found = cv2.resize(found, (width, height), interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.35:
        found = cv2.GaussianBlur(found, (0, 0), rng.uniform(0.004, 0.014) * height)
    if rng.random() < 0.3:
        written = cv2.imencode(".jpg", found, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(30, 95))])[1]
        found = cv2.imdecode(written, cv2.IMREAD_COLOR)
    if rng.random() < 0.3:
        noise = rng.normal(0, rng.uniform(1, 10), found.shape).astype(np.float32)
        found = np.clip(found + noise, 0, 255).astype(np.uint8)
    return np.asarray(found, np.uint8)


@cache
def photograph(name: str) -> Pixels:
    """Return one of scikit-image's photographs, uint8 [H, W, 3]."""
    from skimage import data

    loaded: Any = getattr(data, name)()
    picture = np.asarray(loaded[0] if isinstance(loaded, tuple) else loaded)
    picture = (255 * picture).astype(np.uint8) if picture.dtype == bool else picture
    return np.ascontiguousarray(np.dstack([picture] * 3) if picture.ndim == 2 else picture[..., :3])


@cache
def lfw(*, held_out: bool) -> tuple[Pixels, ...]:
    """Return grey photographs of faces and of other things, each uint8 [25, 25, 3]."""
    from skimage import data

    small: Any = data.lfw_subset()  # type: ignore[no-untyped-call]
    rows = [row for row in range(len(small)) if (row % _LFW >= _LFW // 2) == held_out]
    return tuple(np.dstack([np.clip(255 * small[row], 0, 255).astype(np.uint8)] * 3) for row in rows)


def _pose(rng: np.random.Generator, unit: float, width: float, height: int, *, spread: bool) -> Pose:
    """Draw a pose whose keypoints are inside the picture; half of the poses are near the middle."""
    x, y = rng.normal(0.5, 0.05) * width, rng.normal(0.48, 0.05) * height
    if rng.random() < 0.5:
        x = rng.uniform(0.75 * unit, width - 0.75 * unit) if spread and width > 1.5 * unit else x
        y = rng.uniform(0.4 * unit, height - unit)
    yaw, pitch = (rng.uniform(-1, 1), rng.uniform(-0.4, 0.9)) if rng.random() < 0.5 else rng.uniform(-0.5, 0.5, 2)
    return Pose(x=x, y=y, unit=unit, yaw=yaw, pitch=pitch, roll=rng.uniform(-0.15, 0.15))


def _draw(canvas: Canvas, pose: Pose, rng: np.random.Generator) -> tuple[NDArray[Any], NDArray[Any]]:
    """Draw a random person; returns box [4] and keypoints [5, 2] of the face."""
    who, where = _somebody(rng), _scene(rng)
    expression = _expression(rng, where)
    draw_body(canvas, who, replace(pose, yaw=0.0, pitch=0.0), where.garment, where.colour)
    draw_head(canvas, who, pose, expression)
    edge = pose.on_outline(outline(who))
    return np.concatenate([edge.min(axis=0), edge.max(axis=0)]), keypoints(who, pose, expression)


def _somebody(rng: np.random.Generator) -> Person:
    return person(int(rng.integers(TRAINING_PEOPLE)))


def _scene(rng: np.random.Generator) -> Scene:
    return scene(int(rng.integers(2**31)), held_out=False)


def _expression(rng: np.random.Generator, where: Scene) -> Expression:
    rest = EXPRESSION_SHAPES[where.expression]
    return replace(rest, open=rng.uniform(0, 0.9)) if where.speech == "talks" else rest


def _other_content(rng: np.random.Generator, height: int, width: int) -> Pixels:
    kind = rng.random()
    if kind < 0.65:
        if rng.random() < 0.3:
            faces = lfw(held_out=False)
            found: Any = faces[int(rng.integers(len(faces)))]
        else:
            found = photograph(str(rng.choice(PHOTOGRAPHS)))
        rows, columns = found.shape[:2]
        share = rng.uniform(0.3, 1.0)
        down, right = max(8, int(rows * share)), max(8, int(columns * min(1.0, share * rng.uniform(0.8, 1.25))))
        top, left = int(rng.integers(rows - down + 1)), int(rng.integers(columns - right + 1))
        found = found[top : top + down, left : left + right, :: int(rng.choice((-1, 1)))]
        shrinks = found.shape[0] > height
        found = cv2.resize(
            np.ascontiguousarray(found), (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        )
        return np.asarray(found, np.uint8)
    if kind < 0.85:
        canvas = Canvas(height, width)
        canvas.polygon(np.array([(-9, -9), (width + 9, -9), (width + 9, height + 9), (-9, height + 9)]), _colour(rng))
        for _ in range(int(rng.integers(3, 25))):
            size = height * np.exp(rng.uniform(np.log(0.02), np.log(0.4)))
            x, y = rng.uniform((0, 0), (width, height)).tolist()
            shape = ellipse(x, y, size, size * rng.uniform(0.3, 1.5))
            canvas.polygon(shape[:: int(rng.choice((1, 1, 3, 6)))], _colour(rng))
        return canvas.finished()[0]
    cells = int(rng.choice((2, 5, 12, 40, height)))
    noise = rng.integers(0, 256, (cells, max(1, round(cells * width / height)), 3)).astype(np.uint8)
    return np.asarray(cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def _colour(rng: np.random.Generator) -> tuple[float, float, float]:
    red, green, blue = rng.uniform(0, 255, 3).tolist()
    return red, green, blue


def relight(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Change brightness, colour and the horizontal gradient of light at random."""
    across = 1 + rng.uniform(-0.15, 0.15) * np.linspace(-1, 1, pixels.shape[1], dtype=np.float32)
    light = rng.uniform(0.75, 1.15) * across[None, :, None] * rng.uniform(0.94, 1.06, 3).astype(np.float32)
    return np.clip(pixels * light.astype(np.float32), 0, 255).astype(np.uint8)
