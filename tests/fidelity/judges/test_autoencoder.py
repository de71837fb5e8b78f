from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLCogVideoX

from consisid_fidelity.judges.autoencoder import Autoencoder
from consisid_fidelity.nano.evaluation_set import case
from consisid_runtime.pipeline import Pipeline


def test_the_reconstruction_equals_that_of_diffusers(
    checkpoint_of: Callable[..., Path], torch_bundle_of: Callable[..., Path]
) -> None:
    free = {"use_learned_positional_embeddings": False}  # accepts any size
    untrained, pipeline = checkpoint_of(**free), Pipeline.open(torch_bundle_of(**free), device="cpu")
    video = case(0).drawn(replace(pipeline.bundle.config.geometry, frames=9, height=32, width=48))
    found = Autoencoder(untrained, pipeline)(video)
    load: Any = AutoencoderKLCogVideoX.from_pretrained
    vae = load(untrained / "vae", dtype=torch.float32, low_cpu_mem_usage=False)
    with torch.inference_mode():
        pixels = torch.from_numpy(video).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
        whole = vae.decode(vae.encode(pixels).latent_dist.mode()).sample
    wanted = ((whole[0].permute(1, 2, 3, 0) / 2 + 0.5).clamp(0, 1) * 255).round().numpy()
    assert found.shape == video.shape and found.dtype == np.uint8
    assert np.abs(found - wanted).max() <= 1 and found.std() > 1
