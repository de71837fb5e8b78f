"""The decode stage: latents in, frames out, chunk by chunk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from consisid_runtime.errors import NotFinite
from consisid_runtime.options import Plan

if TYPE_CHECKING:
    from consisid_runtime.bundle import Modules

_FIRST, _NEXT = 3, 2
"""Latents to a chunk, as the VAE was trained."""


class Decoder:
    """Decodes latents.

    Args:
        bundle: holds the vae_decoder_first and vae_decoder_next modules.
    """

    def __init__(self, bundle: Modules) -> None:
        self._first = bundle.module("vae_decoder_first")
        self._next = bundle.module("vae_decoder_next")
        self._scale = 1 / bundle.config.vae.scaling_factor

    def __call__(self, latents: Tensor, plan: Plan) -> NDArray[np.uint8]:
        """float32 [1, plan.latent_frames, C, h, w] -> uint8 [plan.frames, plan.height, plan.width, 3] RGB.

        Never holds more than one chunk of frames in floating point. Raises `NotFinite` rather than return black.
        """
        _require_finite("the denoiser", latents)
        latents = latents.transpose(1, 2) * self._scale
        video = np.empty((plan.frames, plan.height, plan.width, 3), np.uint8)
        outputs = self._first({"latents": latents[:, :, :_FIRST]})
        done = _store(outputs.pop("frames"), video, 0)
        for start in range(_FIRST, plan.latent_frames, _NEXT):
            caches = {name.removeprefix("next_"): cache for name, cache in outputs.items()}
            outputs = self._next({"latents": latents[:, :, start : start + _NEXT], **caches})
            done = _store(outputs.pop("frames"), video, done)
        return video


def _store(chunk: Tensor, video: NDArray[np.uint8], start: int) -> int:
    """Put frames [1, 3, n, H, W] about [-1, 1] into the video from frame `start`; returns the frame after them."""
    _require_finite("the decoder", chunk)
    levels = (chunk[0].permute(1, 2, 3, 0) / 2 + 0.5).clamp(0, 1) * 255
    stop = start + len(levels)
    video[start:stop] = levels.round().to(torch.uint8).numpy(force=True)
    return stop


def _require_finite(source: str, values: Tensor) -> None:
    if not values.isfinite().all():
        raise NotFinite(
            f"{source} returned values that are not finite; nothing was written. Try less guidance, or a bundle "
            "exported with higher precision"
        )
