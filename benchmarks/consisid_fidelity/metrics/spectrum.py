"""Radially averaged log amplitude of frames relative to frequency zero: a measure of fine detail.

The Δ log amplitude of Park & Kim, "How do vision transformers work" (2022), as in figure 3 of ConsisID's paper.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from consisid_runtime.mp4 import Frames

Floats = npt.NDArray[np.float64]

_LUMA = np.array((0.299, 0.587, 0.114))
_ROUNDING = 1 / 12
"""Variance, in squared levels, of rounding a channel to whole levels; a uint8 frame has no signal below it."""


class Spectrum(NamedTuple):
    """A radially averaged spectrum.

    Attributes:
        frequency: centres of the rings [K], as shares of the Nyquist frequency, up to 1.
        amplitude: natural logarithm of the amplitude relative to frequency zero [K], mean over a ring and over frames.
    """

    frequency: Floats
    amplitude: Floats


def relative_log_amplitude(frames: Frames) -> Spectrum:
    """The spectrum of a video's luma, averaged over frames.

    A Hann window suppresses the high frequencies caused by the discontinuity between opposite edges. The mean is
    subtracted first, so that frequency zero does not leak through the window into the first ring. Amplitudes are
    clamped from below to those of rounding to 8 bits. A ring is one frequency step of the shorter edge wide; corners
    beyond the Nyquist frequency are ignored.

    Args:
        frames: uint8 [F, H, W, 3], H and W at least 4.

    Raises `ValueError` for invalid shapes.
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
    """A periodic Hann window: a wave with a whole number of periods occupies only three frequencies."""
    return np.asarray(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size))
