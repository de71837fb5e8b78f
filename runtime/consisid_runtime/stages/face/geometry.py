"""Boxes, anchors and alignment of faces, in NumPy. Points are (x, y), boxes (x0, y0, x1, y1), in pixels.

Constants and conventions are those of facexlib and insightface, with which ConsisID was trained.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from consisid_runtime.stages.face.image import Pixels

Floats = npt.NDArray[np.float32]
Matrix = npt.NDArray[np.float64]

LONG_EDGE = 1024
CROP = 512
CROP_BORDER = (135, 133, 132)
ALIGNER_MEAN = (104.0, 117.0, 123.0)
"""Means of blue, green and red, which are subtracted from RetinaFace's input."""

_STRIDES = (8, 16, 32)
_ANCHORS = ((16, 32), (64, 128), (256, 512))
_VARIANCES = (0.1, 0.2)
_MIN_SCORE = 0.97
_MAX_OVERLAP = 0.4
# Eyes, nose, mouth corners of an aligned face: FFHQ's in 512×512, ArcFace's in 112×112.
_CROP_TEMPLATE = np.array(
    [
        [192.98138, 239.94708],
        [318.90277, 240.1936],
        [256.63416, 314.01935],
        [201.26117, 371.41043],
        [313.08905, 371.15118],
    ]
)
_ARCFACE_TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]], np.float32
)


class Detections(NamedTuple):
    """Faces, best first: boxes [N, 4], scores [N], landmarks [N, 5, 2]."""

    boxes: Floats
    scores: Floats
    landmarks: Floats


def fit(image: Pixels) -> Pixels:
    """Scale an image [H, W, 3] down to 1024 on its long edge; a smaller one stays as it is."""
    height, width = image.shape[:2]
    if max(height, width) <= LONG_EDGE:
        return image
    scale = LONG_EDGE / max(height, width)
    size = int(width * scale), int(height * scale)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LANCZOS4), np.uint8)


def template(edge: int) -> Floats:
    """The landmarks [5, 2] of a face that fills a picture [edge, edge] as it does an aligned crop."""
    return np.asarray(_CROP_TEMPLATE * (edge / CROP), np.float32)


def anchors(height: int, width: int) -> Floats:
    """RetinaFace's anchors [A, 4] as centre and size, in units of the image's edges, finest stride first."""
    levels = []
    for stride, edges in zip(_STRIDES, _ANCHORS, strict=True):
        rows, columns = -(-height // stride), -(-width // stride)
        y, x, edge = np.meshgrid(np.arange(rows) + 0.5, np.arange(columns) + 0.5, np.array(edges), indexing="ij")
        level = np.stack([x * stride / width, y * stride / height, edge / width, edge / height], axis=-1)
        levels.append(level.reshape(-1, 4))
    return np.asarray(np.concatenate(levels), np.float32)


def decode(boxes: Floats, scores: Floats, landmarks: Floats, height: int, width: int) -> Detections:
    """RetinaFace's heads → faces in pixels, the confident ones, each once.

    Args:
        boxes, scores, landmarks: [A, 4], [A, 2], [A, 10], as `models.retinaface` gives them for one image.
        height, width: of that image.
    """
    keep = np.flatnonzero(scores[:, 1] > _MIN_SCORE)
    keep = keep[np.argsort(-scores[keep, 1], kind="stable")]
    anchor, size = anchors(height, width)[keep], np.array([width, height], np.float32)
    centre, edges = anchor[:, :2], anchor[:, 2:]
    shift, grow = np.float32(_VARIANCES[0]), np.float32(_VARIANCES[1])
    extent = edges * np.exp(boxes[keep, 2:] * grow)
    corner = centre + boxes[keep, :2] * shift * edges - extent / 2
    found = np.concatenate([corner, corner + extent], axis=1) * np.tile(size, 2)
    points = (centre[:, None] + landmarks[keep].reshape(-1, 5, 2) * shift * edges[:, None]) * size
    first = suppress(found)
    return Detections(found[first], scores[keep[first], 1], points[first])


def suppress(boxes: Floats, max_overlap: float = _MAX_OVERLAP) -> npt.NDArray[np.intp]:
    """Indices of the boxes [N, 4], best first, that overlap no better one by more than `max_overlap` (IoU)."""
    kept: list[int] = []
    for index in range(len(boxes)):
        if not kept or overlaps(boxes[index : index + 1], boxes[kept]).max() <= max_overlap:
            kept.append(index)
    return np.array(kept, np.intp)


def overlaps(a: Floats, b: Floats) -> Floats:
    """Intersection over union [N, M] of boxes a [N, 4] and b [M, 4]."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (a, b)]
    union = areas[0][:, None] + areas[1][None] - shared
    return np.asarray(shared / np.maximum(union, np.finfo(np.float32).tiny), np.float32)


def crop_transform(landmarks: Floats) -> Matrix | None:
    """The similarity [2, 3] from image to aligned 512×512 crop, robust to one bad landmark (least median of squares).

    None where five landmarks [5, 2] define none.
    """
    matrix: Any = cv2.estimateAffinePartial2D(landmarks, _CROP_TEMPLATE, method=cv2.LMEDS)[0]
    return None if matrix is None or not np.isfinite(matrix).all() else np.asarray(matrix, np.float64)


def arcface_transform(landmarks: Floats, edge: int) -> Matrix:
    """The least-squares similarity [2, 3] from image to the crop [edge, edge] that ArcFace embeds.

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns" (1991), in single
    precision as insightface has it: one rounding apart, the crop would differ by a level here and there.
    """
    source, target = np.asarray(landmarks, np.float32), _ARCFACE_TEMPLATE * (edge / 112)
    origin, goal = source.mean(axis=0), target.mean(axis=0)
    covariance = (target - goal).T @ (source - origin) / len(source)
    flip = np.array([1.0, -1.0 if np.linalg.det(covariance) < 0 else 1.0])
    left, strength, right = np.linalg.svd(covariance)
    rotation = np.asarray(left @ np.diag(flip) @ right, np.float64)
    scale = 1.0 / (source - origin).var(axis=0).sum() * (strength @ flip)
    return np.concatenate([scale * rotation, (goal - scale * (rotation @ origin))[:, None]], axis=1)


def warp(image: Pixels, matrix: Matrix, edge: int, border: tuple[int, int, int]) -> Pixels:
    """The crop [edge, edge, 3] of an image, its transform given; `border` where the image ends."""
    crop = cv2.warpAffine(image, matrix, (edge, edge), borderMode=cv2.BORDER_CONSTANT, borderValue=border)
    return np.asarray(crop, np.uint8)


def transform(points: Floats, matrix: Matrix) -> Floats:
    """Points [N, 2] moved by a similarity [2, 3]."""
    return np.asarray(points @ matrix[:, :2].T + matrix[:, 2], np.float32)
