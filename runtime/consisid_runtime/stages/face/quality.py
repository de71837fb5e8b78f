"""How well a photograph shows the face that was taken from it: figures for a user to judge by, none of them a limit."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from consisid_runtime.stages.face.geometry import Floats, Matrix

_PARTS = {"left eye": (4,), "right eye": (5,), "nose": (10,), "mouth": (11, 12, 13)}
"""BiSeNet's labels of what every face has. Glasses (6) stand for both eyes."""
_GLASSES = 6
_LEAST_SEEN = 40
"""Pixels of the 512 × 512 crop, below which a part counts as hidden. An eye has some 800."""
_SHARPNESS_EDGE = 128


def quality(box: Matrix, keypoints: Floats, crop: NDArray[np.uint8], labels: NDArray[np.uint8]) -> dict[str, Any]:
    """Figures of one face.

    Args:
        box: [4], in pixels of the original image.
        keypoints: [5, 2], eyes, nose and corners of the mouth, in any one scale.
        crop: uint8 [512, 512, 3], the aligned face.
        labels: uint8 [512, 512], the parser's.

    Returns "face_pixels", the shorter edge of the box; "face_sharpness", the variance of the Laplacian of the crop in
    grey at 128 × 128; "face_yaw", degrees to the right of the picture, a guess from
    where the nose lies between the eyes; "face_hidden", parts that the parser did not see.
    """
    small = cv2.resize(
        cv2.cvtColor(np.ascontiguousarray(crop), cv2.COLOR_RGB2GRAY),
        (_SHARPNESS_EDGE,) * 2,
        interpolation=cv2.INTER_AREA,
    )
    seen = np.bincount(labels.ravel(), minlength=256)
    glasses = seen[_GLASSES] >= _LEAST_SEEN
    hidden = [
        part
        for part, numbers in _PARTS.items()
        if seen[list(numbers)].sum() < _LEAST_SEEN and not (glasses and part.endswith("eye"))
    ]
    return {
        "face_pixels": round(float(min(box[2] - box[0], box[3] - box[1])), 1),
        "face_sharpness": round(float(cv2.Laplacian(small, cv2.CV_64F).var()), 1),
        "face_yaw": _yaw(keypoints),
        "face_hidden": hidden,
    }


def _yaw(keypoints: Floats) -> float:
    """Degrees: the nose stands out from the eyes' line by about half their distance, and moves with the sine."""
    left, right, nose = (np.asarray(point, np.float64) for point in keypoints[:3])
    across = right - left
    width = float(np.hypot(*across))
    if width == 0:
        return 90.0
    offset = float((nose - (left + right) / 2) @ across) / width**2
    return round(math.degrees(math.asin(max(-1.0, min(1.0, 2 * offset)))), 1)
