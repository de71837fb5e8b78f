"""Reconstructs a video with the checkpoint's VAE: the upper bound of every figure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from consisid_runtime.errors import MissingExtra
from consisid_runtime.mp4 import Frames
from consisid_runtime.options import Options
from consisid_runtime.pipeline import Pipeline
from consisid_runtime.plan import plan
from consisid_runtime.stages.decode import Decoder


class Autoencoder:
    """Encodes videos with diffusers' VAE, since a bundle encodes single pictures only, and decodes with the bundle.

    Args:
        checkpoint: folder in the official layout.
        pipeline: of a bundle exported from this checkpoint.

    Raises `MissingExtra` without diffusers.
    """

    def __init__(self, checkpoint: Path, pipeline: Pipeline) -> None:
        try:
            from diffusers import AutoencoderKLCogVideoX
        except ImportError as missing:
            raise MissingExtra(
                f"encoding videos needs diffusers ({missing}): pip install 'consisid-runtime[bench]'"
            ) from missing
        load: Any = AutoencoderKLCogVideoX.from_pretrained
        self._vae = load(checkpoint / "vae", dtype=torch.float32, local_files_only=True, low_cpu_mem_usage=False).eval()
        self._decode: Decoder = pipeline.stages["decode"]
        self._geometry = pipeline.bundle.config.geometry

    @torch.inference_mode()
    def __call__(self, frames: Frames) -> Frames:
        """Reconstruct frames, uint8 [F, H, W, 3] RGB, from the mean of the posterior; returns the same shape.

        Raises `InvalidOption` as `plan` does.
        """
        size = Options(frames=frames.shape[0], height=frames.shape[1], width=frames.shape[2])
        pixels = torch.from_numpy(frames).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
        latents = self._vae.encode(pixels).latent_dist.mode() * self._vae.config.scaling_factor
        return self._decode(latents.transpose(1, 2), plan(size, self._geometry))
