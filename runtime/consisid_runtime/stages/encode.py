"""The encode stage: moments of the latents of the portrait and, with `is_kps`, of the keypoint drawing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from consisid_runtime.plan import Plan

if TYPE_CHECKING:
    from consisid_runtime.bundle import Modules

Pixels = NDArray[np.uint8]

# Left eye, right eye, nose, left and right corner of the mouth; a limb joins each of the others to the nose.
_COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255))
_NOSE = 2
_LIMB_WIDTH, _LIMB_BRIGHTNESS, _POINT_RADIUS = 4, 0.6, 10


class Encoder:
    """Encodes what identifies the person at low frequency.

    Args:
        bundle: holds the vae_encoder module.
    """

    def __init__(self, bundle: Modules) -> None:
        self._encoder = bundle.module("vae_encoder")
        self._draws_keypoints = bundle.config.transformer.is_kps

    def __call__(self, portrait: Pixels, keypoints: NDArray[np.float32], plan: Plan) -> Tensor:
        """Draws no random numbers.

        Args:
            portrait: uint8 [h, w, 3] RGB of any size.
            keypoints: float32 [5, 2], (x, y) in pixels; used only where the transformer was trained with `is_kps`.

        Returns:
            float32 [1, 1 or 2, 2·C, plan.height/spatial, plan.width/spatial]: mean and log-variance of the portrait's
            latents, then of the drawing's.
        """
        images = [portrait]
        if self._draws_keypoints:
            images.append(draw_keypoints(keypoints, *portrait.shape[:2]))
        batch = torch.cat([_prepare(image, plan.height, plan.width) for image in images])
        return self._encoder({"image": batch})["moments"][None]


def draw_keypoints(keypoints: NDArray[np.float32], height: int, width: int) -> Pixels:
    """uint8 [height, width, 3] RGB: the five points on black, joined by dimmer limbs, as the reference draws them.

    Args:
        keypoints: float32 [5, 2], (x, y) in pixels; may lie outside of the image.
    """
    import cv2

    canvas = np.zeros((height, width, 3), np.uint8)
    nose = keypoints[_NOSE]
    for index in (0, 1, 3, 4):
        point = keypoints[index]
        across, down = point - nose
        middle = (point + nose) / 2
        half = int((across**2 + down**2) ** 0.5 / 2)
        limb = cv2.ellipse2Poly(
            (int(middle[0]), int(middle[1])),
            (half, _LIMB_WIDTH),
            int(math.degrees(math.atan2(down, across))),
            0,
            360,
            1,
        )
        cv2.fillConvexPoly(canvas, np.array(limb), [int(level * _LIMB_BRIGHTNESS) for level in _COLOURS[index]])
    for (x, y), colour in zip(keypoints, _COLOURS, strict=True):
        cv2.circle(canvas, (int(x), int(y)), _POINT_RADIUS, colour, cv2.FILLED)
    return canvas


def _prepare(image: Pixels, height: int, width: int) -> Tensor:
    """float32 [1, 3, height, width] in [-1, 1], stretched where the shape differs, as the reference does."""
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(resized, np.float32) / 255).permute(2, 0, 1)[None] * 2 - 1
