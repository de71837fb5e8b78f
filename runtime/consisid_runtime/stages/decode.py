"""The decode stage: latents in, frames out, chunk by chunk."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from consisid_runtime.engines import place_of
from consisid_runtime.engines.transfers import receive, send
from consisid_runtime.errors import NotFinite
from consisid_runtime.mp4 import Frames
from consisid_runtime.plan import Plan

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

    def __call__(self, latents: Tensor, plan: Plan) -> Frames:
        """float32 [1, plan.latent_frames, C, h, w] -> uint8 [plan.frames, plan.height, plan.width, 3] RGB.

        Raises `NotFinite` as `chunks`.
        """
        return np.concatenate([*self.chunks(latents, plan)])

    def chunks(self, latents: Tensor, plan: Plan) -> Iterator[Frames]:
        """The same frames in order, a chunk as soon as it is decoded.

        Never holds more than one chunk of frames in floating point. A GPU decodes the next chunk while one is yielded.
        Raises `NotFinite` rather than yield black.
        """
        _require("the denoiser", latents.isfinite().all())
        latents = send(latents, place_of(self._first)).transpose(1, 2) * self._scale
        arriving = deque[Callable[[], list[Tensor]]]()
        for chunk in self._decoded(latents, plan):
            arriving.append(receive((chunk.isfinite().all(), _levels(chunk))))
            # On a CPU a chunk is done when the call returns, and need not wait for the next one.
            ahead = int(chunk.device.type == "cuda")
            del chunk
            if len(arriving) > ahead:
                yield _arrived(arriving.popleft())
        while arriving:
            yield _arrived(arriving.popleft())

    def _decoded(self, latents: Tensor, plan: Plan) -> Iterator[Tensor]:
        """latents [1, C, F, h, w] -> frames [1, 3, n, H, W] about [-1, 1]."""
        outputs = self._first({"latents": latents[:, :, :_FIRST]})
        yield outputs.pop("frames")
        for start in range(_FIRST, plan.latent_frames, _NEXT):
            caches = {name.removeprefix("next_"): cache for name, cache in outputs.items()}
            outputs = self._next({"latents": latents[:, :, start : start + _NEXT], **caches})
            yield outputs.pop("frames")


def _levels(chunk: Tensor) -> Tensor:
    """Frames [1, 3, n, H, W] about [-1, 1] -> uint8 [n, H, W, 3]."""
    levels = (chunk[0].permute(1, 2, 3, 0) / 2 + 0.5).clamp(0, 1) * 255
    return levels.round().to(torch.uint8)


def _arrived(wait: Callable[[], list[Tensor]]) -> Frames:
    finite, levels = wait()
    _require("the decoder", finite)
    return levels.numpy()


def _require(source: str, finite: Tensor) -> None:
    if not finite:
        raise NotFinite(
            f"{source} returned values that are not finite; nothing was written. Try less guidance, or a bundle "
            "exported with higher precision"
        )
