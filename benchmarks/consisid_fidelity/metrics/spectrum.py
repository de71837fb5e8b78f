"""Radially averaged log amplitude of frames relative to frequency zero: how much fine detail a video has.

ConsisID's figure 3 in kind, as in Park & Kim, "How do vision transformers work" (2022): Δ log amplitude.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from consisid_runtime.video import Frames

Floats = npt.NDArray[np.float64]

_LUMA = np.array((0.299, 0.587, 0.114))
_ROUNDING = 1 / 12
"""Variance, in squared levels, of rounding a channel to whole levels: below it a uint8 frame says nothing."""


class Spectrum(NamedTuple):
    """frequency [K]: centres of the rings, as shares of Nyquist's, up to 1; amplitude [K]: natural logarithm of the
    amplitude relative to that of frequency zero, mean over a ring's places and over frames."""

    frequency: Floats
    amplitude: Floats


def relative_log_amplitude(frames: Frames) -> Spectrum:
    """The spectrum of a video's luma, frame by frame.

    A Hann window keeps the jump between opposite edges out of the high frequencies, and the mean is taken out first, so
    that frequency zero does not leak through the window into the first ring. Amplitudes below those of rounding
    to 8 bits count as these. Rings are one frequency step of the shorter edge wide; the corners beyond Nyquist's
    frequency are left out.

    Args:
        frames: uint8 [F, H, W, 3], H and W at least 4.

    Raises `ValueError` for other shapes.
    """
    if frames.ndim != 4 or frames.shape[-1] != 3 or not len(frames) or min(frames.shape[1:3]) < 4:
        raise ValueError(f"frames must be uint8 [F, H ≥ 4, W ≥ 4, 3], got {list(frames.shape)}")
    height, width = frames.shape[1:3]
    window = np.outer(_hann(height), _hann(width))
    down, across = np.meshgrid(np.fft.fftfreq(height), np.fft.fftfreq(width), indexing="ij")
    rings = min(height, width) // 2
    ring = np.round(np.hypot(down, across) * 2 * rings).astype(int)
    ring[(ring == 0) & (np.hypot(down, across) > 0)] = 1
    floor = np.sqrt(np.sum(window**2) * np.sum(_LUMA**2) * _ROUNDING)
    amplitude = np.zeros(rings)
    for frame in frames:
        luma = frame @ _LUMA
        mean = np.sum(luma * window) / np.sum(window)
        levels = np.log(np.maximum(np.abs(np.fft.fft2((luma - mean) * window)), floor))
        total = np.bincount(ring.ravel(), levels.ravel())[1 : rings + 1]
        amplitude += total / np.bincount(ring.ravel())[1 : rings + 1] - np.log(max(mean * np.sum(window), floor))
    return Spectrum(np.arange(1, rings + 1) / rings, amplitude / len(frames))


def _hann(size: int) -> Floats:
    """Periodic, so that a whole number of waves stays within three frequencies."""
    return np.asarray(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size))
