"""Temporal stability of a video: flicker, and identity from frame to frame."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from consisid_runtime.mp4 import Frames


def flicker(frames: Frames) -> float | None:
    """Mean |x[t−1] − 2 x[t] + x[t+1]| over pixels and channels, in levels of 255; None below three frames.

    This second difference is 0 for brightness that changes linearly and largest for a pixel that alternates. Motion of
    textured objects also contributes, so only videos of the same scene can be compared.

    Args:
        frames: uint8 [F, H, W, 3].
    """
    if len(frames) < 3:
        return None
    levels = frames.astype(np.float32)
    return float(np.mean(np.abs(levels[:-2] - 2 * levels[1:-1] + levels[2:]), dtype=np.float64))


def identity_stability(embeddings: npt.NDArray[np.float32]) -> float | None:
    """Mean cosine similarity of the faces in neighbouring frames; None below two frames.

    Args:
        embeddings: [F, D], unit rows, zero for a frame without a face; a face that disappears lowers the stability.
    """
    if len(embeddings) < 2:
        return None
    return float(np.mean(np.sum(embeddings[:-1] * embeddings[1:], axis=1), dtype=np.float64))
