"""Distances of a video to a reference video of the same person, prompt and noise."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from skimage.metrics import structural_similarity

from consisid_runtime.mp4 import Frames

MAX_PSNR = 100.0
"""dB assigned to equal videos, so that a mean over videos stays finite; one level in one of 10⁵ values is 98 dB."""
_SSIM_WINDOW = 11


def psnr(frames: Frames, reference: Frames) -> float:
    """Peak signal-to-noise ratio in dB, 10 log₁₀(255² / mean squared error over the whole video), at most `MAX_PSNR`.

    Args:
        frames, reference: uint8 [F, H, W, 3].

    This and the functions below raise `ValueError` for invalid or unequal shapes.
    """
    _require_pair(frames, reference)
    error = float(np.mean((frames.astype(np.float64) - reference) ** 2))
    return MAX_PSNR if error == 0 else min(MAX_PSNR, float(10 * np.log10(255**2 / error)))


def ssim(frames: Frames, reference: Frames) -> float:
    """Structural similarity, mean over frames and channels, with the Gaussian window of Wang et al. (2004).

    Args:
        frames, reference: uint8 [F, H, W, 3], H and W at least 11.
    """
    _require_pair(frames, reference)
    if min(frames.shape[1:3]) < _SSIM_WINDOW:
        raise ValueError(f"structural similarity needs frames of at least 11×11 pixels, got {list(frames.shape)}")
    scores = [
        structural_similarity(  # type: ignore[no-untyped-call]
            one, other, channel_axis=-1, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        for one, other in zip(frames, reference, strict=True)
    ]
    return float(np.mean(scores))


def relative_distance(latents: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    """‖latents − reference‖ / ‖reference‖ of two arrays of equal shape; not finite when an input is not finite.

    Raises `ValueError` for unequal shapes or a reference of zeros.
    """
    found, wanted = np.asarray(latents, np.float64), np.asarray(reference, np.float64)
    if found.shape != wanted.shape or not found.size:
        raise ValueError(f"latents must have equal shapes, got {list(found.shape)} and {list(wanted.shape)}")
    size = np.linalg.norm(wanted)
    if size == 0:
        raise ValueError("the reference latents are all zero; the relative distance is undefined")
    return float(np.linalg.norm(found - wanted) / size)


def _require_pair(frames: Frames, reference: Frames) -> None:
    for name, video in (("frames", frames), ("reference", reference)):
        if video.dtype != np.uint8 or video.ndim != 4 or video.shape[-1] != 3 or not video.size:
            raise ValueError(f"{name} must be uint8 [F, H, W, 3], got {video.dtype} {list(video.shape)}")
    if frames.shape != reference.shape:
        raise ValueError(
            f"both videos need equal frames, heights and widths, got {list(frames.shape)} and {list(reference.shape)}"
        )
